//! The export: every reading of a selection, batch by batch, each once.
//!
//! Segments come first, by their oldest time, each in its own order (sensor, metric, time); what is hot comes last, as it
//! was committed. Nothing is sorted across them, so that an export of any length takes the memory of one batch, and of
//! the compressed journal.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, Scalar, StringArray};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;

use super::moment::Pinned;
use super::{RangeError, Ranges};
use crate::ledger::{JournalEntry, Reader};
use crate::model::{Timestamp, columns};
use crate::segment::{self, Pin, SegmentReader, Wanted};

/// Most bytes of the journal that an export holds: some 700,000 readings.
const MAX_HOT_BYTES: usize = 32 << 20;

/// Hot readings asked of the ledger at once.
const HOT_AT_ONCE: u64 = 50_000;

/// What is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Of this sensor; `None`: of all.
    pub sensor: Option<Arc<str>>,
    /// Of this metric; `None`: of all.
    pub metric: Option<Arc<str>>,
    /// Of these times.
    pub times: Range<Timestamp>,
}

impl Ranges {
    /// Everything of `selection` that is kept at this moment, to be read as it is wanted.
    ///
    /// # Errors
    /// The ledger can't be read; too much is hot.
    pub fn export(&self, selection: Selection) -> Result<Export, RangeError> {
        let (hot, mut segments) = self.moment(&selection.times, journal)?;
        segments.sort_by_key(|pinned| (pinned.segment.min_time, pinned.segment.first_seq));
        Ok(Export { selection, segments: segments.into(), hot: hot?, open: None, incomplete: false })
    }
}

/// The journal as it is, compressed.
fn journal(reader: &Reader) -> Result<VecDeque<JournalEntry>, RangeError> {
    let (mut after, mut entries, mut bytes) = (reader.progress()?.mark, VecDeque::new(), 0);
    loop {
        let piece = reader.journal(after, HOT_AT_ONCE)?;
        let Some(last) = piece.last() else { return Ok(entries) };
        after = last.last_seq();
        bytes += piece.iter().map(|entry| entry.bytes.as_ref().map_or(0, Vec::len)).sum::<usize>();
        if bytes > MAX_HOT_BYTES {
            return Err(RangeError::TooMuchHot);
        }
        entries.extend(piece);
    }
}

/// An export under way: an iterator of batches of `columns::reading_schema`. Blocking. What can't be read is left out.
pub struct Export {
    selection: Selection,
    segments: VecDeque<Pinned>,
    hot: VecDeque<JournalEntry>,
    /// The segment that is being read.
    open: Option<(SegmentReader, Pin)>,
    incomplete: bool,
}

impl Export {
    /// Whether something was left out so far.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    fn leave_out(&mut self, what: &dyn std::fmt::Display, error: &dyn std::fmt::Display) {
        tracing::error!(%what, %error, "an export is incomplete");
        self.incomplete = true;
    }

    /// The next batch of a segment; opens the next one where there is none.
    fn sealed(&mut self) -> Option<RecordBatch> {
        loop {
            match self.open.as_mut().map(|(reader, _)| reader.next()) {
                Some(Some(Ok(batch))) => return Some(batch),
                Some(Some(Err(error))) => {
                    self.leave_out(&"a segment", &error);
                    self.open = None;
                }
                Some(None) => self.open = None,
                None => {
                    let Pinned { segment, path, pin } = self.segments.pop_front()?;
                    let Selection { sensor, metric, times } = &self.selection;
                    let wanted = Wanted { sensor: sensor.as_deref(), metric: metric.as_deref(), times: times.clone() };
                    match segment::read_where(&path, &wanted) {
                        Ok(reader) => self.open = Some((reader, pin)),
                        Err(error) => self.leave_out(&segment.name, &error),
                    }
                }
            }
        }
    }

    fn hot(&mut self) -> Option<RecordBatch> {
        loop {
            let JournalEntry { first_seq, bytes, .. } = self.hot.pop_front()?;
            let decode = |bytes: Vec<u8>| {
                let batch = columns::decode_journal(&bytes, first_seq).and_then(|batch| columns::plain_words(&batch));
                batch.map_err(|error| error.to_string())
            };
            match bytes.and_then(decode) {
                Ok(batch) => return Some(batch),
                Err(error) => self.leave_out(&format!("the journal at seq {first_seq}"), &error),
            }
        }
    }
}

impl Iterator for Export {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        loop {
            let batch = self.sealed().or_else(|| self.hot())?;
            match select(&batch, &self.selection) {
                Ok(batch) if batch.num_rows() == 0 => {}
                Ok(batch) => return Some(batch),
                Err(error) => self.leave_out(&"a batch of rows", &error),
            }
        }
    }
}

/// The rows of `batch` that are selected.
fn select(batch: &RecordBatch, selection: &Selection) -> Result<RecordBatch, ArrowError> {
    let missing = || ArrowError::SchemaError("not the columns of readings".to_owned());
    let mut mask: Option<BooleanArray> = None;
    let mut also = |other: BooleanArray| -> Result<(), ArrowError> {
        mask = Some(match mask.take() {
            None => other,
            Some(mask) => and(&mask, &other)?,
        });
        Ok(())
    };
    for (name, word) in [("sensor", &selection.sensor), ("metric", &selection.metric)] {
        if let Some(word) = word {
            also(eq(batch.column_by_name(name).ok_or_else(missing)?, &Scalar::new(StringArray::from(vec![&**word])))?)?;
        }
    }
    if selection.times != (Timestamp(i64::MIN)..Timestamp(i64::MAX)) {
        let times = batch.column_by_name("time").and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(missing)?;
        also(BooleanArray::from_unary(times, |time| selection.times.contains(&Timestamp(time))))?;
    }
    mask.map_or_else(|| Ok(batch.clone()), |mask| filter_record_batch(batch, &mask))
}
