//! Bytes a reading takes in a segment, by series, and what sealing a full cut costs in time and memory.
//!
//! `cargo bench --bench segment_size -- <folder>` (or `FOREBAY_DATASETS=<folder>`) reads every CSV file of the folder: one
//! column of times, the others values. Without a folder it makes series of its own, the same at every run.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at the first surprise and prints its result")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use forebay::clock::SystemClock;
use forebay::config::{Period, Segment};
use forebay::ledger::{Ledger, Open};
use forebay::model::{Batch, InstanceId, MICROS_PER_DAY, Reading, TimeSource, Timestamp, columns};
use forebay::segment::{Demand, Origin, Sealer, SealerState, SegmentDir, write_readings};
use tokio_util::sync::CancellationToken;

/// Readings of a full cut.
const FULL_CUT: usize = 250_000;

/// Readings of a commit.
const COMMIT: usize = 1000;

fn main() {
    let folder = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).or_else(|| std::env::var("FOREBAY_DATASETS").ok());
    let sets = folder.map_or_else(own_series, |folder| csv_files(Path::new(&folder)));
    // First, while the process is small.
    tokio::runtime::Runtime::new().unwrap().block_on(seal_full_cut(&sets));
    println!("\n{:<48} {:>9} {:>10} {:>9}", "series", "readings", "bytes", "a reading");
    for (name, readings) in &sets {
        print_size(name, readings);
    }
    print_size("all of them in one file", &sets.into_iter().flat_map(|(_, readings)| readings).collect::<Vec<_>>());
}

fn print_size(name: &str, readings: &[Reading]) {
    let batch = columns::decode_journal(&columns::encode_journal(readings).unwrap(), 1).unwrap();
    let origin =
        Origin { instance: InstanceId::random(), cut: 1, first_cut: 1, first_seq: 1, last_seq: readings.len() as u64, delivered: false };
    let written = write_readings(std::io::sink(), &batch, &origin).unwrap();
    let each = written.bytes as f64 / readings.len() as f64;
    println!("{name:<48} {:>9} {:>10} {each:>9.2}", readings.len(), written.bytes);
}

fn reading(sensor: &str, metric: &str, time: i64, value: f64, delay: i64) -> Reading {
    Reading {
        time: Timestamp(time),
        sensor: Arc::from(sensor),
        metric: Arc::from(metric),
        value: Some(value),
        text: None,
        unit: None,
        quality: None,
        arrived: Timestamp(time + delay),
        time_source: TimeSource::Sensor,
    }
}

/// All series again and again under other sensor names, in the order of places, up to a full cut.
fn full_cut(sets: &[(String, Vec<Reading>)]) -> impl Iterator<Item = Reading> {
    let copies = FULL_CUT.div_ceil(sets.iter().map(|(_, readings)| readings.len()).sum());
    let copy = |reading: &Reading, place: usize| Reading {
        sensor: Arc::from(format!("{}-{place}", reading.sensor)),
        // Within few days, as they would arrive.
        time: Timestamp(reading.time.0.rem_euclid(3 * MICROS_PER_DAY) + place as i64),
        arrived: Timestamp(reading.arrived.0.rem_euclid(3 * MICROS_PER_DAY) + place as i64),
        ..reading.clone()
    };
    let readings = sets.iter().flat_map(|(_, readings)| readings);
    readings.flat_map(move |reading| (0..copies).map(move |place| copy(reading, place))).take(FULL_CUT)
}

/// xorshift: the same noise in 0..1 at every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn own_series() -> Vec<(String, Vec<Reading>)> {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut series = |name: &str, value: &mut dyn FnMut(f64, usize) -> f64| {
        let mut readings = Vec::new();
        for place in 0..20_000 {
            let (value, delay) = (value(noise.next(), place), (noise.next() * 50_000.0) as i64);
            readings.push(reading("sensor", "value", 1_700_000_000_000_000 + place as i64 * 1_000_000, value, delay));
        }
        (name.to_owned(), readings)
    };
    let mut walk = 20.0;
    vec![
        series("random walk, rounded to 0.01", &mut |noise, _| {
            walk += noise - 0.5;
            (walk * 100.0_f64).round() / 100.0
        }),
        series("noise of the full mantissa", &mut |noise, _| 20.0 + noise),
        series("counter", &mut |noise, place| (place * 3) as f64 + (noise * 3.0).floor()),
        series("on and off", &mut |noise, _| f64::from(noise > 0.9)),
    ]
}

fn csv_files(folder: &Path) -> Vec<(String, Vec<Reading>)> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    paths.sort();
    paths.iter().map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), csv(&fs::read_to_string(path).unwrap()))).collect()
}

/// The column named like a time holds it; what is no number elsewhere is left out.
fn csv(text: &str) -> Vec<Reading> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let time_place = header.iter().position(|name| ["time", "timestamp", "date"].contains(&name.to_lowercase().as_str())).unwrap();
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let mut readings = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let time = time(cells.get(time_place).unwrap());
        let delay = (noise.next() * 50_000.0) as i64;
        for (name, cell) in header.iter().zip(&cells).filter(|(name, _)| header.get(time_place) != Some(name)) {
            readings.extend(cell.parse().ok().map(|value| reading("sensor", name, time, value, delay)));
        }
    }
    readings
}

fn time(text: &str) -> i64 {
    let text = text.replace('/', "-").replace(' ', "T");
    let zoned = if text.len() > 19 { text } else { format!("{text}Z") };
    zoned.parse::<Timestamp>().unwrap().0
}

async fn seal_full_cut(sets: &[(String, Vec<Reading>)]) {
    let scratch = std::env::temp_dir().join(format!("forebay-bench-{}", std::process::id()));
    fs::create_dir(&scratch).unwrap();
    let clock = Arc::new(SystemClock);
    let ledger = Ledger::open(&scratch, Open { host_id: "bench".to_owned(), clock: clock.clone() }).unwrap();
    let mut readings = full_cut(sets).peekable();
    while readings.peek().is_some() {
        let batch = Batch { readings: readings.by_ref().take(COMMIT).collect(), ..Batch::default() };
        ledger.commit(batch).await.unwrap();
    }
    let dir = SegmentDir::open(&scratch).unwrap();
    let settings = Segment { seal_interval: Period(std::time::Duration::from_secs(3600)), seal_readings: FULL_CUT as u64 * 2 };
    let stop = CancellationToken::new();
    let reader = ledger.reader().unwrap();
    let (sealer, handle) = Sealer::new(ledger, dir, settings, clock, Arc::new(SealerState::default()));
    let before = (memory("VmRSS:"), fs::write("/proc/self/clear_refs", "5").is_ok());
    let begun = Instant::now();
    let task = tokio::spawn(sealer.run(stop.clone()));
    handle.seal_now(Demand::Flush).await.unwrap();
    let took = begun.elapsed();
    let bytes: u64 = reader.segments().unwrap().iter().map(|segment| segment.bytes).sum();
    println!("sealing {FULL_CUT} readings: {} ms, {bytes} bytes", took.as_millis());
    if let ((Some(before), true), Some(peak), Some(after)) = (before, memory("VmHWM:"), memory("VmRSS:")) {
        println!("memory: {before} KiB before, at most {} KiB more, {after} KiB after", peak.saturating_sub(before));
    }
    stop.cancel();
    task.await.unwrap().unwrap();
    fs::remove_dir_all(&scratch).unwrap();
}

/// A line of `/proc/self/status`, in KiB.
fn memory(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}
