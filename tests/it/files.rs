//! Readings out of files and into them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Gateway, PROGRAM};

const SETTINGS: &str = "[listener]\nbind = [\"127.0.0.1:0\"]\n[engine]\nenabled = false\n[log]\nlevel = \"debug\"\n";

fn started() -> Gateway {
    let mut gateway = Gateway::new(SETTINGS);
    gateway.start();
    gateway
}

/// A file in the gateway's folder.
fn place(gateway: &Gateway, name: &str) -> String {
    gateway.folder.path().join(name).display().to_string()
}

/// Readings of every sort, an object a line.
fn lines(count: usize) -> String {
    let line = |place: usize| {
        let metric = ["temperature", "door \"north\", upper"][place % 2];
        let mut reading = serde_json::json!({
            "time": 1_700_000_000_000_000_i64 + place as i64 * 250_000,
            "sensor": format!("plant/räum {}", place % 7),
            "metric": metric,
        });
        match place % 4 {
            0 => reading["text"] = "OPEN, half".into(),
            1 => reading["value"] = (place as f64 / 3.0).into(),
            2 => reading["value"] = (-0.1 * place as f64).into(),
            _ => {
                reading["value"] = (place % 8 == 3).into();
                reading["quality"] = 192.into();
                reading["unit"] = "°C".into();
            }
        }
        format!("{reading}\n")
    };
    (0..count).map(line).collect()
}

/// What is in an export, in an order of its own, without the numbers that each gateway gives anew.
fn readings_in(path: &str) -> Vec<String> {
    let without_seq = |line: &str| {
        let mut reading: Value = serde_json::from_str(line).unwrap();
        assert!(reading.as_object_mut().unwrap().remove("seq").is_some(), "{line}");
        reading.to_string()
    };
    let mut found: Vec<_> = fs::read_to_string(path).unwrap().lines().map(without_seq).collect();
    found.sort();
    found
}

fn export(gateway: &Gateway, name: &str, more: &[&str]) -> String {
    let path = place(gateway, name);
    let args: Vec<_> = ["export", "--output", &path].iter().chain(more).copied().collect();
    gateway.ok(&args);
    assert!(!Path::new(&format!("{path}.part")).exists());
    path
}

#[test]
fn what_is_exported_comes_back_as_it_was_in_every_format() {
    let first = started();
    fs::write(place(&first, "in.jsonl"), lines(1_000)).unwrap();
    assert!(first.ok(&["import", &place(&first, "in.jsonl")]).ends_with("in.jsonl: 1,000 readings imported\n"));
    // There is no upstream: it seals, and ends with 1.
    first.command(&["flush", "--wait", "1s"]);
    fs::write(place(&first, "more.jsonl"), lines(1_100).lines().skip(1_000).collect::<Vec<_>>().join("\n")).unwrap();
    first.ok(&["import", &place(&first, "more.jsonl")]);
    let expected = readings_in(&export(&first, "out.jsonl", &[]));
    assert_eq!(expected.len(), 1_100);
    for name in ["out.jsonl", "out.parquet", "out.csv"] {
        let file = export(&first, name, &[]);
        let second = started();
        second.ok(&["import", &file]);
        assert_eq!(readings_in(&export(&second, "again.jsonl", &[])), expected, "{name}");
    }
}

#[test]
fn an_export_is_of_what_is_asked_for() {
    let gateway = started();
    fs::write(place(&gateway, "in.jsonl"), lines(700)).unwrap();
    gateway.ok(&["import", &place(&gateway, "in.jsonl")]);
    let of_one = export(&gateway, "one.jsonl", &["--sensor", "plant/räum 3", "--metric", "door \"north\", upper"]);
    assert_eq!(readings_in(&of_one).len(), 50);
    let of_a_time = export(&gateway, "time.jsonl", &["--from", "2023-11-14T22:13:20Z", "--to", "1700000025"]);
    assert_eq!(readings_in(&of_a_time).len(), 100);
    let nothing = export(&gateway, "nothing.csv", &["--sensor", "nobody"]);
    assert_eq!(fs::read_to_string(nothing).unwrap(), "time,sensor,metric,value,text,unit,quality,arrived,time_source,seq\n");
}

#[test]
fn a_file_comes_in_once_however_often_and_under_whatever_name() {
    let gateway = started();
    let (first, second) = (place(&gateway, "a.jsonl"), place(&gateway, "b.ndjson"));
    fs::write(&first, lines(500)).unwrap();
    fs::copy(&first, &second).unwrap();
    gateway.ok(&["import", &first]);
    let again: Value = serde_json::from_str(&gateway.ok(&["import", "--json", &first, &second])).unwrap();
    assert_eq!((&again[0]["rows"], &again[0]["known"], &again[1]["known"]), (&500.into(), &500.into(), &500.into()));
    assert_eq!(gateway.books()["accepted"], 500);
}

#[test]
fn a_file_with_a_row_that_is_no_reading_is_refused_whole_and_the_row_named() {
    let gateway = started();
    let good = place(&gateway, "good.jsonl");
    fs::write(&good, lines(10)).unwrap();
    let bad = [
        ("a.csv", "time,sensor,metric,value\n2023-11-14T22:13:20Z,s,t,1\n,s,t,2\n", "row 2: it has no time"),
        ("b.csv", "time,sensor,metric,celsius\n2023-11-14T22:13:20Z,s,t,1\n", "\"celsius\" is none of a reading's"),
        ("c.jsonl", "{\"time\":1700000000,\"sensor\":\"s\",\"metric\":\"t\",\"value\":1}\nnot JSON\n", "row 2: "),
        ("d.jsonl", "{\"time\":1700000000,\"sensor\":\"s\",\"metric\":\"t\",\"valu\":1}\n", "row 1: "),
        ("e.csv", "time,sensor,metric,value\n2023-11-14T22:13:20Z,s,t,warm\n", "row 1: the value \"warm\" is not a number"),
        ("f.parquet", "no Parquet", "f.parquet"),
        ("g.txt", "", "g.txt ends in none of"),
    ];
    for (name, text, expected) in bad {
        let path = place(&gateway, name);
        fs::write(&path, text).unwrap();
        // The good one before it is not imported either.
        let output = gateway.command(&["import", &good, &path]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected) && said.contains(name), "{name}: {said}");
    }
    assert_eq!(gateway.books()["accepted"], 0);
    let output = gateway.command(&["import", &place(&gateway, "nowhere.csv")]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_import_that_is_killed_and_repeated_stores_every_row_once() {
    for point in ["ledger.before_import:2", "ledger.after_import:2", "ledger.after_import:3"] {
        let mut gateway = Gateway::new(SETTINGS);
        let path = place(&gateway, "in.csv");
        let rows = (0..150_000).map(|row| format!("{},s{},t,{row}\n", 1_700_000_000 + row, row % 3));
        fs::write(&path, "time,sensor,metric,value\n".to_owned() + &rows.collect::<String>()).unwrap();
        gateway.environment.insert("FOREBAY_KILL_AT".to_owned(), point.to_owned());
        gateway.start();
        let output = gateway.command(&["import", &path]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("of the 150,000 rows"), "{point}: {said}");
        gateway.wait_for_end();
        gateway.environment.clear();
        gateway.start();
        gateway.ok(&["import", &path]);
        assert_eq!(gateway.books()["accepted"], 150_000, "{point}");
        let out = export(&gateway, "out.csv", &["--sensor", "s1"]);
        let mut values: Vec<u64> = fs::read_to_string(out).unwrap().lines().skip(1).map(|line| value_of(line) as u64).collect();
        values.sort_unstable();
        assert_eq!(values, (0..150_000).filter(|row| row % 3 == 1).collect::<Vec<_>>(), "{point}");
    }
}

fn value_of(line: &str) -> f64 {
    line.split(',').nth(3).unwrap().parse().unwrap()
}

#[test]
fn an_export_without_a_segment_says_so_and_keeps_the_rest() {
    let gateway = started();
    fs::write(place(&gateway, "in.jsonl"), lines(500)).unwrap();
    gateway.ok(&["import", &place(&gateway, "in.jsonl")]);
    gateway.command(&["flush", "--wait", "1s"]);
    fs::write(place(&gateway, "more.jsonl"), lines(600).lines().skip(500).collect::<Vec<_>>().join("\n")).unwrap();
    gateway.ok(&["import", &place(&gateway, "more.jsonl")]);
    let sealed: Vec<PathBuf> = crate::support::parquet_files(&gateway.data().join("segments"));
    assert_eq!(sealed.len(), 1);
    fs::write(&sealed[0], "damaged").unwrap();
    let path = place(&gateway, "out.jsonl");
    let output = gateway.command(&["export", "--output", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("incomplete"));
    assert_eq!(readings_in(&path).len(), 100);
}

#[test]
#[cfg(feature = "engine")]
fn an_export_can_be_a_duckdb_database() {
    let gateway = started();
    fs::write(place(&gateway, "in.jsonl"), lines(1_000)).unwrap();
    gateway.ok(&["import", &place(&gateway, "in.jsonl")]);
    // What an export that was killed left there hinders no other.
    fs::write(place(&gateway, "out.duckdb.part"), "half").unwrap();
    fs::write(place(&gateway, "out.duckdb.part.wal"), "half").unwrap();
    let path = export(&gateway, "out.duckdb", &[]);
    assert!(!Path::new(&format!("{path}.part.wal")).exists());
    let database = duckdb::Connection::open(&path).unwrap();
    let sql = "select count(*), count(distinct seq), count(text), sum(quality), epoch_us(max(time)) from readings \
               where sensor like 'plant/räum _' and arrived > time and time_source = 'sensor'";
    let found: [i64; 5] = database.query_row(sql, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?])).unwrap();
    assert_eq!(found, [1_000, 1_000, 250, 250 * 192, 1_700_000_000_000_000 + 999 * 250_000]);
}

#[test]
#[cfg(not(feature = "engine"))]
fn an_export_to_a_duckdb_database_needs_the_engine() {
    let gateway = started();
    let output = gateway.command(&["export", "--output", &place(&gateway, "out.duckdb")]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no engine"));
}

#[test]
fn a_daemon_that_is_not_there_is_told_before_anything_else_is_sent() {
    let gateway = Gateway::new(SETTINGS);
    fs::write(place(&gateway, "in.jsonl"), lines(1)).unwrap();
    assert_eq!(gateway.command(&["import", &place(&gateway, "in.jsonl")]).status.code(), Some(69));
    assert_eq!(gateway.command(&["export", "--output", &place(&gateway, "x.csv")]).status.code(), Some(69));
    let wrong = std::process::Command::new(PROGRAM).args(["export", "--output", "x.xlsx"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}
