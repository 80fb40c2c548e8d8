//! The client against a scripted broker and against mosquitto, with the real ledger and a pump that does nothing but
//! commit.

mod connections;
mod mosquitto;
mod scripts;
mod settings;
mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Client, ClientError, ClientState};
use crate::backoff::Backoff;
use crate::clock::SystemClock;
use crate::config;
use crate::ingest::{Admitted, Content, Hurry, Intake, Outcome};
use crate::ledger::{Ledger, Open};
use crate::model::{Batch, MarkEvent, Tally};

/// What a pump was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    Message { topic: String, payload: String, retained: bool },
    Duplicate,
    Refused { topic: String, reason: String },
    Mark(MarkEvent),
}

/// What a pump does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Commit,
    /// Takes, and settles nothing.
    Hold,
    Refuse,
    /// Takes nothing.
    Ignore,
}

/// Commits marks, settles, and keeps what it was given.
pub struct Pump {
    pub mode: watch::Sender<Mode>,
    given: Arc<Mutex<Vec<Given>>>,
    hurried: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Pump {
    fn start(ledger: Ledger, from: mpsc::Receiver<Admitted>) -> Self {
        let (mode, modes) = watch::channel(Mode::Commit);
        let (given, hurried) = (Arc::default(), Arc::default());
        let task = tokio::spawn(Self::work(ledger, from, modes, Arc::clone(&given), Arc::clone(&hurried)));
        Self { mode, given, hurried, task }
    }

    async fn work(
        ledger: Ledger,
        mut from: mpsc::Receiver<Admitted>,
        mut modes: watch::Receiver<Mode>,
        given: Arc<Mutex<Vec<Given>>>,
        hurried: Arc<Mutex<usize>>,
    ) {
        loop {
            let _ = modes.wait_for(|mode| *mode != Mode::Ignore).await;
            let mut batch = Vec::new();
            tokio::select! {
                count = from.recv_many(&mut batch, 1000) => if count == 0 { return },
                _ = modes.changed() => continue,
            }
            {
                let mut given = given.lock().unwrap();
                given.extend(batch.iter().map(|admitted| show(&admitted.delivery.content, admitted.delivery.mark)));
                *hurried.lock().unwrap() += batch.iter().filter(|admitted| admitted.delivery.hurry == Hurry::Now).count();
            }
            let _ = modes.wait_for(|mode| !matches!(mode, Mode::Hold | Mode::Ignore)).await;
            let refuse = *modes.borrow() == Mode::Refuse;
            let marks: Vec<_> = batch.iter().filter_map(|admitted| admitted.delivery.mark).collect();
            if !refuse && !marks.is_empty() {
                let tally = Tally { messages_qos1: batch.len() as u64, ..Tally::default() };
                ledger.commit(Batch { marks, tally, ..Batch::default() }).await.unwrap();
            }
            let outcome = if refuse { Outcome::Refused("no room".to_owned()) } else { Outcome::Committed };
            for receipt in batch.into_iter().filter_map(|admitted| admitted.delivery.receipt) {
                receipt.settle(outcome.clone());
            }
        }
    }

    pub fn given(&self) -> Vec<Given> {
        self.given.lock().unwrap().clone()
    }

    pub fn payloads(&self) -> Vec<String> {
        let payload = |given| if let Given::Message { payload, .. } = given { Some(payload) } else { None };
        self.given().into_iter().filter_map(payload).collect()
    }

    pub fn hurried(&self) -> usize {
        *self.hurried.lock().unwrap()
    }

    /// Waits until `enough` is given.
    pub async fn wait(&self, what: &str, enough: impl Fn(&[Given]) -> bool) {
        eventually(what, || enough(&self.given.lock().unwrap())).await;
    }
}

fn show(content: &Content, mark: Option<MarkEvent>) -> Given {
    match content {
        Content::Message(message) => Given::Message {
            topic: message.topic.to_string(),
            payload: String::from_utf8_lossy(&message.payload).into_owned(),
            retained: message.retained,
        },
        Content::Duplicate { .. } => Given::Duplicate,
        Content::Refused { topic, reason, .. } => Given::Refused { topic: topic.to_string(), reason: reason.clone() },
        Content::Mark => Given::Mark(mark.unwrap()),
        Content::Readings(_) => panic!("a client does not decode"),
    }
}

/// Waits until `is_so`; fails the test when it takes too long.
pub async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
}

/// A gateway with nothing but a client, a pump and a ledger.
pub struct Gateway {
    pub settings: config::Mqtt,
    pub max_message_bytes: u64,
    pub ping_interval: Duration,
    pub ledger: Ledger,
    _dir: tempfile::TempDir,
}

impl Gateway {
    pub fn new(url: String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = Open { host_id: "test".to_owned(), clock: Arc::new(SystemClock) };
        let ledger = Ledger::open(dir.path(), open).unwrap();
        let settings = config::Mqtt { url, ..config::Mqtt::default() };
        Self { settings, max_message_bytes: 1 << 20, ping_interval: super::PING_INTERVAL, ledger, _dir: dir }
    }

    /// One life of the daemon.
    pub fn start(&self) -> Running {
        let (intake, from) = Intake::new();
        let pump = Pump::start(self.ledger.clone(), from);
        let (state, stop) = (Arc::new(ClientState::default()), CancellationToken::new());
        let client = self.client(intake, Arc::clone(&state)).unwrap();
        let task = tokio::spawn(client.run(stop.clone()));
        Running { pump, state, stop, task }
    }

    pub fn client(&self, intake: Intake, state: Arc<ClientState>) -> Result<Client, ClientError> {
        let clock = Arc::new(SystemClock);
        let mut client = Client::new(&self.settings, "gw", self.max_message_bytes, intake, self.ledger.clone(), clock, state)?;
        client.backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
        client.terms.ping_interval = self.ping_interval;
        Ok(client)
    }
}

/// A client at work.
pub struct Running {
    pub pump: Pump,
    pub state: Arc<ClientState>,
    pub stop: CancellationToken,
    pub task: JoinHandle<Result<(), ClientError>>,
}

impl Running {
    /// Ends it as a crash would: nothing more is sent, committed or settled.
    pub async fn kill(self) {
        self.task.abort();
        self.pump.task.abort();
        let _ = (self.task.await, self.pump.task.await);
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}
