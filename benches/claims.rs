//! What the storage claims, against SQLite with one row a reading and an index on sensor, metric and time, and against SQLite
//! with one JSON body a reading: bytes, a range, an aggregation, the latest, and how long it takes to come back from files.
//!
//! `cargo bench --bench claims` takes some minutes and 5 GB on the disk of `target`, or where `FOREBAY_BENCH_DIR` says;
//! `FOREBAY_BENCH_READINGS` is another number than ten million. All three hold the same readings with the same columns.
//! SQLite answers in this process, from its file in the system's cache; forebay as other programs ask it, over its socket.
//! Below the table stands what its figures are made of.

#![expect(clippy::print_stdout, reason = "a benchmark stops at the first surprise and prints its result")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "as above")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use forebay::api::QueryRequest;
use forebay::cli::connect::{self, encoded};
use forebay::model::{Timestamp, columns};
use forebay::segment::ReadingsWriter;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use rusqlite::types::Value as SqlValue;
use serde_json::Value;
use support::peers::{Peer, Peers};
use support::shape::{BEGIN, INTERVAL, Readings, SERIES, series};
use support::{Daemon, median, number};

const READINGS: usize = 10_000_000;

/// As much of time as a cap of files is good for.
const MAX_SEGMENTS: usize = 50;

/// Readings handed on at once.
const BATCH: usize = 65_536;

const HOUR: i64 = 3_600_000_000;

/// The series that is asked for, somewhere in the middle.
const ASKED: usize = 203;

fn main() {
    let count = std::env::var("FOREBAY_BENCH_READINGS").map_or(READINGS, |count| count.parse().unwrap());
    let scratch = support::scratch();
    let file = scratch.path().join("readings.parquet");
    write_parquet(&file, count);
    let gateway = scratch.path().join("gateway");
    fs::create_dir(&gateway).unwrap();
    let daemon = Daemon::start_with_engine(&gateway);
    let imported = time_of(|| daemon.import(&file));
    let sealed = time_of(|| daemon.flush()) + imported;
    let segments = segments(&gateway);
    assert!(segments.len() <= MAX_SEGMENTS, "{} segments", segments.len());
    wait_until_attached(&daemon);
    let mut rows = None;
    let inserted = time_of(|| rows = Some(Peers::fill(Peer::Rows, scratch.path(), Readings::new().take(count)).0));
    let mut json = None;
    let (mut bodies, inserted_json) = (0, time_of(|| json = Some(Peers::fill(Peer::Json, scratch.path(), Readings::new().take(count)))));
    let (json, mut rows) = (json.map(|(json, bytes)| (bodies = bytes, json).1).unwrap(), rows.unwrap());

    println!("{count} readings of {SERIES} series, {} segments", segments.len());
    println!("{:<34} {:>12} {:>12} {:>12} {:>9} {:>9}  claimed", "", "forebay", "rows", "JSON", "to rows", "to JSON");
    let bytes = |path: &Path| fs::metadata(path).unwrap().len() as f64;
    let ours: f64 = segments.iter().map(|path| bytes(path)).sum();
    let each = |bytes: f64| bytes / count as f64;
    print("bytes a reading", each(ours), Some(each(bytes(rows.path()))), Some(each(bytes(json.path()))), "20, 40");
    print("... to the bodies alone", each(ours), None, Some(each(bodies as f64)), "40");
    let ask = Ask::new(&daemon, count);
    questions(&ask, &mut rows, &json, &segments);
    print("import, ms until durable", imported, Some(inserted), Some(inserted_json), "20");
    print("import and sealing, ms", sealed, Some(inserted), Some(inserted_json), "");
    let floors = ask.floors();
    let recovered = recover(daemon, &gateway, count);
    print("back from segments alone, ms", recovered, Some(inserted), Some(inserted_json), "20");
    println!("\nasked for nothing: {:.2} ms by the socket, {:.2} ms through the engine", floors[0], floors[1]);
    print_columns(&segments, count);
}

/// A line of the table. Ratios say how many times as much the others take.
fn print(what: &str, ours: f64, rows: Option<f64>, json: Option<f64>, claimed: &str) {
    let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let ratio = |other: Option<f64>| other.map_or("-".to_owned(), |other| format!("{:.1}", other / ours));
    let (ours, to_rows, to_json) = (figure(Some(ours)), ratio(rows), ratio(json));
    println!("{what:<34} {ours:>12} {:>12} {:>12} {to_rows:>9} {to_json:>9}  {claimed}", figure(rows), figure(json));
}

/// In milliseconds.
fn time_of(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64() * 1e3
}

/// The median time of some runs, after one that is not counted.
fn usual(runs: usize, mut work: impl FnMut()) -> f64 {
    work();
    median(&mut (0..runs).map(|_| time_of(&mut work)).collect::<Vec<_>>())
}

fn write_parquet(path: &Path, count: usize) {
    let mut readings = Readings::new().take(count);
    let mut writer = None;
    let mut first_seq = 1;
    loop {
        let some: Vec<_> = readings.by_ref().take(BATCH).collect();
        if some.is_empty() {
            break;
        }
        let batch = columns::decode_journal(&columns::encode_journal(&some).unwrap(), first_seq).unwrap();
        let batch = columns::plain_words(&batch).unwrap();
        first_seq += some.len() as u64;
        let writer = writer.get_or_insert_with(|| ReadingsWriter::begin(File::create(path).unwrap(), &batch).unwrap());
        writer.write(&batch).unwrap();
    }
    writer.unwrap().finish().unwrap();
}

fn segments(gateway: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![gateway.join("data/segments")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let is_segment = entry.extension().is_some_and(|extension| extension == "parquet");
            if is_segment {
                found.push(entry)
            } else if entry.is_dir() {
                folders.push(entry)
            }
        }
    }
    found
}

fn wait_until_attached(daemon: &Daemon) {
    let is_attached = |status: Value| status["engine"]["segments"] == status["buffer"]["segments"];
    while !is_attached(daemon.status()) {
        sleep(Duration::from_millis(100));
    }
}

/// All questions, each to everybody; who has few readings to look at is asked more often.
fn questions(ask: &Ask, rows: &mut Peers, json: &Peers, segments: &[PathBuf]) {
    let few = |work: &mut dyn FnMut()| usual(25, work);
    let of_series = |peers: &Peers, times: bool| {
        let mut values: Vec<SqlValue> = vec![ask.sensor.clone().into(), ask.metric.to_owned().into()];
        values.extend([ask.from, ask.to].into_iter().filter(|_| times).map(|time| peers.time(time)));
        values
    };
    let hour = |peers: &Peers, peer: Peer| assert_eq!(peers.ask(peer.range(), &of_series(peers, true)), ask.expected);
    let slow_hour = time_of(|| hour(json, Peer::Json));
    let quick_hour = few(&mut || hour(rows, Peer::Rows));
    print("an hour of a series, ms", few(&mut || ask.hour()), Some(quick_hour), Some(slow_hour), "1, 5");
    print("... by SQL", few(&mut || ask.hour_by_sql()), Some(quick_hour), Some(slow_hour), "1, 5");
    let cold = |work: &mut dyn FnMut()| median(&mut (0..9).map(|_| time_of(&mut *work)).collect::<Vec<_>>());
    let ours = cold(&mut || {
        forget(segments);
        ask.hour();
    });
    let theirs = cold(&mut || {
        rows.reopen();
        forget(&[rows.path().to_owned()]);
        assert_eq!(rows.ask(Peer::Rows.range(), &of_series(rows, true)), ask.expected);
    });
    print("... with nothing in the cache", ours, Some(theirs), None, "");

    let all = |peers: &Peers, sql: &str| assert_eq!(peers.ask(sql, &[]), SERIES);
    let (rows_all, json_all) = (usual(2, || all(rows, Peer::Rows.aggregate())), time_of(|| all(json, Peer::Json.aggregate())));
    print("count, avg, min, max of each, ms", usual(5, || ask.aggregate()), Some(rows_all), Some(json_all), "50");

    let one = |peers: &Peers, peer: Peer| assert_eq!(peers.ask(peer.latest(), &of_series(peers, false)), 1);
    let (rows_one, json_one) = (few(&mut || one(rows, Peer::Rows)), time_of(|| one(json, Peer::Json)));
    print("the latest of a series, ms", few(&mut || ask.latest()), Some(rows_one), Some(json_one), "3");
    let (rows_all, json_all) = (usual(2, || all(rows, Peer::Rows.all_latest())), time_of(|| all(json, Peer::Json.all_latest())));
    print("the latest of each, ms", few(&mut || ask.all_latest()), Some(rows_all), Some(json_all), "3");
}

/// Takes files out of the system's cache.
fn forget(paths: &[PathBuf]) {
    for path in paths {
        let file = File::open(path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

/// The questions to forebay.
struct Ask {
    runtime: tokio::runtime::Runtime,
    daemon: connect::Daemon,
    sensor: String,
    metric: &'static str,
    /// An hour in the middle.
    from: Timestamp,
    to: Timestamp,
    /// Readings in it.
    expected: usize,
}

impl Ask {
    fn new(daemon: &Daemon, count: usize) -> Self {
        let ((sensor, metric), rounds) = (series(ASKED), count / SERIES);
        let from = BEGIN + rounds as i64 / 2 * INTERVAL;
        Self {
            runtime: tokio::runtime::Runtime::new().unwrap(),
            daemon: connect::Daemon::find(Some(daemon.socket().to_owned())),
            sensor,
            metric,
            from: Timestamp(from),
            to: Timestamp(from + HOUR),
            expected: (HOUR / INTERVAL).min((rounds - rounds / 2) as i64) as usize,
        }
    }

    fn get(&self, path: &str) -> Value {
        self.runtime.block_on(self.daemon.get(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// How many rows the answer has.
    fn query(&self, sql: &str) -> usize {
        let request = QueryRequest { sql: sql.to_owned(), format: None, max_rows: None };
        let answer: Vec<Value> = self.runtime.block_on(self.daemon.post("/api/v1/query", &request, Duration::ZERO)).unwrap();
        answer.len()
    }

    fn hour(&self) {
        let (sensor, metric, from, to) = (encoded(&self.sensor), self.metric, self.from, self.to);
        let answer = self.get(&format!("/api/v1/range?sensor={sensor}&metric={metric}&from={from}&to={to}"));
        assert_eq!(answer["readings"].as_array().unwrap().len(), self.expected);
    }

    fn hour_by_sql(&self) {
        let Self { sensor, metric, from, to, .. } = self;
        let rows = self.query(&format!(
            "select time, value from readings where sensor = '{sensor}' and metric = '{metric}' \
             and time >= '{from}'::timestamp and time < '{to}'::timestamp order by time"
        ));
        assert_eq!(rows, self.expected);
    }

    fn aggregate(&self) {
        let sql = "select sensor, metric, count(*), avg(value), min(value), max(value) from readings group by sensor, metric";
        assert_eq!(self.query(sql), SERIES);
    }

    fn latest(&self) {
        let (sensor, metric) = (encoded(&self.sensor), self.metric);
        assert_eq!(self.newest(&format!("?sensor={sensor}&metric={metric}")), 1);
    }

    /// How many series have a newest reading.
    fn newest(&self, which: &str) -> usize {
        self.get(&format!("/api/v1/latest{which}"))["latest"].as_array().unwrap().len()
    }

    fn all_latest(&self) {
        assert_eq!(self.newest(""), SERIES);
    }

    /// What an answer costs that reads nothing: by the socket, and through the engine.
    fn floors(&self) -> [f64; 2] {
        let nobody = || assert_eq!(self.newest("?sensor=nobody"), 0);
        [usual(25, nobody), usual(25, || assert_eq!(self.query("select 1"), 1))]
    }
}

/// Loses the ledger, and starts with the segments alone: until the daemon is ready, with all of its readings in the books.
fn recover(daemon: Daemon, gateway: &Path, count: usize) -> f64 {
    daemon.kill();
    for name in ["forebay.db", "forebay.db-wal", "forebay.db-shm"] {
        let _ = fs::remove_file(gateway.join("data").join(name));
    }
    let daemon = Daemon::start_with_engine(gateway);
    assert_eq!(number(&daemon.status()["books"]["kept"]) as usize, count);
    let ready = daemon.ready_after.as_secs_f64() * 1e3;
    daemon.stop();
    ready
}

/// Where the bytes of the segments are.
fn print_columns(segments: &[PathBuf], count: usize) {
    let mut bytes: BTreeMap<String, f64> = BTreeMap::new();
    for path in segments {
        let file = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
        for column in file.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            *bytes.entry(column.column_path().string()).or_default() += column.compressed_size() as f64;
        }
    }
    let shown = bytes.iter().map(|(name, bytes)| format!("{name} {:.2}", bytes / count as f64));
    println!("bytes a reading by column: {}", shown.collect::<Vec<_>>().join(", "));
}
