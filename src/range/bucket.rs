//! A bucket: what is remembered of the values that fall into one step. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::Timestamp;

/// Most buckets of one answer.
pub const MAX_BUCKETS: usize = 10_000;

/// What of a bucket is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// The mean.
    #[default]
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The sum.
    Sum,
    /// How many.
    Count,
    /// The value of the oldest reading.
    First,
    /// The value of the newest reading.
    Last,
}

/// One bucket of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Bucket {
    /// When it begins.
    pub time: Timestamp,
    /// Its aggregate.
    pub value: f64,
}

/// What is remembered of the values of one bucket. Of equal times the lower seq is the first and the higher the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathered {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    first: (Timestamp, u64, f64),
    last: (Timestamp, u64, f64),
}

impl Gathered {
    /// Of one value.
    pub(super) fn one(time: Timestamp, seq: u64, value: f64) -> Self {
        let place = (time, seq, value);
        Self { count: 1, sum: value, min: value, max: value, first: place, last: place }
    }

    /// Adds one more value, in any order of time.
    pub(super) fn add(&mut self, time: Timestamp, seq: u64, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if (time, seq) < (self.first.0, self.first.1) {
            self.first = (time, seq, value);
        }
        if (time, seq) > (self.last.0, self.last.1) {
            self.last = (time, seq, value);
        }
    }

    /// What is asked for.
    pub(super) fn value(&self, aggregate: Aggregate) -> f64 {
        match aggregate {
            Aggregate::Avg => self.sum / self.count as f64,
            Aggregate::Min => self.min,
            Aggregate::Max => self.max,
            Aggregate::Sum => self.sum,
            Aggregate::Count => self.count as f64,
            Aggregate::First => self.first.2,
            Aggregate::Last => self.last.2,
        }
    }
}
