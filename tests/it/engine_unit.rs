//! The engine as a unit of its own: here the test is the service manager, which starts one for each connection.
#![cfg(feature = "engine")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Gateway, PATIENCE, PROGRAM, parquet_files};

/// The ids of the engines that were started.
type Started = Arc<Mutex<Vec<u32>>>;

/// What `forebay-engine.socket` and `forebay-engine@.service` do, without another user.
fn manage(gateway: &Gateway) -> Started {
    let listener = UnixListener::bind(gateway.folder.path().join("engine.sock")).unwrap();
    let (folder, started) = (gateway.data().join("segments"), Started::default());
    let pids = Arc::clone(&started);
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut command = Command::new(PROGRAM);
            command.arg("engine").current_dir(&folder).env_clear().stdin(Stdio::from(OwnedFd::from(connection.unwrap())));
            let mut engine = command.stdout(Stdio::null()).spawn().unwrap();
            pids.lock().unwrap().push(engine.id());
            // So that who is gone leaves nothing in /proc.
            thread::spawn(move || engine.wait());
        }
    });
    started
}

/// Without it the daemon would subscribe to whatever broker is at the usual port.
const LISTENER: &str = "[listener]\nbind = [\"127.0.0.1:0\"]\n";

/// The engine is expected at `engine.sock`.
fn expect_a_unit(gateway: &Gateway) {
    let socket = gateway.folder.path().join("engine.sock");
    gateway.configure(&format!("{LISTENER}[engine]\nsocket = \"{}\"\n", socket.display()));
}

fn import(gateway: &Gateway, number: u32) {
    let file = gateway.folder.path().join(format!("{number}.jsonl"));
    fs::write(&file, format!("{{\"sensor\":\"s\",\"metric\":\"m\",\"value\":{number},\"time\":\"2026-11-20T10:00:00Z\"}}\n")).unwrap();
    gateway.ok(&["import", file.to_str().unwrap()]);
}

fn answers(gateway: &Gateway) -> bool {
    gateway.command(&["query", "select 1"]).status.success()
}

fn last(started: &Started) -> u32 {
    *started.lock().unwrap().last().expect("one was started")
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_unit_answers_comes_back_when_it_is_killed_and_ends_with_the_daemon() {
    let mut gateway = Gateway::new(LISTENER);
    gateway.start();
    // A segment from before the switch.
    import(&gateway, 1);
    gateway.command(&["flush", "--wait", "1s"]);
    gateway.wait_for("a segment", |gateway| !parquet_files(&gateway.data()).is_empty());
    assert_eq!(gateway.status()["engine"]["own_unit"], false);
    gateway.stop();
    expect_a_unit(&gateway);
    let started = manage(&gateway);
    gateway.start();
    gateway.wait_for("an answer", answers);
    import(&gateway, 2);
    gateway.wait_for("all segments", |gateway| gateway.query_numbers("select count(*) from readings") == [2.0]);
    gateway.check_answer();
    for file in parquet_files(&gateway.data().join("segments/readings")) {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640, "{}", file.display());
    }
    let engine = &gateway.status()["engine"];
    assert_eq!((&engine["own_unit"], &engine["state"]), (&true.into(), &"ready".into()), "{engine}");
    assert!(engine["rss_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{engine}");
    assert!(gateway.ok(&["status"]).contains("ready in its own unit"));

    let killed = last(&started);
    assert!(Command::new("kill").args(["-9", &killed.to_string()]).status().unwrap().success());
    gateway.wait_for("another engine", |gateway| last(&started) != killed && answers(gateway));
    import(&gateway, 3);
    gateway.check_answer();

    let orphan = last(&started);
    gateway.kill();
    let end = Instant::now() + PATIENCE;
    while !is_gone(orphan) {
        assert!(Instant::now() < end, "the engine outlives its daemon");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn without_its_unit_queries_say_what_is_missing_and_readings_are_taken() {
    let mut gateway = Gateway::new("");
    expect_a_unit(&gateway);
    gateway.start();
    let said = || String::from_utf8(gateway.command(&["query", "select 1"]).stderr).unwrap();
    assert!(said().contains("engine.sock") && said().contains("forebay-engine.socket"), "{}", said());
    import(&gateway, 1);
    assert_eq!(gateway.books()["hot"], 1);
    let status = gateway.status();
    assert_eq!(status["state"], "degraded", "{status}");
    assert!(status["reasons"].to_string().contains("engine.sock"), "{status}");
    manage(&gateway);
    gateway.wait_for("an answer", answers);
    gateway.check_answer();
    assert_eq!(gateway.status()["engine"]["absence"], serde_json::Value::Null);
}
