//! Side room, retention: the limits of the data folder, and what goes so that they hold.
//!
//! Owns: what must go and in which order, whether readings are taken ([`crate::space::Space`]), the reserve file.
//! Does not own: the files (the segment room removes them), the rows (the ledger lets go of them first), what is delivered.
//! Invariants: what is delivered goes before what is not, the oldest first; a drop is a loss in the ledger before its files
//! are removed; the cut of the shipment under way is never dropped; what would not make enough room is not dropped either:
//! then no readings are taken.
//! On failure: `Full` gives the reserve back and tries again; what can't be removed now is tried again; `Broken` asks for an
//! orderly exit.
//!
//! `usage` measures, `plan` says what must go, `enforcer` is the worker, `steady` tells when the clock may be believed.

mod enforcer;
mod error;
mod making_room;
mod plan;
mod reserve;
mod state;
mod steady;
#[cfg(test)]
mod tests;
mod usage;

pub use enforcer::{Enforcer, Setup};
pub use error::RetentionError;
pub use reserve::give_back_if_full;
pub use state::{RetentionState, Room};
