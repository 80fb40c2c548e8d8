//! Side room, status: what the daemon says about itself.
//!
//! Owns: the shape of the status answer, the judgement of health, the metrics text, the talk with systemd, the log's
//! outlet.
//! Does not own: the counters (each room keeps its own; durable totals are the ledger's), the doors.
//! Invariants: what an answer says of readings comes from one snapshot of the ledger, so its books balance; asking
//! costs a bounded time, whatever the backlog.
//! On failure: a figure that can't be had is left out or 0; only a ledger that can't be read is an error.

mod health;
pub mod logging;
mod machine;
pub mod metrics;
mod now;
mod page;
mod pulse;
mod quiet;
mod report;
pub mod systemd;
#[cfg(test)]
mod tests;

pub use health::{Signs, judge, vital};
pub use now::{IngestNow, LinkNow, Now, RoomNow};
pub use page::{
    BooksPage, BufferPage, ClockPage, EnginePage, EngineState, FlashPage, IngestPage, LinkPage, LinkState, Listeners, ProcessPage, Reason,
    State, Status,
};
pub use pulse::{Pulse, PulseWatch, STALL_LIMIT};
pub use report::{Frame, LedgerFacts, Sources, StatusError, Surroundings, assemble, report};
