//! Start with a backlog against start without: the time from the program's start to READY, and memory at READY and two
//! seconds later, in order and after a kill in the middle of taking readings.
//!
//! `cargo bench --bench start` (with `--no-default-features` it builds quicker and measures the same). Both folders have
//! the same series and the same hot readings; one has segments that were never delivered and an upstream that is not there.
//! The folder is below `target`; `FOREBAY_BENCH_DIR` names one on another medium.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a benchmark stops at the first surprise and prints its result")]

mod support;

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use support::{Daemon, median, number, scratch};

/// Undelivered segments: two days at the default interval.
const BACKLOG: f64 = 600.0;

const STARTS: usize = 7;

/// Later than READY, when the background work of a start is under way.
const LATER: Duration = Duration::from_secs(2);

const UNREACHABLE: &str = "[upstream]\nurl = \"file:///nowhere/lake\"\n";

fn main() {
    let (with, without) = (scratch(), scratch());
    fill(with.path(), "[segment]\nseal_readings = 1000\n", BACKLOG);
    fill(without.path(), "", 0.0);
    println!("{:<22} {:>14} {:>14} {:>14}", "", "READY ms", "MiB at READY", "MiB after 2 s");
    for (how, end) in [("after an orderly end", Daemon::stop as fn(Daemon)), ("after a kill", Daemon::kill)] {
        let mut figures = [(with.path(), Vec::new()), (without.path(), Vec::new())];
        for _ in 0..STARTS {
            for (folder, starts) in &mut figures {
                starts.push(start(folder, end));
            }
        }
        let [with, without] = figures.map(|(_, starts)| medians(&starts));
        print(&format!("{how}, backlog"), with);
        print(&format!("{how}, none"), without);
        print("ratio", [0, 1, 2].map(|place| with[place] / without[place]));
    }
}

/// Takes readings until `segments` are sealed.
fn fill(folder: &Path, settings: &str, segments: f64) {
    let daemon = Daemon::start(folder, settings);
    loop {
        daemon.send("--sensors 100 --rate 0 --readings 10 --window 1 --for 5s").finish();
        if number(&daemon.status()["buffer"]["segments"]) >= segments {
            // Hot readings are read at each start; this is about sealed ones.
            daemon.flush();
            return daemon.stop();
        }
    }
}

/// One start and the next end.
fn start(folder: &Path, end: fn(Daemon)) -> [f64; 3] {
    let daemon = Daemon::start(folder, UNREACHABLE);
    let (ready, memory) = (daemon.ready_after.as_secs_f64() * 1e3, daemon.memory());
    sleep(LATER);
    let later = daemon.memory();
    daemon.send("--sensors 100 --rate 100 --readings 10 --for 1s").finish();
    end(daemon);
    [ready, memory / f64::from(1 << 20), later / f64::from(1 << 20)]
}

fn medians(starts: &[[f64; 3]]) -> [f64; 3] {
    // The first of a kind follows the other kind's end.
    [0, 1, 2].map(|place| median(&mut starts.iter().skip(1).map(|start| start[place]).collect::<Vec<_>>()))
}

fn print(what: &str, [ready, memory, later]: [f64; 3]) {
    println!("{what:<30} {ready:>10.2} {memory:>12.2} {later:>12.2}");
}
