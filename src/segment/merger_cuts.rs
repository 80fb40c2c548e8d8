//! Cuts that nobody ships become few: a gateway without an upstream, or with a link that is away for months.
//!
//! Owns: when cuts become one. Does not own: which (`merge_plan`), the steps (`merge`).
//! Invariants: those of [`super::Merger`], whose part this is; and what is under way, or was until it was given up, stays as it
//! is, since files of it may be upstream under its number.
//! On failure: as of any merge. What the ledger refuses, because a cut is shipped or dropped by then, is left alone.

use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::error::SegmentError;
use super::merge::{self, Refused, WithFiles};
use super::merge_plan::{LARGE_ROWS, next_cuts};
use super::merger::{Merged, Merger, Recorded, quietly};
use super::scrubber::condemn;
use super::sealer::blocking;
use crate::error::ErrorKind;
use crate::ledger::Waiting;
use crate::model::{CutNumber, MICROS_PER_DAY, Segment, SegmentName};

/// What was sealed later goes upstream as it is when the link comes back, the newest first.
const FRESH_MICROS: i64 = MICROS_PER_DAY;

/// Cuts that are looked at together: more than a merge takes at each level.
const AT_ONCE: usize = 1024;

/// What became of a plan.
enum Outcome {
    Merged(Vec<Segment>, usize),
    /// These are not what they were, or can't be merged.
    LeaveAlone(CutNumber),
    /// A source is gone.
    Changed,
    /// Not now.
    Later,
}

impl Merger {
    /// Merges all cuts that are due now. After each merge it rests `rest` times as long as it took.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn merge_waiting(&self, rest: u32, stop: &CancellationToken) -> Result<Merged, SegmentError> {
        let (mut merged, mut after) = (Merged::default(), 0);
        while !stop.is_cancelled() {
            let waiting = self.waiting(after).await?;
            let Some(cuts) = next_cuts(&waiting, |cut| !self.cuts_left_alone().contains(&cut)) else {
                // Those at the end may have neighbours among the next.
                match waiting.get(AT_ONCE / 2).filter(|_| waiting.len() == AT_ONCE) {
                    Some(middle) => after = middle.cut.number,
                    None => break,
                }
                continue;
            };
            let begun = Instant::now();
            match self.merge_cuts(cuts.to_vec(), stop).await? {
                Outcome::Merged(made, sources) => merged.add(&made, sources),
                Outcome::LeaveAlone(cut) => {
                    self.cuts_left_alone().insert(cut);
                }
                Outcome::Changed => {}
                Outcome::Later => {
                    merged.put_off = true;
                    break;
                }
            }
            tokio::time::sleep(begun.elapsed() * rest).await;
            self.remove_leaving().await?;
        }
        Ok(merged)
    }

    async fn waiting(&self, after: CutNumber) -> Result<Vec<Waiting>, SegmentError> {
        let ledger = self.setup.ledger.clone();
        let sealed_before = self.setup.clock.now().plus_micros(-fresh_micros());
        blocking(move || Ok(ledger.reader()?.waiting(after, sealed_before, LARGE_ROWS, AT_ONCE)?)).await
    }

    async fn with_files(&self, cuts: Vec<Waiting>) -> Result<Vec<WithFiles>, SegmentError> {
        let ledger = self.setup.ledger.clone();
        let find = move || {
            let reader = ledger.reader()?;
            let with_files = |Waiting { cut, .. }| Ok((reader.cut_segments(&cut.instance, cut.number)?, cut));
            let found = cuts.into_iter().map(|waiting| with_files(waiting).map(|(files, cut)| (cut, files)));
            found.collect::<Result<Vec<_>, SegmentError>>()
        };
        blocking(find).await
    }

    async fn merge_cuts(&self, cuts: Vec<Waiting>, stop: &CancellationToken) -> Result<Outcome, SegmentError> {
        let cuts = self.with_files(cuts).await?;
        let Some((instance, first)) = cuts.first().map(|(cut, _)| (cut.instance.clone(), cut.number)) else { return Ok(Outcome::Later) };
        let files = || cuts.iter().flat_map(|(_, files)| files);
        if !files().all(|file| self.setup.dir.verified().contains(&file.name)) {
            return Ok(Outcome::Later);
        }
        let (merger, bytes) = (self.clone(), files().map(|file| file.bytes).sum());
        let Some(_room) = blocking(move || Ok(merger.claim_room_for(bytes))).await? else {
            tracing::debug!(cuts = cuts.len(), "a merge of cuts waits until there is room for both");
            return Ok(Outcome::Later);
        };
        let _pin = self.setup.dir.pin(&files().map(|file| file.name.clone()).collect::<Vec<_>>());
        let (dir, stop) = (self.setup.dir.clone(), stop.clone());
        let made = move || merge::merge_cuts(&dir, &cuts, &stop).map(|(made, held)| (made, held.to_vec()));
        match quietly(made).await {
            Ok((made, held)) => {
                let numbers = held.iter().map(|(cut, _)| cut.number).collect();
                let sources: Vec<SegmentName> = held.into_iter().flat_map(|(_, files)| files).map(|file| file.name).collect();
                let call = self.setup.ledger.merge_cuts(instance, numbers, made.clone());
                Ok(match self.record(&made, sources, call).await? {
                    Recorded::Done(files) => Outcome::Merged(made, files),
                    Recorded::Stale => Outcome::LeaveAlone(first),
                    Recorded::Later => Outcome::Later,
                })
            }
            Err(Refused::Damaged(name, why)) => {
                condemn(&self.setup.ledger, &self.setup.dir, &self.setup.state, name, why).await?;
                Ok(Outcome::Changed)
            }
            Err(Refused::TooLong(_) | Refused::TooLongCut) => Ok(Outcome::LeaveAlone(first)),
            Err(Refused::Failed(error)) => match error.kind() {
                ErrorKind::Corrupt => {
                    tracing::error!(%error, cut = first, "cuts can't be merged and stay as they are");
                    Ok(Outcome::LeaveAlone(first))
                }
                ErrorKind::Broken => Err(error),
                _ => {
                    tracing::warn!(%error, "a merge of cuts is put off");
                    Ok(Outcome::Later)
                }
            },
        }
    }

    fn cuts_left_alone(&self) -> MutexGuard<'_, HashSet<CutNumber>> {
        self.cuts_left_alone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tests need not wait for a day.
fn fresh_micros() -> i64 {
    fail::fail_point!("merge.fresh", |_| 0);
    FRESH_MICROS
}
