//! The engine beside a gateway at work: the memory of both, and what the engine's end costs.
//!
//! `cargo bench --bench engine`. 1,000 readings a second come in, ten to a request, and each second a small query asks for the
//! last minute. `FOREBAY_BENCH_SECONDS` is another time for each part.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark stops at the first surprise and prints its result"
)]

mod support;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use support::{Daemon, median, number, quantile};

/// What the hot table holds when measuring begins: with what comes in it is sealed meanwhile at the usual 250,000.
const BEFORE: usize = 220_000;

/// Readings of a request, and the time between two.
const READINGS: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);

const SMALL_QUERY: &str = "select sensor, count(*), avg(value) from readings where time > now() - interval 1 minute group by sensor";

/// What a machine of 512 MB chooses by itself.
const SMALL_MACHINE: &str = "[engine]\nmemory = \"102MiB\"\nthreads = 1\n";

fn main() {
    let seconds = std::env::var("FOREBAY_BENCH_SECONDS").map_or(60, |text| text.parse().unwrap());
    println!("| settings | daemon, resident | engine, resident | both, less what they share | readings/s |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, settings) in [("of this machine", ""), ("of a machine of 512 MB", SMALL_MACHINE)] {
        memory(name, settings, seconds);
    }
    println!("\n| engine | ack, median | ack, p99 | kills | answers again, median | at most |");
    println!("| --- | --- | --- | --- | --- | --- |");
    kills("left alone", false, seconds);
    kills("killed each second", true, seconds);
}

fn ready(settings: &str) -> (tempfile::TempDir, Arc<Daemon>) {
    let scratch = support::scratch();
    fs::create_dir(scratch.path().join("data")).unwrap();
    let daemon = Daemon::start_with_engine(scratch.path(), settings);
    while ask(&daemon, "select 1") != 200 {
        thread::sleep(Duration::from_millis(50));
    }
    (scratch, Arc::new(daemon))
}

fn ask(daemon: &Daemon, sql: &str) -> u16 {
    daemon.post("/api/v1/query", "application/json", &json!({"sql": sql, "format": "json"}).to_string()).0
}

fn send(daemon: &Daemon, readings: usize) {
    let reading = |place: usize| json!({"sensor": format!("s{}", place % 50), "metric": "temperature", "value": place % 977}).to_string();
    let body = (0..readings).map(reading).collect::<Vec<_>>().join("\n");
    assert_eq!(daemon.post("/api/v1/readings", "application/x-ndjson", &body).0, 200);
}

/// Senders enough that a request that waits for its commit holds up no other; each gives how long its requests took, in
/// milliseconds.
struct Senders {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<f64>>>,
    begun: Instant,
}

impl Senders {
    fn start(daemon: &Arc<Daemon>) -> Self {
        const SENDERS: u32 = 8;
        let stop = Arc::<AtomicBool>::default();
        let work = |place: u32| {
            let (daemon, stop) = (Arc::clone(daemon), Arc::clone(&stop));
            thread::spawn(move || {
                let (mut taken, mut next) = (Vec::new(), Instant::now() + place * PAUSE);
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    let begun = Instant::now();
                    send(&daemon, READINGS);
                    taken.push(begun.elapsed().as_secs_f64() * 1e3);
                    next += SENDERS * PAUSE;
                }
                taken
            })
        };
        let threads = (0..SENDERS).map(work).collect();
        Self { stop, threads, begun: Instant::now() }
    }

    /// The times of all requests, and the readings a second.
    fn finish(self) -> (Vec<f64>, f64) {
        self.stop.store(true, Ordering::Relaxed);
        let taken: Vec<f64> = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let rate = (taken.len() * READINGS) as f64 / self.begun.elapsed().as_secs_f64();
        (taken, rate)
    }
}

fn memory(name: &str, settings: &str, seconds: u32) {
    let (_scratch, daemon) = ready(settings);
    for _ in 0..BEFORE / 1000 {
        send(&daemon, 1000);
    }
    let senders = Senders::start(&daemon);
    let mut most = [0.0_f64; 3];
    for _ in 0..seconds {
        let begun = Instant::now();
        assert_eq!(ask(&daemon, SMALL_QUERY), 200);
        let status = daemon.status();
        let resident = [&status["process"]["rss_bytes"], &status["engine"]["rss_bytes"]].map(number);
        let both = proportional(daemon.pid()) + child_of(daemon.pid()).map_or(0.0, proportional);
        for (most, now) in most.iter_mut().zip([resident[0], resident[1], both]) {
            *most = most.max(now);
        }
        thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
    }
    let (_, rate) = senders.finish();
    let [own, engine, both] = most.map(|bytes| bytes / f64::from(1 << 20));
    println!("| {name} | {own:.0} MiB | {engine:.0} MiB | {both:.0} MiB | {rate:.0} |");
}

fn kills(name: &str, kill: bool, seconds: u32) {
    let (_scratch, daemon) = ready("");
    let senders = Senders::start(&daemon);
    let mut waits = Vec::new();
    for _ in 0..seconds {
        let begun = Instant::now();
        if kill {
            let engine = child_of(daemon.pid()).unwrap();
            assert!(Command::new("kill").args(["-KILL", &engine.to_string()]).status().unwrap().success());
        }
        while ask(&daemon, SMALL_QUERY) != 200 {
            thread::sleep(Duration::from_millis(5));
        }
        waits.push(begun.elapsed().as_secs_f64() * 1e3);
        thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
    }
    let (mut acks, _) = senders.finish();
    let kills = if kill { waits.len() } else { 0 };
    let (middle, last) = (median(&mut acks), quantile(&mut acks, 0.99));
    let (usual, longest) = (median(&mut waits), quantile(&mut waits, 1.0));
    println!("| {name} | {middle:.1} ms | {last:.1} ms | {kills} | {usual:.0} ms | {longest:.0} ms |");
}

/// Memory of a process in bytes, what it shares with others divided among them.
fn proportional(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

/// The engine of a daemon.
fn child_of(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.split_whitespace().next()?.parse().ok()
}
