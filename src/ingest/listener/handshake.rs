//! The first exchange of a connection: CONNECT, its session, CONNACK.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::Shared;
use super::error::End;
use super::frame::Frame;
use super::gate::Refusal;
use super::packet::{self, Connect, ConnectAckReason, Incoming, Level, PacketError};
use super::seats::Seat;
use super::session::Session;
use super::wire::{Socket, Wire};
use crate::ledger::LedgerError;

/// Longest client id. The standard asks for 23 bytes; it is part of a name in the ledger.
const MAX_CLIENT_ID_BYTES: usize = 512;

/// What a handshake of TLS begins with. No packet of MQTT does.
const TLS_FIRST_BYTE: u8 = 0x16;

/// Who is connected now.
pub(super) struct Guest {
    /// As in CONNECT, or assigned.
    pub(super) client_id: Arc<str>,
    /// Its place; holds the session.
    pub(super) seat: Seat,
    /// How long it may be silent; `None`: it promised nothing.
    pub(super) patience: Option<Duration>,
    /// What to say for it if it goes without a DISCONNECT.
    pub(super) will: Option<Will>,
}

/// A message that is due when its sensor is gone.
#[derive(Debug)]
pub(super) struct Will {
    /// Where it belongs.
    pub(super) topic: Arc<str>,
    /// What it says.
    pub(super) payload: bytes::Bytes,
}

/// Waits for CONNECT. Whoever asks for another protocol level is told so.
///
/// # Errors
/// Nothing came in time, or what came is no CONNECT of 3.1.1.
pub(super) async fn receive<S: Socket>(wire: &mut Wire<S>, patience: Duration) -> Result<Box<Connect>, End> {
    let first = tokio::time::timeout(patience, first_packet(wire)).await.map_err(|_| End::NoConnect)??;
    match packet::level(&first) {
        Some(Level::V311) => {}
        Some(Level::V5) => {
            packet::put_connack_unsupported_v5(&mut wire.outbound);
            return Err(End::Refused("MQTT 5 is not supported yet"));
        }
        Some(Level::Other(_)) => return Err(refuse(wire, ConnectAckReason::UnacceptableProtocolVersion, "unknown protocol level")),
        None if first.first() == Some(&TLS_FIRST_BYTE) => {
            return Err(End::OutOfPlace("TLS was begun, and this listener speaks none; see listener.tls_cert"));
        }
        None => return Err(End::OutOfPlace("the first packet is no CONNECT")),
    }
    match packet::decode(first) {
        Ok(Incoming::Connect(connect)) if connect.client_id.len() > MAX_CLIENT_ID_BYTES => {
            Err(refuse(wire, ConnectAckReason::IdentifierRejected, "the client id is too long"))
        }
        Ok(Incoming::Connect(connect)) => Ok(connect),
        Ok(_) => Err(End::OutOfPlace("the first packet is no CONNECT")),
        Err(PacketError::NoClientId) => {
            Err(refuse(wire, ConnectAckReason::IdentifierRejected, "an empty client id without a clean session"))
        }
        Err(error) => Err(error.into()),
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
pub(super) fn refuse<S: Socket>(wire: &mut Wire<S>, code: ConnectAckReason, reason: &'static str) -> End {
    packet::put_connack(&mut wire.outbound, code, false);
    End::Refused(reason)
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
        let code = match refusal {
            Refusal::BadCredentials => ConnectAckReason::BadUserNameOrPassword,
            Refusal::NotAuthorised => ConnectAckReason::NotAuthorized,
            Refusal::Busy => ConnectAckReason::ServiceUnavailable,
        };
        packet::put_connack(&mut wire.outbound, code, false);
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
    let name = (!assigned).then(|| format!("listener/{client_id}"));
    let opened = if connect.clean_session {
        open_clean(shared, &mut seat, name).await
    } else {
        open_persistent(shared, &mut seat, name.unwrap_or_default()).await
    };
    let present = match opened {
        Ok(present) => present,
        Err(Unopened::Ended(end)) => return Err(end),
        Err(Unopened::Ledger(error)) => {
            shared.complain(&error, "a session can't be opened");
            return Err(refuse(wire, ConnectAckReason::ServiceUnavailable, "its session can't be opened"));
        }
    };
    packet::put_connack(&mut wire.outbound, ConnectAckReason::ConnectionAccepted, present);
    let patience = (connect.keep_alive > 0).then(|| Duration::from_millis(1500) * u32::from(connect.keep_alive));
    // A will of the connection's own length: a copy, so that it doesn't keep the whole CONNECT.
    let will = connect.last_will.map(|will| Will { topic: Arc::from(&*will.topic), payload: bytes::Bytes::copy_from_slice(&will.message) });
    Ok(Guest { client_id, seat, patience, will })
}

fn assigned_client_id() -> String {
    format!("assigned-{:016x}", rand::random::<u64>())
}

/// Why there is no session.
enum Unopened {
    Ended(End),
    Ledger(LedgerError),
}

impl From<LedgerError> for Unopened {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// Ends the session there was, once nothing of it is on its way any more.
async fn open_clean(shared: &Shared, seat: &mut Seat, name: Option<String>) -> Result<bool, Unopened> {
    drain(shared, seat).await.map_err(Unopened::Ended)?;
    if let Some(name) = name {
        shared.ledger.end_session(name).await?;
    }
    *seat.session = Some(Session::clean());
    Ok(false)
}

/// Goes on with the session of the connection before, if that has something on its way, or else with what the ledger has.
async fn open_persistent(shared: &Shared, seat: &mut Seat, name: String) -> Result<bool, Unopened> {
    if let Some(session) = seat.session.as_mut()
        && session.is_persistent()
        && !session.is_spoiled()
    {
        session.pass_on();
        return Ok(true);
    }
    drain(shared, seat).await.map_err(Unopened::Ended)?;
    let stored = shared.ledger.open_session(name).await?;
    let present = stored.present;
    *seat.session = Some(Session::persistent(stored));
    Ok(present)
}

/// Waits until everything of a persistent session is settled, and forgets it. Of a clean one nobody needs to know.
async fn drain(shared: &Shared, seat: &mut Seat) -> Result<(), End> {
    let leave = seat.leave().clone();
    if let Some(session) = seat.session.as_mut().filter(|session| session.is_persistent()) {
        tokio::select! {
            biased;
            () = leave.cancelled() => return Err(End::TakenOver),
            () = shared.stop.cancelled() => return Err(End::Stopping),
            () = session.drained() => {}
        }
    }
    *seat.session = None;
    Ok(())
}
