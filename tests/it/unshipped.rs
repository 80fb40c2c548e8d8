//! What nobody ships becomes few files, at no cost: each reading is there once, and goes upstream once when there is one.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use forebay::model::{MICROS_PER_DAY, Timestamp};
use serde_json::Value;

use crate::retention::insist;
use crate::support::{Gateway, assert_each_once, parquet_files};

/// In a body, and so in a cut.
const READINGS: i64 = 100;

/// More than one merge takes.
const CUTS: i64 = 20;

fn settings(gateway: &Gateway, has_upstream: bool) -> String {
    let upstream = format!(
        "[upstream]\nurl = \"file://{}\"\nretry_min = \"100ms\"\nretry_max = \"1s\"\nprobe_interval = \"200ms\"\n",
        gateway.lake().display()
    );
    let upstream = if has_upstream { &upstream } else { "" };
    format!("[segment]\nseal_interval = \"1s\"\nseal_readings = {READINGS}\n[engine]\nenabled = false\n{upstream}")
}

/// Readings of two days, numbered above `after`.
fn body(after: i64) -> String {
    let mut body = String::new();
    for number in after + 1..=after + READINGS {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
        let time = Timestamp(now - number % 2 * MICROS_PER_DAY);
        writeln!(body, "{{\"sensor\":\"s\",\"metric\":\"seq\",\"value\":{number},\"time\":\"{time}\"}}").unwrap();
    }
    body
}

/// Makes cuts of `READINGS` above `after`.
fn make_cuts(gateway: &Gateway, after: i64) {
    for cut in 0..CUTS {
        let after = after + cut * READINGS;
        assert_eq!(insist(gateway, &body(after)), 200);
        let are_sealed = |books: Value| books["accepted"] == after + READINGS && books["hot"] == 0;
        gateway.wait_for("a cut", |gateway| are_sealed(gateway.books()));
    }
}

/// Lets cuts be merged that were sealed just now.
fn begin_to_merge(gateway: &mut Gateway) {
    gateway.environment.insert("FAILPOINTS".to_owned(), "merge.fresh=return".to_owned());
}

fn wait_until_merged(gateway: &Gateway, cut: i64) {
    gateway.wait_for("the sources to be gone", |gateway| is_merged(gateway, cut));
}

/// Whether a file is there that was merged from cuts above `cut`, and nothing any more of what was merged.
fn is_merged(gateway: &Gateway, cut: i64) -> bool {
    let files = parquet_files(&gateway.data().join("segments"));
    let is_here = files.iter().any(|file| first_of_several(file).is_some_and(|first| first > cut));
    is_here && gateway.status()["buffer"]["segments"] == files.len() as u64
}

/// The first cut that a merged file holds.
fn first_of_several(file: &Path) -> Option<i64> {
    match file.file_stem()?.to_str()?.split('-').collect::<Vec<_>>()[..] {
        [_, first, _] => first.parse().ok(),
        _ => None,
    }
}

/// Every place at which a power cut could find a merge of cuts, which have files of two days.
const POINTS: [&str; 9] = [
    "merge.after_tmp",
    "merge.after_verify",
    "merge.after_rename",
    "merge.after_dirsync",
    "merge.after_tmp:2",
    "merge.after_dirsync:2",
    "ledger.before_merge_cuts",
    "ledger.after_merge_cuts",
    "merge.after_remove:3",
];

#[test]
fn killed_at_any_step_of_a_merge_of_cuts_nothing_is_lost_or_doubled() {
    // Most of it is waiting.
    for points in POINTS.chunks(3) {
        std::thread::scope(|scope| points.iter().for_each(|point| drop(scope.spawn(|| kill_at(point)))));
    }
}

fn kill_at(point: &str) {
    let mut gateway = Gateway::new("");
    gateway.configure(&settings(&gateway, false));
    gateway.start();
    make_cuts(&gateway, 0);
    gateway.kill();
    begin_to_merge(&mut gateway);
    gateway.environment.insert("FOREBAY_KILL_AT".to_owned(), point.to_owned());
    gateway.spawn();
    assert_eq!(gateway.wait_for_end(), None, "{point} was never passed\n{}", gateway.last_lines());
    gateway.environment.remove("FOREBAY_KILL_AT");
    gateway.start();
    wait_until_merged(&gateway, 0);
    assert_each_once(&gateway.data().join("segments"), CUTS * READINGS);
    // Now there is an upstream.
    gateway.kill();
    gateway.configure(&settings(&gateway, true));
    gateway.start();
    gateway.flush();
    assert_each_once(&gateway.lake(), CUTS * READINGS);
    gateway.verify();
    let books = gateway.books();
    assert_eq!((books["accepted"].as_i64(), books["delivered"].as_i64()), (Some(CUTS * READINGS), Some(CUTS * READINGS)), "{point}");
    assert!(!gateway.log().contains("a new instance begins"), "{point}");
}

#[test]
fn what_was_merged_while_the_link_was_away_is_delivered_once_when_it_is_back() {
    let mut gateway = Gateway::new("");
    gateway.configure(&settings(&gateway, true));
    gateway.start();
    make_cuts(&gateway, 0);
    gateway.flush();
    let away = gateway.folder.path().join("away");
    fs::rename(gateway.lake(), &away).unwrap();
    gateway.wait_for("the link to be offline", |gateway| gateway.status()["link"]["state"] != "online");
    make_cuts(&gateway, CUTS * READINGS);
    gateway.kill();
    begin_to_merge(&mut gateway);
    gateway.start();
    let here = gateway.data().join("segments");
    wait_until_merged(&gateway, CUTS);
    make_cuts(&gateway, 2 * CUTS * READINGS);
    assert_each_once(&here, 3 * CUTS * READINGS);
    fs::rename(&away, gateway.lake()).unwrap();
    gateway.wait_for("the backlog to drain", |gateway| gateway.books()["delivered"].as_i64() == Some(3 * CUTS * READINGS));
    assert_each_once(&gateway.lake(), 3 * CUTS * READINGS);
    gateway.verify();
    let files = parquet_files(&gateway.lake().join("readings")).len() as i64;
    assert!(files < 5 * CUTS, "{files} files");
    // Nor is anything of it shipped again.
    gateway.kill();
    gateway.start();
    gateway.flush();
    assert_each_once(&gateway.lake(), 3 * CUTS * READINGS);
    gateway.verify();
}

#[cfg(feature = "engine")]
#[test]
fn every_answer_sees_each_reading_once_while_cuts_are_merged() {
    let mut gateway = Gateway::new("");
    gateway.configure(&settings(&gateway, false));
    gateway.start();
    make_cuts(&gateway, 0);
    gateway.kill();
    gateway.configure(&settings(&gateway, false).replace("enabled = false", "enabled = true"));
    begin_to_merge(&mut gateway);
    gateway.start();
    let (all, sql) = ((CUTS * READINGS) as f64, "select count(*), count(distinct seq), sum(value), (select kept from books) from readings");
    // Until all is verified answers say that they are incomplete.
    let are_attached = |status: Value| status["engine"]["segments"] == status["buffer"]["segments"];
    gateway.wait_for("the engine to have all", |gateway| are_attached(gateway.status()));
    gateway.wait_for("the sources to be gone", |gateway| {
        assert_eq!(gateway.query_numbers(sql), [all, all, all * (all + 1.0) / 2.0, all]);
        is_merged(gateway, 0)
    });
    assert_eq!(gateway.query_numbers(sql), [all, all, all * (all + 1.0) / 2.0, all]);
    assert_eq!(gateway.status()["engine"]["restarts"], 0);
}
