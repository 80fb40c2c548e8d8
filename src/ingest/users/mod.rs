//! Accounts of sensors: `name:hash` a line, the hash Argon2id in the form that password tools write (PHC).
//!
//! Owns: the file and its form, how passwords are hashed. Does not own: who is let in (the listener's gate).
//! Invariants: a password is never kept; what is written replaces the file whole, for its owner alone; a hash that would
//! cost the gateway too much memory or time is refused when the file is read, not when a sensor comes.
//! On failure: the file stays as it was.

mod file;
mod hash;

pub use file::{Accounts, UsersError, change, read};
#[cfg(test)]
pub(in crate::ingest) use hash::cheap;
pub use hash::{Hash, hash};
