//! From a payload to readings and records.
//!
//! Owns: what a message means, by its topic, its payload and the rules of the configuration.
//! Does not own: the commit, the acknowledgement, the limit on series, and `once`: it only says that a rule asks for it.
//! Invariants: pure (the zone is read once, when the decoder is made); no payload makes it panic; what it makes of one
//! message is bounded in number and in bytes; each part of a message becomes a reading, a record, or is counted.
//! On failure: a message that can't be decoded is rejected with a reason; a member that can't be is left out alone.

mod decoded;
mod decoder;
mod explain;
mod flatten;
mod gather;
mod json;
mod known;
mod moment;
mod named;
mod ruled;
mod senml;
#[cfg(test)]
mod tests;
mod words;

pub use decoded::{Decided, Decoded};
pub use decoder::Decoder;
pub use explain::{Explanation, LeftOut};
pub use gather::MAX_READINGS;
