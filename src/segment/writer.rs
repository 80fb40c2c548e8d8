//! Rows to Parquet bytes.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use arrow::array::{Float64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use sha2::{Digest as _, Sha256};

use super::encoding::{self, ValueEncoding};
use super::error::SegmentError;
use super::gathered::Gathered;
use super::layout::{self, Origin, column};
use super::order;
use crate::model::{Digest, FileKind, columns};

/// Rows handed to the Parquet writer, and compared, at once: about a megabyte.
pub(super) const CHUNK_ROWS: usize = 16_384;

/// What a written file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its size.
    pub bytes: u64,
    /// Of all its bytes.
    pub sha256: Digest,
    /// Rows in it.
    pub rows: u64,
}

/// What one file is to hold: some rows of a batch, in an order.
#[derive(Clone, Copy)]
pub(super) struct Sheet<'a> {
    pub(super) kind: FileKind,
    pub(super) batch: &'a RecordBatch,
    pub(super) rows: &'a [u32],
}

impl Sheet<'_> {
    /// At most `count` rows from the place `start` on.
    pub(super) fn chunk(&self, start: usize, count: usize) -> Result<RecordBatch, ArrowError> {
        let rows = self.rows.get(start..self.rows.len().min(start.saturating_add(count))).unwrap_or_default();
        take_record_batch(self.batch, &UInt32Array::from(rows.to_vec()))
    }

    fn properties(&self, origin: &Origin) -> Result<WriterProperties, ArrowError> {
        let values = match self.kind {
            FileKind::Readings => encoding::choose(column::<Float64Array>(self.batch, "value")?, self.rows),
            FileKind::Records => ValueEncoding::Plain,
        };
        Ok(layout::properties(self.kind, origin, values))
    }
}

/// Counts and digests what passes through.
struct Measured<W> {
    inner: W,
    digest: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or(bytes));
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes `sheet` to `to` as Parquet.
pub(super) fn write_sheet<W: Write + Send>(to: W, sheet: Sheet<'_>, origin: &Origin) -> Result<Written, ParquetError> {
    let chunks = (0..sheet.rows.len()).step_by(CHUNK_ROWS).map(|start| Ok(sheet.chunk(start, CHUNK_ROWS)?));
    write_chunks(to, sheet.batch.schema(), sheet.properties(origin)?, chunks)
}

/// Writes the rows that come in `chunks` to `to` as Parquet.
fn write_chunks<W: Write + Send>(
    to: W,
    schema: SchemaRef,
    properties: WriterProperties,
    chunks: impl Iterator<Item = Result<RecordBatch, ParquetError>>,
) -> Result<Written, ParquetError> {
    // Without the Arrow schema in the metadata, dictionaries are read as the plain words that the Parquet schema says.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut measured = Measured { inner: to, digest: Sha256::new(), bytes: 0 };
    let mut writer = ArrowWriter::try_new_with_options(&mut measured, schema, options)?;
    let mut rows = 0;
    for chunk in chunks {
        let chunk = chunk?;
        writer.write(&chunk)?;
        rows += chunk.num_rows() as u64;
    }
    writer.close()?;
    Ok(Written { bytes: measured.bytes, sha256: Digest(measured.digest.finalize().into()), rows })
}

/// Writes `rows`, as they are read from files of `kind`, to the file `to`, which is at `path`.
pub(super) fn write_rows(
    to: &File,
    kind: FileKind,
    properties: WriterProperties,
    rows: impl Iterator<Item = Result<RecordBatch, SegmentError>>,
    path: &Path,
) -> Result<Written, SegmentError> {
    let mut failed = None;
    // What keeps the rows from coming is no error of the Parquet library: it goes round it.
    let rows = rows.map_while(|batch| batch.map_err(|error| failed = Some(error)).ok()).map(Ok);
    let written = write_chunks(to, layout::schema(kind), properties, rows);
    failed.map_or(Ok(()), Err)?;
    written.map_err(|error| SegmentError::parquet("write", path, error))
}

/// Writes readings to a Parquet file that is no segment, batch by batch as they come, with the encodings of one.
pub struct ReadingsWriter<W: Write + Send> {
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> ReadingsWriter<W> {
    /// Begins a file; `sample` (of `columns::reading_schema`) decides how values are encoded.
    ///
    /// # Errors
    /// What `to` says; columns of another schema.
    pub fn begin(to: W, sample: &RecordBatch) -> Result<Self, SegmentError> {
        let values = column::<Float64Array>(sample, "value").map_err(|error| SegmentError::arrow("readings", &error))?;
        let rows: Vec<u32> = (0..).take(sample.num_rows()).collect();
        let properties = layout::export_properties(encoding::choose(values, &rows));
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(to, columns::reading_schema(), options).map_err(failed)?;
        Ok(Self { writer })
    }

    /// Adds the rows of `batch`.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), SegmentError> {
        self.writer.write(batch).map_err(failed)
    }

    /// Ends the file; gives `to` back.
    ///
    /// # Errors
    /// What `to` says.
    pub fn finish(self) -> Result<W, SegmentError> {
        self.writer.into_inner().map_err(failed)
    }
}

fn failed(error: ParquetError) -> SegmentError {
    SegmentError::parquet("write", "readings".as_ref(), error)
}

/// Writes `readings` (of `columns::hot_schema`, in any order) to `to` as one Parquet file, as a seal would: sorted, with
/// the same encodings and metadata. Not split by day.
///
/// # Errors
/// What `to` says; columns of another schema.
pub fn write_readings<W: Write + Send>(to: W, readings: &RecordBatch, origin: &Origin) -> Result<Written, SegmentError> {
    let mut gathered = Gathered::with_capacity(readings.num_rows());
    let sorted = gathered.add(readings).and_then(|()| gathered.finish()).and_then(|batch| Ok((order::by_series(&batch)?, batch)));
    let (rows, batch) = sorted.map_err(|error| SegmentError::arrow("readings", &error))?;
    let sheet = Sheet { kind: FileKind::Readings, batch: &batch, rows: &rows };
    write_sheet(to, sheet, origin).map_err(failed)
}
