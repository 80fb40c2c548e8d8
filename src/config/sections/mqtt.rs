//! Subscribing at an existing broker.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Subscribe at an existing broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// `mqtt://host:1883` or `mqtts://host:8883`.
    pub url: String,
    /// Topic filters.
    pub topics: Vec<String>,
    /// 0 or 1.
    pub qos: u8,
    /// Fixed, with a persistent session; empty: `forebay-` and the gateway's id.
    pub client_id: String,
    /// The broker's window of unacknowledged messages: a commit does not wait when it is full.
    pub inflight: u16,
    /// Account.
    pub username: Option<String>,
    /// File with its password.
    pub password_file: Option<PathBuf>,
    /// Authority that signed the broker's certificate; absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            url: "mqtt://127.0.0.1:1883".to_owned(),
            topics: vec!["#".to_owned()],
            qos: 1,
            client_id: String::new(),
            inflight: 20,
            username: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}
