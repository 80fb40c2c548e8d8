//! A session: the life of one engine, from its start to its end.
//!
//! Owns: the control socket, the queries under way. Does not own: the process, the requests that wait.
//! Invariants: before a query goes out, everything that is committed by then has gone out; what a query may read is
//! pinned until the engine says that it has ended.
//! On failure: it says why and ends; the supervisor ends the engine and begins another session. Queries under way see
//! their sockets close.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::codec::FramedRead;

use super::feed::{Depth, Feed, FeedError, Piece, Pulled};
use super::frame::{FROM_ENGINE, FrameReader};
use super::handle::{GRACE, Request};
use super::limits::Limits;
use super::orders::Orders;
use super::process::socket_pair;
use super::protocol::{Ask, Event, Opening, ToEngine, monotonic_ms};
use super::state::{EngineState, Phase};
use crate::ledger::{Ledger, Progress};
use crate::segment::{Demand, Pin, SealerHandle, SegmentDir};

/// Between two pulls while nobody asks: a commit a second needs no more.
const MIN_GAP: Duration = Duration::from_millis(200);

/// After a pull that nobody waited for the feed rests so many times as long as it took: where very much comes in, most of it
/// is sealed before anybody asks, and ingest needs the processor.
const REST: u32 = 4;

/// The safety net for hints that did not come.
const TICK: Duration = Duration::from_secs(5);

/// How often the watch looks at deadlines.
const LOOK: Duration = Duration::from_millis(100);

/// Between a cut that failed and the next that is asked for.
const SEAL_PAUSE: Duration = Duration::from_secs(5);

/// Longest time that the engine may need to take in what it was told. A full journal on a slow card takes some seconds.
const MAX_INTAKE: Duration = Duration::from_secs(60);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The feed.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The control socket.
    #[error("the control socket failed: {0}")]
    Socket(#[from] io::Error),
    /// It ended by itself.
    #[error("it ended")]
    Ended,
    /// It gave up.
    #[error("it gave up: {0}")]
    GaveUp(String),
    /// A query did not end at its limit, nor when it was told to.
    #[error("query {0} did not end at its limit")]
    Stuck(u64),
    /// It does not take what it is told.
    #[error("it took nothing in for {} seconds", MAX_INTAKE.as_secs())]
    Hangs,
}

/// A query under way.
struct Running {
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
    _pin: Arc<Pin>,
}

/// What feeding and watching share.
#[derive(Default)]
struct Shared {
    running: HashMap<u64, Running>,
    /// When the oldest intake began that the engine has not confirmed.
    intake_since: Option<Instant>,
    /// Commits sent and not confirmed.
    unconfirmed: usize,
    /// Whether DuckDB is open.
    opened: bool,
}

/// One session.
pub(super) struct Session {
    ledger: Ledger,
    dir: SegmentDir,
    sealer: SealerHandle,
    limits: Limits,
    state: Arc<EngineState>,
    /// `None`: it is not ours to look at.
    pid: Option<u32>,
    shared: Mutex<Shared>,
}

impl Session {
    pub(super) fn new(
        ledger: Ledger,
        dir: SegmentDir,
        sealer: SealerHandle,
        limits: Limits,
        state: Arc<EngineState>,
        pid: Option<u32>,
    ) -> Self {
        Self { ledger, dir, sealer, limits, state, pid, shared: Mutex::default() }
    }

    /// Serves `requests` with the engine on `control`; returns when it can't go on.
    pub(super) async fn serve(&self, control: UnixStream, requests: &mut mpsc::Receiver<Request>) -> SessionEnd {
        let (from, to) = control.into_split();
        let end = tokio::select! {
            end = self.feed(Orders::new(to), requests) => end,
            end = self.watch(from) => end,
        };
        match end {
            Ok(()) => SessionEnd::Ended,
            Err(end) => end,
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the engine what it must know, and hands it the queries. While it can't be told, they wait.
    async fn feed(&self, orders: Orders, requests: &mut mpsc::Receiver<Request>) -> Result<(), SessionEnd> {
        let (mut progress, mut verified) = (self.ledger.progress(), self.dir.verified().changes());
        let mut feeder = self.open(orders).await?;
        let (mut depth, mut waiting) = (Depth::Everything, Vec::new());
        loop {
            progress.mark_unchanged();
            verified.mark_unchanged();
            let begun = Instant::now();
            if self.catch_up(&mut feeder, depth).await? {
                for request in waiting.drain(..) {
                    self.ask(&mut feeder, request).await?;
                }
                depth = Depth::Readings;
            }
            waiting.retain(|request: &Request| !request.reply.is_closed());
            let rest = if waiting.is_empty() { (REST * begun.elapsed()).clamp(MIN_GAP, TICK) } else { Duration::ZERO };
            let gap = sleep_until(Instant::now() + rest);
            tokio::select! {
                biased;
                Some(request) = requests.recv() => {
                    waiting.push(request);
                    while let Ok(more) = requests.try_recv() {
                        waiting.push(more);
                    }
                    depth = Depth::Everything;
                }
                hinted = async { gap.await; timeout(TICK, hint(&mut progress, &mut verified)).await } => {
                    if hinted.is_err() {
                        feeder.distrust_segments();
                    }
                }
            }
        }
    }

    async fn open(&self, mut orders: Orders) -> Result<Feeder, SessionEnd> {
        self.shared().intake_since = Some(Instant::now());
        let Limits { memory_bytes, threads, .. } = self.limits;
        let opening = Opening { memory_bytes, threads, tells_memory: self.pid.is_none() };
        orders.send(&ToEngine::Open(opening), &[]).await?;
        let (ledger, dir, hot) = (self.ledger.clone(), self.dir.clone(), self.limits.hot());
        let feed = blocking(move || Feed::open(ledger, dir, hot)).await??;
        Ok(Feeder { feed: Some(feed), orders, attached: Arc::new(self.dir.pin(&[])), next_query: 1, sealing: None })
    }

    /// Pulls and sends until nothing is left; whether that could be done.
    async fn catch_up(&self, feeder: &mut Feeder, depth: Depth) -> Result<bool, SessionEnd> {
        let (pieces, mut pulled) = mpsc::channel::<Piece>(1);
        let pulling = feeder.start_pull(depth, pieces)?;
        while let Some(piece) = pulled.recv().await {
            self.shared().intake_since.get_or_insert_with(Instant::now);
            for (order, body) in &piece {
                if matches!(order, ToEngine::Commit(_)) {
                    self.shared().unconfirmed += 1;
                }
                feeder.orders.send(order, body).await?;
            }
        }
        let (feed, pulled) = pulling.await.map_err(io::Error::other)?;
        feeder.feed = Some(feed);
        let (excess, heavy) = match pulled? {
            Pulled::All { attached, waiting_segments, heavy } => {
                if let Some(pin) = attached {
                    feeder.attached = Arc::new(pin);
                }
                self.state.update(|report| report.waiting_segments = waiting_segments);
                (0, heavy)
            }
            Pulled::TooMuch(readings) => {
                self.shared().nothing_to_take_in();
                (readings, true)
            }
        };
        self.state.update(|report| report.excess_readings = excess);
        if heavy {
            feeder.ask_for_a_cut(&self.sealer);
        }
        Ok(excess == 0)
    }

    async fn ask(&self, feeder: &mut Feeder, request: Request) -> Result<(), SessionEnd> {
        let Request { sql, binding, format, max_rows, deadline, permit, reply } = request;
        let left = deadline.saturating_duration_since(Instant::now());
        if reply.is_closed() || left.is_zero() {
            return Ok(());
        }
        let (ours, theirs) = socket_pair()?;
        let id = feeder.next_query;
        feeder.next_query += 1;
        let running = Running { deadline, _permit: permit, _pin: Arc::clone(&feeder.attached) };
        self.shared().running.insert(id, running);
        let deadline_ms = monotonic_ms().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let max_bytes = self.limits.max_answer_bytes;
        feeder.orders.ask(Ask { id, sql, binding, format, max_rows, max_bytes, deadline_ms }, theirs).await?;
        // Who no longer waits has dropped the other end, and the engine ends the query when this one is gone too.
        let _ = reply.send(ours);
        Ok(())
    }

    /// Takes in what the engine says, and sees to it that nothing hangs.
    async fn watch(&self, from: OwnedReadHalf) -> Result<(), SessionEnd> {
        let mut events = FramedRead::new(from, FrameReader::<Event>::new(FROM_ENGINE));
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.note(event?.0)?,
                    None => return Err(SessionEnd::Ended),
                },
                _ = looks.tick() => self.look()?,
            }
        }
    }

    fn note(&self, event: Event) -> Result<(), SessionEnd> {
        match event {
            Event::Opened { isolation } => {
                self.shared().opened = true;
                self.state.update(|report| report.isolation = isolation);
            }
            Event::Committed { last_seq, segments } => {
                let mut shared = self.shared();
                shared.unconfirmed = shared.unconfirmed.saturating_sub(1);
                shared.intake_since = (shared.unconfirmed > 0).then(Instant::now);
                self.state.update(|report| {
                    if report.state != Phase::Ready {
                        tracing::info!(pid = self.pid, last_seq, segments, "the engine is ready");
                    }
                    (report.state, report.last_seq, report.segments) = (Phase::Ready, last_seq, segments);
                });
            }
            Event::Memory { rss_bytes } => self.state.update(|report| report.rss_bytes = rss_bytes),
            Event::Finished { id } => drop(self.shared().running.remove(&id)),
            Event::Failed { message } => return Err(SessionEnd::GaveUp(message)),
        }
        Ok(())
    }

    fn look(&self) -> Result<(), SessionEnd> {
        let (now, shared) = (Instant::now(), self.shared());
        if let Some((id, _)) = shared.running.iter().find(|(_, running)| now > running.deadline + GRACE) {
            return Err(SessionEnd::Stuck(*id));
        }
        match shared.intake_since {
            Some(since) if now > since + MAX_INTAKE => Err(SessionEnd::Hangs),
            _ => Ok(()),
        }
    }
}

impl Shared {
    /// It was told nothing: where it is open and has confirmed all that it was told before, it need not answer.
    fn nothing_to_take_in(&mut self) {
        if self.opened && self.unconfirmed == 0 {
            self.intake_since = None;
        }
    }
}

/// The feed with the way to the engine.
struct Feeder {
    /// Away while it pulls.
    feed: Option<Feed>,
    orders: Orders,
    attached: Arc<Pin>,
    next_query: u64,
    /// A cut that was asked for.
    sealing: Option<JoinHandle<()>>,
}

type Pulling = JoinHandle<(Feed, Result<Pulled, FeedError>)>;

impl Feeder {
    fn start_pull(&mut self, depth: Depth, pieces: mpsc::Sender<Piece>) -> Result<Pulling, SessionEnd> {
        let Some(mut feed) = self.feed.take() else { return Err(SessionEnd::Ended) };
        Ok(tokio::task::spawn_blocking(move || {
            let pulled = feed.pull(depth, |piece| pieces.blocking_send(piece).is_ok());
            (feed, pulled)
        }))
    }

    fn distrust_segments(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.distrust_segments();
        }
    }

    /// Asks the sealer for a cut, unless one is under way.
    fn ask_for_a_cut(&mut self, sealer: &SealerHandle) {
        if self.sealing.as_ref().is_none_or(JoinHandle::is_finished) {
            let sealer = sealer.clone();
            self.sealing = Some(tokio::spawn(async move {
                // What keeps it from sealing is its own to tell.
                if sealer.seal_now(Demand::Engine).await.is_err() {
                    sleep(SEAL_PAUSE).await;
                }
            }));
        }
    }
}

/// Returns when the ledger or the set of verified segments may have changed.
async fn hint(progress: &mut watch::Receiver<Progress>, verified: &mut watch::Receiver<u64>) {
    tokio::select! {
        Ok(()) = progress.changed() => (),
        Ok(()) = verified.changed() => (),
        // Their owners are gone: the daemon is stopping, and nothing changes any more.
        else => std::future::pending().await,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
