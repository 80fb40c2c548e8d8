//! What a file says of itself: rows, seqs, times, origin. For recovery and for `forebay verify`.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, Int64Array, TimestampMicrosecondArray};
use arrow::compute::{max, min};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;

use super::error::SegmentError;
use super::layout::{Origin, column, number_and_time, schema};
use super::read::read;
use super::verify::digest_file;
use super::writer::CHUNK_ROWS;
use crate::model::{FileKind, Segment, SegmentName, Seq, Timestamp};

/// A closed range of seqs (or record ids).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeqRange {
    /// Its first.
    pub first: Seq,
    /// Its last.
    pub last: Seq,
}

/// What the seqs (or record ids) of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Rows, as the footer says and as were read.
    pub rows: u64,
    /// The seqs as ranges: sorted, apart, each seq once.
    pub ranges: Vec<SeqRange>,
    /// Rows whose seq another row has too.
    pub duplicates: u64,
    /// Where the file says it comes from; `None` in a file of someone else.
    pub origin: Option<Origin>,
}

impl Inspected {
    fn new(mut numbers: Vec<i64>, origin: Option<Origin>) -> Self {
        numbers.sort_unstable();
        let rows = numbers.len() as u64;
        let mut ranges: Vec<SeqRange> = Vec::new();
        let mut duplicates = 0;
        for seq in numbers.into_iter().map(|number| Seq::try_from(number).unwrap_or_default()) {
            match ranges.last_mut() {
                Some(range) if seq == range.last => duplicates += 1,
                Some(range) if seq == range.last + 1 => range.last = seq,
                _ => ranges.push(SeqRange { first: seq, last: seq }),
            }
        }
        Self { rows, ranges, duplicates, origin }
    }
}

/// Reads the column of seqs (or record ids) of the Parquet file in `bytes`, and nothing else.
///
/// # Errors
/// Bytes that are not a Parquet file of this kind.
pub fn inspect_bytes(bytes: Bytes, kind: FileKind) -> Result<Inspected, SegmentError> {
    inspect(bytes, kind, Path::new("the file"))
}

/// As [`inspect_bytes`], of the file at `path`. Blocking.
///
/// # Errors
/// A file that is missing, can't be read, or is not a Parquet file of this kind.
pub fn inspect_file(path: &Path, kind: FileKind) -> Result<Inspected, SegmentError> {
    let file = File::open(path).map_err(|error| SegmentError::io("open", path, &error))?;
    inspect(file, kind, path)
}

fn inspect<R: ChunkReader + 'static>(from: R, kind: FileKind, path: &Path) -> Result<Inspected, SegmentError> {
    let failed = |error| SegmentError::parquet("read", path, error);
    let (number, _) = number_and_time(kind);
    let builder = ParquetRecordBatchReaderBuilder::try_new(from).map_err(failed)?;
    let metadata = builder.metadata().file_metadata();
    let origin = metadata.key_value_metadata().and_then(|entries| Origin::from_metadata(entries));
    let rows = metadata.num_rows();
    let mask = ProjectionMask::columns(builder.parquet_schema(), [number]);
    let batches = builder.with_projection(mask).with_batch_size(CHUNK_ROWS).build().map_err(failed)?;
    let numbers = numbers(batches, number).map_err(|error| SegmentError::Corrupt(format!("cannot read {}: {error}", path.display())))?;
    if i64::try_from(numbers.len()) != Ok(rows) {
        return Err(SegmentError::Corrupt(format!("{} has {} rows where its footer says {rows}", path.display(), numbers.len())));
    }
    Ok(Inspected::new(numbers, origin))
}

fn numbers(batches: ParquetRecordBatchReader, name: &str) -> Result<Vec<i64>, ArrowError> {
    let mut numbers = Vec::new();
    for batch in batches {
        numbers.extend_from_slice(column::<Int64Array>(&batch?, name)?.values());
    }
    Ok(numbers)
}

/// Reads all of the file at `path` and says what the ledger should know of it as the segment `name`: for a file that the
/// ledger lacks.
///
/// # Errors
/// A file that can't be read to its end, that has other columns, or whose metadata names another instance or cut.
pub(super) fn describe(path: &Path, name: &SegmentName) -> Result<Segment, SegmentError> {
    let wrong = |what: &str| SegmentError::Corrupt(format!("{} {what}", path.display()));
    let inspected = inspect_file(path, name.kind)?;
    let origin = inspected.origin.ok_or_else(|| wrong("does not say where it comes from"))?;
    if (&origin.instance, origin.first_cut, origin.cut) != (&name.instance, name.first_cut, name.cut) {
        return Err(wrong("says that it comes from another cut than its name"));
    }
    let (_, time) = number_and_time(name.kind);
    let mut times: Option<(i64, i64)> = None;
    let reader = read(path)?;
    if reader.schema() != schema(name.kind) {
        return Err(wrong("has other columns than a segment"));
    }
    for batch in reader {
        let batch = batch?;
        let array = column::<TimestampMicrosecondArray>(&batch, time).map_err(|error| SegmentError::arrow("its times", &error))?;
        if let (Some(low), Some(high)) = (min(array), max(array)) {
            times = Some(times.map_or((low, high), |(lowest, highest)| (lowest.min(low), highest.max(high))));
        }
        debug_assert_eq!(array.null_count(), 0);
    }
    let (first, last) = (inspected.ranges.first(), inspected.ranges.last());
    let (Some(first), Some(last), Some((min_time, max_time))) = (first, last, times) else { return Err(wrong("has no rows")) };
    if inspected.duplicates > 0 {
        return Err(wrong("has a seq twice"));
    }
    let (sha256, bytes) = digest_file(path)?;
    Ok(Segment {
        name: name.clone(),
        bytes,
        sha256,
        rows: inspected.rows,
        first_seq: first.first,
        last_seq: last.last,
        min_time: Timestamp(min_time),
        max_time: Timestamp(max_time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seqs_become_ranges_and_repeats_are_counted() {
        let inspected = Inspected::new(vec![7, 3, 1, 2, 7, 9, 8, 7], None);
        let expected = [(1, 3), (7, 9)].map(|(first, last)| SeqRange { first, last });
        assert_eq!((inspected.rows, inspected.duplicates), (8, 2));
        assert_eq!(inspected.ranges, expected);
    }

    #[test]
    fn bytes_that_are_not_parquet_are_damaged() {
        for bytes in [&b""[..], b"PAR1", b"PAR1 nonsense PAR1", &[0; 100]] {
            assert!(matches!(inspect_bytes(Bytes::copy_from_slice(bytes), FileKind::Readings), Err(SegmentError::Corrupt(_))));
        }
    }
}
