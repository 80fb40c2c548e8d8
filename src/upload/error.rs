//! What went wrong with uploads and lakes.

use super::upstream::UpstreamError;
use crate::error::ErrorKind;
use crate::ledger::LedgerError;
use crate::segment::SegmentError;

/// What went wrong with uploads and lakes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UploadError {
    /// The settings name no place that can be used.
    #[error("{0}")]
    Config(String),
    /// A lake can't be read.
    #[error("{0}")]
    Lake(String),
    /// Upstream did not do it.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The ledger refused or failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A segment can't be read or moved.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The ledger holds a shipment whose manifest can't be read.
    #[error("shipment {0}: its manifest in the ledger can't be read: {1}")]
    Shipment(u64, String),
    /// A piece of work on another thread was cut short.
    #[error("cut short: {0}")]
    Interrupted(String),
}

impl UploadError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) => ErrorKind::Config,
            Self::Lake(_) | Self::Interrupted(_) => ErrorKind::Transient,
            Self::Upstream(error) => match error {
                UpstreamError::Transient(_) | UpstreamError::Busy { .. } | UpstreamError::Ambiguous(_) | UpstreamError::Unmarked(_) => {
                    ErrorKind::Transient
                }
                UpstreamError::Permanent(_) | UpstreamError::Denied(_) | UpstreamError::Conflict { .. } => ErrorKind::Invalid,
                UpstreamError::Source { .. } => ErrorKind::Corrupt,
            },
            Self::Ledger(error) => error.kind(),
            Self::Segment(error) => error.kind(),
            Self::Shipment(..) => ErrorKind::Corrupt,
        }
    }
}
