//! What is read from files, and read again when they change: certificates that are renewed, accounts that come and go.
//!
//! Looked at when it is needed, at most once in a while: nothing runs in between. What can't be read again stays as it
//! was, and the fault is told: a renewal under way (the certificate is new, its key not yet) must not close a door.

use std::error::Error;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::explain;

/// Tells two versions of a file apart: device, inode, length and the time of the last change.
type Stamp = (u64, u64, u64, i64, i64);

type Load<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// A value made of files.
pub struct Watched<T> {
    files: Vec<PathBuf>,
    every: Duration,
    load: Load<T>,
    now: Mutex<Now<T>>,
}

struct Now<T> {
    value: Arc<T>,
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
    fault: Option<String>,
}

impl<T> Watched<T> {
    /// Loads the value from `files`, and looks for changes at most once in `every`.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn new<E: Error>(files: Vec<PathBuf>, every: Duration, load: impl Fn() -> Result<T, E> + Send + Sync + 'static) -> Result<Self, E> {
        let stamps = stamps(&files);
        let now = Now { value: Arc::new(load()?), stamps, looked: Instant::now(), fault: None };
        let load = Box::new(move || load().map_err(|error| explain(&error)));
        Ok(Self { files, every, load, now: Mutex::new(now) })
    }

    /// The value, from the files as they are now or were a moment ago.
    pub fn get(&self) -> Arc<T> {
        let mut now = self.now();
        if now.looked.elapsed() >= self.every {
            now.looked = Instant::now();
            self.look(&mut now);
        }
        Arc::clone(&now.value)
    }

    /// Why the files can't be read again; the value is that of an earlier time.
    pub fn fault(&self) -> Option<String> {
        self.now().fault.clone()
    }

    /// Looks at the files every time.
    #[cfg(test)]
    pub fn hurry(&mut self) {
        self.every = Duration::ZERO;
    }

    fn now(&self) -> MutexGuard<'_, Now<T>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, now: &mut Now<T>) {
        // Before loading: what changes meanwhile is seen the next time.
        let stamps = stamps(&self.files);
        if stamps == now.stamps && now.fault.is_none() {
            return;
        }
        now.stamps = stamps;
        match (self.load)() {
            Ok(value) => {
                tracing::info!(files = ?self.files, "changed files are in use");
                (now.value, now.fault) = (Arc::new(value), None);
            }
            Err(fault) => {
                if now.fault.as_ref() != Some(&fault) {
                    tracing::warn!(fault, "a changed file can't be used; what was read before stays");
                }
                now.fault = Some(fault);
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |found: std::fs::Metadata| (found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec());
    files.iter().map(|file| std::fs::metadata(file).ok().map(stamp)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::*;

    fn numbers(path: PathBuf, every: Duration) -> Watched<u32> {
        let read = path.clone();
        Watched::new(vec![path], every, move || fs::read_to_string(&read)?.parse().map_err(io::Error::other)).unwrap()
    }

    #[test]
    fn a_change_is_seen_and_a_broken_one_leaves_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "1").unwrap();
        let watched = numbers(path.clone(), Duration::ZERO);
        let first = watched.get();
        assert!(Arc::ptr_eq(&first, &watched.get()), "loaded once while nothing changes");
        fs::write(&path, "22").unwrap();
        assert_eq!(*watched.get(), 22);
        fs::write(&path, "two").unwrap();
        assert_eq!((*watched.get(), watched.fault().is_some()), (22, true));
        fs::remove_file(&path).unwrap();
        assert_eq!((*watched.get(), watched.fault().is_some()), (22, true));
        fs::write(&path, "3").unwrap();
        assert_eq!((*watched.get(), watched.fault()), (3, None));
    }

    #[test]
    fn files_are_looked_at_once_in_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "1").unwrap();
        let watched = numbers(path.clone(), Duration::from_secs(3600));
        fs::write(&path, "22").unwrap();
        assert_eq!(*watched.get(), 1);
    }
}
