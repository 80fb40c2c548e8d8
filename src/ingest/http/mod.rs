//! The HTTP source: readings that a request brings, checked whole and handed in as one delivery.
//!
//! Owns: the requests on their way to the pump, by their idempotency key.
//! Does not own: the doors, the requests' bodies, the ledger (who asks says whether a key is known there).
//! Invariants: all or nothing; the outcome is told only when the delivery is settled; of requests with the same key
//! and body one is handed in, and all get its outcome.
//! On failure: what the pump refuses is told as refused; a requester that goes away changes nothing for the others.

mod desk;
mod moment;
mod parse;

pub use desk::{Desk, DeskError, request_digest};
pub use parse::{BadReading, MAX_READINGS, Written, parse};
