//! The worker: keeps the link, and decides when to try.
//!
//! A mode is a method that returns the next mode. Looking: is there a way? Pausing: there is, but an attempt failed, so
//! wait. Online: ship until there is nothing, then wait for a hint.
//!
//! While it looks, the next probe does not wait for the one before, whose first packet may have been lost in the outage.
//! They begin at most three quarters of `probe_interval` apart: what is left of it is for the cut and the put, so that the
//! newest readings are upstream within one interval of the way's return.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::UploadError;
use super::link::LinkMode;
use super::refusal::Doubt;
use super::shipping::Shipped;
use super::uploader::Inner;
use super::upstream::UpstreamError;
use crate::backoff::Backoff;
use crate::error::ErrorKind;
use crate::ledger::{LedgerError, Progress, Retry};
use crate::segment::Demand;

/// While idle: look whether the link still stands, and whether a hint was missed.
const IDLE_TICK: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(30) };

/// Probes that may be under way at a time.
pub(super) const MAX_PROBES: usize = 4;

/// Between two probes whatever asks for them: the kernel tells of a new link in many messages.
const MIN_PROBE_PAUSE: Duration = if cfg!(test) { Duration::from_millis(2) } else { Duration::from_millis(500) };

/// What the shipment under way may still take after the stop; less than the stage's deadline in [`crate::tasks`].
const STOP_TIME: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(8) };

/// The longest wait that upstream may ask for.
const MAX_ASKED_WAIT: Duration = Duration::from_secs(86_400);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Looking,
    Pausing,
    Online,
    Stopped,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    Hint,
    Network,
    Tick,
    Stop,
}

/// How long to wait after an attempt that failed.
#[derive(Debug, Clone, Copy)]
struct Pause {
    time: Duration,
    /// Hints don't shorten it, only a person does: upstream asked for it, or a person has to change something.
    strict: bool,
}

pub(super) struct Worker {
    inner: Arc<Inner>,
    stop: CancellationToken,
    backoff: Backoff,
    progress: watch::Receiver<Progress>,
    doubt: Doubt,
    /// What the attempt that failed last asks for.
    pause: Option<Pause>,
    /// Shipments refused since the last one that was delivered.
    refusals: u32,
    was_offline: bool,
}

impl Worker {
    pub(super) fn new(inner: Arc<Inner>, stop: CancellationToken) -> Self {
        let backoff = Backoff::new(inner.settings.retry_min.0, inner.settings.retry_max.0);
        let progress = inner.ledger.progress();
        Self { inner, stop, backoff, progress, doubt: Doubt::of_a_former_life(), pause: None, refusals: 0, was_offline: false }
    }

    /// Ships until the stop.
    pub(super) async fn run(mut self) -> Result<(), UploadError> {
        let mut mode = Mode::Looking;
        loop {
            mode = match mode {
                Mode::Looking => self.looking().await?,
                Mode::Pausing => self.pausing().await,
                Mode::Online => self.online().await?,
                Mode::Stopped => return Ok(()),
            };
        }
    }

    fn enter(&self, state: LinkMode) {
        self.inner.link.enter(state, self.inner.clock.now());
    }

    /// Looks for a way until there is one.
    async fn looking(&mut self) -> Result<Mode, UploadError> {
        // An offline link stays offline until a probe succeeds.
        self.enter(if self.was_offline { LinkMode::Offline } else { LinkMode::Probing });
        let inner = Arc::clone(&self.inner);
        let mut probes = FuturesUnordered::new();
        let (mut soonest, mut next, mut strict) = (Instant::now(), Instant::now(), false);
        loop {
            tokio::select! {
                Some(outcome) = probes.next() => match outcome {
                    Ok(()) => return Ok(self.found()),
                    Err(error) => {
                        let wait = self.no_way(error)?;
                        next = next.max(Instant::now() + wait);
                        strict = !wait.is_zero();
                    }
                },
                woken = self.wait(next, strict, true) => {
                    if woken == Woken::Stop {
                        return Ok(Mode::Stopped);
                    }
                    if probes.len() < MAX_PROBES {
                        sleep_until(soonest).await;
                        soonest = Instant::now() + MIN_PROBE_PAUSE;
                        probes.push(inner.probe());
                    }
                    next = Instant::now() + inner.probe_pause();
                }
            }
        }
    }

    /// A probe succeeded.
    fn found(&mut self) -> Mode {
        if self.refusals == 0 {
            self.inner.link.refused(None);
        }
        if self.was_offline || self.pause.is_none() { Mode::Online } else { Mode::Pausing }
    }

    /// A probe failed; how long the next has to wait, beyond the usual.
    fn no_way(&mut self, error: UploadError) -> Result<Duration, UploadError> {
        if error.kind() == ErrorKind::Broken {
            return Err(error);
        }
        if !std::mem::replace(&mut self.was_offline, true) {
            tracing::warn!(upstream = self.inner.upstream.describe(), %error, "the link is offline");
            self.enter(LinkMode::Offline);
        }
        self.inner.link.failed(error.to_string());
        Ok(match &error {
            UploadError::Upstream(UpstreamError::Busy { retry_after, .. }) => (*retry_after).min(MAX_ASKED_WAIT),
            UploadError::Upstream(UpstreamError::Permanent(_) | UpstreamError::Denied(_)) => {
                self.inner.link.refused(Some(error.to_string()));
                self.inner.settings.retry_max.0
            }
            _ => Duration::ZERO,
        })
    }

    async fn pausing(&mut self) -> Mode {
        self.enter(LinkMode::Probing);
        let Some(pause) = self.pause.take() else { return Mode::Online };
        match self.wait(Instant::now() + pause.time, pause.strict, false).await {
            Woken::Stop => Mode::Stopped,
            Woken::Hint | Woken::Network | Woken::Tick => Mode::Online,
        }
    }

    async fn online(&mut self) -> Result<Mode, UploadError> {
        self.enter(LinkMode::Online);
        self.pause = None;
        if std::mem::take(&mut self.was_offline) {
            tracing::info!(upstream = self.inner.upstream.describe(), "the link is online again");
            self.backoff.reset();
            self.reconnected().await?;
        }
        while !self.stop.is_cancelled() {
            let last_cut = self.progress.borrow_and_update().last_cut;
            let Some(outcome) = self.ship_next().await else { break };
            let came_back = self.inner.came_back.swap(false, Ordering::Relaxed);
            if came_back {
                self.reconnected().await?;
            }
            let failed = match outcome {
                Ok(Shipped::Delivered) => {
                    self.delivered().await?;
                    continue;
                }
                Ok(Shipped::Over) => continue,
                Ok(Shipped::Refused(reason)) => {
                    self.refusals += 1;
                    if self.refusals == 1 {
                        continue;
                    }
                    Err(UpstreamError::Permanent(reason).into())
                }
                Ok(Shipped::Nothing) => match self.idle(last_cut).await {
                    Woken::Stop => break,
                    Woken::Hint | Woken::Network => continue,
                    Woken::Tick => match self.stop.run_until_cancelled(self.inner.probe()).await {
                        None => break,
                        Some(outcome) => outcome,
                    },
                },
                // It failed with the way it took; there is another one now.
                Err(error @ UploadError::Upstream(UpstreamError::Ambiguous(_))) if came_back => {
                    self.inner.link.failed(error.to_string());
                    continue;
                }
                Err(error) => Err(error),
            };
            if let Err(error) = failed {
                return self.failed(error);
            }
        }
        Ok(Mode::Stopped)
    }

    /// One shipment; `None` if it took too long after the stop.
    async fn ship_next(&mut self) -> Option<Result<Shipped, UploadError>> {
        let stop = self.stop.clone();
        let too_late = async {
            stop.cancelled().await;
            sleep(STOP_TIME).await;
        };
        tokio::select! {
            outcome = self.inner.ship_next(&mut self.doubt) => Some(outcome),
            () = too_late => {
                tracing::info!("the shipment under way is left to the next start");
                None
            }
        }
    }

    /// A shipment is delivered: what was refused while everything was may have been refused for the same reason.
    async fn delivered(&mut self) -> Result<(), UploadError> {
        self.backoff.reset();
        self.inner.link.refused(None);
        if std::mem::take(&mut self.refusals) > 1 {
            self.inner.ledger.retry_refused(Retry::RefusedOnce).await?;
        }
        Ok(())
    }

    /// The link is back: what is hot is sealed now, and the newest is the next to go where the newest goes first.
    async fn reconnected(&mut self) -> Result<(), UploadError> {
        if let Some(sealer) = &self.inner.sealer
            && let Some(Err(error)) = self.stop.run_until_cancelled(sealer.seal_now(Demand::Reconnect)).await
        {
            // The sealer says so itself, and tries again.
            tracing::debug!(%error, "no cut at the reconnect");
        }
        self.inner.make_way(&self.doubt).await
    }

    /// An attempt failed.
    fn failed(&mut self, error: UploadError) -> Result<Mode, UploadError> {
        self.inner.link.failed(error.to_string());
        let upstream = self.inner.upstream.describe();
        let (time, strict, next) = match (&error, error.kind()) {
            (_, ErrorKind::Broken) => return Err(error),
            (UploadError::Upstream(UpstreamError::Busy { retry_after, .. }), _) => {
                let time = self.backoff.pause().max((*retry_after).min(MAX_ASKED_WAIT));
                tracing::warn!(upstream, %error, wait_s = time.as_secs(), "upstream asks for patience");
                (time, true, Mode::Pausing)
            }
            (_, ErrorKind::Transient | ErrorKind::Full) => {
                tracing::warn!(upstream, %error, "an upload failed and is tried again");
                (self.backoff.pause(), false, Mode::Looking)
            }
            // The ledger refuses what retention was quicker to take away: the next look sees it.
            (UploadError::Ledger(LedgerError::Invalid(_)), _) => {
                tracing::warn!(upstream, %error, "a shipment could not begin and is chosen anew");
                (self.backoff.pause(), false, Mode::Looking)
            }
            _ => {
                tracing::error!(upstream, %error, "uploads are refused; they are tried again, but a person should look");
                self.inner.link.refused(Some(error.to_string()));
                (self.inner.settings.retry_max.0, true, Mode::Pausing)
            }
        };
        self.pause = Some(Pause { time, strict });
        Ok(next)
    }

    /// Waits for a cut beyond `last_cut`, a hint, or the tick.
    async fn idle(&mut self, last_cut: u64) -> Woken {
        let mut progress = self.progress.clone();
        tokio::select! {
            woken = self.wait(Instant::now() + IDLE_TICK, false, false) => woken,
            changed = progress.wait_for(|progress| progress.last_cut != last_cut) => match changed {
                Ok(_) => Woken::Hint,
                Err(_) => Woken::Stop,
            },
        }
    }

    /// Waits for `until`, a hint (not if `strict`), a person, or news of the `network`.
    async fn wait(&self, until: Instant, strict: bool, network: bool) -> Woken {
        let calls = &self.inner.calls;
        tokio::select! {
            () = self.stop.cancelled() => Woken::Stop,
            () = calls.flush.notified() => Woken::Hint,
            () = calls.kick.notified(), if !strict => Woken::Hint,
            () = calls.network.notified(), if network => Woken::Network,
            () = sleep_until(until) => Woken::Tick,
        }
    }
}
