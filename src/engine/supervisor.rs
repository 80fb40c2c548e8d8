//! The supervisor: keeps one engine running.
//!
//! Owns: the engine's process, the requests that wait. Does not own: DuckDB, the journal, the segments.
//! Invariants: one engine is fed at a time; it holds nothing that is not in the ledger or in a segment, so killing it is
//! always right.
//! On failure: it is started again: at once where it had come to answer and held a moment, otherwise after a pause that
//! grows. Queries under way get an error, and so do those that come while none can be started; ingest notices nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::handle::{EngineHandle, NO_ENGINE, Request, SWITCHED_OFF};
use super::limits::{Limits, machine_memory};
use super::process::{Origin, Program};
use super::session::{Session, SessionEnd};
use super::state::{EngineState, Phase};
use crate::config;
use crate::ledger::Ledger;
use crate::segment::{SealerHandle, SegmentDir};

/// Longest pause before another start.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The pause after the second start in a row that did not succeed.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// An engine that answers and held this long begins afresh.
const STEADY: Duration = Duration::from_millis(500);

/// The supervisor. Cheap to clone; [`Engine::run`] of one clone at a time does the work.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    ledger: Ledger,
    dir: SegmentDir,
    sealer: SealerHandle,
    limits: Limits,
    origin: Origin,
    state: Arc<EngineState>,
    requests: Mutex<mpsc::Receiver<Request>>,
    absent: bool,
}

impl Engine {
    /// A supervisor and the handle to ask. `program` is what is started as the engine, unless `settings` name a unit; where more
    /// is hot than it can hold, `sealer` is asked for a cut.
    pub fn new(
        settings: &config::Engine,
        ledger: Ledger,
        dir: SegmentDir,
        sealer: SealerHandle,
        state: Arc<EngineState>,
        program: Program,
    ) -> (Self, EngineHandle) {
        let limits = Limits::of(settings, machine_memory());
        let absent = match (cfg!(feature = "engine"), settings.enabled) {
            (false, _) => Some(NO_ENGINE),
            (true, false) => Some(SWITCHED_OFF),
            (true, true) => None,
        };
        let (handle, requests) = EngineHandle::new(&limits, Arc::clone(&state), dir.verified().clone(), absent);
        let requests = Mutex::new(requests);
        let origin = settings.unit().map_or_else(|| Origin::Child(program), |socket| Origin::Unit(socket.to_owned()));
        state.update(|report| report.own_unit = matches!(origin, Origin::Unit(_)));
        let inner = Inner { ledger, dir, sealer, limits, origin, state, requests, absent: absent.is_some() };
        (Self { inner: Arc::new(inner) }, handle)
    }

    /// Keeps an engine running until it is told to stop.
    ///
    /// # Errors
    /// None: whatever ends the engine, it is started again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        if !self.inner.absent {
            // Only one at a time: a second run waits here for the first to end.
            let mut requests = self.inner.requests.lock().await;
            self.inner.state.update(|report| report.state = Phase::Starting);
            tokio::select! {
                () = self.keep_up(&mut requests) => (),
                () = stop.cancelled() => (),
            }
            self.inner.state.update(|report| report.state = Phase::Off);
            self.inner.state.process(None);
        } else {
            stop.cancelled().await;
        }
        Ok(())
    }

    async fn keep_up(&self, requests: &mut mpsc::Receiver<Request>) {
        let mut pause = Duration::ZERO;
        loop {
            let begun = Instant::now();
            if self.live(requests).await && begun.elapsed() >= STEADY {
                pause = Duration::ZERO;
            }
            self.rest(pause, requests).await;
            pause = next_pause(pause);
            self.inner.state.update(|report| report.restarts += 1);
        }
    }

    /// Waits before another start. Where there was nothing to start, who asks meanwhile is told so, and does not wait.
    async fn rest(&self, pause: Duration, requests: &mut mpsc::Receiver<Request>) {
        if self.inner.state.absence().is_none() {
            return tokio::time::sleep(pause).await;
        }
        let refusing = async {
            while let Some(request) = requests.recv().await {
                drop(request);
            }
            std::future::pending::<()>().await;
        };
        // Its end is the end of the pause.
        let _ = timeout(pause, refusing).await;
    }

    /// One engine, from its start to its end. Whether it answered.
    async fn live(&self, requests: &mut mpsc::Receiver<Request>) -> bool {
        let Inner { ledger, dir, sealer, limits, origin, state, .. } = &*self.inner;
        let (process, control) = match origin.start(dir.root()).await {
            Ok(started) => started,
            Err(error) => {
                tracing::warn!(error, "there is no engine");
                state.update(|report| (report.state, report.absence) = (Phase::Restarting, Some(error)));
                return false;
            }
        };
        tracing::debug!(pid = process.pid(), "the engine is started");
        state.update(|report| report.absence = None);
        state.process(process.pid());
        let session = Session::new(ledger.clone(), dir.clone(), sealer.clone(), *limits, Arc::clone(state), process.pid());
        let end = session.serve(control, requests).await;
        let answered = state.phase() == Phase::Ready;
        state.update(|report| (report.state, report.segments, report.rss_bytes) = (Phase::Restarting, 0, 0));
        state.process(None);
        let status = process.end().await;
        match end {
            SessionEnd::Feed(error) => tracing::warn!(%error, "the engine can't be fed and is started again"),
            end => tracing::warn!(why = %end, status, "the engine ended and is started again; no reading is lost by it"),
        }
        answered
    }
}

/// None before the first start again, then twice as long each time.
fn next_pause(pause: Duration) -> Duration {
    if pause.is_zero() { FIRST_PAUSE } else { (pause * 2).min(MAX_PAUSE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_again_is_at_once_and_the_pause_has_an_end() {
        let mut pauses = vec![Duration::ZERO];
        for _ in 0..9 {
            pauses.push(next_pause(pauses[pauses.len() - 1]));
        }
        assert_eq!(pauses[1], FIRST_PAUSE);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses[9], MAX_PAUSE);
    }
}
