//! The `[[route]]` rules, compiled once: which messages they take, and what they ask of the decoder.
//!
//! Owns: topic filters, names made of levels, patterns for metrics, and the check that a rule makes sense.
//! Does not own: payloads; what a rule makes of one is the decoder's affair.
//! Invariants: a compiled rule holds no contradiction; the first rule whose filter matches decides.
//! On failure: every problem of every rule is reported, each with route, key, value and what to do.

mod compile;
mod filter;
mod glob;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub(crate) use compile::MAX_UNIT_BYTES;
pub use compile::{check, compile};
pub use filter::{Captured, Filter};
pub use glob::Glob;
pub use template::Template;

use crate::config::{RetainedPolicy, TimeFormat};
use crate::error::ErrorKind;

/// One rule, ready for use.
#[derive(Debug, Clone)]
pub struct Rule {
    /// 1, 2, 3 ... as in the configuration.
    pub number: usize,
    /// Which topics it takes.
    pub filter: Filter,
    /// What it makes of them.
    pub action: Action,
}

/// What a rule makes of a message.
#[derive(Debug, Clone)]
pub enum Action {
    /// Nothing.
    Ignore,
    /// A record; of the source named here, or of the topic.
    Record(Option<Template>),
    /// Readings.
    Read(Box<Reads>),
}

/// How a rule reads a message. What it leaves open is done as without it.
#[derive(Debug, Clone)]
pub struct Reads {
    /// The array of which each element is read, as a dotted path; empty: the whole payload is the array.
    pub each: Option<Box<str>>,
    /// Who measured.
    pub sensor: Option<Name>,
    /// What was measured.
    pub metric: Option<Name>,
    /// Dotted path of the value.
    pub value: Option<Box<str>>,
    /// Dotted path of the time.
    pub time: Option<Box<str>>,
    /// How the time is written.
    pub time_format: TimeFormat,
    /// Dotted path of the quality.
    pub quality: Option<Box<str>>,
    /// The unit of all its readings.
    pub unit: Option<Arc<str>>,
    /// Metrics to keep; empty: all.
    pub keep: Vec<Glob>,
    /// Metrics to leave out.
    pub drop: Vec<Glob>,
    /// Words that are numbers.
    pub states: BTreeMap<String, f64>,
    /// Factors by metric; the first that fits counts.
    pub scale: Vec<(Glob, f64)>,
    /// What becomes of retained messages without a time of their own.
    pub retained: RetainedPolicy,
    /// Whether the same series, time and value is stored once.
    pub once: bool,
}

impl Reads {
    /// Whether it says itself where sensor, metric or value are, and so stands above the built-in rules.
    pub fn names_things(&self) -> bool {
        self.each.is_some() || self.sensor.is_some() || self.metric.is_some() || self.value.is_some()
    }
}

/// Where a name comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The member at this dotted path.
    Member(Box<str>),
    /// The levels of the topic.
    Levels(Template),
}

/// Something wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `route 2`, or `ingest`.
    pub place: String,
    /// The key.
    pub key: &'static str,
    /// Its value, as written.
    pub value: String,
    /// What is wrong and what to do.
    pub advice: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} = {}: {}", self.place, self.key, self.value, self.advice)
    }
}

/// What is wrong with a value, before it is known which setting holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault(String);

impl Fault {
    fn new(advice: impl Into<String>) -> Self {
        Self(advice.into())
    }
}

/// The rules can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct RouteError {
    /// All that is wrong, in the order of the configuration.
    pub problems: Vec<Problem>,
}

impl RouteError {
    /// Always [`ErrorKind::Config`].
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Config
    }
}
