//! Through a real mosquitto.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::ingest::sim;

/// A real broker with a session store of its own.
struct Mosquitto {
    program: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Mosquitto {
    /// `None` only where it is not installed and nobody promised that it is.
    fn start() -> Option<Self> {
        let folders = std::env::var("PATH").unwrap_or_default();
        let found =
            std::env::split_paths(&folders).chain(["/usr/sbin".into()]).map(|folder| folder.join("mosquitto")).find(|file| file.exists());
        let Some(program) = found else {
            assert!(std::env::var_os("CI").is_none(), "mosquitto is not installed");
            eprintln!("SKIPPED: mosquitto is not installed");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let store = dir.path().display();
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {store}/\n\
             max_queued_messages 0\nuser root\n"
        );
        std::fs::write(dir.path().join("mosquitto.conf"), settings).unwrap();
        let child = Self::spawn(&program, dir.path());
        Some(Self { program, dir, port, child })
    }

    fn spawn(program: &std::path::Path, dir: &std::path::Path) -> Child {
        Command::new(program).arg("-c").arg(dir.join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Stops it in order, so that it keeps its sessions.
    fn stop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = Self::spawn(&self.program, self.dir.path());
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sensors(broker: &Mosquitto, rate: f64, millis: u64) -> sim::Settings {
    let duration = Some(Duration::from_millis(millis));
    sim::Settings { url: broker.url(), sensors: 4, rate, duration, ..sim::Settings::default() }
}

async fn publish(settings: sim::Settings) -> sim::Outcome {
    sim::run(settings, CancellationToken::new(), Arc::default()).await.unwrap()
}

/// Fails unless `payloads` (of several lives) hold each of `sent` messages once.
fn each_once(lives: &[Vec<Given>], sent: u64) {
    let stored: Vec<_> =
        lives.iter().flatten().filter(|given| matches!(given, Given::Message { .. })).map(|given| format!("{given:?}")).collect();
    let distinct: std::collections::HashSet<_> = stored.iter().collect();
    assert_eq!((stored.len() as u64, distinct.len() as u64), (sent, sent), "stored and distinct");
}

fn messages(given: &[Given]) -> u64 {
    given.iter().filter(|given| matches!(given, Given::Message { .. })).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn through_mosquitto_each_message_is_stored_once_across_our_crashes() {
    let Some(broker) = Mosquitto::start() else { return };
    let gateway = Gateway::new(broker.url());
    let mut client = gateway.start();
    eventually("the subscription", || client.state.status().connected).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let publishing = tokio::spawn(publish(sensors(&broker, 400.0, 3000)));
    let mut lives = Vec::new();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // We die between the commit and the acknowledgements.
        client.pump.mode.send_replace(Mode::Hold);
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.task.abort();
        client.pump.mode.send_replace(Mode::Commit);
        tokio::time::sleep(Duration::from_millis(100)).await;
        lives.push(client.pump.given());
        client = gateway.start();
    }
    let outcome = publishing.await.unwrap();
    assert!(outcome.sent >= 1000 && outcome.acknowledged == outcome.sent, "{outcome:?}");
    let before: u64 = lives.iter().map(|given| messages(given)).sum();
    client.pump.wait("all messages", |given| before + messages(given) >= outcome.sent).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    lives.push(client.pump.given());
    each_once(&lives, outcome.sent);
    let duplicates = lives.iter().flatten().filter(|given| **given == Given::Duplicate).count();
    assert!(duplicates >= 20, "only {duplicates} redeliveries: this shows nothing");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_keeps_what_comes_while_we_are_away_and_we_find_it_after_its_restart() {
    let Some(mut broker) = Mosquitto::start() else { return };
    let gateway = Gateway::new(broker.url());
    let client = gateway.start();
    eventually("the subscription", || client.state.status().connected).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut sent = publish(sensors(&broker, 100.0, 500)).await.sent;
    let first = client.pump.given();
    client.stop().await;
    let away = sim::Settings { client_prefix: "away".to_owned(), ..sensors(&broker, 1000.0, 500) };
    sent += publish(away).await.sent;
    broker.stop();

    let client = gateway.start();
    eventually("a failed attempt", || client.state.status().last_error.is_some()).await;
    broker.start_again();
    let before = first.len() as u64;
    client.pump.wait("what was kept", |given| before + given.len() as u64 >= sent).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    each_once(&[first, client.pump.given()], sent);
    assert_eq!(client.state.status().refused_filters, Vec::<String>::new());
    client.stop().await;
}
