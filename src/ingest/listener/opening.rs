//! Which session a sensor gets when it connects, and what becomes of the session when it has gone.

use std::time::Duration;

use super::Shared;
use super::error::End;
use super::packet::Connect;
use super::seats::Seat;
use super::session::Session;
use crate::ledger::LedgerError;

/// Why there is no session.
pub(super) enum Unopened {
    /// The connection ends first.
    Ended(End),
    /// Its session can't be kept.
    Ledger(LedgerError),
}

impl From<LedgerError> for Unopened {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// Gives the seat the session that `connect` asks for; whether it was there before.
///
/// # Errors
/// [`Unopened`].
pub(super) async fn open(shared: &Shared, seat: &mut Seat, client_id: &str, connect: &Connect) -> Result<bool, Unopened> {
    let will = seat.left.will.take();
    // Whom we gave its name nobody knew before.
    if !connect.clean_start && !connect.client_id.is_empty() {
        return resume(shared, seat, session_name(client_id), connect.expiry).await;
    }
    drain(shared, seat).await.map_err(Unopened::Ended)?;
    // With the session ends the time that its will was given.
    if let Some(will) = will {
        shared.execute(will);
    }
    let name = session_name(client_id);
    if !connect.client_id.is_empty() {
        shared.ledger.end_session(name.clone()).await?;
    }
    seat.left.session = Some(match connect.expiry {
        Some(Duration::ZERO) => Session::clean(),
        expiry => Session::persistent(shared.ledger.open_session(name, expiry).await?, expiry),
    });
    Ok(false)
}

/// Goes on with the session of the connection before, if that has something on its way, or else with what the ledger has.
async fn resume(shared: &Shared, seat: &mut Seat, name: String, expiry: Option<Duration>) -> Result<bool, Unopened> {
    if let Some(session) = seat.left.session.as_mut().filter(|session| session.can_go_on()) {
        if session.expiry() != expiry {
            shared.ledger.open_session(name, expiry).await?;
        }
        session.pass_on(expiry);
        return Ok(true);
    }
    let ended = seat.left.session.as_ref().is_some_and(|session| session.is_persistent() && session.expiry() == Some(Duration::ZERO));
    drain(shared, seat).await.map_err(Unopened::Ended)?;
    if ended {
        shared.ledger.end_session(name.clone()).await?;
    }
    let stored = match expiry {
        // One that ends with the connection is not begun in the ledger.
        Some(Duration::ZERO) => shared.ledger.resume_session(name, expiry).await?,
        _ => Some(shared.ledger.open_session(name, expiry).await?),
    };
    let present = stored.as_ref().is_some_and(|stored| stored.present);
    seat.left.session = Some(stored.map_or_else(Session::clean, |stored| Session::persistent(stored, expiry)));
    Ok(present)
}

/// Waits until everything of a persistent session is settled, and forgets it. Of a clean one nobody needs to know.
async fn drain(shared: &Shared, seat: &mut Seat) -> Result<(), End> {
    let leave = seat.leave().clone();
    if let Some(session) = seat.left.session.as_mut().filter(|session| session.is_persistent()) {
        tokio::select! {
            biased;
            () = leave.cancelled() => return Err(End::TakenOver),
            () = shared.stop.cancelled() => return Err(End::Stopping),
            () = session.drained() => {}
        }
    }
    seat.left.session = None;
    Ok(())
}

/// Keeps the session for a sensor that comes back soon, as what is on its way is not in the ledger yet; then leaves it to
/// the ledger. Whether nobody came.
pub(super) async fn leave(shared: &Shared, seat: &mut Seat, client_id: &str) -> bool {
    let leave = seat.leave().clone();
    let Some(session) = seat.left.session.as_mut() else { return true };
    if session.is_persistent() {
        tokio::select! {
            biased;
            () = leave.cancelled() => return false,
            () = session.drained() => {}
        }
        let name = session_name(client_id);
        let left = match session.expiry() {
            None => Ok(()),
            Some(Duration::ZERO) => shared.ledger.end_session(name).await,
            Some(expiry) => shared.ledger.leave_session(name, expiry).await,
        };
        if let Err(error) = left {
            // At the next start it will be told so.
            shared.complain(&error, "a session can't be left to expire");
        }
    }
    seat.left.session = None;
    true
}

fn session_name(client_id: &str) -> String {
    format!("listener/{client_id}")
}
