//! The rows of several files of one kind in the order of a file, batch by batch.
//!
//! It holds a stretch of each source and one batch of the outcome, however much the files hold together.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use tokio_util::sync::CancellationToken;

use super::error::SegmentError;
use super::layout::column;
use super::read::SegmentReader;
use super::writer::CHUNK_ROWS;
use crate::model::FileKind;

/// Rows that are read of one source at a time.
pub(super) const STRETCH_ROWS: usize = 1024;

/// What a row is ordered by: sensor, metric, time and seq of a reading, the id of a record.
type Key<'a> = (Option<(&'a str, &'a str, i64)>, i64);

/// Yields batches of [`CHUNK_ROWS`], but the last one. Blocking.
pub(super) struct MergedRows {
    /// Those that have rows left; the one with the first row on top.
    sources: BinaryHeap<Source>,
    drafts: u64,
    /// Ends it early.
    stop: CancellationToken,
}

impl MergedRows {
    /// Of the files that `readers` read, each in the order of `kind`.
    pub(super) fn new(kind: FileKind, readers: Vec<SegmentReader>, stop: &CancellationToken) -> Result<Self, SegmentError> {
        let mut sources = BinaryHeap::new();
        for mut reader in readers {
            if let Some(stretch) = Stretch::next(kind, &mut reader)? {
                sources.push(Source { kind, reader, stretch, row: 0, place: None });
            }
        }
        Ok(Self { sources, drafts: 0, stop: stop.clone() })
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, SegmentError> {
        if self.stop.is_cancelled() {
            return Err(SegmentError::Stopped);
        }
        self.drafts += 1;
        let mut draft = Draft { number: self.drafts, batches: Vec::new(), rows: Vec::with_capacity(CHUNK_ROWS) };
        while draft.rows.len() < CHUNK_ROWS {
            let Some(mut source) = self.sources.pop() else { break };
            if source.hand_over(&mut draft, self.sources.peek().map(Source::key))? {
                self.sources.push(source);
            }
        }
        if draft.rows.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = draft.batches.iter().collect();
        interleave_record_batch(&batches, &draft.rows).map(Some).map_err(|error| SegmentError::arrow("merged rows", &error))
    }
}

impl Iterator for MergedRows {
    type Item = Result<RecordBatch, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}

/// A batch of the outcome in the making.
struct Draft {
    number: u64,
    /// What its rows are taken from.
    batches: Vec<RecordBatch>,
    /// The place of a batch, and the row in it.
    rows: Vec<(usize, usize)>,
}

/// A file that is being read.
struct Source {
    kind: FileKind,
    reader: SegmentReader,
    stretch: Stretch,
    /// The next row of the stretch.
    row: usize,
    /// In which draft the stretch has which place.
    place: Option<(u64, usize)>,
}

impl Source {
    fn key(&self) -> Key<'_> {
        self.stretch.key(self.row)
    }

    /// Adds rows to `draft` until it is full, or the next row comes after `bound`. Whether rows are left.
    fn hand_over(&mut self, draft: &mut Draft, bound: Option<Key<'_>>) -> Result<bool, SegmentError> {
        loop {
            let place = self.place_in(draft);
            while self.row < self.stretch.rows() {
                if draft.rows.len() == CHUNK_ROWS || bound.is_some_and(|bound| self.key() > bound) {
                    return Ok(true);
                }
                draft.rows.push((place, self.row));
                self.row += 1;
            }
            let Some(stretch) = Stretch::next(self.kind, &mut self.reader)? else { return Ok(false) };
            (self.stretch, self.row, self.place) = (stretch, 0, None);
        }
    }

    fn place_in(&mut self, draft: &mut Draft) -> usize {
        match self.place {
            Some((number, place)) if number == draft.number => place,
            _ => {
                draft.batches.push(self.stretch.batch.clone());
                let place = draft.batches.len() - 1;
                self.place = Some((draft.number, place));
                place
            }
        }
    }
}

impl Ord for Source {
    /// The first row is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Source {}

/// Some rows of a file, with the columns that they are ordered by.
struct Stretch {
    batch: RecordBatch,
    series: Option<(StringArray, StringArray, TimestampMicrosecondArray)>,
    number: Int64Array,
}

impl Stretch {
    /// `None` at the end of the file.
    fn next(kind: FileKind, reader: &mut SegmentReader) -> Result<Option<Self>, SegmentError> {
        let batch = reader.find(|batch| batch.as_ref().map_or(true, |batch| batch.num_rows() > 0)).transpose()?;
        batch.map(|batch| Self::of(kind, batch).map_err(|error| SegmentError::arrow("a segment", &error))).transpose()
    }

    fn of(kind: FileKind, batch: RecordBatch) -> Result<Self, ArrowError> {
        let (series, number) = match kind {
            FileKind::Readings => {
                let words = |name: &str| column::<StringArray>(&batch, name).cloned();
                let time = column::<TimestampMicrosecondArray>(&batch, "time")?.clone();
                (Some((words("sensor")?, words("metric")?, time)), "seq")
            }
            FileKind::Records => (None, "id"),
        };
        let number = column::<Int64Array>(&batch, number)?.clone();
        Ok(Self { batch, series, number })
    }

    fn rows(&self) -> usize {
        self.number.len()
    }

    fn key(&self, row: usize) -> Key<'_> {
        let series = self.series.as_ref().map(|(sensor, metric, time)| (sensor.value(row), metric.value(row), time.value(row)));
        (series, self.number.value(row))
    }
}
