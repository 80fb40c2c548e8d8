//! Any columns as one Parquet file: an answer, not a segment.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::layout::MAX_ROW_GROUP_ROWS;

/// A row group is held in memory until it is full.
const MAX_ROW_GROUP_BYTES: usize = 8 << 20;

/// Writes record batches of one schema as a Parquet file, row group by row group.
pub struct TableWriter<W: Write + Send> {
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> TableWriter<W> {
    /// Begins a file with the columns of `schema`.
    ///
    /// # Errors
    /// A column that Parquet can't hold, or what `out` says.
    pub fn begin(out: W, schema: SchemaRef) -> Result<Self, ArrowError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(MAX_ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(MAX_ROW_GROUP_BYTES))
            .set_created_by(concat!("forebay version ", env!("CARGO_PKG_VERSION")).to_owned());
        Ok(Self { writer: ArrowWriter::try_new(out, schema, Some(properties.build()))? })
    }

    /// Adds the rows of `batch`.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        Ok(self.writer.write(batch)?)
    }

    /// Ends the file, and gives back `out`.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(self) -> Result<W, ArrowError> {
        Ok(self.writer.into_inner()?)
    }
}
