//! The listener: sensors publish straight to forebay, by MQTT 3.1.1 and 5, at QoS 0, 1 and 2.
//!
//! It is not a broker: a SUBSCRIBE is refused for each of its filters, and nothing is retained. Devices that need to hear
//! something want a broker in front, and the client subscribes there. A will is a message at QoS 0.
//!
//! What is rejected for good (too long, not to be decoded, of one series too many) is counted and acknowledged, by version 5
//! with the reason, so that the sensor stops sending it. What can't be taken just now is not acknowledged: the sensor waits,
//! or its connection is closed, and it sends it again.
//!
//! Owns: its sockets, the connections, and the sessions of connected sensors.
//! Does not own: messages once handed in (the pump's), committed sessions (the ledger's).
//! Invariants: PUBACK and PUBREC after the commit of their message, PUBCOMP after the commit of its end, in the order of
//! arrival; one connection a client id; everything bounded: connections, packets, what is unacknowledged, held, unwritten or
//! half received, topic aliases, wills that are not due.
//! On failure: an error costs the connection it happens on; the sockets stay open.
//!
//! `door` takes connections, `gate` knows who may publish, `packet` and `frame` say what bytes mean, `wire` moves them,
//! `handshake` lets sensors in (`opening` finds their session), `connection` serves them (`talk`, `messages`, `aliases`),
//! `seats`, `session` and `owed` tell redeliveries from new messages.

mod aliases;
mod connection;
mod door;
mod error;
mod frame;
mod gate;
mod handshake;
mod messages;
mod opening;
mod owed;
mod packet;
mod seats;
mod session;
mod state;
mod talk;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::ListenerError;
pub use gate::Gate;
pub use state::{Counter, ListenerState};

use super::{Content, Delivery, Hurry, Intake, IntakeError, Message};
use crate::clock::SharedClock;
use crate::config;
use crate::ledger::Ledger;
use door::Door;
use error::End;
use packet::Will;
use seats::Seats;

/// Connections beyond the limit that are told so at the same time; further ones are just closed.
const MAX_TURNED_AWAY: usize = 32;

/// Memory for packets that don't fit a connection's ordinary buffer, all connections together.
const LONG_PACKETS_BYTES: usize = 16 << 20;

/// What one connection may do. Tests shrink it.
#[derive(Debug, Clone)]
struct Limits {
    max_message_bytes: usize,
    max_unacknowledged: usize,
    /// From the connection to its CONNECT.
    connect: Duration,
    /// Silence of a sensor that promised no keep-alive. TCP's own probes find dead peers much earlier.
    idle: Duration,
    /// Without progress in writing answers.
    write: Duration,
    /// For a long packet to come whole: a megabyte over a poor mobile link.
    long_packet: Duration,
    /// For a last answer to be read.
    farewell: Duration,
    /// At the daemon's stop, for what is handed in to be committed and acknowledged. Below the stage's deadline.
    stop: Duration,
}

impl Limits {
    fn new(max_message_bytes: usize, max_unacknowledged: usize) -> Self {
        Self {
            max_message_bytes,
            max_unacknowledged: max_unacknowledged.max(1),
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(24 * 3600),
            write: Duration::from_secs(30),
            long_packet: Duration::from_secs(300),
            farewell: Duration::from_secs(1),
            stop: Duration::from_secs(3),
        }
    }
}

/// What all connections use.
struct Shared {
    limits: Limits,
    intake: Intake,
    ledger: Ledger,
    clock: SharedClock,
    state: Arc<ListenerState>,
    seats: Arc<Seats>,
    gate: Arc<Gate>,
    long_packets: Arc<Semaphore>,
    /// Places for wills that are not due yet.
    waiting_wills: Semaphore,
    begun: Instant,
    stop: CancellationToken,
}

/// Its sockets are bound; [`Listener::run`] serves them.
pub struct Listener {
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    max_connections: usize,
    shared: Shared,
}

impl Listener {
    /// Binds all addresses of `settings`. Payloads longer than `max_message_bytes` are refused.
    ///
    /// # Errors
    /// [`ListenerError::Config`] for settings that can't be followed, [`ListenerError::Bind`] for an address that is not to be had.
    pub async fn bind(
        settings: &config::Listener,
        max_message_bytes: usize,
        intake: Intake,
        ledger: Ledger,
        clock: SharedClock,
        state: Arc<ListenerState>,
    ) -> Result<Self, ListenerError> {
        check_shape(settings)?;
        let gate = Arc::new(Gate::new(settings)?);
        // Who may come in from other machines is known, or the settings let in anyone.
        let guarded = settings.anonymous || settings.users_file.is_some() || settings.tls_client_ca.is_some();
        let mut sockets = Vec::new();
        for address in &settings.bind {
            sockets.extend(bind(address, guarded).await?);
        }
        let addresses = sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        let shared = Shared {
            limits: Limits::new(max_message_bytes, settings.max_unacknowledged),
            intake,
            ledger,
            clock,
            state,
            seats: Arc::default(),
            gate,
            long_packets: Arc::new(Semaphore::new(LONG_PACKETS_BYTES)),
            waiting_wills: Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS)),
            begun: Instant::now(),
            stop: CancellationToken::new(),
        };
        Ok(Self { sockets, addresses, max_connections: settings.max_connections, shared })
    }

    /// Where it listens; ports that were left open are filled in.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Its gate, for status.
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.shared.gate)
    }

    /// Takes connections until `stop`, then lets what is handed in be acknowledged, for a few seconds at most.
    ///
    /// # Errors
    /// None at present: what fails costs one connection.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ListenerError> {
        if let Err(error) = self.shared.ledger.leave_sessions().await {
            tracing::warn!(%error, "sessions that should expire from now on do not");
        }
        let (tls, accounts) = (self.shared.gate.tls().is_some(), self.shared.gate.asks_for_accounts());
        tracing::info!(addresses = ?self.addresses, tls, accounts, "the listener takes connections");
        if accounts && !tls && self.addresses.iter().any(|address| !address.ip().is_loopback()) {
            tracing::warn!("passwords of sensors cross the network in the clear; set listener.tls_cert and tls_key");
        }
        self.shared.stop = stop.clone();
        let patience = self.shared.limits.stop + self.shared.limits.farewell;
        let shared = Arc::new(self.shared);
        let connections = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(self.max_connections.min(Semaphore::MAX_PERMITS)));
        let refusals = Arc::new(Semaphore::new(MAX_TURNED_AWAY));
        let mut doors = JoinSet::new();
        for socket in self.sockets {
            let door =
                Door { shared: Arc::clone(&shared), connections: connections.clone(), slots: slots.clone(), refusals: refusals.clone() };
            doors.spawn(door.keep(socket));
        }
        stop.cancelled().await;
        while doors.join_next().await.is_some() {}
        connections.close();
        if tokio::time::timeout(patience, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections did not end in time and are cut");
        }
        Ok(())
    }
}

/// Whether a listener could follow `settings`, but for its addresses.
///
/// # Errors
/// All of [`ListenerError`] but [`ListenerError::Bind`].
pub fn check(settings: &config::Listener) -> Result<(), ListenerError> {
    check_shape(settings)?;
    Gate::new(settings).map(drop)
}

fn check_shape(settings: &config::Listener) -> Result<(), ListenerError> {
    if settings.bind.is_empty() {
        return Err(ListenerError::Config("listener.bind is empty; give an address, or leave out [listener]".to_owned()));
    }
    if settings.max_connections == 0 {
        return Err(ListenerError::Config("listener.max_connections is 0; leave out [listener] to take none".to_owned()));
    }
    Ok(())
}

/// All addresses that `text` stands for.
async fn bind(text: &str, guarded: bool) -> Result<Vec<TcpListener>, ListenerError> {
    let failed = |source: io::Error| ListenerError::Bind { address: text.to_owned(), source };
    if text.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        return Err(ListenerError::Config(format!("listener.bind has \"{text}\", which is not \"host:port\"")));
    }
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(text).await.map_err(failed)?.collect();
    let mut sockets = Vec::new();
    for address in addresses {
        if !guarded && !address.ip().is_loopback() {
            return Err(error::not_loopback(address));
        }
        sockets.push(TcpListener::bind(address).await.map_err(failed)?);
    }
    Ok(sockets)
}

impl Shared {
    /// Warns, but once a second at most: peers must not be able to fill the log.
    fn complain(&self, about: &dyn Display, message: &'static str) {
        if self.state.last_complaint.raise(self.begun.elapsed().as_secs() + 1) {
            tracing::warn!(%about, "{message}");
        } else {
            tracing::debug!(%about, "{message}");
        }
    }

    /// Counts and logs the end of a connection.
    fn record(&self, end: &End, peer: SocketAddr, client_id: Option<&str>) {
        match end {
            End::TakenOver => self.state.taken_over.increase(),
            End::Silent => self.state.silent.increase(),
            End::Denied(refusal) => self.gate.refused.note(&peer, refusal),
            end if end.is_protocol_error() => self.state.protocol_errors.increase(),
            _ => {}
        }
        if end.is_protocol_error() || matches!(end, End::NotTaken(_)) {
            self.complain(&format_args!("{end} (peer {peer}, client id {client_id:?})"), "a connection was closed");
        } else {
            tracing::debug!(%peer, ?client_id, reason = %end, "a connection ended");
        }
    }

    /// Makes a will a message like any other at QoS 0.
    fn execute(&self, will: Will) {
        self.state.wills.increase();
        let message = Message { topic: will.topic, payload: will.payload, qos: 0, retained: false, arrived: self.clock.now() };
        // When the daemon stops there is nobody left to tell.
        let _ = self.offer(Content::Message(message));
    }

    /// Hands in what nobody waits for; what finds no room is counted.
    fn offer(&self, content: Content) -> Result<(), End> {
        self.state.messages_qos0.increase();
        match self.intake.offer(Delivery { content, mark: None, idempotency: None, receipt: None, hurry: Hurry::No }) {
            Ok(()) => Ok(()),
            Err(IntakeError::Full) => {
                self.state.qos0_refused.increase();
                Ok(())
            }
            Err(IntakeError::Closed) => Err(End::Stopping),
        }
    }

    /// A share of the memory for long packets; waits while it is taken. `None` once the listener is gone.
    async fn long_share(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let share = u32::try_from(bytes.min(LONG_PACKETS_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.long_packets).acquire_many_owned(share).await.ok()
    }
}
