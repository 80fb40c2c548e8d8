//! Reading by a `[[route]]` that says where things are.

use std::sync::Arc;

use super::decoder::Content;
use super::flatten::{Flatten, Scope, VALUE_KEYS, find, quality};
use super::gather::{Found, Gather};
use super::json::Node;
use super::known::{Names, UNNAMED, dotted};
use super::moment::OwnTime;
use super::words::{self, Meaning};
use crate::ingest::route::{Captured, Name, Reads};
use crate::model::Timestamp;

/// A rule at work on one message.
pub(super) struct Ruled<'r, 't> {
    pub reads: &'r Reads,
    pub number: usize,
    pub captured: Captured<'r, 't>,
    /// What the built-in rules say of the topic, for what the rule leaves open.
    pub names: Names<'t>,
}

impl Ruled<'_, '_> {
    /// Takes what the rule asks for.
    pub fn read(&self, gather: &mut Gather<'_>, content: &Content<'_>) {
        match content {
            Content::Nothing => self.fault(gather, "payload", "is empty"),
            Content::Text(text) => self.plain(gather, text),
            Content::Json(root) => self.json(gather, root),
        }
    }

    fn plain(&self, gather: &mut Gather<'_>, text: &str) {
        let looks_inside = self.reads.each.is_some()
            || self.reads.value.is_some()
            || [&self.reads.sensor, &self.reads.metric].iter().any(|name| matches!(name, Some(Name::Member(_))));
        if looks_inside {
            return self.fault(gather, "payload", "is no JSON, but the route reads its members");
        }
        let (sensor, metric) = self.names.of_plain();
        let sensor: Arc<str> = self.level_name(self.reads.sensor.as_ref()).map_or_else(|| sensor.as_ref().into(), Into::into);
        let metric = self.level_name(self.reads.metric.as_ref()).unwrap_or_else(|| match self.reads.sensor {
            Some(_) => self.captured.rest.map(dotted).or(self.captured.last.map(str::to_owned)).unwrap_or_else(|| UNNAMED.to_owned()),
            None => metric,
        });
        value(gather, &sensor, &metric, &Node::Text(text.into()), Found::default());
    }

    fn json(&self, gather: &mut Gather<'_>, root: &Node<'_>) {
        let Some(each) = &self.reads.each else { return self.item(gather, root, root) };
        match root.at(each) {
            Some(Node::List(items)) => items.iter().for_each(|item| self.item(gather, item, root)),
            _ => self.fault(gather, each, "is not an array"),
        }
    }

    fn item(&self, gather: &mut Gather<'_>, item: &Node<'_>, root: &Node<'_>) {
        let Some(sensor) = self.name(gather, self.reads.sensor.as_ref(), item, root) else { return };
        let Some(metric) = self.name(gather, self.reads.metric.as_ref(), item, root) else { return };
        let sensor: Arc<str> = sensor.map_or_else(|| self.names.of_json().0.as_ref().into(), Into::into);
        let scope =
            Scope::told(self.time(gather, item, root), self.reads.quality.as_deref().and_then(|path| item.at(path)).and_then(quality));
        let node = match &self.reads.value {
            Some(path) => item.at(path),
            // A member that names the metric stands beside the value.
            None if matches!(self.reads.metric, Some(Name::Member(_))) => find(item.members(), &VALUE_KEYS),
            None => Some(item),
        };
        let Some(node) = node else { return self.fault(gather, self.reads.value.as_deref().unwrap_or("value"), "is missing") };
        if node.is_scalar() {
            let path = self.reads.value.as_deref().map(str::to_owned);
            let metric = metric.or(path).unwrap_or_else(|| self.names.of_plain().1);
            let time = match gather.own_time(item.members()) {
                OwnTime::At(moment) => Some(moment),
                OwnTime::None => scope.time,
                OwnTime::Implausible => {
                    gather.replace_time();
                    None
                }
            };
            return value(gather, &sensor, &metric, node, Found { time, quality: scope.quality, ..Found::default() });
        }
        let below = self.captured.rest.filter(|_| self.reads.sensor.is_some()).map(dotted).unwrap_or_default();
        let prefix = metric.unwrap_or(below);
        super::decoder::json(&mut Flatten::new(gather, sensor, prefix), node, &scope);
    }

    /// The time where the rule says it is; else, for an item, the whole message's.
    fn time(&self, gather: &mut Gather<'_>, item: &Node<'_>, root: &Node<'_>) -> Option<Timestamp> {
        let Some(path) = &self.reads.time else {
            let of_message = if self.reads.each.is_some() { gather.own_time(root.members()) } else { OwnTime::None };
            return if let OwnTime::At(moment) = of_message { Some(moment) } else { None };
        };
        let node = item.at(path).or_else(|| root.at(path)).filter(|node| **node != Node::Null)?;
        let moment = gather.calendar.moment(node, self.reads.time_format);
        if moment.is_none() {
            gather.replace_time();
        }
        moment
    }

    /// `None`: the member is missing. `Some(None)`: the rule leaves the name open.
    fn name(&self, gather: &mut Gather<'_>, name: Option<&Name>, item: &Node<'_>, root: &Node<'_>) -> Option<Option<String>> {
        let Some(Name::Member(path)) = name else { return Some(self.level_name(name)) };
        match item.at(path).or_else(|| root.at(path)) {
            Some(Node::Text(text)) => Some(Some(text.to_string())),
            Some(Node::Int(number)) => Some(Some(number.to_string())),
            _ => {
                self.fault(gather, path, "is missing, or neither text nor a whole number");
                None
            }
        }
    }

    fn level_name(&self, name: Option<&Name>) -> Option<String> {
        if let Some(Name::Levels(template)) = name { Some(template.fill(&self.captured)) } else { None }
    }

    fn fault(&self, gather: &mut Gather<'_>, what: &str, is: &str) {
        gather.refuse(what, format!("route {}: {what} {is}", self.number));
    }
}

/// Takes a value that a rule points at: any text is one.
fn value(gather: &mut Gather<'_>, sensor: &Arc<str>, metric: &str, node: &Node<'_>, found: Found<'_>) {
    let found = match node {
        Node::Text(text) => {
            let said = Found { text: Some(text), ..found };
            match (gather.state(text), words::of_payload(text)) {
                (Some(number), _) => Found { value: Some(number), ..said },
                (None, Meaning::Number(number)) => Found { value: Some(number), ..found },
                (None, Meaning::Switch(value)) => Found { value: Some(f64::from(u8::from(value))), ..found },
                (None, Meaning::State(number)) => Found { value: number, ..said },
                (None, Meaning::Other(_)) => said,
                (None, Meaning::Empty) => return gather.skip(metric, "it is empty"),
                (None, Meaning::NotFinite) => return gather.skip(metric, "it is not a finite number"),
            }
        }
        Node::Bool(value) => Found { value: Some(f64::from(u8::from(*value))), ..found },
        Node::Int(_) | Node::Float(_) => Found { value: node.number(), ..found },
        _ => return gather.skip(metric, "it is null"),
    };
    gather.take(sensor, metric, found);
}
