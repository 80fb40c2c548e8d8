//! Where cuts go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::seconds;
use crate::config::units::{ByteSize, Period};

/// What goes upstream first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The newest cut.
    NewestFirst,
    /// The oldest cut.
    OldestFirst,
}

/// Where cuts go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// `file:///path`, `s3://bucket/prefix` or `https://host/path`.
    pub url: String,
    /// S3 elsewhere than at AWS: its URL, without the bucket.
    pub endpoint: Option<String>,
    /// S3: the region; without it `AWS_REGION`, else `us-east-1`.
    pub region: Option<String>,
    /// S3: the bucket is named in the path, not in the host; without it so wherever `endpoint` is set.
    pub path_style: Option<bool>,
    /// S3: file with the keys, written as `~/.aws/credentials` is; without it the environment, else the instance's role.
    pub credentials_file: Option<PathBuf>,
    /// Collector: file with the token that every request carries.
    pub token_file: Option<PathBuf>,
    /// Authorities that sign the server's certificate, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `http:` to another machine: everything can be read on the way, the token too.
    pub allow_plain: bool,
    /// What goes first.
    pub order: Order,
    /// Bytes per second; 0: no limit.
    pub rate_limit: ByteSize,
    /// Shortest pause between attempts.
    pub retry_min: Period,
    /// Longest pause between attempts.
    pub retry_max: Period,
    /// While offline: is there a way again?
    pub probe_interval: Period,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: String::new(),
            endpoint: None,
            region: None,
            path_style: None,
            credentials_file: None,
            token_file: None,
            ca_file: None,
            allow_plain: false,
            order: Order::NewestFirst,
            rate_limit: ByteSize(0),
            retry_min: seconds(1),
            retry_max: seconds(120),
            probe_interval: seconds(5),
        }
    }
}
