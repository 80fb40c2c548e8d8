//! The importer: takes the pieces of a file, one after the other, into the journal.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use super::rows::{Arrival, Rows};
use super::shape::BadFile;
use crate::clock::SharedClock;
use crate::error::ErrorKind;
use crate::ingest::latest::{Latest, TooManySeries};
use crate::ledger::{Ledger, LedgerError};
use crate::model::{Digest, ImportedRows, SeriesSummary, TimeSource};
use crate::space::{Claim, Space};

/// How long a piece waits for the sealer before its sender is told to come again.
const ROOM_TIME: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(20) };

/// Rows of a file that follow each other.
#[derive(Debug)]
pub struct Piece {
    /// Digest of the whole file.
    pub file: Digest,
    /// Where in the file its first row stands, counted from 0.
    pub first_row: u64,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

/// A piece was not taken; nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A row is no reading.
    #[error(transparent)]
    Bad(#[from] BadFile),
    /// Rows before it are missing.
    #[error("{known} rows of this file are imported, and row {first_row} does not follow")]
    Gap {
        /// How many are in.
        known: u64,
        /// What was sent.
        first_row: u64,
    },
    /// It would begin too many series.
    #[error(transparent)]
    TooManySeries(#[from] TooManySeries),
    /// No readings are taken now, for this reason.
    #[error("no readings are taken: {0}")]
    NoSpace(Arc<str>),
    /// The sealer does not keep up.
    #[error("{0} readings wait to be sealed")]
    Busy(u64),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Its work panicked.
    #[error("the import failed: {0}")]
    Panicked(String),
}

impl ImportError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Bad(_) | Self::Gap { .. } => ErrorKind::Invalid,
            Self::TooManySeries(_) | Self::Busy(_) => ErrorKind::Transient,
            Self::NoSpace(_) => ErrorKind::Full,
            Self::Ledger(error) => error.kind(),
            Self::Panicked(_) => ErrorKind::Corrupt,
        }
    }
}

impl From<JoinError> for ImportError {
    fn from(error: JoinError) -> Self {
        Self::Panicked(error.to_string())
    }
}

/// Takes files. Cheap to clone.
#[derive(Clone)]
pub struct Importer {
    ledger: Ledger,
    latest: Arc<Latest>,
    clock: SharedClock,
    space: Space,
    /// Beyond so many hot readings an import waits, so that journal and engine stay small.
    max_hot: u64,
    /// Whose turn it is: one piece at a time.
    turn: Arc<Mutex<()>>,
}

/// A piece that is ready.
struct Ready {
    rows: ImportedRows,
    series: Vec<SeriesSummary>,
}

impl Importer {
    /// Takes files into `ledger`, while `space` admits readings and at most `max_hot` of them wait to be sealed.
    pub fn new(ledger: Ledger, latest: Arc<Latest>, clock: SharedClock, space: Space, max_hot: u64) -> Self {
        Self { ledger, latest, clock, space, max_hot, turn: Arc::default() }
    }

    /// Takes `piece` and returns when it is durable, with how many rows of its file are in by then. One that is in already
    /// is not taken again. Goes on to its end if the sender leaves.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub async fn take(&self, piece: Piece) -> Result<u64, ImportError> {
        let arrival = Arrival { now: self.clock.now(), trusted: self.clock.arrival_source() != TimeSource::Unsynchronised };
        let ready = spawn_blocking(move || prepare(piece, arrival)).await??;
        let importer = self.clone();
        tokio::spawn(async move { importer.commit(ready).await }).await?
    }

    async fn commit(&self, ready: Ready) -> Result<u64, ImportError> {
        let _turn = self.turn.lock().await;
        let Ready { mut rows, series } = ready;
        let known = self.known(rows.file).await?;
        let end = rows.first_row + rows.rows;
        if end <= known {
            return Ok(known);
        }
        if rows.first_row != known {
            return Err(ImportError::Gap { known, first_row: rows.first_row });
        }
        if let Some(why) = self.space.refusal() {
            return Err(ImportError::NoSpace(why));
        }
        self.wait_for_sealer().await?;
        let _room = self.claim(rows.bytes.len() as u64).await?;
        rows.new_series = self.latest.admit_all(series.iter().map(|series| &series.key))?;
        let known = self.ledger.import(rows).await.inspect_err(|error| {
            if error.kind() == ErrorKind::Full {
                self.space.report_full();
            }
        })?;
        self.latest.merge(&series);
        Ok(known)
    }

    /// How many rows of `file` are in.
    ///
    /// # Errors
    /// The ledger can't be read.
    pub async fn known(&self, file: Digest) -> Result<u64, ImportError> {
        let ledger = self.ledger.clone();
        Ok(spawn_blocking(move || ledger.reader()?.imported_rows(&file)).await??)
    }

    /// Room for the piece in the journal, and as much beside it while it is in the WAL too.
    async fn claim(&self, bytes: u64) -> Result<Claim, ImportError> {
        let refusal = || self.space.refusal().unwrap_or_else(|| "there is no room below retention.cap".into());
        timeout(ROOM_TIME, self.space.claim(2 * bytes)).await.map_err(|_| ImportError::NoSpace(refusal()))
    }

    async fn wait_for_sealer(&self) -> Result<(), ImportError> {
        let mut progress = self.ledger.progress();
        let hot = |progress: &crate::ledger::Progress| progress.last_seq.saturating_sub(progress.mark);
        let room = progress.wait_for(|progress| hot(progress) <= self.max_hot);
        let outcome = timeout(ROOM_TIME, room).await.map(|room| room.map(|_| ()));
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(LedgerError::Broken("it is closed".to_owned()).into()),
            Err(_) => Err(ImportError::Busy(hot(&self.ledger.progress().borrow()))),
        }
    }
}

/// Checks and encodes a piece. Blocking.
fn prepare(piece: Piece, arrival: Arrival) -> Result<Ready, ImportError> {
    let Piece { file, first_row, batches } = piece;
    let whole = match batches.as_slice() {
        [] => return Err(BadFile::Columns("there are no rows".to_owned()).into()),
        [batch] => batch.clone(),
        [first, ..] => {
            let joined = arrow::compute::concat_batches(first.schema_ref(), &batches);
            joined.map_err(|error| BadFile::Columns(error.to_string()))?
        }
    };
    let rows = Rows::check(&whole, first_row, arrival)?;
    let bytes = rows.encode().map_err(|error| BadFile::Columns(error.to_string()))?;
    let series = rows.series();
    let rows = ImportedRows { file, first_row, rows: whole.num_rows() as u64, bytes, new_series: Vec::new() };
    Ok(Ready { rows, series })
}
