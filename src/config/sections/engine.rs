//! SQL.

use serde::{Deserialize, Serialize};

use super::seconds;
use crate::config::units::{ByteSize, Period};

/// SQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Runs it.
    pub enabled: bool,
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
            memory: ByteSize(0),
            threads: 0,
            query_timeout: seconds(30),
            max_concurrent_queries: 4,
            max_answer: ByteSize(1 << 30),
        }
    }
}
