//! What the benchmarks that drive the real program share: a daemon in a folder of its own, senders, and small arithmetic.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each benchmark uses its part, and stops at the first surprise"
)]

pub mod card;
pub mod network;
pub mod peers;
pub mod rows;
pub mod shape;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_forebay");

/// Longest start.
const START: Duration = Duration::from_secs(60);

/// An empty folder for this benchmark: on a disk, where a fsync costs what it costs (a temporary folder is often memory),
/// or where `FOREBAY_BENCH_DIR` says.
pub fn scratch() -> tempfile::TempDir {
    let place = std::env::var_os("FOREBAY_BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    tempfile::tempdir_in(place).unwrap()
}

/// A daemon, usually without engine, with a listener on a free port.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    /// The network namespace it runs in, if it has one of its own.
    netns: Option<String>,
    /// From its start to READY.
    pub ready_after: Duration,
}

impl Daemon {
    /// Starts it in `folder`, which may hold an earlier one's data, with `settings` beside the usual; returns at READY.
    pub fn start(folder: &Path, settings: &str) -> Self {
        Self::run(None, folder, &format!("[engine]\nenabled = false\n{settings}"))
    }

    /// The same in the network namespace `netns`.
    pub fn start_in(netns: &str, folder: &Path, settings: &str) -> Self {
        Self::run(Some(netns), folder, &format!("[engine]\nenabled = false\n{settings}"))
    }

    /// The same with the engine.
    pub fn start_with_engine(folder: &Path, settings: &str) -> Self {
        Self::run(None, folder, settings)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A request on its socket: the status of the answer, and its body.
    pub fn post(&self, path: &str, kind: &str, body: &str) -> (u16, String) {
        let mut socket = UnixStream::connect(&self.socket).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: forebay\r\nconnection: close\r\ncontent-type: {kind}\r\n");
        socket.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    fn run(netns: Option<&str>, folder: &Path, settings: &str) -> Self {
        let path = |name: &str| folder.join(name);
        let (config, socket, notify) = (path("forebay.toml"), path("socket"), path("notify"));
        let (data, door) = (path("data"), socket.display());
        // To see why a figure is what it is.
        let level = std::env::var("FOREBAY_BENCH_LOG").unwrap_or_else(|_| "warn".to_owned());
        let text = format!(
            "[gateway]\nid = \"bench\"\ndata_dir = {data:?}\n[listener]\nbind = [\"127.0.0.1:0\"]\n[api]\nsocket = \"{door}\"\n\
             [log]\nlevel = \"{level}\"\n{settings}"
        );
        fs::write(&config, text).unwrap();
        let _ = fs::remove_file(&notify);
        let told = UnixDatagram::bind(&notify).unwrap();
        told.set_read_timeout(Some(START)).unwrap();
        let begun = Instant::now();
        let mut command = program_in(netns);
        let child = command.args(["run", "--config"]).arg(&config).env("NOTIFY_SOCKET", &notify).stdout(Stdio::null()).spawn().unwrap();
        let mut daemon = Self { child, socket, netns: netns.map(str::to_owned), ready_after: Duration::ZERO };
        let mut message = [0; 256];
        loop {
            let length = told.recv(&mut message).unwrap();
            if message[..length].windows(7).any(|part| part == b"READY=1") {
                daemon.ready_after = begun.elapsed();
                return daemon;
            }
        }
    }

    fn command(&self, arguments: &[&str]) -> Vec<u8> {
        Command::new(PROGRAM).arg("--socket").arg(&self.socket).args(arguments).output().unwrap().stdout
    }

    /// The answer of `forebay status`.
    pub fn status(&self) -> Value {
        serde_json::from_slice(&self.command(&["status", "--json"])).unwrap()
    }

    /// The answer to `sql`, as lines.
    pub fn query(&self, sql: &str) -> String {
        String::from_utf8(self.command(&["query", sql, "--format", "csv"])).unwrap()
    }

    /// Its door.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Imports `file`; returns when all of it is durable.
    pub fn import(&self, file: &Path) {
        let outcome: Value = serde_json::from_slice(&self.command(&["import", "--json", file.to_str().unwrap()])).unwrap();
        assert!(number(&outcome[0]["rows"]) > 0.0, "{outcome}");
    }

    /// Seals everything, and delivers it if there is a way.
    pub fn flush(&self) {
        self.command(&["flush"]);
    }

    /// Hands in JSON lines by HTTP; returns when they are durable.
    pub fn hand_in(&self, lines: &str) {
        let (status, answer) = self.post("/api/v1/readings", "application/x-ndjson", lines);
        assert!(status == 200, "the readings were not taken: {answer}");
    }

    /// Starts senders: `arguments` are those of `forebay sim`.
    pub fn send(&self, arguments: &str) -> Senders {
        Senders::start_in(self.netns.as_deref(), text(&self.status()["listeners"]["mqtt"][0]), arguments)
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> f64 {
        number(&self.status()["process"]["rss_bytes"])
    }

    /// Ends it in order.
    pub fn stop(mut self) {
        let ended = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(ended.success() && self.child.wait().unwrap().success(), "the daemon did not end in order");
    }

    /// Ends it as a power cut does, as far as a process can.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The program, in the network namespace `netns` if there is one.
fn program_in(netns: Option<&str>) -> Command {
    match netns {
        None => Command::new(PROGRAM),
        Some(netns) => network::in_namespace(netns, PROGRAM),
    }
}

/// Whether `forebay verify` finds the lake of `arguments` complete.
pub fn is_complete(netns: &str, arguments: &[String]) -> bool {
    program_in(Some(netns)).arg("verify").args(arguments).stdout(Stdio::null()).status().unwrap().success()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Simulated sensors at work.
pub struct Senders(Child);

impl Senders {
    /// Starts them towards whoever takes MQTT at `address`.
    pub fn start(address: &str, arguments: &str) -> Self {
        Self::start_in(None, address, arguments)
    }

    fn start_in(netns: Option<&str>, address: &str, arguments: &str) -> Self {
        let mut command = program_in(netns);
        command.args(["sim", "--json", "--mqtt", &format!("mqtt://{address}")]).args(arguments.split(' '));
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Waits until they have published and everything is acknowledged; gives how many readings.
    pub fn finish(self) -> f64 {
        let output = self.0.wait_with_output().unwrap();
        let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
        let acknowledged = number(&outcome["readings_acknowledged"]);
        assert!(number(&outcome["readings_sent"]) == acknowledged, "not everything was acknowledged: {outcome}");
        acknowledged
    }
}

/// A number of an answer.
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The value below which `share` of `values` lie.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let place = (values.len() as f64 * share) as usize;
    values[place.min(values.len() - 1)]
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}
