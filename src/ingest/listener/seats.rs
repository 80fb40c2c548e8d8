//! Seats: one connection a client id, and what it leaves behind for the next.
//!
//! Owns: which connection holds which client id, sessions between connections, and wills that are not due yet.
//! Does not own: sessions in use; they are their connection's.
//! Invariants: one holder a client id; who comes next gets the session only when the holder has let go of it, so that
//! deliveries and marks keep their order; a seat that nobody holds or waits for is forgotten.
//! On failure: nothing here can fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use super::packet::Will;
use super::session::Session;

/// What a connection leaves behind for the next of its client.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Its session, while something of it is on the way.
    pub(super) session: Option<Session>,
    /// Its will, if the next came before it was due.
    pub(super) will: Option<Will>,
}

/// What rests in a seat. Its lock is the seat itself, and queues who waits for it.
type Rest = Arc<AsyncMutex<Left>>;

#[derive(Debug)]
struct Place {
    rest: Rest,
    /// Tells the latest comer that another one came.
    leave: CancellationToken,
}

/// All seats.
#[derive(Debug, Default)]
pub(super) struct Seats {
    places: Mutex<HashMap<Arc<str>, Place>>,
}

/// A claim on the seat of one client id: the latest one, until `leave` is cancelled.
#[derive(Debug)]
pub(super) struct Claim {
    seats: Arc<Seats>,
    client_id: Arc<str>,
    rest: Option<Rest>,
    leave: CancellationToken,
    takes_over: bool,
}

/// The seat itself, with what the holder before left.
#[derive(Debug)]
pub(super) struct Seat {
    /// Before `claim`, which counts who else is there when it is dropped.
    pub(super) left: OwnedMutexGuard<Left>,
    claim: Claim,
}

impl Seats {
    /// Claims the seat of `client_id`, and tells whoever holds it, or waits for it, to leave.
    pub(super) fn claim(self: &Arc<Self>, client_id: Arc<str>) -> Claim {
        let leave = CancellationToken::new();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let (rest, takes_over) = match places.get_mut(&client_id) {
            Some(place) => {
                std::mem::replace(&mut place.leave, leave.clone()).cancel();
                (Arc::clone(&place.rest), true)
            }
            None => {
                let rest = Rest::default();
                places.insert(Arc::clone(&client_id), Place { rest: Arc::clone(&rest), leave: leave.clone() });
                (rest, false)
            }
        };
        Claim { seats: Arc::clone(self), client_id, rest: Some(rest), leave, takes_over }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.lock().unwrap().len()
    }
}

impl Claim {
    /// Whether there was a holder, or one whose deliveries are not settled.
    pub(super) fn takes_over(&self) -> bool {
        self.takes_over
    }

    /// Waits until the holder before has left; `None` if another one came meanwhile.
    pub(super) async fn seat(self) -> Option<Seat> {
        let rest = Arc::clone(self.rest.as_ref()?);
        let left = tokio::select! {
            biased;
            () = self.leave.cancelled() => return None,
            left = rest.lock_owned() => left,
        };
        Some(Seat { left, claim: self })
    }
}

impl Seat {
    /// Cancelled when another connection claims the seat.
    pub(super) fn leave(&self) -> &CancellationToken {
        &self.claim.leave
    }
}

impl Drop for Claim {
    /// Forgets the seat unless somebody else holds or awaits it. Clones are made under the same lock, so none can appear.
    fn drop(&mut self) {
        let mut places = self.seats.places.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.rest.take());
        if places.get(&self.client_id).is_some_and(|place| Arc::strong_count(&place.rest) == 1) {
            places.remove(&self.client_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::StoredSession;

    fn persistent() -> Session {
        Session::persistent(StoredSession { id: 3, ..StoredSession::default() }, None)
    }

    #[tokio::test]
    async fn the_next_gets_the_session_when_the_holder_lets_go() {
        let seats = Arc::new(Seats::default());
        let mut first = seats.claim("a".into()).seat().await.unwrap();
        assert!(first.left.session.is_none() && !first.leave().is_cancelled());
        let claim = seats.claim("a".into());
        assert!(claim.takes_over() && first.leave().is_cancelled());
        let waiting = tokio::spawn(claim.seat());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        first.left.session = Some(persistent());
        drop(first);
        let second = waiting.await.unwrap().unwrap();
        assert!(second.left.session.as_ref().unwrap().is_persistent());
        drop(second);
        assert_eq!(seats.len(), 0);
    }

    #[tokio::test]
    async fn of_several_who_wait_only_the_latest_gets_the_seat() {
        let seats = Arc::new(Seats::default());
        let first = seats.claim("a".into()).seat().await.unwrap();
        let second = tokio::spawn(seats.claim("a".into()).seat());
        tokio::task::yield_now().await;
        let third = tokio::spawn(seats.claim("a".into()).seat());
        assert!(second.await.unwrap().is_none());
        drop(first);
        assert!(third.await.unwrap().is_some());
        assert_eq!(seats.len(), 0);
    }

    #[tokio::test]
    async fn different_clients_do_not_meet() {
        let seats = Arc::new(Seats::default());
        let (a, b) = (seats.claim("a".into()).seat().await.unwrap(), seats.claim("b".into()).seat().await.unwrap());
        assert!(!a.leave().is_cancelled() && !b.leave().is_cancelled());
        assert_eq!(seats.len(), 2);
    }
}
