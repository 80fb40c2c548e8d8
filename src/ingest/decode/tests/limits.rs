//! Limits, retained messages, and what is counted.

use super::{decode, decoder, message, shown};
use crate::config::{ByteSize, Ingest};
use crate::ingest::decode::{Decided, Decoder, MAX_READINGS};
use crate::model::TimeSource;

#[test]
fn nulls_and_what_is_not_finite_are_skipped_alone_and_counted() {
    let decoded = decode("", "a/b", r#"{"x":null,"y":NaN,"z":1e400,"w":"nan","ok":1}"#);
    assert_eq!(decoded.readings.iter().map(shown).collect::<Vec<_>>(), ["a/b | ok = 1"]);
    assert_eq!(decoded.skipped_members, 4);
    let decoded = decode("", "a/b", "nan");
    assert_eq!((decoded.skipped_members, decoded.readings.len(), decoded.records.len(), decoded.rejected), (1, 0, 0, None));
}

#[test]
fn a_time_that_cannot_be_right_is_replaced_by_the_arrival_and_counted() {
    for time in ["0", "\"1970-01-01T00:00:00Z\"", "\"2100-01-01T00:00:00Z\"", "\"@0.1s\"", "4102444800000"] {
        let decoded = decode("", "a/b", &format!(r#"{{"time":{time},"x":1}}"#));
        assert_eq!(decoded.times_replaced, 1, "{time}");
        assert_eq!(decoded.readings.len(), 1, "{time}");
        assert_eq!((decoded.readings[0].time, decoded.readings[0].time_source), (decoded.readings[0].arrived, TimeSource::Gateway));
    }
    let decoded = decode("", "a/b", r#"{"time":"2026-11-21T09:59:59Z","x":1}"#);
    assert_eq!((decoded.times_replaced, decoded.readings[0].time_source), (0, TimeSource::Sensor));
    assert_eq!(decode("", "a/b", "1700000000").readings[0].value, Some(1_700_000_000.0));
}

#[test]
fn a_message_beyond_a_limit_is_rejected_with_the_limit() {
    let many = format!("[{}0]", "0,".repeat(MAX_READINGS));
    let long_topic = format!("{}/x", "a".repeat(300));
    let long_key = format!(r#"{{"{}":1}}"#, "k".repeat(257));
    let cases = [
        ("a/b", many.as_str(), "readings"),
        (long_topic.as_str(), "1", "256 bytes"),
        ("a/b", long_key.as_str(), "256 bytes"),
        (&"t/".repeat(600), "1", "topic"),
        ("a/b", "{\"x\":", "malformed JSON"),
        ("a/b", "[1,2", "malformed JSON"),
        ("a/b", "\u{1}\u{2}", "control character"),
    ];
    for (topic, payload, expected) in cases {
        let decoded = decode("", topic, payload);
        assert!(decoded.rejected.as_ref().is_some_and(|reason| reason.contains(expected)), "{topic}: {:?}", decoded.rejected);
        assert!(decoded.readings.is_empty() && decoded.records.is_empty());
    }
    let ingest = Ingest { max_message_bytes: ByteSize(10), ..Ingest::default() };
    let decoded = Decoder::new(&[], &ingest).unwrap().decode(&message("a/b", b"{\"value\": 1}"), TimeSource::Gateway);
    assert!(decoded.rejected.unwrap().contains("max_message_bytes"));
}

#[test]
fn a_flood_of_units_and_long_keys_costs_no_more_than_other_members() {
    let units: Vec<String> = (0..9_000).map(|i| format!(r#""k{i}Unit":"V","k{i}":{i}"#)).collect();
    let decoded = decode("", "a/b", &format!("{{{}}}", units.join(",")));
    assert_eq!((decoded.readings.len(), decoded.rejected), (9_000, None));
    let long = format!(r#"{{"{}":{{{}}},"ok":1}}"#, "k".repeat(500_000), units.join(","));
    let decoded = decode("[[route]]\ntopic = '#'\nkeep = ['*a*b*', 'ok']", "a/b", &long);
    assert_eq!((decoded.readings.len(), decoded.skipped_members), (1, 1));
}

#[test]
fn as_many_readings_as_are_allowed_are_taken() {
    let most = format!("[{}0]", "0,".repeat(MAX_READINGS - 1));
    assert_eq!(decode("", "a/b", &most).readings.len(), MAX_READINGS);
    let objects = vec![r#"{"name":"x","value":1,"time":1700000000}"#; MAX_READINGS].join(",");
    assert_eq!(decode("", "a/b", &format!("[{objects}]")).readings.len(), MAX_READINGS);
}

#[test]
fn a_retained_message_without_its_own_time_is_no_new_measurement() {
    let retained = |topic: &str, payload: &str| {
        let mut message = message(topic, payload.as_bytes());
        message.retained = true;
        decoder(&[]).decode(&message, TimeSource::Gateway)
    };
    let decoded = retained("a/b", r#"{"x":1}"#);
    assert!(decoded.ignored && decoded.readings.is_empty() && decoded.records.is_empty());
    assert!(retained("a/b", "21.5").ignored);
    assert!(retained("a/status", "online").ignored);
    let decoded = retained("a/b", r#"{"x":1,"ts":1700000000}"#);
    assert!(!decoded.ignored && decoded.readings.len() == 1);
    let decoded = retained("homeassistant/sensor/x/config", "{}");
    assert!(!decoded.ignored && decoded.records.len() == 1);
    assert!(retained("a/b", "{\"x\"").rejected.is_some());
}

#[test]
fn what_is_no_time_series_becomes_a_record_of_its_kind() {
    let cases = [
        ("x/set", "5", "command", "built-in command"),
        ("cmnd/x/POWER", "ON", "command", "built-in tasmota"),
        ("homeassistant/sensor/x/config", "{}", "discovery", "built-in discovery"),
        ("$SYS/broker/uptime", "12", "system", "built-in system"),
        ("a/b", "a sentence, not a state", "text", "built-in plain"),
        ("a/b", r#"{"note":"a sentence, not a state"}"#, "unmapped", "built-in json"),
        ("a/b", r#"{"x":null,"y":[{"a":1},{"a":2}]}"#, "unmapped", "built-in json"),
        ("a/b", " \0", "empty", "built-in plain"),
        ("device/serial", "123456", "text", "built-in plain"),
    ];
    for (topic, payload, kind, rule) in cases {
        let decoded = decode("", topic, payload);
        assert_eq!(decoded.readings, [], "{topic} {payload}");
        assert_eq!(decoded.records.len(), 1, "{topic} {payload}");
        assert_eq!((&*decoded.records[0].kind, &*decoded.records[0].source), (kind, topic));
        assert_eq!(decoded.rule.to_string(), rule, "{topic}");
    }
}

#[test]
fn an_explanation_says_what_became_of_each_part() {
    let text = r#"{"temperature":21.5,"temperature_unit":"celsius","firmware":"1.2.3","x":null}"#;
    let explanation = decoder(&[]).explain("zigbee2mqtt/lamp", text.as_bytes(), super::ARRIVED.parse().unwrap());
    assert_eq!(explanation.rule, Decided::BuiltIn("zigbee2mqtt"));
    assert_eq!((explanation.outcome, explanation.skipped_members), ("readings", 1));
    let shown = explanation.to_string();
    for part in [
        "built-in zigbee2mqtt",
        "lamp | temperature = 21.5 celsius at 2026-11-20T10:00:00",
        "left out firmware: ",
        "left out x: it is null",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["readings"][0]["metric"], "temperature");
    assert_eq!(json["rule"], "built-in zigbee2mqtt");
}
