//! The steps that make room, in their order: what is spare in the ledger's file, what is delivered, what is not.

use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::enforcer::Enforcer;
use super::error::RetentionError;
use super::plan::{Shortage, Situation};
use crate::config::WhenFull;
use crate::error::ErrorKind;
use crate::ledger::{Droppable, Evictable, Ledger, LedgerError, Reader};
use crate::model::SegmentName;
use crate::segment::{Demand, Removal, SegmentDir, SegmentError};

/// Segments or cuts that go in one transaction, so that it and the removals after it stay short.
pub(super) const AT_ONCE: usize = 64;

/// Cuts that are looked at in one pruning.
const PRUNED_AT_ONCE: usize = 1000;

/// Between two prunings when room is needed.
const PRUNE_PAUSE: Duration = Duration::from_secs(10);

/// Before files are tried again where one could not be removed.
const STUCK_PAUSE: Duration = Duration::from_secs(10);

/// What a step brought.
pub(super) enum Step {
    /// Some room, or news from the ledger: look again.
    Room,
    /// Nothing more has to go.
    Enough,
    /// Room is being made, for this reason.
    Later(String),
    /// Nothing more can go, for this reason.
    Nothing(String),
}

/// What became of a cut that was asked for.
pub(super) enum Sealing {
    /// It is being made.
    UnderWay,
    /// What was hot is sealed.
    Done,
    /// It can't be made.
    Failed(SegmentError),
}

/// What became of a call of the ledger.
enum Recorded<T> {
    Done(T),
    /// The ledger refuses because it knows better by now.
    Stale,
    /// The disk is full, without the reserve too.
    Full,
}

impl<T> Recorded<T> {
    fn done(self) -> Option<T> {
        match self {
            Self::Done(done) => Some(done),
            Self::Stale | Self::Full => None,
        }
    }

    /// What follows, if it is not done.
    fn otherwise(self) -> Result<T, Step> {
        match self {
            Self::Done(done) => Ok(done),
            Self::Stale => Err(Step::Room),
            Self::Full => Err(Step::Nothing("the disk is full, and nothing more can be recorded".to_owned())),
        }
    }
}

impl Enforcer {
    /// The next thing that makes room, if room is needed.
    pub(super) async fn step(&mut self, situation: &Situation) -> Result<Step, RetentionError> {
        // While readings are refused, a little more room than else.
        let seen = situation;
        let situation = if self.setup.space.refusal().is_some() { self.limits.with_margin(seen) } else { *seen };
        let short = self.limits.of_delivered(situation);
        let undelivered = self.limits.of_undelivered(situation);
        if short.is_none() {
            return Ok(Step::Enough);
        }
        if self.tidy(PRUNE_PAUSE).await? {
            return Ok(Step::Room);
        }
        let delivered = self.read(|reader| reader.evictable(None, AT_ONCE)).await?.unwrap_or_default();
        let count = short.covered_by(delivered.iter().map(|segment| (segment.bytes, segment.readings)));
        let reason = self.limits.reason(&situation, seen);
        if count > 0 {
            return self.evict(delivered.into_iter().take(count).collect(), &reason).await;
        }
        match self.setup.settings.when_full {
            _ if undelivered.is_none() => Ok(Step::Enough),
            WhenFull::Refuse | WhenFull::Thin => Ok(Step::Nothing(reason)),
            WhenFull::DropOldest => self.drop_undelivered(undelivered, reason).await,
        }
    }

    /// Space inside the ledger's file is given back, and rows that nobody needs go; whether that brought anything.
    pub(super) async fn tidy(&mut self, prune_pause: Duration) -> Result<bool, RetentionError> {
        let share = self.limits.ledger_share();
        let give_back = |ledger: Ledger| async move { ledger.give_back(share).await };
        if self.fill.free_bytes > share && self.record(give_back).await?.done().is_some() {
            return Ok(true);
        }
        if self.pruned.is_some_and(|last| last.elapsed() < prune_pause) {
            return Ok(false);
        }
        self.pruned = Some(Instant::now());
        let dir = self.setup.dir.clone();
        let gone = self.read(|reader| reader.gone(PRUNED_AT_ONCE)).await?.unwrap_or_default();
        let gone = blocking(move || {
            let mut surely = Vec::new();
            for cut in gone {
                match dir.are_gone(&cut.files) {
                    Ok(true) => surely.push((cut.instance, cut.number)),
                    Err(error) if error.kind() == ErrorKind::Broken => return Err(error.into()),
                    Ok(false) | Err(_) => {}
                }
            }
            Ok(surely)
        });
        let gone = gone.await?;
        let prune = |ledger: Ledger| {
            let gone = gone.clone();
            async move { ledger.prune(gone, share).await }
        };
        let pruned = self.record(prune).await?.done().unwrap_or_default();
        if pruned > 0 {
            tracing::debug!(pruned, "rows of the ledger that nobody needs are gone");
            self.pruned = None;
        }
        Ok(pruned > 0)
    }

    pub(super) async fn evict(&mut self, segments: Vec<Evictable>, why: &str) -> Result<Step, RetentionError> {
        let evict = |ledger: Ledger| {
            let names = segments.iter().map(|segment| segment.name.clone()).collect();
            async move { ledger.evict(names).await }
        };
        if let Err(step) = self.record(evict).await?.otherwise() {
            return Ok(step);
        }
        fail::fail_point!("retention.after_evict");
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        tracing::info!(segments = segments.len(), bytes, why, "evicted delivered segments");
        self.leaving.extend(segments.into_iter().map(|segment| (segment.name, segment.bytes)));
        self.met_full = None;
        Ok(Step::Room)
    }

    /// Nothing delivered is left. What is sealed goes, oldest first; else what is hot is sealed, or goes where even that is
    /// impossible.
    async fn drop_undelivered(&mut self, short: Shortage, reason: String) -> Result<Step, RetentionError> {
        let backlog = self.read(|reader| reader.backlog()).await?.unwrap_or_default();
        if backlog.bytes + self.fill.used_bytes < short.bytes {
            return Ok(Step::Nothing(format!("{reason}, and all that is not delivered would not make room enough")));
        }
        let why = format!("retention.when_full is drop_oldest, and {reason}");
        let cuts = self.read(|reader| reader.droppable(AT_ONCE)).await?.unwrap_or_default();
        let count = short.covered_by(cuts.iter().map(|cut| (cut.bytes, cut.readings)));
        if count > 0 {
            return self.drop_cuts(cuts.into_iter().take(count).collect(), why).await;
        }
        if self.fill.hot == 0 {
            return Ok(Step::Nothing(format!("{reason}, and nothing is left that may go")));
        }
        match self.seal().await {
            Sealing::UnderWay => Ok(Step::Later(reason)),
            Sealing::Done => Ok(Step::Room),
            Sealing::Failed(error) => {
                tracing::warn!(%error, "what is hot can't be sealed to make room");
                self.drop_hot(short, why).await
            }
        }
    }

    /// Asks for a cut of all that is hot, without waiting for it: the sealer may be busy, and the cap must be watched.
    pub(super) async fn seal(&mut self) -> Sealing {
        match self.sealing.take_if(|sealing| sealing.is_finished()) {
            Some(sealing) => match sealing.await {
                Ok(Ok(_)) => Sealing::Done,
                Ok(Err(error)) => Sealing::Failed(error),
                Err(_) => Sealing::UnderWay,
            },
            None => {
                let sealer = self.setup.sealer.clone();
                self.sealing.get_or_insert_with(|| tokio::spawn(async move { sealer.seal_now(Demand::Room).await }));
                Sealing::UnderWay
            }
        }
    }

    async fn drop_cuts(&mut self, cuts: Vec<Droppable>, why: String) -> Result<Step, RetentionError> {
        let drop_cuts = |ledger: Ledger| {
            let (names, why) = (cuts.iter().map(|cut| (cut.instance.clone(), cut.number)).collect(), why.clone());
            async move { ledger.drop_cuts(names, why).await }
        };
        if let Err(step) = self.record(drop_cuts).await?.otherwise() {
            return Ok(step);
        }
        fail::fail_point!("retention.after_drop");
        self.setup.state.note_drop(cuts.iter().map(|cut| cut.readings).sum());
        for cut in cuts {
            // The files of a cut share its size: what counts is their sum.
            let sizes = std::iter::once(cut.bytes).chain(std::iter::repeat(0));
            self.leaving.extend(cut.files.into_iter().zip(sizes));
        }
        self.met_full = None;
        Ok(Step::Room)
    }

    async fn drop_hot(&mut self, short: Shortage, why: String) -> Result<Step, RetentionError> {
        let bytes = short.bytes.max(1);
        let drop_hot = |ledger: Ledger| {
            let why = why.clone();
            async move { ledger.drop_hot(bytes, why).await }
        };
        match self.record(drop_hot).await?.otherwise() {
            Ok(readings) => self.setup.state.note_drop(readings),
            Err(step) => return Ok(step),
        }
        // What it took is room only outside the ledger's file.
        while let Recorded::Done(true) = self.record(|ledger| async move { ledger.give_back(0).await }).await? {}
        self.met_full = None;
        Ok(Step::Room)
    }

    /// Makes a call of the ledger; where the disk is full, again without the reserve.
    async fn record<T, F>(&mut self, call: impl Fn(Ledger) -> F) -> Result<Recorded<T>, RetentionError>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        let ledger = self.setup.ledger.clone();
        let mut outcome = call(ledger.clone()).await;
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Full) {
            self.meet_full();
            outcome = call(ledger).await;
        }
        match outcome {
            Ok(done) => Ok(Recorded::Done(done)),
            Err(error) if error.kind() == ErrorKind::Full => Ok(Recorded::Full),
            Err(LedgerError::Invalid(error)) => {
                tracing::debug!(error, "the ledger knows better than retention did; it looks again");
                Ok(Recorded::Stale)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads from the ledger on a blocking thread; `None` where the disk is too full even for that.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<Option<T>, RetentionError> {
        let ledger = self.setup.ledger.clone();
        match blocking(move || Ok(read(&ledger.reader()?)?)).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::Full => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the files that were let go of, but for those that somebody reads.
    pub(super) async fn remove_leaving(&mut self) -> Result<(), RetentionError> {
        if self.leaving.is_empty() || self.stuck.is_some_and(|last| last.elapsed() < STUCK_PAUSE) {
            return Ok(());
        }
        let (dir, leaving) = (self.setup.dir.clone(), std::mem::take(&mut self.leaving));
        let left = blocking(move || remove(&dir, leaving)).await?;
        self.stuck = left.error.as_ref().map(|_| Instant::now());
        if let Some(error) = left.error {
            tracing::warn!(%error, files = left.files.len(), "segments that were let go of can't be removed now; they are tried again");
        }
        self.leaving = left.files;
        Ok(())
    }
}

/// What could not be removed.
#[derive(Default)]
struct Left {
    files: Vec<(SegmentName, u64)>,
    /// Why one of them could not be, where nobody reads it.
    error: Option<SegmentError>,
}

/// Removes `files`.
fn remove(dir: &SegmentDir, files: Vec<(SegmentName, u64)>) -> Result<Left, RetentionError> {
    let mut left = Left::default();
    for (name, bytes) in files {
        match dir.remove(&name) {
            Ok(Removal::Removed | Removal::Absent) => {
                fail::fail_point!("retention.after_remove");
            }
            Ok(Removal::Pinned) => left.files.push((name, bytes)),
            Err(error) if error.kind() == ErrorKind::Broken => return Err(error.into()),
            Err(error) => {
                left.files.push((name, bytes));
                left.error = Some(error);
            }
        }
    }
    Ok(left)
}

/// Runs `work` where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RetentionError> + Send + 'static,
) -> Result<T, RetentionError> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(LedgerError::Broken(format!("retention panicked: {panic}")).into()))
}
