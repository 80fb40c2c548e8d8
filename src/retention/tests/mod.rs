//! The room as a whole, with a real ledger, real files and a real sealer.

mod limits;
mod refusing;
mod rig;

use rig::{CLOCK, MIB, Rig, settings};
