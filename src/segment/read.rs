//! Segments to Arrow: the way by which other rooms read Parquet.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::error::SegmentError;
use super::writer::CHUNK_ROWS;

/// The rows of a segment, batch by batch, in the file's order. Blocking.
pub struct SegmentReader {
    path: PathBuf,
    schema: SchemaRef,
    batches: ParquetRecordBatchReader,
}

impl SegmentReader {
    /// `columns::reading_schema` or `records_schema`, if forebay wrote the file.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }
}

impl Iterator for SegmentReader {
    type Item = Result<RecordBatch, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        let plain = batch.and_then(|batch| RecordBatch::try_new(self.schema(), batch.columns().to_vec()));
        Some(plain.map_err(|error| SegmentError::Corrupt(format!("cannot read {}: {error}", self.path.display()))))
    }
}

/// Opens the Parquet file at `path`; hold a [`super::Pin`] of it. It does not check the digest.
///
/// # Errors
/// A file that is missing, can't be opened, or is not Parquet.
pub fn read(path: &Path) -> Result<SegmentReader, SegmentError> {
    let file = File::open(path).map_err(|error| SegmentError::io("open", path, &error))?;
    let failed = |error| SegmentError::parquet("read", path, error);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
    // Without the file's metadata, so that batches of several files have one schema.
    let schema = Arc::new(Schema::new(builder.schema().fields().clone()));
    let batches = builder.with_batch_size(CHUNK_ROWS).build().map_err(failed)?;
    Ok(SegmentReader { path: path.to_owned(), schema, batches })
}
