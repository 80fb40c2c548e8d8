//! The uploader: what it works with, how it is woken, and the probe.
//!
//! Owns: what all steps of uploading share. Does not own: when to try (`worker`), the steps of a shipment (`shipping`),
//! how long to wait for an answer (`patience`). Invariants: everything it needs is in the ledger, so it may be ended and
//! started again at any time. On failure: it waits and tries again; only a broken ledger ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::UploadError;
use super::link::LinkState;
use super::patience::{Thrift, within};
use super::straggler::Straggler;
use super::upstream::{Upstream, UpstreamError};
use super::worker::Worker;
use crate::clock::SharedClock;
use crate::config;
use crate::ledger::{Ledger, LedgerError, Reader, Retry};
use crate::segment::{SealerHandle, SealerState, SegmentDir};

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
    calls: Arc<Calls>,
    ledger: Ledger,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) kick: Notify,
    pub(super) flush: Notify,
    pub(super) network: Notify,
}

impl UploaderHandle {
    /// Don't wait for the next attempt, probe or tick: try now, unless upstream asked for patience or refuses.
    pub fn kick(&self) {
        self.calls.kick.notify_one();
    }

    /// A person wants it now: also against what upstream asked for, and also what it refused.
    ///
    /// # Errors
    /// The ledger can't be written.
    pub async fn flush(&self) -> Result<(), LedgerError> {
        self.ledger.retry_refused(Retry::All).await?;
        self.calls.flush.notify_one();
        Ok(())
    }

    /// There may be a way again.
    pub fn network_changed(&self) {
        self.calls.network.notify_one();
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
    pub(super) thrift: Thrift,
    pub(super) straggler: Straggler,
    /// The link was gone under a put, and is back.
    pub(super) came_back: AtomicBool,
    pub(super) sealer: Option<SealerHandle>,
    pub(super) calls: Arc<Calls>,
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
    pub(super) async fn probe(&self) -> Result<(), UploadError> {
        match within(PROBE_TIME, self.upstream.probe()).await {
            Err(UpstreamError::Unmarked(_)) if self.is_first_use().await? => {
                within(PROBE_TIME, self.upstream.establish()).await?;
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

    /// Between two probes: half the interval at least, so that many gateways do not ask in step.
    pub(super) fn probe_pause(&self) -> Duration {
        self.settings.probe_interval.0.mul_f64(0.5 + rand::random::<f64>() / 4.0)
    }
}

impl Uploader {
    /// An uploader that runs when [`Uploader::run`] is called.
    pub fn new(setup: Setup) -> (Self, UploaderHandle) {
        let Setup { ledger, dir, upstream, settings, gateway, clock, link, sealer, sealer_state } = setup;
        let handle = UploaderHandle { calls: Arc::default(), ledger: ledger.clone() };
        let inner = Inner {
            ledger,
            dir,
            upstream,
            settings,
            gateway,
            clock,
            link,
            sealer_state,
            thrift: Thrift::default(),
            straggler: Straggler::default(),
            came_back: AtomicBool::new(false),
            sealer,
            calls: Arc::clone(&handle.calls),
            known: AtomicBool::new(false),
        };
        (Self { inner: Arc::new(inner) }, handle)
    }

    /// Ships until `stop`. The shipment under way is finished first, if that does not take too long; else the next start
    /// goes on with it.
    ///
    /// # Errors
    /// A broken ledger.
    pub async fn run(self, stop: CancellationToken) -> Result<(), UploadError> {
        let Self { inner } = self;
        // Once a start, so that whoever clears the way upstream has only to start the daemon again.
        if inner.read(|reader| reader.refusals()).await?.is_some() {
            inner.ledger.retry_refused(Retry::All).await?;
        }
        if inner.read(|reader| Ok(!reader.set_aside()?.is_empty())).await? {
            inner.ledger.take_up_set_aside().await?;
        }
        Worker::new(inner, stop).run().await
    }
}
