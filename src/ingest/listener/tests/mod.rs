//! The listener against a real ledger, a pump that the test holds in its hand, and sensors that speak raw bytes.

mod access;
mod exactly_once;
mod garbage;
mod limits;
mod protocol;
mod sessions;
mod version5;
mod wills;

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::clock::SystemClock;
use crate::ingest::{Admitted, Content, Hurry, Outcome};
use crate::ledger::Open;
use crate::model::{Batch, MarkEvent};
use crate::space::Space;

/// Far beyond what anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough to see that something does not happen.
const MOMENT: Duration = Duration::from_millis(60);

const MAX_MESSAGE_BYTES: usize = 2000;

/// A listener with all that it needs; the test is the pump.
struct Bench {
    address: SocketAddr,
    handed_in: mpsc::Receiver<Admitted>,
    ledger: Ledger,
    state: Arc<ListenerState>,
    seats: Arc<Seats>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), ListenerError>>,
}

fn open_ledger(folder: &Path) -> Ledger {
    open_ledger_with(folder, Arc::new(SystemClock))
}

fn open_ledger_with(folder: &Path, clock: SharedClock) -> Ledger {
    Ledger::open(folder, Open { host_id: "host".to_owned(), clock }).unwrap()
}

fn settings() -> config::Listener {
    config::Listener { bind: vec!["127.0.0.1:0".to_owned()], ..config::Listener::default() }
}

/// A listener that is not running yet, and the pump's end of its intake.
async fn listener(ledger: &Ledger) -> (Listener, mpsc::Receiver<Admitted>) {
    listener_within(ledger, Space::default()).await
}

/// The same with readings taken only where `space` has room.
async fn listener_within(ledger: &Ledger, space: Space) -> (Listener, mpsc::Receiver<Admitted>) {
    let (intake, handed_in) = Intake::within(space, u64::MAX);
    let (clock, state) = (Arc::new(SystemClock), Arc::default());
    let listener = Listener::bind(&settings(), MAX_MESSAGE_BYTES, intake, ledger.clone(), clock, state).await.unwrap();
    (listener, handed_in)
}

impl Bench {
    async fn start() -> (Self, TempDir) {
        Self::with(|_| {}).await
    }

    /// With limits shrunk by `shrink`.
    async fn with(shrink: impl FnOnce(&mut Listener)) -> (Self, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self::on(open_ledger(folder.path()), shrink).await;
        (bench, folder)
    }

    async fn on(ledger: Ledger, shrink: impl FnOnce(&mut Listener)) -> Self {
        Self::run(listener(&ledger).await, ledger, shrink)
    }

    fn run((mut listener, handed_in): (Listener, mpsc::Receiver<Admitted>), ledger: Ledger, shrink: impl FnOnce(&mut Listener)) -> Self {
        shrink(&mut listener);
        let (state, seats) = (Arc::clone(&listener.shared.state), Arc::clone(&listener.shared.seats));
        let (address, stop) = (listener.addresses()[0], CancellationToken::new());
        let running = tokio::spawn(listener.run(stop.clone()));
        Self { address, handed_in, ledger, state, seats, stop, running }
    }

    /// The next delivery, which must come.
    async fn next(&mut self) -> Admitted {
        timeout(PATIENCE, self.handed_in.recv()).await.expect("a delivery in time").expect("a running listener")
    }

    /// Sees to it that no delivery comes.
    async fn expect_nothing(&mut self) {
        let came = timeout(MOMENT, self.handed_in.recv()).await;
        assert!(came.is_err(), "{:?}", came.unwrap().map(|admitted| admitted.delivery));
    }

    /// Commits `deliveries` in one batch and settles them, as the pump does.
    async fn commit(&self, deliveries: Vec<Admitted>) {
        commit(&self.ledger, deliveries).await;
    }

    /// Takes the next `count` deliveries, commits them, and returns their texts (`=` for a duplicate).
    async fn commit_next(&mut self, count: usize) -> Vec<String> {
        let mut deliveries = Vec::new();
        for _ in 0..count {
            deliveries.push(self.next().await);
        }
        let texts = deliveries.iter().map(|admitted| text(&admitted.delivery.content)).collect();
        self.commit(deliveries).await;
        texts
    }

    /// Waits until `holds`.
    async fn until(&self, what: &str, holds: impl Fn(&ListenerState) -> bool) {
        let waiting = async {
            while !holds(&self.state) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}: {:?}", self.state);
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.unwrap().unwrap().unwrap();
    }
}

async fn commit(ledger: &Ledger, deliveries: Vec<Admitted>) {
    let marks: Vec<MarkEvent> = deliveries.iter().filter_map(|admitted| admitted.delivery.mark).collect();
    if !marks.is_empty() {
        ledger.commit(Batch { marks, ..Batch::default() }).await.unwrap();
    }
    for admitted in deliveries {
        if let Some(receipt) = admitted.delivery.receipt {
            receipt.settle(Outcome::Committed);
        }
    }
}

/// Commits everything as it comes, after `interval` or at once when hurried, and keeps the texts.
fn pump(ledger: Ledger, mut handed_in: mpsc::Receiver<Admitted>, interval: Duration) -> Arc<Mutex<Vec<String>>> {
    let texts: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&texts);
    tokio::spawn(async move {
        while let Some(first) = handed_in.recv().await {
            let due = Instant::now() + interval;
            let mut batch = vec![first];
            while !batch.iter().any(|admitted| admitted.delivery.hurry == Hurry::Now) {
                match tokio::time::timeout_at(due, handed_in.recv()).await {
                    Ok(Some(next)) => batch.push(next),
                    _ => break,
                }
            }
            while let Ok(next) = handed_in.try_recv() {
                batch.push(next);
            }
            kept.lock().unwrap().extend(batch.iter().map(|admitted| text(&admitted.delivery.content)));
            commit(&ledger, batch).await;
        }
    });
    texts
}

fn text(content: &Content) -> String {
    match content {
        Content::Message(message) => String::from_utf8_lossy(&message.payload).into_owned(),
        Content::Duplicate { .. } => "=".to_owned(),
        Content::Refused { reason, .. } => format!("refused: {reason}"),
        Content::Mark => "released".to_owned(),
        Content::Readings(_) => panic!("the listener decodes nothing"),
    }
}

fn packet(first_byte: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    let mut packet = vec![first_byte];
    let mut length = body.len();
    loop {
        let more = length >= 0x80;
        packet.push((length & 0x7f) as u8 | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    packet.extend(body);
    packet
}

fn field(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text].concat()
}

fn connect_packet(client_id: &str, clean: bool, keep_alive: u16, will: Option<(&str, &str)>) -> Vec<u8> {
    let flags = if clean { 2 } else { 0 } | if will.is_some() { 4 } else { 0 };
    let mut fields = vec![b"\0\x04MQTT\x04".to_vec(), vec![flags], keep_alive.to_be_bytes().to_vec(), field(client_id.as_bytes())];
    if let Some((topic, payload)) = will {
        fields.extend([field(topic.as_bytes()), field(payload.as_bytes())]);
    }
    packet(0x10, &fields.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// CONNECT of version 5 with these properties.
fn connect_packet_v5(client_id: &str, clean: bool, properties: &[u8]) -> Vec<u8> {
    let flags = if clean { 2 } else { 0 };
    let length = properties.len() as u8;
    packet(0x10, &[b"\0\x04MQTT\x05", &[flags], &[0, 0], &[length], properties, &field(client_id.as_bytes())])
}

/// A session expiry interval, as a property.
fn expiry(seconds: u32) -> Vec<u8> {
    [&[0x11][..], &seconds.to_be_bytes()].concat()
}

/// A message of version 5 to topic `topic`.
fn publish_packet_v5(qos: u8, packet_id: u16, dup: bool, topic: &[u8], properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let first_byte = 0x30 | qos << 1 | if dup { 8 } else { 0 };
    let id = if qos == 0 { vec![] } else { packet_id.to_be_bytes().to_vec() };
    packet(first_byte, &[&field(topic), &id, &[properties.len() as u8], properties, payload])
}

fn publish_packet(packet_id: Option<u16>, dup: bool, topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let first_byte = 0x30 | if packet_id.is_some() { 2 } else { 0 } | if dup { 8 } else { 0 };
    let id = packet_id.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default();
    packet(first_byte, &[&field(topic), &id, payload])
}

/// A sensor that sends what it is told to.
struct Sensor {
    stream: TcpStream,
    received: BytesMut,
}

impl Sensor {
    async fn dial(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), received: BytesMut::new() }
    }

    /// Connects and is accepted; whether its session was present.
    async fn connect(bench: &Bench, client_id: &str, clean: bool) -> (Self, bool) {
        let mut sensor = Self::dial(bench.address).await;
        sensor.send(&connect_packet(client_id, clean, 0, None)).await;
        let connack = sensor.read().await.expect("a CONNACK");
        assert_eq!((connack[0], connack[1], connack[3]), (0x20, 2, 0), "{connack:x?}");
        (sensor, connack[2] == 1)
    }

    /// The same by version 5.
    async fn connect_v5(bench: &Bench, client_id: &str, clean: bool, properties: &[u8]) -> (Self, bool) {
        let mut sensor = Self::dial(bench.address).await;
        sensor.send(&connect_packet_v5(client_id, clean, properties)).await;
        let connack = sensor.read().await.expect("a CONNACK");
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:x?}");
        (sensor, connack[2] == 1)
    }

    /// Publishes at QoS 2 by 3.1.1.
    async fn publish_once(&mut self, packet_id: u16, dup: bool, payload: &str) {
        let first_byte = 0x34 | if dup { 8 } else { 0 };
        self.send(&packet(first_byte, &[&field(b"s/t"), &packet_id.to_be_bytes(), payload.as_bytes()])).await;
    }

    async fn release(&mut self, packet_id: u16) {
        self.send(&packet(0x62, &[&packet_id.to_be_bytes()])).await;
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn publish(&mut self, packet_id: u16, dup: bool, payload: &str) {
        self.send(&publish_packet(Some(packet_id), dup, b"s/t", payload.as_bytes())).await;
    }

    /// The next packet from the listener; `None` once it has closed the connection.
    async fn read(&mut self) -> Option<Vec<u8>> {
        timeout(PATIENCE, async {
            loop {
                if let Some(length) = self.received.get(1).map(|remaining| usize::from(*remaining) + 2)
                    && self.received.len() >= length
                {
                    return Some(self.received.split_to(length).to_vec());
                }
                // A reset is an end as good as any.
                if self.stream.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        })
        .await
        .expect("an answer in time")
    }

    async fn expect(&mut self, bytes: &[u8]) {
        assert_eq!(self.read().await.as_deref(), Some(bytes));
    }

    async fn expect_acks(&mut self, packet_ids: impl IntoIterator<Item = u16>) {
        for id in packet_ids {
            let [high, low] = id.to_be_bytes();
            self.expect(&[0x40, 2, high, low]).await;
        }
    }

    /// The listener says why it closes the connection, and does.
    async fn expect_disconnect(&mut self, reason: u8) {
        let packet = self.read().await.expect("a DISCONNECT");
        assert_eq!((packet[0], packet[2]), (0xe0, reason), "{packet:x?} {}", String::from_utf8_lossy(&packet));
        self.expect_closed().await;
    }

    async fn expect_closed(&mut self) {
        assert_eq!(self.read().await, None);
    }

    async fn expect_nothing(&mut self) {
        let came = timeout(MOMENT, self.stream.read_buf(&mut self.received)).await;
        assert!(came.is_err(), "{:x?}", self.received);
    }
}
