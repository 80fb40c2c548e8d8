//! Which settings cost a flash card the fewest bytes: daemons that differ in one setting of the journal or of the segments
//! take the same readings at the same time, each on an ext4 file system of its own, and the block device counts what
//! reaches it for each reading, the seal included.
//!
//! `cargo bench --bench flash_settings -- [seconds]` (with `--no-default-features` it builds quicker and measures the same),
//! 600 seconds without the argument. NEEDS ROOT, as `flash` does, and about 4 GiB below `target` or in `FOREBAY_BENCH_DIR`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at the first surprise and prints its result")]

mod support;

use std::path::Path;
use std::thread;

use support::card::Card;
use support::{Daemon, scratch};

/// Readings a second, ten in a message.
const RATES: [u64; 3] = [10, 100, 1000];
const IN_A_MESSAGE: u64 = 10;

/// The first is what is shipped; each other changes one thing of it. The seals of a gateway with an upstream, since without
/// one they are hourly.
const SETTINGS: [(&str, &str); 8] = [
    ("as shipped (1s, 800KiB, 5m)", ""),
    ("journal.commit_interval = 200ms", "[journal]\ncommit_interval = \"200ms\""),
    ("journal.commit_interval = 5s", "[journal]\ncommit_interval = \"5s\""),
    ("journal.commit_interval = 10s", "[journal]\ncommit_interval = \"10s\""),
    ("journal.checkpoint = 200KiB", "[journal]\ncheckpoint = \"200KiB\""),
    ("journal.checkpoint = 2MiB", "[journal]\ncheckpoint = \"2MiB\""),
    ("segment.seal_interval = 1m", "[segment]\nseal_interval = \"1m\""),
    ("segment.seal_interval = 1h", "[segment]\nseal_interval = \"1h\""),
];

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(600);
    if !rustix::process::geteuid().is_root() {
        println!("this benchmark mounts images and needs root: nothing was measured");
        return;
    }
    let scratch = scratch();
    let place = scratch.path();
    let figures = thread::scope(|scope| {
        let tries =
            SETTINGS.map(|(name, settings)| RATES.map(|rate| scope.spawn(move || bytes_a_reading(place, name, settings, rate, seconds))));
        tries.map(|of_settings| of_settings.map(|figure| figure.join().unwrap()))
    });
    println!("bytes to the device for each reading, ten readings a message, {seconds} s; in brackets as a part of what is shipped");
    print!("{:<34}", "readings/s");
    RATES.iter().for_each(|rate| print!(" {rate:>16}"));
    println!();
    for ((name, _), of_settings) in SETTINGS.iter().zip(&figures) {
        print!("{name:<34}");
        for (bytes, shipped) in of_settings.iter().zip(&figures[0]) {
            print!(" {:>16}", format!("{bytes:.0} ({:.2}x)", bytes / shipped));
        }
        println!();
    }
}

fn bytes_a_reading(place: &Path, name: &str, settings: &str, rate: u64, seconds: u64) -> f64 {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let card = Card::insert(place, &format!("{name}-{rate}"));
    let seals = if settings.contains("seal_interval") { "" } else { "[segment]\nseal_interval = \"5m\"\n" };
    let daemon = Daemon::start(&card.mount, &format!("{seals}{settings}"));
    let before = card.written();
    let messages = rate / IN_A_MESSAGE;
    let readings = daemon.send(&format!("--sensors 10 --rate {messages} --readings {IN_A_MESSAGE} --for {seconds}s")).finish();
    daemon.flush();
    let written = card.written() - before;
    daemon.stop();
    written as f64 / readings
}
