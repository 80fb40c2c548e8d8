//! `status --watch`, in a terminal and without one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Gateway, PROGRAM};

const SETTINGS: &str = "[listener]\nbind = [\"127.0.0.1:0\"]\n[engine]\nenabled = false\n";

/// A watch in a terminal.
struct Watching {
    process: Child,
    file: PathBuf,
}

impl Watching {
    fn start(gateway: &Gateway, columns: u32, rows: u32) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/terminal.py");
        let (socket, file) = (gateway.folder.path().join("forebay.sock"), gateway.folder.path().join("drawn"));
        let mut command = Command::new("python3");
        command.arg(script).args([columns.to_string(), rows.to_string()]).arg(&file);
        command.args([PROGRAM, "status", "--watch", "--socket"]).arg(socket).stdin(Stdio::piped());
        Self { process: command.spawn().expect("python3 is installed"), file }
    }

    fn drawn(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.file).unwrap_or_default()).into_owned()
    }

    /// Presses Ctrl-C; the pages.
    fn end(mut self) -> Vec<String> {
        drop(self.process.stdin.take());
        assert_eq!(self.process.wait().unwrap().code(), Some(0), "{:?}", self.drawn());
        let drawn = self.drawn();
        assert!(drawn.starts_with("\u{1b}[?1049h\u{1b}[?25l"), "{drawn:?}");
        let (drawn, end) = drawn.split_at(drawn.find("\u{1b}[?25h").expect("the cursor is shown again"));
        assert_eq!(end, "\u{1b}[?25h\u{1b}[?1049l");
        drawn.split("\u{1b}[H").skip(1).map(ToOwned::to_owned).collect()
    }
}

#[test]
fn a_small_terminal_is_never_scrolled_and_is_left_as_it_was() {
    let mut gateway = Gateway::new(SETTINGS);
    gateway.start();
    let watching = Watching::start(&gateway, 40, 6);
    gateway.wait_for("rates", |_| watching.drawn().contains("rates    in 0.0 readings/s"));
    for page in watching.end() {
        // The terminal echoes the key where the cursor is.
        let page = page.replace("\u{1b}[K", "").replace("\u{1b}[J", "").replace("^C", "");
        let lines: Vec<_> = page.lines().map(|line| line.trim_end_matches('\r')).collect();
        assert!(lines.len() <= 6 && lines.iter().all(|line| line.chars().count() <= 40), "{lines:?}");
        assert!(lines[0].starts_with("forebay  gw-test"), "{lines:?}");
    }
}

#[test]
fn a_daemon_that_is_started_again_is_missed_and_watched_on() {
    let mut gateway = Gateway::new(SETTINGS);
    gateway.start();
    let watching = Watching::start(&gateway, 200, 50);
    gateway.wait_for("rates", |_| watching.drawn().contains("rates    in 0.0 readings/s"));
    gateway.kill();
    let missed = |drawn: String| drawn.contains("no answer for ") && drawn.contains("no daemon answers at");
    gateway.wait_for("it to be missed", |_| missed(watching.drawn()));
    gateway.start();
    gateway.wait_for("it to be seen", |_| watching.drawn().contains("the daemon was started again 1 times while watched"));
    watching.end();
}

#[test]
fn without_a_terminal_it_prints_lines_until_it_is_interrupted() {
    let mut gateway = Gateway::new(SETTINGS);
    gateway.start();
    let watch = |extra: &[&str]| {
        let (socket, file) = (gateway.folder.path().join("forebay.sock"), gateway.folder.path().join("lines"));
        let mut command = Command::new(PROGRAM);
        command.args(["status", "--watch", "--socket"]).arg(socket).args(extra).stdout(fs::File::create(&file).unwrap());
        let mut watching = command.spawn().unwrap();
        let lines = || fs::read_to_string(&file).unwrap().lines().map(ToOwned::to_owned).collect::<Vec<String>>();
        gateway.wait_for("two lines", |_| lines().len() >= 2);
        assert!(Command::new("kill").args(["-INT", &watching.id().to_string()]).status().unwrap().success());
        assert_eq!(watching.wait().unwrap().code(), Some(0));
        lines()
    };
    let lines = watch(&[]);
    assert!(lines.iter().all(|line| line.contains("Z ok, link off; in ")), "{lines:?}");
    let lines = watch(&["--json"]);
    assert!(lines.iter().all(|line| serde_json::from_str::<Value>(line).unwrap()["gateway"] == "gw-test"), "{lines:?}");
}

#[test]
fn a_daemon_that_is_not_there_at_first_is_an_error() {
    let gateway = Gateway::new("");
    assert_eq!(gateway.command(&["status", "--watch"]).status.code(), Some(69));
}
