//! What each key of a `[[route]]` does.

use super::{decode, decoder, message, routes, shown};
use crate::ingest::decode::Decided;
use crate::model::TimeSource;

struct Case {
    name: &'static str,
    route: &'static str,
    topic: &'static str,
    payload: &'static str,
    expected: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "levels name sensor and metric of a plain value",
        route: "topic = 'farm/{site}/{sensor}/{metric}'",
        topic: "farm/north/s1/temp",
        payload: "21.5",
        expected: &["s1 | temp = 21.5"],
    },
    Case {
        name: "a metric of the topic stands before members",
        route: "topic = 'farm/{site}/{sensor}/{metric}'",
        topic: "farm/north/s1/temp",
        payload: r#"{"min":1,"max":2}"#,
        expected: &["s1 | temp.min = 1", "s1 | temp.max = 2"],
    },
    Case {
        name: "a member called value is the metric itself",
        route: "topic = 'farm/{site}/{sensor}/{metric}'",
        topic: "farm/north/s1/temp",
        payload: r#"{"value":21.5,"unit":"°C","ts":1700000000}"#,
        expected: &["s1 | temp = 21.5 °C"],
    },
    Case {
        name: "names are made of several levels",
        route: "topic = '{site}/{line}/+'\nsensor = '{site}-{line}'",
        topic: "north/3/speed",
        payload: "7",
        expected: &["north-3 | speed = 7"],
    },
    Case {
        name: "levels under # are the metric when the sensor is named",
        route: "topic = 'box/{sensor}/#'",
        topic: "box/s1/emeter/0",
        payload: r#"{"power":4,"v":{"rms":230}}"#,
        expected: &["s1 | emeter.0.power = 4", "s1 | emeter.0.v.rms = 230"],
    },
    Case {
        name: "a sensor without further levels gives a value",
        route: "topic = 'box/{sensor}'",
        topic: "box/s1",
        payload: "4",
        expected: &["s1 | value = 4"],
    },
    Case {
        name: "members name sensor and metric of each element",
        route: "topic = 'plant/+/plc'\neach = 'values[*]'\nsensor = 'id'\nmetric = 'm.name'\nvalue = 'v'\ntime = 't'\nquality = 'q'",
        topic: "plant/3/plc",
        payload: r#"{"values":[{"id":"a","m":{"name":"x"},"v":"1.5","t":1700000000000,"q":192},{"id":7,"m":{"name":"y"},"v":true}]}"#,
        expected: &["a | x = 1.5", "7 | y = 1"],
    },
    Case {
        name: "each element is flattened when no value is named",
        route: "topic = 'plant'\neach = 'd[*]'\nsensor = 'id'",
        topic: "plant",
        payload: r#"{"ts":1700000000,"d":[{"id":"a","x":1,"y":{"z":2}},{"id":"b","x":3}]}"#,
        expected: &["a | x = 1", "a | y.z = 2", "b | x = 3"],
    },
    Case {
        name: "the payload itself is the array",
        route: "topic = 'plant'\neach = '[*]'\nsensor = 'id'\nvalue = 'x'",
        topic: "plant",
        payload: r#"[{"id":"a","x":1},{"id":"b","x":2}]"#,
        expected: &["a | x = 1", "b | x = 2"],
    },
    Case {
        name: "elements that lack what the route asks for are left out alone",
        route: "topic = 'plant'\neach = 'd[*]'\nsensor = 'id'\nvalue = 'x'",
        topic: "plant",
        payload: r#"{"d":[{"id":"a"},{"x":2},{"id":"c","x":3},5]}"#,
        expected: &["c | x = 3"],
    },
    Case {
        name: "a sensor member outside the elements is found in the message",
        route: "topic = 'plant'\neach = 'd[*]'\nsensor = 'gw'\nmetric = 'n'\nvalue = 'v'",
        topic: "plant",
        payload: r#"{"gw":"g1","d":[{"n":"a","v":1}]}"#,
        expected: &["g1 | a = 1"],
    },
    Case {
        name: "a metric member without a value key stands beside the value",
        route: "topic = 'plant'\nmetric = 'what'",
        topic: "plant",
        payload: r#"{"what":"level","value":3}"#,
        expected: &["plant | level = 3"],
    },
    Case {
        name: "a value that is an object is flattened",
        route: "topic = 'plant'\nvalue = 'data'",
        topic: "plant",
        payload: r#"{"noise":1,"data":{"a":1,"b":"ON"}}"#,
        expected: &["plant | a = 1", "plant | b = 1 \"ON\""],
    },
    Case {
        name: "a value that a route points at may be any text",
        route: "topic = 'door/{sensor}'\nvalue = 'tag'",
        topic: "door/1",
        payload: r#"{"tag":"04 A1 B2"}"#,
        expected: &["1 | tag = \"04 A1 B2\""],
    },
    Case {
        name: "keep and drop choose metrics after the built-in naming",
        route: "topic = 'zigbee2mqtt/#'\nkeep = ['temp*', '*quality']\ndrop = ['linkquality']",
        topic: "zigbee2mqtt/lamp",
        payload: r#"{"temperature":1,"humidity":2,"linkquality":3}"#,
        expected: &["lamp | temperature = 1 °C"],
    },
    Case {
        name: "a kept metric is taken even if it looks like a label",
        route: "topic = 'x'\nkeep = ['firmware', 'name', 'host']",
        topic: "x",
        payload: r#"{"firmware":12,"name":"kitchen two","host":"ON","y":1}"#,
        expected: &["x | firmware = 12", "x | name = \"kitchen two\"", "x | host = 1 \"ON\""],
    },
    Case {
        name: "a route that only adjusts leaves commands commands",
        route: "topic = 'zigbee2mqtt/#'\ndrop = ['linkquality']",
        topic: "zigbee2mqtt/lamp/set",
        payload: r#"{"state":"ON"}"#,
        expected: &[],
    },
    Case {
        name: "states are numbers, in members and in plain values",
        route: "topic = 'door/#'\nstates = { OPEN = 1, CLOSED = 0, 'half open' = 0.5 }",
        topic: "door/1",
        payload: r#"{"a":"OPEN","b":"CLOSED","c":"half open","d":"ajar"}"#,
        expected: &["door/1 | a = 1 \"OPEN\"", "door/1 | b = 0 \"CLOSED\"", "door/1 | c = 0.5 \"half open\"", "door/1 | d = \"ajar\""],
    },
    Case {
        name: "scale multiplies by metric, and unit is for all",
        route: "topic = 'x'\nscale = { voltage = 0.001 }\nunit = 'V'",
        topic: "x",
        payload: r#"{"voltage":3000,"other":2}"#,
        expected: &["x | voltage = 3 V", "x | other = 2 V"],
    },
    Case {
        name: "the route's sensor stands above SenML's",
        route: "topic = 'senml/{sensor}'",
        topic: "senml/node",
        payload: r#"[{"bn":"urn:x:","n":"t","v":1}]"#,
        expected: &["node | t = 1"],
    },
    Case {
        name: "the time member is no reading",
        route: "topic = 'x'\ntime = 'when'\ntime_format = 'unix_s'",
        topic: "x",
        payload: r#"{"when":1700000000,"a":1}"#,
        expected: &["x | a = 1"],
    },
];

#[test]
fn each_key_does_what_it_says() {
    for Case { name, route, topic, payload, expected } in CASES {
        let decoded = decode(&format!("[[route]]\n{route}"), topic, payload);
        assert_eq!(decoded.readings.iter().map(shown).collect::<Vec<_>>(), *expected, "{name}: {decoded:?}");
        assert_eq!(decoded.rule, Decided::Route(1), "{name}");
    }
}

#[test]
fn the_first_route_that_matches_decides() {
    let toml = "[[route]]\ntopic = 'a/+'\nignore = true\n[[route]]\ntopic = 'a/#'\nunit = 'm'\n[[route]]\ntopic = '#'\nas = 'record'";
    assert!(decode(toml, "a/b", "1").ignored);
    assert_eq!(decode(toml, "a/b/c", "1").readings[0].unit.as_deref(), Some("m"));
    let record = decode(toml, "z", "1");
    assert_eq!((&*record.records[0].kind, &*record.records[0].source, record.records[0].body.as_str()), ("record", "z", "1"));
    assert_eq!(record.rule, Decided::Route(3));
}

#[test]
fn a_record_may_be_named_by_a_level() {
    let decoded = decode("[[route]]\ntopic = 'birth/{sensor}'\nas = 'record'", "birth/s1", r#"{"fw":"1.2"}"#);
    assert_eq!(&*decoded.records[0].source, "s1");
    let decoded = decode("[[route]]\ntopic = 'birth/{site}/+'\nas = 'record'\nsensor = 'site {site}'", "birth/n/s1", "x");
    assert_eq!(&*decoded.records[0].source, "site n");
}

#[test]
fn a_route_says_where_the_time_is_and_how_it_is_written() {
    let time = |format: &str, payload: &str| {
        let decoded = decode(&format!("[[route]]\ntopic = 'x'\nvalue = 'a'\ntime = 'at'\n{format}"), "x", payload);
        (decoded.readings[0].time.to_string(), decoded.readings[0].time_source, decoded.times_replaced)
    };
    let expected = ("2023-11-14T22:13:20.000000Z".to_owned(), TimeSource::Sensor, 0);
    assert_eq!(time("", r#"{"at":1700000000,"a":1}"#), expected);
    assert_eq!(time("time_format = 'unix_ms'", r#"{"at":1700000000000,"a":1}"#), expected);
    assert_eq!(time("time_format = 'unix_ns'", r#"{"at":"1700000000000000000","a":1}"#), expected);
    assert_eq!(time("time_format = 'rfc3339'", r#"{"at":"2023-11-14T23:13:20+01:00","a":1}"#), expected);
    assert_eq!(time("time_format = 'unix_ms'", r#"{"at":1700000000,"a":1}"#).2, 1);
    assert_eq!(time("time_format = 'rfc3339'", r#"{"at":1700000000,"a":1}"#).2, 1);
    // Without the member the arrival counts, and nothing is replaced.
    assert_eq!(time("", r#"{"a":1,"ts":1700000000}"#).1, TimeSource::Gateway);
}

#[test]
fn an_element_without_time_has_the_message_s() {
    let toml = "[[route]]\ntopic = 'x'\neach = 'd[*]'\nmetric = 'n'\nvalue = 'v'";
    let decoded = decode(toml, "x", r#"{"ts":1700000000,"d":[{"n":"a","v":1},{"n":"b","v":2,"ts":1700000060}]}"#);
    let times: Vec<String> = decoded.readings.iter().map(|reading| reading.time.to_string()).collect();
    assert_eq!(times, ["2023-11-14T22:13:20.000000Z", "2023-11-14T22:14:20.000000Z"]);
}

#[test]
fn a_message_without_what_the_route_asks_for_is_rejected_by_name() {
    let toml = "[[route]]\ntopic = '+'\neach = 'd[*]'\nsensor = 'id'\nvalue = 'v'";
    for (payload, expected) in [
        (r#"{"e":[]}"#, "route 1: d is not an array"),
        (r#"{"d":[{"v":1}]}"#, "route 1: id is missing"),
        (r#"{"d":[{"id":"a"}]}"#, "route 1: v is missing"),
        ("21.5", "route 1: payload is no JSON"),
        ("", "route 1: payload is empty"),
    ] {
        let decoded = decode(toml, "x", payload);
        assert!(decoded.rejected.as_ref().is_some_and(|reason| reason.starts_with(expected)), "{payload}: {:?}", decoded.rejected);
    }
    // A value that is null is no fault.
    let decoded = decode(toml, "x", r#"{"d":[{"id":"a","v":null}]}"#);
    assert_eq!((decoded.rejected, decoded.skipped_members), (None, 1));
}

#[test]
fn a_route_may_store_retained_messages_and_ask_for_once() {
    let decoder = decoder(&routes("[[route]]\ntopic = 'x'\nretained = 'store'\nonce = 'time'\n[[route]]\ntopic = '#'\nretained = 'skip'"));
    let retained = |topic| {
        let mut message = message(topic, b"1");
        message.retained = true;
        decoder.decode(&message, TimeSource::Gateway)
    };
    assert_eq!(retained("x").readings.len(), 1);
    assert!(retained("x").once && !retained("y").once);
    assert!(retained("y").ignored);
}
