//! Real servers, as processes of their own: moto, and the reference collector of `examples/`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::config;

#[path = "../../../tests/support/moto.rs"]
mod moto;

pub struct Moto {
    server: moto::Moto,
    folder: tempfile::TempDir,
}

impl Moto {
    pub fn start(bucket: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("keys"), "aws_access_key_id = AK\naws_secret_access_key = SK\n").unwrap();
        Self { server: moto::Moto::start(bucket), folder }
    }

    /// The settings that lead to `url` there.
    pub fn settings(&self, url: &str) -> config::Upstream {
        config::Upstream {
            url: url.to_owned(),
            endpoint: Some(self.endpoint()),
            region: Some("us-east-1".to_owned()),
            credentials_file: Some(self.folder.path().join("keys")),
            ..config::Upstream::default()
        }
    }
}

impl Deref for Moto {
    type Target = moto::Moto;

    fn deref(&self) -> &moto::Moto {
        &self.server
    }
}

/// `examples/collector.py`, which keeps what it takes below `lake`.
pub struct ReferenceCollector {
    process: Child,
    pub settings: config::Upstream,
}

impl ReferenceCollector {
    pub fn start(folder: &Path) -> Self {
        let token_file = folder.join("token");
        fs::write(&token_file, "open-sesame\n").unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/collector.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(folder.join("lake")).args(["--port", "0", "--token-file"]).arg(&token_file);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python3 is installed");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { process, settings: config::Upstream { url, token_file: Some(token_file), ..config::Upstream::default() } }
    }
}

impl Drop for ReferenceCollector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
