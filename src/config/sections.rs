//! The sections and their defaults. `config/forebay.toml` explains each key; a test keeps the two equal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{ByteSize, Period};

const fn seconds(count: u64) -> Period {
    Period(Duration::from_secs(count))
}

const fn mebibytes(count: u64) -> ByteSize {
    ByteSize(count << 20)
}

/// Everything that can be set. [`Config::default`] is an empty file's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who and where.
    pub gateway: Gateway,
    /// Subscribe at an existing broker; absent: off, unless `listener` is absent too.
    pub mqtt: Option<Mqtt>,
    /// Sensors publish straight to forebay; absent: off.
    pub listener: Option<Listener>,
    /// What becomes of messages.
    pub ingest: Ingest,
    /// Rules, first match wins.
    pub route: Vec<Route>,
    /// When a batch is committed.
    pub journal: Journal,
    /// When a cut is sealed.
    pub segment: Segment,
    /// What is kept.
    pub retention: Retention,
    /// Where cuts go; absent: keep only.
    pub upstream: Option<Upstream>,
    /// The doors.
    pub api: Api,
    /// SQL.
    pub engine: Engine,
    /// Logs.
    pub log: Log,
}

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
    /// Most messages of one connection that wait for their acknowledgement; it is not read from beyond that.
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

/// What becomes of messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// IANA zone for times that carry none; empty: the system's.
    pub timezone: String,
    /// Most series; a reading of one more is refused.
    pub max_series: usize,
    /// Most new series in an hour.
    pub max_new_series_per_hour: usize,
    /// Longest message.
    pub max_message_bytes: ByteSize,
}

impl Default for Ingest {
    fn default() -> Self {
        Self { timezone: String::new(), max_series: 50_000, max_new_series_per_hour: 10_000, max_message_bytes: mebibytes(1) }
    }
}

/// What to do with a retained message when it arrives at subscribing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetainedPolicy {
    /// Leave it out, unless it carries its own time.
    Skip,
    /// Store it.
    Store,
}

/// What a route's `time` is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// By magnitude or RFC 3339.
    Auto,
    /// Seconds since 1970.
    UnixS,
    /// Milliseconds since 1970.
    UnixMs,
    /// Microseconds since 1970.
    UnixUs,
    /// Nanoseconds since 1970.
    UnixNs,
    /// RFC 3339.
    Rfc3339,
}

/// One rule of what a message becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A topic filter; `{sensor}` and `{metric}` name a level, other names may be used in `sensor` and `metric`.
    pub topic: String,
    /// Leave the message out.
    #[serde(default)]
    pub ignore: bool,
    /// `"record"`: keep it as a record.
    #[serde(rename = "as")]
    pub as_kind: Option<String>,
    /// One reading for each element of this array, for example `values[*]`.
    pub each: Option<String>,
    /// Member (or `{name}` of a level) with the sensor.
    pub sensor: Option<String>,
    /// Member (or `{name}` of a level) with the metric.
    pub metric: Option<String>,
    /// Member with the value.
    pub value: Option<String>,
    /// Member with the time.
    pub time: Option<String>,
    /// How the time is written.
    pub time_format: Option<TimeFormat>,
    /// Member with the quality.
    pub quality: Option<String>,
    /// The unit of all its readings.
    pub unit: Option<String>,
    /// Metrics to keep, with `*`; empty: all.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Metrics to leave out, with `*`.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Words that are numbers.
    #[serde(default)]
    pub states: BTreeMap<String, f64>,
    /// Factors by metric.
    #[serde(default)]
    pub scale: BTreeMap<String, f64>,
    /// Retained messages.
    pub retained: Option<RetainedPolicy>,
    /// `"time"`: the same series, time and value is stored once.
    pub once: Option<String>,
}

/// When a batch is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// At most this long until a reading is on disk and acknowledged.
    pub commit_interval: Period,
    /// Or this many readings.
    pub commit_readings: usize,
}

impl Default for Journal {
    fn default() -> Self {
        Self { commit_interval: seconds(1), commit_readings: 10_000 }
    }
}

/// When a cut is sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Segment {
    /// Age of the oldest hot reading.
    pub seal_interval: Period,
    /// Or this many hot readings.
    pub seal_readings: u64,
}

impl Default for Segment {
    fn default() -> Self {
        Self { seal_interval: seconds(300), seal_readings: 250_000 }
    }
}

/// What to do at the cap when nothing delivered is left to evict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Remove the oldest undelivered readings.
    DropOldest,
    /// Replace the oldest undelivered readings by aggregates.
    Thin,
    /// Take nothing more.
    Refuse,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Everything in the data folder.
    pub cap: ByteSize,
    /// Readings; 0: no limit by count.
    pub cap_readings: u64,
    /// Left free on the file system.
    pub min_free: ByteSize,
    /// Of what is delivered.
    pub max_age: Period,
    /// At the cap.
    pub when_full: WhenFull,
    /// How often to look.
    pub check_interval: Period,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            cap: mebibytes(1024),
            cap_readings: 0,
            min_free: mebibytes(256),
            max_age: seconds(90 * 86_400),
            when_full: WhenFull::DropOldest,
            check_interval: seconds(30),
        }
    }
}

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
}

impl Default for Engine {
    fn default() -> Self {
        Self { enabled: true, memory: ByteSize(0), threads: 0, query_timeout: seconds(30), max_concurrent_queries: 4 }
    }
}

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
