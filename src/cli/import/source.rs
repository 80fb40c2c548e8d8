//! A file of readings: checked whole, then made into pieces for the daemon.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json;

use super::CliError;
use crate::clock::{Clock as _, SystemClock};
use crate::ingest::files::{Arrival, COLUMNS, MAX_ROWS, Rows};
use crate::model::{Digest, TimeSource};
use crate::segment;

/// A piece with more bytes is sent in two: the door takes 16 MiB.
const PIECE_BYTES: usize = 12 << 20;

/// Lines of JSON decoded at once, and their bytes.
const LINES: (usize, usize) = (16_384, 8 << 20);

/// Columns of few different words.
const WORDS: [&str; 4] = ["sensor", "metric", "unit", "time_source"];

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>>>;

/// A file whose rows are all readings.
pub struct Source {
    path: PathBuf,
    digest: Digest,
    rows: u64,
}

/// Rows on their way.
pub struct Piece {
    /// Where in the file the first of them stands, counted from 0.
    pub first_row: u64,
    /// An Arrow stream.
    pub body: Vec<u8>,
}

impl Source {
    /// Reads the whole file. Blocking.
    ///
    /// # Errors
    /// It can't be read, or the first row that is no reading.
    pub fn check(path: PathBuf) -> Result<Self, CliError> {
        let digest = segment::digest_file(&path).map_err(CliError::because)?.0;
        let mut rows = 0;
        walk(&path, 0, |checked| {
            rows += checked.columns().num_rows() as u64;
            Ok(true)
        })?;
        Ok(Self { path, digest, rows })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of all its bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many readings are in it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Gives `take` the rows from `first_row` on, piece by piece, until it wants no more. Blocking.
    pub fn make_pieces(&self, first_row: u64, mut take: impl FnMut(Result<Piece, CliError>) -> bool) {
        let mut next = first_row;
        let walked = walk(&self.path, first_row, |rows| {
            let mut wanted = true;
            encode(rows.columns(), &mut |body, count| {
                wanted = wanted && take(Ok(Piece { first_row: next, body }));
                next += count;
            })?;
            Ok(wanted)
        });
        if let Err(error) = walked {
            take(Err(error));
        }
    }
}

/// Gives `take` the rows of the file at `path` from `first_row` on, until it wants no more.
fn walk(path: &Path, first_row: u64, mut take: impl FnMut(Rows) -> Result<bool, CliError>) -> Result<(), CliError> {
    let arrival = Arrival { now: SystemClock.now(), trusted: SystemClock.arrival_source() != TimeSource::Unsynchronised };
    let failed = |error: &dyn std::fmt::Display| CliError::failed(format!("{}: {error}", path.display()));
    let mut next = 0;
    for batch in open(path)? {
        let batch = batch.map_err(|error| failed(&error))?;
        let rows = batch.num_rows() as u64;
        let skipped = first_row.saturating_sub(next).min(rows);
        if skipped < rows {
            let skip = usize::try_from(skipped).unwrap_or(usize::MAX);
            let rest = batch.slice(skip, batch.num_rows() - skip);
            let checked = Rows::check(&rest, next + skipped, arrival).map_err(|error| failed(&error))?;
            if !take(checked)? {
                return Ok(());
            }
        }
        next += rows;
    }
    Ok(())
}

/// The rows as Arrow streams, in as many pieces as it takes.
fn encode(rows: &RecordBatch, take: &mut impl FnMut(Vec<u8>, u64)) -> Result<(), CliError> {
    let encoded = || -> Result<Vec<u8>, ArrowError> {
        let mut stream = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
        stream.write(rows)?;
        stream.into_inner()
    };
    let body = encoded().map_err(|error| CliError::failed(format!("the rows can't be written: {error}")))?;
    let count = rows.num_rows();
    if body.len() <= PIECE_BYTES || count < 2 {
        take(body, count as u64);
        return Ok(());
    }
    encode(&rows.slice(0, count / 2), take)?;
    encode(&rows.slice(count / 2, count - count / 2), take)
}

fn open(path: &Path) -> Result<Batches, CliError> {
    let file = File::open(path).map_err(|error| CliError::failed(format!("{} can't be opened: {error}", path.display())))?;
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    let failed = |error: &dyn std::fmt::Display| CliError::failed(format!("{}: {error}", path.display()));
    match ending.as_str() {
        "parquet" => {
            let batches = segment::read_foreign(path, file, &WORDS, MAX_ROWS).map_err(CliError::because)?;
            Ok(Box::new(batches.map(|batch| batch.map_err(|error| error.to_string()))))
        }
        "csv" => csv_batches(file).map_err(|error| failed(&error)),
        "jsonl" | "ndjson" => Ok(Box::new(Lines::new(file).map_err(|error| failed(&error))?)),
        _ => Err(CliError::wrong_use(format!("{} ends in none of .parquet, .csv, .jsonl and .ndjson", path.display()))),
    }
}

/// All columns of a file as texts: what they mean is judged later, in one place.
fn texts<'a>(names: impl IntoIterator<Item = &'a str>) -> SchemaRef {
    Arc::new(Schema::new(names.into_iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>()))
}

fn csv_batches(mut file: File) -> Result<Batches, ArrowError> {
    let format = csv::reader::Format::default().with_header(true);
    let (header, _) = format.infer_schema(&mut file, Some(0))?;
    file.rewind()?;
    let schema = texts(header.fields().iter().map(|field| field.name().as_str()));
    let reader = csv::ReaderBuilder::new(schema).with_header(true).with_batch_size(MAX_ROWS).build(file)?;
    Ok(Box::new(reader.map(|batch| batch.map_err(|error| error.to_string()))))
}

/// JSON lines, many at a time; where one is wrong, one by one, so that it can be named.
struct Lines {
    file: BufReader<File>,
    schema: SchemaRef,
    /// Lines read so far, without empty ones.
    row: u64,
}

impl Lines {
    fn new(file: File) -> io::Result<Self> {
        Ok(Self { file: BufReader::new(file), schema: texts(COLUMNS), row: 0 })
    }

    fn read(&mut self) -> io::Result<Vec<String>> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < LINES.0 && bytes < LINES.1 {
            let mut line = String::new();
            if self.file.read_line(&mut line)? == 0 {
                break;
            }
            if !line.trim().is_empty() {
                bytes += line.len();
                lines.push(line);
            }
        }
        Ok(lines)
    }

    fn decode(&self, lines: &[String]) -> Result<RecordBatch, ArrowError> {
        let settings = json::ReaderBuilder::new(Arc::clone(&self.schema)).with_strict_mode(true).with_coerce_primitive(true);
        let mut decoder = settings.with_batch_size(lines.len()).build_decoder()?;
        for line in lines {
            decoder.decode(line.as_bytes())?;
        }
        Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&self.schema))))
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, String> {
        let lines = self.read().map_err(|error| format!("row {}: {error}", self.row + 1))?;
        if lines.is_empty() {
            return Ok(None);
        }
        let batch = self.decode(&lines).ok().filter(|batch| batch.num_rows() == lines.len()).map_or_else(|| self.find_fault(&lines), Ok)?;
        self.row += lines.len() as u64;
        Ok(Some(batch))
    }

    /// Why `lines` are not an object each.
    fn find_fault(&self, lines: &[String]) -> Result<RecordBatch, String> {
        for (row, line) in (self.row + 1..).zip(lines) {
            match self.decode(std::slice::from_ref(line)) {
                Ok(batch) if batch.num_rows() == 1 => {}
                Ok(_) => return Err(format!("row {row}: a line must be one object")),
                Err(error) => return Err(format!("row {row}: {error}")),
            }
        }
        Err(format!("the rows from {} on are no JSON lines", self.row + 1))
    }
}

impl Iterator for Lines {
    type Item = Result<RecordBatch, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}
