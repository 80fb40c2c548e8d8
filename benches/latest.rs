//! The newest reading of a series by `/api/v1/latest`, from memory, against the same by SQL, and against an answer that
//! needs no reading at all, which shows what HTTP takes.
//!
//! `cargo bench --bench latest`. One connection over the Unix socket, one request after the other.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Daemon, quantile, scratch};

/// 4 metrics each.
const SENSORS: usize = 250;

const REQUESTS: usize = 3_000;

const QUERIES: usize = 300;

fn main() {
    let folder = scratch();
    let daemon = Daemon::start_with_engine(folder.path(), "");
    let sent = daemon.send(&format!("--sensors {SENSORS} --rate 0 --readings 4 --for 10s")).finish();
    daemon.flush();
    daemon.send(&format!("--sensors {SENSORS} --rate 0 --readings 4 --window 1 --for 1s")).finish();
    let (sensor, metric) = newest_series(&daemon);
    let mut line = Line::to(&folder.path().join("socket"));

    println!("{} series, {:.1} million readings sealed, more of them hot", SENSORS * 4, sent / 1e6);
    println!("{:<28} {:>10} {:>10}", "", "median µs", "p99 µs");
    let nothing = print("an answer without readings", line.times(REQUESTS, "GET", "/healthz", ""));
    let memory = print("latest", line.times(REQUESTS, "GET", &format!("/api/v1/latest?sensor={sensor}&metric={metric}"), ""));
    let sql = format!("select * from readings where sensor = '{sensor}' and metric = '{metric}' order by time desc limit 1");
    let sql = print("the same by SQL", line.times(QUERIES, "POST", "/api/v1/query", &serde_json::json!({ "sql": sql }).to_string()));
    println!("SQL takes {:.0} times as long; latest alone, without what HTTP takes, {:.1} µs", sql / memory, memory - nothing);
    daemon.stop();
}

fn newest_series(daemon: &Daemon) -> (String, String) {
    let answer = daemon.query("select sensor, metric from readings order by seq desc limit 1");
    let (sensor, metric) = answer.lines().nth(1).unwrap().split_once(',').unwrap();
    (sensor.to_owned(), metric.to_owned())
}

/// The median, and a line of the table.
fn print(what: &str, mut times: Vec<f64>) -> f64 {
    let (median, high) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    println!("{what:<28} {median:>10.1} {high:>10.1}");
    median
}

/// One connection that is kept.
struct Line(BufReader<UnixStream>);

impl Line {
    fn to(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(BufReader::new(stream))
    }

    /// How long each of `count` requests took, in microseconds.
    fn times(&mut self, count: usize, method: &str, path: &str, body: &str) -> Vec<f64> {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        // The first ones warm what there is to warm.
        let times = (0..count + count / 10).map(|_| {
            let begun = Instant::now();
            self.ask(&request);
            begun.elapsed().as_secs_f64() * 1e6
        });
        times.skip(count / 10).collect()
    }

    /// Sends `request` and reads the answer to its end.
    fn ask(&mut self, request: &str) {
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let status = self.line();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        let mut length = None;
        loop {
            let header = self.line();
            match header.split_once(": ") {
                Some(("content-length", bytes)) => length = Some(bytes.parse().unwrap()),
                None => break,
                Some(_) => {}
            }
        }
        match length {
            Some(bytes) => self.skip(bytes),
            None => while self.chunk() > 0 {},
        }
    }

    fn chunk(&mut self) -> usize {
        let bytes = usize::from_str_radix(&self.line(), 16).unwrap();
        self.skip(bytes + 2);
        bytes
    }

    fn skip(&mut self, bytes: usize) {
        let mut piece = vec![0; bytes];
        self.0.read_exact(&mut piece).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
