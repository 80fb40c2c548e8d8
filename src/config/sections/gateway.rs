//! Who and where.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// The name of this gateway in the lake; empty: the host name. Letters, digits, `.`, `_`, `-`.
    pub id: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { id: String::new(), data_dir: PathBuf::from("/var/lib/forebay") }
    }
}
