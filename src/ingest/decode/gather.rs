//! Gathers the readings of one message: applies a rule's filters, and holds every limit.

use std::sync::Arc;

use super::decoded::Decoded;
use super::explain::LeftOut;
use super::json::Member;
use super::known;
use super::moment::{Calendar, OwnTime};
use crate::config::RetainedPolicy;
use crate::ingest::delivery::Message;
use crate::ingest::route::{Glob, MAX_UNIT_BYTES, Name, Reads};
use crate::model::{Reading, Record, TimeSource, Timestamp};

/// Most readings of one message: a gateway's hour of a few series, and a bound on what one sender can cost.
pub const MAX_READINGS: usize = 10_000;

/// Longest name of a sensor or a metric.
pub(super) const MAX_NAME_BYTES: usize = 256;

/// Longest text of a reading.
pub(super) const MAX_TEXT_BYTES: usize = 1024;

/// As much of a name that is refused as is shown.
const SHOWN_CHARS: usize = 40;

/// Longest list of what was left out, in an explanation.
const MAX_LEFT_OUT: usize = 1_000;

/// A value on its way to become a reading.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found<'a> {
    pub value: Option<f64>,
    pub text: Option<&'a str>,
    pub unit: Option<&'a str>,
    pub quality: Option<i16>,
    /// The time it carries; `None`: the arrival.
    pub time: Option<Timestamp>,
    /// Where it carries none: how long after the arrival it was measured.
    pub after_arrival_micros: i64,
}

/// Gathers the readings of one message.
pub(super) struct Gather<'m> {
    pub message: &'m Message,
    pub calendar: Calendar<'m>,
    /// The rule that reads the message, if one does.
    pub reads: Option<&'m Reads>,
    /// The family that the topic belongs to.
    pub family: Option<&'static str>,
    pub out: Decoded,
    /// What was left out and why, where someone asks.
    pub left_out: Option<Vec<LeftOut>>,
    /// Whether a rule names the sensor.
    pub sensor_given: bool,
    /// Parts of the message that became nothing.
    unmapped: u64,
    /// The first reason that makes a message without readings a rejected one.
    fault: Option<String>,
    /// Values were there, but a rule or the message's being retained kept them out.
    pub withheld: bool,
    overflow: bool,
}

impl<'m> Gather<'m> {
    pub fn new(message: &'m Message, calendar: Calendar<'m>, out: Decoded) -> Self {
        Self {
            message,
            calendar,
            reads: None,
            family: None,
            out,
            left_out: None,
            sensor_given: false,
            unmapped: 0,
            fault: None,
            withheld: false,
            overflow: false,
        }
    }

    /// The time among `members`, unless a rule says where the time is.
    pub fn own_time(&self, members: &[Member<'_>]) -> OwnTime {
        let told = self.reads.is_some_and(|reads| reads.time.is_some());
        if told { OwnTime::None } else { self.calendar.own_time(members) }
    }

    /// Whether a rule uses the member at `path` for something else than a value.
    pub fn is_spoken_for(&self, path: &str) -> bool {
        self.reads.is_some_and(|reads| {
            let names = [&reads.sensor, &reads.metric].map(|name| if let Some(Name::Member(path)) = name { Some(path) } else { None });
            names.into_iter().flatten().chain(&reads.time).chain(&reads.quality).any(|known| **known == *path)
        })
    }

    /// Whether a rule asks for `metric` by name, so that it is taken even where it looks like a label.
    pub fn wanted(&self, metric: &str) -> bool {
        self.reads.is_some_and(|reads| fits_any(&reads.keep, metric))
    }

    /// The number a rule gives to `word`.
    pub fn state(&self, word: &str) -> Option<f64> {
        self.reads?.states.get(word).copied()
    }

    /// Takes a value, unless a rule or a limit keeps it out.
    pub fn take(&mut self, sensor: &Arc<str>, metric: &str, found: Found<'_>) {
        if let Some(reads) = self.reads
            && (fits_any(&reads.drop, metric) || !(reads.keep.is_empty() || fits_any(&reads.keep, metric)))
        {
            self.withheld = true;
            return self.leave_out(metric, "the route's `keep` and `drop` leave it out");
        }
        let stored = self.reads.is_some_and(|reads| reads.retained == RetainedPolicy::Store);
        if self.message.retained && found.time.is_none() && !stored {
            self.withheld = true;
            return self.leave_out(metric, "a retained message without a time of its own is no new measurement");
        }
        if let Some(wrong) = [&**sensor, metric].into_iter().find(|name| !is_name(name)) {
            return self.refuse_name(wrong);
        }
        let value = found.value.map(|value| value * self.factor(metric));
        if value.is_some_and(|value| !value.is_finite()) {
            return self.skip(metric, "it is not a finite number");
        }
        if found.text.is_some_and(|text| text.len() > MAX_TEXT_BYTES) {
            return self.refuse(metric, format!("the text of \"{metric}\" is longer than {MAX_TEXT_BYTES} bytes"));
        }
        if self.out.readings.len() == MAX_READINGS {
            self.overflow = true;
            return;
        }
        let (time, time_source) = match found.time {
            Some(time) => (time, TimeSource::Sensor),
            None => (self.message.arrived.plus_micros(found.after_arrival_micros), self.calendar.arrival_source),
        };
        let unit = self.unit(metric, found.unit.filter(|_| value.is_some()));
        self.out.readings.push(Reading {
            time,
            sensor: Arc::clone(sensor),
            metric: metric.into(),
            value,
            text: found.text.map(Into::into),
            unit,
            quality: found.quality,
            arrived: self.message.arrived,
            time_source,
        });
    }

    fn factor(&self, metric: &str) -> f64 {
        let scale = self.reads.map(|reads| reads.scale.as_slice()).unwrap_or_default();
        scale.iter().find(|(glob, _)| glob.fits(metric)).map_or(1.0, |(_, factor)| *factor)
    }

    fn unit(&self, metric: &str, found: Option<&str>) -> Option<Arc<str>> {
        if let Some(unit) = self.reads.and_then(|reads| reads.unit.clone()) {
            return Some(unit);
        }
        let found = found.filter(|unit| !unit.is_empty() && unit.len() <= MAX_UNIT_BYTES);
        found.or_else(|| known::unit_of(self.family?, metric)).map(Arc::from)
    }

    /// Counts a member that has no value, or one beyond a limit.
    pub fn skip(&mut self, member: &str, why: &'static str) {
        self.out.skipped_members += 1;
        self.note(member, why);
    }

    /// Counts a member that can't be taken; a message of which nothing can be taken is rejected for the first reason.
    pub fn refuse(&mut self, member: &str, reason: String) {
        self.skip(member, "it is beyond a limit, or not where the route says");
        self.fault.get_or_insert(reason);
    }

    /// Refuses a member for its name.
    pub fn refuse_name(&mut self, name: &str) {
        let shown: String = name.chars().take(SHOWN_CHARS).collect();
        self.refuse(&shown, format!("\"{shown}\" can't name a sensor or metric: a name has 1 to {MAX_NAME_BYTES} bytes and no NUL"));
    }

    /// Whether nothing came of the message, and not on purpose.
    pub fn is_unmapped(&self) -> bool {
        let kept_out = self.withheld || self.fault.is_some() || self.overflow;
        self.out.readings.is_empty() && !kept_out && (self.unmapped > 0 || self.out.skipped_members == 0)
    }

    /// Makes the message a record.
    pub fn record(&mut self, source: &str, kind: &'static str, body: &str) {
        self.out.records.push(Record { source: source.into(), kind: kind.into(), body: body.to_owned(), received: self.message.arrived });
    }

    /// Leaves out what is no measurement.
    pub fn leave_out(&mut self, member: &str, why: &'static str) {
        self.unmapped += 1;
        self.note(member, why);
    }

    fn note(&mut self, member: &str, why: &'static str) {
        if let Some(list) = self.left_out.as_mut().filter(|list| list.len() < MAX_LEFT_OUT) {
            list.push(LeftOut { member: member.to_owned(), why });
        }
    }

    /// Counts a time that can't be right.
    pub fn replace_time(&mut self) {
        self.out.times_replaced += 1;
    }

    /// Ends the message.
    pub fn finish(mut self) -> (Decoded, Option<Vec<LeftOut>>) {
        if self.overflow {
            self.out = Decoded::rejected(self.out.rule, format!("more than {MAX_READINGS} readings in one message"));
        }
        if let Some(reason) = self.fault.take_if(|_| self.out.readings.is_empty() && self.out.records.is_empty()) {
            self.out.rejected = Some(reason);
        }
        let nothing = self.out.readings.is_empty() && self.out.records.is_empty() && self.out.rejected.is_none();
        self.out.ignored |= nothing && self.withheld;
        self.out.once = self.reads.is_some_and(|reads| reads.once);
        (self.out, self.left_out)
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains('\0')
}

fn fits_any(globs: &[Glob], metric: &str) -> bool {
    globs.iter().any(|glob| glob.fits(metric))
}
