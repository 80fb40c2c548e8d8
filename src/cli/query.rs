//! `forebay query`: SQL over everything kept here.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;

use super::CliError;
use super::connect::Daemon;
use super::table;
use crate::api::{INCOMPLETE, QueryRequest};
use crate::engine;

/// Most rows of a table: nobody reads more, and it is laid out as a whole.
const MAX_TABLE_ROWS: u64 = 1_000;

/// Arguments of `query`.
#[derive(Debug, Clone, Args)]
pub struct QueryArgs {
    /// One statement that reads: readings, series, records, losses, books
    sql: String,
    /// How to write the answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Write to this file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people; the first 1,000 rows
    Table,
    /// Comma-separated values with a header
    Csv,
    /// An array of objects
    Json,
    /// An object a line
    Jsonl,
    /// A Parquet file
    Parquet,
    /// An Arrow stream
    Arrow,
}

impl Format {
    /// What the daemon is asked for; a table is laid out here, from Arrow.
    fn asked(self) -> engine::Format {
        match self {
            Self::Csv => engine::Format::Csv,
            Self::Json => engine::Format::Json,
            Self::Jsonl => engine::Format::JsonLines,
            Self::Parquet => engine::Format::Parquet,
            Self::Arrow | Self::Table => engine::Format::Arrow,
        }
    }

    fn is_binary(self) -> bool {
        matches!(self, Self::Parquet | Self::Arrow)
    }
}

/// Runs `query`.
pub async fn run(args: QueryArgs, socket: Option<PathBuf>) -> Result<ExitCode, CliError> {
    let QueryArgs { sql, format, output } = args;
    if output.is_none() && format.is_binary() && io::stdout().is_terminal() {
        return Err(CliError::wrong_use(format!("{} is not for a terminal; name a file with --output", format.asked().as_str())));
    }
    // One row more than is shown tells that there are more.
    let max_rows = (format == Format::Table).then_some(MAX_TABLE_ROWS + 1);
    let request = QueryRequest { sql, format: Some(format.asked()), max_rows };
    let response = Daemon::find(socket).stream("/api/v1/query", &request).await?;
    let incomplete = response.headers().contains_key(INCOMPLETE);
    match output {
        None => write_answer(response, format, &mut io::stdout()).await?,
        Some(path) => write_file(response, format, &path).await?,
    }
    if incomplete {
        writeln!(io::stderr(), "the answer is incomplete: not all segments are attached to the engine yet")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn write_answer(response: Response<Incoming>, format: Format, out: &mut impl Write) -> Result<(), CliError> {
    let cut_short = |error: hyper::Error| CliError::failed(format!("the answer ended early ({error}); the query failed or took too long"));
    if format == Format::Table {
        let bytes = response.into_body().collect().await.map_err(cut_short)?.to_bytes();
        let usual_rows = usize::try_from(MAX_TABLE_ROWS).unwrap_or(usize::MAX);
        let text = table::render(&bytes, usual_rows).map_err(|error| CliError::failed(format!("the answer can't be read: {error}")))?;
        return Ok(out.write_all(text.as_bytes())?);
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(cut_short)?.into_data() {
            out.write_all(&data)?;
        }
    }
    Ok(out.flush()?)
}

/// Under another name until it is whole, so that half an answer is never taken for one.
async fn write_file(response: Response<Incoming>, format: Format, path: &Path) -> Result<(), CliError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let failed = |error: io::Error| CliError::failed(format!("{} can't be written: {error}", path.display()));
    let mut file = File::create(&part).map_err(failed)?;
    let written = write_answer(response, format, &mut file).await;
    let written = written.and_then(|()| fs::rename(&part, path).map_err(failed));
    if written.is_err() {
        // What is left of it is of no use; the first error is what counts.
        let _ = fs::remove_file(&part);
    }
    written
}
