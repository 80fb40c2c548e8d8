//! The merger: keeps the number of files low by merging what is delivered, and cuts that nobody ships, so that a year stays
//! quick to query.
//!
//! Owns: when two files become one (of cuts that wait: `merger_cuts`). Does not own: which (`merge_plan`), the steps (`merge`),
//! how long anything is kept (retention).
//! Invariants: one merge at a time, on a thread that yields to all others; the merged file is verified and durable before the
//! ledger records it; its sources are removed only after that, and only when nobody reads them any more; nothing begins where
//! the disk or the cap would not hold both.
//! On failure: the merged file is removed and the sources stay. A damaged source is condemned as by the scrubber, and what
//! can't be merged is left alone until the next start.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::directory::{Removal, SegmentDir};
use super::error::SegmentError;
use super::merge::{self, Refused};
use super::merge_plan;
use super::scrubber::condemn;
use super::seal;
use super::sealer::blocking;
use super::state::SealerState;
use crate::clock::SharedClock;
use crate::config;
use crate::error::ErrorKind;
use crate::ledger::{Group, Ledger, LedgerError, Standing};
use crate::memory;
use crate::model::{CutNumber, Segment, SegmentName, ShipmentNumber};
use crate::space::Claim;

/// Between two looks, but after no less than a cut.
const LOOK_PAUSE: Duration = Duration::from_secs(60);

/// Longest time without a look: a day may be over.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// After a merge the thread rests so many times as long as it took, so that it is not felt.
const REST: u32 = 3;

/// Sources stay so long after their merge: whoever read the list of segments just before may still open them.
const GRACE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };

/// Priority of the thread, by the count of `nice`.
const NICENESS: i32 = 15;

/// What a merger works with.
pub struct MergerSetup {
    /// What there is to merge.
    pub ledger: Ledger,
    /// Where the files are.
    pub dir: SegmentDir,
    /// For what is over.
    pub clock: SharedClock,
    /// Where damaged segments are counted.
    pub state: Arc<SealerState>,
    /// Where everything is, for the room on its disk.
    pub data_dir: PathBuf,
    /// How often cuts are made.
    pub segment: config::Segment,
    /// What must stay free; it may change.
    pub retention: watch::Receiver<config::Retention>,
}

/// What was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Merged {
    /// Merges.
    pub merges: u64,
    /// Files that gave way.
    pub sources: u64,
    /// Rows written.
    pub rows: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Cuts that are due wait for room, or for their verification after the start.
    pub put_off: bool,
}

impl Merged {
    pub(super) fn add(&mut self, made: &[Segment], sources: usize) {
        let sum = |of: fn(&Segment) -> u64| made.iter().map(of).sum::<u64>();
        self.merges += 1;
        self.sources += sources as u64;
        self.rows += sum(|segment| segment.rows);
        self.bytes += sum(|segment| segment.bytes);
    }
}

/// The worker. Cheap to clone, for a task that may be started again.
#[derive(Clone)]
pub struct Merger {
    pub(super) setup: Arc<MergerSetup>,
    /// Sources that gave way, and since when.
    leaving: Arc<Mutex<Vec<(Instant, SegmentName)>>>,
    left_alone: Arc<Mutex<HashSet<SegmentName>>>,
    /// The same of cuts of the current instance.
    pub(super) cuts_left_alone: Arc<Mutex<HashSet<CutNumber>>>,
}

/// What became of a plan.
enum Outcome {
    Merged(Segment, usize),
    /// Not this time; the group looks different now.
    Changed,
    /// Not now.
    Later,
}

/// What became of the record of a merge.
pub(super) enum Recorded {
    /// It is true now; so many files gave way.
    Done(usize),
    /// A source is not what it was.
    Stale,
    /// Not now.
    Later,
}

impl Merger {
    /// A merger that has not looked yet.
    pub fn new(setup: MergerSetup) -> Self {
        Self { setup: Arc::new(setup), leaving: Arc::default(), left_alone: Arc::default(), cuts_left_alone: Arc::default() }
    }

    /// Merges until `stop`.
    ///
    /// # Errors
    /// The ledger or the disk failed. A side task: start it again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SegmentError> {
        let pause = LOOK_PAUSE.min(self.setup.segment.seal_interval.0);
        let mut looked: Option<(ShipmentNumber, Instant)> = None;
        let mut looked_at_waiting: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            self.remove_leaving().await?;
            // Files are merged when they are delivered, and when their day is over.
            let shipment = self.setup.ledger.progress().borrow().last_shipment;
            if looked.is_none_or(|(last, at)| last != shipment || at.elapsed() >= MAX_PAUSE) {
                self.merge_due(REST, &stop).await?;
                looked = Some((shipment, Instant::now()));
            }
            if looked_at_waiting.is_none_or(|at| at.elapsed() >= MAX_PAUSE) {
                let put_off = self.merge_waiting(REST, &stop).await?.put_off;
                looked_at_waiting = Some(Instant::now()).filter(|_| !put_off);
            }
        }
    }

    /// Merges all that is due now. After each merge it rests `rest` times as long as it took.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn merge_due(&self, rest: u32, stop: &CancellationToken) -> Result<Merged, SegmentError> {
        let mut merged = Merged::default();
        let ledger = self.setup.ledger.clone();
        for group in blocking(move || Ok(ledger.reader()?.groups()?)).await? {
            let mut standing = self.standing(group.clone()).await?;
            while let Some(sources) = self.next(&standing) {
                if stop.is_cancelled() {
                    return Ok(merged);
                }
                let begun = Instant::now();
                match self.merge(sources, stop).await? {
                    Outcome::Merged(segment, sources) => {
                        merged.add(std::slice::from_ref(&segment), sources);
                        replace(&mut standing, segment);
                    }
                    Outcome::Changed => standing = self.standing(group.clone()).await?,
                    Outcome::Later => break,
                }
                tokio::time::sleep(begun.elapsed() * rest).await;
                self.remove_leaving().await?;
            }
        }
        Ok(merged)
    }

    /// Removes the files of sources that nobody can be about to read any more; how many wait.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn remove_leaving(&self) -> Result<usize, SegmentError> {
        let merger = self.clone();
        let remove = move || {
            let due: Vec<_> = merger.leaving().extract_if(.., |(since, _)| since.elapsed() >= GRACE).collect();
            for (since, name) in due {
                if merger.setup.dir.remove(&name)? == Removal::Pinned {
                    merger.leaving().push((since, name));
                }
                fail::fail_point!("merge.after_remove");
            }
            Ok(merger.leaving().len())
        };
        blocking(remove).await
    }

    async fn standing(&self, group: Group) -> Result<Vec<Standing>, SegmentError> {
        let ledger = self.setup.ledger.clone();
        blocking(move || Ok(ledger.reader()?.standing(&group)?)).await
    }

    /// The sources of the next merge in a group. One that waits for its verification at the start waits whole.
    fn next(&self, group: &[Standing]) -> Option<Vec<Segment>> {
        let verified = self.setup.dir.verified();
        if !group.iter().all(|standing| verified.contains(&standing.segment.name)) {
            return None;
        }
        let left_alone = self.left_alone();
        merge_plan::next(group, |name| !left_alone.contains(name), self.setup.clock.now())
    }

    async fn merge(&self, sources: Vec<Segment>, stop: &CancellationToken) -> Result<Outcome, SegmentError> {
        let (merger, bytes) = (self.clone(), sources.iter().map(|source| source.bytes).sum());
        let Some(_room) = blocking(move || Ok(merger.claim_room_for(bytes))).await? else {
            tracing::debug!(files = sources.len(), "a merge waits until there is room for both");
            return Ok(Outcome::Later);
        };
        let names: Vec<_> = sources.iter().map(|source| source.name.clone()).collect();
        let _pin = self.setup.dir.pin(&names);
        let (dir, stop) = (self.setup.dir.clone(), stop.clone());
        let made = quietly(move || merge::merge(&dir, &sources, &stop).map(|(segment, held)| (segment, held.len()))).await;
        match made {
            Ok((segment, held)) => {
                let held: Vec<_> = names.into_iter().take(held).collect();
                let call = self.setup.ledger.finish_merge(segment.clone(), held.clone());
                Ok(match self.record(std::slice::from_ref(&segment), held, call).await? {
                    Recorded::Done(files) => Outcome::Merged(segment, files),
                    Recorded::Stale => Outcome::Changed,
                    Recorded::Later => Outcome::Later,
                })
            }
            Err(Refused::Damaged(name, why)) => {
                condemn(&self.setup.ledger, &self.setup.dir, &self.setup.state, name, why).await?;
                Ok(Outcome::Changed)
            }
            Err(Refused::TooLong(name)) => {
                self.left_alone().insert(name);
                Ok(Outcome::Changed)
            }
            Err(Refused::TooLongCut) => Ok(Outcome::Changed),
            Err(Refused::Failed(error)) => match error.kind() {
                ErrorKind::Corrupt => {
                    tracing::error!(%error, files = names.len(), "segments can't be merged and stay as they are");
                    self.left_alone().extend(names);
                    Ok(Outcome::Changed)
                }
                ErrorKind::Broken => Err(error),
                _ => {
                    tracing::warn!(%error, "a merge is put off");
                    Ok(Outcome::Later)
                }
            },
        }
    }

    /// Tells the ledger of the files `made`, by `call`; their sources leave.
    pub(super) async fn record(
        &self,
        made: &[Segment],
        sources: Vec<SegmentName>,
        call: impl Future<Output = Result<(), LedgerError>>,
    ) -> Result<Recorded, SegmentError> {
        made.iter().for_each(|segment| self.setup.dir.verified().insert(segment.name.clone()));
        if let Err(error) = call.await {
            // After the other kinds nobody knows whether it was recorded: the next start finds out.
            if matches!(error.kind(), ErrorKind::Full | ErrorKind::Transient | ErrorKind::Invalid) {
                seal::discard(&self.setup.dir, made);
            }
            return match error.kind() {
                // Retention, the uploader or the scrubber took a source away meanwhile.
                ErrorKind::Invalid => Ok(Recorded::Stale),
                ErrorKind::Full | ErrorKind::Transient => Ok(Recorded::Later),
                _ => Err(error.into()),
            };
        }
        let (files, now) = (sources.len(), Instant::now());
        for segment in made {
            tracing::info!(segment = %segment.name, files, rows = segment.rows, bytes = segment.bytes, "merged");
        }
        self.leaving().extend(sources.into_iter().map(|name| (now, name)));
        Ok(Recorded::Done(files))
    }

    /// Room for a file of `bytes` beside what is there, if it fits. Blocking.
    pub(super) fn claim_room_for(&self, bytes: u64) -> Option<Claim> {
        let MergerSetup { data_dir, retention, dir, .. } = &*self.setup;
        let min_free = retention.borrow().min_free.0;
        // A disk that can't be asked sets no limit.
        let fits_the_disk = rustix::fs::statvfs(data_dir).is_ok_and(|disk| {
            let (size, free) = (disk.f_blocks.saturating_mul(disk.f_frsize), disk.f_bavail.saturating_mul(disk.f_frsize));
            free >= bytes.saturating_add(min_free.min(size / 2))
        });
        fits_the_disk.then(|| dir.space().try_claim(bytes)).flatten()
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<(Instant, SegmentName)>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left_alone(&self) -> MutexGuard<'_, HashSet<SegmentName>> {
        self.left_alone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a group looks like after a merge, without asking the ledger again.
fn replace(group: &mut Vec<Standing>, merged: Segment) {
    let Some(first) = group.iter().position(|standing| merged.name.holds(&standing.segment.name)) else { return };
    let gone: Vec<_> = group.extract_if(.., |standing| merged.name.holds(&standing.segment.name)).collect();
    if let Some(sealed) = gone.iter().map(|standing| standing.sealed).max() {
        group.insert(first, Standing { segment: merged, sealed, is_delivered: true });
    }
}

/// Runs `work` on a thread that yields to all others, and gives freed memory back after it.
pub(super) async fn quietly<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refused> + Send + 'static) -> Result<T, Refused> {
    let (reply, answer) = oneshot::channel();
    let spawned = thread::Builder::new().name("merger".to_owned()).spawn(move || {
        // Of this thread alone; without it the merge is felt more, and that is all.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let _ = reply.send(work());
        memory::give_back();
    });
    spawned.map_err(|error| SegmentError::Transient(format!("no thread is left to merge: {error}")))?;
    answer.await.unwrap_or_else(|_| Err(SegmentError::Corrupt("merging panicked".to_owned()).into()))
}
