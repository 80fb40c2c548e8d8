//! The disk: what must be done so that a file is complete under its name or absent, also after a power cut.
//!
//! A rename is durable when its folder is fsynced, a new file when both are. A failed fsync is never retried: the kernel
//! may have dropped the pages, and the next call would succeed without them. The caller gives up what it was doing.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Only the daemon's account reads what it keeps.
const FILE_MODE: u32 = 0o600;

/// Ends the name of a file that is being written; what bears it after a crash is rubbish.
pub const TEMP_SUFFIX: &str = ".tmp";

/// The name under which `path` is written before it is renamed: in the same folder, so that the rename is atomic.
pub fn temp_path(path: &Path) -> PathBuf {
    with_suffix(path, TEMP_SUFFIX)
}

/// `path` with `suffix` appended to its last part.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Creates `path` for writing, readable by this account alone; what was there is gone.
///
/// # Errors
/// As opening a file.
pub fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
}

/// Makes the contents of the file at `path` durable.
///
/// # Errors
/// As opening and fsync; never try the fsync again.
pub fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the names in `folder` durable.
///
/// # Errors
/// As opening and fsync; never try the fsync again.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that `path` stands in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Creates `folder` and those above it that are missing, durably.
///
/// # Errors
/// As creating folders and fsync.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    create_folder(folder_of(folder))?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(folder_of(folder))
}

/// Gives the file `from` the name `to`, durably; both are on one file system. What was at `to` is gone.
///
/// # Errors
/// As rename and fsync.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(folder_of(to))?;
    if folder_of(from) != folder_of(to) {
        sync_folder(folder_of(from))?;
    }
    Ok(())
}

/// Writes `bytes` to `path` so that the old contents or the new ones are there whatever happens.
///
/// # Errors
/// As writing, rename and fsync; the temporary file is removed if it can be.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = temp_path(path);
    let write = || {
        let mut file = create_file(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fail::fail_point!("disk.before_rename");
        rename(&temp, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temp);
    })
}

/// All of the file at `path`.
///
/// # Errors
/// As reading; what is no plain file, or longer than `max` bytes, is not read.
pub fn read_at_most(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    // Before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("it is longer than {max} bytes")));
    }
    Ok(bytes)
}

/// Lets this process open as many files as the system allows it: every connection is one, and the usual 1024 would leave
/// none for segments. Returns the limit.
pub fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.unwrap_or(u64::MAX)
}

/// Whether `error` says that the disk (or this account's share of it) is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_no_rubbish() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_atomically(&path, b"new").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn folders_are_created_to_any_depth_and_again_without_complaint() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_folder(&deep).unwrap();
        create_folder(&deep).unwrap();
        assert!(deep.is_dir());
    }

    #[test]
    fn a_rename_moves_between_folders() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("x"), folder.path().join("sub/y"));
        create_folder(&folder.path().join("sub")).unwrap();
        write_atomically(&from, b"1").unwrap();
        rename(&from, &to).unwrap();
        assert!(!from.exists() && to.exists());
    }

    #[test]
    fn what_is_too_long_or_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read_at_most(&path, 5).unwrap(), b"12345");
        assert!(read_at_most(&path, 4).unwrap_err().to_string().contains("4 bytes"));
        assert!(read_at_most(folder.path(), 5).is_err() && read_at_most(&folder.path().join("b"), 5).is_err());
    }

    #[test]
    fn only_a_full_disk_counts_as_full() {
        assert!(is_full(&io::Error::from_raw_os_error(28)));
        assert!(!is_full(&io::Error::from_raw_os_error(5)));
    }

    #[test]
    fn a_bare_name_stands_in_the_working_folder() {
        assert_eq!(folder_of(Path::new("a")), Path::new("."));
        assert_eq!(folder_of(Path::new("/a/b")), Path::new("/a"));
    }
}
