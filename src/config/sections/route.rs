//! The rules of what a message becomes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
