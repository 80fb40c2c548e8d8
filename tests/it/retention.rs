//! Caps that hold: what goes is accounted for, what is refused stays with its sender, and it goes on by itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Gateway, PATIENCE, Publisher, values_in_lake};

const MIB: u64 = 1 << 20;

/// The cap of most tests, the smallest there is.
const CAP: u64 = 16 * MIB;

fn settings(gateway: &Gateway, retention: &str) -> String {
    format!(
        "[listener]\nbind = [\"127.0.0.1:0\"]\n[segment]\nseal_interval = \"1s\"\nseal_readings = 5000\n[engine]\nenabled = false\n\
         [upstream]\nurl = \"file://{}\"\nretry_min = \"100ms\"\nretry_max = \"500ms\"\nprobe_interval = \"200ms\"\n\
         [retention]\nmin_free = \"0\"\ncheck_interval = \"1s\"\n{retention}\n",
        gateway.lake().display()
    )
}

/// A gateway that has delivered ten readings to its lake, which is away now.
fn cut_off(retention: &str) -> (Gateway, Noise) {
    let mut gateway = Gateway::new("");
    gateway.configure(&settings(&gateway, retention));
    gateway.start();
    let noise = take_lake_away(&gateway);
    (gateway, noise)
}

/// Delivers ten readings, so that no other lake is taken for the first one, and takes it away.
fn take_lake_away(gateway: &Gateway) -> Noise {
    let mut noise = Noise::default();
    assert_eq!(post(gateway, &noise.body(10)), (200, None));
    gateway.flush();
    fs::rename(gateway.lake(), away(gateway)).unwrap();
    noise
}

fn away(gateway: &Gateway) -> std::path::PathBuf {
    gateway.folder.path().join("away")
}

fn bring_lake_back(gateway: &Gateway) {
    fs::rename(away(gateway), gateway.lake()).unwrap();
}

/// Readings numbered from 1, each with 200 letters that no compression makes much smaller.
pub struct Noise {
    next: u64,
    dice: u64,
}

impl Default for Noise {
    fn default() -> Self {
        Self { next: 1, dice: 1 }
    }
}

impl Noise {
    /// How many there were.
    pub fn readings(&self) -> u64 {
        self.next - 1
    }

    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.dice >> 33
    }

    pub fn body(&mut self, readings: u64) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut body = String::new();
        for number in self.next..self.next + readings {
            write!(body, "{{\"sensor\":\"s\",\"metric\":\"seq\",\"value\":{number},\"text\":\"").unwrap();
            (0..200).for_each(|_| body.push(char::from(LETTERS[(self.roll() % 64) as usize])));
            body.push_str("\"}\n");
        }
        self.next += readings;
        body
    }
}

/// Hands in a body; the status, and the seconds to wait where there are some.
fn post(gateway: &Gateway, body: &str) -> (u16, Option<u64>) {
    let socket = gateway.folder.path().join("forebay.sock");
    let mut curl = Command::new("curl")
        .args(["--silent", "--max-time", "70", "--output", "/dev/null", "--write-out", "%{http_code} %header{retry-after}"])
        .arg("--unix-socket")
        .arg(socket)
        .args(["--header", "content-type: application/x-ndjson", "--data-binary", "@-", "http://forebay/api/v1/readings"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    // Who refuses need not read it all.
    let _ = curl.stdin.take().unwrap().write_all(body.as_bytes());
    let answer = String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap();
    let (code, wait) = answer.split_once(' ').unwrap_or_default();
    (code.parse().unwrap_or_default(), wait.trim().parse().ok())
}

/// Hands in a body until it is taken or the daemon is gone: while room is being made nothing comes in.
pub fn insist(gateway: &Gateway, body: &str) -> u16 {
    let end = Instant::now() + PATIENCE;
    loop {
        match post(gateway, body).0 {
            503 => assert!(Instant::now() < end, "no room is made\n{}", gateway.last_lines()),
            code => return code,
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What `du` says.
fn disk_bytes(folder: &Path) -> u64 {
    let output = Command::new("du").args(["--summarize", "--block-size=1"]).arg(folder).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap().parse().unwrap()
}

/// Asks `du` again and again, as long as it lives.
struct Watch {
    stop: Arc<AtomicBool>,
    watching: Option<JoinHandle<u64>>,
}

impl Watch {
    fn begin(gateway: &Gateway) -> Self {
        let (stop, data) = (Arc::new(AtomicBool::new(false)), gateway.data());
        let told = Arc::clone(&stop);
        let watching = std::thread::spawn(move || {
            let mut largest = 0;
            while !told.load(Ordering::Relaxed) {
                largest = largest.max(disk_bytes(&data));
            }
            largest
        });
        Self { stop, watching: Some(watching) }
    }

    /// The folder was never above the cap by more than one segment, the largest that was sealed.
    fn assert_cap(mut self, gateway: &Gateway) {
        self.stop.store(true, Ordering::Relaxed);
        let largest = self.watching.take().unwrap().join().unwrap();
        let log = gateway.log();
        let sealed =
            log.lines().filter(|line| line.contains(" sealed ")).filter_map(|line| line.split_once(" bytes=")?.1.split(' ').next());
        let segment = sealed.map(|bytes| bytes.parse().unwrap()).max().unwrap_or(0);
        assert!(largest <= CAP + segment, "{largest} bytes, and a segment takes {segment}\n{}", gateway.last_lines());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn losses(gateway: &Gateway) -> Vec<Value> {
    let socket = gateway.folder.path().join("forebay.sock");
    let output = Command::new("curl")
        .args(["--silent", "--fail", "http://forebay/api/v1/losses?limit=10000", "--unix-socket"])
        .arg(socket)
        .output()
        .unwrap();
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["losses"].as_array().unwrap().clone()
}

fn has_reason(gateway: &Gateway, code: &str) -> bool {
    gateway.status()["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == code)
}

/// Delivers what is left and proves that each reading of `1..=count` is in the lake once or explained by a loss.
fn assert_accounted_for(gateway: &Gateway, count: u64) {
    bring_lake_back(gateway);
    gateway.flush();
    let books = gateway.books();
    let (delivered, dropped) = (number(&books["delivered"]), number(&books["dropped"]));
    assert_eq!(delivered + dropped, count, "{books}");
    let told: u64 = losses(gateway).iter().map(|loss| number(&loss["readings"])).sum();
    assert_eq!(told, dropped);
    let found = values_in_lake(&gateway.lake(), "seq");
    assert_eq!(found.len() as u64, delivered);
    assert!(found.iter().all(|(number, times)| (1..=count as i64).contains(number) && *times == 1));
    let verified = gateway.ok(&["verify", &gateway.lake().display().to_string()]);
    assert_eq!(verified.contains("explained"), dropped > 0, "{verified}");
}

#[test]
fn the_cap_holds_while_the_link_is_down_and_every_missing_reading_is_explained() {
    let (gateway, mut noise) = cut_off("cap = \"16MiB\"");
    let watch = Watch::begin(&gateway);
    // Three at a time, so that more is always waiting than there is room for.
    for _ in 0..10 {
        let bodies = [noise.body(4_000), noise.body(8_000), noise.body(4_000)];
        std::thread::scope(|scope| {
            bodies.iter().for_each(|body| drop(scope.spawn(|| assert_eq!(insist(&gateway, body), 200, "{}", gateway.last_lines()))));
        });
    }
    watch.assert_cap(&gateway);
    assert!(number(&gateway.books()["dropped"]) > 0 && has_reason(&gateway, "dropping"), "{}", gateway.status());
    // What was dropped last is still being removed.
    gateway.wait_for("status and du to agree below the cap", |gateway| {
        let (told, found) = (number(&gateway.status()["buffer"]["disk_bytes"]), disk_bytes(&gateway.data()));
        told.abs_diff(found) < 2 * MIB && found <= CAP
    });
    assert_accounted_for(&gateway, 160_010);
}

#[test]
fn what_is_refused_at_the_cap_stays_with_its_sender_and_comes_when_there_is_room() {
    let (gateway, mut noise) = cut_off("cap = \"16MiB\"\nwhen_full = \"refuse\"");
    let watch = Watch::begin(&gateway);
    let mut taken: BTreeMap<_, _> = (1..=10).map(|number| (number, 1)).collect();
    // What is smaller may fit where the larger one did not.
    for readings in [4_000, 400, 40] {
        loop {
            let (first, body) = (noise.next, noise.body(readings));
            match post(&gateway, &body) {
                (200, _) => taken.extend((first..noise.next).map(|number| (number as i64, 1))),
                refused => {
                    assert_eq!(refused, (503, Some(10)));
                    break;
                }
            }
            assert!(noise.next < 200_000, "the cap was not noticed");
        }
    }
    assert!(has_reason(&gateway, "refusing"), "{}", gateway.status());
    // Ten megabytes, three readings in each message: some of it may fit after the next seal, never all.
    let mut waiting = Publisher::start(gateway.listener_port(), 5_000, &["--first", "1000001", "--noise", "2000"]);
    std::thread::sleep(Duration::from_secs(2));
    assert!(waiting.is_running(), "what is not kept must not be acknowledged");
    let accepted = number(&gateway.books()["accepted"]);
    assert!((taken.len() as u64..taken.len() as u64 + 15_000).contains(&accepted), "{accepted} of {}", taken.len());
    watch.assert_cap(&gateway);
    bring_lake_back(&gateway);
    waiting.finish();
    taken.extend((1_000_001..=1_005_000).map(|number| (number, 1)));
    gateway.wait_for("readings to be taken again", |gateway| {
        let (first, body) = (noise.next, noise.body(100));
        let is_taken = post(gateway, &body).0 == 200;
        if is_taken {
            taken.extend((first..noise.next).map(|number| (number as i64, 1)));
        }
        is_taken
    });
    gateway.flush();
    assert_eq!(values_in_lake(&gateway.lake(), "seq"), taken);
    let books = gateway.books();
    assert_eq!((&books["dropped"], &books["damaged"]), (&Value::from(0), &Value::from(0)));
    gateway.verify();
}

/// Every place at which a power cut could find retention between a decision and its end.
const POINTS: [&str; 4] = ["ledger.before_drop", "ledger.after_drop", "retention.after_drop", "retention.after_remove"];

#[test]
fn killed_at_any_step_of_a_drop_the_books_and_the_lake_agree() {
    for point in POINTS {
        let (mut gateway, mut noise) = cut_off("cap = \"16MiB\"");
        gateway.kill();
        gateway.environment.insert("FOREBAY_KILL_AT".to_owned(), point.to_owned());
        gateway.start();
        while insist(&gateway, &noise.body(8_000)) == 200 {
            assert!(noise.next < 400_000, "{point} was never passed\n{}", gateway.last_lines());
        }
        assert_eq!(gateway.wait_for_end(), None, "{point}\n{}", gateway.last_lines());
        gateway.environment.clear();
        gateway.start();
        let accepted = number(&gateway.books()["accepted"]);
        assert!(accepted + 8_000 >= noise.next - 1, "{point}: {accepted} of {}", noise.next);
        assert_accounted_for(&gateway, accepted);
        assert_eq!(gateway.log().matches("a new instance begins").count(), 0, "{point}");
    }
}

#[test]
fn killed_between_the_record_of_an_eviction_and_the_removal_nothing_comes_back() {
    let (mut gateway, mut noise) = cut_off("cap = \"16MiB\"");
    bring_lake_back(&gateway);
    gateway.kill();
    gateway.environment.insert("FOREBAY_KILL_AT".to_owned(), "retention.after_evict".to_owned());
    gateway.start();
    while insist(&gateway, &noise.body(4_000)) == 200 {
        gateway.command(&["flush", "--wait", "30s"]);
        assert!(noise.next < 400_000, "nothing was evicted\n{}", gateway.last_lines());
    }
    assert_eq!(gateway.wait_for_end(), None);
    gateway.environment.clear();
    gateway.start();
    let accepted = number(&gateway.books()["accepted"]);
    gateway.flush();
    assert_eq!(number(&gateway.books()["delivered"]), accepted);
    assert_eq!(values_in_lake(&gateway.lake(), "seq").len() as u64, accepted);
    gateway.verify();
}

/// A file system of its own under the data folder, as long as it lives.
struct SmallDisk {
    place: std::path::PathBuf,
}

impl SmallDisk {
    /// Of `mebibytes`, or why there can be none.
    fn mount(place: &Path, mebibytes: u64) -> Result<Self, String> {
        fs::create_dir_all(place).unwrap();
        let image = place.with_extension("img");
        fs::File::create(&image).unwrap().set_len(mebibytes * MIB).unwrap();
        let run = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        };
        run("mkfs.ext4", &["-q", "-m", "0", &image.display().to_string()])?;
        run("mount", &["-o", "loop", &image.display().to_string(), &place.display().to_string()])?;
        Ok(Self { place: place.to_owned() })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}

#[test]
fn on_a_disk_smaller_than_the_cap_nothing_acknowledged_is_lost_and_it_goes_on_when_space_returns() {
    let mut gateway = Gateway::new("");
    let disk = match SmallDisk::mount(&gateway.data(), 40) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("skipped: it takes a loop mount, and so root: {why}");
            return;
        }
    };
    gateway.configure(&settings(&gateway, "cap = \"64MiB\"\nwhen_full = \"refuse\""));
    gateway.start();
    let mut noise = take_lake_away(&gateway);
    let mut taken = Vec::new();
    let mut hand_in = |gateway: &Gateway, readings: u64| {
        let (first, body) = (noise.next, noise.body(readings));
        let code = post(gateway, &body).0;
        if code == 200 {
            taken.extend(first as i64..noise.next as i64);
        }
        assert!([200, 503].contains(&code), "{code}\n{}", gateway.last_lines());
        assert!(noise.next < 500_000, "the disk was not noticed");
        code
    };
    while hand_in(&gateway, 4_000) == 200 {}
    // Another program takes the rest, to the last byte.
    let filler = gateway.data().join("filler");
    let _ = fs::write(&filler, vec![1; 64 << 20]);
    assert_eq!(hand_in(&gateway, 100), 503);
    gateway.kill();
    gateway.start();
    gateway.wait_for("the refusal", |gateway| has_reason(gateway, "refusing"));
    assert_eq!(hand_in(&gateway, 100), 503);
    fs::remove_file(&filler).unwrap();
    bring_lake_back(&gateway);
    gateway.wait_for("readings to be taken again", |gateway| hand_in(gateway, 100) == 200);
    gateway.flush();
    let found = values_in_lake(&gateway.lake(), "seq");
    let lost: Vec<_> = taken.iter().filter(|number| found.get(number) != Some(&1)).take(10).collect();
    assert!(lost.is_empty(), "{lost:?}");
    gateway.verify();
    assert_eq!(gateway.stop(), Some(0));
    drop(disk);
}
