//! What the data folder takes, without walking all of it each time.
//!
//! At first the ledger says what the segments take; from then on they are counted as they come and go. The ledger's files
//! are asked for their sizes at every look, the few other files now and then. Once an hour everything is walked, and what
//! the walk finds (folders, foreign files, blocks of another size) counts from then on.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::disk;
use crate::ledger;
use crate::segment::SegmentDir;

/// Between two walks through everything.
const WALK_INTERVAL: Duration = Duration::from_secs(3600);

/// Between two looks at what is neither ledger nor segment.
const REST_INTERVAL: Duration = Duration::from_secs(10);

/// What a segment takes is counted in blocks of this size, the usual one, before the first walk.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// Most entries that one walk looks at; the segments of a quarter of a year are a tenth of it.
const MAX_ENTRIES: usize = 200_000;

/// The folders in the data folder that are looked at apart.
const SEGMENTS: &str = "segments";
const QUARANTINE: &str = "quarantine";

/// What the data folder takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Measured {
    /// Everything.
    pub used: u64,
    /// Of it, what is in quarantine.
    pub quarantine: u64,
}

/// A file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk {
    /// Of all of it.
    pub size: u64,
    /// Free to us.
    pub free: u64,
}

/// The file system that `folder` is on; `None` if it can't be asked.
pub(super) fn disk(folder: &Path) -> Option<Disk> {
    let system = rustix::fs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
    Some(Disk { size: bytes(system.f_blocks), free: bytes(system.f_bavail) })
}

/// What a file takes on the disk.
pub(super) fn on_disk(metadata: &Metadata) -> u64 {
    metadata.blocks() * 512
}

/// Measures the data folder. Blocking.
#[derive(Debug)]
pub(super) struct Usage {
    data_dir: PathBuf,
    ledger: PathBuf,
    /// What belongs to it.
    companions: [PathBuf; 2],
    walked: Option<Instant>,
    /// What the segments took when the count of them stood at zero.
    before: i64,
    rest: Rest,
}

/// What is neither ledger nor segment.
#[derive(Debug, Default)]
struct Rest {
    looked: Option<Instant>,
    bytes: u64,
    quarantine: u64,
}

impl Usage {
    /// Of `data_dir`; nothing is measured yet.
    pub fn new(data_dir: PathBuf) -> Self {
        let ledger = data_dir.join(ledger::FILE_NAME);
        let companions = ["-wal", "-shm"].map(|suffix| disk::with_suffix(&ledger, suffix));
        Self { data_dir, ledger, companions, walked: None, before: 0, rest: Rest::default() }
    }

    /// Whether it must be told what the segments take.
    pub fn is_new(&self) -> bool {
        self.walked.is_none()
    }

    /// Takes it that the segments take `bytes` now.
    pub fn begin_with(&mut self, bytes: u64, dir: &SegmentDir) {
        self.before = bytes.cast_signed() - dir.growth();
        self.walked = Some(Instant::now());
    }

    /// Measures it now. The ledger's file counts with the `ledger_bytes` that it will have when its WAL is copied into it.
    pub fn measure(&mut self, dir: &SegmentDir, ledger_bytes: u64) -> Measured {
        let now = Instant::now();
        if self.walked.is_none_or(|last| now.duration_since(last) >= WALK_INTERVAL) {
            self.begin_with(below(&self.data_dir.join(SEGMENTS)), dir);
        }
        if self.rest.looked.is_none_or(|last| now.duration_since(last) >= REST_INTERVAL) {
            self.rest = Rest { looked: Some(now), ..self.look_at_rest() };
        }
        let taken = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| on_disk(&metadata));
        let ledger = taken(&self.ledger).max(ledger_bytes) + self.companions.iter().map(taken).sum::<u64>();
        let segments = u64::try_from(self.before + dir.growth()).unwrap_or_default();
        Measured { used: segments + ledger + self.rest.bytes, quarantine: self.rest.quarantine }
    }

    /// The reserve came or went.
    pub fn look_again(&mut self) {
        self.rest.looked = None;
    }

    fn look_at_rest(&self) -> Rest {
        let quarantine = below(&self.data_dir.join(QUARANTINE));
        let others = fs::read_dir(&self.data_dir).into_iter().flatten().flatten();
        let others = others.filter(|entry| entry.file_name() != SEGMENTS && entry.file_name() != QUARANTINE);
        let others = others.filter(|entry| entry.path() != self.ledger && !self.companions.contains(&entry.path()));
        let bytes: u64 = others.map(|entry| size_of(&entry)).sum();
        let own = fs::symlink_metadata(&self.data_dir).map_or(0, |metadata| on_disk(&metadata));
        Rest { looked: None, bytes: own + bytes + quarantine, quarantine }
    }
}

/// Of a folder, with everything in it; links are not followed.
fn size_of(entry: &fs::DirEntry) -> u64 {
    match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => below(&entry.path()),
        Ok(metadata) => on_disk(&metadata),
        Err(_) => 0,
    }
}

/// What `folder` and everything in it take, without following links; what vanishes on the way counts nothing.
fn below(folder: &Path) -> u64 {
    let mut bytes = fs::symlink_metadata(folder).map_or(0, |metadata| on_disk(&metadata));
    let mut left = MAX_ENTRIES;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if left == 0 {
                return bytes;
            }
            left -= 1;
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += on_disk(&metadata);
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, bytes: usize) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![1; bytes]).unwrap();
        fs::File::open(path).unwrap().sync_all().unwrap();
    }

    #[test]
    fn everything_counts_and_no_link_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let dir = SegmentDir::open(data).unwrap();
        let empty = Usage::new(data.to_owned()).measure(&dir, 0);
        assert_eq!(empty.used, below(data));
        for (place, name) in
            ["forebay.db", "forebay.db-wal", "reserve", "mine/notes", "quarantine/a", "segments/readings/b"].iter().enumerate()
        {
            write(&data.join(name), (place + 1) * 10_000);
        }
        std::os::unix::fs::symlink("/usr", data.join("link")).unwrap();
        let full = Usage::new(data.to_owned()).measure(&dir, 0);
        assert_eq!(full.used, below(data));
        assert!(full.used >= empty.used + 210_000 && full.used < empty.used + 300_000, "{empty:?}, {full:?}");
        assert!(full.quarantine - empty.quarantine >= 50_000);
    }

    #[test]
    fn what_the_ledger_says_counts_until_the_first_walk() {
        let folder = tempfile::tempdir().unwrap();
        let dir = SegmentDir::open(folder.path()).unwrap();
        write(&folder.path().join("segments/readings/a"), 40_000);
        let mut usage = Usage::new(folder.path().to_owned());
        assert!(usage.is_new());
        usage.begin_with(1 << 30, &dir);
        assert!(!usage.is_new() && usage.measure(&dir, 0).used >= 1 << 30);
        usage.walked = None;
        assert_eq!(usage.measure(&dir, 0).used, below(folder.path()));
    }

    #[test]
    fn the_ledger_is_measured_at_once_and_the_rest_after_a_while_or_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let dir = SegmentDir::open(folder.path()).unwrap();
        let mut usage = Usage::new(folder.path().to_owned());
        let before = usage.measure(&dir, 0).used;
        write(&folder.path().join("forebay.db"), 40_000);
        let grown = usage.measure(&dir, 0).used;
        assert!(grown >= before + 40_000);
        write(&folder.path().join("reserve"), 40_000);
        assert_eq!(usage.measure(&dir, 0).used, grown);
        assert!(usage.measure(&dir, 1 << 20).used >= before + (1 << 20), "what is still in the WAL counts");
        usage.look_again();
        assert!(usage.measure(&dir, 0).used >= grown + 40_000);
    }

    #[test]
    fn the_disk_is_known() {
        let disk = disk(Path::new("/")).unwrap();
        assert!(disk.size > disk.free && disk.free > 0);
        assert_eq!(super::disk(Path::new("/no such folder")), None);
    }
}
