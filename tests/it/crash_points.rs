//! Killed at every step: the daemon dies with SIGKILL at a named place, starts again, and nothing is lost or doubled.

use std::path::Path;

use crate::support::{Gateway, Publisher, assert_each_once, parquet_files};

/// Every place at which a power cut could find the daemon between a message and its delivery.
const POINTS: [&str; 17] = [
    "ledger.before_commit:3",
    "ledger.after_commit:3",
    "pump.before_ack:3",
    "listener.before_puback:3",
    "seal.after_tmp",
    "seal.after_verify",
    "seal.after_rename",
    "seal.after_dirsync",
    "ledger.before_seal",
    "ledger.after_seal",
    "seal.after_ledger",
    "upload.after_begin",
    "upload.after_part",
    "upload.after_manifest",
    "upload.after_finish",
    "seal.after_rename:2",
    "upload.after_part:2",
];

/// Places on the way of a message at QoS 2: its commit, its receipt, its release, the commit of that, and its end. Commits of
/// messages and of releases take turns.
const EXACTLY_ONCE_POINTS: [&str; 9] = [
    "listener.before_puback:3",
    "listener.before_release:60",
    "listener.before_pubcomp:60",
    "ledger.before_commit:4",
    "ledger.after_commit:4",
    "ledger.before_commit:5",
    "ledger.after_commit:5",
    "pump.before_ack:4",
    "pump.before_ack:5",
];

#[test]
fn at_qos_2_too() {
    for (point, version) in EXACTLY_ONCE_POINTS.iter().zip(["4", "5"].into_iter().cycle()) {
        kill_at(point, 1_500, &["--qos", "2", "--mqtt-version", version, "--rate", "750", "--window", "50"]);
    }
}

#[test]
fn killed_at_any_step_nothing_is_lost_or_doubled() {
    for point in POINTS {
        kill_at(point, 4_000, &["--rate", "1000", "--window", "50"]);
    }
}

/// Places on the way of a merge, whose sources are delivered.
const MERGE_POINTS: [&str; 7] = [
    "merge.after_tmp",
    "merge.after_verify",
    "merge.after_rename",
    "merge.after_dirsync",
    "ledger.before_merge",
    "ledger.after_merge",
    "merge.after_remove:3",
];

#[test]
fn in_a_merge_too() {
    for point in MERGE_POINTS {
        // Cuts of a hundred readings, so that there are soon enough of them.
        let gateway = kill_within(point, "seal_readings = 100\n", 3_000, &["--rate", "500", "--window", "50"]);
        let here = gateway.data().join("segments");
        gateway.wait_for("the sources to be gone", |gateway| {
            let files = parquet_files(&here);
            files.iter().any(|file| is_merged(file)) && gateway.status()["buffer"]["segments"] == files.len() as u64
        });
        assert_each_once(&here, 3_000);
    }
}

fn is_merged(file: &Path) -> bool {
    file.file_stem().is_some_and(|name| name.to_string_lossy().matches('-').count() == 2)
}

fn kill_at(point: &str, messages: u64, publishing: &[&str]) {
    kill_within(point, "", messages, publishing);
}

/// With `segment` among the settings of cuts; the gateway that went on.
fn kill_within(point: &str, segment: &str, messages: u64, publishing: &[&str]) -> Gateway {
    let mut gateway = Gateway::new("");
    let (lake, port) = (gateway.lake(), crate::support::free_port());
    let lake_url = lake.display();
    gateway.configure(&format!(
        "[listener]\nbind = [\"127.0.0.1:{port}\"]\n[segment]\nseal_interval = \"1s\"\n{segment}[engine]\nenabled = false\n\
         [upstream]\nurl = \"file://{lake_url}\"\nretry_min = \"100ms\"\nretry_max = \"1s\"\nprobe_interval = \"200ms\"\n"
    ));
    gateway.environment.insert("FOREBAY_KILL_AT".to_owned(), point.to_owned());
    gateway.spawn();
    let publisher = Publisher::start(port, messages, publishing);
    assert_eq!(gateway.wait_for_end(), None, "{point} was never passed\n{}", gateway.last_lines());
    gateway.environment.clear();
    gateway.start();
    publisher.finish();
    gateway.flush();
    assert_each_once(&lake, messages as i64);
    assert_eq!(gateway.books()["accepted"], 2 * messages, "{point}");
    gateway.verify();
    gateway
}

#[test]
fn a_lost_ledger_recognises_what_was_delivered_through_kills() {
    let mut gateway = Gateway::new("");
    let (lake, port) = (gateway.lake(), crate::support::free_port());
    gateway.configure(&format!(
        "[listener]\nbind = [\"127.0.0.1:{port}\"]\n[segment]\nseal_interval = \"1s\"\n[engine]\nenabled = false\n\
         [upstream]\nurl = \"file://{}\"\nretry_min = \"100ms\"\nretry_max = \"1s\"\nprobe_interval = \"200ms\"\n",
        lake.display()
    ));
    gateway.start();
    for round in 0..3 {
        Publisher::start(port, 200, &["--first", &(1 + 200 * round).to_string()]).finish();
        gateway.flush();
    }
    gateway.kill();
    for part in ["forebay.db", "forebay.db-wal", "forebay.db-shm"] {
        let _ = std::fs::remove_file(gateway.data().join(part));
    }
    for point in ["upload.after_begin", "upload.after_recognise", "upload.after_recognise"] {
        gateway.environment.insert("FOREBAY_KILL_AT".to_owned(), point.to_owned());
        gateway.spawn();
        assert_eq!(gateway.wait_for_end(), None, "{point} was never passed\n{}", gateway.last_lines());
    }
    gateway.environment.clear();
    gateway.start();
    gateway.wait_for("everything to be recorded", |gateway| gateway.status()["buffer"]["undelivered_readings"] == 0);
    Publisher::start(port, 200, &["--first", "601"]).finish();
    gateway.flush();
    assert_each_once(&lake, 800);
    gateway.verify();
    assert!(!gateway.log().contains("set aside"), "{}", gateway.last_lines());
}
