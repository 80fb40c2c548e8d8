//! The decoder: finds what decides about a message, and lets it.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::decoded::{Decided, Decoded};
use super::explain::{Explanation, LeftOut};
use super::flatten::{Flatten, Scope};
use super::gather::{Found, Gather};
use super::json::{self, Node};
use super::known::{self, AVAILABILITY, Envelope, Known, Names, Place, Take};
use super::moment::Calendar;
use super::ruled::Ruled;
use super::words::{self, Meaning};
use super::{named, senml};
use crate::config::{self, TimeFormat};
use crate::ingest::delivery::Message;
use crate::ingest::route::{self, Action, Captured, Problem, RouteError, Rule, Template};
use crate::model::{TimeSource, Timestamp};

/// Longest topic that is taken; it is the source of a record.
const MAX_TOPIC_BYTES: usize = 1024;

/// Turns messages into readings and records.
#[derive(Debug)]
pub struct Decoder {
    rules: Vec<Rule>,
    known: Known,
    zone: TimeZone,
    max_payload_bytes: u64,
}

/// A payload as text or JSON.
pub(super) enum Content<'p> {
    Nothing,
    Text(Cow<'p, str>),
    Json(Node<'p>),
}

impl Decoder {
    /// A decoder for these rules and settings.
    ///
    /// # Errors
    /// [`RouteError`] with everything that is wrong in `routes`, and a zone that is not known.
    pub fn new(routes: &[config::Route], ingest: &config::Ingest) -> Result<Self, RouteError> {
        let mut problems = route::check(routes);
        let zone = match ingest.timezone.as_str() {
            "" => TimeZone::system(),
            name => TimeZone::get(name).unwrap_or_else(|_| {
                let advice = "is no IANA time zone; write one as \"Europe/Berlin\", or remove the key for the system's".to_owned();
                problems.push(Problem { place: "ingest".to_owned(), key: "timezone", value: format!("\"{name}\""), advice });
                TimeZone::UTC
            }),
        };
        if !problems.is_empty() {
            return Err(RouteError { problems });
        }
        Ok(Self { rules: route::compile(routes)?, known: Known::new(), zone, max_payload_bytes: ingest.max_message_bytes.0 })
    }

    /// What `message` becomes. `arrival_source` says whether the gateway's clock was right when it arrived.
    pub fn decode(&self, message: &Message, arrival_source: TimeSource) -> Decoded {
        self.run(message, arrival_source, None).0
    }

    /// What a message would become if it arrived at `arrived`, by which rule, and what would be left out.
    pub fn explain(&self, topic: &str, payload: &[u8], arrived: Timestamp) -> Explanation {
        let payload = bytes::Bytes::copy_from_slice(payload);
        let message = Message { topic: topic.into(), payload, qos: 0, retained: false, arrived };
        let (decoded, left_out) = self.run(&message, TimeSource::Gateway, Some(Vec::new()));
        Explanation::new(topic, decoded, left_out.unwrap_or_default())
    }

    fn run(&self, message: &Message, arrival_source: TimeSource, left_out: Option<Vec<LeftOut>>) -> (Decoded, Option<Vec<LeftOut>>) {
        let rule = self.rules.iter().find_map(|rule| Some((rule, rule.filter.find(&message.topic)?)));
        let place = self.known.place(&message.topic);
        let decided = rule.as_ref().map_or(Decided::BuiltIn(place.family.unwrap_or("general")), |(rule, _)| Decided::Route(rule.number));
        if rule.as_ref().is_some_and(|(rule, _)| matches!(rule.action, Action::Ignore)) {
            return (Decoded { ignored: true, ..Decoded::by(decided) }, left_out);
        }
        let text = match self.text(message) {
            Ok(text) => text,
            Err(reason) => return (Decoded::rejected(decided, place.refusal().map_or(reason, str::to_owned)), left_out),
        };
        let calendar = Calendar { zone: &self.zone, arrived: message.arrived, arrival_source };
        let mut gather = Gather::new(message, calendar, Decoded::by(decided));
        gather.left_out = left_out;
        let outcome = match rule {
            Some((rule, captured)) => by_rule(&mut gather, rule, captured, place, text),
            None => by_place(&mut gather, &place, text),
        };
        if let Err(reason) = outcome {
            gather.out = Decoded::rejected(gather.out.rule, reason);
        }
        gather.finish()
    }

    /// The payload as text, without what C programs and Windows put around it.
    fn text<'m>(&self, message: &'m Message) -> Result<&'m str, String> {
        let topic_bytes = message.topic.len();
        if topic_bytes > MAX_TOPIC_BYTES {
            return Err(format!("the topic has {topic_bytes} bytes, more than {MAX_TOPIC_BYTES}"));
        }
        let bytes = message.payload.len() as u64;
        if bytes > self.max_payload_bytes {
            return Err(format!("the payload has {bytes} bytes, more than ingest.max_message_bytes = {}", self.max_payload_bytes));
        }
        let text =
            std::str::from_utf8(&message.payload).map_err(|error| format!("the payload is not UTF-8 at byte {}", error.valid_up_to()))?;
        let text = text.trim_start_matches('\u{feff}').trim_matches(|c: char| c.is_whitespace() || c == '\0');
        match text.chars().find(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
            Some(control) => Err(format!("the payload is binary: it holds the control character {control:?}")),
            None => Ok(text),
        }
    }
}

impl Place<'_> {
    fn refusal(&self) -> Option<&'static str> {
        if let Take::Refuse(why) = self.take { Some(why) } else { None }
    }
}

fn content(text: &str) -> Result<Content<'_>, String> {
    Ok(match text.as_bytes().first() {
        None => Content::Nothing,
        Some(b'{' | b'[') => Content::Json(json::parse(text)?),
        Some(b'"') => match json::parse(text) {
            Ok(Node::Text(inner)) => Content::Text(inner),
            _ => Content::Text(text.into()),
        },
        Some(_) => Content::Text(text.into()),
    })
}

fn by_rule<'m>(gather: &mut Gather<'m>, rule: &'m Rule, captured: Captured<'m, '_>, place: Place<'_>, text: &str) -> Result<(), String> {
    match &rule.action {
        Action::Ignore => gather.out.ignored = true,
        Action::Record(source) => {
            let source = source.as_ref().map_or_else(|| gather.message.topic.to_string(), |source: &Template| source.fill(&captured));
            gather.record(&source, "record", text);
        }
        Action::Read(reads) => {
            gather.reads = Some(reads);
            gather.family = place.family;
            if !reads.names_things() {
                return by_place(gather, &place, text);
            }
            gather.sensor_given = reads.sensor.is_some();
            Ruled { reads, number: rule.number, captured, names: place.names }.read(gather, &content(text)?);
        }
    }
    Ok(())
}

/// Reads a message by the built-in rules.
fn by_place(gather: &mut Gather<'_>, place: &Place<'_>, text: &str) -> Result<(), String> {
    gather.family = place.family;
    let topic = Arc::clone(&gather.message.topic);
    match place.take {
        Take::Record(kind) => {
            gather.record(&topic, kind, text);
            return Ok(());
        }
        Take::Refuse(why) => return Err(why.to_owned()),
        Take::Readings | Take::ReadingsUnless(_) | Take::Inside(_) => {}
    }
    let content = content(text)?;
    let kind = match (&content, place.take) {
        (Content::Nothing, _) => "empty",
        (Content::Text(said), _) => {
            plain(gather, &place.names, said);
            "text"
        }
        (Content::Json(root), Take::ReadingsUnless(member)) if root.get(member).is_some() => "info",
        (Content::Json(root), Take::Inside(envelope)) => {
            inside(gather, place, envelope, root);
            "event"
        }
        (Content::Json(root), _) => {
            whole(gather, &place.names, root);
            "unmapped"
        }
    };
    name_rule(gather, &content);
    if gather.is_unmapped() {
        gather.record(&topic, kind, text);
    }
    Ok(())
}

/// The general rules are told apart by what they read.
fn name_rule(gather: &mut Gather<'_>, content: &Content<'_>) {
    if gather.out.rule == Decided::BuiltIn("general") {
        gather.out.rule = Decided::BuiltIn(match content {
            Content::Json(Node::List(items)) if senml::is_pack(items) => "senml",
            Content::Json(root) if senml::old_records(root.members()).is_some() => "senml",
            Content::Json(_) => "json",
            Content::Text(_) | Content::Nothing => "plain",
        });
    }
}

/// Takes a plain value.
fn plain(gather: &mut Gather<'_>, names: &Names<'_>, text: &str) {
    let (sensor, metric) = names.of_plain();
    let sensor: Arc<str> = sensor.as_ref().into();
    let level = match names {
        Names::Levels { .. } => metric.as_str(),
        Names::Sensor { below, .. } => below.filter(|below| *below == "$state").unwrap_or_default(),
    };
    if let Some(there) = known::presence(level, text) {
        let said = Some(text).filter(|text| !matches!(words::of_payload(text), Meaning::Switch(_)));
        return gather.take(&sensor, AVAILABILITY, Found { value: Some(f64::from(u8::from(there))), text: said, ..Found::default() });
    }
    let mut walk = Flatten::new(gather, sensor, metric.clone());
    walk.text(&metric, text, words::of_payload(text), Found::default());
}

/// Takes a message of JSON.
fn whole(gather: &mut Gather<'_>, names: &Names<'_>, root: &Node<'_>) {
    if let Some(word) = presence_in(names, root) {
        return plain(gather, names, word);
    }
    let (sensor, prefix) =
        if matches!(root, Node::List(items) if items.iter().all(Node::is_scalar)) { names.of_plain() } else { names.of_json() };
    json(&mut Flatten::new(gather, sensor.as_ref().into(), prefix), root, &Scope::default());
}

/// The word in `{"state": "online"}` on a topic of presence.
fn presence_in<'n>(names: &Names<'_>, root: &'n Node<'_>) -> Option<&'n str> {
    let [(key, Node::Text(word))] = root.members() else { return None };
    let metric = names.of_plain().1;
    (key == "state" && known::presence(&metric, word).is_some()).then_some(word)
}

/// Takes JSON of any shape for one sensor.
pub(super) fn json(walk: &mut Flatten<'_, '_>, root: &Node<'_>, scope: &Scope<'_>) {
    match root {
        Node::Object(members) => match senml::old_records(members) {
            Some(records) => senml::take(walk.gather, &walk.sensor, Some(root), records),
            None if named::names_all(members) && !walk.gather.sensor_given => named::reading(walk, members, scope),
            None => walk.object(members, scope),
        },
        Node::List(items) if senml::is_pack(items) => senml::take(walk.gather, &walk.sensor, None, items),
        Node::List(items) if !items.is_empty() && items.iter().all(|item| matches!(item, Node::Object(_))) => {
            named::messages(walk, items, scope)
        }
        _ => walk.node("", root, scope),
    }
}

/// Takes the object inside an envelope.
fn inside(gather: &mut Gather<'_>, place: &Place<'_>, envelope: &Envelope, root: &Node<'_>) {
    let Some(Node::Object(members)) = root.at(envelope.object) else {
        return gather.leave_out(envelope.object, "the envelope holds no readings");
    };
    let (by_topic, prefix) = place.names.of_json();
    let parts: Vec<Cow<'_, str>> = envelope.sensor.iter().filter_map(|path| part(root.at(path)?)).collect();
    let sensor: Arc<str> = if parts.is_empty() { by_topic.as_ref().into() } else { parts.join("/").into() };
    let time = envelope.time.iter().find_map(|path| gather.calendar.moment(root.at(path)?, TimeFormat::Auto));
    Flatten::new(gather, sensor, prefix).object(members, &Scope::told(time, None));
}

fn part<'n>(node: &'n Node<'_>) -> Option<Cow<'n, str>> {
    match node {
        Node::Text(text) => Some(Cow::Borrowed(text)),
        Node::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}
