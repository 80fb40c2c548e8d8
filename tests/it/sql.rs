//! SQL while everything moves: each answer sees each reading once.
#![cfg(feature = "engine")]

use std::time::Duration;

use crate::support::{Gateway, Publisher};

#[test]
fn every_answer_agrees_with_the_books_of_its_moment_across_seals() {
    let mut gateway = Gateway::new("");
    gateway.configure(&format!(
        "[listener]\nbind = [\"127.0.0.1:0\"]\n[segment]\nseal_interval = \"1s\"\n[upstream]\nurl = \"file://{}\"\n",
        gateway.lake().display()
    ));
    gateway.start();
    let mut publisher = Publisher::start(gateway.listener_port(), 20_000, &["--rate", "2500"]);
    let mut answers = 0;
    while publisher.is_running() {
        gateway.check_answer();
        answers += 1;
    }
    publisher.finish();
    assert!(answers > 20, "only {answers} answers");
    assert_eq!(gateway.query_numbers("select count(*) from readings"), [40_000.0]);
    assert!(gateway.status()["buffer"]["segments"].as_u64() > Some(1));
}

#[test]
fn an_engine_that_is_killed_costs_no_reading_and_comes_back() {
    let mut gateway = Gateway::new("[listener]\nbind = [\"127.0.0.1:0\"]\n");
    gateway.start();
    let publisher = Publisher::start(gateway.listener_port(), 10_000, &["--rate", "2500"]);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        let killed = std::process::Command::new("pkill").args(["-KILL", "-P", &gateway.pid().to_string()]).status().unwrap();
        assert!(killed.success(), "there is an engine to kill");
        gateway.wait_for("an answer", |gateway| gateway.command(&["query", "select 1"]).status.success());
    }
    publisher.finish();
    assert_eq!(gateway.query_numbers("select count(*) from readings"), [20_000.0]);
    assert!(gateway.status()["engine"]["restarts"].as_u64() >= Some(3));
}

#[test]
fn what_is_not_one_select_is_refused_with_a_reason() {
    let mut gateway = Gateway::new("[listener]\nbind = [\"127.0.0.1:0\"]\n");
    gateway.start();
    gateway.wait_for("an answer", |gateway| gateway.command(&["query", "select 1"]).status.success());
    for sql in ["select 1; select 2", "create table t (a int)", "select * from nowhere", "selekt 1", "copy readings to '/tmp/x.csv'", ""] {
        let output = gateway.command(&["query", sql]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{sql}: {text}");
        assert!(text.len() > 10, "{sql}: {text}");
    }
}
