//! What became of a message.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::model::{Reading, Record};

/// What a message becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Its readings, in the order of the message.
    pub readings: Vec<Reading>,
    /// Its records.
    pub records: Vec<Record>,
    /// Why it can't be decoded; then there are neither readings nor records.
    pub rejected: Option<String>,
    /// Left out on purpose: a rule says `ignore`, or it is a retained message without a time of its own.
    pub ignored: bool,
    /// Members without a value (null, NaN, infinite) or beyond a limit, left out alone.
    pub skipped_members: u64,
    /// Times that can't be right, replaced by the arrival.
    pub times_replaced: u64,
    /// What decided.
    pub rule: Decided,
    /// The same series, time and value is to be stored once.
    pub once: bool,
}

impl Decoded {
    /// Nothing yet.
    pub(super) fn by(rule: Decided) -> Self {
        Self {
            readings: Vec::new(),
            records: Vec::new(),
            rejected: None,
            ignored: false,
            skipped_members: 0,
            times_replaced: 0,
            rule,
            once: false,
        }
    }

    /// A refusal.
    pub(super) fn rejected(rule: Decided, reason: String) -> Self {
        Self { rejected: Some(reason), ..Self::by(rule) }
    }
}

/// What decided about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// The `[[route]]` of this number, counted from 1.
    Route(usize),
    /// The built-in rules of this name: a family of publishers, or `json`, `plain`, `senml`.
    BuiltIn(&'static str),
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(number) => write!(f, "route {number}"),
            Self::BuiltIn(name) => write!(f, "built-in {name}"),
        }
    }
}

impl Serialize for Decided {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
