//! When a cut is sealed.

use serde::{Deserialize, Serialize};

use super::seconds;
use crate::config::units::Period;

/// When a cut is sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Segment {
    /// Age of the oldest hot reading.
    pub seal_interval: Period,
    /// Or this many hot readings.
    pub seal_readings: u64,
}

impl Default for Segment {
    fn default() -> Self {
        Self { seal_interval: seconds(300), seal_readings: 250_000 }
    }
}
