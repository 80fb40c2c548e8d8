//! A real S3 server, moto from PyPI, as a process of its own. It keeps its objects in memory and believes every signature.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Python takes its time to load it.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Moto {
    pub port: u16,
    process: Child,
}

impl Moto {
    /// A server with an empty bucket. It takes a port itself, so that no other test can come between.
    pub fn start(bucket: &str) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("python3");
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]).stderr(log.reopen().unwrap());
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server = Self { port: 0, process: process.expect("python3 is installed") };
        let end = Instant::now() + PATIENCE;
        while server.port == 0 {
            let text = fs::read_to_string(log.path()).unwrap();
            let ended = server.process.try_wait().unwrap().is_some();
            assert!(!ended && Instant::now() < end, "moto does not run; is moto[server] installed?\n{text}");
            std::thread::sleep(Duration::from_millis(50));
            let told = text.split_once("http://127.0.0.1:").and_then(|(_, rest)| rest.lines().next().map(str::to_owned));
            server.port = told.and_then(|port| port.trim().parse().ok()).unwrap_or(0);
        }
        let reply = server.make_bucket(bucket);
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        server
    }

    fn make_bucket(&self, bucket: &str) -> String {
        let mut line = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let request = format!("PUT /{bucket} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        line.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        line.read_to_string(&mut reply).unwrap();
        reply
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
