//! Publishers whose topics say more than the general rules know, as one table: the first row that fits decides.

use std::borrow::Cow;

use crate::ingest::route::{Captured, Filter};

/// What to make of a topic's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// Readings. `**` is the sensor (and of a plain value the last level the metric); with `{sensor}` it is the metric.
    Readings,
    /// Readings, except where the message holds this member.
    ReadingsUnless(&'static str),
    /// Readings of the object inside an envelope.
    Inside(&'static Envelope),
    /// A record of this kind.
    Record(&'static str),
    /// Nothing that can be decoded here, and why.
    Refuse(&'static str),
}

/// Where an envelope keeps things, as dotted paths.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    /// The object with the readings; empty: the envelope itself.
    pub object: &'static str,
    /// The members that make the sensor, joined by `/`; none: by the topic.
    pub sensor: &'static [&'static str],
    /// The time; the first that is there.
    pub time: &'static [&'static str],
}

const CHIRPSTACK: Envelope = Envelope { object: "object", sensor: &[], time: &["time"] };
const CHIRPSTACK_FLAT: Envelope = Envelope { object: "", sensor: &[], time: &["time"] };
const THINGS_STACK: Envelope = Envelope {
    object: "uplink_message.decoded_payload",
    sensor: &["end_device_ids.device_id"],
    time: &["uplink_message.rx_metadata.0.time", "uplink_message.settings.time", "uplink_message.received_at", "received_at"],
};
const SHELLY_RPC: Envelope = Envelope { object: "params", sensor: &["src"], time: &[] };
const RTL_433: Envelope = Envelope { object: "", sensor: &["model", "channel", "id"], time: &[] };

/// Family, topic, take. The pattern language is [`Filter::built_in`]'s.
const TABLE: [(&str, &str, Take); 52] = [
    // What is no measurement, whoever says it.
    ("system", "$*", Take::Record("system")),
    ("system", "$*/**", Take::Record("system")),
    ("command", "**/set|get|command|cmd|cmnd", Take::Record("command")),
    ("discovery", "homeassistant/**/config", Take::Record("discovery")),
    ("discovery", "tasmota/discovery/**", Take::Record("discovery")),
    // Zigbee2MQTT
    ("zigbee2mqtt", "zigbee2mqtt/bridge/**", Take::Record("bridge")),
    ("zigbee2mqtt", "zigbee2mqtt/**/set|get/+", Take::Record("command")),
    ("zigbee2mqtt", "zigbee2mqtt/**", Take::Readings),
    // Tasmota
    ("tasmota", "cmnd/**", Take::Record("command")),
    ("tasmota", "tele|stat/**/INFO1|INFO2|INFO3|DEEPSLEEP|LOGGING|MARGINS", Take::Record("info")),
    ("tasmota", "stat/**/STATUS|STATUS1|STATUS2|STATUS3|STATUS4|STATUS5|STATUS6|STATUS7|STATUS9", Take::Record("info")),
    ("tasmota", "tele|stat/**/RESULT", Take::ReadingsUnless("Ping")),
    ("tasmota", "tele|stat/**/SENSOR|STATE|STATUS8|STATUS10|STATUS11|LWT", Take::Readings),
    ("tasmota", "tele/**", Take::Readings),
    ("tasmota", "stat/**", Take::Readings),
    // Shelly, first generation and later ones
    ("shelly", "shellies/announce", Take::Record("info")),
    ("shelly", "shellies/+/announce|info", Take::Record("info")),
    ("shelly", "shellies/{sensor}/**", Take::Readings),
    ("shelly", "**/events/rpc", Take::Inside(&SHELLY_RPC)),
    // Home Assistant's state stream
    ("homeassistant", "homeassistant/**", Take::Readings),
    // rtl_433
    ("rtl_433", "rtl_433/+/devices/**", Take::Readings),
    ("rtl_433", "rtl_433/+/events", Take::Inside(&RTL_433)),
    // OpenMQTTGateway, Theengs
    ("openmqttgateway", "home/+/commands/**", Take::Record("command")),
    ("openmqttgateway", "home/+/BTtoMQTT|LORAtoMQTT/{sensor}", Take::Readings),
    // Ruuvi gateway
    ("ruuvi", "ruuvi/+/gw_status", Take::Record("availability")),
    ("ruuvi", "ruuvi/+/{sensor}", Take::Readings),
    // ChirpStack 4
    ("chirpstack", "application/+/device/+/command/**", Take::Record("command")),
    ("chirpstack", "application/+/device/{sensor}/event/up|integration", Take::Inside(&CHIRPSTACK)),
    ("chirpstack", "application/+/device/{sensor}/event/status|location", Take::Inside(&CHIRPSTACK_FLAT)),
    ("chirpstack", "application/+/device/+/event/+", Take::Record("event")),
    // The Things Stack
    ("things-stack", "v3/+/devices/{sensor}/up", Take::Inside(&THINGS_STACK)),
    ("things-stack", "v3/+/devices/+/down/**", Take::Record("command")),
    ("things-stack", "v3/+/devices/+/**", Take::Record("event")),
    // Victron Venus
    ("victron", "W|R/**", Take::Record("command")),
    ("victron", "N/+/settings/**", Take::Record("config")),
    ("victron", "N/+/keepalive|heartbeat|full_publish_completed", Take::Record("info")),
    ("victron", "N/{sensor}/{sensor}/{sensor}/**", Take::Readings),
    // Sparkplug B
    ("sparkplug", "STATE/+", Take::Record("availability")),
    ("sparkplug", "spBv1.0/STATE/+", Take::Record("availability")),
    ("sparkplug", "spBv1.0/**", Take::Refuse("sparkplug b payloads are not decoded")),
    // Homie
    ("homie", "homie/{sensor}/$state", Take::Readings),
    ("homie", "homie/+/$fw|$implementation/**", Take::Record("attribute")),
    ("homie", "**/$*", Take::Record("attribute")),
    ("homie", "homie/{sensor}/**", Take::Readings),
    // thin-edge.io
    ("thin-edge", "te/+/+/+/+/cmd/**", Take::Record("command")),
    // OPC UA PubSub
    ("opcua", "opcua/json/metadata/**", Take::Record("config")),
    // Prefixes that only say who brought the message
    ("owntracks", "owntracks/**", Take::Readings),
    ("telegraf", "telegraf/**", Take::Readings),
    ("esphome", "esphome/discover/**", Take::Record("discovery")),
    ("thingsboard", "v1/devices/me/attributes", Take::Record("attribute")),
    ("thingsboard", "v1/devices/me/rpc/**", Take::Record("command")),
    // A last level that names the message, not the sensor
    ("json", "**/metrics", Take::Readings),
];

/// Units that a family does not send but documents: family, metric, unit.
const UNITS: [(&str, &str, &str); 4] = [
    ("zigbee2mqtt", "temperature", "°C"),
    ("zigbee2mqtt", "humidity", "%"),
    ("zigbee2mqtt", "pressure", "hPa"),
    ("zigbee2mqtt", "battery", "%"),
];

/// The unit that `family` documents for `metric`.
pub(super) fn unit_of(family: &str, metric: &str) -> Option<&'static str> {
    UNITS.iter().find(|(known, named, _)| *known == family && *named == metric).map(|(_, _, unit)| *unit)
}

/// The table, compiled.
#[derive(Debug)]
pub(super) struct Known(Vec<Row>);

#[derive(Debug)]
struct Row {
    family: &'static str,
    filter: Filter,
    take: Take,
}

/// What the table says of a topic.
#[derive(Debug, Clone)]
pub(super) struct Place<'t> {
    /// The family; `None`: the general rules.
    pub family: Option<&'static str>,
    pub take: Take,
    pub names: Names<'t>,
}

impl Known {
    pub fn new() -> Self {
        Self(TABLE.iter().map(|(family, pattern, take)| Row { family, filter: Filter::built_in(pattern), take: *take }).collect())
    }

    /// The first row that fits, or the general rules.
    pub fn place<'t>(&self, topic: &'t str) -> Place<'t> {
        for row in &self.0 {
            if let Some(captured) = row.filter.find(topic) {
                return Place { family: Some(row.family), take: row.take, names: Names::of(topic, &captured) };
            }
        }
        Place { family: None, take: Take::Readings, names: Names::whole(topic) }
    }
}

/// What a topic says about sensor and metric.
#[derive(Debug, Clone)]
pub(super) enum Names<'t> {
    /// One level is the sensor; those below, if any, are the metric.
    Sensor { sensor: Cow<'t, str>, below: Option<&'t str> },
    /// The levels are the sensor, and the last may be the metric.
    Levels { levels: &'t str, last: Option<&'t str> },
}

/// A metric for a value whose topic names none.
pub(super) const UNNAMED: &str = "value";

impl<'t> Names<'t> {
    /// All levels, where no rule knows better.
    pub fn whole(topic: &'t str) -> Self {
        Self::Levels { levels: topic, last: None }
    }

    fn of(topic: &'t str, captured: &Captured<'_, 't>) -> Self {
        match captured.get("sensor") {
            // The level after the sensor is the metric of homie's `$state`.
            Some(sensor) => Self::Sensor { sensor, below: captured.rest.or(captured.last.filter(|last| last.starts_with('$'))) },
            None => Self::Levels { levels: captured.rest.unwrap_or(topic), last: captured.after_rest },
        }
    }

    /// Sensor, and what stands before each metric.
    pub fn of_json(&self) -> (Cow<'t, str>, String) {
        match self {
            Self::Sensor { sensor, below } => (sensor.clone(), below.map(dotted).unwrap_or_default()),
            Self::Levels { levels, .. } => (Cow::Borrowed(levels), String::new()),
        }
    }

    /// Sensor and metric of a plain value.
    pub fn of_plain(&self) -> (Cow<'t, str>, String) {
        match self {
            Self::Sensor { sensor, below } => (sensor.clone(), below.map_or_else(|| UNNAMED.to_owned(), dotted)),
            Self::Levels { levels, last: Some(last) } => (Cow::Borrowed(levels), (*last).to_owned()),
            Self::Levels { levels, last: None } => match levels.rsplit_once('/') {
                Some((sensor, metric)) if !sensor.is_empty() && !metric.is_empty() => (Cow::Borrowed(sensor), metric.to_owned()),
                _ => (Cow::Borrowed(levels), UNNAMED.to_owned()),
            },
        }
    }
}

/// Levels as part of a metric.
pub(super) fn dotted(levels: &str) -> String {
    levels.replace('/', ".")
}

/// Last levels on which a publisher says whether it is there.
const PRESENCE: [&str; 5] = ["status", "availability", "lwt", "online", "$state"];

/// The metric of presence.
pub(super) const AVAILABILITY: &str = "availability";

/// Whether `word` on a topic that ends in `level` says that a publisher is there; `None` where it says something else.
pub(super) fn presence(level: &str, word: &str) -> Option<bool> {
    if !PRESENCE.iter().any(|known| level.eq_ignore_ascii_case(known)) {
        return None;
    }
    let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    let told_by_truth = level.eq_ignore_ascii_case("online");
    match () {
        () if is(&["online", "ready"]) || (told_by_truth && is(&["true"])) => Some(true),
        () if is(&["offline", "lost", "disconnected"]) || (told_by_truth && is(&["false"])) => Some(false),
        () => None,
    }
}
