//! A batch: the readings and records committed together, with all that must become true at the same moment.

use super::books::Tally;
use super::ids::{Digest, Seq};
use super::marks::MarkEvent;
use super::reading::{Reading, Record};
use super::series::SeriesKey;
use super::time::Timestamp;

/// What one transaction commits.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// In the order of acceptance: the first gets the next seq.
    pub readings: Vec<Reading>,
    /// In the order of arrival.
    pub records: Vec<Record>,
    /// Series seen for the first time.
    pub new_series: Vec<SeriesKey>,
    /// Changes of session marks, in order.
    pub marks: Vec<MarkEvent>,
    /// Digests of idempotency keys whose readings are in this batch, with the time of arrival.
    pub idempotency: Vec<(Digest, Timestamp)>,
    /// What this batch adds to the totals.
    pub tally: Tally,
}

impl Batch {
    /// Whether committing it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.readings.is_empty() && self.records.is_empty() && self.marks.is_empty() && self.tally == Tally::default()
    }
}

/// Rows of a file, ready for the journal.
#[derive(Debug, Clone)]
pub struct ImportedRows {
    /// Digest of the whole file.
    pub file: Digest,
    /// Where in the file the first of them stands, counted from 0.
    pub first_row: u64,
    /// How many they are.
    pub rows: u64,
    /// As [`super::columns::encode_columns`] gives them.
    pub bytes: Vec<u8>,
    /// Series seen for the first time.
    pub new_series: Vec<SeriesKey>,
}

/// The closed range of seqs that a batch's readings got; `last < first` where it had none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// First seq.
    pub first_seq: Seq,
    /// Last seq.
    pub last_seq: Seq,
}
