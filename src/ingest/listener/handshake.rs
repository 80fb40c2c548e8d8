//! The first exchange of a connection: CONNECT, its session, CONNACK.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::Shared;
use super::aliases;
use super::error::End;
use super::frame::Frame;
use super::gate::Refusal;
use super::opening::{self, Unopened};
use super::packet::{self, Connect, Dialect, LONGEST_EXPIRY, Level, PacketError, Reason, Welcome, Will};
use super::seats::Seat;
use super::wire::{Socket, Wire};

/// Longest client id. The standard asks for 23 bytes; it is part of a name in the ledger.
const MAX_CLIENT_ID_BYTES: usize = 512;

/// What a handshake of TLS begins with. No packet of MQTT does.
const TLS_FIRST_BYTE: u8 = 0x16;

/// Who is connected now.
pub(super) struct Guest {
    /// What it speaks.
    pub(super) dialect: Dialect,
    /// As in CONNECT, or assigned.
    pub(super) client_id: Arc<str>,
    /// Its place; holds the session.
    pub(super) seat: Seat,
    /// How long it may be silent; `None`: it promised nothing.
    pub(super) patience: Option<Duration>,
    /// What to say for it if it goes without a DISCONNECT.
    pub(super) will: Option<Will>,
}

/// Waits for CONNECT. Whoever asks for another protocol level is told so.
///
/// # Errors
/// Nothing came in time, or what came is no CONNECT of a version we speak.
pub(super) async fn receive<S: Socket>(wire: &mut Wire<S>, patience: Duration) -> Result<Box<Connect>, End> {
    let first = tokio::time::timeout(patience, first_packet(wire)).await.map_err(|_| End::NoConnect)??;
    let (dialect, read) = match packet::level(&first) {
        Some(Level::V311) => (Dialect::V311, packet::connect_v311(first)),
        Some(Level::V5) => (Dialect::V5 { max_packet_bytes: u32::MAX }, packet::connect_v5(first)),
        Some(Level::Other(_)) => return Err(refuse(wire, Dialect::V311, Reason::Version, "unknown protocol level")),
        None if first.first() == Some(&TLS_FIRST_BYTE) => {
            return Err(End::OutOfPlace("TLS was begun, and this listener speaks none; see listener.tls_cert"));
        }
        None => return Err(End::OutOfPlace("the first packet is no CONNECT")),
    };
    match read {
        Ok(connect) if connect.client_id.len() > MAX_CLIENT_ID_BYTES => {
            Err(refuse(wire, connect.dialect, Reason::ClientId, "the client id is too long"))
        }
        Ok(connect) if connect.enhanced_auth => {
            Err(refuse(wire, connect.dialect, Reason::AuthMethod, "it asks for enhanced authentication"))
        }
        Ok(connect) => Ok(connect),
        Err(PacketError::NoClientId) => Err(refuse(wire, dialect, Reason::ClientId, "an empty client id without a clean session")),
        Err(error) => {
            // In 3.1.1 there is no answer to what can't be read.
            if let Dialect::V5 { .. } = dialect {
                dialect.put_refusal(&mut wire.outbound, error.reason());
            }
            Err(error.into())
        }
    }
}

async fn first_packet<S: Socket>(wire: &mut Wire<S>) -> Result<BytesMut, End> {
    loop {
        match wire.next_frame()? {
            Some(Frame::Whole(packet)) => return Ok(packet),
            Some(Frame::Shortened { .. }) => return Err(End::OutOfPlace("the first packet is no CONNECT")),
            None => {}
        }
        // Strangers don't get to send a long message first.
        if wire.begins_other_than(packet::CONNECT_FIRST_BYTE) {
            return Err(End::OutOfPlace("the first packet is no CONNECT"));
        }
        if wire.exchange(true).await?.read == Some(0) {
            return Err(End::Closed);
        }
    }
}

/// Answers CONNECT with a refusal.
pub(super) fn refuse<S: Socket>(wire: &mut Wire<S>, dialect: Dialect, reason: Reason, words: &'static str) -> End {
    dialect.put_refusal(&mut wire.outbound, reason);
    End::Refused(words)
}

/// Asks the gate about the sensor, before anything is done for it.
async fn let_in<S: Socket>(shared: &Shared, wire: &mut Wire<S>, connect: &Connect) -> Result<(), End> {
    let asked = shared.gate.check(connect.username.as_deref(), connect.password.as_deref());
    let answer = tokio::select! {
        biased;
        () = shared.stop.cancelled() => return Err(End::Stopping),
        answer = asked => answer,
    };
    answer.map_err(|refusal| {
        let reason = match refusal {
            Refusal::BadCredentials => Reason::BadCredentials,
            Refusal::NotAuthorised => Reason::NotAuthorised,
            Refusal::Busy => Reason::Busy,
        };
        connect.dialect.put_refusal(&mut wire.outbound, reason);
        End::Denied(refusal)
    })
}

/// Seats the sensor and answers CONNECT: the session is open, and it was not before.
///
/// # Errors
/// The gate says no, another connection of the same client came, the daemon stops, or the ledger can't open the session.
pub(super) async fn admit<S: Socket>(shared: &Shared, wire: &mut Wire<S>, connect: Box<Connect>) -> Result<Guest, End> {
    let_in(shared, wire, &connect).await?;
    let assigned = connect.client_id.is_empty();
    let client_id: Arc<str> = if assigned { assigned_client_id().into() } else { Arc::from(&*connect.client_id) };
    let claim = shared.seats.claim(Arc::clone(&client_id));
    if claim.takes_over() {
        tracing::debug!(?client_id, "a client connects again and takes over");
    }
    let mut seat = tokio::select! {
        biased;
        () = shared.stop.cancelled() => return Err(End::Stopping),
        seat = claim.seat() => seat.ok_or(End::TakenOver)?,
    };
    let session_present = match opening::open(shared, &mut seat, &client_id, &connect).await {
        Ok(present) => present,
        Err(Unopened::Ended(end)) => return Err(end),
        Err(Unopened::Ledger(error)) => {
            shared.complain(&error, "a session can't be opened");
            return Err(refuse(wire, connect.dialect, Reason::Unavailable, "its session can't be opened"));
        }
    };
    let max_packet_bytes = if let Dialect::V5 { .. } = connect.dialect { wire.expect_version_5() } else { 0 };
    let welcome = Welcome {
        session_present,
        assigned_client_id: assigned.then_some(&*client_id),
        expiry: connect.expiry.filter(|expiry| *expiry == LONGEST_EXPIRY),
        receive_maximum: u16::try_from(shared.limits.max_unacknowledged).unwrap_or(u16::MAX),
        max_packet_bytes,
        topic_alias_maximum: aliases::GREATEST,
    };
    connect.dialect.put_welcome(&mut wire.outbound, &welcome);
    let patience = (connect.keep_alive > 0).then(|| Duration::from_millis(1500) * u32::from(connect.keep_alive));
    let Connect { dialect, will, .. } = *connect;
    Ok(Guest { dialect, client_id, seat, patience, will })
}

fn assigned_client_id() -> String {
    format!("assigned-{:016x}", rand::random::<u64>())
}
