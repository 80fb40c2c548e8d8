//! A gateway's data folder with real readings in real segments, and an uploader on it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::UInt32Array;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{self, Order, Period};
use crate::ledger::{Ledger, LedgerError, Open, Reader};
use crate::model::{
    Batch, Books, CutNumber, FileKind, InstanceId, Manifest, Reading, SealedCut, Segment, SegmentName, Shipment, TimeSource, Timestamp,
    columns,
};
use crate::segment::{Origin, Sealer, SealerHandle, SealerState, SegmentDir, write_readings};
use crate::upload::{LinkState, Setup, UploadError, Uploader, UploaderHandle, Upstream};

/// Midnight UTC; readings are spread around it, so that a cut has files of two days.
pub const MIDNIGHT: i64 = 1_800_057_600_000_000;

/// Everything takes well under this.
const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that stands still until it is moved.
pub struct Still(AtomicI64);

impl Still {
    pub fn forward(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as i64, Ordering::Relaxed);
    }
}

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    fn synchronised(&self) -> bool {
        true
    }
}

/// The data folder, open.
pub struct Gateway {
    pub folder: tempfile::TempDir,
    pub ledger: Ledger,
    pub dir: SegmentDir,
    pub settings: config::Upstream,
    pub sealer: Option<SealerHandle>,
    pub clock: Arc<Still>,
}

/// An uploader at work.
pub struct Running {
    pub link: LinkState,
    pub handle: UploaderHandle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), UploadError>>,
}

impl Running {
    /// Ends it as a kill would: wherever it is.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    /// Ends it in order.
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").unwrap().unwrap();
    }
}

pub fn clock() -> Arc<Still> {
    Arc::new(Still(AtomicI64::new(MIDNIGHT)))
}

fn reading(place: u64) -> Reading {
    // Every other reading is of the day before.
    let time = MIDNIGHT + place as i64 * if place.is_multiple_of(2) { 1000 } else { -1000 };
    Reading {
        time: Timestamp(time),
        sensor: "s1".into(),
        metric: "temperature".into(),
        value: Some(place as f64),
        text: None,
        unit: None,
        quality: None,
        arrived: Timestamp(time),
        time_source: TimeSource::Sensor,
    }
}

impl Gateway {
    pub fn new() -> Self {
        let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
        let ledger = Ledger::open(folder.path(), Open { host_id: "host".to_owned(), clock: clock.clone() }).unwrap();
        let dir = SegmentDir::open(folder.path()).unwrap();
        let millis = |millis| Period(Duration::from_millis(millis));
        let settings = config::Upstream {
            order: Order::OldestFirst,
            retry_min: millis(1),
            retry_max: millis(20),
            probe_interval: millis(20),
            ..config::Upstream::default()
        };
        Self { folder, ledger, dir, settings, sealer: None, clock }
    }

    /// Closes all and opens it again, as after a kill.
    pub async fn reopen(self) -> Self {
        let Self { folder, ledger, dir, settings, clock, .. } = self;
        ledger.close().await.unwrap();
        drop((ledger, dir));
        let ledger = Ledger::open(folder.path(), Open { host_id: "host".to_owned(), clock: clock.clone() }).unwrap();
        let dir = SegmentDir::open(folder.path()).unwrap();
        Self { folder, ledger, dir, settings, sealer: None, clock }
    }

    pub fn instance(&self) -> InstanceId {
        self.ledger.identity().instance
    }

    pub fn read<T>(&self, read: impl FnOnce(&Reader) -> Result<T, LedgerError>) -> T {
        read(&self.ledger.reader().unwrap()).unwrap()
    }

    pub fn books(&self) -> Books {
        let books = self.read(|reader| reader.books());
        assert!(books.balanced(), "{books:?}");
        books
    }

    /// Commits `count` readings.
    pub async fn commit(&self, count: u64) -> Vec<Reading> {
        let first = self.ledger.progress().borrow().last_seq + 1;
        let readings: Vec<_> = (first..first + count).map(reading).collect();
        self.ledger.commit(Batch { readings: readings.clone(), ..Batch::default() }).await.unwrap();
        readings
    }

    /// Commits and seals `count` readings; gives the cut's files.
    pub async fn seal(&self, count: u64) -> Vec<Segment> {
        let readings = self.commit(count).await;
        let progress = self.ledger.progress().borrow().clone();
        let (first, last_seq) = (progress.mark + 1, progress.last_seq);
        let cut = progress.last_cut + 1;
        let origin = Origin { instance: self.instance(), cut, first_cut: cut, first_seq: first, last_seq, delivered: false };
        let segments: Vec<_> = [0, 1].into_iter().filter_map(|odd| self.write(&origin, &readings, odd)).collect();
        let cut = SealedCut {
            number: origin.cut,
            first_seq: first,
            last_seq,
            last_record: self.read(|reader| reader.last_exported_record()),
            segments: segments.clone(),
            series: vec![],
            damaged: vec![],
            sealed: Timestamp(MIDNIGHT),
        };
        self.ledger.finish_seal(cut).await.unwrap();
        segments
    }

    /// Writes the file of one of the two days.
    fn write(&self, origin: &Origin, readings: &[Reading], odd: u64) -> Option<Segment> {
        let all = columns::decode_journal(&columns::encode_journal(readings).unwrap(), origin.first_seq).unwrap();
        let seqs: Vec<u64> = (origin.first_seq..=origin.last_seq).filter(|seq| seq % 2 == odd).collect();
        let rows = UInt32Array::from_iter_values(seqs.iter().map(|seq| (seq - origin.first_seq) as u32));
        let day = arrow::compute::take_record_batch(&all, &rows).unwrap();
        let at = |seq: &u64| reading(*seq).time;
        let (min_time, max_time) = (seqs.iter().map(at).min()?, seqs.iter().map(at).max()?);
        let name = SegmentName::new(FileKind::Readings, Some(min_time.utc_day()), origin.instance.clone(), origin.cut);
        let path = self.dir.path(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let written = write_readings(fs::File::create(&path).unwrap(), &day, origin).unwrap();
        let (first_seq, last_seq) = (*seqs.first()?, *seqs.last()?);
        Some(Segment { name, bytes: written.bytes, sha256: written.sha256, rows: written.rows, first_seq, last_seq, min_time, max_time })
    }

    /// Starts an uploader to `upstream`.
    pub fn start(&self, upstream: Arc<dyn Upstream>) -> Running {
        let link = LinkState::probing();
        let (uploader, handle) = Uploader::new(Setup {
            ledger: self.ledger.clone(),
            dir: self.dir.clone(),
            upstream,
            settings: self.settings.clone(),
            gateway: "gw-1".to_owned(),
            clock: self.clock.clone(),
            link: link.clone(),
            sealer: self.sealer.clone(),
            sealer_state: Arc::new(SealerState::default()),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(uploader.run(stop.clone()));
        Running { link, handle, stop, task }
    }

    /// Runs an uploader until nothing is left to ship.
    pub async fn drain(&self, upstream: Arc<dyn Upstream>) -> LinkState {
        let running = self.start(upstream);
        until("all is shipped", || self.is_drained()).await;
        let link = running.link.clone();
        running.stop().await;
        link
    }

    pub fn is_drained(&self) -> bool {
        self.read(|reader| Ok(reader.next_cut(false)?.is_none() && reader.open_shipment()?.is_none() && reader.next_losses()?.is_none()))
    }

    /// Starts a sealer that seals on demand alone; it ends with the test.
    pub fn start_sealer(&mut self) {
        let never = Period(Duration::from_secs(3600));
        let settings = config::Segment { seal_interval: never, ..config::Segment::default() };
        let (sealer, handle) = Sealer::new(self.ledger.clone(), self.dir.clone(), settings, self.clock.clone(), Arc::default());
        self.sealer = Some(handle);
        tokio::spawn(sealer.run(CancellationToken::new()));
    }

    /// How many cuts upstream refuses.
    pub fn refused(&self) -> u64 {
        self.read(|reader| reader.refusals()).map_or(0, |refusals| refusals.cuts)
    }

    pub fn open_shipment(&self) -> Option<Shipment> {
        self.read(|reader| reader.open_shipment())
    }

    /// What the lake says that shipment `number` brings.
    pub fn manifest_key(&self, number: u64) -> String {
        Manifest::key("gw-1", &self.instance(), number)
    }
}

/// Cuts in the order in which `keys` of manifests came, read from `objects`.
pub fn cuts_in_order(keys: &[String], read: impl Fn(&str) -> Vec<u8>) -> Vec<Option<CutNumber>> {
    let manifests = keys.iter().filter(|key| key.starts_with("manifests/"));
    manifests.map(|key| serde_json::from_slice::<Manifest>(&read(key)).unwrap().cut).collect()
}

/// Waits until `done`.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "in vain: {what}");
}
