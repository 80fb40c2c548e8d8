//! Segments to Arrow: the way by which other rooms read Parquet.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use super::encoding::ValueEncoding;
use super::error::SegmentError;
use super::layout::text_column;
use super::writer::CHUNK_ROWS;
use crate::model::FileKind;

/// The rows of a segment, batch by batch, in the file's order. Blocking.
pub struct SegmentReader {
    path: PathBuf,
    schema: SchemaRef,
    metadata: Arc<ParquetMetaData>,
    batches: ParquetRecordBatchReader,
}

impl SegmentReader {
    /// `columns::reading_schema` or `records_schema`, if forebay wrote the file.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// Rows, as the footer says.
    pub(super) fn rows(&self) -> u64 {
        u64::try_from(self.metadata.file_metadata().num_rows()).unwrap_or_default()
    }

    /// Bytes of the texts in the file, of which each may be long.
    pub(super) fn text_bytes(&self, kind: FileKind) -> u64 {
        let bytes = self.chunks(text_column(kind)).map(|chunk| {
            // Of texts that repeat the chunk holds one: that is their size only where nobody counted them.
            chunk.unencoded_byte_array_data_bytes().unwrap_or_else(|| chunk.uncompressed_size())
        });
        bytes.map(|bytes| u64::try_from(bytes).unwrap_or_default()).sum()
    }

    /// The encoding that most rows of `files` have their value in: it was chosen by trying.
    pub(super) fn usual_encoding(files: &[Self]) -> ValueEncoding {
        let rows = |encoding: ValueEncoding| -> i64 {
            let chunks = files.iter().flat_map(|file| file.chunks("value"));
            chunks.filter(|chunk| ValueEncoding::of(chunk) == encoding).map(ColumnChunkMetaData::num_values).sum()
        };
        ValueEncoding::ALL.into_iter().max_by_key(|encoding| rows(*encoding)).unwrap_or(ValueEncoding::Plain)
    }

    fn chunks(&self, column: &str) -> impl Iterator<Item = &ColumnChunkMetaData> {
        let all = self.metadata.row_groups().iter().flat_map(|group| group.columns());
        all.filter(move |chunk| chunk.column_path().string() == column)
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
    read_by(path, CHUNK_ROWS)
}

/// As [`read`], in batches of `rows`.
pub(super) fn read_by(path: &Path, rows: usize) -> Result<SegmentReader, SegmentError> {
    let file = File::open(path).map_err(|error| SegmentError::io("open", path, &error))?;
    let failed = |error| SegmentError::parquet("read", path, error);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
    // Without the file's metadata, so that batches of several files have one schema.
    let schema = Arc::new(Schema::new(builder.schema().fields().clone()));
    let metadata = Arc::clone(builder.metadata());
    let batches = builder.with_batch_size(rows).build().map_err(failed)?;
    Ok(SegmentReader { path: path.to_owned(), schema, metadata, batches })
}
