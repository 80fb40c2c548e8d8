//! A quarter of a year in five-minute segments, delivered or not: files, bytes and memory of merging them, and with the engine how
//! long queries take before and after.
//!
//! `cargo bench --bench merge` (without the engine it leaves the queries out). The folder is made by the real ledger and the
//! real sealer, with an fsync at each step: `FOREBAY_BENCH_DIR` names one in memory, where that takes some minutes.
//! `FOREBAY_BENCH_CUTS` is another number of segments, `FOREBAY_BENCH_RATE` another number of readings a second, and
//! `FOREBAY_BENCH_SECONDS` how long a cut is. With `FOREBAY_BENCH_UNSHIPPED=1` nothing is delivered, as without an upstream.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at the first surprise and prints its result")]

#[cfg_attr(not(feature = "engine"), allow(unused_imports, reason = "the daemon is for queries alone"))]
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use forebay::clock::{Clock, SharedClock};
use forebay::config::{ByteSize, Period, Retention, Segment};
use forebay::ledger::{Ledger, Open};
use forebay::model::{Batch, MICROS_PER_DAY, Reading, Shipment, TimeSource, Timestamp};
use forebay::segment::{Demand, Merger, MergerSetup, Sealer, SealerHandle, SealerState, SegmentDir};
use tokio_util::sync::CancellationToken;

/// Ninety days of five minutes.
const CUTS: i64 = 26_000;

/// Length of a cut.
const SECONDS: i64 = 300;

/// Readings a second: ten sensors with one a second each.
const RATE: i64 = 10;

/// 2026-08-01T00:00:00Z.
const BEGIN: i64 = 1_785_542_400_000_000;

struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    fn synchronised(&self) -> bool {
        true
    }
}

fn main() {
    let scratch = support::scratch();
    let data = scratch.path().join("data");
    fs::create_dir(&data).unwrap();
    let wanted = |name: &str, usual: i64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (cuts, rate) = (wanted("FOREBAY_BENCH_CUTS", CUTS), wanted("FOREBAY_BENCH_RATE", RATE));
    let seconds = wanted("FOREBAY_BENCH_SECONDS", SECONDS);
    let unshipped = wanted("FOREBAY_BENCH_UNSHIPPED", 0) != 0;
    // In the future for the daemon that answers queries, so that it does not merge meanwhile what waits.
    let begin = if unshipped { BEGIN + 36_500 * MICROS_PER_DAY } else { BEGIN };
    let size = Size { cuts, readings: rate * seconds, micros: seconds * 1_000_000, begin, unshipped };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let begun = Instant::now();
    runtime.block_on(fill(&data, size));
    println!("{cuts} cuts of {} readings made in {:.0} s", size.readings, begun.elapsed().as_secs_f64());
    let before = queries(scratch.path(), size);
    runtime.block_on(merge(&data, size));
    let after = queries(scratch.path(), size);
    println!("milliseconds, less those of an answer that reads nothing; there are {:.1} million rows", size.rows() / 1e6);
    println!("| query | before the merge | after it | before : after | after, a million rows |");
    println!("| --- | --- | --- | --- | --- |");
    for ((query, before), (_, after)) in before.into_iter().zip(after) {
        let share = after / size.rows() * 1e6;
        println!("| {query} | {before:.1} | {after:.1} | {:.1} | {share:.2} |", before / after);
    }
}

#[derive(Clone, Copy)]
struct Size {
    cuts: i64,
    /// In a cut.
    readings: i64,
    /// How long a cut is.
    micros: i64,
    /// When the first begins.
    begin: i64,
    /// Nothing is delivered.
    unshipped: bool,
}

impl Size {
    fn rows(self) -> f64 {
        (self.cuts * self.readings) as f64
    }
}

struct House {
    ledger: Ledger,
    dir: SegmentDir,
    clock: Arc<SetClock>,
}

fn open(data: &Path, now: i64) -> House {
    let clock = Arc::new(SetClock(AtomicI64::new(now)));
    let host_id = fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
    let host_id = if host_id.is_empty() { "unknown".to_owned() } else { host_id };
    let ledger = Ledger::open(data, Open { host_id, clock: Arc::<SetClock>::clone(&clock) }).unwrap();
    House { ledger, dir: SegmentDir::open(data).unwrap(), clock }
}

async fn fill(data: &Path, size: Size) {
    let house = open(data, BEGIN);
    let clock: SharedClock = Arc::<SetClock>::clone(&house.clock);
    let settings = Segment { seal_interval: Period(Duration::from_secs(3600)), seal_readings: 1_000_000 };
    let (sealer, handle) = Sealer::new(house.ledger.clone(), house.dir.clone(), settings, clock, Arc::new(SealerState::default()));
    let stop = CancellationToken::new();
    let task = tokio::spawn(sealer.run(stop.clone()));
    for cut in 0..size.cuts {
        let number = make_cut(&house, &handle, cut, size).await;
        if !size.unshipped {
            deliver(&house, number).await;
        }
    }
    stop.cancel();
    task.await.unwrap().unwrap();
    house.ledger.close().await.unwrap();
}

async fn make_cut(house: &House, sealer: &SealerHandle, cut: i64, size: Size) -> u64 {
    let begin = size.begin + cut * size.micros;
    house.clock.0.store(begin + size.micros, Ordering::Relaxed);
    let readings = (0..size.readings).map(|place| reading(begin + place * size.micros / size.readings, place)).collect();
    house.ledger.commit(Batch { readings, ..Batch::default() }).await.unwrap();
    sealer.seal_now(Demand::Flush).await.unwrap().unwrap()
}

async fn deliver(house: &House, number: u64) {
    let instance = house.ledger.identity().instance;
    let shipment = Shipment {
        instance: instance.clone(),
        number,
        cut: Some(number),
        first_cut: Some(number),
        manifest: b"{}".to_vec(),
        losses: Vec::new(),
    };
    house.ledger.begin_shipment(shipment).await.unwrap();
    house.ledger.finish_shipment(instance, number).await.unwrap();
}

fn reading(time: i64, place: i64) -> Reading {
    let slow = (time as f64 / 1e6 / 3600.0).sin();
    Reading {
        time: Timestamp(time),
        sensor: Arc::from(format!("sensor-{:02}", place % 10)),
        metric: Arc::from("temperature"),
        value: Some((2000.0 + 500.0 * slow + (place % 7) as f64).round() / 100.0),
        text: None,
        unit: Some(Arc::from("°C")),
        quality: None,
        arrived: Timestamp(time + 20_000 + place),
        time_source: TimeSource::Sensor,
    }
}

async fn merge(data: &Path, size: Size) {
    let later = if size.unshipped { 2 * MICROS_PER_DAY } else { MICROS_PER_DAY / 24 };
    let house = open(data, size.begin + size.cuts * size.micros + later);
    let segments = house.ledger.reader().unwrap().segments().unwrap();
    let (files, bytes): (usize, u64) = (segments.len(), segments.iter().map(|segment| segment.bytes).sum());
    verify_all(&house).await;
    let clock = Arc::<SetClock>::clone(&house.clock);
    let merger = Merger::new(MergerSetup {
        ledger: house.ledger.clone(),
        dir: house.dir.clone(),
        clock,
        state: Arc::new(SealerState::default()),
        data_dir: data.to_owned(),
        segment: Segment::default(),
        retention: tokio::sync::watch::channel(Retention { min_free: ByteSize(0), ..Retention::default() }).1,
    });
    drop(segments);
    let before = memory("VmRSS:");
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let begun = Instant::now();
    let stop = CancellationToken::new();
    let done = if size.unshipped { merger.merge_waiting(0, &stop).await } else { merger.merge_due(0, &stop).await }.unwrap();
    let took = begun.elapsed().as_secs_f64();
    let peak = memory("VmHWM:");
    while merger.remove_leaving().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let reader = house.ledger.reader().unwrap();
    let after = reader.segments().unwrap();
    let after_bytes: u64 = after.iter().map(|segment| segment.bytes).sum();
    println!("files {files} -> {}, bytes {bytes} -> {after_bytes}", after.len());
    println!("{} merges of {} files in {took:.1} s; memory {before} KiB, at most {peak} KiB", done.merges, done.sources);
    let rows = size.rows();
    println!("rows written {:.2} times, {:.1} bytes a reading", done.rows as f64 / rows, done.bytes as f64 / rows);
    drop(reader);
    house.ledger.close().await.unwrap();
}

/// As the scrubber does after a start.
async fn verify_all(house: &House) {
    let stop = CancellationToken::new();
    let state = Arc::new(SealerState::default());
    let scrubber = forebay::segment::Scrubber::new(house.ledger.clone(), house.dir.clone(), Arc::clone(&state));
    let task = tokio::spawn(scrubber.run(stop.clone()));
    let all = house.ledger.reader().unwrap().segment_count().unwrap();
    while state.verified() < all {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.cancel();
    task.await.unwrap().unwrap();
}

/// A line of `/proc/self/status`, in KiB.
fn memory(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[cfg(not(feature = "engine"))]
fn queries(_: &Path, _: Size) -> Vec<(&'static str, f64)> {
    Vec::new()
}

/// Through the program's door, as a dashboard asks; each in milliseconds.
#[cfg(feature = "engine")]
fn queries(folder: &Path, size: Size) -> Vec<(&'static str, f64)> {
    // Without an upstream nothing is merged meanwhile that is not yet.
    let daemon = support::Daemon::start_with_engine(folder, "[engine]\nquery_timeout = \"5m\"\n");
    let are_attached = |status: serde_json::Value| status.pointer("/engine/segments") == status.pointer("/buffer/segments");
    while !are_attached(daemon.status()) {
        std::thread::sleep(Duration::from_millis(200));
    }
    let hour = Timestamp(size.begin + size.cuts * size.micros - MICROS_PER_DAY / 24).to_string();
    let hour = hour.trim_end_matches('Z');
    let asked = [
        ("nothing", "select 1".to_owned()),
        ("the last hour", format!("select count(*), avg(value) from readings where time >= timestamp '{hour}'")),
        ("count of everything", "select count(*) from readings".to_owned()),
        ("average of everything", "select avg(value) from readings".to_owned()),
        ("by sensor", "select sensor, min(value), max(value) from readings group by sensor".to_owned()),
    ];
    let mut nothing = 0.0;
    let measured = asked.into_iter().map(|(what, sql)| {
        let took = median_of(&daemon, &sql);
        if what == "nothing" {
            nothing = took;
            (what, took)
        } else {
            (what, took - nothing)
        }
    });
    let measured = measured.collect();
    let status = daemon.status();
    let engine = |field: &str| status.pointer(&format!("/engine/{field}")).map_or(0.0, support::number);
    let (segments, resident) = (engine("segments"), engine("rss_bytes") / f64::from(1 << 20));
    println!("the engine holds {segments} segments in {resident:.0} MiB; it was started again {} times", engine("restarts"));
    daemon.stop();
    measured
}

/// Nine times, or for half a minute.
#[cfg(feature = "engine")]
fn median_of(daemon: &support::Daemon, sql: &str) -> f64 {
    let (begun, mut taken) = (Instant::now(), Vec::new());
    let body = serde_json::json!({"sql": sql, "format": "csv"}).to_string();
    while taken.len() < 9 && (taken.is_empty() || begun.elapsed() < Duration::from_secs(30)) {
        let begun = Instant::now();
        let (status, answer) = daemon.post("/api/v1/query", "application/json", &body);
        taken.push(begun.elapsed().as_secs_f64() * 1e3);
        assert_eq!(status, 200, "no answer to {sql}: {answer}");
    }
    support::median(&mut taken)
}
