//! Logs.

use serde::{Deserialize, Serialize};

/// Where logs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// The journal under systemd, else stderr.
    Auto,
    /// The journal.
    Journal,
    /// stderr.
    Stderr,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives as `info,forebay::upload=debug`.
    pub level: String,
    /// Where to.
    pub target: LogTarget,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), target: LogTarget::Auto }
    }
}
