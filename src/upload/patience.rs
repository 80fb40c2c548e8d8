//! How long to wait for upstream: as long as something moves, and no longer than a slow link needs.
//!
//! A put is given up when it was silent for too long, by what may still lie in buffers on a slow line. When the line was seen
//! to be dead and there is a way again, the put of a file is left to itself ([`super::straggler`]), where the newest readings
//! go first; else it is given up sooner: TCP may take as long as the outage to notice. But what is given up has to be sent
//! again, so that a live connection on a poor line is never cut off twice: only what [`Thrift`] can afford is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};

use super::UploadError;
use super::link::LinkMode;
use super::straggler::PutUnderWay;
use super::uploader::Inner;
use super::upstream::{Body, Flow, Put, UpstreamError};
use super::worker::MAX_PROBES;
use crate::model::SegmentName;

/// Longest wait for an answer to anything small.
pub(super) const ANSWER_TIME: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(60) };

/// The slowest link that still counts as one, in bytes a second.
const SLOWEST_BYTES_PER_S: u64 = 2048;

/// What an HTTP client and the kernel may hold of a body that counts as sent.
const BUFFERED_BYTES: u64 = 512 << 10;

/// How often a put under way is looked at.
const LOOK_INTERVAL: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };

/// From this silence on it is asked whether there is a way.
const SUSPICIOUS: Duration = if cfg!(test) { Duration::from_millis(60) } else { Duration::from_secs(5) };

/// A probe that waits so long for its answer will have none.
const UNANSWERED: Duration = if cfg!(test) { Duration::from_millis(60) } else { Duration::from_secs(3) };

/// For a connection to come to life by itself once there is a way again.
const REVIVAL: Duration = if cfg!(test) { Duration::from_millis(40) } else { Duration::from_secs(1) };

/// From the kernel's word of a new link, address or route to the probe: it tells of them one after the other.
const NEWS_PAUSE: Duration = if cfg!(test) { Duration::from_millis(2) } else { Duration::from_millis(300) };

/// Sent in vain it costs next to nothing, as bytes of a body.
const LITTLE: u64 = 8 << 10;

/// While nothing is known of the line: 64 kbit a second.
const USUAL_BYTES_PER_S: f64 = 8000.0;

/// What was sent in vain, beside what was stored.
#[derive(Debug, Default)]
pub(super) struct Thrift {
    stored: AtomicU64,
    wasted: AtomicU64,
}

impl Thrift {
    /// A put that sent `bytes` has ended.
    fn note(&self, stored: bool, bytes: u64) {
        let kind = if stored { &self.stored } else { &self.wasted };
        kind.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether `bytes` more may be sent in vain: a twentieth of what was stored, and 64 KiB.
    fn affords(&self, bytes: u64) -> bool {
        self.wasted.load(Ordering::Relaxed) + bytes <= (64 << 10) + self.stored.load(Ordering::Relaxed) / 20
    }
}

/// Waits for a small answer; silence leaves open whether it was done.
pub(super) async fn within<T>(deadline: Duration, answer: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, UpstreamError> {
    tokio::time::timeout(deadline, answer).await.unwrap_or_else(|_| Err(silence(deadline)))
}

fn silence(time: Duration) -> UpstreamError {
    UpstreamError::Ambiguous(format!("none within {} s", time.as_secs_f32().round()))
}

/// What is put.
pub(super) struct Parcel<'a> {
    pub(super) key: &'a str,
    pub(super) body: Body,
    /// Whose file it is; kept as long as it is put.
    pub(super) segment: Option<&'a SegmentName>,
}

/// What became of a put.
#[derive(Debug)]
pub(super) enum PutEnd {
    /// It is there.
    Done,
    /// It goes on by itself, for there is something newer to send.
    Left,
}

/// What a watch over a put found.
enum Watched {
    /// It is to be given up.
    Hopeless(UpstreamError),
    /// The link is back, and the put may be left to itself.
    Leave,
    /// The link is back, and the put's connection did not come to life: it is better begun anew.
    Overtaken,
}

impl Inner {
    /// Puts `parcel`, and waits for the answer as long as there is hope; with `may_leave`, until the link comes back under it.
    pub(super) async fn put(&self, parcel: &Parcel<'_>, may_leave: bool) -> Result<PutEnd, UpstreamError> {
        let left = self.straggler.take(parcel.key);
        let mut was_left = left.is_some();
        let mut put = left.unwrap_or_else(|| self.begin_put(parcel));
        loop {
            let (bytes, flow) = (put.bytes, put.flow.clone());
            let watched = tokio::select! {
                answer = &mut put => return self.end_put(&put, answer),
                watched = self.watch(bytes, &flow, was_left, may_leave) => watched,
            };
            match watched {
                Watched::Hopeless(error) => return self.end_put(&put, Err(error)),
                Watched::Leave => {
                    tracing::info!(key = put.key, bytes = put.bytes, sent = flow.sent(), "a file under way lets newer readings pass");
                    self.straggler.leave(put);
                    return Ok(PutEnd::Left);
                }
                Watched::Overtaken => {
                    tracing::info!(key = put.key, sent = flow.sent(), "a connection died in the outage; its put begins anew");
                    self.thrift.note(false, flow.sent());
                    // The old one ends before the new one begins.
                    drop(put);
                    (put, was_left) = (self.begin_put(parcel), false);
                }
            }
        }
    }

    fn begin_put(&self, parcel: &Parcel<'_>) -> PutUnderWay {
        let pin = parcel.segment.map(|name| self.dir.pin(std::slice::from_ref(name)));
        let body = Body { flow: Flow::default(), ..parcel.body.clone() };
        PutUnderWay::begin(Arc::clone(&self.upstream), parcel.key, body, pin)
    }

    fn end_put(&self, put: &PutUnderWay, outcome: Result<Put, UpstreamError>) -> Result<PutEnd, UpstreamError> {
        self.thrift.note(matches!(outcome, Ok(Put::Stored)), put.flow.sent());
        self.link.sent(self.upstream.sent_bytes());
        tracing::debug!(key = put.key, ?outcome, "put");
        outcome.map(|_| PutEnd::Done)
    }

    /// Watches a put of `bytes` and returns when it is to be left or given up. What it hands to the kernel at once tells nothing
    /// of the line, so that in silence it is asked, again and again, whether there is a way: an outage may begin and end at any
    /// time, and the put notices last. As in the worker, a probe does not wait for the one before.
    async fn watch(&self, bytes: u64, flow: &Flow, was_left: bool, may_leave: bool) -> Watched {
        let (limit, usual) = (self.longest_silence(bytes), self.usual_silence(bytes));
        let may_leave = || may_leave && self.straggler.is_free();
        let mut line = Line::moving(flow, was_left);
        let mut probes = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(outcome) = probes.next() => {
                    let outcome: Result<(), UploadError> = outcome;
                    if outcome.is_ok() {
                        probes.clear();
                        line.asked = None;
                    }
                    if self.is_way_back(&mut line, outcome) && may_leave() {
                        return Watched::Leave;
                    }
                    let is_due = line.sent <= LITTLE || line.moved.elapsed() >= usual;
                    if line.outlasted && is_due && self.is_overtaken(&line, flow).await {
                        return Watched::Overtaken;
                    }
                }
                () = self.calls.network.notified() => {
                    sleep(NEWS_PAUSE).await;
                    line.next_probe = Duration::ZERO;
                }
                () = sleep(LOOK_INTERVAL) => {}
            }
            if flow.sent() != line.sent {
                self.link.sent(self.upstream.sent_bytes());
                if self.revived(&mut line) && may_leave() {
                    return Watched::Leave;
                }
                probes.clear();
                line = Line::moving(flow, false);
            }
            // As good as none. It is not shown: a very slow line is no outage, and to let newer readings pass on it does no harm.
            line.dead |= line.asked.is_some_and(|asked| asked.elapsed() >= UNANSWERED);
            let silent = line.moved.elapsed();
            if silent >= limit {
                return Watched::Hopeless(silence(silent));
            }
            if silent >= line.next_probe && probes.len() < MAX_PROBES {
                probes.push(self.probe());
                line.asked = line.asked.or_else(|| Some(Instant::now()));
                // Sooner than else: of the interval that the newest readings have, its revival takes a part.
                line.next_probe = silent + self.probe_pause() / 2;
            }
        }
    }

    /// What was asked on another connection. True: there was no way, and there is one again.
    fn is_way_back(&self, line: &mut Line, probed: Result<(), UploadError>) -> bool {
        match probed {
            Err(error) => {
                if !std::mem::replace(&mut line.dead, true) {
                    tracing::warn!(upstream = self.upstream.describe(), %error, "the link fails under an upload");
                    line.outlasted = false;
                }
                self.link.failed(error.to_string());
                self.link.enter(LinkMode::Offline, self.clock.now());
                false
            }
            // False: slow, not dead.
            Ok(()) => {
                let is_back = self.revived(line);
                line.outlasted |= is_back;
                is_back
            }
        }
    }

    /// There is a way again, and the put did not notice; nor would it cost too much to begin it anew.
    async fn is_overtaken(&self, line: &Line, flow: &Flow) -> bool {
        sleep(REVIVAL).await;
        flow.sent() == line.sent && self.thrift.affords(line.sent)
    }

    /// There is a way; whether there was none before.
    fn revived(&self, line: &mut Line) -> bool {
        let was_dead = std::mem::take(&mut line.dead);
        if was_dead {
            self.link.enter(LinkMode::Online, self.clock.now());
            self.came_back.store(true, Ordering::Relaxed);
        }
        was_dead
    }

    /// Silence that ends a put: an answer's time, and what the buffers hold on the slowest link.
    fn longest_silence(&self, bytes: u64) -> Duration {
        let slowest = match self.settings.rate_limit.0 {
            0 => SLOWEST_BYTES_PER_S,
            limit => SLOWEST_BYTES_PER_S.min(limit / 2).max(1),
        };
        ANSWER_TIME + Duration::from_secs(bytes.min(BUFFERED_BYTES) / slowest)
    }

    /// Silence that the buffers explain at the rate of this line, and a little more.
    fn usual_silence(&self, bytes: u64) -> Duration {
        let rate = self.link.status().bytes_per_s.unwrap_or(USUAL_BYTES_PER_S).max(1.0);
        SUSPICIOUS + Duration::from_secs_f64((bytes.min(BUFFERED_BYTES) as f64 / rate).min(3600.0))
    }
}

/// What is known of the connection that a put uses.
struct Line {
    /// Bytes of the body handed to it.
    sent: u64,
    /// When that last changed.
    moved: Instant,
    /// The silence at which to ask for another way.
    next_probe: Duration,
    /// Since when a probe waits for its answer.
    asked: Option<Instant>,
    /// There was no way.
    dead: bool,
    /// There was no way, there is one again, and whether it came to life is not known yet.
    outlasted: bool,
}

impl Line {
    fn moving(flow: &Flow, outlasted: bool) -> Self {
        let next_probe = if outlasted { Duration::ZERO } else { SUSPICIOUS };
        Self { sent: flow.sent(), moved: Instant::now(), next_probe, asked: None, dead: false, outlasted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_in_vain_stays_small_beside_what_is_stored() {
        let thrift = Thrift::default();
        assert!(thrift.affords(64 << 10) && !thrift.affords((64 << 10) + 1));
        thrift.note(false, 64 << 10);
        assert!(!thrift.affords(1));
        thrift.note(true, 10 << 20);
        assert!(thrift.affords(500_000) && !thrift.affords(600_000));
    }
}
