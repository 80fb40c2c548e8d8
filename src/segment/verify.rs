//! Is a file what it should be? By its digest, and row by row.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use arrow::array::RecordBatch;
use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};

use super::error::SegmentError;
use super::layout;
use super::read::read;
use super::writer::{CHUNK_ROWS, Sheet, Written};
use crate::model::columns::plain_words;
use crate::model::{Digest, FileKind};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The digest and the size of the file at `path`, as they are on the medium: what the page cache holds of it is let go
/// before. Blocking.
///
/// # Errors
/// A file that is missing or can't be read.
pub fn digest_file(path: &Path) -> Result<(Digest, u64), SegmentError> {
    let failed = |error| SegmentError::io("read", path, &error);
    let mut file = File::open(path).map_err(failed)?;
    // Only a hint: where it is not taken, the digest is of the cached bytes.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let (mut digest, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK_BYTES]);
    loop {
        let count = file.read(&mut chunk).map_err(failed)?;
        if count == 0 {
            return Ok((Digest(digest.finalize().into()), bytes));
        }
        digest.update(chunk.get(..count).unwrap_or_default());
        bytes += count as u64;
    }
}

/// Reads the file at `path` back and compares it, byte by digest and value by value, with what it was to hold.
pub(super) fn compare(path: &Path, written: &Written, sheet: Sheet<'_>) -> Result<(), SegmentError> {
    let chunks = (0..sheet.rows.len()).step_by(CHUNK_ROWS).map(|start| {
        let chunk = sheet.chunk(start, CHUNK_ROWS).and_then(|batch| expected(sheet.kind, batch));
        chunk.map_err(|error| SegmentError::arrow("rows to compare", &error))
    });
    compare_rows(path, written, sheet.kind, chunks)
}

/// As [`compare`], with the rows that were written to a file of `kind`.
pub(super) fn compare_rows(
    path: &Path,
    written: &Written,
    kind: FileKind,
    mut rows: impl Iterator<Item = Result<RecordBatch, SegmentError>>,
) -> Result<(), SegmentError> {
    let wrong = |what: &str| SegmentError::Corrupt(format!("{} was read back with {what}", path.display()));
    if digest_file(path)? != (written.sha256, written.bytes) {
        return Err(wrong("other bytes than were written"));
    }
    let (mut expected, mut compared) = (RecordBatch::new_empty(layout::schema(kind)), 0);
    for batch in read(path)? {
        let batch = batch?;
        let mut at = 0;
        while at < batch.num_rows() {
            if expected.num_rows() == 0 {
                expected = rows.next().transpose()?.ok_or_else(|| wrong("more rows than were written"))?;
            }
            let count = expected.num_rows().min(batch.num_rows() - at);
            if batch.slice(at, count).columns() != expected.slice(0, count).columns() || batch.schema() != layout::schema(kind) {
                return Err(wrong("other values than were written"));
            }
            expected = expected.slice(count, expected.num_rows() - count);
            at += count;
        }
        compared += at as u64;
    }
    let end = expected.num_rows() == 0 && rows.next().transpose()?.is_none();
    if end && compared == written.rows { Ok(()) } else { Err(wrong(&format!("{compared} rows instead of {}", written.rows))) }
}

/// `batch` as it is read from a file.
fn expected(kind: FileKind, batch: RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    match kind {
        FileKind::Readings => plain_words(&batch),
        FileKind::Records => Ok(batch),
    }
}
