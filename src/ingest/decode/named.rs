//! Lists of objects: readings that name themselves, and objects that carry their own time.

use std::sync::Arc;

use super::flatten::{Flatten, Scope, VALUE_KEYS, find};
use super::json::{Member, Node};
use super::moment::OwnTime;
use crate::config::TimeFormat;

/// Keys of the name of a reading that names itself.
const NAME_KEYS: [&str; 7] = ["name", "metric", "n", "id", "tagname", "tag", "key"];

/// Of these, the ones that hold `Channel.Device.Tag`.
const DOTTED_KEYS: [&str; 2] = ["id", "tagname"];

/// Keys of lists that hold nothing but readings, so that the key says nothing about them.
const PLAIN_LISTS: [&str; 14] = [
    "values",
    "value",
    "data",
    "readings",
    "measurements",
    "metrics",
    "samples",
    "history",
    "points",
    "items",
    "tags",
    "sensors",
    "r_data",
    "sensordatas",
];

/// Takes a list in which not all items are scalars.
pub(super) fn list(walk: &mut Flatten<'_, '_>, key: &str, items: &[Node<'_>], scope: &Scope<'_>) {
    let is_plain = PLAIN_LISTS.iter().any(|plain| key.eq_ignore_ascii_case(plain));
    let above = walk.path.strip_suffix(key).map(|above| above.strip_suffix('.').unwrap_or(above));
    let prefix = above.filter(|_| is_plain).unwrap_or(&walk.path).to_owned();
    let mut each = Flatten::new(walk.gather, Arc::clone(&walk.sensor), prefix);
    if items.iter().all(|item| names_itself(item.members())) {
        items.iter().for_each(|item| reading(&mut each, item.members(), scope));
    } else if is_plain && items.iter().all(|item| has_own_time(&each, item.members())) {
        items.iter().for_each(|item| each.object(item.members(), scope));
    } else {
        each.gather.leave_out(key, "a list of objects without name and value is not stored; a route with `each` can read it");
    }
}

/// Takes a message that is a list of objects: each names itself, or is a message of its own.
pub(super) fn messages(walk: &mut Flatten<'_, '_>, items: &[Node<'_>], scope: &Scope<'_>) {
    let named = items.iter().all(|item| names_itself(item.members()));
    for item in items {
        if named {
            reading(walk, item.members(), scope);
            continue;
        }
        let alone = walk.gather.sensor_given || items.len() == 1;
        let sensor = match who(item.members()).filter(|_| !alone) {
            Some(who) => format!("{}/{who}", walk.sensor).into(),
            None => Arc::clone(&walk.sensor),
        };
        let prefix = walk.path.clone();
        Flatten::new(walk.gather, sensor, prefix).object(item.members(), scope);
    }
}

/// Whether it is a reading with its name beside its value.
pub(super) fn names_itself(members: &[Member<'_>]) -> bool {
    find(members, &NAME_KEYS).is_some_and(|name| matches!(name, Node::Text(_) | Node::Int(_)))
        && find(members, &VALUE_KEYS).is_some_and(Node::is_scalar)
}

/// Whether it says sensor, metric and value, as the HTTP interface takes them.
pub(super) fn names_all(members: &[Member<'_>]) -> bool {
    let text = |key| find(members, &[key]).is_some_and(|node| node.text().is_some());
    text("sensor") && text("metric") && find(members, &["value"]).is_some_and(Node::is_scalar)
}

/// Takes a reading that names itself.
pub(super) fn reading(walk: &mut Flatten<'_, '_>, members: &[Member<'_>], outer: &Scope<'_>) {
    let Some(value) = find(members, &VALUE_KEYS) else { return };
    let told = match walk.gather.own_time(members) {
        OwnTime::None => {
            find(members, &["t"]).filter(|node| **node != Node::Null).map(|node| walk.gather.calendar.moment(node, TimeFormat::Auto))
        }
        OwnTime::At(moment) => Some(Some(moment)),
        OwnTime::Implausible => Some(None),
    };
    if told == Some(None) {
        walk.gather.replace_time();
    }
    let scope = Scope::beside(members, told.map_or(outer.time, |told| told), outer);
    let (sensor, metric) = names(walk, members);
    let mut path = walk.path.clone();
    if !path.is_empty() && !metric.is_empty() {
        path.push('.');
    }
    path.push_str(&metric);
    let mut leaf = Flatten::new(walk.gather, sensor, path);
    leaf.scalar(&metric, value, &scope);
}

/// Sensor and metric of a reading that names itself. What names a channel and a device in its id is its own sensor.
fn names(walk: &Flatten<'_, '_>, members: &[Member<'_>]) -> (Arc<str>, String) {
    let own = |key| find(members, &[key]).and_then(Node::text).filter(|text| !text.is_empty());
    if let (Some(sensor), Some(metric)) = (own("sensor"), own("metric")) {
        return (sensor.into(), metric.to_owned());
    }
    for key in NAME_KEYS {
        match find(members, &[key]) {
            Some(Node::Text(name)) => {
                let dotted = if DOTTED_KEYS.contains(&key) { name.rsplit_once('.') } else { None };
                return match dotted {
                    Some((sensor, metric)) if !sensor.is_empty() && !walk.gather.sensor_given => (sensor.into(), metric.to_owned()),
                    _ => (Arc::clone(&walk.sensor), name.to_string()),
                };
            }
            Some(Node::Int(name)) => return (Arc::clone(&walk.sensor), name.to_string()),
            _ => {}
        }
    }
    (Arc::clone(&walk.sensor), String::new())
}

/// What an item of a list says about whose it is.
fn who(members: &[Member<'_>]) -> Option<String> {
    const WHO: [&str; 9] = ["sensor", "device", "device_id", "deviceid", "sensor_id", "id", "name", "mac", "serial"];
    match find(members, &WHO)? {
        Node::Text(text) if !text.is_empty() => Some(text.to_string()),
        Node::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

fn has_own_time(walk: &Flatten<'_, '_>, members: &[Member<'_>]) -> bool {
    matches!(walk.gather.own_time(members), OwnTime::At(_))
}
