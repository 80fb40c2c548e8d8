//! A house with real doors, ledger and sealer, and a pump and an engine that do what the test says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{self, StreamExt as _};
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ask::{self, Answered};
use crate::api::{AnswerSql, Doors, Rows, bind, serve};
use crate::clock::{SharedClock, SystemClock};
use crate::config;
use crate::engine::{Binding, Format, QueryError};
use crate::ingest::files::Importer;
use crate::ingest::http::Desk;
use crate::ingest::{Admitted, Content, Intake, Latest, Outcome};
use crate::ledger::{Ledger, Open};
use crate::model::{Batch, Shipment, Tally, Timestamp};
use crate::segment::{Sealer, SealerState, SegmentDir};
use crate::space::Space;
use crate::status::{Frame, LinkState, Now, Sources};

pub struct House {
    _folder: TempDir,
    pub socket: PathBuf,
    pub address: SocketAddr,
    pub stop: CancellationToken,
    ledger: Ledger,
    now: Arc<Mutex<Now>>,
    gate: Arc<Gate>,
    pump: JoinHandle<()>,
    doors: Option<JoinHandle<()>>,
}

/// What the pump does.
struct Gate {
    commits: Semaphore,
    refuses: AtomicBool,
}

impl House {
    pub async fn open() -> Self {
        Self::open_as(None).await
    }

    pub async fn open_with_token(token: &str) -> Self {
        Self::open_as(Some(token)).await
    }

    async fn open_as(token: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("forebay.sock");
        let token_file = token.map(|token| {
            crate::disk::write_atomically(&folder.path().join("token"), token.as_bytes()).unwrap();
            folder.path().join("token")
        });
        let data_dir = folder.path().join("data");
        std::fs::create_dir(&data_dir).unwrap();
        let clock: SharedClock = Arc::new(SystemClock);
        let ledger = Ledger::open(&data_dir, Open { host_id: "host".to_owned(), clock: Arc::clone(&clock) }).unwrap();
        let dir = SegmentDir::open(&data_dir).unwrap();
        let stop = CancellationToken::new();
        let state = Arc::new(SealerState::default());
        let (worker, sealer) = Sealer::new(ledger.clone(), dir.clone(), config::Segment::default(), Arc::clone(&clock), state);
        tokio::spawn(worker.run(stop.clone()));

        let latest = Arc::new(Latest::new(&config::Ingest::default(), Vec::new()));
        let (intake, deliveries) = Intake::new();
        let gate = Arc::new(Gate { commits: Semaphore::new(Semaphore::MAX_PERMITS), refuses: AtomicBool::new(false) });
        let pump = tokio::spawn(pump(deliveries, ledger.clone(), Arc::clone(&latest), Arc::clone(&gate)));

        let mut now = Now { ready: true, ..Now::default() };
        now.link.state = LinkState::Offline;
        let now = Arc::new(Mutex::new(now));
        let frame = Frame { gateway: "gw".to_owned(), data_dir, cap_bytes: 1 << 30 };
        let shared = Arc::clone(&now);
        let sources = Arc::new(Sources::new(frame, ledger.clone(), Arc::clone(&clock), move || shared.lock().unwrap().clone()));

        let settings = config::Api { socket: socket.clone(), http: vec!["127.0.0.1:0".to_owned()], token_file, ..config::Api::default() };
        let bound = bind(&settings).await.unwrap();
        let address = bound.addresses()[0];
        let (desk, engine) = (Desk::new(intake), Arc::new(Canned));
        let importer = Importer::new(ledger.clone(), Arc::clone(&latest), Arc::clone(&clock), Space::default(), 1_000_000);
        let doors = Doors { sources, ledger: ledger.clone(), dir, latest, desk, importer, clock, sealer, uploader: None, engine };
        let served = serve(bound, doors, stop.clone());
        let doors = Some(tokio::spawn(async move { served.await.unwrap() }));
        Self { _folder: folder, socket, address, stop, ledger, now, gate, pump, doors }
    }

    pub async fn get(&self, path: &str) -> Answered {
        ask::unix(&self.socket, "GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answered {
        ask::unix(&self.socket, "POST", path, &[], body).await
    }

    pub fn now(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.now.lock().unwrap());
    }

    /// From now on nothing is settled.
    pub fn hold_commits(&self) {
        self.gate.commits.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_commits(&self) {
        self.gate.commits.add_permits(1_000_000);
    }

    pub fn refuse_commits(&self) {
        self.gate.refuses.store(true, Ordering::Relaxed);
    }

    pub async fn end_pump(&mut self) {
        self.pump.abort();
        let _ = (&mut self.pump).await;
    }

    /// Ships cut 1 as shipment `number`, as far as the ledger is concerned.
    pub async fn deliver(&self, number: u64) {
        let instance = self.ledger.identity().instance;
        let shipment =
            Shipment { instance: instance.clone(), number, cut: Some(1), first_cut: Some(1), manifest: b"{}".to_vec(), losses: Vec::new() };
        self.ledger.begin_shipment(shipment).await.unwrap();
        self.ledger.finish_shipment(instance, number).await.unwrap();
    }

    /// Waits until the doors are closed.
    pub async fn closed(&mut self) {
        self.doors.take().unwrap().await.unwrap();
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn pump(mut deliveries: mpsc::Receiver<Admitted>, ledger: Ledger, latest: Arc<Latest>, gate: Arc<Gate>) {
    while let Some(Admitted { delivery, .. }) = deliveries.recv().await {
        gate.commits.acquire().await.unwrap().forget();
        let Content::Readings(readings) = delivery.content else { panic!("{:?}", delivery.content) };
        let receipt = delivery.receipt.unwrap();
        if gate.refuses.load(Ordering::Relaxed) {
            receipt.settle(Outcome::Refused("too many series".to_owned()));
            continue;
        }
        let tally = Tally { messages_http: 1, readings: readings.len() as u64, ..Tally::default() };
        let idempotency = delivery.idempotency.into_iter().map(|key| (key, Timestamp(1))).collect();
        let batch = Batch { readings: readings.clone(), idempotency, tally, ..Batch::default() };
        ledger.commit(batch).await.unwrap();
        latest.add(&readings);
        receipt.settle(Outcome::Committed);
    }
}

/// An engine that answers by what it is asked.
struct Canned;

impl AnswerSql for Canned {
    fn answer(&self, sql: String, _: Binding, format: Format, _: Option<u64>) -> BoxFuture<'_, Result<Rows, QueryError>> {
        async move {
            let text = match format {
                Format::Json => format!("[{{\"sql\":\"{sql}\"}}]"),
                _ => format!("{}: {sql}\n", format.as_str()),
            };
            let text = Bytes::from(text);
            let pieces = match sql.as_str() {
                "wrong" => return Err(QueryError::Sql("no such table".to_owned())),
                "busy" => return Err(QueryError::Busy { running: 4 }),
                "halfway" => vec![Ok(text), Err(QueryError::EngineGone)],
                _ => vec![Ok(text)],
            };
            Ok(Rows { incomplete: sql == "incomplete", body: stream::iter(pieces).boxed() })
        }
        .boxed()
    }

    fn describe(&self, _: String, _: Binding) -> BoxFuture<'_, Result<(Vec<u8>, usize), QueryError>> {
        async { Err(QueryError::NotReady) }.boxed()
    }
}
