//! The engine beside a gateway at work: the memory of both, what the engine's end costs, and what attacks cost.
//!
//! `cargo bench --bench engine`. Memory: with nothing at all, then with a hot table that is nearly full, readings coming in, ten
//! to a request, and a small query over the last minute each second. The engine's end, and the statements of the attack list
//! with the bombs: at 1,000 readings a second. `FOREBAY_BENCH_SECONDS` is another time for each part.

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

/// Readings a second where memory is looked at, and those of a request.
const RATES: [u32; 3] = [10, 100, FULL_RATE];
const FULL_RATE: u32 = 1000;
const READINGS: u32 = 10;

const SMALL_QUERY: &str = "select sensor, count(*), avg(value) from readings where time > now() - interval 1 minute group by sensor";

/// Statements that reach for what is not theirs, and those that would take all the time or memory there is.
const ATTACKS: &str = include_str!("../tests/fixtures/sql/attacks.sql");
const BOMBS: &str = include_str!("../tests/fixtures/sql/bombs.sql");

/// The limit of a query then.
const IMPATIENT: &str = "[engine]\nquery_timeout = \"2s\"\n";

/// What a machine of 512 MB chooses by itself.
const SMALL_MACHINE: &str = "[engine]\nmemory = \"102MiB\"\nthreads = 1\n";

fn main() {
    let seconds = std::env::var("FOREBAY_BENCH_SECONDS").map_or(60, |text| text.parse().unwrap());
    println!("| settings | readings/s | daemon, resident | engine, resident | both, less what they share |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, settings) in [("of this machine", ""), ("of a machine of 512 MB", SMALL_MACHINE)] {
        idle(name, settings, seconds);
        RATES.iter().for_each(|rate| memory(name, settings, *rate, seconds));
    }
    println!("\n| engine | ack, median | ack, p99 | kills | answers again, median | at most |");
    println!("| --- | --- | --- | --- | --- | --- |");
    kills("left alone", false, seconds);
    kills("killed each second", true, seconds);
    println!("\n| queries | ack, median | ack, p99 | the longest query | daemon, more resident than before |");
    println!("| --- | --- | --- | --- | --- |");
    siege(seconds);
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
    fn start(daemon: &Arc<Daemon>, rate: u32) -> Self {
        const SENDERS: u32 = 8;
        let pause = Duration::from_secs(1) * READINGS / rate;
        let stop = Arc::<AtomicBool>::default();
        let work = |place: u32| {
            let (daemon, stop) = (Arc::clone(daemon), Arc::clone(&stop));
            thread::spawn(move || {
                let (mut taken, mut next) = (Vec::new(), Instant::now() + place * pause);
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    let begun = Instant::now();
                    send(&daemon, READINGS as usize);
                    taken.push(begun.elapsed().as_secs_f64() * 1e3);
                    next += SENDERS * pause;
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
        let rate = (taken.len() * READINGS as usize) as f64 / self.begun.elapsed().as_secs_f64();
        (taken, rate)
    }
}

/// Nothing comes in, and nobody asks.
fn idle(name: &str, settings: &str, seconds: u32) {
    let (_scratch, daemon) = ready(settings);
    thread::sleep(Duration::from_secs(u64::from(seconds.min(10))));
    print_memory(name, resident(&daemon), 0.0);
}

fn memory(name: &str, settings: &str, rate: u32, seconds: u32) {
    let (_scratch, daemon) = ready(settings);
    for _ in 0..BEFORE / 1000 {
        send(&daemon, 1000);
    }
    let senders = Senders::start(&daemon, rate);
    let mut most = [0.0_f64; 3];
    for _ in 0..seconds {
        let begun = Instant::now();
        assert_eq!(ask(&daemon, SMALL_QUERY), 200);
        for (most, now) in most.iter_mut().zip(resident(&daemon)) {
            *most = most.max(now);
        }
        thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
    }
    print_memory(name, most, senders.finish().1);
}

/// Bytes of the daemon, of its engine, and of both without what they share.
fn resident(daemon: &Daemon) -> [f64; 3] {
    let status = daemon.status();
    let [own, engine] = [&status["process"]["rss_bytes"], &status["engine"]["rss_bytes"]].map(number);
    [own, engine, proportional(daemon.pid()) + proportional(child_of(daemon.pid()).unwrap())]
}

fn print_memory(name: &str, bytes: [f64; 3], rate: f64) {
    let [own, engine, both] = bytes.map(|bytes| bytes / f64::from(1 << 20));
    println!("| {name} | {rate:.0} | {own:.0} MiB | {engine:.0} MiB | {both:.0} MiB |");
}

fn kills(name: &str, kill: bool, seconds: u32) {
    let (_scratch, daemon) = ready("");
    let senders = Senders::start(&daemon, FULL_RATE);
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

fn siege(seconds: u32) {
    let (_scratch, daemon) = ready(IMPATIENT);
    let senders = Senders::start(&daemon, FULL_RATE);
    thread::sleep(Duration::from_secs(u64::from(seconds)));
    print_siege("none", senders.finish().0, 0.0, 0.0);
    let before = daemon.memory();
    let senders = Senders::start(&daemon, FULL_RATE);
    let (mut longest, mut most) = (0.0_f64, before);
    for statement in ATTACKS.lines().chain(BOMBS.lines()).filter(|line| !line.is_empty() && !line.starts_with("--")) {
        let begun = Instant::now();
        // That attacks are refused, and bombs end, is the tests' affair.
        ask(&daemon, &fill_in(statement));
        longest = longest.max(begun.elapsed().as_secs_f64());
        most = most.max(daemon.memory());
        // After a bomb that ended it the engine is there again.
        while ask(&daemon, "select 1") != 200 {
            thread::sleep(Duration::from_millis(20));
        }
    }
    print_siege("attacks and bombs", senders.finish().0, longest, most - before);
}

fn fill_in(statement: &str) -> String {
    let deep = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let wide = (0..20_000).map(|place| place.to_string()).collect::<Vec<_>>().join(", ");
    let statement = statement.replace("{secret}", "/etc/passwd").replace("{ledger}", "forebay.db").replace("{outside}", "../evil");
    let statement = statement.replace("{inside}", "evil").replace("{segment}", "readings").replace("{port}", "1").replace("\\n", "\n");
    statement.replace("{deep}", &deep).replace("{wide}", &wide)
}

fn print_siege(name: &str, mut acks: Vec<f64>, longest: f64, more: f64) {
    let (middle, last) = (median(&mut acks), quantile(&mut acks, 0.99));
    println!("| {name} | {middle:.1} ms | {last:.1} ms | {longest:.1} s | {:.1} MiB |", more / f64::from(1 << 20));
}

/// Memory of a process in bytes, what it shares with others divided among them.
fn proportional(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

/// The engine of a daemon: its only child, of whichever thread.
fn child_of(pid: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let mut children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    children.find_map(|children| children.split_whitespace().next()?.parse().ok())
}
