//! What can go wrong in retention.

use crate::error::ErrorKind;
use crate::ledger::LedgerError;
use crate::segment::SegmentError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file could not be removed because the disk failed.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl RetentionError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ledger(error) => error.kind(),
            Self::Segment(error) => error.kind(),
        }
    }
}
