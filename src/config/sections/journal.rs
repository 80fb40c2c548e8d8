//! When a batch is committed.

use serde::{Deserialize, Serialize};

use super::seconds;
use crate::config::units::{ByteSize, Period};

/// When a batch is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// At most this long until a reading is on disk and acknowledged.
    pub commit_interval: Period,
    /// Or this many readings.
    pub commit_readings: usize,
    /// Size of the ledger's WAL at which it is copied into the main file.
    pub checkpoint: ByteSize,
}

impl Default for Journal {
    fn default() -> Self {
        Self { commit_interval: seconds(1), commit_readings: 10_000, checkpoint: ByteSize(800 << 10) }
    }
}
