//! Readings made durable a second: published to the listener, committed and acknowledged, by readings in a message and by
//! the sender's window. Beside it SQLite with one row a reading, which commits batches of the same size with a fsync each.
//!
//! `cargo bench --bench ingest` (with `--no-default-features` it builds quicker and measures the same). One sender on
//! loopback is decoded, checked and answered; SQLite gets its rows from within its process. The folder is below `target`;
//! `FOREBAY_BENCH_DIR` names one on another medium.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a benchmark stops at the first surprise and prints its result")]

mod support;

use std::thread::sleep;
use std::time::{Duration, Instant};

use support::rows::Rows;
use support::{Daemon, number, quantile, scratch};

/// Until the listener knows the sender's window.
const WARM_UP: Duration = Duration::from_secs(2);

/// Of each figure.
const MEASURED: Duration = Duration::from_secs(5);

/// The daemon's default `journal.commit_readings`.
const LARGEST_BATCH: u64 = 10_000;

/// Readings a second, and the median and 99th percentile of a commit in seconds.
struct Figure {
    rate: f64,
    p50: f64,
    p99: f64,
}

fn main() {
    println!(
        "{:>8} {:>7} | {:>10} {:>8} {:>8} | {:^37} | {:^37}",
        "", "", "forebay", "", "", "SQLite, rows with an index", "SQLite, rows alone"
    );
    let columns = format!("{:>10} {:>8} {:>8}", "readings/s", "p50 ms", "p99 ms");
    println!("{:>8} {:>7} | {columns} | {columns} {:>8} | {columns} {:>8}", "readings", "window", "ratio", "ratio");
    for readings in [1, 100] {
        for window in [1, 20, 100, 1000] {
            let ours = forebay(readings, window);
            let batch = (readings * window).min(LARGEST_BATCH);
            let others =
                [sqlite(batch, true), sqlite(batch, false)].map(|other| format!("{} {:>7.1}x", other.cells(), ours.rate / other.rate));
            println!("{readings:>8} {window:>7} | {} | {}", ours.cells(), others.join(" | "));
        }
    }
}

impl Figure {
    fn cells(&self) -> String {
        format!("{:>10.0} {:>8.2} {:>8.2}", self.rate, self.p50 * 1e3, self.p99 * 1e3)
    }
}

fn forebay(readings: u64, window: u64) -> Figure {
    let folder = scratch();
    let daemon = Daemon::start(folder.path(), "");
    let seconds = (WARM_UP + MEASURED).as_secs() + 1;
    let senders = daemon.send(&format!("--sensors 1 --rate 0 --readings {readings} --window {window} --for {seconds}s"));
    sleep(WARM_UP);
    let before = daemon.status();
    sleep(MEASURED);
    let after = daemon.status();
    senders.finish();
    daemon.stop();
    let grown = |room: &str, name: &str| number(&after[room][name]) - number(&before[room][name]);
    let took = number(&after["uptime_s"]) - number(&before["uptime_s"]);
    Figure {
        rate: grown("books", "accepted") / took,
        p50: number(&after["ingest"]["commit_p50_s"]),
        p99: number(&after["ingest"]["commit_p99_s"]),
    }
}

fn sqlite(batch: u64, indexed: bool) -> Figure {
    let folder = scratch();
    let mut rows = Rows::create(folder.path(), indexed);
    let (begun, mut commits) = (Instant::now(), Vec::new());
    while begun.elapsed() < MEASURED {
        let commit = Instant::now();
        rows.commit(batch);
        commits.push(commit.elapsed().as_secs_f64());
    }
    let rate = (commits.len() as u64 * batch) as f64 / begun.elapsed().as_secs_f64();
    Figure { rate, p50: quantile(&mut commits, 0.5), p99: quantile(&mut commits, 0.99) }
}
