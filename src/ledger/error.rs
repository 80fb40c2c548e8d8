//! What can go wrong in the ledger, and what SQLite's codes mean for it.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

use crate::disk;
use crate::error::ErrorKind;
use crate::owner::Gone;

/// What went wrong in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The disk is full; nothing was changed.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The call contradicts what the ledger knows; nothing was changed.
    #[error("refused by the ledger: {0}")]
    Invalid(String),
    /// A row or the file is damaged.
    #[error("damaged ledger: {0}")]
    Corrupt(String),
    /// Reading or writing failed; acknowledge nothing more and start again from disk.
    #[error("ledger failed: {0}")]
    Broken(String),
}

impl LedgerError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full(_) => ErrorKind::Full,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Broken(_) => ErrorKind::Broken,
        }
    }

    /// What `error` means, which came while `doing` something to `path`.
    pub(super) fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let text = format!("{doing} {}: {error}", path.display());
        if disk::is_full(error) { Self::Full(text) } else { Self::Broken(text) }
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        let text = error.to_string();
        if let Some(code) = error.sqlite_error() {
            // "disk I/O error" alone says too little: the extended code names the call that failed.
            let text = format!("{text} (sqlite {})", code.extended_code);
            return match code.code {
                // The shared memory of the WAL could not grow: no data was touched.
                _ if code.extended_code == SQLITE_IOERR_SHMSIZE => Self::Full(text),
                ErrorCode::DiskFull => Self::Full(text),
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt(text),
                ErrorCode::ConstraintViolation | ErrorCode::TooBig => Self::Invalid(text),
                _ => Self::Broken(text),
            };
        }
        match error {
            E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::QueryReturnedNoRows
            | E::Utf8Error(..) => Self::Corrupt(text),
            E::ToSqlConversionFailure(_) => Self::Invalid(text),
            _ => Self::Broken(text),
        }
    }
}

impl From<Gone> for LedgerError {
    fn from(gone: Gone) -> Self {
        Self::Broken(gone.to_string())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn kind_of(code: i32) -> ErrorKind {
        LedgerError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)).kind()
    }

    #[test]
    fn a_full_disk_may_be_tried_again_and_a_failed_sync_may_not() {
        assert_eq!(kind_of(ffi::SQLITE_FULL), ErrorKind::Full);
        assert_eq!(kind_of(ffi::SQLITE_IOERR_SHMSIZE), ErrorKind::Full);
        assert_eq!(kind_of(ffi::SQLITE_IOERR_FSYNC), ErrorKind::Broken);
        assert_eq!(kind_of(ffi::SQLITE_IOERR_WRITE), ErrorKind::Broken);
        assert_eq!(kind_of(ffi::SQLITE_CORRUPT), ErrorKind::Corrupt);
        assert_eq!(kind_of(ffi::SQLITE_NOTADB), ErrorKind::Corrupt);
        assert_eq!(kind_of(ffi::SQLITE_CONSTRAINT_UNIQUE), ErrorKind::Invalid);
    }
}
