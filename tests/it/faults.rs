//! Faults: of the folder, the lake, the broker and the clock.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::support::{Gateway, Mosquitto, Publisher, assert_each_once};

fn settings(gateway: &Gateway) -> String {
    format!(
        "[listener]\nbind = [\"127.0.0.1:0\"]\n[segment]\nseal_interval = \"1s\"\n[engine]\nenabled = false\n\
         [upstream]\nurl = \"file://{}\"\n\
         retry_min = \"100ms\"\nretry_max = \"500ms\"\nprobe_interval = \"200ms\"\n",
        gateway.lake().display()
    )
}

#[test]
fn a_second_daemon_on_the_same_folder_says_so_and_ends() {
    let mut gateway = Gateway::new("[listener]\nbind = [\"127.0.0.1:0\"]\n");
    gateway.start();
    let output = std::process::Command::new(crate::support::PROGRAM).arg("run").arg("--config").arg(gateway.config()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("another forebay") && text.contains(&gateway.data().display().to_string()), "{text}");
    gateway.books();
}

#[test]
fn a_broker_that_is_not_there_is_a_reason_in_status() {
    let port = crate::support::free_port();
    let mut gateway = Gateway::new(&format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n[engine]\nenabled = false\n"));
    gateway.start();
    gateway.wait_for("the reason", |gateway| gateway.status()["reasons"][0]["code"] == "broker");
    assert_eq!(gateway.status()["state"], "degraded");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    // root may write anywhere, so a file stands where the folder should.
    let mut gateway = Gateway::new("[listener]\nbind = [\"127.0.0.1:0\"]\n");
    fs::write(gateway.data(), "not a folder").unwrap();
    gateway.spawn();
    assert_eq!(gateway.wait_for_end(), Some(78));
    assert!(gateway.log().contains(&gateway.data().display().to_string()), "{}", gateway.log());
    let mode = fs::metadata(gateway.data()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "it was left as it was");
}

#[test]
fn a_lake_that_vanishes_and_comes_back_gets_everything_once() {
    let mut gateway = Gateway::new("");
    gateway.configure(&settings(&gateway));
    gateway.start();
    let port = gateway.listener_port();
    Publisher::start(port, 1_000, &[]).finish();
    gateway.flush();
    let away = gateway.folder.path().join("away");
    fs::rename(gateway.lake(), &away).unwrap();
    Publisher::start(port, 1_000, &["--first", "1001"]).finish();
    gateway.wait_for("the link to be offline", |gateway| gateway.status()["link"]["state"] != "online");
    assert_eq!(gateway.command(&["flush", "--wait", "1s"]).status.code(), Some(1));
    assert!(!gateway.lake().exists(), "an empty folder must not stand in for the lake");
    fs::rename(&away, gateway.lake()).unwrap();
    gateway.wait_for("the backlog to drain", |gateway| gateway.books()["delivered"] == 4_000);
    assert_each_once(&gateway.lake(), 2_000);
    gateway.verify();
}

#[test]
fn a_broker_that_dies_and_returns_is_subscribed_to_again() {
    let mut broker = Mosquitto::start();
    let mut gateway = Gateway::new("");
    gateway.configure(&format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[engine]\nenabled = false\n", broker.port));
    gateway.start();
    gateway.wait_for("the subscription", |gateway| gateway.log().contains("subscribed"));
    for round in 0..3 {
        Publisher::start(broker.port, 200, &["--first", &(1 + round * 200).to_string()]).finish();
        gateway.wait_for("the messages", |gateway| gateway.books()["accepted"] == 400 * (round + 1));
        broker.restart();
    }
}

#[test]
fn a_retained_message_is_no_reading_each_time_the_gateway_starts() {
    let broker = Mosquitto::start();
    let port = broker.port.to_string();
    let retain = ["-p", &port, "-t", "hall/temperature", "-m", "21.5", "-r", "-q", "1"];
    assert!(std::process::Command::new("mosquitto_pub").args(retain).status().unwrap().success());
    let mut gateway = Gateway::new("");
    gateway.configure(&format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[engine]\nenabled = false\n", broker.port));
    for _ in 0..3 {
        gateway.start();
        gateway.wait_for("the retained message", |gateway| gateway.status()["ingest"]["messages"].as_u64() > Some(0));
        gateway.kill();
    }
    gateway.start();
    assert_eq!(gateway.books()["accepted"], 0);
}

#[test]
fn the_backlog_costs_neither_start_nor_memory() {
    let mut gateway = Gateway::new("");
    let cut_off = settings(&gateway).replace("file://", "file:///nonexistent");
    gateway.configure(&cut_off.replace("seal_interval = \"1s\"", "seal_interval = \"1s\"\nseal_readings = 10"));
    gateway.start();
    let measure = |gateway: &mut Gateway| {
        gateway.kill();
        let begun = std::time::Instant::now();
        gateway.start();
        (begun.elapsed(), gateway.status()["process"]["rss_bytes"].as_u64().unwrap())
    };
    let (_, empty_rss) = measure(&mut gateway);
    Publisher::start(gateway.listener_port(), 1_200, &["--window", "5"]).finish();
    gateway.wait_for("many segments", |gateway| gateway.status()["buffer"]["segments"].as_u64() >= Some(100));
    let (start, rss) = measure(&mut gateway);
    assert!(start < Duration::from_secs(5), "{start:?}");
    assert!(rss < empty_rss * 3 / 2, "{empty_rss} bytes empty, {rss} with a backlog");
}
