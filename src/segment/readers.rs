//! Who may read the segments of readings.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::disk;

/// The bits of a mode that say who may do what.
const ACCESS: u32 = 0o777;

/// Who may read the segments of readings, beside the daemon's own account.
///
/// An engine of another account needs it. The files' group stays the daemon's own: so the daemon needs no right to give
/// files away, and the data folder above, which is closed to the group, keeps out whoever else is in it. The engine finds
/// the folder of readings bound into a file system of its own, where there is nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Readers {
    /// Nobody.
    #[default]
    Owner,
    /// The group of the files.
    Group,
}

impl Readers {
    fn file_mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o640,
        }
    }

    fn folder_mode(self) -> u32 {
        match self {
            Self::Owner => 0o700,
            Self::Group => 0o750,
        }
    }

    /// Lets them read the new file at `path` and enter the folder that it stands in.
    ///
    /// # Errors
    /// As changing a mode.
    pub(super) fn let_in(self, path: &Path) -> io::Result<()> {
        // What nobody else may read was made so.
        if self == Self::Owner {
            return Ok(());
        }
        set_mode(disk::folder_of(path), self.folder_mode())?;
        set_mode(path, self.file_mode())
    }

    /// Lets them read what is in `folder`, that of all readings, or keeps them out.
    ///
    /// Its own mode is changed last: it says that all below was done, so that a start looks at one mode, not at every
    /// file's. Whoever is to be kept out can't pass it, and the files below stay as they are. Nothing is fsynced: what a
    /// power cut undoes is done again.
    pub(super) fn apply(self, folder: &Path) {
        if mode(folder).is_ok_and(|found| found == self.folder_mode()) {
            return;
        }
        if self == Self::Group {
            let files = children(folder).into_iter().flat_map(|date| children(&date)).filter(|path| path.is_file());
            for path in files {
                // Better one file that they can't read than none that they can.
                if let Err(error) = self.let_in(&path) {
                    tracing::warn!(file = %path.display(), %error, "an engine of another account can't read a segment");
                }
            }
        }
        if let Err(error) = set_mode(folder, self.folder_mode()) {
            tracing::warn!(folder = %folder.display(), %error, "who may read the segments can't be changed");
        }
    }
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & ACCESS)
}

/// Writes nothing where the mode is right.
fn set_mode(path: &Path, wanted: u32) -> io::Result<()> {
    if mode(path)? == wanted { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(wanted)) }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}
