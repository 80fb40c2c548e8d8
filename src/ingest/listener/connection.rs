//! One connection, from CONNECT to its end: the worker of this room.
//!
//! Owns: the socket, the packets on their way in and out, and (by its seat) the session while it lasts.
//! Does not own: what becomes of a delivery; the pump says so by its receipt.
//! Invariants: a PUBACK, PUBREC or PUBCOMP is written only after its message, or its end, is committed, in the order of
//! arrival; nothing is read while too much is unacknowledged or unwritten; a session that has something on its way outlives
//! the connection.
//! On failure: the connection ends, nothing that is not committed was acknowledged, and the sensor redelivers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Shared;
use super::error::End;
use super::handshake::{self, Guest};
use super::opening;
use super::packet::{Dialect, Reason, Will};
use super::talk::converse;
use super::wire::{Socket, Wire};

/// Longest delay of a will: as long as anybody waits for a sensor.
const LONGEST_WILL_DELAY: Duration = Duration::from_secs(24 * 3600);

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
            if wire.is_writing() || matches!(end, End::Stopping) {
                farewell(&shared, wire).await;
            }
            return;
        }
    };
    shared.state.accepted.increase();
    shared.state.connections.increase();
    tracing::debug!(client_id = ?guest.client_id, %peer, "a sensor connected");
    let end = converse(&shared, &mut wire, &mut guest).await;
    shared.state.connections.decrease();
    shared.record(&end, peer, Some(&guest.client_id));
    let told = say_why(&mut wire, guest.dialect, &end) || matches!(end, End::Stopping);
    let will = guest.will.take_if(|_| end.leaves_will());
    let saying_goodbye = async {
        if told {
            farewell(&shared, wire).await;
        }
        drop(slot);
    };
    // Whoever takes over must not wait for a peer that may be dead.
    tokio::join!(saying_goodbye, linger(&shared, guest, will));
}

/// Tells a sensor of version 5 why its connection ends; whether there is something to tell.
fn say_why<S: Socket>(wire: &mut Wire<S>, dialect: Dialect, end: &End) -> bool {
    let (Dialect::V5 { .. }, Some(reason)) = (dialect, end.reason()) else { return false };
    dialect.put_disconnect(&mut wire.outbound, reason, &end.to_string());
    true
}

/// Tells a peer for which there is no room to come again later.
pub(super) async fn turn_away<S: Socket>(shared: Arc<Shared>, stream: S, _slot: OwnedSemaphorePermit) {
    let mut wire = Wire::new(stream, 0);
    if let Ok(connect) = handshake::receive(&mut wire, shared.limits.farewell).await {
        handshake::refuse(&mut wire, connect.dialect, Reason::Busy, "too many connections");
        farewell(&shared, wire).await;
    }
}

/// Sees to it that a last answer arrives; otherwise the socket is just dropped.
async fn farewell<S: Socket>(shared: &Shared, mut wire: Wire<S>) {
    // Whether it arrived or not: the connection is over.
    let _ = tokio::time::timeout(shared.limits.farewell, wire.close()).await;
}

/// What happens after a connection: its session is left, and its will is due, unless the sensor comes again first. Then
/// whoever comes finds both in the seat.
async fn linger(shared: &Shared, mut guest: Guest, will: Option<Will>) {
    let expiry = guest.seat.left.session.as_ref().and_then(|session| session.expiry()).unwrap_or(LONGEST_WILL_DELAY);
    let delay = will.as_ref().map_or(Duration::ZERO, |will| will.delay.min(expiry).min(LONGEST_WILL_DELAY));
    let due = Instant::now() + delay;
    // Who has no place to wait, waits no longer.
    let place = if delay.is_zero() { None } else { shared.waiting_wills.try_acquire().ok() };
    let waiting = match (will, &place) {
        (Some(will), None) => {
            shared.execute(will);
            None
        }
        (will, _) => will,
    };
    let alone = opening::leave(shared, &mut guest.seat, &guest.client_id).await;
    let Some(will) = waiting else { return };
    let leave = guest.seat.leave().clone();
    if alone {
        tokio::select! {
            biased;
            () = leave.cancelled() => {}
            // When the daemon stops there is nobody left to tell.
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep_until(due) => return shared.execute(will),
        }
    }
    guest.seat.left.will = Some(will);
}
