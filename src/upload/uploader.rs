//! The uploader: the worker that keeps the link and sends one shipment after the other.
//!
//! Owns: the link's mode, when to try. Does not own: the steps of a shipment (`shipping`), what there is to ship (the
//! ledger). Invariants: everything it needs is in the ledger, so it may be ended and started again at any time.
//! On failure: it waits with backoff and tries again; only a broken ledger ends it.
//!
//! A mode is a method that returns the next mode. Online: ship until there is nothing, then wait for a hint. Probing: is
//! there a way? Pausing: there is, but an attempt failed, so wait. Offline: there is none, so look again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::UploadError;
use super::link::{LinkMode, LinkState};
use super::shipping::Shipped;
use super::upstream::{Upstream, UpstreamError};
use crate::backoff::Backoff;
use crate::clock::SharedClock;
use crate::config;
use crate::error::ErrorKind;
use crate::ledger::{Ledger, LedgerError, Progress, Reader};
use crate::segment::{Demand, SealerHandle, SealerState, SegmentDir};

/// While idle: look whether the link still stands, and whether a hint was missed.
const IDLE_TICK: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(30) };

/// Longest wait for the answer to a probe.
const PROBE_TIME: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(15) };

/// What an uploader works with.
pub struct Setup {
    /// What there is to ship, and what was.
    pub ledger: Ledger,
    /// Where the files are.
    pub dir: SegmentDir,
    /// Where they go.
    pub upstream: Arc<dyn Upstream>,
    /// Order, rate and pauses.
    pub settings: config::Upstream,
    /// The gateway's id, part of every key.
    pub gateway: String,
    /// For the times of manifests and status.
    pub clock: SharedClock,
    /// Where the state is shown.
    pub link: LinkState,
    /// Asked for a cut when the link is back, so that the newest readings are upstream soon.
    pub sealer: Option<SealerHandle>,
    /// Where damaged segments are counted.
    pub sealer_state: Arc<SealerState>,
}

/// The worker. Cheap to clone, so that a side task can be started again; run one at a time.
#[derive(Clone)]
pub struct Uploader {
    inner: Arc<Inner>,
}

/// Wakes the uploader. Cheap to clone.
#[derive(Clone)]
pub struct UploaderHandle {
    kick: Arc<Notify>,
}

impl UploaderHandle {
    /// Don't wait for the next attempt, probe or tick: try now.
    pub fn kick(&self) {
        self.kick.notify_one();
    }
}

pub(super) struct Inner {
    pub(super) ledger: Ledger,
    pub(super) dir: SegmentDir,
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) settings: config::Upstream,
    pub(super) gateway: String,
    pub(super) clock: SharedClock,
    pub(super) link: LinkState,
    pub(super) sealer_state: Arc<SealerState>,
    sealer: Option<SealerHandle>,
    kick: Arc<Notify>,
    /// Upstream knew us, since the start.
    known: AtomicBool,
}

impl Inner {
    /// Reads from the ledger on a blocking thread.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, UploadError> {
        let ledger = self.ledger.clone();
        Ok(self.block(move || read(&mut ledger.reader()?)).await??)
    }

    /// Runs `work` on a blocking thread.
    pub(super) async fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, UploadError> {
        tokio::task::spawn_blocking(work).await.map_err(|error| UploadError::Interrupted(error.to_string()))
    }

    /// Is there a way, and is the place ours? At the first use it is made ours.
    async fn probe(&self) -> Result<(), UploadError> {
        let silence = |_| UpstreamError::Ambiguous(format!("none within {PROBE_TIME:?}"));
        match tokio::time::timeout(PROBE_TIME, self.upstream.probe()).await.map_err(silence)? {
            Err(UpstreamError::Unmarked(_)) if self.is_first_use().await? => {
                tokio::time::timeout(PROBE_TIME, self.upstream.establish()).await.map_err(silence)??;
                tracing::info!(upstream = self.upstream.describe(), "upstream is used for the first time");
            }
            other => other?,
        }
        self.known.store(true, Ordering::Relaxed);
        self.link.reached(self.clock.now());
        Ok(())
    }

    /// Whether nothing was ever shipped from here, nor upstream seen: then a place that does not know us is simply new.
    async fn is_first_use(&self) -> Result<bool, UploadError> {
        Ok(!self.known.load(Ordering::Relaxed) && !self.read(|reader| reader.has_shipped()).await?)
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Probing,
    Pausing,
    Online,
    Offline,
    Stopped,
}

/// What ended a wait.
enum Woken {
    Hint,
    Tick,
    Stop,
}

impl Uploader {
    /// An uploader that runs when [`Uploader::run`] is called.
    pub fn new(setup: Setup) -> (Self, UploaderHandle) {
        let Setup { ledger, dir, upstream, settings, gateway, clock, link, sealer, sealer_state } = setup;
        let kick = Arc::new(Notify::new());
        let handle = UploaderHandle { kick: Arc::clone(&kick) };
        let inner =
            Inner { ledger, dir, upstream, settings, gateway, clock, link, sealer_state, sealer, kick, known: AtomicBool::new(false) };
        (Self { inner: Arc::new(inner) }, handle)
    }

    /// Ships until `stop`; the shipment under way is finished first.
    ///
    /// # Errors
    /// A broken ledger.
    pub async fn run(self, stop: CancellationToken) -> Result<(), UploadError> {
        let Self { inner } = self;
        let backoff = Backoff::new(inner.settings.retry_min.0, inner.settings.retry_max.0);
        let progress = inner.ledger.progress();
        // Once a start, so that whoever clears the way upstream has only to start the daemon again.
        if inner.read(|reader| Ok(!reader.set_aside()?.is_empty())).await? {
            inner.ledger.take_up_set_aside().await?;
        }
        let mut worker = Worker { inner, stop, backoff, progress, pause: None, was_offline: false };
        let mut mode = Mode::Probing;
        loop {
            mode = match mode {
                Mode::Probing => worker.probing().await?,
                Mode::Pausing => worker.pausing().await,
                Mode::Online => worker.online().await?,
                Mode::Offline => worker.offline().await,
                Mode::Stopped => return Ok(()),
            };
        }
    }
}

struct Worker {
    inner: Arc<Inner>,
    stop: CancellationToken,
    backoff: Backoff,
    progress: watch::Receiver<Progress>,
    /// How long to wait after the attempt that failed last.
    pause: Option<Duration>,
    was_offline: bool,
}

impl Worker {
    fn enter(&self, state: LinkMode) {
        self.inner.link.enter(state, self.inner.clock.now());
    }

    async fn probing(&mut self) -> Result<Mode, UploadError> {
        // An offline link stays offline until a probe succeeds.
        if !self.was_offline {
            self.enter(LinkMode::Probing);
        }
        let stop = self.stop.clone();
        tokio::select! {
            outcome = self.inner.probe() => match outcome {
                Ok(()) if self.pause.is_some() && !self.was_offline => Ok(Mode::Pausing),
                Ok(()) => Ok(Mode::Online),
                Err(error) => self.no_way(error),
            },
            () = stop.cancelled() => Ok(Mode::Stopped),
        }
    }

    /// A probe failed.
    fn no_way(&mut self, error: UploadError) -> Result<Mode, UploadError> {
        if error.kind() == ErrorKind::Broken {
            return Err(error);
        }
        self.inner.link.failed(error.to_string());
        if !self.was_offline {
            tracing::warn!(upstream = self.inner.upstream.describe(), %error, "the link is offline");
        }
        self.was_offline = true;
        Ok(Mode::Offline)
    }

    async fn offline(&mut self) -> Mode {
        self.enter(LinkMode::Offline);
        // Half of it at least, so that many gateways do not ask in step.
        let pause = self.inner.settings.probe_interval.0.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        match self.wait(pause).await {
            Woken::Stop => Mode::Stopped,
            Woken::Hint | Woken::Tick => Mode::Probing,
        }
    }

    async fn pausing(&mut self) -> Mode {
        let pause = self.pause.take().unwrap_or_default();
        match self.wait(pause).await {
            Woken::Stop => Mode::Stopped,
            Woken::Hint | Woken::Tick => Mode::Online,
        }
    }

    async fn online(&mut self) -> Result<Mode, UploadError> {
        self.enter(LinkMode::Online);
        self.pause = None;
        if std::mem::take(&mut self.was_offline) {
            tracing::info!(upstream = self.inner.upstream.describe(), "the link is online again");
            self.ask_for_a_cut().await;
        }
        while !self.stop.is_cancelled() {
            let last_cut = self.progress.borrow_and_update().last_cut;
            let outcome = match self.inner.ship_next().await {
                Ok(Shipped::One) => {
                    self.backoff.reset();
                    continue;
                }
                Ok(Shipped::Nothing) => match self.idle(last_cut).await {
                    Woken::Stop => break,
                    Woken::Hint => continue,
                    Woken::Tick => self.inner.probe().await,
                },
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                return self.failed(error);
            }
        }
        Ok(Mode::Stopped)
    }

    /// The link is back: what is hot is sealed first, so that the newest readings are the next to go.
    async fn ask_for_a_cut(&self) {
        let Some(sealer) = &self.inner.sealer else { return };
        tokio::select! {
            () = self.stop.cancelled() => {}
            sealed = sealer.seal_now(Demand::Reconnect) => match sealed {
                Ok(cut) => tracing::debug!(cut, "sealed at the reconnect"),
                // The sealer says so itself, and tries again.
                Err(error) => tracing::debug!(%error, "no cut at the reconnect"),
            },
        }
    }

    /// An attempt failed.
    fn failed(&mut self, error: UploadError) -> Result<Mode, UploadError> {
        self.inner.link.failed(error.to_string());
        let upstream = self.inner.upstream.describe();
        self.pause = Some(match error.kind() {
            ErrorKind::Broken => return Err(error),
            ErrorKind::Transient | ErrorKind::Full => {
                tracing::warn!(upstream, %error, "an upload failed and is tried again");
                self.backoff.pause()
            }
            // The ledger refuses what retention was quicker to take away: the next look sees it.
            _ if matches!(error, UploadError::Ledger(LedgerError::Invalid(_))) => {
                tracing::warn!(upstream, %error, "a shipment could not begin and is chosen anew");
                self.backoff.pause()
            }
            _ => {
                tracing::error!(upstream, %error, "an upload was refused; it is tried again, but a person should look");
                self.inner.settings.retry_max.0
            }
        });
        Ok(Mode::Probing)
    }

    /// Waits for a cut beyond `last_cut`, a kick, or the tick.
    async fn idle(&mut self, last_cut: u64) -> Woken {
        tokio::select! {
            () = self.stop.cancelled() => Woken::Stop,
            () = self.inner.kick.notified() => Woken::Hint,
            () = tokio::time::sleep(IDLE_TICK) => Woken::Tick,
            changed = self.progress.wait_for(|progress| progress.last_cut != last_cut) => match changed {
                Ok(_) => Woken::Hint,
                Err(_) => Woken::Stop,
            },
        }
    }

    /// Waits for `pause`, or a kick.
    async fn wait(&self, pause: Duration) -> Woken {
        tokio::select! {
            () = self.stop.cancelled() => Woken::Stop,
            () = self.inner.kick.notified() => Woken::Hint,
            () = tokio::time::sleep(pause) => Woken::Tick,
        }
    }
}
