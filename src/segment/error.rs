//! What went wrong with segments.

use std::io;
use std::path::Path;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use rustix::io::Errno;

use crate::disk;
use crate::error::ErrorKind;
use crate::ledger::LedgerError;

/// What went wrong with segments. Cheap to clone, so that the worker and whoever asked both get it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SegmentError {
    /// No room for the file; nothing was recorded, and the journal keeps the rows.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The file is not there (any more).
    #[error("no such file: {0}")]
    Missing(String),
    /// Too little of something that comes back: descriptors, memory, a permission.
    #[error("{0}")]
    Transient(String),
    /// A file is not what it should be.
    #[error("damaged: {0}")]
    Corrupt(String),
    /// The disk failed; stop and start again from it.
    #[error("{0}")]
    Broken(String),
    /// The ledger refused or failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The sealer is stopping and takes no more demands.
    #[error("the sealer is stopping")]
    Stopped,
}

impl SegmentError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full(_) => ErrorKind::Full,
            Self::Missing(_) | Self::Transient(_) | Self::Stopped => ErrorKind::Transient,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Broken(_) => ErrorKind::Broken,
            Self::Ledger(error) => error.kind(),
        }
    }

    /// Whether the file itself is to blame when it could not be read: it is gone, damaged, or the medium fails. Want of
    /// descriptors or of a permission says nothing of it.
    pub fn lies_with_the_file(&self) -> bool {
        matches!(self, Self::Missing(_)) || matches!(self.kind(), ErrorKind::Corrupt | ErrorKind::Broken)
    }

    /// The error of `doing` (as in "cannot {doing}") something with the file or folder at `path`.
    pub(super) fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let message = format!("cannot {doing} {}: {error}", path.display());
        match error.kind() {
            _ if disk::is_full(error) => Self::Full(message),
            // RLIMIT_FSIZE: the journal keeps the rows, and a person can raise it.
            io::ErrorKind::FileTooLarge => Self::Full(message),
            io::ErrorKind::NotFound => Self::Missing(message),
            io::ErrorKind::OutOfMemory | io::ErrorKind::Interrupted | io::ErrorKind::ResourceBusy => Self::Transient(message),
            // It says nothing of the bytes, and a person can mend it.
            io::ErrorKind::PermissionDenied => Self::Transient(message),
            _ if is_out_of_descriptors(error) => Self::Transient(message),
            _ => Self::Broken(message),
        }
    }

    /// The error of the Parquet library while `doing` something with the file at `path`: what the disk said if that is
    /// behind it, else damage.
    pub(super) fn parquet(doing: &str, path: &Path, error: ParquetError) -> Self {
        match error {
            ParquetError::External(source) => match source.downcast::<io::Error>() {
                Ok(error) => Self::io(doing, path, &error),
                Err(source) => Self::Corrupt(format!("cannot {doing} {}: {source}", path.display())),
            },
            error => Self::Corrupt(format!("cannot {doing} {}: {error}", path.display())),
        }
    }

    /// The error of the columns of `what`.
    pub(super) fn arrow(what: &str, error: &ArrowError) -> Self {
        Self::Corrupt(format!("{what}: {error}"))
    }
}

/// Someone will close a file.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_decides_what_to_do() {
        let kind = |errno: Errno| SegmentError::io("write", Path::new("x"), &errno.into()).kind();
        assert_eq!(kind(Errno::NOSPC), ErrorKind::Full);
        assert_eq!(kind(Errno::DQUOT), ErrorKind::Full);
        assert_eq!(kind(Errno::FBIG), ErrorKind::Full);
        assert_eq!(kind(Errno::MFILE), ErrorKind::Transient);
        assert_eq!(kind(Errno::ACCESS), ErrorKind::Transient);
        assert_eq!(kind(Errno::IO), ErrorKind::Broken);
        assert_eq!(kind(Errno::ROFS), ErrorKind::Broken);
    }

    #[test]
    fn a_file_is_not_to_blame_for_what_the_process_lacks() {
        let blamed = |errno: Errno| SegmentError::io("read", Path::new("x"), &errno.into()).lies_with_the_file();
        assert!([Errno::IO, Errno::NOENT, Errno::ISDIR].into_iter().all(blamed));
        assert!(![Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS, Errno::PERM].into_iter().any(blamed));
    }

    #[test]
    fn a_full_disk_behind_the_parquet_writer_is_a_full_disk() {
        let full = || ParquetError::from(io::Error::from(Errno::NOSPC));
        assert_eq!(SegmentError::parquet("write", Path::new("x"), full()).kind(), ErrorKind::Full);
        let text = ParquetError::General("bad magic".into());
        assert_eq!(SegmentError::parquet("read", Path::new("x"), text).kind(), ErrorKind::Corrupt);
    }
}
