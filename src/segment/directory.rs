//! The folder of segments: the sole creator and remover of its files.
//!
//! Owns: `<data_dir>/segments/`, the pins, the set of verified names. Does not own: which segments exist (the ledger).
//! Invariants: folders 0700 and files 0600, unless there are other [`Readers`]; a file gets its final name by a rename in
//! its own folder; a pinned file is not removed; a new folder is durable before a file is put into it.
//! On failure: nothing is half done but temporary files, which recovery removes.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::SegmentError;
use super::readers::Readers;
use super::verified::Verified;
use crate::disk;
use crate::model::{FileKind, SegmentName, check_of};
use crate::space::Space;

/// Files of one name in quarantine; beyond it the last one is replaced.
const MAX_NAMESAKES: u32 = 16;

/// Handle of the folder. Cheap to clone.
#[derive(Clone)]
pub struct SegmentDir {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    quarantine: PathBuf,
    /// Held while a date folder is made for a file, or removed after its last.
    folders: Mutex<()>,
    pins: Mutex<HashMap<SegmentName, usize>>,
    /// Bytes that came less those that went.
    growth: AtomicI64,
    space: Space,
    readers: Readers,
    verified: Verified,
}

/// What is in the folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Segments; sorted.
    pub segments: Vec<SegmentName>,
    /// Files that were not complete when the process ended.
    pub temporary: Vec<PathBuf>,
    /// What forebay did not put there.
    pub foreign: Vec<PathBuf>,
}

/// The names in the folder, not taken apart.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// What may be segments.
    pub(super) segments: Vec<String>,
    /// As [`Listing`] has them.
    pub(super) temporary: Vec<PathBuf>,
    /// As [`Listing`] has them, but for what is named like a segment.
    pub(super) foreign: Vec<PathBuf>,
}

impl Names {
    /// What [`check_of`] adds up to for all of them.
    pub(super) fn check(&self) -> u64 {
        self.segments.iter().fold(0, |sum, name| sum.wrapping_add(check_of(name)))
    }
}

/// What became of a file that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, durably.
    Removed,
    /// Someone reads it; try again later.
    Pinned,
    /// It was not there.
    Absent,
}

/// Keeps files from being removed for as long as it lives.
pub struct Pin {
    dir: SegmentDir,
    names: Vec<SegmentName>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.dir.pins();
        for name in &self.names {
            if let Some(count) = pins.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(name);
                }
            }
        }
    }
}

/// A file under its temporary name; removed when it is dropped before it got its final one.
pub(super) struct Temporary {
    dir: SegmentDir,
    name: SegmentName,
    path: PathBuf,
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name. Durable after [`SegmentDir::sync`].
    pub(super) fn rename(&self) -> Result<(), SegmentError> {
        let target = self.dir.path(&self.name);
        fs::rename(&self.path, &target).map_err(|error| SegmentError::io("rename", &self.path, &error))?;
        self.dir.grow(size(&target));
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Absent after the rename; what else can't be removed now is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

impl SegmentDir {
    /// Opens `segments/` and `quarantine/` in `data_dir` (which exists), making what is missing; no cap is kept.
    ///
    /// # Errors
    /// A folder that can't be made, read or synced.
    pub fn open(data_dir: &Path) -> Result<Self, SegmentError> {
        Self::within(data_dir, Space::default(), Readers::Owner)
    }

    /// The same, where what is written claims its room in `space` and may be read by `readers`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn within(data_dir: &Path, space: Space, readers: Readers) -> Result<Self, SegmentError> {
        let (root, quarantine) = (data_dir.join("segments"), data_dir.join("quarantine"));
        make_folder(&root)?;
        make_folder(&quarantine)?;
        for kind in [FileKind::Readings, FileKind::Records] {
            make_folder(&root.join(kind.as_str()))?;
        }
        readers.apply(&root.join(FileKind::Readings.as_str()));
        let inner = Inner {
            root,
            quarantine,
            folders: Mutex::default(),
            pins: Mutex::default(),
            growth: AtomicI64::new(0),
            space,
            readers,
            verified: Verified::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The folder all names are relative to.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Where the file of `name` is, if it is here.
    pub fn path(&self, name: &SegmentName) -> PathBuf {
        self.inner.root.join(name.to_string())
    }

    /// The segments whose digests this process has checked.
    pub fn verified(&self) -> &Verified {
        &self.inner.verified
    }

    /// Where what is written claims its room.
    pub(super) fn space(&self) -> &Space {
        &self.inner.space
    }

    /// By how many bytes its segments have grown since it was opened. What was there before is for the ledger to say:
    /// asking each file for its size would slow the start.
    pub fn growth(&self) -> i64 {
        self.inner.growth.load(Ordering::Relaxed)
    }

    fn grow(&self, bytes: i64) {
        self.inner.growth.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Keeps the files of `names` from being removed while the answer lives.
    pub fn pin(&self, names: &[SegmentName]) -> Pin {
        let mut pins = self.pins();
        for name in names {
            *pins.entry(name.clone()).or_default() += 1;
        }
        drop(pins);
        Pin { dir: self.clone(), names: names.to_vec() }
    }

    /// Removes the file of `name`, and its date folder with the last file. The ledger has let go of it before.
    ///
    /// # Errors
    /// A file that can't be removed, a folder that can't be synced.
    pub fn remove(&self, name: &SegmentName) -> Result<Removal, SegmentError> {
        // Held through the removal, so that no pin comes in between.
        let pins = self.pins();
        if pins.contains_key(name) {
            return Ok(Removal::Pinned);
        }
        let path = self.path(name);
        let bytes = size(&path);
        self.inner.verified.remove(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Removal::Absent),
            Err(error) => return Err(SegmentError::io("remove", &path, &error)),
        }
        drop(pins);
        self.grow(-bytes);
        self.leave_folder(name)?;
        Ok(Removal::Removed)
    }

    /// Whether none of `names` has a file here, also after a power cut.
    ///
    /// # Errors
    /// A folder that can't be looked at or synced.
    pub fn are_gone(&self, names: &[SegmentName]) -> Result<bool, SegmentError> {
        for name in names {
            let path = self.path(name);
            if path.try_exists().map_err(|error| SegmentError::io("look at", &path, &error))? {
                return Ok(false);
            }
            // Its date folder went with the last file, which made that durable.
            match sync_folder(disk::folder_of(&path)) {
                Ok(()) | Err(SegmentError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Moves the damaged file of `name` to `quarantine/`, with `why` in a text beside it, and says where it is now.
    ///
    /// # Errors
    /// A file that is missing or can't be moved.
    pub fn quarantine(&self, name: &SegmentName, why: &str) -> Result<PathBuf, SegmentError> {
        self.inner.verified.remove(name);
        let (path, target) = (self.path(name), self.quarantine_path(name));
        let bytes = size(&path);
        fs::rename(&path, &target).map_err(|error| SegmentError::io("move to quarantine", &path, &error))?;
        self.grow(-bytes);
        sync_folder(&self.inner.quarantine)?;
        self.leave_folder(name)?;
        if let Err(error) = fs::write(target.with_extension("why.txt"), format!("{name}: {why}\n")) {
            tracing::warn!(segment = %name, %error, "a quarantined file has no note beside it");
        }
        Ok(target)
    }

    /// Everything in the folder: names, no contents.
    ///
    /// # Errors
    /// A folder that can't be read.
    pub fn list(&self) -> Result<Listing, SegmentError> {
        let Names { segments: names, temporary, mut foreign } = self.names()?;
        let mut segments = Vec::new();
        for name in names {
            match name.parse() {
                Ok(segment) => segments.push(segment),
                Err(_) => foreign.push(self.inner.root.join(name)),
            }
        }
        segments.sort_unstable();
        Ok(Listing { segments, temporary, foreign })
    }

    /// The names in the folder: a part of every start, and so not more than that.
    pub(super) fn names(&self) -> Result<Names, SegmentError> {
        let mut names = Names::default();
        for kind in [FileKind::Readings, FileKind::Records] {
            for (date, is_folder) in entries(&self.inner.root.join(kind.as_str()))? {
                let folder = self.inner.root.join(kind.as_str()).join(&date);
                if !is_folder {
                    names.foreign.push(folder);
                    continue;
                }
                for (file, _) in entries(&folder)? {
                    if file.ends_with(".parquet") {
                        names.segments.push(format!("{}/{date}/{file}", kind.as_str()));
                    } else if file.ends_with(disk::TEMP_SUFFIX) {
                        names.temporary.push(folder.join(file));
                    } else {
                        names.foreign.push(folder.join(file));
                    }
                }
            }
        }
        Ok(names)
    }

    /// Removes a temporary file that an earlier process left.
    pub(super) fn remove_temporary(&self, path: &Path) -> Result<(), SegmentError> {
        fs::remove_file(path).map_err(|error| SegmentError::io("remove", path, &error))
    }

    /// Begins the file of `name` under its temporary name.
    pub(super) fn create(&self, name: &SegmentName) -> Result<(Temporary, File), SegmentError> {
        let path = disk::temp_path(&self.path(name));
        let _folders = self.inner.folders.lock().unwrap_or_else(PoisonError::into_inner);
        make_folder(disk::folder_of(&path))?;
        let file = disk::create_file(&path).map_err(|error| SegmentError::io("create", &path, &error))?;
        if name.kind == FileKind::Readings {
            self.inner.readers.let_in(&path).map_err(|error| SegmentError::io("open to its readers", &path, &error))?;
        }
        Ok((Temporary { dir: self.clone(), name: name.clone(), path }, file))
    }

    /// Makes the names in the folders of `names` durable.
    pub(super) fn sync<'a>(&self, names: impl Iterator<Item = &'a SegmentName>) -> Result<(), SegmentError> {
        let mut folders: Vec<_> = names.map(|name| disk::folder_of(&self.path(name)).to_owned()).collect();
        folders.sort_unstable();
        folders.dedup();
        folders.iter().try_for_each(|folder| sync_folder(folder))
    }

    /// After a file has left its date folder: removes the folder if it was the last, and makes that durable.
    fn leave_folder(&self, name: &SegmentName) -> Result<(), SegmentError> {
        let path = self.path(name);
        let folder = disk::folder_of(&path);
        let _folders = self.inner.folders.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::remove_dir(folder) {
            Ok(()) => sync_folder(disk::folder_of(folder)),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => sync_folder(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(SegmentError::io("remove", folder, &error)),
        }
    }

    fn quarantine_path(&self, name: &SegmentName) -> PathBuf {
        let name = name.to_string().replacen("/date=", "-", 1).replace('/', "-");
        let name = name.trim_end_matches(".parquet");
        let path = |suffix: &str| self.inner.quarantine.join(format!("{name}{suffix}.parquet"));
        let namesakes = (2..=MAX_NAMESAKES).map(|place| path(&format!("-{place}")));
        let free = std::iter::once(path("")).chain(namesakes).find(|path| !path.exists());
        free.unwrap_or_else(|| path(&format!("-{MAX_NAMESAKES}")))
    }

    fn pins(&self) -> MutexGuard<'_, HashMap<SegmentName, usize>> {
        self.inner.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the file at `path` takes; 0 if it can't be asked.
fn size(path: &Path) -> i64 {
    fs::metadata(path).map_or(0, |metadata| (metadata.blocks() * 512).cast_signed())
}

/// Makes `folder` for its owner alone, durably, unless it is there.
fn make_folder(folder: &Path) -> Result<(), SegmentError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => sync_folder(disk::folder_of(folder)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(SegmentError::io("make", folder, &error)),
    }
}

fn sync_folder(folder: &Path) -> Result<(), SegmentError> {
    disk::sync_folder(folder).map_err(|error| SegmentError::io("sync", folder, &error))
}

/// The names of what is in `folder`, as far as they are UTF-8, and whether each is a folder itself.
fn entries(folder: &Path) -> Result<Vec<(String, bool)>, SegmentError> {
    let failed = |error: io::Error| SegmentError::io("read", folder, &error);
    let entry = |entry: fs::DirEntry| Ok((entry.file_name().to_string_lossy().into_owned(), entry.file_type()?.is_dir()));
    fs::read_dir(folder).map_err(failed)?.map(|found| found.and_then(entry)).collect::<Result<_, _>>().map_err(failed)
}
