//! The pump: commits batches and tells the sources.
//!
//! Owns: the batch that gathers and the one under way. Does not own: sessions, series, the ledger.
//! Invariants: a receipt is settled only after the commit of its batch returned; deliveries are settled in the order in
//! which they came; one commit is under way at a time, and while it is, the next batch gathers.
//! On failure: a full disk holds the batch, and with it the acknowledgements, until retention has made room; any other
//! failure of the ledger ends the pump and with it the daemon.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::batcher::{Batcher, Gathered};
use super::decode::Decoder;
use super::delivery::Admitted;
use super::latest::Latest;
use super::once::Once;
use super::quarantine::Quarantine;
use super::state::PumpState;
use crate::clock::SharedClock;
use crate::config;
use crate::error::ErrorKind;
use crate::ledger::{Ledger, LedgerError};
use crate::model::Batch;
use crate::space::Space;

/// Pause before a batch is tried again on a full disk, and between two looks whether there is room.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Deliveries taken from the channel at a time.
const TAKEN_AT_ONCE: usize = 512;

/// What the pump goes by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What messages mean.
    pub decoder: Arc<Decoder>,
    /// When a batch is due.
    pub journal: config::Journal,
}

/// What the pump works with.
pub struct Parts {
    /// Its end of the intake.
    pub deliveries: mpsc::Receiver<Admitted>,
    /// Where batches go.
    pub ledger: Ledger,
    /// What messages mean, and when a batch is due; both may change.
    pub rules: watch::Receiver<Rules>,
    /// The series.
    pub latest: Arc<Latest>,
    /// Readings of routes that store once.
    pub once: Once,
    /// Wall time.
    pub clock: SharedClock,
    /// Where it says that the disk is full, and hears of room.
    pub space: Space,
    /// What it tells of itself.
    pub state: Arc<PumpState>,
}

/// The worker.
pub struct Pump {
    deliveries: mpsc::Receiver<Admitted>,
    ledger: Ledger,
    batcher: Batcher,
    latest: Arc<Latest>,
    quarantine: Quarantine,
    rules: watch::Receiver<Rules>,
    settings: config::Journal,
    clock: SharedClock,
    space: Space,
    state: Arc<PumpState>,
}

impl Pump {
    /// A pump whose quarantine is below `data_dir`.
    pub fn new(parts: Parts, data_dir: &Path) -> Self {
        let Parts { deliveries, ledger, mut rules, latest, once, clock, space, state } = parts;
        let Rules { decoder, journal: settings } = rules.borrow_and_update().clone();
        let batcher = Batcher::new(decoder, Arc::clone(&latest), once);
        Self { deliveries, ledger, batcher, latest, quarantine: Quarantine::new(data_dir), rules, settings, clock, space, state }
    }

    /// Runs until `stop`, then commits what is in the channel and ends.
    ///
    /// # Errors
    /// The ledger failed: nothing more may be acknowledged.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LedgerError> {
        let mut gathered = Gathered::default();
        let mut underway: Option<Underway> = None;
        let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
        loop {
            let due = gathered.due_in(&self.settings, Instant::now());
            if due == Some(Duration::ZERO) && underway.is_none() {
                underway = Some(self.start_commit(std::mem::take(&mut gathered)));
                continue;
            }
            tokio::select! {
                count = self.deliveries.recv_many(&mut taken, TAKEN_AT_ONCE), if !gathered.is_full(&self.settings) => {
                    if count == 0 {
                        break;
                    }
                    self.add(&mut gathered, &mut taken);
                }
                outcome = finish(&mut underway), if underway.is_some() => outcome?,
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() && underway.is_none() => {}
                () = stop.cancelled() => break,
            }
        }
        self.drain(gathered, underway).await
    }

    /// Commits and settles in a task of its own, so that the next batch gathers meanwhile.
    fn start_commit(&self, mut gathered: Gathered) -> Underway {
        let batch = Arc::new(std::mem::take(&mut gathered.batch));
        let (ledger, latest, state) = (self.ledger.clone(), Arc::clone(&self.latest), Arc::clone(&self.state));
        let space = self.space.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            commit(&ledger, &batch, &space, &state).await?;
            state.note_commit(begun.elapsed(), gathered.messages(), batch.readings.len());
            latest.add(&batch.readings);
            fail::fail_point!("pump.before_ack");
            gathered.settle();
            Ok(())
        })
    }

    /// The sources have stopped: what they handed in is committed.
    async fn drain(&mut self, mut gathered: Gathered, mut underway: Option<Underway>) -> Result<(), LedgerError> {
        self.deliveries.close();
        let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
        let mut more = true;
        while more || !gathered.is_empty() {
            while more && !gathered.is_full(&self.settings) {
                more = self.deliveries.recv_many(&mut taken, TAKEN_AT_ONCE).await > 0;
                self.add(&mut gathered, &mut taken);
            }
            finish(&mut underway).await?;
            underway = Some(self.start_commit(std::mem::take(&mut gathered)));
        }
        finish(&mut underway).await
    }

    /// New rules hold from the next message on.
    fn take_rules(&mut self) {
        if self.rules.has_changed().unwrap_or(false) {
            let Rules { decoder, journal } = self.rules.borrow_and_update().clone();
            self.batcher.decode_by(decoder);
            self.settings = journal;
        }
    }

    fn add(&mut self, gathered: &mut Gathered, taken: &mut Vec<Admitted>) {
        self.take_rules();
        let (arrived, source, now) = (self.clock.now(), self.clock.arrival_source(), Instant::now());
        self.state.note_arrival(arrived);
        self.state.note_taken(taken.len());
        for admitted in taken.drain(..) {
            let (quarantine, state) = (&mut self.quarantine, &self.state);
            let refused = self.batcher.add(gathered, admitted, source, now, |rejected| {
                tracing::debug!(topic = rejected.topic, reason = rejected.reason, "a message is rejected");
                state.note_reject(&rejected.reason);
                quarantine.keep(arrived, rejected.topic, &rejected.reason, rejected.payload);
            });
            if refused > 0 {
                self.state.note_series_refused(refused);
            }
        }
    }
}

/// A commit under way.
type Underway = JoinHandle<Result<(), LedgerError>>;

/// Waits for the commit under way, if there is one.
async fn finish(underway: &mut Option<Underway>) -> Result<(), LedgerError> {
    let Some(task) = underway.as_mut() else { return Ok(()) };
    let outcome = task.await.unwrap_or_else(|panic| Err(LedgerError::Broken(format!("a commit panicked: {panic}"))));
    *underway = None;
    outcome
}

/// Commits; on a full disk again and again, when retention has had its time and sees room. It must not be raced for what
/// it gives back to record an eviction.
async fn commit(ledger: &Ledger, batch: &Arc<Batch>, space: &Space, state: &PumpState) -> Result<(), LedgerError> {
    loop {
        match ledger.commit(Arc::clone(batch)).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Full => {
                if !state.note_full() {
                    tracing::error!(%error, "nothing is acknowledged until there is room");
                }
                space.report_full();
                tokio::time::sleep(FULL_PAUSE).await;
                while space.refusal().is_some() {
                    state.note_full();
                    tokio::time::sleep(FULL_PAUSE).await;
                }
            }
            Err(error) => return Err(error),
        }
    }
}
