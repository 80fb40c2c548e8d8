//! What an export is written to.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use arrow::json::writer::{LineDelimited, Writer as JsonWriter, WriterBuilder as JsonBuilder};

use super::CliError;
use crate::engine::TableFile;
use crate::segment::ReadingsWriter;

/// RFC 3339 in UTC, six digits.
const TIME: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

/// What sort of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Parquet file.
    Parquet,
    /// Comma-separated values with a header.
    Csv,
    /// An object a line; what a reading does not have is left out.
    JsonLines,
    /// A DuckDB database with the table `readings`.
    DuckDb,
}

impl Kind {
    /// By the ending of `path`.
    ///
    /// # Errors
    /// Another ending.
    pub fn of(path: &Path) -> Result<Self, CliError> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        match ending.as_str() {
            "parquet" => Ok(Self::Parquet),
            "csv" => Ok(Self::Csv),
            "jsonl" | "ndjson" => Ok(Self::JsonLines),
            "duckdb" => Ok(Self::DuckDb),
            _ => Err(CliError::wrong_use(format!("{} ends in none of .parquet, .csv, .jsonl, .ndjson and .duckdb", path.display()))),
        }
    }
}

/// A file in the making.
pub enum Sink {
    /// See [`Kind`].
    Parquet(Box<ReadingsWriter<File>>),
    /// See [`Kind`].
    Csv(Box<csv::Writer<BufWriter<File>>>),
    /// See [`Kind`].
    JsonLines(Box<LineDelimitedWriter<BufWriter<File>>>),
    /// See [`Kind`].
    DuckDb(TableFile),
}

impl Sink {
    /// Begins the file; `sample` shows what is to come.
    ///
    /// # Errors
    /// It can't be made.
    pub fn create(kind: Kind, path: &Path, sample: &RecordBatch) -> Result<Self, CliError> {
        let file = || File::create(path).map_err(|error| CliError::failed(format!("{} can't be written: {error}", path.display())));
        Ok(match kind {
            Kind::Parquet => Self::Parquet(Box::new(ReadingsWriter::begin(file()?, sample).map_err(CliError::because)?)),
            Kind::Csv => {
                let settings = csv::WriterBuilder::new().with_header(true).with_timestamp_format(TIME.to_owned());
                let mut writer = settings.build(BufWriter::new(file()?));
                // The header, also where no row follows.
                writer.write(&RecordBatch::new_empty(sample.schema())).map_err(unwritable)?;
                Self::Csv(Box::new(writer))
            }
            Kind::JsonLines => {
                let settings = JsonBuilder::new().with_timestamp_format(TIME.to_owned());
                let writer: JsonWriter<_, LineDelimited> = settings.build(BufWriter::new(file()?));
                Self::JsonLines(Box::new(writer))
            }
            Kind::DuckDb => Self::DuckDb(TableFile::create(path).map_err(CliError::failed)?),
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), CliError> {
        match self {
            Self::Parquet(writer) => writer.write(batch).map_err(CliError::because),
            Self::Csv(writer) => writer.write(batch).map_err(unwritable),
            Self::JsonLines(writer) => writer.write(batch).map_err(unwritable),
            Self::DuckDb(file) => file.append(batch).map_err(CliError::failed),
        }
    }

    /// Ends the file and makes its contents durable.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(self) -> Result<(), CliError> {
        let buffered = |writer: BufWriter<File>| writer.into_inner().map_err(|error| CliError::from(error.into_error()));
        let file = match self {
            Self::Parquet(writer) => writer.finish().map_err(CliError::because)?,
            Self::Csv(writer) => buffered(writer.into_inner())?,
            Self::JsonLines(mut writer) => {
                writer.finish().map_err(unwritable)?;
                buffered(writer.into_inner())?
            }
            Self::DuckDb(file) => return file.finish().map_err(CliError::failed),
        };
        Ok(file.sync_all()?)
    }
}

fn unwritable(error: ArrowError) -> CliError {
    CliError::failed(format!("the output could not be written: {error}"))
}
