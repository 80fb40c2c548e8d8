//! A data folder that fills up quickly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::{Clock, SharedClock};
use crate::config::{self, ByteSize, Period, WhenFull};
use crate::ledger::{Ledger, Open, Reader};
use crate::model::{Batch, Books, CutNumber, Reading, Segment, Shipment, ShipmentNumber, TimeSource, Timestamp};
use crate::retention::enforcer::{Enforcer, Setup};
use crate::retention::plan::Situation;
use crate::retention::state::RetentionState;
use crate::segment::{Demand, Readers, Sealer, SealerHandle, SealerState, SegmentDir, recover};
use crate::space::Space;

pub const MIB: u64 = 1 << 20;

/// 2026-11-20T00:00:00Z.
pub const CLOCK: i64 = 1_795_132_800_000_000;

/// A clock that is set, and synchronised or not.
pub struct SetClock {
    pub now: AtomicI64,
    pub synchronised: AtomicBool,
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed))
    }

    fn synchronised(&self) -> bool {
        self.synchronised.load(Ordering::Relaxed)
    }
}

pub struct Rig {
    pub data: TempDir,
    pub clock: Arc<SetClock>,
    pub ledger: Ledger,
    pub dir: SegmentDir,
    pub space: Space,
    pub state: Arc<RetentionState>,
    pub enforcer: Enforcer,
    sealer: SealerHandle,
    _stop: DropGuard,
    shipments: ShipmentNumber,
    random: SmallRng,
}

/// A cap of `cap` MiB: one goes to the headroom and four to the reserve.
pub fn settings(cap: u64, when_full: WhenFull) -> config::Retention {
    config::Retention { cap: ByteSize(cap * MIB), min_free: ByteSize(0), when_full, ..config::Retention::default() }
}

impl Rig {
    pub fn new(settings: config::Retention) -> Self {
        let data = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock { now: AtomicI64::new(CLOCK), synchronised: AtomicBool::new(true) });
        let shared: SharedClock = Arc::<SetClock>::clone(&clock);
        let ledger = Ledger::open(data.path(), Open { host_id: "host".to_owned(), clock: Arc::clone(&shared) }).unwrap();
        let space = Space::default();
        let dir = SegmentDir::within(data.path(), space.clone(), Readers::Owner).unwrap();
        let rules = config::Segment { seal_interval: Period(Duration::from_secs(3600)), seal_readings: 1_000_000 };
        let (worker, sealer) = Sealer::new(ledger.clone(), dir.clone(), rules, Arc::clone(&shared), Arc::new(SealerState::default()));
        let (stop, state) = (CancellationToken::new(), Arc::new(RetentionState::default()));
        tokio::spawn(worker.run(stop.clone()));
        let enforcer = Enforcer::new(Setup {
            ledger: ledger.clone(),
            dir: dir.clone(),
            sealer: sealer.clone(),
            data_dir: data.path().to_owned(),
            changes: tokio::sync::watch::channel(settings.clone()).1,
            settings,
            clock: shared,
            space: space.clone(),
            state: Arc::clone(&state),
        });
        let random = SmallRng::seed_from_u64(7);
        Self { data, clock, ledger, dir, space, state, enforcer, sealer, _stop: stop.drop_guard(), shipments: 0, random }
    }

    /// Commits `count` readings of a kilobyte that no compression makes much smaller.
    pub async fn commit(&mut self, count: usize) {
        let readings: Vec<_> = (0..count).map(|_| self.reading()).collect();
        for readings in readings.chunks(200) {
            self.ledger.commit(Batch { readings: readings.to_vec(), ..Batch::default() }).await.unwrap();
        }
    }

    fn reading(&mut self) -> Reading {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let text: String = (0..1024).map(|_| LETTERS[self.random.random_range(0..64)] as char).collect();
        Reading {
            time: Timestamp(CLOCK),
            sensor: "s".into(),
            metric: "text".into(),
            value: None,
            text: Some(text.into()),
            unit: None,
            quality: None,
            arrived: Timestamp(CLOCK),
            time_source: TimeSource::Sensor,
        }
    }

    /// Commits `count` readings and seals them.
    pub async fn cut(&mut self, count: usize) -> CutNumber {
        self.commit(count).await;
        self.sealer.seal_now(Demand::Flush).await.unwrap().unwrap()
    }

    fn shipment(&mut self, cut: CutNumber) -> Shipment {
        self.shipments += 1;
        let instance = self.ledger.identity().instance;
        Shipment { instance, number: self.shipments, cut: Some(cut), first_cut: Some(cut), manifest: b"{}".to_vec(), losses: Vec::new() }
    }

    pub async fn begin_shipment(&mut self, cut: CutNumber) -> Shipment {
        let shipment = self.shipment(cut);
        self.ledger.begin_shipment(shipment.clone()).await.unwrap();
        shipment
    }

    pub async fn deliver(&mut self, cut: CutNumber) {
        let Shipment { instance, number, .. } = self.begin_shipment(cut).await;
        self.ledger.finish_shipment(instance, number).await.unwrap();
    }

    pub async fn round(&mut self) -> Situation {
        self.enforcer.round().await.unwrap()
    }

    pub fn reader(&self) -> Reader {
        self.ledger.reader().unwrap()
    }

    pub fn segments(&self) -> Vec<Segment> {
        self.reader().segments().unwrap()
    }

    /// Cuts with a segment here, oldest first; each is a file on the disk too, and there is no other.
    pub fn cuts_here(&self) -> Vec<CutNumber> {
        let mut names: Vec<_> = self.segments().into_iter().map(|segment| segment.name).collect();
        names.sort_unstable();
        let files: Vec<_> = self.dir.list().unwrap().segments;
        assert_eq!(names, files);
        names.into_iter().map(|name| name.cut).collect()
    }

    /// The books, after an audit.
    pub fn books(&self) -> Books {
        let mut reader = self.reader();
        assert_eq!(reader.audit().unwrap(), Vec::<String>::new());
        reader.books().unwrap()
    }

    /// What recovery finds to do at the next start.
    pub async fn recover(&self) -> crate::segment::Recovered {
        recover(&self.ledger, &self.dir, &SealerState::default()).await.unwrap()
    }
}
