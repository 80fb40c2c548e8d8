//! The scan: every row of a series in a range, from the journal and from the segments, each once, in no order.

use std::time::Instant;

use arrow::array::{Array as _, Float64Array, Int16Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::error::ArrowError;

use super::moment::Pinned;
use super::take::{Row, Take};
use super::{Question, RangeError, Ranges};
use crate::ledger::Reader;
use crate::model::{TimeSource, Timestamp, columns};
use crate::segment::{self, Wanted};

/// Hot readings decoded at a time.
const HOT_AT_ONCE: u64 = 50_000;

pub(super) struct Scan<'s> {
    pub(super) ranges: &'s Ranges,
    pub(super) question: &'s Question,
    pub(super) end: Instant,
    pub(super) incomplete: bool,
}

impl Scan<'_> {
    /// Hands every row to `take`; answers whether something could not be read.
    pub(super) fn run(mut self, take: &mut impl Take) -> Result<bool, RangeError> {
        let (ranges, times) = (self.ranges, self.question.from..self.question.to);
        let (hot, pinned) = ranges.moment(&times, |reader| self.hot(reader, take))?;
        hot?;
        for Pinned { path, pin, .. } in pinned {
            self.in_time()?;
            self.segment(&path, take)?;
            drop(pin);
        }
        Ok(self.incomplete)
    }

    fn in_time(&self) -> Result<(), RangeError> {
        if Instant::now() < self.end { Ok(()) } else { Err(RangeError::TooLong) }
    }

    fn hot(&mut self, reader: &Reader, take: &mut impl Take) -> Result<(), RangeError> {
        let mut after = reader.progress()?.mark;
        loop {
            let entries = reader.journal(after, HOT_AT_ONCE)?;
            for entry in &entries {
                after = entry.last_seq();
                let batch = entry.bytes.as_ref().map_err(Clone::clone).and_then(|bytes| {
                    let batch = columns::decode_journal(bytes, entry.first_seq);
                    batch.and_then(|batch| columns::plain_words(&batch)).map_err(|error| error.to_string())
                });
                match batch {
                    // Not sorted: that it ends beyond the series says nothing of the next.
                    Ok(batch) => _ = self.rows(&batch, take)?,
                    Err(error) => self.leave_out("a journal batch", &error),
                }
            }
            self.in_time()?;
            if entries.is_empty() {
                return Ok(());
            }
        }
    }

    fn segment(&mut self, path: &std::path::Path, take: &mut impl Take) -> Result<(), RangeError> {
        let Question { sensor, metric, from, to } = self.question;
        let batches = match segment::read_where(path, &Wanted { sensor: Some(sensor), metric: Some(metric), times: *from..*to }) {
            Ok(batches) => batches,
            Err(error) => {
                self.leave_out("a segment", &error);
                return Ok(());
            }
        };
        for batch in batches {
            match batch {
                Ok(batch) if self.rows(&batch, take)? => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    self.leave_out("a segment", &error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, what: &str, error: &dyn std::fmt::Display) {
        tracing::warn!(what, %error, "an answer is incomplete");
        self.incomplete = true;
    }

    /// Hands the rows of the series to `take`. Answers whether the batch ends beyond the series, as sorted ones do.
    fn rows(&mut self, batch: &RecordBatch, take: &mut impl Take) -> Result<bool, RangeError> {
        let columns = match Columns::of(batch) {
            Ok(columns) => columns,
            Err(error) => {
                self.leave_out("a batch of rows", &error);
                return Ok(false);
            }
        };
        let wanted = (&*self.question.sensor, &*self.question.metric);
        let times = self.question.from..self.question.to;
        for row in 0..batch.num_rows() {
            let time = Timestamp(columns.time.value(row));
            if times.contains(&time) && (columns.sensor.value(row), columns.metric.value(row)) == wanted {
                take.take(&columns.row(row, time))?;
            }
        }
        let last = batch.num_rows().checked_sub(1).map(|row| (columns.sensor.value(row), columns.metric.value(row)));
        Ok(last.is_some_and(|last| last > wanted))
    }
}

/// The columns of `columns::reading_schema`.
struct Columns<'b> {
    time: &'b TimestampMicrosecondArray,
    sensor: &'b StringArray,
    metric: &'b StringArray,
    value: &'b Float64Array,
    text: &'b StringArray,
    unit: &'b StringArray,
    quality: &'b Int16Array,
    time_source: &'b StringArray,
    seq: &'b Int64Array,
}

impl<'b> Columns<'b> {
    fn of(batch: &'b RecordBatch) -> Result<Self, ArrowError> {
        Ok(Self {
            time: column(batch, "time")?,
            sensor: column(batch, "sensor")?,
            metric: column(batch, "metric")?,
            value: column(batch, "value")?,
            text: column(batch, "text")?,
            unit: column(batch, "unit")?,
            quality: column(batch, "quality")?,
            time_source: column(batch, "time_source")?,
            seq: column(batch, "seq")?,
        })
    }

    fn row(&self, row: usize, time: Timestamp) -> Row<'b> {
        Row {
            time,
            value: self.value.is_valid(row).then(|| self.value.value(row)),
            text: self.text.is_valid(row).then(|| self.text.value(row)),
            unit: self.unit.is_valid(row).then(|| self.unit.value(row)),
            quality: self.quality.is_valid(row).then(|| self.quality.value(row)),
            time_source: TimeSource::from_word(self.time_source.value(row)).unwrap_or(TimeSource::Sensor),
            seq: u64::try_from(self.seq.value(row)).unwrap_or_default(),
        }
    }
}

fn column<'b, T: 'static>(batch: &'b RecordBatch, name: &str) -> Result<&'b T, ArrowError> {
    let array = batch.column_by_name(name).and_then(|array| array.as_any().downcast_ref::<T>());
    array.ok_or_else(|| ArrowError::SchemaError(format!("no column {name} of the expected type")))
}
