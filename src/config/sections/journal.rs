//! When a batch is committed.

use serde::{Deserialize, Serialize};

use super::seconds;
use crate::config::units::Period;

/// When a batch is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// At most this long until a reading is on disk and acknowledged.
    pub commit_interval: Period,
    /// Or this many readings.
    pub commit_readings: usize,
}

impl Default for Journal {
    fn default() -> Self {
        Self { commit_interval: seconds(1), commit_readings: 10_000 }
    }
}
