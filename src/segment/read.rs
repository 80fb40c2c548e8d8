//! Parquet to Arrow: the way by which other rooms read segments, and the files of others.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData};

use super::encoding::ValueEncoding;
use super::error::SegmentError;
use super::layout::text_column;
use super::wanted::Wanted;
use super::writer::CHUNK_ROWS;
use crate::model::FileKind;

/// The rows of a file, batch by batch, in the file's order. Blocking.
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

    fn new(path: &Path, builder: ParquetRecordBatchReaderBuilder<File>, rows: usize) -> Result<Self, SegmentError> {
        // Without the file's metadata, so that batches of several files have one schema.
        let schema = Arc::new(Schema::new(builder.schema().fields().clone()));
        let metadata = Arc::clone(builder.metadata());
        let batches = builder.with_batch_size(rows).build().map_err(|error| SegmentError::parquet("read", path, error))?;
        Ok(Self { path: path.to_owned(), schema, metadata, batches })
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
    SegmentReader::new(path, open(path, ArrowReaderOptions::new())?, rows)
}

/// As [`read`], without the row groups and pages that can hold nothing of `wanted`. The others come whole.
///
/// # Errors
/// As [`read`].
pub fn read_where(path: &Path, wanted: &Wanted<'_>) -> Result<SegmentReader, SegmentError> {
    let with_pages = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    SegmentReader::new(path, wanted.narrow(open(path, with_pages)?), CHUNK_ROWS)
}

/// Opens the Parquet file of someone else, in batches of at most `rows` rows. Columns of `words` come as dictionaries, if
/// they are texts, so that nobody need compare each of them.
///
/// # Errors
/// As [`read`].
pub fn read_foreign(path: &Path, file: File, words: &[&str], rows: usize) -> Result<SegmentReader, SegmentError> {
    let failed = |error: ParquetError| SegmentError::parquet("read", path, error);
    let plain = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(failed)?;
    let as_words = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 if words.contains(&field.name().as_str()) => {
            let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            Arc::new(field.as_ref().clone().with_data_type(kind))
        }
        _ => Arc::clone(field),
    };
    let schema = Schema::new(plain.schema().fields().iter().map(as_words).collect::<Vec<_>>());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    // A file whose types don't fit the wish is read as it is.
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options).unwrap_or(plain);
    SegmentReader::new(path, ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata), rows)
}

fn open(path: &Path, options: ArrowReaderOptions) -> Result<ParquetRecordBatchReaderBuilder<File>, SegmentError> {
    let file = File::open(path).map_err(|error| SegmentError::io("open", path, &error))?;
    ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|error| SegmentError::parquet("read", path, error))
}
