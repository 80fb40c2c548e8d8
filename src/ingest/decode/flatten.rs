//! JSON without a rule of its own: objects flattened with dots.

use std::sync::Arc;

use super::gather::{Found, Gather, MAX_NAME_BYTES};
use super::json::{Member, Node};
use super::moment::{self, OwnTime};
use super::named;
use super::words::{self, Meaning};
use crate::model::Timestamp;

/// Keys of a value that has members beside it that tell its time, unit or quality.
pub(super) const VALUE_KEYS: [&str; 3] = ["value", "v", "val"];
const UNIT_KEYS: [&str; 5] = ["unit", "units", "unit_of_measurement", "uom", "u"];
const QUALITY_KEYS: [&str; 2] = ["quality", "q"];

/// Members that are no measurements, with all below them: firmware updates (Zigbee2MQTT), past minutes (Shelly), the
/// device's description (ChirpStack).
const NO_MEASUREMENTS: [&str; 3] = ["update", "by_minute", "deviceInfo"];

/// Most members of an object that tell units; more are a flood, and each costs every value a look.
const MAX_UNITS: usize = 16;

/// What an object tells about all values in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope<'s> {
    pub time: Option<Timestamp>,
    pub quality: Option<i16>,
    /// What a key must contain, and its unit then.
    units: Vec<(&'s str, &'s str)>,
    outer: Option<&'s Scope<'s>>,
}

impl<'s> Scope<'s> {
    /// What a rule, an envelope or a list tells about all values in a message.
    pub fn told(time: Option<Timestamp>, quality: Option<i16>) -> Self {
        Self { time, quality, ..Self::default() }
    }

    /// What stands beside a single value.
    pub fn beside(members: &'s [Member<'_>], time: Option<Timestamp>, outer: &'s Self) -> Self {
        let quality = find(members, &QUALITY_KEYS).and_then(quality).or(outer.quality);
        let unit = find(members, &UNIT_KEYS).and_then(Node::text);
        Self { time, quality, units: unit.map(|unit| ("", unit)).into_iter().collect(), outer: Some(outer) }
    }

    fn unit(&self, key: &str) -> Option<&'s str> {
        let own = self.units.iter().find(|(stem, _)| concerns(stem, key)).map(|(_, unit)| *unit);
        own.or_else(|| self.outer?.unit(key))
    }
}

/// Walks one object with its path.
pub(super) struct Flatten<'g, 'm> {
    pub gather: &'g mut Gather<'m>,
    pub sensor: Arc<str>,
    /// The metric so far.
    pub path: String,
    /// How much of it was there before the walk.
    prefix_bytes: usize,
    depth: usize,
}

impl<'g, 'm> Flatten<'g, 'm> {
    pub fn new(gather: &'g mut Gather<'m>, sensor: Arc<str>, prefix: String) -> Self {
        Self { gather, sensor, prefix_bytes: prefix.len(), path: prefix, depth: 0 }
    }

    /// Takes everything in an object; its own time counts before `outer`'s.
    pub fn object(&mut self, members: &[Member<'_>], outer: &Scope<'_>) {
        let own = self.gather.own_time(members);
        let top = self.depth == 0;
        if top && own == OwnTime::Implausible && outer.time.is_none() {
            self.gather.replace_time();
        }
        let valued = find(members, &VALUE_KEYS).is_some_and(Node::is_scalar);
        let own_time = if let OwnTime::At(moment) = own { Some(moment) } else { None };
        let scope = Scope {
            time: own_time.or(outer.time),
            quality: find(members, &QUALITY_KEYS).filter(|_| valued).and_then(quality).or(outer.quality),
            units: units(members, valued),
            outer: Some(outer),
        };
        // `{"voltage": {"value": 3.04, "timestamp": ...}}` is a voltage, and so is a value on a topic that names it.
        let is_envelope = valued && if top { !self.path.is_empty() } else { own_time.is_some() };
        for (key, node) in members {
            if self.tells_of_others(key, node, valued, &scope) {
                self.below(key, |walk| walk.gather.leave_out(&walk.path, "it tells of other members, or is no measurement"));
            } else if is_envelope && has(&VALUE_KEYS, key) {
                self.node(key, node, &scope);
            } else {
                self.below(key, |walk| walk.below_key(key, node, &scope));
            }
        }
    }

    /// Whether a member is the time, unit or quality of others, or a part that holds no measurements.
    fn tells_of_others(&self, key: &str, node: &Node<'_>, valued: bool, scope: &Scope<'_>) -> bool {
        let is_time = moment::rank(key).is_some()
            && match node {
                Node::Int(_) | Node::Float(_) | Node::Text(_) => self.depth == 0 || self.gather.calendar.is_moment(node),
                _ => false,
            };
        let is_unit = node.text().is_some()
            && (key.ends_with("Unit") || (has(&UNIT_KEYS, key) && scope.units.iter().any(|(stem, _)| stem.is_empty())));
        let is_quality = valued && has(&QUALITY_KEYS, key) && quality(node).is_some();
        is_time || is_unit || is_quality || (NO_MEASUREMENTS.contains(&key) && !node.is_scalar())
    }

    fn below_key(&mut self, key: &str, node: &Node<'_>, scope: &Scope<'_>) {
        let own = self.path.get(self.prefix_bytes..).unwrap_or_default().trim_start_matches('.');
        if self.gather.is_spoken_for(own) {
            return self.gather.leave_out(&self.path, "the route takes it for something else");
        }
        self.node(key, node, scope);
    }

    /// Goes on with `key` added to the path.
    fn below(&mut self, key: &str, go: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
        if self.path.len() > MAX_NAME_BYTES {
            self.gather.refuse_name(&self.path);
        } else {
            go(self);
        }
        self.path.truncate(length);
    }

    /// Takes what is under `key`, which is in the path already.
    pub fn node(&mut self, key: &str, node: &Node<'_>, scope: &Scope<'_>) {
        match node {
            Node::Object(members) => {
                self.depth += 1;
                self.object(members, scope);
                self.depth -= 1;
            }
            Node::List(items) if items.iter().all(Node::is_scalar) => {
                for (place, item) in items.iter().enumerate() {
                    self.below(&place.to_string(), |walk| walk.item(key, item, scope));
                }
            }
            Node::List(items) => named::list(self, key, items, scope),
            _ => self.scalar(key, node, scope),
        }
    }

    /// One of a list of scalars. A list of words is a list of labels.
    fn item(&mut self, key: &str, item: &Node<'_>, scope: &Scope<'_>) {
        let is_word = item.text().is_some_and(|text| words::of_member(text) == Meaning::State(None));
        if is_word {
            return self.gather.leave_out(&self.path, "a list of words is a list of labels");
        }
        self.scalar(key, item, scope);
    }

    /// Takes one value, if it is one.
    pub fn scalar(&mut self, key: &str, node: &Node<'_>, scope: &Scope<'_>) {
        let wanted = self.gather.wanted(&self.path);
        let found = Found { unit: scope.unit(key), quality: scope.quality, time: scope.time, ..Found::default() };
        match node {
            Node::Null => self.gather.skip(&self.path, "it is null"),
            Node::Text(text) => self.text(key, text, words::of_member(text), found),
            Node::Bool(value) => self.gather.take(&self.sensor, &self.path, Found { value: Some(f64::from(u8::from(*value))), ..found }),
            _ if words::is_identity(key) && !wanted => self.gather.leave_out(&self.path, "its key names a thing, not a measurement"),
            _ => self.gather.take(&self.sensor, &self.path, Found { value: node.number(), ..found }),
        }
    }

    /// Takes a text, if it is a value; `meaning` is what it means where it stands.
    pub fn text(&mut self, key: &str, text: &str, meaning: Meaning, found: Found<'_>) {
        let wanted = self.gather.wanted(&self.path);
        let taken = |value| Found { value, text: Some(text), ..found };
        if let Some(number) = self.gather.state(text) {
            return self.gather.take(&self.sensor, &self.path, taken(Some(number)));
        }
        let found = match meaning {
            Meaning::Number(_) if words::is_identity(key) && !wanted => {
                return self.gather.leave_out(&self.path, "its key names a thing, not a measurement");
            }
            Meaning::Number(number) => Found { value: Some(number), ..found },
            Meaning::Switch(value) => Found { value: Some(f64::from(u8::from(value))), ..found },
            Meaning::NotFinite => return self.gather.skip(&self.path, "it is not a finite number"),
            Meaning::Empty => return self.gather.leave_out(&self.path, "it is empty"),
            Meaning::State(number) if wanted || !words::is_label(key) => taken(number),
            Meaning::State(_) => return self.gather.leave_out(&self.path, "its key is a label's"),
            Meaning::Other(_) if wanted => taken(None),
            Meaning::Other(why) => return self.gather.leave_out(&self.path, why),
        };
        self.gather.take(&self.sensor, &self.path, found);
    }
}

/// The member with one of `keys`.
pub(super) fn find<'n, 'a>(members: &'n [Member<'a>], keys: &[&str]) -> Option<&'n Node<'a>> {
    keys.iter().find_map(|wanted| members.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted))).map(|(_, node)| node)
}

fn has(keys: &[&str], key: &str) -> bool {
    keys.iter().any(|known| key.eq_ignore_ascii_case(known))
}

/// A quality code: a number, or whether it is good.
pub(super) fn quality(node: &Node<'_>) -> Option<i16> {
    match node {
        Node::Bool(good) => Some(i16::from(*good)),
        Node::Int(code) => i16::try_from(*code).ok(),
        Node::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The units among an object's members: `temperature_unit` and `TempUnit` are for the keys that contain what stands
/// before, `unit` beside a value or beside a single number is for that.
fn units<'n>(members: &'n [Member<'_>], valued: bool) -> Vec<(&'n str, &'n str)> {
    let mut units = Vec::new();
    for (key, node) in members {
        let Some(unit) = node.text().filter(|_| units.len() < MAX_UNITS) else { continue };
        if has(&UNIT_KEYS, key) {
            let numbers = members.iter().filter(|(key, node)| node.number().is_some() && moment::rank(key).is_none()).count();
            if valued || numbers == 1 {
                units.push(("", unit));
            }
        } else if let Some(stem) = stem(key) {
            units.push((stem, degree(stem, unit)));
        }
    }
    units
}

fn stem(key: &str) -> Option<&str> {
    let at = key.len().checked_sub("unit".len()).filter(|at| *at > 0)?;
    let (stem, unit) = key.split_at_checked(at)?;
    unit.eq_ignore_ascii_case("unit").then(|| stem.trim_end_matches('_'))
}

/// Tasmota writes `C` where it means degrees.
fn degree<'n>(stem: &str, unit: &'n str) -> &'n str {
    match unit {
        "C" if contains(stem, "temp") => "°C",
        "F" if contains(stem, "temp") => "°F",
        _ => unit,
    }
}

/// Whether a unit told for `stem` is that of `key`.
fn concerns(stem: &str, key: &str) -> bool {
    let dew_point = contains(stem, "temp") && contains(key, "dewpoint");
    (contains(key, stem) && !contains(key, "color")) || dew_point
}

fn contains(text: &str, part: &str) -> bool {
    part.is_empty() || text.as_bytes().windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}
