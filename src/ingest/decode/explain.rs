//! What a message becomes and by which rule, for people.

use std::fmt;

use serde::Serialize;

use super::decoded::{Decided, Decoded};
use crate::model::{Reading, Record};

/// A part of a message that becomes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its path.
    pub member: String,
    /// Why.
    pub why: &'static str,
}

/// What a message becomes, and by which rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Its topic.
    pub topic: String,
    /// What decided.
    pub rule: Decided,
    /// `readings`, `record`, `rejected`, `ignored` or `nothing`.
    pub outcome: &'static str,
    /// Why it is rejected.
    pub rejected: Option<String>,
    /// Its readings.
    pub readings: Vec<Reading>,
    /// Its records.
    pub records: Vec<Record>,
    /// What becomes nothing, and why.
    pub left_out: Vec<LeftOut>,
    /// Members without a value, or beyond a limit.
    pub skipped_members: u64,
    /// Times that can't be right.
    pub times_replaced: u64,
    /// The same series, time and value is stored once.
    pub once: bool,
}

impl Explanation {
    pub(super) fn new(topic: &str, decoded: Decoded, left_out: Vec<LeftOut>) -> Self {
        let outcome = match &decoded {
            _ if decoded.rejected.is_some() => "rejected",
            _ if decoded.ignored => "ignored",
            _ if !decoded.readings.is_empty() => "readings",
            _ if !decoded.records.is_empty() => "record",
            _ => "nothing",
        };
        Self {
            topic: topic.to_owned(),
            rule: decoded.rule,
            outcome,
            rejected: decoded.rejected,
            readings: decoded.readings,
            records: decoded.records,
            left_out,
            skipped_members: decoded.skipped_members,
            times_replaced: decoded.times_replaced,
            once: decoded.once,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "topic    {}", self.topic)?;
        writeln!(f, "rule     {}", self.rule)?;
        match &self.rejected {
            Some(reason) => writeln!(f, "outcome  rejected: {reason}")?,
            None => writeln!(f, "outcome  {}", self.outcome)?,
        }
        for reading in &self.readings {
            show_reading(f, reading)?;
        }
        for record in &self.records {
            writeln!(f, "record   {} of {}: {}", record.kind, record.source, record.body)?;
        }
        for LeftOut { member, why } in &self.left_out {
            writeln!(f, "left out {}: {why}", if member.is_empty() { "the payload" } else { member })?;
        }
        if self.times_replaced > 0 {
            writeln!(f, "time     {} can't be right and is replaced by the arrival", self.times_replaced)?;
        }
        if self.once {
            writeln!(f, "once     the same series, time and value is stored once")?;
        }
        Ok(())
    }
}

fn show_reading(f: &mut fmt::Formatter<'_>, reading: &Reading) -> fmt::Result {
    write!(f, "reading  {} | {} =", reading.sensor, reading.metric)?;
    if let Some(value) = reading.value {
        write!(f, " {value}")?;
    }
    if let Some(text) = &reading.text {
        write!(f, " \"{text}\"")?;
    }
    if let Some(unit) = &reading.unit {
        write!(f, " {unit}")?;
    }
    if let Some(quality) = reading.quality {
        write!(f, " (quality {quality})")?;
    }
    writeln!(f, " at {} ({})", reading.time, reading.time_source.as_str())
}
