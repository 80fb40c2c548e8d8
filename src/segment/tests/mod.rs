//! The room as a whole, with a real ledger and real files.

mod behind;
mod folder;
mod merging;
mod merging_crashes;
mod merging_cuts;
mod merging_cuts_crashes;
mod recovering;
mod scrubbing;
mod sealing;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::gather::{Draft, gather};
use super::{Demand, SealerHandle, SealerState, SegmentDir, SegmentError, read, recover};
use crate::clock::{Clock, SharedClock};
use crate::config::{self, Period};
use crate::ledger::{Ledger, Open, Reader};
use crate::model::{Batch, Books, Committed, MICROS_PER_DAY, Reading, Record, Segment, Seq, TimeSource, Timestamp, columns};

/// 2026-11-20T00:00:00Z.
const DAY: i64 = 1_795_132_800_000_000;

/// A clock that stands still until it is set.
struct SetClock(AtomicI64);

impl SetClock {
    fn set(&self, time: i64) {
        self.0.store(time, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    fn synchronised(&self) -> bool {
        true
    }
}

/// A data folder with its ledger and its segments.
struct Rig {
    data: TempDir,
    clock: Arc<SetClock>,
    ledger: Ledger,
    dir: SegmentDir,
    state: Arc<SealerState>,
}

/// A sealer at work.
struct AtWork {
    handle: SealerHandle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), SegmentError>>,
}

impl AtWork {
    async fn stop(self) -> Result<(), SegmentError> {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

fn open(data: &Path, clock: &Arc<SetClock>) -> Ledger {
    open_on("host", data, clock)
}

fn open_on(host: &str, data: &Path, clock: &Arc<SetClock>) -> Ledger {
    let clock: SharedClock = Arc::<SetClock>::clone(clock);
    Ledger::open(data, Open { host_id: host.to_owned(), clock }).unwrap()
}

fn settings(interval: Duration, readings: u64) -> config::Segment {
    config::Segment { seal_interval: Period(interval), seal_readings: readings }
}

impl Rig {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock(AtomicI64::new(DAY + MICROS_PER_DAY / 2)));
        let ledger = open(data.path(), &clock);
        let dir = SegmentDir::open(data.path()).unwrap();
        Self { data, clock, ledger, dir, state: Arc::default() }
    }

    /// The same folder after the end of the process.
    async fn restart(self) -> Self {
        self.ledger.close().await.unwrap();
        let Self { data, clock, .. } = self;
        let ledger = open(data.path(), &clock);
        let dir = SegmentDir::open(data.path()).unwrap();
        Self { data, clock, ledger, dir, state: Arc::default() }
    }

    async fn recover(&self) -> super::Recovered {
        recover(&self.ledger, &self.dir, &self.state).await.unwrap()
    }

    async fn commit(&self, readings: Vec<Reading>) -> Committed {
        self.ledger.commit(Batch { readings, ..Batch::default() }).await.unwrap()
    }

    async fn record(&self, source: &str, body: &str) {
        let record = Record { source: Arc::from(source), kind: Arc::from("config"), body: body.to_owned(), received: self.clock.now() };
        self.ledger.commit(Batch { records: vec![record], ..Batch::default() }).await.unwrap();
    }

    fn start(&self, settings: config::Segment) -> AtWork {
        let clock: SharedClock = Arc::<SetClock>::clone(&self.clock);
        let (sealer, handle) = super::Sealer::new(self.ledger.clone(), self.dir.clone(), settings, clock, Arc::clone(&self.state));
        let stop = CancellationToken::new();
        AtWork { handle, task: tokio::spawn(sealer.run(stop.clone())), stop }
    }

    /// Seals all that is hot.
    async fn flush(&self) -> Option<u64> {
        let sealer = self.start(settings(Duration::from_secs(3600), 1_000_000));
        let cut = sealer.handle.seal_now(Demand::Flush).await.unwrap();
        sealer.stop().await.unwrap();
        cut
    }

    fn draft(&self) -> Draft {
        gather(&self.reader(), self.ledger.identity().instance, 1_000_000).unwrap().unwrap()
    }

    fn reader(&self) -> Reader {
        self.ledger.reader().unwrap()
    }

    fn books(&self) -> Books {
        self.reader().books().unwrap()
    }

    fn segments(&self) -> Vec<Segment> {
        self.reader().segments().unwrap()
    }

    /// All readings in segments, by seq; every file in its promised order.
    fn sealed(&self) -> Vec<(Seq, Reading)> {
        let mut all = Vec::new();
        for segment in self.segments().iter().filter(|segment| segment.name.kind == crate::model::FileKind::Readings) {
            let readings = readings_of(&self.dir.path(&segment.name));
            assert_eq!(readings.len() as u64, segment.rows);
            let key = |(seq, reading): &(Seq, Reading)| (reading.sensor.clone(), reading.metric.clone(), reading.time, *seq);
            assert!(readings.is_sorted_by_key(key), "{} is out of order", segment.name);
            all.extend(readings);
        }
        all.sort_by_key(|(seq, _)| *seq);
        all
    }

    /// The audit of the ledger finds nothing.
    fn audit(&self) {
        assert_eq!(self.reader().audit().unwrap(), Vec::<String>::new());
        assert!(self.books().balanced());
    }
}

fn readings_of(path: &Path) -> Vec<(Seq, Reading)> {
    read(path).unwrap().flat_map(|batch| columns::to_readings(&batch.unwrap()).unwrap()).collect()
}

fn reading(sensor: &str, metric: &str, time: i64, value: f64) -> Reading {
    Reading {
        time: Timestamp(time),
        sensor: Arc::from(sensor),
        metric: Arc::from(metric),
        value: Some(value),
        text: None,
        unit: Some(Arc::from("°C")),
        quality: None,
        arrived: Timestamp(time + 1000),
        time_source: TimeSource::Sensor,
    }
}

/// `count` readings of five sensors, one a second from `start` on.
fn some(count: i64, start: i64) -> Vec<Reading> {
    let of = |place: i64| reading(&format!("s{}", place % 5), "temperature", start + place * 1_000_000, 20.0 + (place % 17) as f64);
    (0..count).map(of).collect()
}

/// Waits until `condition` holds, ten seconds at most.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}
