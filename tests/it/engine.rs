//! What the engine must bear: questions without end while everything moves, its own end, damage, crowds and slow readers.
//!
//! The counts are those of a busy builder; `FOREBAY_ANSWERS=10000` and `FOREBAY_KILLS=60` ask for the full ones, and what was
//! measured is printed with `--nocapture`.
#![cfg(feature = "engine")]
#![expect(clippy::print_stdout, reason = "whoever asks for the full counts wants the figures")]

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Gateway, PATIENCE, parquet_files};

/// Without it the daemon would subscribe to whatever broker is at the usual port.
const LISTENER: &str = "[listener]\nbind = [\"127.0.0.1:0\"]\n";

fn wanted(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// A request on the daemon's socket, whose answer ends with the connection.
fn send(gateway: &Gateway, path: &str, kind: &str, body: &str) -> UnixStream {
    let mut socket = UnixStream::connect(gateway.folder.path().join("forebay.sock")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: forebay\r\nconnection: close\r\ncontent-type: {kind}\r\n");
    socket.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    socket
}

fn ask(gateway: &Gateway, sql: &str) -> UnixStream {
    send(gateway, "/api/v1/query", "application/json", &json!({"sql": sql, "format": "csv"}).to_string())
}

/// Its status, head and body; the body may be in chunks.
fn answer(mut socket: UnixStream) -> (u16, String, String) {
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// The first row of the answer to `sql`.
fn row(gateway: &Gateway, sql: &str) -> Vec<u64> {
    let (status, _, body) = answer(ask(gateway, sql));
    assert_eq!(status, 200, "{sql}: {body}\n{}", gateway.last_lines());
    let row = body.lines().find(|line| line.contains(',') && line.starts_with(|first: char| first.is_ascii_digit()));
    row.unwrap_or_else(|| panic!("no row in {body:?}")).split(',').map(|cell| cell.trim().parse().unwrap()).collect()
}

fn works(gateway: &Gateway) -> bool {
    answer(ask(gateway, "select 1")).0 == 200
}

/// Hands readings in, one request after the other, as fast as they are acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(gateway: &Arc<Gateway>, readings: u64, pause: Duration) -> Self {
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ended, counted, gateway) = (Arc::clone(&stop), Arc::clone(&acknowledged), Arc::clone(gateway));
        let reading = |number: u64| json!({"sensor": format!("s{}", number % 20), "metric": "m", "value": number}).to_string() + "\n";
        let body: String = (0..readings).map(reading).collect();
        let thread = thread::spawn(move || {
            while !ended.load(Relaxed) {
                let (status, _, body) = answer(send(&gateway, "/api/v1/readings", "application/x-ndjson", &body));
                assert_eq!(status, 200, "{body}");
                counted.fetch_add(readings, Relaxed);
                thread::sleep(pause);
            }
        });
        Self { stop, acknowledged, thread }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// How many were acknowledged in all.
    fn finish(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap();
        self.acknowledged.load(Relaxed)
    }
}

fn segments(gateway: &Gateway) -> Vec<Value> {
    let mut socket = UnixStream::connect(gateway.folder.path().join("forebay.sock")).unwrap();
    socket.write_all(b"GET /api/v1/segments HTTP/1.1\r\nhost: forebay\r\nconnection: close\r\n\r\n").unwrap();
    let (_, _, body) = answer(socket);
    let listed: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    listed.as_array().or_else(|| listed["segments"].as_array()).unwrap_or_else(|| panic!("{body}")).clone()
}

#[test]
fn every_answer_sees_each_acknowledged_reading_once_while_everything_moves() {
    let mut gateway = Gateway::new("");
    gateway.configure(&format!(
        "{LISTENER}[segment]\nseal_interval = \"1s\"\n[retention]\ncap_readings = 60000\nmin_free = \"0\"\ncheck_interval = \"1s\"\n\
         [upstream]\nurl = \"file://{}\"\n",
        gateway.lake().display()
    ));
    gateway.start();
    gateway.wait_for("an answer", works);
    let gateway = Arc::new(gateway);
    let writer = Writer::start(&gateway, 20, Duration::from_millis(5));
    let (wanted, end) = (wanted("FOREBAY_ANSWERS", 300), Instant::now() + 20 * PATIENCE);
    let (mut answers, mut merged, mut evicted) = (0, false, false);
    while answers < wanted || !merged || !evicted {
        assert!(Instant::now() < end, "{answers} answers, merged: {merged}, evicted: {evicted}\n{}", gateway.last_lines());
        let acknowledged = writer.acknowledged();
        let sql = "select count(*), count(distinct seq), coalesce(min(seq), 1), coalesce(max(seq), 0), coalesce(sum(seq), 0)::bigint, \
                   (select kept from books), (select accepted from books), (select hot + sealed + delivered from books) from readings";
        let row = row(&gateway, sql);
        let [count, distinct, min, max, sum, kept, accepted, told] = row[..] else { panic!("{row:?}") };
        // What is evicted is the oldest: nothing else goes, and no loss explains a gap.
        assert_eq!((count, distinct, count, accepted, told), (kept, kept, max + 1 - min, max, max), "{row:?}");
        assert_eq!(sum, (min + max) * count / 2, "{row:?}");
        assert!(accepted >= acknowledged, "{acknowledged} were acknowledged before: {row:?}");
        evicted |= min > 1;
        merged = merged || answers % 50 == 0 && segments(&gateway).iter().any(|segment| segment["first_cut"] != segment["cut"]);
        answers += 1;
    }
    let written = writer.finish();
    assert_eq!(row(&gateway, "select max(seq), accepted from readings, books group by accepted"), [written, written]);
    assert_eq!(gateway.status()["engine"]["restarts"], 0);
    println!("{answers} answers over {written} readings, each sees each once");
}

#[test]
fn an_engine_killed_every_second_costs_no_reading_and_answers_again() {
    let mut gateway = Gateway::new(&format!("{LISTENER}[segment]\nseal_interval = \"2s\"\n"));
    gateway.start();
    gateway.wait_for("an answer", works);
    let gateway = Arc::new(gateway);
    let writer = Writer::start(&gateway, 20, Duration::from_millis(10));
    let mut waits = Vec::new();
    for _ in 0..wanted("FOREBAY_KILLS", 8) {
        let begun = Instant::now();
        let killed = Command::new("pkill").args(["-KILL", "-P", &gateway.pid().to_string()]).status().unwrap();
        assert!(killed.success(), "there is no engine to kill\n{}", gateway.last_lines());
        gateway.wait_for("an answer", works);
        waits.push(begun.elapsed());
        thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
    }
    let written = writer.finish();
    assert_eq!(row(&gateway, "select count(*), count(distinct seq) from readings"), [written, written]);
    waits.sort_unstable();
    println!("{} kills, answers again after {:?} at most, {:?} usually", waits.len(), waits[waits.len() - 1], waits[waits.len() / 2]);
}

#[test]
fn a_damaged_segment_is_named_and_set_aside_and_the_rest_is_answered() {
    let mut gateway = Gateway::new(LISTENER);
    gateway.start();
    let gateway = Arc::new(gateway);
    for _ in 0..3 {
        let one = r#"[{"sensor": "s", "metric": "m", "value": 1}, {"sensor": "s", "metric": "m", "value": 2}]"#;
        assert_eq!(answer(send(&gateway, "/api/v1/readings", "application/json", one)).0, 200);
        gateway.command(&["flush", "--wait", "1s"]);
    }
    let count = "select count(*), kept from readings, books group by kept";
    gateway.wait_for("an answer", works);
    assert_eq!(row(&gateway, count), [6, 6]);
    let mut files = parquet_files(&gateway.data().join("segments"));
    files.sort_unstable();
    assert_eq!(files.len(), 3, "{files:?}");
    fs::write(&files[1], "no Parquet").unwrap();
    let (status, _, body) = answer(ask(&gateway, "select sum(value) from readings"));
    let name = files[1].file_name().unwrap().to_str().unwrap();
    assert!(status == 503 && body.contains(name), "{status}: {body}");
    // Until it is checked again the answers are incomplete and say so; then its readings are a loss.
    gateway.wait_for("its quarantine", |gateway| gateway.books()["damaged"] == 2);
    assert_eq!(row(&gateway, count), [4, 4]);
    assert_eq!(row(&gateway, "select readings, first_seq from losses where reason = 'damaged'"), [2, 3]);
    let (status, head, _) = answer(ask(&gateway, "select 1"));
    assert!(status == 200 && !head.contains("forebay-incomplete"), "{head}");
    assert_eq!(gateway.status()["state"], "degraded");
    assert!(fs::read_dir(gateway.data().join("quarantine")).unwrap().count() > 0);
}

#[test]
fn a_hundred_clients_at_once_get_the_right_answer_or_are_told_to_come_back() {
    let mut gateway = Gateway::new(LISTENER);
    gateway.start();
    gateway.wait_for("an answer", works);
    let gateway = Arc::new(gateway);
    let crowd: Vec<_> = (0..100)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            // A second or so each, four at a time, and none waits longer than that for a place.
            let sql = "select count(*), 1 from range(30000) a, range(3000) b where (a.range * b.range) % 7 <> 9";
            thread::spawn(move || answer(ask(&gateway, sql)))
        })
        .collect();
    let (mut answered, mut refused) = (0, 0);
    for client in crowd {
        match client.join().unwrap() {
            (200, _, body) => {
                assert!(body.contains("90000000,1"), "{body}");
                answered += 1;
            }
            (429 | 503, head, body) => {
                assert!(head.contains("retry-after"), "{head}{body}");
                refused += 1;
            }
            (status, _, body) => panic!("{status}: {body}"),
        }
    }
    assert!(answered >= 4 && refused > 0, "{answered} answered, {refused} refused");
    assert!(works(&gateway));
    assert_eq!(gateway.status()["engine"]["restarts"], 0);
}

#[test]
fn a_slow_reader_of_ten_million_rows_keeps_nobody_waiting() {
    let mut gateway = Gateway::new(LISTENER);
    gateway.start();
    gateway.wait_for("an answer", works);
    let gateway = Arc::new(gateway);
    let memory = |gateway: &Gateway| {
        let status = gateway.status();
        [&status["process"]["rss_bytes"], &status["engine"]["rss_bytes"]].map(|bytes| bytes.as_u64().unwrap() >> 20)
    };
    let before = memory(&gateway);
    let mut slow = ask(&gateway, "select range, 'a text of some length' as text from range(10000000)");
    let writer = Writer::start(&gateway, 20, Duration::from_millis(10));
    let mut piece = vec![0; 16 << 10];
    for _ in 0..20 {
        slow.read_exact(&mut piece).unwrap();
        let acknowledged = writer.acknowledged();
        assert!(row(&gateway, "select count(*), 1 from readings")[0] >= acknowledged);
        thread::sleep(Duration::from_millis(50));
    }
    let after = memory(&gateway);
    assert!(after.iter().zip(before).all(|(after, before)| *after < before + 64), "from {before:?} to {after:?} MiB");
    drop(slow);
    let written = writer.finish();
    assert_eq!(row(&gateway, "select count(*), 1 from readings"), [written, 1]);
    assert_eq!(gateway.status()["engine"]["restarts"], 0);
}
