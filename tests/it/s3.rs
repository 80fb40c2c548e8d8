//! A real S3 server: it is away for the first half, replies get lost, the daemon is killed; and the bucket proves itself.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::retention::{Noise, insist};
use crate::support::{Gateway, PROGRAM, Publisher, assert_each_once, free_port, values_in_lake};

#[path = "../support/moto.rs"]
mod moto;

use moto::Moto;

const LAKE: &str = "s3://lake/farm";

/// What happens to a put on its way, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trap {
    /// The reply to a manifest is lost.
    LosesReply,
    /// The same, and then the line is down.
    LosesReplyAndFalls,
    /// The line goes down under a file.
    FallsUnderFile,
    /// A file is refused for good.
    RefusesFile,
}

/// The way to the server, which can be cut.
#[derive(Default)]
struct Line {
    port: u16,
    is_down: AtomicBool,
    trap: Mutex<Option<Trap>>,
    /// Bytes that went up, and the requests among them.
    sent: AtomicU64,
    requests: AtomicU64,
}

impl Line {
    fn to(server: u16) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Arc::new(Self { port: listener.local_addr().unwrap().port(), ..Self::default() });
        let this = Arc::clone(&line);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten().filter(|_| !this.is_down.load(Ordering::SeqCst)) {
                let far = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let (up, down) = ((near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near));
                let loses = Arc::new(AtomicBool::new(false));
                let (line, cut) = (Arc::clone(&this), Arc::clone(&loses));
                std::thread::spawn(move || {
                    let mut answer = up.0.try_clone().unwrap();
                    carry(up, |piece| match line.take_up(piece) {
                        None => true,
                        Some(Trap::LosesReply | Trap::LosesReplyAndFalls) => {
                            cut.store(true, Ordering::SeqCst);
                            true
                        }
                        Some(Trap::FallsUnderFile) => false,
                        Some(Trap::RefusesFile) => {
                            refuse(&mut answer);
                            false
                        }
                    });
                });
                std::thread::spawn(move || carry(down, |_| !loses.load(Ordering::SeqCst)));
            }
        });
        line
    }

    fn set(&self, trap: Trap) {
        *self.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(trap);
    }

    fn is_sprung(&self) -> bool {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Counts what goes up; the trap that it springs.
    fn take_up(&self, piece: &[u8]) -> Option<Trap> {
        self.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        // The head of a request comes in one piece.
        if ["PUT ", "HEAD ", "GET "].iter().any(|method| piece.starts_with(method.as_bytes())) {
            self.requests.fetch_add(1, Ordering::SeqCst);
        }
        let text = String::from_utf8_lossy(piece);
        let puts = |part: &str| text.starts_with("PUT ") && text.lines().next().is_some_and(|line| line.contains(part));
        let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        let sprung = trap.take_if(|trap| match trap {
            Trap::LosesReply | Trap::LosesReplyAndFalls => puts("/manifests/"),
            Trap::FallsUnderFile | Trap::RefusesFile => puts("/readings/"),
        });
        if matches!(sprung, Some(Trap::LosesReplyAndFalls | Trap::FallsUnderFile)) {
            self.is_down.store(true, Ordering::SeqCst);
        }
        sprung
    }
}

/// Refuses what comes, and hears the rest of it out so that the answer is not lost in a reset.
fn refuse(line: &mut TcpStream) {
    let _ = line.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let _ = line.shutdown(Shutdown::Write);
    let _ = line.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = std::io::copy(line, &mut std::io::sink());
}

/// Carries bytes from one to the other until one of them ends, or `passes` says no; then both are cut.
fn carry((mut from, mut to): (TcpStream, TcpStream), mut passes: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !passes(&buffer[..read]) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// The bucket, seen from outside.
struct Bucket {
    store: AmazonS3,
    runtime: Runtime,
}

impl Bucket {
    fn of(server: &Moto) -> Self {
        forebay::tls::install_provider();
        let builder = AmazonS3Builder::new().with_endpoint(server.endpoint()).with_allow_http(true).with_bucket_name("lake");
        let store = builder.with_access_key_id("AK").with_secret_access_key("SK").build().unwrap();
        Self { store, runtime: Runtime::new().unwrap() }
    }

    /// Keys below the lake's root that contain `part`, in order.
    fn keys(&self, part: &str) -> Vec<String> {
        use futures::TryStreamExt as _;
        let listed = self.runtime.block_on(self.store.list(Some(&Key::from("farm"))).try_collect::<Vec<_>>()).unwrap();
        let mut keys: Vec<_> = listed.into_iter().map(|object| object.location.to_string()).filter(|key| key.contains(part)).collect();
        keys.sort();
        keys
    }

    fn get(&self, key: &str) -> Vec<u8> {
        self.runtime.block_on(async { self.store.get(&Key::from(key)).await?.bytes().await }).unwrap().to_vec()
    }

    fn put(&self, key: &str, bytes: Vec<u8>) {
        self.runtime.block_on(self.store.put(&Key::from(key), bytes.into())).unwrap();
    }

    fn delete(&self, key: &str) {
        self.runtime.block_on(self.store.delete(&Key::from(key))).unwrap();
    }

    /// Every reading `1..=count` is in the bucket once.
    fn assert_each_once(&self, count: i64) {
        assert_each_once(self.download().path(), count);
    }

    /// Its readings, as a lake in a folder.
    fn download(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for key in self.keys("readings/") {
            let path = folder.path().join(key.trim_start_matches("farm/"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, self.get(&key)).unwrap();
        }
        folder
    }

    /// The cuts, in the order in which they were delivered.
    fn cuts(&self) -> Vec<u64> {
        let manifests = self.keys("manifests/").into_iter().map(|key| serde_json::from_slice::<Value>(&self.get(&key)).unwrap());
        manifests.filter_map(|manifest| manifest["cut"].as_u64()).collect()
    }
}

fn gateway(s3_port: u16, listener_port: u16) -> Gateway {
    gateway_with("", s3_port, listener_port)
}

/// With `more` settings.
fn gateway_with(more: &str, s3_port: u16, listener_port: u16) -> Gateway {
    let gateway = Gateway::new("");
    let keys = gateway.folder.path().join("keys");
    fs::write(&keys, "[default]\naws_access_key_id = AK\naws_secret_access_key = SK\n").unwrap();
    fs::set_permissions(keys, fs::Permissions::from_mode(0o600)).unwrap();
    gateway.configure(&format!(
        "[listener]\nbind = [\"127.0.0.1:{listener_port}\"]\n[segment]\nseal_interval = \"1s\"\n[engine]\nenabled = false\n\
         [upstream]\nurl = \"{LAKE}\"\nendpoint = \"http://127.0.0.1:{s3_port}\"\nregion = \"us-east-1\"\ncredentials_file = \"keys\"\n\
         retry_min = \"100ms\"\nretry_max = \"500ms\"\nprobe_interval = \"200ms\"\n{more}"
    ));
    gateway
}

/// What `verify` finds, as kind and text.
fn findings(config: &Path) -> (bool, Vec<(String, String)>) {
    let output = std::process::Command::new(PROGRAM).args(["verify", LAKE, "--json", "--config"]).arg(config).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let found = report["findings"].as_array().unwrap().iter().map(|finding| (text(finding, "kind"), text(finding, "text")));
    (output.status.success(), found.collect())
}

#[test]
fn a_bucket_that_is_away_for_the_first_half_gets_everything_once_and_the_newest_first() {
    let moto = Moto::start("lake");
    let (line, bucket) = (Line::to(moto.port), Bucket::of(&moto));
    line.is_down.store(true, Ordering::SeqCst);
    let mut gateway = gateway(line.port, 0);
    gateway.start();
    let port = gateway.listener_port();
    for round in 0..3 {
        Publisher::start(port, 500, &["--first", &(1 + 500 * round).to_string()]).finish();
        gateway.wait_for("it to be sealed", |gateway| gateway.books()["hot"] == 0);
    }
    assert_eq!(gateway.status()["link"]["state"], "offline");
    assert_eq!(bucket.keys(""), Vec::<String>::new());
    line.is_down.store(false, Ordering::SeqCst);
    gateway.wait_for("the backlog to drain", |gateway| gateway.books()["delivered"] == 3_000);
    let cuts = bucket.cuts();
    assert!(cuts.len() >= 3 && cuts.is_sorted_by(|before, after| before > after), "{cuts:?}");
    Publisher::start(port, 500, &["--first", "1501"]).finish();
    gateway.flush();
    bucket.assert_each_once(2_000);
    assert_eq!(findings(&gateway.config()), (true, vec![]));
    // Beside the objects, which are small here, only heads of requests were sent: no body went up twice.
    let stored: usize = bucket.keys("").iter().map(|key| bucket.get(key).len()).sum();
    let (sent, requests) = (line.sent.load(Ordering::SeqCst), line.requests.load(Ordering::SeqCst));
    assert!(sent < stored as u64 + requests * 1200, "{sent} bytes in {requests} requests for {stored} bytes stored");
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn neither_a_kill_between_part_and_manifest_nor_a_lost_reply_doubles_anything() {
    let moto = Moto::start("lake");
    let (line, bucket) = (Line::to(moto.port), Bucket::of(&moto));
    let port = free_port();
    let mut gateway = gateway(line.port, port);
    for point in ["upload.after_part", "upload.after_manifest"] {
        gateway.environment.insert("FOREBAY_KILL_AT".to_owned(), point.to_owned());
        gateway.spawn();
        let first = if point == "upload.after_part" { "1" } else { "1001" };
        let publisher = Publisher::start(port, 1_000, &["--first", first, "--rate", "1000", "--window", "50"]);
        assert_eq!(gateway.wait_for_end(), None, "{point} was never passed\n{}", gateway.last_lines());
        gateway.environment.clear();
        gateway.start();
        publisher.finish();
        gateway.flush();
        gateway.kill();
    }
    gateway.start();
    line.set(Trap::LosesReply);
    Publisher::start(port, 1_000, &["--first", "2001"]).finish();
    gateway.flush();
    assert!(line.is_sprung(), "a reply was lost");
    bucket.assert_each_once(3_000);
    assert_eq!(gateway.books()["delivered"], 6_000);
    assert_eq!(findings(&gateway.config()), (true, vec![]));
}

#[test]
fn a_manifest_whose_reply_was_lost_is_not_dropped_under_pressure_and_not_delivered_again() {
    let moto = Moto::start("lake");
    let (line, bucket) = (Line::to(moto.port), Bucket::of(&moto));
    let mut gateway = gateway_with("[retention]\nmin_free = \"0\"\ncap = \"16MiB\"\ncheck_interval = \"1s\"\n", line.port, 0);
    gateway.start();
    let mut noise = Noise::default();
    line.set(Trap::LosesReplyAndFalls);
    assert_eq!(insist(&gateway, &noise.body(1_000)), 200);
    gateway.wait_for("the reply to be lost", |_| line.is_sprung());
    let first = bucket.cuts();
    // It is upstream, and the gateway can't know it. What comes now takes more room than there is.
    while gateway.books()["dropped"].as_u64() < Some(10_000) {
        assert_eq!(insist(&gateway, &noise.body(4_000)), 200, "{}", gateway.last_lines());
        assert!(noise.readings() < 400_000, "nothing is dropped\n{}", gateway.last_lines());
    }
    assert_eq!(gateway.books()["delivered"], 0);
    line.is_down.store(false, Ordering::SeqCst);
    gateway.flush();
    let (books, accepted) = (gateway.books(), noise.readings());
    assert_eq!(books["delivered"].as_u64().unwrap() + books["dropped"].as_u64().unwrap(), accepted, "{books}");
    let found = values_in_lake(bucket.download().path(), "seq");
    assert_eq!(found.len() as u64, books["delivered"].as_u64().unwrap());
    assert!(found.values().all(|times| *times == 1), "nothing is doubled");
    assert!((1..=1_000).all(|number| found.contains_key(&number)), "what was delivered is not dropped");
    let cuts = bucket.cuts();
    assert!(cuts.starts_with(&first) && cuts.iter().all(|cut| cuts.iter().filter(|other| *other == cut).count() == 1), "{cuts:?}");
    let (complete, findings) = findings(&gateway.config());
    assert!(complete && findings.iter().all(|(kind, _)| kind == "explained"), "{findings:?}");
}

#[test]
fn killed_where_a_shipment_is_refused_or_given_up_everything_arrives_once() {
    let moto = Moto::start("lake");
    let (line, bucket) = (Line::to(moto.port), Bucket::of(&moto));
    let port = free_port();
    let mut gateway = gateway(line.port, port);
    let paced = ["--rate", "500", "--window", "50"];
    for (point, trap, first) in [("upload.after_refuse", Trap::RefusesFile, 1), ("upload.after_give_up", Trap::FallsUnderFile, 2_001)] {
        gateway.environment.insert("FOREBAY_KILL_AT".to_owned(), point.to_owned());
        line.set(trap);
        gateway.start();
        let publisher = Publisher::start(port, 2_000, &[&["--first", &first.to_string()], &paced[..]].concat());
        if trap == Trap::FallsUnderFile {
            gateway.wait_for("the line to fall", |gateway| line.is_sprung() && gateway.status()["link"]["state"] == "offline");
            // While readings come in: what is hot at the return goes first, and what was under way makes way for it.
            line.is_down.store(false, Ordering::SeqCst);
        }
        assert_eq!(gateway.wait_for_end(), None, "{point} was never passed\n{}", gateway.last_lines());
        gateway.environment.clear();
        gateway.start();
        publisher.finish();
        gateway.flush();
        gateway.kill();
    }
    bucket.assert_each_once(4_000);
    assert_eq!(findings(&gateway.config()), (true, vec![]));
}

#[test]
fn what_is_missing_or_altered_in_a_bucket_is_named_and_nothing_else() {
    let moto = Moto::start("lake");
    let bucket = Bucket::of(&moto);
    let mut gateway = gateway(moto.port, 0);
    gateway.start();
    let port = gateway.listener_port();
    for round in 0..3 {
        Publisher::start(port, 200, &["--first", &(1 + 200 * round).to_string()]).finish();
        gateway.flush();
    }
    gateway.stop();
    let config = gateway.config();
    assert_eq!(findings(&config), (true, vec![]));
    let (files, manifests) = (bucket.keys("readings/"), bucket.keys("manifests/"));

    let file = &files[files.len() / 2];
    let bytes = bucket.get(file);
    let name = file.trim_start_matches("farm/");
    bucket.delete(file);
    let (complete, found) = findings(&config);
    assert!(!complete && found.len() == 1 && found[0].0 == "missing_file" && found[0].1.contains(name), "{found:?}");

    let mut altered = bytes.clone();
    altered[bytes.len() / 2] ^= 1;
    bucket.put(file, altered);
    let (complete, found) = findings(&config);
    assert!(!complete && found.len() == 1 && found[0].0 == "altered_file" && found[0].1.contains(name), "{found:?}");
    bucket.put(file, bytes);
    assert_eq!(findings(&config), (true, vec![]));

    let manifest = &manifests[1];
    let bytes = bucket.get(manifest);
    bucket.delete(manifest);
    let (complete, found) = findings(&config);
    let named = |kind: &str| found.iter().filter(|(found, _)| found == kind).map(|(_, text)| text.clone()).collect::<Vec<_>>();
    assert!(!complete && named("missing_manifest") == [manifest.trim_start_matches("farm/")], "{found:?}");
    let all_follow = found.iter().all(|(kind, _)| ["missing_manifest", "gap", "uncounted"].contains(&&**kind));
    assert!(named("gap").len() == 1 && all_follow, "{found:?}");
    bucket.put(manifest, bytes);
    assert_eq!(findings(&config), (true, vec![]));
}

#[test]
fn a_bucket_is_verified_with_keys_from_the_environment_and_a_collector_says_where_to_verify() {
    let moto = Moto::start("lake");
    let bucket = Bucket::of(&moto);
    let verify = |lake: &str, endpoint: &str| {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["verify", lake]).env("AWS_ENDPOINT_URL_S3", endpoint).env("AWS_REGION", "us-east-1");
        let output = command.env("AWS_ACCESS_KEY_ID", "AK").env("AWS_SECRET_ACCESS_KEY", "SK").output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), format!("{out}{err}"))
    };
    let (code, text) = verify(LAKE, &moto.endpoint());
    assert!(code == Some(1) && text.contains("no manifest is here"), "{text}");
    bucket.put("farm/readings/notes.txt", b"mine".to_vec());
    let (_, text) = verify(LAKE, &moto.endpoint());
    assert!(text.contains("readings/notes.txt"), "{text}");
    let (code, text) = verify(LAKE, &format!("http://127.0.0.1:{}", free_port()));
    assert!(code == Some(1) && text.contains("can't list the lake") && !text.contains("SK"), "{text}");
    let (code, text) = verify("https://lake.example/farm", "");
    assert!(code == Some(2) && text.contains("where the collector keeps it"), "{text}");
}
