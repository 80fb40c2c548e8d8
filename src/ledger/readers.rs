//! Read-only connections that wait for their next use.
//!
//! An idle daemon looks into its ledger twice a minute, and every opening would cost the medium something: SQLite run by
//! root gives the WAL's owner to the WAL again, and the file system writes that down.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags};

use super::error::LedgerError;

/// Connections kept open: rarely more than two rooms read at a time.
const KEPT: usize = 2;

/// The connections that nobody uses.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Of the ledger at `path`; none is opened yet.
    pub fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, idle: Mutex::default() })
    }

    /// The ledger's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A connection of one's own, until it is dropped.
    pub fn lend(self: &Arc<Self>) -> Result<Lent, LedgerError> {
        let idle = self.idle().pop();
        let connection = idle.map_or_else(|| open(&self.path), Ok)?;
        Ok(Lent { connection: Some(connection), home: Arc::clone(self) })
    }

    fn take_back(&self, connection: Connection) {
        // One in a transaction was dropped by a panic; one that can't give up its cache is not worth keeping.
        if connection.is_autocommit() && connection.execute_batch("pragma shrink_memory").is_ok() {
            let mut idle = self.idle();
            if idle.len() < KEPT {
                idle.push(connection);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("pragma query_only = on; pragma cell_size_check = on; pragma temp_store = memory")?;
    Ok(connection)
}

/// A connection in use.
pub(super) struct Lent {
    /// There until the drop.
    connection: Option<Connection>,
    home: Arc<Readers>,
}

impl Lent {
    /// Where it comes from.
    pub fn home(&self) -> &Readers {
        &self.home
    }
}

impl Deref for Lent {
    type Target = Connection;

    #[expect(clippy::expect_used, reason = "only the drop takes it out")]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("a connection in use")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.home.take_back(connection);
        }
    }
}
