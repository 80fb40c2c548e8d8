//! What daemon and engine say to each other.
//!
//! The control socket carries [`ToEngine`] one way and [`Event`] the other, the socket of a query carries [`Piece`].
//! Orders are obeyed one after the other: a query sees everything that was ordered before it and nothing after it.

use serde::{Deserialize, Serialize};

use super::binding::Binding;
use super::format::Format;
use crate::model::{Books, Seq};

/// An order of the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToEngine {
    /// Open DuckDB. The first order, and only that.
    Open(Opening),
    /// Take hot readings; the body is a journal batch. They count from the next [`ToEngine::Commit`].
    Rows {
        /// Seq of the batch's first reading.
        first_seq: Seq,
    },
    /// Replace a small table from the next [`ToEngine::Commit`] on; the body is an Arrow stream.
    Table(SmallTable),
    /// Make everything since the last one true at once.
    Commit(Moment),
    /// Answer a query on the socket that comes with this frame.
    Query(Ask),
}

/// How to open DuckDB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// DuckDB's memory.
    pub memory_bytes: u64,
    /// DuckDB's threads.
    pub threads: usize,
    /// Whether it says how much memory it has: the daemon can't look at another user's process.
    pub tells_memory: bool,
}

/// A table that is replaced as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmallTable {
    /// What is known of the series as of the mark.
    SealedSeries,
    /// Records, the newest.
    Records,
    /// Losses.
    Losses,
    /// Segments of readings to attach, all of them, below the segments folder.
    Segments,
}

/// What the ledger says at one moment, beside the rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Highest committed seq.
    pub last_seq: Seq,
    /// Highest sealed seq: hot readings through it leave.
    pub mark: Seq,
    /// The books.
    pub books: Books,
}

/// A query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Its number.
    pub id: u64,
    /// As the user wrote it.
    pub sql: String,
    /// What stands for its `?`.
    pub binding: Binding,
    /// How the answer is written.
    pub format: Format,
    /// Most rows; `None`: all.
    pub max_rows: Option<u64>,
    /// Most bytes of the answer.
    pub max_bytes: u64,
    /// When it is interrupted, in milliseconds of [`monotonic_ms`].
    pub deadline_ms: u64,
}

/// Milliseconds of the clock that both processes see and nobody sets.
pub fn monotonic_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let millis = now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000);
    u64::try_from(millis).unwrap_or_default()
}

/// What the engine reports on the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// DuckDB is open, in these layers of isolation.
    Opened {
        /// For example `rlimit`.
        isolation: Vec<String>,
    },
    /// A [`ToEngine::Commit`] is true.
    Committed {
        /// Its last seq.
        last_seq: Seq,
        /// Segments attached.
        segments: usize,
    },
    /// How much memory the engine has, where it tells it.
    Memory {
        /// Resident.
        rss_bytes: u64,
    },
    /// A query has ended, well or not.
    Finished {
        /// Its number.
        id: u64,
    },
    /// The engine can't go on and ends.
    Failed {
        /// Why.
        message: String,
    },
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The body is the next stretch of the answer.
    Data,
    /// That was all.
    Done {
        /// Rows in the answer.
        rows: u64,
        /// How many `?` the statement has.
        parameters: usize,
    },
    /// It ends here.
    Failed(Failure),
}

/// Why a query failed inside the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What sort.
    pub kind: FailureKind,
    /// For the user.
    pub message: String,
}

/// What sort of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The SQL is wrong, or its values are.
    Sql,
    /// It asks for what queries may not do.
    Denied,
    /// It took too long.
    TimedOut,
    /// It took too much memory.
    Memory,
    /// Its answer got too long.
    TooLong,
    /// A segment can't be read; the message names it.
    Segment,
    /// A fault of the engine.
    Internal,
}
