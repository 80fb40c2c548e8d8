//! What the tests share: a real daemon in a scratch folder, real brokers and clients, and a look into the lake.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_forebay");

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway in a scratch folder, whose daemon can be started, killed and started again.
pub struct Gateway {
    pub folder: TempDir,
    daemon: Option<Child>,
    starts: u32,
    /// Environment of the next start.
    pub environment: BTreeMap<String, String>,
}

impl Gateway {
    /// A gateway with `settings` (TOML) beside the folders, the socket and the id that every one has.
    pub fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gateway = Self { folder, daemon: None, starts: 0, environment: BTreeMap::new() };
        gateway.configure(settings);
        gateway
    }

    pub fn configure(&self, settings: &str) {
        let root = self.folder.path().display();
        let own = format!("[gateway]\nid = \"gw-test\"\ndata_dir = \"{root}/data\"\n[api]\nsocket = \"{root}/forebay.sock\"\n");
        fs::write(self.config(), own + settings).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("forebay.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default()
    }

    /// Starts the daemon without waiting for it.
    pub fn spawn(&mut self) {
        self.starts += 1;
        let log = fs::File::options().append(true).create(true).open(self.folder.path().join("daemon.log")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("run").arg("--config").arg(self.config()).envs(&self.environment);
        self.daemon = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_for("the daemon to be ready", |gateway| gateway.try_status().is_some());
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Ends the daemon as a power cut ends a process.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Asks the daemon to end, and waits for it; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let asked = Command::new("kill").arg("-TERM").arg(daemon.id().to_string()).status();
        assert!(asked.is_ok_and(|status| status.success()));
        self.wait_for_exit(&mut daemon)
    }

    /// Waits for the daemon to end by itself; its exit code, `None` after a signal.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        self.wait_for_exit(&mut daemon)
    }

    fn wait_for_exit(&self, daemon: &mut Child) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = daemon.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = daemon.kill();
        panic!("the daemon did not end\n{}", self.last_lines());
    }

    /// A file of its own, with something that others may not read.
    pub fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Makes an account in the file `listener-users`.
    pub fn add_user(&self, name: &str, password: &str) {
        let mut command = Command::new(PROGRAM);
        command.args(["user", "add", name, "--file"]).arg(self.folder.path().join("listener-users"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Runs a command against this gateway's daemon.
    pub fn command(&self, args: &[&str]) -> Output {
        let socket = self.folder.path().join("forebay.sock");
        Command::new(PROGRAM).args(args).arg("--socket").arg(socket).output().unwrap()
    }

    /// The same, which must succeed; what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "forebay {args:?}: {}\n{out}{err}\n{}", output.status, self.last_lines());
        out.into_owned()
    }

    pub fn try_status(&self) -> Option<Value> {
        let output = self.command(&["status", "--json"]);
        if output.status.success() { serde_json::from_slice(&output.stdout).ok() } else { None }
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).unwrap()
    }

    /// The books, which must balance.
    pub fn books(&self) -> Value {
        let books = self.status()["books"].clone();
        assert_eq!(books["balanced"], true, "{books}");
        books
    }

    /// One row of an answer, as numbers.
    #[cfg(feature = "engine")]
    pub fn query_numbers(&self, sql: &str) -> Vec<f64> {
        let text = self.ok(&["query", sql, "--format", "csv"]);
        let row = text.lines().nth(1).unwrap_or_else(|| panic!("no row in {text:?}"));
        row.split(',').map(|cell| cell.trim_matches('"').parse().unwrap_or_else(|_| panic!("{cell:?} in {text:?}"))).collect()
    }

    /// The readings of one statement agree with the books of the same statement: each reading is seen once.
    #[cfg(feature = "engine")]
    pub fn check_answer(&self) {
        let row = self.query_numbers(
            "select (select count(*) from readings), (select count(distinct seq) from readings), \
             (select coalesce(max(seq), 0) from readings), kept, accepted from books",
        );
        let [count, distinct, max, kept, accepted] = row[..] else { panic!("{row:?}") };
        assert_eq!((count, distinct, max), (kept, kept, accepted), "{row:?}");
    }

    #[cfg(not(feature = "engine"))]
    pub fn check_answer(&self) {}

    /// The port of the listener.
    pub fn listener_port(&self) -> u16 {
        let status = self.status();
        let address = status["listeners"]["mqtt"][0].as_str().expect("a listener").to_owned();
        address.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Waits until `holds`; the last lines of the log tell why it did not.
    pub fn wait_for(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < end, "waited in vain for {what} in {}\n{}", self.folder.path().display(), self.last_lines());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// `flush`, which must deliver everything.
    pub fn flush(&self) {
        self.ok(&["flush", "--wait", "60s"]);
    }

    /// `verify` of this gateway's lake, which must find it complete.
    pub fn verify(&self) {
        self.ok(&["verify", &self.lake().display().to_string()]);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How often each value of `metric` stands in the readings of the lake.
pub fn values_in_lake(lake: &Path, metric: &str) -> BTreeMap<i64, u32> {
    let mut counts = BTreeMap::new();
    for file in parquet_files(&lake.join("readings")) {
        for batch in forebay::segment::read(&file).unwrap() {
            for (_, reading) in forebay::model::columns::to_readings(&batch.unwrap()).unwrap() {
                if *reading.metric == *metric {
                    *counts.entry(reading.value.unwrap() as i64).or_default() += 1;
                }
            }
        }
    }
    counts
}

/// Every number of `1..=count` stands in the lake once, and nothing else does.
pub fn assert_each_once(lake: &Path, count: i64) {
    let found = values_in_lake(lake, "seq");
    let missing: Vec<_> = (1..=count).filter(|number| !found.contains_key(number)).take(10).collect();
    let doubled: Vec<_> = found.iter().filter(|(_, times)| **times > 1).take(10).collect();
    assert!(missing.is_empty() && doubled.is_empty(), "of {count}: missing {missing:?}, doubled {doubled:?}");
    assert_eq!(found.len() as i64, count);
}

pub fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    found
}

/// A real mosquitto with persistence, on a free port.
pub struct Mosquitto {
    folder: TempDir,
    pub port: u16,
    process: Option<Child>,
}

impl Mosquitto {
    pub fn start() -> Self {
        Self::with("allow_anonymous true\n")
    }

    /// With more settings of its own.
    pub fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let settings = format!(
            "listener {port} 127.0.0.1\n{more}persistence true\npersistence_location {}/\nautosave_interval 1\n\
             max_queued_messages 0\nuser root\n",
            folder.path().display()
        );
        fs::write(folder.path().join("mosquitto.conf"), settings).unwrap();
        let mut broker = Self { folder, port, process: None };
        broker.restart();
        broker
    }

    pub fn restart(&mut self) {
        self.stop();
        let program = ["/usr/sbin/mosquitto", "mosquitto"].into_iter().find(|path| Path::new(path).exists()).unwrap_or("mosquitto");
        let log = fs::File::options().append(true).create(true).open(self.folder.path().join("mosquitto.log")).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.path().join("mosquitto.conf")).stderr(log).stdout(Stdio::null());
        self.process = Some(command.spawn().expect("mosquitto is installed (apt install mosquitto)"));
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = Command::new("kill").arg("-TERM").arg(process.id().to_string()).status();
            let _ = process.wait();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A paho client that publishes numbered readings, at QoS 1 unless told otherwise, from a persistent session.
pub struct Publisher {
    process: Child,
    messages: u64,
}

impl Publisher {
    pub fn start(port: u16, messages: u64, extra: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/publish.py");
        let mut command = Command::new("python3");
        command.arg(script).args(["--port", &port.to_string(), "--messages", &messages.to_string()]).args(extra);
        let process = command.stdout(Stdio::piped()).spawn().expect("python3 with paho-mqtt is installed");
        Self { process, messages }
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Waits for its end; every message must be acknowledged.
    pub fn finish(self) {
        let output = self.process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let outcome: Value = serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("the publisher said {text:?}"));
        assert_eq!(outcome["acknowledged"], self.messages, "{outcome}");
    }
}
