//! The small tables as Arrow: series as of the mark, records, losses, segments.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use crate::model::{LossStatus, Segment, SeriesSummary, StoredRecord, Timestamp};

/// The series as of the mark.
///
/// # Errors
/// Columns that do not fit together: a fault of this program.
pub fn sealed_series(series: &[SeriesSummary]) -> Result<Vec<u8>, ArrowError> {
    stream([
        ("sensor", texts(series, |series| Some(&*series.key.sensor))),
        ("metric", texts(series, |series| Some(&*series.key.metric))),
        ("unit", texts(series, |series| series.unit.as_deref())),
        ("first_time", times(series, |series| series.first_time)),
        ("last_time", times(series, |series| series.last_time)),
        ("readings", counts(series, |series| Some(series.readings))),
        ("last_value", Arc::new(series.iter().map(|series| series.last_value).collect::<Float64Array>())),
        ("last_text", texts(series, |series| series.last_text.as_deref())),
    ])
}

/// Records.
///
/// # Errors
/// As [`sealed_series`].
pub fn records(records: &[StoredRecord]) -> Result<Vec<u8>, ArrowError> {
    stream([
        ("id", Arc::new(records.iter().map(|record| Some(record.id)).collect::<Int64Array>()) as ArrayRef),
        ("source", texts(records, |record| Some(&record.source))),
        ("kind", texts(records, |record| Some(&record.kind))),
        ("body", texts(records, |record| Some(&record.body))),
        ("first_received", times(records, |record| Some(record.first_received))),
        ("last_received", times(records, |record| Some(record.last_received))),
        ("times", counts(records, |record| Some(record.times))),
    ])
}

/// Losses.
///
/// # Errors
/// As [`sealed_series`].
pub fn losses(losses: &[LossStatus]) -> Result<Vec<u8>, ArrowError> {
    stream([
        ("id", counts(losses, |status| Some(status.loss.id))),
        ("instance", texts(losses, |status| Some(status.loss.instance.as_str()))),
        ("first_seq", counts(losses, |status| Some(status.loss.first_seq))),
        ("last_seq", counts(losses, |status| Some(status.loss.last_seq))),
        ("readings", counts(losses, |status| Some(status.loss.readings))),
        ("reason", texts(losses, |status| Some(status.loss.reason.as_str()))),
        ("noted", times(losses, |status| Some(status.loss.noted))),
        ("detail", texts(losses, |status| Some(&status.loss.detail))),
        ("shipment", counts(losses, |status| status.shipment)),
    ])
}

/// Segments: their names, and the times of their oldest and newest reading in microseconds since 1970.
///
/// # Errors
/// As [`sealed_series`].
pub fn segments(segments: &[Segment]) -> Result<Vec<u8>, ArrowError> {
    stream([
        ("name", Arc::new(segments.iter().map(|segment| Some(segment.name.to_string())).collect::<StringArray>()) as ArrayRef),
        ("min_time", Arc::new(segments.iter().map(|segment| Some(segment.min_time.0)).collect::<Int64Array>())),
        ("max_time", Arc::new(segments.iter().map(|segment| Some(segment.max_time.0)).collect::<Int64Array>())),
    ])
}

fn texts<'a, T>(rows: &'a [T], pick: impl Fn(&'a T) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(pick).collect::<StringArray>())
}

fn times<T>(rows: &[T], pick: impl Fn(&T) -> Option<Timestamp>) -> ArrayRef {
    Arc::new(rows.iter().map(|row| pick(row).map(|time| time.0)).collect::<TimestampMicrosecondArray>())
}

fn counts<T>(rows: &[T], pick: impl Fn(&T) -> Option<u64>) -> ArrayRef {
    Arc::new(rows.iter().map(|row| pick(row).map(|count| i64::try_from(count).unwrap_or(i64::MAX))).collect::<Int64Array>())
}

fn stream<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<Vec<u8>, ArrowError> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))?;
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(&batch)?;
    writer.into_inner()
}
