//! Rows to nouns: the one place that knows which column is what.

use std::str::FromStr;
use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Result, Row};

use crate::model::{
    Cut, CutState, Digest, FileKind, InstanceId, Loss, LossReason, LossStatus, Segment, SegmentName, SeriesKey, SeriesSummary, Shipment,
    StoredRecord, Timestamp,
};

/// Columns that [`segment`] reads; `s` is segments, `c` is cuts.
pub(super) const SEGMENT: &str =
    "s.kind, s.date, c.instance, c.number, s.first_cut, s.bytes, s.sha256, s.rows, s.first_seq, s.last_seq, s.min_time, s.max_time";
/// The column after those of [`SEGMENT`].
pub(super) const AFTER_SEGMENT: usize = 12;
/// Columns that [`cut`] reads.
pub(super) const CUT: &str = "instance, number, first_seq, last_seq, readings, records, sealed, state, first_cut";
/// The column after those of [`CUT`].
pub(super) const AFTER_CUT: usize = 9;
/// Columns that [`loss`] reads.
pub(super) const LOSS: &str = "id, instance, first_seq, last_seq, readings, reason, noted, detail, shipment";
/// Columns that [`series`] reads.
pub(super) const SERIES: &str = "sensor, metric, unit, first_time, last_time, readings, last_value, last_text";
/// Columns that [`record`] reads.
pub(super) const RECORD: &str = "id, source, kind, body, first_received, last_received, times";

fn word<T>(row: &Row<'_>, column: usize, read: impl FnOnce(&str) -> Option<T>) -> Result<T> {
    let text: String = row.get(column)?;
    let wrong = || rusqlite::Error::FromSqlConversionFailure(column, Type::Text, format!("\"{text}\" is not known here").into());
    read(&text).ok_or_else(wrong)
}

fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> Result<T> {
    word(row, column, |text| text.parse().ok())
}

pub(super) fn kind(row: &Row<'_>, column: usize) -> Result<FileKind> {
    word(row, column, FileKind::from_word)
}

pub(super) fn instance(row: &Row<'_>, column: usize) -> Result<InstanceId> {
    parsed(row, column)
}

pub(super) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp> {
    row.get(column).map(Timestamp)
}

pub(super) fn digest(row: &Row<'_>, column: usize) -> Result<Digest> {
    row.get(column).map(Digest)
}

pub(super) fn segment(row: &Row<'_>) -> Result<Segment> {
    Ok(Segment {
        name: SegmentName { kind: kind(row, 0)?, date: row.get(1)?, instance: instance(row, 2)?, cut: row.get(3)?, first_cut: row.get(4)? },
        bytes: row.get(5)?,
        sha256: digest(row, 6)?,
        rows: row.get(7)?,
        first_seq: row.get(8)?,
        last_seq: row.get(9)?,
        min_time: time(row, 10)?,
        max_time: time(row, 11)?,
    })
}

pub(super) fn cut(row: &Row<'_>) -> Result<Cut> {
    Ok(Cut {
        instance: instance(row, 0)?,
        number: row.get(1)?,
        first_seq: row.get(2)?,
        last_seq: row.get(3)?,
        readings: row.get(4)?,
        records: row.get(5)?,
        sealed: time(row, 6)?,
        state: cut_state(row, 7)?,
        first_cut: row.get(8)?,
    })
}

pub(super) fn cut_state_word(state: CutState) -> &'static str {
    match state {
        CutState::Sealed => "sealed",
        CutState::Delivered => "delivered",
        CutState::Dropped => "dropped",
        CutState::Merged => "merged",
    }
}

pub(super) fn cut_state(row: &Row<'_>, column: usize) -> Result<CutState> {
    let all = [CutState::Sealed, CutState::Delivered, CutState::Dropped, CutState::Merged];
    word(row, column, |found| all.into_iter().find(|state| cut_state_word(*state) == found))
}

pub(super) fn loss(row: &Row<'_>) -> Result<LossStatus> {
    let loss = Loss {
        id: row.get(0)?,
        instance: instance(row, 1)?,
        first_seq: row.get(2)?,
        last_seq: row.get(3)?,
        readings: row.get(4)?,
        reason: word(row, 5, LossReason::from_word)?,
        noted: time(row, 6)?,
        detail: row.get(7)?,
    };
    Ok(LossStatus { loss, shipment: row.get(8)? })
}

pub(super) fn series(row: &Row<'_>) -> Result<SeriesSummary> {
    Ok(SeriesSummary {
        key: SeriesKey { sensor: row.get(0)?, metric: row.get(1)? },
        unit: row.get::<_, Option<Arc<str>>>(2)?,
        first_time: row.get::<_, Option<i64>>(3)?.map(Timestamp),
        last_time: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        readings: row.get(5)?,
        last_value: row.get(6)?,
        last_text: row.get(7)?,
    })
}

pub(super) fn record(row: &Row<'_>) -> Result<StoredRecord> {
    Ok(StoredRecord {
        id: row.get(0)?,
        source: row.get(1)?,
        kind: row.get(2)?,
        body: row.get(3)?,
        first_received: time(row, 4)?,
        last_received: time(row, 5)?,
        times: row.get(6)?,
    })
}

/// Columns: instance, number, the cut's number and first cut, manifest. The losses are read apart.
pub(super) fn shipment(row: &Row<'_>) -> Result<Shipment> {
    let (cut, first_cut) = (row.get(2)?, row.get(3)?);
    Ok(Shipment { instance: instance(row, 0)?, number: row.get(1)?, cut, first_cut, manifest: row.get(4)?, losses: Vec::new() })
}
