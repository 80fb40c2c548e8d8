//! Sensors that publish straight to forebay.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Sensors publish straight to forebay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    /// Addresses; port 0 takes a free one.
    pub bind: Vec<String>,
    /// Accounts; absent: anyone, on loopback only unless `anonymous` or `tls_client_ca` is set.
    pub users_file: Option<PathBuf>,
    /// Lets in who names no account, also off loopback.
    pub anonymous: bool,
    /// Certificate chain; absent: no TLS.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// Authority that must have signed the certificate of everyone who connects; absent: none is asked for.
    pub tls_client_ca: Option<PathBuf>,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Most messages of one connection that wait for their acknowledgement. It is not read from beyond that, or closed where
    /// it was told (MQTT 5) or holds as many at QoS 2.
    pub max_unacknowledged: usize,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            bind: vec!["127.0.0.1:1884".to_owned()],
            users_file: None,
            anonymous: false,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            max_connections: 1000,
            max_unacknowledged: 10_000,
        }
    }
}
