//! What others see of the status: its names stay as they are.

use std::time::Duration;

use super::*;
use crate::ledger::Backlog;
use crate::model::{Books, Tally, Timestamp};

fn example() -> (LedgerFacts, Now, Surroundings) {
    let moment = Timestamp(1_795_168_800_000_000);
    let books = Books { accepted: 1_000, hot: 300, sealed: 200, delivered: 450, thinned: 20, dropped: 25, damaged: 5, kept: 900 };
    let facts = LedgerFacts {
        instance: "00112233aabbccdd".to_owned(),
        books,
        tally: Tally { messages_qos0: 1, messages_qos1: 900, messages_http: 3, readings: 1_000, rejected: 4, ..Tally::default() },
        oldest_hot: Some(moment),
        segments: 12,
        backlog: Backlog { readings: 200, bytes: 40_000, held_bytes: 0, oldest: Some(moment.plus_micros(-5)) },
        refusals: None,
    };
    let now = Now {
        ingest: IngestNow {
            last_arrival: Some(moment),
            readings_per_s: 12.5,
            series: 8,
            committed_since_start: 500,
            commit_p50: Duration::from_millis(4),
            commit_p99: Duration::from_millis(30),
            last_reject: Some("the payload is not JSON".to_owned()),
            connections: 3,
            connections_refused: 2,
            handshakes_failed: 1,
            ..IngestNow::default()
        },
        link: LinkNow {
            state: LinkState::Online,
            since: Some(moment),
            last_success: Some(moment),
            sent_bytes: 70_000,
            bytes_per_s: Some(12_500.0),
            ..LinkNow::default()
        },
        engine: EnginePage { state: EngineState::Ready, last_seq: 1_000, segments: 12, ..EnginePage::default() },
        listeners: Listeners { mqtt: vec!["127.0.0.1:1884".to_owned()], ..Listeners::default() },
        room: RoomNow { disk_bytes: 1 << 20, ..RoomNow::default() },
        ready: true,
        ..Now::default()
    };
    let around = Surroundings {
        gateway: "gw-1".to_owned(),
        uptime: Duration::from_millis(12_300),
        cap_bytes: 1 << 30,
        disk_free_bytes: 8 << 30,
        rss_bytes: 30 << 20,
        written_bytes: 50_000,
        clock_synchronized: true,
        ..Surroundings::default()
    };
    (facts, now, around)
}

/// Compares with the file in `tests/golden`; `FOREBAY_GOLDEN=1` writes it anew.
fn golden(name: &str, actual: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("FOREBAY_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{name} changed; if that is meant, run the test with FOREBAY_GOLDEN=1");
}

#[test]
fn the_status_answer_keeps_its_shape() {
    let (facts, now, around) = example();
    let mut status = assemble(&facts, &now, around);
    status.version = "0.0.0".to_owned();
    let text = serde_json::to_string_pretty(&status).unwrap() + "\n";
    golden("status.json", &text);
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
}

#[test]
fn the_metrics_keep_their_names_and_types() {
    let (facts, now, around) = example();
    let mut status = assemble(&facts, &now, around);
    status.version = "0.0.0".to_owned();
    golden("metrics.txt", &metrics::render(&status));
}

#[test]
fn metric_names_follow_the_conventions() {
    let (facts, now, around) = example();
    let text = metrics::render(&assemble(&facts, &now, around));
    for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
        let [name, kind] = line.split(' ').skip(2).collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(name.starts_with("forebay_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[test]
fn the_time_to_drain_is_known_only_while_something_moves() {
    let (mut facts, mut now, around) = example();
    // 12.5 readings a second come in, of 200 bytes each.
    assert_eq!(assemble(&facts, &now, around.clone()).link.drain_eta_s, Some(4.0));
    facts.backlog.held_bytes = 30_000;
    assert_eq!(assemble(&facts, &now, around.clone()).link.drain_eta_s, Some(1.0), "what is refused does not drain");
    now.link.bytes_per_s = Some(2_500.0);
    assert_eq!(assemble(&facts, &now, around.clone()).link.drain_eta_s, None, "as much comes in as goes out");
    now.link.state = LinkState::Offline;
    assert_eq!(assemble(&facts, &now, around.clone()).link.drain_eta_s, None);
    now.link = LinkNow { state: LinkState::Online, bytes_per_s: Some(0.0), ..now.link };
    assert_eq!(assemble(&facts, &now, around).link.drain_eta_s, None);
}

#[test]
fn what_is_written_a_day_is_told_when_there_is_something_to_tell_it_by() {
    let (facts, now, mut around) = example();
    assert_eq!(assemble(&facts, &now, around.clone()).flash.bytes_per_day, None);
    around.uptime = Duration::from_secs(43_200);
    assert_eq!(assemble(&facts, &now, around).flash.bytes_per_day, Some(100_000.0));
}

#[test]
fn the_line_for_systemd_names_the_first_reason() {
    let (facts, mut now, around) = example();
    assert_eq!(systemd::line(&assemble(&facts, &now, around.clone())), "ok: 1000 readings (12.5/s), 500 not delivered, link online");
    now.troubles.push(Reason::degraded("subscription", "the broker refused sensors/#"));
    assert!(systemd::line(&assemble(&facts, &now, around)).ends_with("link online; the broker refused sensors/#"));
}
