//! One connection, from CONNECT to its end: the worker of this room.
//!
//! Owns: the socket, the packets on their way in and out, and (by its seat) the session while it lasts.
//! Does not own: what becomes of a delivery; the pump says so by its receipt.
//! Invariants: a PUBACK is written only after its message is committed, in the order of arrival; nothing is read while
//! too much is unacknowledged or unwritten; a session that has something on its way outlives the connection.
//! On failure: the connection ends, nothing that is not committed was acknowledged, and the sensor redelivers.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::error::End;
use super::handshake::{self, Guest, Will};
use super::packet::ConnectAckReason;
use super::talk::converse;
use super::wire::{Socket, Wire};
use crate::ingest::{Content, Message};

/// Serves `stream` until it ends, and then keeps its session until everything of it is settled or somebody takes over.
pub(super) async fn serve<S: Socket>(shared: Arc<Shared>, stream: S, peer: SocketAddr, slot: OwnedSemaphorePermit) {
    let mut wire = Wire::new(stream, shared.limits.max_message_bytes);
    let admitted = match handshake::receive(&mut wire, shared.limits.connect).await {
        Ok(connect) => handshake::admit(&shared, &mut wire, connect).await,
        Err(end) => Err(end),
    };
    let mut guest = match admitted {
        Ok(guest) => guest,
        Err(end) => {
            if matches!(end, End::Refused(_) | End::Denied(_)) {
                shared.state.refused.increase();
            }
            shared.record(&end, peer, None);
            farewell(&shared, wire, &end).await;
            return;
        }
    };
    shared.state.accepted.increase();
    shared.state.connections.increase();
    tracing::debug!(client_id = ?guest.client_id, %peer, "a sensor connected");
    let end = converse(&shared, &mut wire, &mut guest).await;
    shared.state.connections.decrease();
    shared.record(&end, peer, Some(&guest.client_id));
    if let Some(will) = guest.will.take_if(|_| end.leaves_will()) {
        execute(&shared, will);
    }
    farewell(&shared, wire, &end).await;
    drop(slot);
    linger(guest).await;
}

/// Tells a peer for which there is no room to come again later.
pub(super) async fn turn_away<S: Socket>(shared: Arc<Shared>, stream: S, _slot: OwnedSemaphorePermit) {
    let mut wire = Wire::new(stream, 0);
    if handshake::receive(&mut wire, shared.limits.farewell).await.is_ok() {
        let end = handshake::refuse(&mut wire, ConnectAckReason::ServiceUnavailable, "too many connections");
        farewell(&shared, wire, &end).await;
    }
}

/// Sees to it that a last answer arrives; otherwise the socket is just dropped.
async fn farewell<S: Socket>(shared: &Shared, mut wire: Wire<S>, end: &End) {
    if matches!(end, End::Refused(_) | End::Denied(_) | End::Stopping) {
        // Whether it arrived or not: the connection is over.
        let _ = tokio::time::timeout(shared.limits.farewell, wire.close()).await;
    }
}

/// Makes the will a message like any other at QoS 0.
fn execute(shared: &Shared, will: Will) {
    shared.state.wills.increase();
    let message = Message { topic: will.topic, payload: will.payload, qos: 0, retained: false, arrived: shared.clock.now() };
    // When the daemon stops there is nobody left to tell.
    let _ = shared.offer(Content::Message(message));
}

/// Keeps the session for a sensor that comes back soon: what is on its way is not in the ledger yet.
async fn linger(mut guest: Guest) {
    let leave = guest.seat.leave().clone();
    let Some(session) = guest.seat.session.as_mut() else { return };
    if session.is_persistent() {
        tokio::select! {
            biased;
            () = leave.cancelled() => return,
            () = session.drained() => {}
        }
    }
    *guest.seat.session = None;
}
