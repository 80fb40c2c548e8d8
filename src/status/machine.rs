//! What the machine says: memory, bytes written, room on disk, the size of the data folder.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a measured folder size stays good: long enough that a dashboard does not walk the card all the time.
const SIZE_GOOD_FOR: Duration = Duration::from_secs(5);

/// Most entries that one walk looks at; the segments of a quarter of a year are a tenth of it.
const MAX_ENTRIES: usize = 200_000;

/// The machine, as far as status asks it. Every question blocks for a short time.
#[derive(Debug)]
pub struct Machine {
    data_dir: PathBuf,
    size: Mutex<Option<(Instant, u64)>>,
}

impl Machine {
    /// The machine that `data_dir` is on.
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, size: Mutex::default() }
    }

    /// Bytes that the data folder takes on disk; up to a few seconds old.
    pub fn disk_bytes(&self) -> u64 {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        match *size {
            Some((measured, bytes)) if measured.elapsed() < SIZE_GOOD_FOR => bytes,
            _ => {
                let bytes = folder_bytes(&self.data_dir);
                *size = Some((Instant::now(), bytes));
                bytes
            }
        }
    }

    /// Bytes free to us on the data folder's file system; 0 if it can't be asked.
    pub fn disk_free_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.data_dir).map_or(0, |system| system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Segments in `quarantine/`: what failed its checksum and waits for a person.
    pub fn damaged_files(&self) -> usize {
        let is_segment = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "parquet");
        let entries = std::fs::read_dir(self.data_dir.join("quarantine"));
        entries.map_or(0, |entries| entries.take(MAX_ENTRIES).flatten().filter(is_segment).count())
    }
}

/// Allocated bytes below `folder`, without following links; what vanishes on the way counts nothing.
fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;

    let mut bytes = 0;
    let mut left = MAX_ENTRIES;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if left == 0 {
                return bytes;
            }
            left -= 1;
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

/// Resident memory of this process; 0 where /proc is missing.
pub fn rss_bytes() -> u64 {
    proc_number("/proc/self/status", "VmRSS:").saturating_mul(1024)
}

/// Bytes that this process caused to be written since it began; 0 where /proc is missing.
pub fn written_bytes() -> u64 {
    proc_number("/proc/self/io", "write_bytes:")
}

fn proc_number(file: &str, key: &str) -> u64 {
    std::fs::read_to_string(file).map_or(0, |text| number_after(&text, key))
}

/// The first number on the line that begins with `key`.
fn number_after(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)).and_then(|rest| rest.split_whitespace().next());
    value.and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_line_of_their_key_alone() {
        let text = "read_bytes: 7\nwrite_bytes: 4096\ncancelled_write_bytes: 12\n";
        assert_eq!(number_after(text, "write_bytes:"), 4096);
        assert_eq!(number_after(text, "no such key:"), 0);
        assert!(rss_bytes() > 1 << 20, "a test process takes more than a mebibyte");
    }

    #[test]
    fn a_folder_counts_what_is_in_its_folders_and_no_link_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("segments/readings");
        std::fs::create_dir_all(&inner).unwrap();
        let before = folder_bytes(folder.path());
        let bytes = vec![1; 64 << 10];
        std::fs::write(inner.join("a.parquet"), &bytes).unwrap();
        std::fs::File::open(inner.join("a.parquet")).unwrap().sync_all().unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        let grown = folder_bytes(folder.path()) - before;
        assert!((64 << 10..256 << 10).contains(&grown), "grew by {grown} bytes");
    }

    #[test]
    fn of_what_is_in_quarantine_segments_alone_count_as_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::new(folder.path().to_owned());
        assert_eq!(machine.damaged_files(), 0);
        std::fs::create_dir(folder.path().join("quarantine")).unwrap();
        for name in ["a.parquet", "a.why.txt", "samples.jsonl"] {
            std::fs::write(folder.path().join("quarantine").join(name), "").unwrap();
        }
        assert_eq!(machine.damaged_files(), 1);
    }

    #[test]
    fn a_size_is_measured_again_only_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::new(folder.path().to_owned());
        let before = machine.disk_bytes();
        std::fs::write(folder.path().join("file"), vec![1; 64 << 10]).unwrap();
        assert_eq!(machine.disk_bytes(), before);
        assert!(machine.disk_free_bytes() > 0);
    }
}
