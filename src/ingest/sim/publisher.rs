//! One connection of simulated sensors: publishes at its pace, counts acknowledgements, connects again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use rumqttc::mqttbytes::v4::{Connect, Packet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use super::sensors::Sensors;
use super::{Progress, Settings, SimError};
use crate::backoff::Backoff;
use crate::ingest::client::Target;
use crate::ingest::client::wire::{Incoming, Wire, WireError, encode};

/// What is written at once: some hundred messages, so that a system call costs little.
const WRITE_BYTES: usize = 32 << 10;

/// Between two PINGREQs.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long a first connection is tried for.
const FIRST_CONNECTION: Duration = Duration::from_secs(5);

/// First and longest pause between attempts: the receivers of a simulation are near and come back soon.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long to wait for acknowledgements after the last message: long enough for a receiver that starts again.
const SETTLE: Duration = Duration::from_secs(30);

/// The same when told to stop: somebody waits.
const SETTLE_WHEN_STOPPED: Duration = Duration::from_secs(5);

/// One connection's sensors with all they have under way.
pub struct Publisher {
    target: Arc<Target>,
    login: Connect,
    sensors: Sensors,
    outbox: Outbox,
    progress: Arc<Progress>,
    /// The next message's payload.
    payload: BytesMut,
    /// To be written.
    out: BytesMut,
    acknowledged_qos: bool,
    ever_connected: bool,
}

/// When messages are due: so many per second from a start on; all at once without a rate.
struct Pace {
    start: Instant,
    rate: f64,
    taken: u64,
}

impl Pace {
    fn is_due(&self) -> bool {
        self.rate == 0.0 || self.start.elapsed().as_secs_f64() * self.rate > self.taken as f64
    }

    async fn next(&self) {
        if self.rate > 0.0 {
            tokio::time::sleep_until(self.start + Duration::from_secs_f64((self.taken as f64 / self.rate).min(1e9))).await;
        }
    }
}

/// From publishing to waiting for acknowledgements to the end.
struct Phase {
    publishing_until: Option<Instant>,
    stop: CancellationToken,
    /// Set when nothing more is published.
    settle_until: Option<Instant>,
}

impl Phase {
    fn settle(&mut self, within: Duration) {
        self.settle_until.get_or_insert(Instant::now() + within);
    }

    /// Waits until the last phase is over.
    async fn over(&mut self) {
        while !self.change().await {}
    }

    /// Waits for the next change of phase; `true` when it was the last.
    async fn change(&mut self) -> bool {
        if let Some(end) = self.settle_until {
            tokio::time::sleep_until(end).await;
            return true;
        }
        let publishing_until = self.publishing_until;
        tokio::select! {
            () = sleep_until(publishing_until) => self.settle(SETTLE),
            () = self.stop.cancelled() => self.settle(SETTLE_WHEN_STOPPED),
        }
        false
    }
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

impl Publisher {
    /// The sensors of one connection, which begins with `login`.
    pub fn new(settings: &Settings, target: Arc<Target>, login: Connect, sensors: Sensors, progress: Arc<Progress>) -> Self {
        Self {
            target,
            login,
            sensors,
            outbox: Outbox::new(settings.qos, settings.window),
            progress,
            payload: BytesMut::new(),
            out: BytesMut::new(),
            acknowledged_qos: settings.qos > 0,
            ever_connected: false,
        }
    }

    /// Publishes `rate` messages per second until `end` or `stop`, and waits for their acknowledgements.
    pub async fn run(mut self, rate: f64, end: Option<Instant>, stop: CancellationToken) -> Result<(), SimError> {
        let begun = Instant::now();
        let mut pace = Pace { start: begun, rate, taken: 0 };
        let mut phase = Phase { publishing_until: end, stop, settle_until: None };
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let opened = tokio::select! {
                opened = Wire::open(&self.target, self.login.clone(), 0) => opened,
                () = phase.over() => return Ok(()),
            };
            let lost = match opened {
                Ok(wire) => {
                    self.note_connection();
                    backoff.reset();
                    let outcome = self.exchange(wire, &mut pace, &mut phase).await;
                    self.progress.connections.fetch_sub(1, Ordering::Relaxed);
                    match outcome {
                        Ok(()) => return Ok(()),
                        Err(lost) => lost,
                    }
                }
                Err(error) => error,
            };
            self.progress.errors.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(address = %self.target.address, %lost, "a simulated sensor lost its connection");
            let hopeless = matches!(lost, WireError::Refused(_) | WireError::Tls(_)) || begun.elapsed() >= FIRST_CONNECTION;
            if !self.ever_connected && hopeless {
                return Err(SimError::Unreachable { address: self.target.address.clone(), reason: lost.to_string() });
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = phase.over() => return Ok(()),
            }
        }
    }

    fn note_connection(&mut self) {
        self.progress.connections.fetch_add(1, Ordering::Relaxed);
        if self.ever_connected {
            self.progress.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        self.ever_connected = true;
    }

    /// Works on one connection; `Ok` when everything is done.
    async fn exchange(&mut self, wire: Wire, pace: &mut Pace, phase: &mut Phase) -> Result<(), WireError> {
        let Wire { mut reader, mut writer, session_present } = wire;
        let mut pings = tokio::time::interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        self.out.clear();
        self.outbox.resend(session_present, &mut self.out);
        loop {
            let publishing = phase.settle_until.is_none();
            if publishing {
                self.fill(pace);
            } else if !writer.is_busy(&self.out) && self.outbox.is_empty() {
                break;
            }
            let waits_for_pace = publishing && self.out.len() < WRITE_BYTES && self.outbox.has_room();
            tokio::select! {
                // Acknowledgements before writing: the messages they make room for are written at once.
                biased;
                over = phase.change() => if over { return Ok(()) },
                _ = pings.tick() => encode(&Packet::PingReq, &mut self.out),
                frame = reader.next() => self.take(frame.ok_or(WireError::Closed)??)?,
                written = writer.write(&mut self.out), if writer.is_busy(&self.out) => written?,
                () = pace.next(), if waits_for_pace => {}
            }
        }
        encode(&Packet::Disconnect, &mut self.out);
        // Everything is acknowledged; the rest is politeness.
        let _ = tokio::time::timeout(Duration::from_secs(1), writer.write_all(&mut self.out)).await;
        Ok(())
    }

    /// Writes the messages that are due into what is to be sent, as far as window and buffer allow.
    fn fill(&mut self, pace: &mut Pace) {
        while self.out.len() < WRITE_BYTES && self.outbox.has_room() && pace.is_due() {
            self.payload.clear();
            let topic = self.sensors.measure(&mut self.payload);
            self.outbox.publish(topic, &self.payload, &mut self.out);
            pace.taken += 1;
            self.progress.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&mut self, incoming: Incoming) -> Result<(), WireError> {
        match incoming {
            Incoming::Packet(Packet::PubAck(ack)) if self.acknowledged_qos => {
                if self.outbox.acknowledge(ack.pkid) {
                    self.progress.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
            Incoming::Packet(Packet::PingResp) => Ok(()),
            other => Err(WireError::Unexpected(other.name())),
        }
    }
}
