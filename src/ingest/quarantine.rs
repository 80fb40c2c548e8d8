//! Samples of rejected messages, so that a person can see what a sensor really sends.
//!
//! Owns: `<data_dir>/quarantine/rejected.jsonl` and the one before it. Bounds: 256 KiB a file, two files, a sample of 2 KiB
//! a message, thirty samples a minute. On failure: a sample is lost, nothing else; the count is durable in the ledger.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::model::Timestamp;

const MAX_FILE_BYTES: u64 = 256 << 10;
const MAX_SAMPLE_BYTES: usize = 2 << 10;
const MAX_PER_MINUTE: u32 = 30;

/// Where samples go.
#[derive(Debug)]
pub struct Quarantine {
    folder: PathBuf,
    minute: Instant,
    this_minute: u32,
}

#[derive(Serialize)]
struct Sample<'a> {
    arrived: Timestamp,
    topic: &'a str,
    reason: &'a str,
    bytes: usize,
    /// The beginning of the payload, with what is not UTF-8 replaced.
    payload: &'a str,
}

impl Quarantine {
    /// Samples go below `data_dir`.
    pub fn new(data_dir: &std::path::Path) -> Self {
        Self { folder: data_dir.join("quarantine"), minute: Instant::now(), this_minute: 0 }
    }

    /// Sets a sample aside, unless this minute has had its share.
    pub fn keep(&mut self, arrived: Timestamp, topic: &str, reason: &str, payload: &[u8]) {
        if self.minute.elapsed() >= Duration::from_secs(60) {
            (self.minute, self.this_minute) = (Instant::now(), 0);
        }
        self.this_minute += 1;
        if self.this_minute > MAX_PER_MINUTE {
            return;
        }
        let shown = payload.get(..MAX_SAMPLE_BYTES).unwrap_or(payload);
        let topic: String = topic.chars().take(256).collect();
        let sample = Sample { arrived, topic: &topic, reason, bytes: payload.len(), payload: &String::from_utf8_lossy(shown) };
        if let Err(error) = self.write(&sample) {
            tracing::debug!(%error, folder = %self.folder.display(), "a sample of a rejected message could not be kept");
        }
    }

    fn write(&self, sample: &Sample<'_>) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let path = self.folder.join("rejected.jsonl");
        if fs::metadata(&path).is_ok_and(|meta| meta.len() >= MAX_FILE_BYTES) {
            fs::rename(&path, self.folder.join("rejected.1.jsonl"))?;
        }
        let mut line = serde_json::to_vec(sample)?;
        line.push(b'\n');
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_kept_but_never_more_than_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let mut quarantine = Quarantine::new(folder.path());
        for _ in 0..2000 {
            quarantine.this_minute = 0;
            quarantine.keep(Timestamp(0), "a/b", "not JSON", &[0xff; 4096]);
        }
        let files: Vec<_> =
            fs::read_dir(folder.path().join("quarantine")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|bytes| *bytes < MAX_FILE_BYTES + 16_384), "{files:?}");
    }

    #[test]
    fn a_flood_is_sampled_not_written_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut quarantine = Quarantine::new(folder.path());
        (0..1000).for_each(|_| quarantine.keep(Timestamp(0), "a/b", "not JSON", b"{"));
        let lines = fs::read_to_string(folder.path().join("quarantine/rejected.jsonl")).unwrap().lines().count();
        assert_eq!(lines, MAX_PER_MINUTE as usize);
    }
}
