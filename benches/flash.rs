//! Bytes to the medium for each reading, as the block device counts them: the journal and the file system's own writes
//! while readings come, then with the seal that turns them into Parquet. Beside it SQLite with one row a reading and an
//! index, which commits once a second, and mosquitto, which keeps the same messages for a subscriber that is away and saves
//! its state once a second: all of it each time, so that its figure grows with the seconds. Last, what an idle daemon writes.
//!
//! `cargo bench --bench flash -- [seconds]` (with `--no-default-features` it builds quicker and measures the same), 60
//! seconds without the argument. NEEDS ROOT: everyone gets an ext4 file system of its own in a loop-mounted image, and all
//! run at the same time. The images are sparse and below `target`; `FOREBAY_BENCH_DIR` names another folder. What
//! `FOREBAY_BENCH_SETTINGS` has, in TOML, is added to forebay's configuration, so that settings can be compared.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at the first surprise and prints its result")]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use support::card::{Card, run, text};
use support::rows::Rows;
use support::{Daemon, Senders, scratch};

/// After the last reading is sealed: the ledger tidies up.
const SETTLED: Duration = Duration::from_secs(5);

/// Readings a second.
const RATES: [u64; 3] = [10, 100, 1000];

/// Readings in a message: the least, and what a small weather station sends.
const IN_A_MESSAGE: [u64; 2] = [1, 10];

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(60);
    if !rustix::process::geteuid().is_root() {
        println!("this benchmark mounts images and needs root: nothing was measured");
        return;
    }
    let scratch = scratch();
    let place = scratch.path();
    let (ours, rows, broker, idle) = thread::scope(|scope| {
        let ours = RATES.map(|rate| IN_A_MESSAGE.map(|each| scope.spawn(move || forebay(place, rate, each, seconds))));
        let rows = RATES.map(|rate| scope.spawn(move || sqlite(place, rate, seconds)));
        let broker = RATES.map(|rate| scope.spawn(move || mosquitto(place, rate, seconds)));
        let idle = scope.spawn(move || idle(place, seconds));
        let ours = ours.map(|of_rate| of_rate.map(|figure| figure.join().unwrap()));
        let (rows, broker) = (rows.map(|figure| figure.join().unwrap()), broker.map(|figure| figure.join().unwrap()));
        (ours, rows, broker, idle.join().unwrap())
    });
    println!("bytes to the device for each reading, over {seconds} s; in brackets how many times as much SQLite writes");
    println!("{:>10} {:>10} {:>18} {:>18} {:>14} {:>11}", "readings/s", "a message", "journal", "and its seal", "SQLite", "mosquitto");
    for (((rate, figures), rows), broker) in RATES.iter().zip(&ours).zip(&rows).zip(&broker) {
        for (each, Written { journal, sealed }) in IN_A_MESSAGE.iter().zip(figures) {
            let cell = |bytes: &f64| format!("{bytes:.0} ({:.1}x)", rows / bytes);
            println!("{rate:>10} {each:>10} {:>18} {:>18} {rows:>14.0} {broker:>11.0}", cell(journal), cell(sealed));
        }
    }
    println!("idle: {idle} bytes in {seconds} s");
}

/// Bytes for each reading.
struct Written {
    journal: f64,
    sealed: f64,
}

fn forebay(place: &Path, rate: u64, in_a_message: u64, seconds: u64) -> Written {
    let card = Card::insert(place, &format!("forebay-{rate}-{in_a_message}"));
    let daemon = Daemon::start(&card.mount, &std::env::var("FOREBAY_BENCH_SETTINGS").unwrap_or_default());
    let before = card.written();
    let messages = rate as f64 / in_a_message as f64;
    let senders = daemon.send(&format!("--sensors 10 --rate {messages} --readings {in_a_message} --for {seconds}s"));
    let readings = senders.finish();
    let journal = card.written() - before;
    daemon.flush();
    let sealed = card.written() - before;
    daemon.stop();
    Written { journal: journal as f64 / readings, sealed: sealed as f64 / readings }
}

fn sqlite(place: &Path, rate: u64, seconds: u64) -> f64 {
    let card = Card::insert(place, &format!("sqlite-{rate}"));
    let mut rows = Rows::create(&card.mount, true);
    let (before, begun) = (card.written(), Instant::now());
    for second in 1..=seconds {
        rows.commit(rate);
        sleep(Duration::from_secs(second).saturating_sub(begun.elapsed()));
    }
    (card.written() - before) as f64 / (rate * seconds) as f64
}

/// A message a reading, kept for a subscriber that is away.
fn mosquitto(place: &Path, rate: u64, seconds: u64) -> f64 {
    let card = Card::insert(place, &format!("mosquitto-{rate}"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = card.mount.join("mosquitto.conf");
    let folder = text(&card.mount);
    let told = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\nautosave_interval 1\n\
         max_queued_messages 0\nuser root\n"
    );
    fs::write(&settings, told).unwrap();
    let mut broker = Command::new("/usr/sbin/mosquitto").arg("-c").arg(&settings).stderr(Stdio::null()).spawn().unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        sleep(Duration::from_millis(20));
    }
    run("mosquitto_sub", &["-p", &port.to_string(), "-i", "away", "-c", "-q", "1", "-t", "#", "-E"]);
    let before = card.written();
    let senders = Senders::start(&format!("127.0.0.1:{port}"), &format!("--sensors 10 --rate {rate} --readings 1 --for {seconds}s"));
    let readings = senders.finish();
    sleep(SETTLED);
    let written = card.written() - before;
    broker.kill().and_then(|()| broker.wait()).unwrap();
    written as f64 / readings
}

/// What a daemon writes that has readings and gets no more.
fn idle(place: &Path, seconds: u64) -> u64 {
    let card = Card::insert(place, "idle");
    let daemon = Daemon::start(&card.mount, "");
    daemon.send("--rate 0 --for 1s").finish();
    daemon.flush();
    sleep(SETTLED);
    let before = card.written();
    sleep(Duration::from_secs(seconds));
    card.written() - before
}
