//! What is kept.

use serde::{Deserialize, Serialize};

use super::{mebibytes, seconds};
use crate::config::units::{ByteSize, Period};

/// What to do at the cap when nothing delivered is left to evict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Remove the oldest undelivered readings.
    DropOldest,
    /// Replace the oldest undelivered readings by aggregates.
    Thin,
    /// Take nothing more.
    Refuse,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Everything in the data folder.
    pub cap: ByteSize,
    /// Readings; 0: no limit by count.
    pub cap_readings: u64,
    /// Left free on the file system.
    pub min_free: ByteSize,
    /// Of what is delivered.
    pub max_age: Period,
    /// At the cap.
    pub when_full: WhenFull,
    /// How often to look.
    pub check_interval: Period,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            cap: mebibytes(1024),
            cap_readings: 0,
            min_free: mebibytes(256),
            max_age: seconds(90 * 86_400),
            when_full: WhenFull::DropOldest,
            check_interval: seconds(30),
        }
    }
}
