//! Room 1, ingest: from a message to a batch.

mod batcher;
pub mod client;
pub mod decode;
mod delivery;
pub mod files;
mod header;
pub mod http;
mod latest;
pub mod listener;
mod once;
mod pump;
mod quarantine;
mod remember;
pub mod route;
pub mod sim;
mod state;
pub mod users;
mod window;

pub use delivery::{Admitted, Content, Delivery, Hurry, Intake, IntakeError, Message, Outcome, Receipt, Rejection, Settled};
pub use latest::{Latest, TooManySeries};
pub use once::Once;
pub use pump::{Parts, Pump, Rules};
pub use remember::remember;
pub use state::PumpState;
pub use window::Window;
