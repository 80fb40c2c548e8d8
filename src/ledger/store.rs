//! The store: the write connection, and the way every transaction goes.
//!
//! Owns: the connection, the state, the watches that tell of it.
//! Does not own: what the transactions do (their files), how the file is opened (`open`).
//! Invariants: a transaction changes a copy of the state, which becomes true with its commit; the books balance before
//! each commit; a failed fsync is never retried.
//! On failure: the first `Broken` or `Corrupt` is latched and answers every later call, and the connection is not touched again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, DEFAULT_NAME, TransactionBehavior, wal::CheckpointMode};
use tokio::sync::watch;

use super::answers::{Identity, Progress};
use super::behind;
use super::error::LedgerError;
use super::instances::Due;
use super::state::{self, State};
use super::suspicion;
use crate::clock::SharedClock;
use crate::model::Timestamp;

/// Size of the WAL, in bytes, at which it is copied into the main file until something else is told. `flash_settings` among
/// the benchmarks measures what other sizes save.
const CHECKPOINT_BYTES: u64 = 800 << 10;

/// Bytes of a page: SQLite's default, which new ledgers have.
const PAGE_BYTES: u64 = 4096;

/// Statements kept prepared: more than there are.
const PREPARED_STATEMENTS: usize = 64;

/// The ledger's thread owns one.
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
    clock: SharedClock,
    state: State,
    latched: Option<LedgerError>,
    /// Why a new instance is to begin.
    due: Option<Due>,
    /// Bytes in the WAL after the last commit.
    wal_bytes: Arc<AtomicU64>,
    /// Its size at which it is copied into the main file.
    checkpoint_bytes: Arc<AtomicU64>,
    identity: watch::Sender<Identity>,
    progress: watch::Sender<Progress>,
}

impl Store {
    /// Takes an open, migrated file.
    pub fn new(mut connection: Connection, path: PathBuf, clock: SharedClock) -> Result<Self, LedgerError> {
        connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
        let wal_bytes = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&wal_bytes);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            seen.store(u64::try_from(pages).unwrap_or_default() * PAGE_BYTES, Ordering::Relaxed);
            Ok(())
        }))?;
        let checkpoint_bytes = Arc::new(AtomicU64::new(CHECKPOINT_BYTES));
        let state = state::load(&connection)?;
        let identity = watch::Sender::new(state.identity.clone());
        let progress = watch::Sender::new(state.progress(0));
        Ok(Self { connection, path, clock, state, latched: None, due: None, wal_bytes, checkpoint_bytes, identity, progress })
    }

    pub fn watches(&self) -> (watch::Receiver<Identity>, watch::Receiver<Progress>) {
        (self.identity.subscribe(), self.progress.subscribe())
    }

    /// Where the size is set at which the WAL is copied into the main file.
    pub fn checkpoint_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.checkpoint_bytes)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Why a new instance is to begin once the folder is in order.
    pub fn due(&self) -> Option<&Due> {
        self.due.as_ref()
    }

    pub fn set_due(&mut self, due: Option<Due>) {
        self.due = due;
    }

    /// It has begun.
    pub fn forget_due(&mut self) {
        behind::forget(&self.path);
        self.due = None;
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs `work` as one durable transaction.
    pub fn transact<T>(&mut self, work: impl FnOnce(&Connection, &mut State) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        if let Some(error) = &self.latched {
            return Err(error.clone());
        }
        let mut next = self.state.clone();
        match attempt(&mut self.connection, &self.state, &mut next, work) {
            Ok(answer) => {
                self.state = next;
                self.publish();
                Ok(answer)
            }
            Err(error) => Err(self.judge(error)),
        }
    }

    fn publish(&self) {
        self.identity.send_if_modified(|identity| {
            let changed = *identity != self.state.identity;
            identity.clone_from(&self.state.identity);
            changed
        });
        self.progress.send_modify(|progress| *progress = self.state.progress(progress.version + 1));
    }

    /// Latches an error after which the file must not be trusted.
    fn judge(&mut self, error: LedgerError) -> LedgerError {
        let broken = match &error {
            LedgerError::Corrupt(text) => {
                suspicion::note(&self.path);
                LedgerError::Broken(text.clone())
            }
            LedgerError::Broken(_) => error,
            // The rollback failed as well: nobody knows what the next transaction would commit.
            _ if !self.connection.is_autocommit() => LedgerError::Broken(format!("no rollback after: {error}")),
            _ => return error,
        };
        tracing::error!(error = %broken, "the ledger takes nothing more until it is opened again");
        self.latched = Some(broken.clone());
        broken
    }

    /// What nobody waits for: copies a long WAL into the main file.
    pub fn housekeep(&mut self) {
        if self.latched.is_some() || self.wal_bytes.load(Ordering::Relaxed) < self.checkpoint_bytes.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.checkpoint(CheckpointMode::PASSIVE) {
            tracing::warn!(%error, "the ledger's WAL could not be copied into the main file");
        }
    }

    /// Copies the WAL into the main file, as far as `mode` demands.
    pub fn checkpoint(&mut self, mode: CheckpointMode) -> Result<(), LedgerError> {
        self.connection.wal_checkpoint_v2(DEFAULT_NAME, mode).map_err(|error| self.judge(error.into()))?;
        Ok(())
    }

    /// Copies the whole WAL into the main file and empties it, so that the next start has nothing to check.
    pub fn close(mut self) -> Result<(), LedgerError> {
        if let Some(error) = self.latched {
            return Err(error);
        }
        match self.connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::TRUNCATE) {
            // A reader still looks at the WAL: it stays, and the next start reads it.
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(()),
            Err(error) => Err(self.judge(error.into())),
            Ok(_) => Ok(()),
        }
    }

    #[cfg(test)]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

fn attempt<T>(
    connection: &mut Connection,
    state: &State,
    next: &mut State,
    work: impl FnOnce(&Connection, &mut State) -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let answer = work(&transaction, next)?;
    debug_assert!(next.books.balanced(), "unbalanced books: {:?}", next.books);
    if !next.books.balanced() {
        return Err(LedgerError::Invalid(format!("the books would not balance: {:?}", next.books)));
    }
    if next != state {
        state::save(&transaction, next)?;
    }
    transaction.commit()?;
    Ok(answer)
}
