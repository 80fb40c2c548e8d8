//! Redelivery: what a sender was not told of is sent again, and stored once, whoever was killed on the way.
//!
//! The story of each test: a client of its own publishes numbered messages at QoS 1 and believes only acknowledgements;
//! forebay is killed with SIGKILL again and again; in the end the lake holds each number once.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Gateway, Mosquitto, PATIENCE, Publisher, assert_each_once};

pub const SEAL_OFTEN: &str =
    "[segment]\nseal_interval = \"1s\"\n[upstream]\nretry_min = \"100ms\"\nretry_max = \"1s\"\nprobe_interval = \"200ms\"\n";

/// Kills and starts the daemon `times` times while the publisher runs, at moments that differ.
pub fn kill_on_the_way(gateway: &mut Gateway, publisher: &mut Publisher, times: u32) {
    for round in 0..times {
        std::thread::sleep(Duration::from_millis(400 + u64::from(round) * 137 % 500));
        assert!(publisher.is_running(), "the publisher ended before kill {round}: make it longer");
        gateway.check_answer();
        gateway.kill();
        gateway.start();
    }
}

#[test]
fn behind_a_real_broker_ten_kills_cost_and_double_nothing() {
    const MESSAGES: u64 = 100_000;
    let broker = Mosquitto::start();
    let mut gateway = Gateway::new("");
    let lake = gateway.lake();
    gateway.configure(&format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\ntopics = [\"plant/#\"]\n{SEAL_OFTEN}url = \"file://{}\"\n",
        broker.port,
        lake.display()
    ));
    gateway.start();
    gateway.wait_for("the subscription", |gateway| gateway.log().contains("subscribed"));
    let mut publisher = Publisher::start(broker.port, MESSAGES, &["--rate", "8000"]);
    kill_on_the_way(&mut gateway, &mut publisher, 10);
    publisher.finish();
    gateway.wait_for("all messages", |gateway| gateway.books()["accepted"].as_u64() >= Some(2 * MESSAGES));
    gateway.flush();
    assert_each_once(&lake, MESSAGES as i64);
    assert_eq!(gateway.books()["accepted"], 2 * MESSAGES);
    gateway.verify();
}

#[test]
fn straight_from_a_persistent_client_ten_kills_cost_and_double_nothing() {
    const MESSAGES: u64 = 100_000;
    let mut gateway = Gateway::new("");
    let (lake, port) = (gateway.lake(), crate::support::free_port());
    gateway.configure(&format!("[listener]\nbind = [\"127.0.0.1:{port}\"]\n{SEAL_OFTEN}url = \"file://{}\"\n", lake.display()));
    gateway.start();
    let mut publisher = Publisher::start(port, MESSAGES, &["--rate", "6000", "--window", "500"]);
    kill_on_the_way(&mut gateway, &mut publisher, 10);
    publisher.finish();
    gateway.flush();
    assert_each_once(&lake, MESSAGES as i64);
    assert_eq!(gateway.books()["accepted"], 2 * MESSAGES);
    gateway.verify();
}

/// A client with a window of one that uses packet id 1 for every message: the least that the protocol allows.
struct OneId {
    port: u16,
    connection: Option<TcpStream>,
}

impl OneId {
    fn connect(&mut self) -> std::io::Result<&mut TcpStream> {
        if self.connection.is_none() {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            // CONNECT: MQTT 3.1.1, clean session off, keep-alive 60 s, client id "one".
            stream.write_all(&[0x10, 15, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60, 0, 3, b'o', b'n', b'e'])?;
            let mut connack = [0; 4];
            stream.read_exact(&mut connack)?;
            assert_eq!((connack[0], connack[3]), (0x20, 0), "CONNACK {connack:?}");
            self.connection = Some(stream);
        }
        Ok(self.connection.as_mut().unwrap())
    }

    fn try_publish(&mut self, payload: &str, dup: bool) -> std::io::Result<()> {
        let stream = self.connect()?;
        let mut packet = vec![if dup { 0x3a } else { 0x32 }, (payload.len() + 5) as u8, 0, 1, b't', 0, 1];
        packet.extend(payload.as_bytes());
        stream.write_all(&packet)?;
        let mut puback = [0; 4];
        stream.read_exact(&mut puback)?;
        assert_eq!(puback, [0x40, 2, 0, 1]);
        Ok(())
    }

    /// Publishes until it is acknowledged; every attempt after the first has DUP set.
    fn publish(&mut self, payload: &str) {
        let end = std::time::Instant::now() + PATIENCE;
        let mut dup = false;
        while self.try_publish(payload, dup).is_err() {
            assert!(std::time::Instant::now() < end, "no acknowledgement of {payload}");
            // A message that may have left is a redelivery from now on.
            dup |= self.connection.take().is_some();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_packet_id_used_again_at_once_neither_loses_nor_doubles_across_kills() {
    const MESSAGES: i64 = 3_000;
    let mut gateway = Gateway::new("");
    let (lake, port) = (gateway.lake(), crate::support::free_port());
    // Killed several times a second, the daemon would never get to a commit that waits for one.
    let settings = format!("[listener]\nbind = [\"127.0.0.1:{port}\"]\n[journal]\ncommit_interval = \"20ms\"\n{SEAL_OFTEN}");
    gateway.configure(&format!("{settings}url = \"file://{}\"\n", lake.display()));
    gateway.start();
    let sender = std::thread::spawn(move || {
        let mut client = OneId { port, connection: None };
        (1..=MESSAGES).for_each(|number| client.publish(&format!("{{\"seq\":{number}}}")));
    });
    let mut kills = 0;
    while !sender.is_finished() {
        std::thread::sleep(Duration::from_millis(150 + kills * 31 % 200));
        gateway.kill();
        gateway.start();
        kills += 1;
    }
    sender.join().unwrap();
    assert!(kills >= 5, "only {kills} kills happened on the way");
    gateway.flush();
    assert_each_once(&lake, MESSAGES);
    gateway.verify();
}
