//! Why a query has no answer.

use std::time::Duration;

use super::protocol::{Failure, FailureKind};
use crate::error::ErrorKind;

/// Why a query has no answer, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The SQL is wrong, or its values are; with the place where DuckDB names one.
    #[error("{0}")]
    Sql(String),
    /// The SQL asks for what a query may not do.
    #[error("{0}")]
    Denied(String),
    /// As many queries as allowed are running.
    #[error("{running} queries are running, as many as engine.max_concurrent_queries allows; ask again in a moment")]
    Busy {
        /// How many.
        running: usize,
    },
    /// It took longer than allowed.
    #[error("the query took longer than engine.query_timeout, {}, and was ended", crate::config::Period(*limit))]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// It took more memory than allowed.
    #[error("the query needs more than engine.memory allows: {0}")]
    Memory(String),
    /// Its answer got longer than allowed, and was cut off.
    #[error("{0}")]
    TooLong(String),
    /// A segment is missing or damaged; the message names it.
    #[error("a segment can't be read: {0}")]
    Segment(String),
    /// The engine ended under the query.
    #[error("the engine ended while it worked on the query and is started again; ask again in a moment")]
    EngineGone,
    /// The engine has not come up (again) within the query's time.
    #[error("the engine is not ready yet; ask again in a moment")]
    NotReady,
    /// More is hot than it can hold, and the sealer did not catch up within the query's time.
    #[error("{hot} readings wait to be sealed, more than engine.memory can hold; ask again in a moment")]
    Behind {
        /// How many.
        hot: u64,
    },
    /// None can be started or reached.
    #[error("there is no engine: {0}")]
    Absent(String),
    /// This build or the configuration has none.
    #[error("{0}")]
    Off(&'static str),
    /// A fault of the engine.
    #[error("the engine failed: {0}")]
    Internal(String),
}

impl QueryError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sql(_) | Self::Denied(_) | Self::TimedOut { .. } | Self::Memory(_) | Self::TooLong(_) => ErrorKind::Invalid,
            Self::Busy { .. } | Self::EngineGone | Self::NotReady | Self::Behind { .. } | Self::Absent(_) | Self::Internal(_) => {
                ErrorKind::Transient
            }
            Self::Segment(_) => ErrorKind::Corrupt,
            Self::Off(_) => ErrorKind::Config,
        }
    }

    /// What the engine said, for a query that was allowed `limit`.
    pub(super) fn from_failure(failure: Failure, limit: Duration) -> Self {
        let Failure { kind, message } = failure;
        match kind {
            FailureKind::Sql => Self::Sql(message),
            FailureKind::Denied => Self::Denied(message),
            FailureKind::TimedOut => Self::TimedOut { limit },
            FailureKind::Memory => Self::Memory(message),
            FailureKind::TooLong => Self::TooLong(message),
            FailureKind::Segment => Self::Segment(message),
            FailureKind::Internal => Self::Internal(message),
        }
    }
}
