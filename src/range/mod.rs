//! Side room, range: the readings of one series over a time, buckets of them, or all readings of an export, read without the
//! engine.
//!
//! Owns: nothing; it reads the journal and the segments.
//! Does not own: the files (it pins what it reads), SQL.
//! Invariants: an answer sees each reading once: journal and list of segments come from one snapshot of the ledger; what
//! it holds in memory is bounded by the limit of rows or buckets, or by the journal, not by the range.
//! On failure: what is damaged or was just removed is left out, and the answer says `incomplete`.

mod bucket;
mod export;
mod scan;
mod take;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ErrorKind;
use crate::ledger::{Ledger, LedgerError};
use crate::model::{TimeSource, Timestamp};
use crate::segment::SegmentDir;

pub use bucket::{Aggregate, Bucket, MAX_BUCKETS};
pub use export::{Export, Selection};
use scan::Scan;
pub use take::MAX_ROWS;
use take::{Buckets, Earliest, Take};

/// Longest time that one answer may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What is asked for: one series, from a time (inclusive) until a time (exclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who measured.
    pub sensor: Arc<str>,
    /// What was measured.
    pub metric: Arc<str>,
    /// The first moment that counts.
    pub from: Timestamp,
    /// The first moment that does not.
    pub to: Timestamp,
}

/// One reading of the series.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Point {
    /// When it was measured.
    pub time: Timestamp,
    /// Its value.
    pub value: Option<f64>,
    /// Its state or text.
    pub text: Option<Arc<str>>,
    /// Its unit.
    pub unit: Option<Arc<str>>,
    /// Its quality code.
    pub quality: Option<i16>,
    /// Where its time comes from.
    pub time_source: TimeSource,
    /// Its number.
    pub seq: u64,
}

/// Readings, oldest first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
pub struct Points {
    /// The first of them, as many as asked for.
    pub readings: Vec<Point>,
    /// Whether there are more.
    pub more: bool,
    /// Whether something could not be read.
    pub incomplete: bool,
}

/// Buckets, oldest first; those without a value are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
pub struct Series {
    /// Each with the moment at which it begins.
    pub buckets: Vec<Bucket>,
    /// Whether something could not be read.
    pub incomplete: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The step is too small for the range.
    #[error("the range has more than {MAX_BUCKETS} buckets of this step")]
    TooManyBuckets,
    /// There is too much to read.
    #[error("the range takes longer than {} s to read", TIME_LIMIT.as_secs())]
    TooLong,
    /// The journal is too long to be held.
    #[error("too much is not sealed yet")]
    TooMuchHot,
}

impl RangeError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ledger(error) => error.kind(),
            Self::TooManyBuckets | Self::TooLong => ErrorKind::Invalid,
            Self::TooMuchHot => ErrorKind::Transient,
        }
    }
}

/// Reads ranges. Every call blocks; call it on a blocking thread.
#[derive(Clone)]
pub struct Ranges {
    ledger: Ledger,
    segments: SegmentDir,
}

impl Ranges {
    /// Reads from `ledger` and `segments`.
    pub fn new(ledger: Ledger, segments: SegmentDir) -> Self {
        Self { ledger, segments }
    }

    /// The first `limit` readings of the range, at most [`MAX_ROWS`].
    ///
    /// # Errors
    /// The ledger can't be read; there is too much to read.
    pub fn readings(&self, question: &Question, limit: usize) -> Result<Points, RangeError> {
        let mut earliest = Earliest::new(limit.min(MAX_ROWS));
        let incomplete = self.scan(question, &mut earliest)?;
        let (readings, more) = earliest.finish();
        Ok(Points { readings, more, incomplete })
    }

    /// Buckets of `step_micros`, counted from 1970, each with its aggregate.
    ///
    /// # Errors
    /// As [`Self::readings`], or more than [`MAX_BUCKETS`] buckets.
    pub fn buckets(&self, question: &Question, step_micros: i64, aggregate: Aggregate) -> Result<Series, RangeError> {
        let mut buckets = Buckets::new(step_micros);
        let incomplete = self.scan(question, &mut buckets)?;
        Ok(Series { buckets: buckets.finish(aggregate), incomplete })
    }

    fn scan(&self, question: &Question, take: &mut impl Take) -> Result<bool, RangeError> {
        Scan { ledger: &self.ledger, segments: &self.segments, question, end: Instant::now() + TIME_LIMIT, incomplete: false }.run(take)
    }
}
