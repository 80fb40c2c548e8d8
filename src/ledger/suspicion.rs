//! `forebay.db-suspect`: stands beside a ledger in which damage was seen, so that the next start checks all of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk;

/// Ends the name of the file.
const SUFFIX: &str = "-suspect";

/// Notes that damage was seen in the ledger at `path`; best effort.
pub fn note(path: &Path) {
    if let Err(error) = disk::create_file(&place(path)).and_then(|_| disk::sync_folder(disk::folder_of(path))) {
        tracing::warn!(%error, path = %path.display(), "the suspicion against the ledger could not be noted");
    }
}

/// Whether damage was seen in it.
pub fn stands(path: &Path) -> bool {
    place(path).exists()
}

/// The ledger at `path` was checked, or is another one now.
pub fn forget(path: &Path) {
    match fs::remove_file(place(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "the suspicion against the ledger could not be removed");
        }
        _ => {}
    }
}

fn place(path: &Path) -> PathBuf {
    disk::with_suffix(path, SUFFIX)
}
