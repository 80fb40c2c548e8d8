//! The sealer: watches the journal and seals one cut after the other.
//!
//! Owns: when a cut is made. Does not own: the journal and the mark (the ledger), the files once they are recorded.
//! Invariants: one cut at a time; its files are verified and durable before the ledger records them; after the stop it
//! begins no cut. The ledger's progress is a hint, the tick the safety net.
//! On failure: `Full`, `Transient`, `Invalid` and `Corrupt` give the cut up, remove its files and try again after a
//! growing pause, while the journal keeps the rows; `Broken` ends the task, and with it the daemon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::directory::SegmentDir;
use super::error::SegmentError;
use super::gather::gather;
use super::policy::{Demand, Hot, Policy, Why};
use super::seal;
use super::state::SealerState;
use crate::clock::SharedClock;
use crate::config;
use crate::error::ErrorKind;
use crate::ledger::{Ledger, LedgerError, Progress};
use crate::memory;
use crate::model::{CutNumber, SealedCut, Seq, Timestamp};

/// First and longest pause after an attempt that failed.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long a cut waits for room below the cap, and how often it looks for it. Then it is made all the same: only what is
/// sealed can be delivered, and so make room.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// Demands that may wait; a person and the uploader make no more.
const MAX_DEMANDS: usize = 16;

struct Request {
    demand: Demand,
    reply: oneshot::Sender<Result<Option<CutNumber>, SegmentError>>,
}

/// Asks the sealer for a cut now. Cheap to clone.
#[derive(Clone)]
pub struct SealerHandle {
    to: mpsc::Sender<Request>,
}

impl SealerHandle {
    /// Seals all that is hot now, and the records not exported, and names the last cut made: `None` if there was nothing
    /// to seal, or at a reconnect that has to wait because there were too many; it is met when it is due.
    ///
    /// # Errors
    /// What kept it from sealing; it will try again by itself. [`SegmentError::Stopped`] when the daemon is stopping.
    pub async fn seal_now(&self, demand: Demand) -> Result<Option<CutNumber>, SegmentError> {
        let (reply, answer) = oneshot::channel();
        self.to.send(Request { demand, reply }).await.map_err(|_| SegmentError::Stopped)?;
        answer.await.map_err(|_| SegmentError::Stopped)?
    }
}

/// The worker.
pub struct Sealer {
    ledger: Ledger,
    dir: SegmentDir,
    max_readings: u64,
    policy: Policy,
    clock: SharedClock,
    state: Arc<SealerState>,
    requests: mpsc::Receiver<Request>,
    began: Instant,
    /// Added to the time since `began`, so that what was hot before has an age.
    offset: Duration,
    records_wait: bool,
    retry: Retry,
    /// Since when a cut waits for room.
    waits_since: Option<Duration>,
}

/// After failures: no attempt before `at`.
struct Retry {
    pause: Duration,
    at: Duration,
}

impl Sealer {
    /// A sealer and its handle.
    pub fn new(
        ledger: Ledger,
        dir: SegmentDir,
        settings: config::Segment,
        clock: SharedClock,
        state: Arc<SealerState>,
    ) -> (Self, SealerHandle) {
        let (to, requests) = mpsc::channel(MAX_DEMANDS);
        let sealer = Self {
            ledger,
            dir,
            max_readings: settings.seal_readings.max(1),
            offset: settings.seal_interval.0,
            policy: Policy::new(settings),
            clock,
            state,
            requests,
            began: Instant::now(),
            records_wait: false,
            retry: Retry { pause: RETRY_PAUSE.0, at: Duration::ZERO },
            waits_since: None,
        };
        (sealer, SealerHandle { to })
    }

    /// Seals until `stop`; finishes the cut under way.
    ///
    /// # Errors
    /// `Broken`: the disk or the ledger failed. Critical.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), SegmentError> {
        let mut progress = self.ledger.progress();
        let age = self.look().await?;
        let now = progress.borrow_and_update().clone();
        self.observe(&now, age);
        while !stop.is_cancelled() {
            let known = progress.borrow_and_update().clone();
            self.observe(&known, Duration::ZERO);
            let now = self.now();
            let due = self.policy.due(now).filter(|_| now >= self.retry.at);
            let waits = due.is_some() && self.waits_for_room();
            if let Some(why) = due.filter(|_| !waits) {
                if why == Why::Demand {
                    self.policy.admit(Demand::Reconnect, now);
                }
                self.attempt(why).await?;
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(request) = self.requests.recv() => self.answer(request, &stop).await?,
                changed = progress.changed() => changed.map_err(|_| LedgerError::Broken("it is closed".to_owned()))?,
                () = tokio::time::sleep(ROOM_PAUSE), if waits => {}
                () = tokio::time::sleep(self.policy.tick(now).max(self.retry.at.saturating_sub(now))), if !waits => {
                    self.look().await?;
                }
            }
        }
        Ok(())
    }

    /// Monotonic: nothing here reads the wall clock but for the age of what was hot before the start.
    fn now(&self) -> Duration {
        self.began.elapsed() + self.offset
    }

    /// Whether the next cut is to wait until there is room for it.
    fn waits_for_room(&mut self) -> bool {
        let now = self.now();
        let is_waiting = self.dir.space().is_overdrawn() && now.saturating_sub(*self.waits_since.get_or_insert(now)) < ROOM_PATIENCE;
        if !is_waiting {
            self.waits_since = None;
        }
        is_waiting
    }

    fn observe(&mut self, progress: &Progress, age: Duration) {
        let hot = Hot { mark: progress.mark, last_seq: progress.last_seq, records: self.records_wait };
        self.policy.observe(self.now(), hot, age);
    }

    /// Asks the ledger whether records wait, and how old the oldest hot batch is by the wall clock.
    async fn look(&mut self) -> Result<Duration, SegmentError> {
        let ledger = self.ledger.clone();
        let looked = blocking(move || {
            let reader = ledger.reader()?;
            let records = reader.records_after(reader.last_exported_record()?, 1)?;
            Ok((!records.is_empty(), reader.hot()?.0))
        });
        match looked.await {
            Ok((records_wait, oldest)) => {
                self.records_wait = records_wait;
                Ok(oldest.map_or(Duration::ZERO, |oldest| age(oldest, self.clock.now())))
            }
            Err(error) if error.kind() == ErrorKind::Broken => Err(error),
            Err(error) => {
                self.fail(&error);
                Ok(Duration::ZERO)
            }
        }
    }

    /// One cut because it is due. An error that passes is noted and tried again later.
    async fn attempt(&mut self, why: Why) -> Result<(), SegmentError> {
        match self.cut(why).await {
            Ok(Some(_)) => Ok(()),
            // The hint was ahead of the ledger, or the journal lacks what the hint counts: look again, but not at once.
            Ok(None) => {
                self.retry.at = self.now() + RETRY_PAUSE.0;
                Ok(())
            }
            Err(error) => self.fail_or_end(error),
        }
    }

    /// Meets a demand: cuts until all that was hot when it came is sealed.
    async fn answer(&mut self, request: Request, stop: &CancellationToken) -> Result<(), SegmentError> {
        self.state.note_demand();
        let mut last = None;
        let outcome = if self.policy.admit(request.demand, self.now()) {
            let target = self.ledger.progress().borrow().last_seq;
            loop {
                if stop.is_cancelled() {
                    break Err(SegmentError::Stopped);
                }
                // What retention asks for makes room; only the cuts that follow would take more.
                while (request.demand != Demand::Room || last.is_some()) && self.waits_for_room() && !stop.is_cancelled() {
                    tokio::time::sleep(ROOM_PAUSE).await;
                }
                match self.cut(Why::Demand).await {
                    Ok(Some((number, sealed_through))) => {
                        last = Some(number);
                        if sealed_through >= target && !self.records_wait {
                            break Ok(last);
                        }
                    }
                    Ok(None) => break Ok(last),
                    Err(error) => break Err(error),
                }
            }
        } else {
            Ok(None)
        };
        // Whoever asked may be gone; the cuts are made all the same.
        let _ = request.reply.send(outcome.clone());
        match outcome {
            Err(SegmentError::Stopped) | Ok(_) => Ok(()),
            Err(error) => self.fail_or_end(error),
        }
    }

    /// Makes one cut; `None` if there is nothing to seal. Gives its number and the new mark.
    async fn cut(&mut self, why: Why) -> Result<Option<(CutNumber, Seq)>, SegmentError> {
        let begun = Instant::now();
        let (ledger, dir, clock, max_readings) = (self.ledger.clone(), self.dir.clone(), Arc::clone(&self.clock), self.max_readings);
        let made = blocking(move || make(&ledger, &dir, &clock, max_readings)).await?;
        let Some(cut) = made else {
            self.look().await?;
            return Ok(None);
        };
        for segment in &cut.segments {
            self.dir.verified().insert(segment.name.clone());
        }
        if let Err(error) = self.ledger.finish_seal(cut.clone()).await {
            // After the other kinds nobody knows whether it was recorded: the next start finds out.
            if matches!(error.kind(), ErrorKind::Full | ErrorKind::Transient | ErrorKind::Invalid) {
                seal::discard(&self.dir, &cut.segments);
            }
            return Err(error.into());
        }
        fail::fail_point!("seal.after_ledger");
        self.state.note_seal();
        self.retry = Retry { pause: RETRY_PAUSE.0, at: Duration::ZERO };
        log(&cut, why, begun.elapsed());
        self.look().await?;
        Ok(Some((cut.number, cut.last_seq)))
    }

    fn fail_or_end(&mut self, error: SegmentError) -> Result<(), SegmentError> {
        let passes = match &error {
            // What the ledger found damaged in itself is not mended by trying again.
            SegmentError::Ledger(error) => !matches!(error.kind(), ErrorKind::Broken | ErrorKind::Corrupt),
            error => error.kind() != ErrorKind::Broken,
        };
        self.fail(&error);
        if passes { Ok(()) } else { Err(error) }
    }

    fn fail(&mut self, error: &SegmentError) {
        self.retry.at = self.now() + self.retry.pause;
        let retry_s = self.retry.pause.as_secs();
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Broken => tracing::error!(%error, retry_s, "sealing failed"),
            _ => tracing::warn!(%error, retry_s, "sealing failed; the journal keeps the readings"),
        }
        self.retry.pause = (self.retry.pause * 2).min(RETRY_PAUSE.1);
        self.state.note_failure(error.to_string());
    }
}

/// All of a cut but the ledger's transaction. Blocking.
fn make(ledger: &Ledger, dir: &SegmentDir, clock: &SharedClock, max_readings: u64) -> Result<Option<SealedCut>, SegmentError> {
    let instance = ledger.identity().instance;
    let Some(draft) = gather(&ledger.reader()?, instance, max_readings)? else { return Ok(None) };
    // By the end the folder counts its files.
    let _room = dir.space().overdraw(draft.bytes);
    let segments = seal::stage(dir, &draft)?.publish(dir)?;
    let cut = seal::sealed_cut(draft, segments, clock.now())?;
    // A cut takes some twenty megabytes for a second; glibc would keep them for the next, minutes later.
    memory::give_back();
    Ok(Some(cut))
}

/// Runs `work` where blocking is allowed. A panic of it is an error of this attempt, not the end of the daemon.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SegmentError> + Send + 'static,
) -> Result<T, SegmentError> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(SegmentError::Corrupt(format!("its work panicked: {error}"))))
}

/// How long ago `then` was; a clock that went back makes it zero.
fn age(then: Timestamp, now: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(now.0.saturating_sub(then.0)).unwrap_or(0))
}

fn log(cut: &SealedCut, why: Why, took: Duration) {
    let rows: u64 = cut.segments.iter().map(|segment| segment.rows).sum();
    let bytes: u64 = cut.segments.iter().map(|segment| segment.bytes).sum();
    let (files, took_ms) = (cut.segments.len(), took.as_millis() as u64);
    tracing::info!(
        cut = cut.number,
        first_seq = cut.first_seq,
        last_seq = cut.last_seq,
        rows,
        files,
        bytes,
        took_ms,
        why = why.as_str(),
        "sealed"
    );
    for (first, last, why) in &cut.damaged {
        tracing::error!(first_seq = first, last_seq = last, why, "readings are lost: their journal batch is damaged");
    }
}
