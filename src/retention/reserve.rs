//! The reserve: a file that holds room on the disk, so that evicting can still be recorded when nothing else can be written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::usage;
use crate::disk;

/// What it holds: the WAL of many evictions.
pub(super) const BYTES: u64 = 4 << 20;

/// Its name in the data folder.
const NAME: &str = "reserve";

/// Less than this is free on the disk at a start: the ledger may not be opened without the reserve.
const START_BYTES: u64 = 1 << 20;

/// The file, held or given back.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    /// Of `data_dir`, as it is there.
    pub fn find(data_dir: &Path) -> Self {
        let path = data_dir.join(NAME);
        // One cut short by a crash holds less than it says.
        let held = fs::metadata(&path).is_ok_and(|metadata| usage::on_disk(&metadata) >= BYTES);
        Self { path, held }
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Makes it, unless it is there.
    pub fn hold(&mut self) {
        if self.held {
            return;
        }
        match make(&self.path) {
            Ok(()) => self.held = true,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "the reserve can't be made now");
                // What there is of it would only take room.
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    /// Gives its room back; whether there was any.
    pub fn give_back(&mut self) -> bool {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.path.display(), "the reserve can't be given back");
                return false;
            }
            _ => {}
        }
        let held = std::mem::replace(&mut self.held, false);
        if held {
            tracing::warn!("the disk is full: the reserve is given back, so that room can be made");
        }
        held
    }
}

fn make(path: &Path) -> io::Result<()> {
    let file = disk::create_file(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
        Ok(()) => {}
        // A file system that can't do that gets zeros.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => io::copy(&mut io::Read::take(io::repeat(0), BYTES), &mut &file).map(|_| ())?,
        Err(errno) => return Err(errno.into()),
    }
    file.sync_all()
}

/// For the start: gives the reserve in `data_dir` back where the disk is so full that the ledger could not be opened.
pub fn give_back_if_full(data_dir: &Path) {
    if usage::disk(data_dir).is_some_and(|disk| disk.free < START_BYTES) {
        Reserve::find(data_dir).give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_takes_its_room_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::find(folder.path());
        assert!(!reserve.is_held() && !reserve.give_back());
        reserve.hold();
        assert!(reserve.is_held() && Reserve::find(folder.path()).is_held());
        assert!(reserve.give_back() && !reserve.give_back());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_that_was_cut_short_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::File::create(folder.path().join(NAME)).unwrap().set_len(BYTES).unwrap();
        let mut reserve = Reserve::find(folder.path());
        assert!(!reserve.is_held());
        reserve.hold();
        assert!(Reserve::find(folder.path()).is_held());
    }
}
