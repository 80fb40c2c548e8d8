//! A real S3 server, moto from PyPI, as a process of its own. It keeps its objects in memory and believes every signature.

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
    /// A server on a free port, with an empty bucket.
    pub fn start(bucket: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_at(port, bucket)
    }

    /// The same, on this port.
    pub fn start_at(port: u16, bucket: &str) -> Self {
        let mut command = Command::new("python3");
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self { port, process: process.expect("python3 with moto[server] is installed") };
        let end = Instant::now() + PATIENCE;
        while !server.make_bucket(bucket) {
            assert!(Instant::now() < end, "moto does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn make_bucket(&self, bucket: &str) -> bool {
        let ask = || {
            let mut line = TcpStream::connect(("127.0.0.1", self.port))?;
            let request = format!("PUT /{bucket} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            line.write_all(request.as_bytes())?;
            let mut reply = String::new();
            line.read_to_string(&mut reply).map(|_| reply)
        };
        ask().is_ok_and(|reply: String| reply.starts_with("HTTP/1.1 200"))
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
