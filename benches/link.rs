//! Poor links: 64 kbit/s, 128 kbit/s that are gone for 20 of every 40 seconds, one that loses every tenth packet. How long a backlog
//! takes to drain, what that sends beside what is stored, and how soon the newest readings are upstream when the way is back;
//! each beside the link as it is without the fault.
//!
//! `cargo bench --bench link`, as root: it makes two network namespaces with a cable between them, for which it needs `ip`,
//! `tc` and `nft`. In one runs the daemon, in the other `examples/collector.py` or moto (`pip install "moto[server]"`). With
//! words after `--` only the rows whose name contains one of them are measured. It takes a quarter of an hour.
//!
//! `sent` is the daemon's own count of bodies handed to the line, also those in vain; `wire` counts frames as they left the
//! interface, with what HTTP, TCP, IP and ARP add, repeat and ask while there is no way. Both are beside the bytes stored.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark stops at the first surprise and prints its result"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use support::network::{Cut, FAR_ADDRESS, Fault, Network, in_namespace};
use support::{Daemon, is_complete, number, scratch};

/// Requests sealed while there is no way, and readings in each, which no compression makes much smaller than eight bytes.
const BACKLOG: (usize, usize) = (14, 5000);

/// Then readings go on coming for so long, and so many of them may wait for their turn at any time.
const LIVE: Duration = Duration::from_secs(130);
const LIVE_RATE: &str = "--sensors 10 --rate 1 --readings 5";
const LIVE_WAITING: f64 = 2000.0;

/// The way is there, and gone, for so long.
const FLAP: Duration = Duration::from_secs(20);

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(1200);

const PORT: &str = "8480";

/// A row of the table.
struct Scenario {
    name: &'static str,
    s3: bool,
    fault: Fault,
    cuts: &'static [Cut],
}

const SCENARIOS: [Scenario; 7] = [
    Scenario { name: "unimpaired", s3: false, fault: Fault::None, cuts: &[] },
    Scenario { name: "64 kbit/s", s3: false, fault: Fault::Slow(64), cuts: &[] },
    Scenario { name: "flaps, kernel tells", s3: false, fault: Fault::Slow(128), cuts: &[Cut::NearEnd, Cut::FarEnd, Cut::Address] },
    Scenario { name: "flaps, kernel silent", s3: false, fault: Fault::Slow(128), cuts: &[Cut::Silent; 3] },
    Scenario { name: "10 % loss", s3: false, fault: Fault::Loss, cuts: &[] },
    Scenario { name: "S3 unimpaired", s3: true, fault: Fault::None, cuts: &[] },
    Scenario { name: "S3 10 % loss", s3: true, fault: Fault::Loss, cuts: &[] },
];

/// What was measured.
struct Figures {
    stored: f64,
    sent: f64,
    wire: f64,
    /// Until the backlog of the beginning was upstream, and after the last reading until everything was.
    backlog: Duration,
    rest: Duration,
    /// From each return of the way until what was committed by then was upstream.
    newest: Vec<Duration>,
    complete: bool,
}

fn main() {
    if let Err(why) = Network::new() {
        println!("skipped: this takes root, ip, tc and nft: {why}");
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!(
        "{:<21} | {:>9} | {:>10} {:>7} | {:>8} | {:>10} {:>10} | {:>24} | verify",
        "link", "stored B", "backlog s", "ratio", "rest s", "sent ratio", "wire ratio", "newest after a return s"
    );
    let mut unimpaired: Option<Duration> = None;
    for scenario in SCENARIOS.iter().filter(|scenario| wanted.is_empty() || wanted.iter().any(|word| scenario.name.contains(word.as_str())))
    {
        let found = measure(scenario);
        if scenario.fault == Fault::None {
            unimpaired = Some(found.backlog);
        }
        let ratio = unimpaired.map_or_else(|| "-".to_owned(), |plain| format!("{:.1}x", found.backlog.as_secs_f64() / plain.as_secs_f64()));
        let newest: Vec<_> = found.newest.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect();
        println!(
            "{:<21} | {:>9.0} | {:>10.1} {ratio:>7} | {:>8.1} | {:>10.3} {:>10.3} | {:>24} | {}",
            scenario.name,
            found.stored,
            found.backlog.as_secs_f64(),
            found.rest.as_secs_f64(),
            found.sent / found.stored,
            found.wire / found.stored,
            newest.join(" "),
            if found.complete { "complete" } else { "NOT COMPLETE" },
        );
    }
}

fn measure(scenario: &Scenario) -> Figures {
    let (folder, network) = (scratch(), Network::new().unwrap());
    let upstream = Far::start(scenario.s3, folder.path(), &network);
    network.suffer(scenario.fault);
    network.set(Cut::NearEnd, false);
    let segments = "[segment]\nseal_interval = \"10s\"\nseal_readings = 20000\n";
    let daemon = Daemon::start_in(&network.near, folder.path(), &format!("{segments}{}", upstream.settings));
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..BACKLOG.0 {
        let reading = |place| format!("{{\"sensor\":\"s{}\",\"metric\":\"noise\",\"value\":{}}}\n", place % 10, random.random::<f64>());
        daemon.hand_in(&(0..BACKLOG.1).map(reading).collect::<String>());
    }
    wait_for(&daemon, "the backlog to be sealed", |status| number(&status["books"]["hot"]) == 0.0);
    let begun = Instant::now();
    network.set(Cut::NearEnd, true);
    let senders = daemon.send(&format!("{LIVE_RATE} --for {}s", LIVE.as_secs()));
    let (backlog, newest) = std::thread::scope(|scope| {
        let draining = scope.spawn(|| {
            wait_for(&daemon, "the backlog to drain", |status| waiting(status) < LIVE_WAITING);
            begun.elapsed()
        });
        let newest = flap(&network, &daemon, &upstream, scenario.cuts);
        (draining.join().unwrap(), newest)
    });
    senders.finish();
    let ended = Instant::now();
    let status = wait_for(&daemon, "everything to be upstream", |status| waiting(status) == 0.0);
    let (rest, link) = (ended.elapsed(), &status["link"]);
    let (stored, sent, wire) = (number(&link["delivered_bytes"]), number(&link["sent_bytes"]), network.sent_bytes());
    daemon.stop();
    Figures { stored, sent, wire, backlog, rest, newest, complete: is_complete(&network.far, &upstream.verify) }
}

/// Readings that are not upstream.
fn waiting(status: &Value) -> f64 {
    number(&status["books"]["hot"]) + number(&status["books"]["sealed"])
}

/// Takes the way away by each of `cuts` in turn and brings it back; gives the time from each return until what was committed
/// at the return was upstream.
fn flap(network: &Network, daemon: &Daemon, upstream: &Far, cuts: &[Cut]) -> Vec<Duration> {
    let mut newest = Vec::new();
    for cut in cuts {
        sleep(FLAP.saturating_sub(newest.last().copied().unwrap_or_default()));
        network.set(*cut, false);
        sleep(FLAP);
        let accepted = number(&daemon.status()["books"]["accepted"]);
        let back = Instant::now();
        network.set(*cut, true);
        while upstream.newest_seq() < accepted {
            assert!(back.elapsed() < PATIENCE, "waited in vain for the newest readings: {:#}", daemon.status());
            sleep(Duration::from_millis(50));
        }
        newest.push(back.elapsed());
    }
    newest
}

fn wait_for(daemon: &Daemon, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let status = daemon.status();
        if holds(&status) {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}: {status:#}");
        sleep(Duration::from_millis(100));
    }
}

/// Upstream, in its own namespace.
struct Far {
    process: Child,
    lake: PathBuf,
    /// The daemon's.
    settings: String,
    /// Arguments of `forebay verify`.
    verify: Vec<String>,
}

impl Far {
    fn start(s3: bool, folder: &Path, network: &Network) -> Self {
        let mut command = in_namespace(&network.far, "python3");
        let (lake, keys) = (folder.join("lake"), folder.join("keys"));
        let root = format!("http://{FAR_ADDRESS}:{PORT}");
        let (settings, verify) = if s3 {
            command.args(["-m", "moto.server", "-H", FAR_ADDRESS, "-p", PORT]);
            fs::write(&keys, "aws_access_key_id = AK\naws_secret_access_key = SK\n").unwrap();
            fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
            let place = format!("url = \"s3://lake/farm\"\nendpoint = \"{root}\"\ncredentials_file = {keys:?}");
            let config = folder.join("forebay.toml").display().to_string();
            (place, vec!["s3://lake/farm".to_owned(), "--config".to_owned(), config])
        } else {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/collector.py");
            command.arg(script).arg(&lake).args(["--host", FAR_ADDRESS, "--port", PORT]);
            (format!("url = \"{root}/\""), vec![lake.display().to_string()])
        };
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let far = Self { process, lake, settings: format!("[upstream]\n{settings}\nallow_plain = true\n"), verify };
        // For a collector this is a request like any other; for S3 it makes the bucket.
        let begun = Instant::now();
        let bucket = format!("{root}/lake");
        while !in_namespace(&network.far, "curl").args(["-s", "-o", "/dev/null", "-X", "PUT", &bucket]).status().unwrap().success() {
            assert!(begun.elapsed() < PATIENCE, "nobody answers at {root}; is moto[server] installed?");
            sleep(Duration::from_millis(200));
        }
        far
    }

    /// The highest seq that a manifest in the collector's lake tells of.
    fn newest_seq(&self) -> f64 {
        let manifests = fs::read_dir(self.lake.join("manifests/gateway=bench")).into_iter().flatten().flatten();
        let told = manifests.filter_map(|file| serde_json::from_slice::<Value>(&fs::read(file.path()).ok()?).ok()?["last_seq"].as_f64());
        told.fold(0.0, f64::max)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
