use super::check;
use crate::config::{Config, Route};

fn routes(toml: &str) -> Vec<Route> {
    toml::from_str::<Config>(toml).unwrap().route
}

/// Each problem as `place: key`, and the whole text.
fn problems(toml: &str) -> Vec<(String, String)> {
    check(&routes(toml)).iter().map(|problem| (format!("{}: {}", problem.place, problem.key), problem.to_string())).collect()
}

#[test]
fn each_mistake_is_named_with_its_key_and_value() {
    let cases = [
        ("topic = ''", "topic", "\"\""),
        ("topic = 'a/#/b'", "topic", "put it last"),
        ("topic = 'a/b+'", "topic", "whole levels"),
        ("topic = '{x}/{x}'", "topic", "its own name"),
        ("topic = 'a'\nas = 'event'", "as", "\"event\""),
        ("topic = 'a'\nonce = 'value'", "once", "\"time\""),
        ("topic = 'a/{site}'\nsensor = '{sit}'", "sensor", "{site}"),
        ("topic = 'a'\nmetric = '{x'", "metric", "not closed"),
        ("topic = 'a/{sensor}'\nsensor = 'id'", "sensor", "already"),
        ("topic = 'a'\ntime_format = 'unix_ms'", "time_format", "`time`"),
        ("topic = 'a'\neach = 'values'", "each", "values[*]"),
        ("topic = 'a'\nvalue = ''", "value", "path"),
        ("topic = 'a'\nvalue = 'x[*]'", "value", "path"),
        ("topic = 'a'\nunit = ''", "unit", "1 to 64"),
        ("topic = 'a'\nscale = { x = 0 }", "scale", "x = 0"),
        ("topic = 'a'\nstates = { ON = nan }", "states", "ON = NaN"),
        ("topic = 'a'\nkeep = ['t']\ndrop = ['t']", "drop", "`keep`"),
        ("topic = 'a'\ndrop = ['']", "drop", "pattern"),
        ("topic = 'a'\nignore = true\nunit = 'V'", "unit", "`ignore = true`"),
        ("topic = 'a'\nignore = true\nas = 'record'", "as", "`ignore = true`"),
        ("topic = 'a'\nas = 'record'\nvalue = 'v'", "value", "`as = \"record\"`"),
        ("topic = 'a'\nas = 'record'\nsensor = 'id'", "sensor", "levels"),
    ];
    for (route, key, part) in cases {
        let found = problems(&format!("[[route]]\ntopic = '#'\n[[route]]\n{route}"));
        assert_eq!(found.len(), 1, "{route}: {found:?}");
        assert_eq!(found[0].0, format!("route 2: {key}"), "{route}");
        assert!(found[0].1.contains(part), "{route}: {}", found[0].1);
    }
}

#[test]
fn all_problems_of_all_routes_are_reported_at_once() {
    let toml = "[[route]]\ntopic = 'a/#/b'\nonce = 'x'\neach = 'y'\n[[route]]\ntopic = 'ok'\n[[route]]\ntopic = '+x'";
    let keys: Vec<String> = problems(toml).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["route 1: topic", "route 1: once", "route 1: each", "route 3: topic"]);
}

#[test]
fn an_unknown_zone_is_reported_beside_the_routes() {
    let ingest = crate::config::Ingest { timezone: "Mars/Olympus".to_owned(), ..Default::default() };
    let error = crate::ingest::decode::Decoder::new(&routes("[[route]]\ntopic = ''"), &ingest).unwrap_err();
    assert_eq!(error.problems.len(), 2);
    assert!(error.to_string().contains("ingest: timezone = \"Mars/Olympus\""));
    assert_eq!(error.kind(), crate::error::ErrorKind::Config);
}

#[test]
fn the_routes_of_the_handbook_are_sound() {
    let toml = r#"
        [[route]]
        topic = "farm/{site}/{sensor}/{metric}"
        unit = "°C"
        [[route]]
        topic = "plant/{line}/plc"
        each = "values[*]"
        sensor = "{line}"
        metric = "name"
        value = "v"
        time = "t"
        time_format = "unix_ms"
        quality = "q"
        keep = ["temp*", "hum"]
        drop = ["update.*"]
        states = { OPEN = 1, CLOSED = 0 }
        scale = { voltage = 0.001 }
        retained = "store"
        once = "time"
        [[route]]
        topic = "cmnd/#"
        ignore = true
        [[route]]
        topic = "birth/#"
        as = "record"
    "#;
    assert_eq!(problems(toml), []);
}
