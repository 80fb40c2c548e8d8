//! SQL.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::seconds;
use crate::config::units::{ByteSize, Period};

/// SQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Runs it.
    pub enabled: bool,
    /// Where a unit of its own is reached; absent: it is a child of the daemon.
    pub socket: Option<PathBuf>,
    /// Its memory; 0: a fifth of the machine's, at most 192 MiB.
    pub memory: ByteSize,
    /// Its threads; 0: 1 below 1 GiB of memory, else 2.
    pub threads: usize,
    /// Longest query.
    pub query_timeout: Period,
    /// Most queries at a time.
    pub max_concurrent_queries: usize,
    /// Longest answer; 0: no limit.
    pub max_answer: ByteSize,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: None,
            memory: ByteSize(0),
            threads: 0,
            query_timeout: seconds(30),
            max_concurrent_queries: 4,
            max_answer: ByteSize(1 << 30),
        }
    }
}

impl Engine {
    /// The socket of the engine's own unit, if it has one.
    pub fn unit(&self) -> Option<&Path> {
        self.socket.as_deref().filter(|_| self.enabled)
    }
}
