//! The main job: from a sensor's message to a lake that proves itself complete.

use std::process::Command;

use crate::support::{Gateway, PROGRAM, Publisher, assert_each_once};

const SETTINGS: &str = "[listener]\nbind = [\"127.0.0.1:0\"]\n[segment]\nseal_interval = \"1s\"\n\
    [upstream]\nretry_min = \"100ms\"\nretry_max = \"1s\"\nprobe_interval = \"200ms\"\n";

fn gateway() -> Gateway {
    let gateway = Gateway::new("");
    gateway.configure(&format!("{SETTINGS}url = \"file://{}\"\n", gateway.lake().display()));
    gateway
}

#[test]
fn what_a_sensor_was_acknowledged_is_in_the_lake_once_and_the_books_balance() {
    let mut gateway = gateway();
    gateway.start();
    Publisher::start(gateway.listener_port(), 2_000, &[]).finish();
    assert_eq!(gateway.books()["accepted"], 4_000);
    gateway.flush();
    let books = gateway.books();
    assert_eq!((books["delivered"].as_u64(), books["hot"].as_u64()), (Some(4_000), Some(0)), "{books}");
    assert_each_once(&gateway.lake(), 2_000);
    gateway.verify();
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn totals_and_readings_survive_an_orderly_restart() {
    let mut gateway = gateway();
    gateway.start();
    Publisher::start(gateway.listener_port(), 500, &[]).finish();
    let before = gateway.status();
    assert_eq!(gateway.stop(), Some(0));
    gateway.start();
    let after = gateway.status();
    assert_eq!(after["books"]["accepted"], 1_000);
    assert_eq!((&after["ingest"]["messages"], &after["instance"]), (&before["ingest"]["messages"], &before["instance"]));
    gateway.flush();
    gateway.verify();
}

#[test]
fn simulated_sensors_are_acknowledged_to_the_last_message() {
    let mut gateway = gateway();
    gateway.start();
    let url = format!("mqtt://127.0.0.1:{}", gateway.listener_port());
    let text = gateway.ok(&["sim", "--mqtt", &url, "--sensors", "20", "--rate", "500", "--for", "3s", "--json"]);
    let outcome: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(outcome["sent"].as_u64().unwrap() > 1_000, "{outcome}");
    assert_eq!(outcome["sent"], outcome["acknowledged"]);
    assert_eq!(gateway.status()["ingest"]["messages"], outcome["acknowledged"]);
}

#[test]
fn readings_over_http_are_stored_once_under_their_idempotency_key() {
    let mut gateway = gateway();
    gateway.start();
    let body = r#"[{"sensor":"tank","metric":"level","value":1.5},{"sensor":"tank","metric":"state","text":"OPEN"}]"#;
    for _ in 0..2 {
        let socket = gateway.folder.path().join("forebay.sock");
        let output = Command::new("curl")
            .args(["-sS", "--fail", "--unix-socket", socket.to_str().unwrap(), "-H", "content-type: application/json"])
            .args(["-H", "idempotency-key: batch-1", "--data", body, "http://forebay/api/v1/readings"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(gateway.books()["accepted"], 2);
}

#[test]
fn the_demo_ends_well() {
    let output = Command::new(PROGRAM).args(["demo", "--for", "9s"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("complete"), "{text}");
}
