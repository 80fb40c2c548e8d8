//! SenML in JSON (RFC 8428), and the older dialect `{"bn": ..., "e": [...]}` that is still about.

use std::sync::Arc;

use super::gather::{Found, Gather};
use super::json::{Member, Node};
use super::known::UNNAMED;
use crate::model::Timestamp;

/// Below this, a time is relative to now (RFC 8428, 4.5.3).
const RELATIVE_BELOW_S: f64 = 268_435_456.0;

/// Fields that hold a value, in both dialects.
const VALUES: [&str; 6] = ["v", "vs", "vb", "vd", "s", "sv"];

/// Fields of the older dialect's outer object.
const OLD_OUTER: [&str; 5] = ["bn", "bt", "bu", "ver", "e"];

/// Whether a list is a pack: it begins with a name, and each item is a record.
pub(super) fn is_pack(items: &[Node<'_>]) -> bool {
    let begins = items.first().is_some_and(|first| first.get("bn").is_some() || (first.get("n").is_some() && first.get("name").is_none()));
    let is_record = |item: &Node<'_>| has_any(item, &VALUES) || item.members().iter().any(|(key, _)| key.starts_with('b'));
    begins && items.iter().all(is_record) && items.iter().any(|item| has_any(item, &VALUES))
}

/// The records of the older dialect, where `members` are that.
pub(super) fn old_records<'n, 'a>(members: &'n [Member<'a>]) -> Option<&'n [Node<'a>]> {
    let (_, entries) = members.iter().find(|(key, _)| key == "e")?;
    let Node::List(entries) = entries else { return None };
    let is_old = members.iter().all(|(key, _)| OLD_OUTER.contains(&key.as_ref()));
    (is_old && entries.iter().all(|entry| !entry.members().is_empty())).then_some(entries)
}

fn has_any(item: &Node<'_>, keys: &[&str]) -> bool {
    keys.iter().any(|key| item.get(key).is_some())
}

/// What base fields say for the records that follow.
#[derive(Default)]
struct Base<'n> {
    name: &'n str,
    time: f64,
    unit: Option<&'n str>,
    value: f64,
    sum: f64,
}

impl<'n> Base<'n> {
    fn learn(&mut self, record: &'n Node<'_>) {
        let number = |key| record.get(key).and_then(Node::number);
        self.name = record.get("bn").and_then(Node::text).unwrap_or(self.name);
        self.unit = record.get("bu").and_then(Node::text).or(self.unit);
        self.time = number("bt").unwrap_or(self.time);
        self.value = number("bv").unwrap_or(self.value);
        self.sum = number("bs").unwrap_or(self.sum);
    }
}

/// Takes the records of a pack; `outer` is the older dialect's object. The base name is the sensor, unless a rule named it.
pub(super) fn take(gather: &mut Gather<'_>, sensor: &Arc<str>, outer: Option<&Node<'_>>, records: &[Node<'_>]) {
    let mut base = Base::default();
    if let Some(outer) = outer {
        base.learn(outer);
    }
    for record in records {
        base.learn(record);
        if has_any(record, &VALUES) || record.get("bv").is_some_and(|node| matches!(node, Node::Bool(_))) {
            entry(gather, sensor, &base, record);
        }
    }
}

fn entry(gather: &mut Gather<'_>, sensor: &Arc<str>, base: &Base<'_>, record: &Node<'_>) {
    let unit = record.get("u").and_then(Node::text).or(base.unit);
    let name = record.get("n").and_then(Node::text).filter(|name| !name.is_empty());
    let metric = name.or(unit).unwrap_or(UNNAMED);
    let device = base.name.trim_end_matches([':', '/']);
    let sensor = if gather.sensor_given || device.is_empty() { Arc::clone(sensor) } else { device.into() };
    let found = Found { unit, ..timed(gather, base.time + record.get("t").and_then(Node::number).unwrap_or(0.0)) };
    match value(record, base) {
        Value::Number(number) => gather.take(&sensor, metric, Found { value: Some(number), ..found }),
        Value::Text(text) => gather.take(&sensor, metric, Found { text: Some(text), ..found }),
        Value::Data => gather.leave_out(metric, "it is binary data"),
        Value::Nothing if record.get("s").is_none() => gather.skip(metric, "it is null"),
        Value::Nothing => {}
    }
    if let Some(sum) = record.get("s").and_then(Node::number) {
        gather.take(&sensor, &format!("{metric}.sum"), Found { value: Some(base.sum + sum), ..found });
    }
}

enum Value<'n> {
    Number(f64),
    Text(&'n str),
    Data,
    Nothing,
}

fn value<'n>(record: &'n Node<'_>, base: &Base<'_>) -> Value<'n> {
    let truth = ["vb", "bv"].iter().find_map(|key| if let Some(Node::Bool(value)) = record.get(key) { Some(*value) } else { None });
    match (record.get("v").and_then(Node::number), truth) {
        (Some(number), _) => Value::Number(base.value + number),
        (None, Some(value)) => Value::Number(f64::from(u8::from(value))),
        (None, None) => match record.get("vs").or(record.get("sv")).and_then(Node::text) {
            Some(text) => Value::Text(text),
            None if record.get("vd").is_some() => Value::Data,
            None => Value::Nothing,
        },
    }
}

/// A record's time: since 1970, or relative to now.
fn timed<'n>(gather: &mut Gather<'_>, seconds: f64) -> Found<'n> {
    let micros = (seconds * 1e6).round();
    if !micros.is_finite() || micros.abs() > 1e18 {
        gather.replace_time();
        return Found::default();
    }
    let micros = micros as i64;
    if seconds < RELATIVE_BELOW_S {
        if !gather.calendar.is_plausible(gather.message.arrived.plus_micros(micros)) {
            gather.replace_time();
            return Found::default();
        }
        return Found { after_arrival_micros: micros, ..Found::default() };
    }
    let moment = Some(Timestamp(micros)).filter(|moment| gather.calendar.is_plausible(*moment));
    if moment.is_none() {
        gather.replace_time();
    }
    Found { time: moment, ..Found::default() }
}
