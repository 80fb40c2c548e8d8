//! The `file:` upstream: a folder, on a disk, a stick or a network mount.
//!
//! Owns: the folders and files below its root, and the mark `.forebay-lake` in it.
//! Does not own: the root's parent, which must exist.
//! Invariants: a file is complete and durable under its final name or absent there (temporary file in the same folder,
//! fsync, rename, fsync of every folder up to the root); nothing is written where the mark is missing; at most one
//! file is being written, so that a write which hangs in a dead mount can't pile up others behind it.
//! On failure: the temporary file stays behind and is replaced by the next attempt.
//!
//! The mark is what tells a lake from the empty mount point it vanished from. It is made once, at the first use by a
//! data folder that never delivered anything; whoever moves a lake by hand keeps it or makes it anew with `touch`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread;

use bytes::Bytes;
use futures::FutureExt;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::pace::Pace;
use super::upstream::{Answer, Body, Put, Upstream, UpstreamError};
use crate::disk;
use crate::model::Digest;

/// The mark of a lake.
pub const MARK: &str = ".forebay-lake";

const MARK_TEXT: &str = "This folder is a forebay lake. forebay writes nothing here while this file is missing.\n";

/// Read and written at a time; large enough that the system calls don't count.
const CHUNK_BYTES: usize = 256 << 10;

/// Written at a time where the rate is limited.
const PACED_BYTES: usize = 16 << 10;

/// A folder that takes cuts.
#[derive(Clone)]
pub struct FileUpstream {
    root: Arc<PathBuf>,
    pace: Arc<Pace>,
    busy: Arc<Mutex<()>>,
}

impl FileUpstream {
    /// The folder `root`; nothing is touched yet.
    pub fn new(root: PathBuf, pace: Arc<Pace>) -> Self {
        Self { root: Arc::new(root), pace, busy: Arc::default() }
    }

    /// Runs `work` on a blocking thread, unless an earlier work still hangs there.
    fn run<T: Send + 'static>(&self, work: impl FnOnce(&Root) -> Result<T, UpstreamError> + Send + 'static) -> Answer<'static, T> {
        let this = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _one = match this.busy.try_lock() {
                Ok(one) => one,
                Err(TryLockError::Poisoned(one)) => one.into_inner(),
                Err(TryLockError::WouldBlock) => return Err(UpstreamError::Transient("an earlier access still hangs".to_owned())),
            };
            work(&Root { path: &this.root, pace: &this.pace })
        });
        async move { task.await.unwrap_or_else(|error| Err(UpstreamError::Ambiguous(error.to_string()))) }.boxed()
    }
}

impl Upstream for FileUpstream {
    fn put_new<'a>(&'a self, key: &'a str, body: Body) -> Answer<'a, Put> {
        let key = key.to_owned();
        self.run(move |root| root.put_new(&key, &body))
    }

    fn find<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Digest>> {
        let key = key.to_owned();
        self.run(move |root| {
            root.check_mark()?;
            let path = root.path(&key)?;
            digest_of(&path).map_err(|error| failed("read", &path, &error))
        })
    }

    fn get<'a>(&'a self, key: &'a str, max_bytes: u64) -> Answer<'a, Option<Bytes>> {
        let key = key.to_owned();
        self.run(move |root| root.get(&key, max_bytes))
    }

    fn probe(&self) -> Answer<'_, ()> {
        self.run(|root| root.check_mark())
    }

    fn sent_bytes(&self) -> u64 {
        self.pace.charged()
    }

    fn establish(&self) -> Answer<'_, ()> {
        self.run(|root| root.establish())
    }

    fn describe(&self) -> String {
        format!("file://{}", self.root.display())
    }
}

/// The root, on a blocking thread.
struct Root<'a> {
    path: &'a Path,
    pace: &'a Pace,
}

impl Root<'_> {
    fn check_mark(&self) -> Result<(), UpstreamError> {
        let mark = self.path.join(MARK);
        match fs::symlink_metadata(&mark) {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Err(UpstreamError::Unmarked(format!(
                "the lake at {} is not there: {} is missing; is it mounted? (after moving a lake: touch that file)",
                self.path.display(),
                mark.display()
            ))),
            Err(error) => Err(failed("look at", &mark, &error)),
        }
    }

    fn establish(&self) -> Result<(), UpstreamError> {
        match fs::create_dir(self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create the folder", self.path, &error)),
            Ok(()) => {
                let parent = disk::folder_of(self.path);
                disk::sync_folder(parent).map_err(|error| failed("sync", parent, &error))?;
            }
        }
        let mark = self.path.join(MARK);
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&mark)?;
            file.write_all(MARK_TEXT.as_bytes())?;
            file.sync_all()?;
            disk::sync_folder(self.path)
        };
        write().map_err(|error| failed("write", &mark, &error))
    }

    /// Where `key` is stored; refuses a key that leads elsewhere.
    fn path(&self, key: &str) -> Result<PathBuf, UpstreamError> {
        let plain = !key.is_empty() && Path::new(key).components().all(|part| matches!(part, Component::Normal(_)));
        if plain { Ok(self.path.join(key)) } else { Err(UpstreamError::Permanent(format!("\"{key}\" is not a key"))) }
    }

    fn put_new(&self, key: &str, body: &Body) -> Result<Put, UpstreamError> {
        self.check_mark()?;
        let target = self.path(key)?;
        if let Some(found) = digest_of(&target).map_err(|error| failed("read", &target, &error))? {
            return self.same(key, &target, found, body);
        }
        let part = part_of(&target);
        self.make_folders(&target)?;
        write_part(&part, key, body, self.pace)?;
        fail::fail_point!("upload.file_before_rename");
        match publish(&part, &target) {
            Ok(()) => {}
            // Another writer was quicker: the names are ours alone, so it is a twin of this gateway.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let _ = fs::remove_file(&part);
                return match digest_of(&target).map_err(|error| failed("read", &target, &error))? {
                    Some(found) => self.same(key, &target, found, body),
                    None => Err(UpstreamError::Transient(format!("{} came and went", target.display()))),
                };
            }
            Err(error) => return Err(failed("rename to", &target, &error)),
        }
        self.sync_folders(&target)?;
        Ok(Put::Stored)
    }

    fn get(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, UpstreamError> {
        self.check_mark()?;
        let path = self.path(key)?;
        match fs::metadata(&path).and_then(|found| if found.len() > max_bytes { Ok(None) } else { fs::read(&path).map(Some) }) {
            Ok(Some(bytes)) => Ok(Some(bytes.into())),
            Ok(None) => Err(UpstreamError::Permanent(format!("\"{key}\" is there with more than {max_bytes} bytes"))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    /// Settles a put of what is there: a crash may have left it renamed and not yet durable.
    fn same(&self, key: &str, target: &Path, found: Digest, body: &Body) -> Result<Put, UpstreamError> {
        if found != body.sha256 {
            return Err(UpstreamError::Conflict { key: key.to_owned(), found });
        }
        disk::sync_file(target).map_err(|error| failed("sync", target, &error))?;
        self.sync_folders(target)?;
        Ok(Put::SameAlready)
    }

    /// The folders between the root and `target`, nearest to the root first.
    fn folders<'a>(&self, target: &'a Path) -> Vec<&'a Path> {
        let mut folders: Vec<_> = target.ancestors().skip(1).take_while(|folder| *folder != self.path).collect();
        folders.reverse();
        folders
    }

    /// Makes the folders one by one, so that a root that vanished meanwhile is not made again.
    fn make_folders(&self, target: &Path) -> Result<(), UpstreamError> {
        for folder in self.folders(target) {
            match fs::create_dir(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("create the folder", folder, &error)),
            }
        }
        Ok(())
    }

    /// Every level, whether made now or before a crash: syncing a clean folder costs next to nothing.
    fn sync_folders(&self, target: &Path) -> Result<(), UpstreamError> {
        let levels = self.folders(target).into_iter().rev().chain([self.path]);
        levels.into_iter().try_for_each(|folder| disk::sync_folder(folder).map_err(|error| failed("sync", folder, &error)))
    }
}

/// `.<name>.part` beside `target`: no reader's `*.parquet` or `*.json` finds it.
fn part_of(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.part"))
}

fn write_part(part: &Path, key: &str, body: &Body, pace: &Pace) -> Result<(), UpstreamError> {
    let source = |detail: String| UpstreamError::Source { key: key.to_owned(), detail };
    let mut from = body.open().map_err(|error| source(error.to_string()))?;
    // A file left by a crash is not continued: what of it is durable is unknown.
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", part, &error)),
        _ => {}
    }
    let mut to = OpenOptions::new().write(true).create_new(true).open(part).map_err(|error| failed("create", part, &error))?;
    let unread = |error: io::Error| source(error.to_string());
    let mut write = |chunk: &[u8]| {
        chunk.chunks(PACED_BYTES).try_for_each(|piece| {
            thread::sleep(pace.charge(piece.len()));
            body.flow.add(piece.len());
            to.write_all(piece)
        })
    };
    let found = digest_while(&mut from, unread, |chunk| write(chunk).map_err(|error| failed("write", part, &error)))?;
    if found != body.sha256 {
        let _ = fs::remove_file(part);
        return Err(source(format!("its SHA-256 is {found}, not {}", body.sha256)));
    }
    to.sync_all().map_err(|error| failed("sync", part, &error))
}

/// Renames without replacing. A file system that can't promise that (NFS) gets a plain rename: the look a moment ago
/// has to do, and only a twin of this gateway could come between.
fn publish(part: &Path, target: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, part, CWD, target, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::rename(part, target),
        other => Ok(other?),
    }
}

/// The digest of the file at `path`; `None` if there is none.
fn digest_of(path: &Path) -> io::Result<Option<Digest>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    digest_while(&mut file, |error| error, |_| Ok(())).map(Some)
}

/// The digest of what `from` gives, while `take` gets it chunk by chunk.
fn digest_while<E>(
    from: &mut impl Read,
    unread: impl Fn(io::Error) -> E,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Digest, E> {
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        let read = from.read(&mut chunk).map_err(&unread)?;
        let Some(filled) = chunk.get(..read).filter(|filled| !filled.is_empty()) else { break };
        digest.update(filled);
        take(filled)?;
    }
    Ok(Digest(digest.finalize().into()))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A person has to act on rights and names; all else may pass by itself.
fn failed(what: &str, path: &Path, error: &io::Error) -> UpstreamError {
    let text = format!("can't {what} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::InvalidFilename => {
            UpstreamError::Permanent(text)
        }
        _ => UpstreamError::Transient(text),
    }
}
