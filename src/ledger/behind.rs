//! `forebay.db-behind`: stands beside a ledger that lost durable commits, and says how. It is there before the WAL that
//! shows the damage is emptied, and until a new instance has begun.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk;

/// Ends the name of the file.
const SUFFIX: &str = "-behind";

/// Notes durably what the ledger at `path` lost.
///
/// # Errors
/// As writing a file.
pub fn note(path: &Path, lost: &str) -> io::Result<()> {
    disk::write_atomically(&place(path), lost.as_bytes())
}

/// What it lost, if a start before this one noted it and no new instance has begun since.
///
/// # Errors
/// As reading a file.
pub fn noted(path: &Path) -> io::Result<Option<String>> {
    match fs::read(place(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => Ok(Some(String::from_utf8_lossy(&other?).into_owned())),
    }
}

/// A new instance has begun, or the ledger is another one now. Where this fails, the next start begins one more.
pub fn forget(path: &Path) {
    match fs::remove_file(place(path)).and_then(|()| disk::sync_folder(disk::folder_of(path))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "the note that the ledger is behind could not be removed");
        }
        _ => {}
    }
}

fn place(path: &Path) -> PathBuf {
    disk::with_suffix(path, SUFFIX)
}
