//! The enforcer: the worker that looks, makes room, and says whether readings are taken.
//!
//! Owns: the order of the steps. Does not own: how much must go (`plan`). Between the record that something goes and the
//! removal of its files a query may still read them; they are removed when it has ended.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::RetentionError;
use super::making_room::{AT_ONCE, Step, blocking};
use super::plan::{Limits, Situation};
use super::reserve::Reserve;
use super::state::{RetentionState, Room};
use super::steady::Steady;
use super::usage::{self, Usage};
use crate::clock::SharedClock;
use crate::config;
use crate::ledger::{Fill, Ledger};
use crate::model::{CutNumber, SegmentName};
use crate::segment::{SealerHandle, SegmentDir, SegmentError};
use crate::space::Space;

/// How long a full disk is believed whatever the figures say: then whoever met it may try again.
const FULL_TIME: Duration = Duration::from_secs(10);

/// Steps of one round; what is left to do is done in the next, so that a stop is heard.
const STEPS: usize = 16;

/// The next look: while files wait for their readers or a cut is made, while readings are refused, and after a hint.
const LEAVING_PAUSE: Duration = Duration::from_millis(250);
const REFUSING_PAUSE: Duration = Duration::from_secs(1);
const HINT_PAUSE: Duration = Duration::from_millis(200);
const LOW_PAUSE: Duration = Duration::from_millis(10);

/// Between two prunings on ordinary days.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);

/// Between two cuts made because the ledger has grown large.
const SEAL_PAUSE: Duration = Duration::from_secs(10);

/// The longest time for which the wall clock must have run evenly before anything goes because of its age.
const STEADY_TIME: Duration = Duration::from_secs(3600);

/// What an enforcer works with.
pub struct Setup {
    /// What may go, and where it is recorded.
    pub ledger: Ledger,
    /// Where the files are.
    pub dir: SegmentDir,
    /// Asked for a cut where the journal itself is what takes the room.
    pub sealer: SealerHandle,
    /// Everything in it counts.
    pub data_dir: PathBuf,
    /// The limits.
    pub settings: config::Retention,
    /// Where new ones come from.
    pub changes: watch::Receiver<config::Retention>,
    /// For ages.
    pub clock: SharedClock,
    /// Where it says whether readings are taken.
    pub space: Space,
    /// What it tells of itself.
    pub state: Arc<RetentionState>,
}

/// The worker.
pub struct Enforcer {
    pub(super) setup: Setup,
    pub(super) limits: Limits,
    usage: Arc<Mutex<Usage>>,
    reserve: Reserve,
    steady: Steady,
    began: Instant,
    /// Files that were let go of and are still here, with their sizes.
    pub(super) leaving: Vec<(SegmentName, u64)>,
    /// When one of them could not be removed.
    pub(super) stuck: Option<Instant>,
    /// Of the ledger's file, at the last look.
    pub(super) fill: Fill,
    /// When somebody met a full disk, and no room was made since.
    pub(super) met_full: Option<Instant>,
    /// When rows were pruned last, and none were left.
    pub(super) pruned: Option<Instant>,
    /// When nothing was too old.
    aged: Option<Instant>,
    /// When the ledger was too large and its journal sealed.
    sealed: Option<Instant>,
    /// A cut that was asked for.
    pub(super) sealing: Option<JoinHandle<Result<Option<CutNumber>, SegmentError>>>,
}

impl Enforcer {
    /// An enforcer that has not looked yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            limits: Limits::new(&setup.settings),
            usage: Arc::new(Mutex::new(Usage::new(setup.data_dir.clone()))),
            reserve: Reserve::find(&setup.data_dir),
            steady: Steady::default(),
            began: Instant::now(),
            leaving: Vec::new(),
            stuck: None,
            fill: Fill::default(),
            met_full: None,
            pruned: None,
            aged: None,
            sealed: None,
            sealing: None,
            setup,
        }
    }

    /// Keeps the limits until `stop`.
    ///
    /// # Errors
    /// The disk or the ledger failed. Critical.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RetentionError> {
        let mut progress = self.setup.ledger.progress();
        while !stop.is_cancelled() {
            progress.mark_unchanged();
            self.round().await?;
            let pause = self.pause();
            let hint = async {
                tokio::time::sleep(HINT_PAUSE).await;
                // Its end is the ledger's, and the next round's to find.
                let _ = progress.changed().await;
            };
            let low = async {
                self.setup.space.ran_low().await;
                tokio::time::sleep(LOW_PAUSE).await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.setup.space.full_reported() => self.meet_full(),
                Ok(()) = self.setup.changes.changed() => self.take_limits(),
                () = low => {}
                () = hint => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    fn take_limits(&mut self) {
        self.setup.settings = self.setup.changes.borrow_and_update().clone();
        self.limits = Limits::new(&self.setup.settings);
    }

    /// How long to wait for a hint.
    fn pause(&self) -> Duration {
        match self.setup.space.refusal() {
            _ if !self.leaving.is_empty() || self.sealing.as_ref().is_some_and(|sealing| !sealing.is_finished()) => LEAVING_PAUSE,
            Some(_) => REFUSING_PAUSE,
            None => self.setup.settings.check_interval.0,
        }
    }

    /// Somebody met a full disk. First nothing more comes in, or it would take the room that the reserve gives.
    pub(super) fn meet_full(&mut self) {
        self.met_full = Some(Instant::now());
        self.setup.space.refuse("the disk is full");
        self.give_reserve_back();
    }

    /// One look, and what follows from it.
    pub(super) async fn round(&mut self) -> Result<Situation, RetentionError> {
        self.evict_aged().await?;
        self.remove_leaving().await?;
        let mut situation = self.look().await?;
        for _ in 0..STEPS {
            match self.step(&situation).await? {
                Step::Room => {
                    self.remove_leaving().await?;
                    situation = self.look().await?;
                }
                Step::Enough => {
                    self.be_at_ease(&situation).await?;
                    break;
                }
                Step::Later(why) => {
                    // Faster than room can be made nothing may come in.
                    if self.limits.is_over_cap(&situation) {
                        self.refuse(&format!("{why}; room is being made"));
                    }
                    break;
                }
                Step::Nothing(why) => {
                    self.refuse(&why);
                    break;
                }
            }
        }
        Ok(situation)
    }

    /// Measures, and says how much may be written until the next look.
    async fn look(&mut self) -> Result<Situation, RetentionError> {
        let claims = self.setup.space.claims();
        if let Some(fill) = self.read(|reader| reader.fill()).await? {
            self.fill = fill;
        }
        let (usage, dir, data_dir) = (Arc::clone(&self.usage), self.setup.dir.clone(), self.setup.data_dir.clone());
        let (ledger, ledger_bytes) = (self.setup.ledger.clone(), self.fill.used_bytes + self.fill.free_bytes);
        let measure = move || {
            let mut usage = usage.lock().unwrap_or_else(PoisonError::into_inner);
            // Where the ledger can't say it, a walk finds out.
            if usage.is_new()
                && let Ok(bytes) = ledger.reader().and_then(|reader| reader.segment_bytes(usage::BLOCK_BYTES))
            {
                usage.begin_with(bytes, &dir);
            }
            Ok((usage.measure(&dir, ledger_bytes), usage::disk(&data_dir)))
        };
        let (measured, disk) = blocking(measure).await?;
        // One that can't be asked sets no limit.
        let (disk_size, disk_free) = disk.map_or((u64::MAX, u64::MAX), |disk| (disk.size, disk.free));
        self.setup.state.note_room(Room {
            used_bytes: measured.used,
            quarantine_bytes: measured.quarantine,
            min_free_bytes: self.limits.wanted_free(disk_size),
        });
        let situation = Situation {
            used: measured.used,
            claimed: claims.under_way + claims.wanted,
            leaving: self.leaving.iter().map(|(_, bytes)| bytes).sum(),
            kept: self.fill.kept,
            disk_size,
            disk_free,
            without_reserve: !self.reserve.is_held(),
            met_full: self.met_full.is_some_and(|met| met.elapsed() < FULL_TIME),
        };
        self.setup.space.allow(claims.settled, self.limits.allowance(&situation));
        Ok(situation)
    }

    /// Delivered segments that are older than they may be, as far as the clock can be believed.
    async fn evict_aged(&mut self) -> Result<(), RetentionError> {
        let (clock, max_age) = (&self.setup.clock, self.setup.settings.max_age.0);
        let now = clock.now();
        let steady = self.steady.look(now, self.began.elapsed(), clock.synchronised());
        let is_due = self.aged.is_none_or(|last| last.elapsed() >= self.setup.settings.check_interval.0);
        if !is_due || steady < max_age.min(STEADY_TIME) {
            return Ok(());
        }
        let sealed_before = now.plus_micros(-i64::try_from(max_age.as_micros()).unwrap_or(i64::MAX));
        let aged = self.read(move |reader| reader.evictable(Some(sealed_before), AT_ONCE)).await?.unwrap_or_default();
        if aged.len() < AT_ONCE {
            self.aged = Some(Instant::now());
        }
        if !aged.is_empty() {
            self.evict(aged, "retention.max_age").await?;
        }
        Ok(())
    }

    /// All limits hold: readings are taken, and what has no hurry is done.
    async fn be_at_ease(&mut self, situation: &Situation) -> Result<(), RetentionError> {
        self.met_full = None;
        // What became of it is news only to who needs room.
        self.sealing.take_if(|sealing| sealing.is_finished());
        if !self.reserve.is_held() {
            self.reserve.hold();
            self.look_again();
        }
        if self.setup.space.admit() {
            tracing::info!(used = situation.used, disk_free = situation.disk_free, "there is room again: readings are taken");
        }
        self.tidy(PRUNE_INTERVAL).await?;
        let is_due = self.sealed.is_none_or(|last| last.elapsed() >= SEAL_PAUSE);
        if is_due && self.fill.hot > 0 && self.fill.used_bytes > self.limits.ledger_limit() {
            // Its failures are its own to tell, and it tries again.
            self.seal().await;
            self.sealed = Some(Instant::now());
        }
        Ok(())
    }

    fn refuse(&self, why: &str) {
        if self.setup.space.refuse(why) {
            tracing::error!(why, "no readings are taken until there is room");
        }
    }

    fn give_reserve_back(&mut self) {
        self.reserve.give_back();
        self.look_again();
    }

    fn look_again(&self) {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).look_again();
    }
}
