//! The doors.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The doors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// The Unix socket.
    pub socket: PathBuf,
    /// TCP addresses; port 0 takes a free one.
    pub http: Vec<String>,
    /// Flight SQL addresses.
    pub flight: Vec<String>,
    /// File with the token asked for on TCP; required off loopback.
    pub token_file: Option<PathBuf>,
    /// Certificate chain of the TCP addresses; absent: no TLS.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/forebay/forebay.sock"),
            http: Vec::new(),
            flight: Vec::new(),
            token_file: None,
            tls_cert: None,
            tls_key: None,
        }
    }
}
