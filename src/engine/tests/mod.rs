//! The engine for real: a child process with DuckDB, fed from a real ledger and real segments.

mod answers;
mod attacks;
mod faults;
mod feeding;
mod isolation;
mod own_unit;
mod times;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::SystemClock;
use crate::config::{self, Period};
use crate::ledger::{Ledger, Open};
use crate::model::{Batch, Reading, Record, Tally, TimeSource, Timestamp};
use crate::segment::{Demand, Sealer, SealerHandle, SegmentDir};

/// 2026-11-20T10:00:00Z.
const TEN_O_CLOCK: i64 = 1_795_168_800_000_000;

/// The child of the tests below is this very test program, told to run nothing but this.
#[test]
#[ignore = "the child process of the other tests; it needs their socket"]
fn child() {
    child_main();
}

#[test]
#[ignore = "as above"]
fn child_without_sql_layer() {
    super::child::child_without_sql_layer();
}

fn program(child: &str) -> Program {
    let args = [child, "--exact", "--ignored", "--nocapture"].map(Into::into).to_vec();
    Program { path: std::env::current_exe().unwrap(), args }
}

/// A ledger and a sealer in a scratch folder, and an engine beside them.
struct Bench {
    folder: TempDir,
    ledger: Ledger,
    dir: SegmentDir,
    sealer: SealerHandle,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Bench {
    fn new() -> Self {
        // Shown with a test that fails.
        let _ = tracing_subscriber::fmt().with_test_writer().with_max_level(tracing::Level::INFO).try_init();
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock);
        let ledger = Ledger::open(folder.path(), Open { host_id: "host".to_owned(), clock: clock.clone() }).unwrap();
        let dir = SegmentDir::open(folder.path()).unwrap();
        let stop = CancellationToken::new();
        let (worker, sealer) = Sealer::new(ledger.clone(), dir.clone(), config::Segment::default(), clock, Arc::default());
        tokio::spawn(worker.run(stop.clone()));
        Self { folder, ledger, dir, sealer, stop }
    }

    fn start(&self, settings: &config::Engine) -> EngineHandle {
        self.start_program(settings, program("engine::tests::child"))
    }

    fn start_program(&self, settings: &config::Engine, program: Program) -> EngineHandle {
        let (engine, handle) = Engine::new(settings, self.ledger.clone(), self.dir.clone(), self.sealer.clone(), Arc::default(), program);
        tokio::spawn(engine.run(self.stop.clone()));
        handle
    }

    /// With an engine of the usual settings.
    fn started() -> (Self, EngineHandle) {
        let bench = Self::new();
        let handle = bench.start(&config::Engine::default());
        (bench, handle)
    }

    async fn commit(&self, numbers: std::ops::Range<i64>) {
        let readings: Vec<_> = numbers.map(reading).collect();
        let tally = Tally { readings: readings.len() as u64, ..Tally::default() };
        self.ledger.commit(Batch { readings, tally, ..Batch::default() }).await.unwrap();
    }

    async fn seal(&self) {
        self.sealer.seal_now(Demand::Flush).await.unwrap();
    }
}

fn reading(number: i64) -> Reading {
    Reading {
        time: Timestamp(TEN_O_CLOCK + number * 1000),
        sensor: Arc::from(format!("s{}", number % 50)),
        metric: Arc::from("temperature"),
        value: Some(number as f64),
        text: (number % 10 == 0).then(|| Arc::from("OPEN")),
        unit: Some(Arc::from("°C")),
        quality: Some(192),
        arrived: Timestamp(TEN_O_CLOCK + number * 1000 + 5),
        time_source: TimeSource::Sensor,
    }
}

async fn ask(handle: &EngineHandle, sql: &str, format: Format) -> Result<String, QueryError> {
    let bytes = handle.query(sql.to_owned(), format, None).await?.bytes().await?;
    Ok(String::from_utf8(bytes).unwrap())
}

/// The first row of an answer.
async fn row(handle: &EngineHandle, sql: &str) -> Vec<String> {
    let text = ask(handle, sql, Format::Csv).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    text.lines().nth(1).unwrap_or_else(|| panic!("no row in {text:?}")).split(',').map(str::to_owned).collect()
}

async fn numbers(handle: &EngineHandle, sql: &str) -> Vec<u64> {
    row(handle, sql).await.iter().map(|cell| cell.parse().unwrap_or_else(|_| panic!("{cell:?} is no number"))).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
