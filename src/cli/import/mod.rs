//! `forebay import`: readings out of files, each file once.

mod source;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::CliError;
use super::connect::Daemon;
use super::meter::Meter;
use super::show::count;
use crate::api::Imported;
use source::{Piece, Source};

/// Pieces made ready while one is on its way.
const AHEAD: usize = 2;

/// Arguments of `import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Parquet, CSV or JSON lines, with the columns of readings; told by its ending
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What became of a file.
#[derive(Debug, Serialize)]
struct Outcome {
    file: PathBuf,
    /// Rows in it.
    rows: u64,
    /// Those that were in before.
    known: u64,
}

/// Runs `import`. All files are checked before anything of them is sent.
pub async fn run(args: ImportArgs, socket: Option<PathBuf>) -> Result<ExitCode, CliError> {
    let mut sources = Vec::new();
    for path in args.files {
        sources.push(blocking(move || Source::check(path)).await?);
    }
    let daemon = Daemon::find(socket);
    let mut outcomes = Vec::new();
    for source in sources {
        let outcome = send(&daemon, source).await?;
        if !args.json {
            writeln!(io::stdout(), "{}", sentence(&outcome))?;
        }
        outcomes.push(outcome);
    }
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&outcomes).unwrap_or_default())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn send(daemon: &Daemon, source: Source) -> Result<Outcome, CliError> {
    let (file, rows, digest) = (source.path().to_owned(), source.rows(), source.digest());
    let known = daemon.get::<Imported>(&format!("/api/v1/import?file={digest}")).await?.rows;
    let (to, mut pieces) = mpsc::channel::<Result<Piece, CliError>>(AHEAD);
    let made = spawn_blocking(move || source.make_pieces(known, |piece| to.blocking_send(piece).is_ok()));
    let (mut done, mut meter) = (known, Meter::new());
    while let Some(piece) = pieces.recv().await {
        let Piece { first_row, body } = piece?;
        let path = format!("/api/v1/import?file={digest}&row={first_row}");
        let answer: Imported = daemon.post_arrow(&path, Bytes::from(body)).await.map_err(|error| {
            let (done, rows, file) = (count(done), count(rows), file.display());
            CliError::failed(format!("{error}; {done} of the {rows} rows of {file} are in, import it again to go on with the others"))
        })?;
        done = answer.rows;
        meter.show(|| format!("{}: {} of {} rows", file.display(), count(done), count(rows)));
    }
    made.await.map_err(|error| CliError::failed(format!("the import failed: {error}")))?;
    Ok(Outcome { file, rows, known: known.min(rows) })
}

fn sentence(outcome: &Outcome) -> String {
    let Outcome { file, rows, known } = outcome;
    let (file, new) = (file.display(), count(rows - known));
    match *known {
        0 => format!("{file}: {new} readings imported"),
        known if known == *rows => format!("{file}: all {} readings were in already", count(*rows)),
        known => format!("{file}: {new} readings imported, {} were in already", count(known)),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, CliError> + Send + 'static) -> Result<T, CliError> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(CliError::failed(format!("the work failed: {error}"))))
}
