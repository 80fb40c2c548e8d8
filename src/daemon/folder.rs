//! The data folder: made if it is not there, and held by one daemon at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::disk;

/// The folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It can't be made or written.
    #[error("the data folder {} can't be used: {source}; set gateway.data_dir to a folder that forebay may write", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another daemon holds it.
    #[error("another forebay (process {holder}) uses the data folder {} already", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
        /// Its process id, as it wrote it down.
        holder: String,
    },
}

/// Held as long as the daemon lives; the kernel gives it back however the daemon ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Makes `folder` (0700) if it is not there, and takes its lock.
///
/// # Errors
/// The folder can't be made or written, or another daemon holds it.
pub fn take(folder: &Path) -> Result<FolderLock, FolderError> {
    let unusable = |source: std::io::Error| FolderError::Unusable { path: folder.to_path_buf(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
    let path = folder.join("forebay.lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = file.map_err(unusable)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        return Err(FolderError::Taken { path: folder.to_path_buf(), holder: holder.trim().to_owned() });
    }
    match file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
        // The lock holds without the number in it, and a full disk must not keep the daemon from starting.
        Err(error) if !disk::is_full(&error) => return Err(unusable(error)),
        _ => {}
    }
    Ok(FolderLock { _file: file })
}

/// This host's id: a copied card finds another one. Where there is none, copies can't be told apart.
pub fn host_id() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let id = id.trim();
    if id.is_empty() { "unknown".to_owned() } else { id.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_and_free_again_after_it() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("a/b");
        let held = take(&folder).unwrap();
        let refused = take(&folder).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()) && refused.contains("a/b"), "{refused}");
        drop(held);
        take(&folder).unwrap();
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        fs::write(&path, "x").unwrap();
        assert!(take(&path).unwrap_err().to_string().contains(&path.display().to_string()));
    }
}
