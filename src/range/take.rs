//! What a scan hands its rows to: the earliest readings up to a limit, or buckets.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;

use super::bucket::{Aggregate, Bucket, Gathered, MAX_BUCKETS};
use super::{Point, RangeError};
use crate::model::{Seq, TimeSource, Timestamp};

/// Most readings of one answer.
pub const MAX_ROWS: usize = 100_000;

/// One row of the series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    /// When it was measured.
    pub(super) time: Timestamp,
    /// Its value.
    pub(super) value: Option<f64>,
    /// Its state or text.
    pub(super) text: Option<&'a str>,
    /// Its unit.
    pub(super) unit: Option<&'a str>,
    /// Its quality code.
    pub(super) quality: Option<i16>,
    /// Where its time comes from.
    pub(super) time_source: TimeSource,
    /// Its number.
    pub(super) seq: Seq,
}

/// Takes rows in any order.
pub(super) trait Take {
    /// Takes one row of the range.
    fn take(&mut self, row: &Row<'_>) -> Result<(), RangeError>;
}

/// The earliest readings, at most `limit`: the latest of them leaves when an earlier one comes.
pub(super) struct Earliest {
    limit: usize,
    heap: BinaryHeap<Ranked>,
    more: bool,
}

struct Ranked(Point);

impl Ranked {
    fn rank(&self) -> (Timestamp, u64) {
        (self.0.time, self.0.seq)
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Earliest {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::new(), more: false }
    }

    /// The readings, oldest first, and whether there are more.
    pub(super) fn finish(self) -> (Vec<Point>, bool) {
        (self.heap.into_sorted_vec().into_iter().map(|Ranked(point)| point).collect(), self.more)
    }
}

impl Take for Earliest {
    fn take(&mut self, row: &Row<'_>) -> Result<(), RangeError> {
        if self.heap.len() >= self.limit {
            self.more = true;
            let latest = self.heap.peek().map(Ranked::rank);
            if latest.is_none_or(|latest| (row.time, row.seq) >= latest) {
                return Ok(());
            }
            self.heap.pop();
        }
        self.heap.push(Ranked(Point {
            time: row.time,
            value: row.value,
            text: row.text.map(Arc::from),
            unit: row.unit.map(Arc::from),
            quality: row.quality,
            time_source: row.time_source,
            seq: row.seq,
        }));
        Ok(())
    }
}

/// Buckets of one step.
pub(super) struct Buckets {
    step_micros: i64,
    buckets: BTreeMap<i64, Gathered>,
}

impl Buckets {
    pub(super) fn new(step_micros: i64) -> Self {
        Self { step_micros: step_micros.max(1), buckets: BTreeMap::new() }
    }

    pub(super) fn finish(self, aggregate: Aggregate) -> Vec<Bucket> {
        let step = self.step_micros;
        let bucket = |(place, gathered): (i64, Gathered)| Bucket { time: Timestamp(place * step), value: gathered.value(aggregate) };
        self.buckets.into_iter().map(bucket).collect()
    }
}

impl Take for Buckets {
    fn take(&mut self, row: &Row<'_>) -> Result<(), RangeError> {
        let Some(value) = row.value else { return Ok(()) };
        let full = self.buckets.len() >= MAX_BUCKETS;
        match self.buckets.entry(row.time.0.div_euclid(self.step_micros)) {
            Entry::Occupied(mut gathered) => gathered.get_mut().add(row.time, row.seq, value),
            Entry::Vacant(_) if full => return Err(RangeError::TooManyBuckets),
            Entry::Vacant(place) => {
                place.insert(Gathered::one(row.time, row.seq, value));
            }
        }
        Ok(())
    }
}
