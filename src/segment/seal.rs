//! One cut through its steps: temporary files, read back, renamed, folders synced. The ledger's transaction follows.
//!
//! A crash between two steps leaves what [`super::recover`] knows how to judge; each step has a failpoint after it.

use arrow::array::{Int64Array, TimestampMicrosecondArray};
use arrow::error::ArrowError;

use super::directory::{SegmentDir, Temporary};
use super::error::SegmentError;
use super::gather::Draft;
use super::layout::{column, number_and_time};
use super::order;
use super::verify;
use super::writer::{Sheet, Written, write_sheet};
use crate::model::{SealedCut, Segment, SegmentName, Timestamp};

/// The files of a cut under their temporary names; dropped, they are removed.
pub(super) struct Staged {
    files: Vec<(Temporary, Segment)>,
}

/// Makes the files of `draft` durable under their temporary names and reads each back.
pub(super) fn stage(dir: &SegmentDir, draft: &Draft) -> Result<Staged, SegmentError> {
    let mut staged = Vec::new();
    for (name, sheet) in draft.sheets() {
        let (temporary, written) = write(dir, &name, sheet, draft)?;
        staged.push((temporary, written, name, sheet));
    }
    fail::fail_point!("seal.after_tmp");
    let mut files = Vec::new();
    for (temporary, written, name, sheet) in staged {
        verify::compare(temporary.path(), &written, sheet)?;
        files.push((temporary, describe(name, &written, sheet).map_err(|error| SegmentError::arrow("a file's rows", &error))?));
    }
    fail::fail_point!("seal.after_verify");
    Ok(Staged { files })
}

fn write(dir: &SegmentDir, name: &SegmentName, sheet: Sheet<'_>, draft: &Draft) -> Result<(Temporary, Written), SegmentError> {
    let (temporary, file) = dir.create(name)?;
    fail::fail_point!("seal.write", |_| Err(SegmentError::Full("by order of a failpoint".to_owned())));
    let written = write_sheet(&file, sheet, &draft.origin).map_err(|error| SegmentError::parquet("write", temporary.path(), error))?;
    file.sync_all().map_err(|error| SegmentError::io("sync", temporary.path(), &error))?;
    Ok((temporary, written))
}

fn describe(name: SegmentName, written: &Written, sheet: Sheet<'_>) -> Result<Segment, ArrowError> {
    let (number, time) = number_and_time(name.kind);
    let numbers = extremes(column::<Int64Array>(sheet.batch, number)?.values(), sheet.rows);
    let times = extremes(column::<TimestampMicrosecondArray>(sheet.batch, time)?.values(), sheet.rows);
    let seq = |number: i64| u64::try_from(number).unwrap_or_default();
    Ok(Segment {
        name,
        bytes: written.bytes,
        sha256: written.sha256,
        rows: written.rows,
        first_seq: seq(numbers.0),
        last_seq: seq(numbers.1),
        min_time: Timestamp(times.0),
        max_time: Timestamp(times.1),
    })
}

fn extremes(values: &[i64], rows: &[u32]) -> (i64, i64) {
    let values = rows.iter().filter_map(|row| values.get(*row as usize)).copied();
    values.fold((i64::MAX, i64::MIN), |(low, high), value| (low.min(value), high.max(value)))
}

impl Staged {
    /// Gives the files their names, durably. If that fails, none of them stays.
    pub(super) fn publish(self, dir: &SegmentDir) -> Result<Vec<Segment>, SegmentError> {
        let segments: Vec<Segment> = self.files.iter().map(|(_, segment)| segment.clone()).collect();
        let renamed = self.files.iter().try_for_each(|(temporary, _)| temporary.rename());
        fail::fail_point!("seal.after_rename");
        let durable = renamed.and_then(|()| dir.sync(segments.iter().map(|segment| &segment.name)));
        fail::fail_point!("seal.after_dirsync");
        match durable {
            Ok(()) => Ok(segments),
            Err(error) => {
                discard(dir, &segments);
                Err(error)
            }
        }
    }
}

/// Removes files that the ledger will not know of.
pub(super) fn discard(dir: &SegmentDir, segments: &[Segment]) {
    for Segment { name, .. } in segments {
        if let Err(error) = dir.remove(name) {
            tracing::warn!(segment = %name, %error, "a file of a cut given up stays until the next start");
        }
    }
}

/// What the ledger is to record of `draft`, whose files are `segments`.
pub(super) fn sealed_cut(draft: Draft, segments: Vec<Segment>, sealed: Timestamp) -> Result<SealedCut, SegmentError> {
    let series = order::summaries(&draft.readings, &draft.order).map_err(|error| SegmentError::arrow("a cut", &error))?;
    Ok(SealedCut {
        number: draft.origin.cut,
        first_seq: draft.origin.first_seq,
        last_seq: draft.origin.last_seq,
        last_record: draft.last_record,
        segments,
        series,
        damaged: draft.damaged,
        sealed,
    })
}
