//! A series: a sensor and a metric, with what is known of it.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::time::Timestamp;

/// The name of a series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
pub struct SeriesKey {
    /// Who measured.
    pub sensor: Arc<str>,
    /// What was measured.
    pub metric: Arc<str>,
}

/// What is known of a series. In the ledger it is true for sealed readings; the hot ones are added in memory.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SeriesSummary {
    /// Its name.
    #[serde(flatten)]
    pub key: SeriesKey,
    /// The latest unit seen.
    pub unit: Option<Arc<str>>,
    /// Time of the oldest reading, if there is one.
    pub first_time: Option<Timestamp>,
    /// Time of the newest reading.
    pub last_time: Option<Timestamp>,
    /// Readings counted so far, also those evicted or dropped since.
    pub readings: u64,
    /// Value of the newest reading.
    pub last_value: Option<f64>,
    /// Text of the newest reading.
    pub last_text: Option<Arc<str>>,
}

impl SeriesSummary {
    /// A series of which nothing but the name is known.
    pub fn empty(key: SeriesKey) -> Self {
        Self { key, unit: None, first_time: None, last_time: None, readings: 0, last_value: None, last_text: None }
    }

    /// Takes one more reading into account; the newest time wins, and of equal times the later call.
    pub fn add(&mut self, reading: &super::Reading) {
        self.readings += 1;
        if reading.unit.is_some() {
            self.unit.clone_from(&reading.unit);
        }
        if self.first_time.is_none_or(|first| reading.time < first) {
            self.first_time = Some(reading.time);
        }
        if self.last_time.is_none_or(|last| reading.time >= last) {
            self.last_time = Some(reading.time);
            self.last_value = reading.value;
            self.last_text.clone_from(&reading.text);
        }
    }

    /// Adds a later summary of the same series.
    pub fn merge(&mut self, later: &Self) {
        self.readings += later.readings;
        if later.unit.is_some() {
            self.unit.clone_from(&later.unit);
        }
        self.first_time = [self.first_time, later.first_time].into_iter().flatten().min();
        if later.last_time.is_some() && later.last_time >= self.last_time {
            self.last_time = later.last_time;
            self.last_value = later.last_value;
            self.last_text.clone_from(&later.last_text);
        }
    }
}
