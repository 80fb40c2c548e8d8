//! `forebay export`: readings into a file, without the engine.

mod sink;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use clap::Args;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::json;

use super::CliError;
use super::connect::{Daemon, encoded};
use super::meter::Meter;
use super::show::count;
use crate::api::INCOMPLETE;
use crate::disk;
use crate::model::columns::reading_schema;
use sink::{Kind, Sink};

/// Arguments of `export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// The file to write; its ending says how: .parquet, .csv, .jsonl, .ndjson or .duckdb
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// From this time on: RFC 3339 with a zone, or a number since 1970
    #[arg(long, value_name = "T")]
    from: Option<String>,
    /// Until before this time
    #[arg(long, value_name = "T")]
    to: Option<String>,
    /// Of this sensor alone
    #[arg(long, value_name = "S")]
    sensor: Option<String>,
    /// Of this metric alone
    #[arg(long, value_name = "M")]
    metric: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `export`. What could not be read is left out; it ends with 1 then.
pub async fn run(args: ExportArgs, socket: Option<PathBuf>) -> Result<ExitCode, CliError> {
    let kind = Kind::of(&args.output)?;
    let asked = [("from", &args.from), ("to", &args.to), ("sensor", &args.sensor), ("metric", &args.metric)];
    let asked = asked.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_deref()?))));
    let path = format!("/api/v1/export?{}", asked.collect::<Vec<_>>().join("&"));
    let response = Daemon::find(socket).get_stream(&path).await?;
    let part = disk::with_suffix(&args.output, ".part");
    // What an export that was killed left there.
    discard(&part);
    let written = write(response, kind, &part).await;
    let outcome = written.and_then(|outcome| {
        let failed = |error: io::Error| CliError::failed(format!("{} can't be written: {error}", args.output.display()));
        disk::rename(&part, &args.output).map_err(failed)?;
        Ok(outcome)
    });
    let (readings, incomplete) = outcome.inspect_err(|_| discard(&part))?;
    let text = if args.json {
        json!({"file": args.output, "readings": readings, "incomplete": incomplete}).to_string()
    } else {
        format!("{}: {} readings exported", args.output.display(), count(readings))
    };
    writeln!(io::stdout(), "{text}")?;
    if incomplete {
        return Err(CliError::failed("the export is incomplete: a segment could not be read, the daemon's log names it"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes what is of no use: the file at `part`, and the log that DuckDB has beside it before a database is complete.
fn discard(part: &Path) {
    for path in [part, &disk::with_suffix(part, ".wal")] {
        // It need not be there; what hinders it hinders the next export, too, and is told then.
        let _ = std::fs::remove_file(path);
    }
}

/// Writes the answer to the file at `path`; how many readings, and whether some are missing.
async fn write(response: Response<Incoming>, kind: Kind, path: &Path) -> Result<(u64, bool), CliError> {
    let unreadable = |error: ArrowError| CliError::failed(format!("the daemon's answer can't be read: {error}"));
    let cut_short = |error: hyper::Error| CliError::failed(format!("the export ended early ({error}); the daemon's log says why"));
    let (mut body, mut decoder) = (response.into_body(), StreamDecoder::new());
    let (mut sink, mut readings, mut incomplete, mut meter) = (None, 0, false, Meter::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(cut_short)?;
        incomplete |= frame.trailers_ref().is_some_and(|trailers| trailers.contains_key(INCOMPLETE));
        let Ok(data) = frame.into_data() else { continue };
        let mut data = Buffer::from(data);
        while let Some(batch) = decoder.decode(&mut data).map_err(unreadable)? {
            readings += batch.num_rows() as u64;
            put(&mut sink, kind, path, &batch)?;
            meter.show(|| format!("{} readings", count(readings)));
        }
    }
    decoder.finish().map_err(unreadable)?;
    if sink.is_none() {
        // A file without readings is a file, too.
        put(&mut sink, kind, path, &RecordBatch::new_empty(reading_schema()))?;
    }
    if let Some(sink) = sink {
        sink.finish()?;
    }
    Ok((readings, incomplete))
}

fn put(sink: &mut Option<Sink>, kind: Kind, path: &Path, batch: &RecordBatch) -> Result<(), CliError> {
    if sink.is_none() {
        *sink = Some(Sink::create(kind, path, batch)?);
    }
    sink.as_mut().map_or(Ok(()), |sink| sink.write(batch))
}
