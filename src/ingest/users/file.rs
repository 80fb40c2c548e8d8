//! The file of accounts: read, and changed a line at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::hash::Hash;
use crate::disk;
use crate::error::ErrorKind;
use crate::secrets::{self, SecretError};

/// Longest file: some ten thousand accounts.
const MAX_BYTES: u64 = 1 << 20;

/// Longest name.
const MAX_NAME_BYTES: usize = 128;

/// The file of accounts can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It can't be read, or others may read it.
    #[error("accounts: {0}; `forebay user add NAME` makes the file")]
    File(#[from] SecretError),
    /// A line in it is wrong.
    #[error("accounts: {} line {line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        fault: String,
    },
    /// A name that can't stand in it.
    #[error(
        "\"{0}\" can't be a name: 1 to {MAX_NAME_BYTES} bytes without colon, line end or other control characters, not beginning with #"
    )]
    Name(String),
    /// It can't be written.
    #[error("accounts: {} can't be written", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl UsersError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) => ErrorKind::Invalid,
            Self::File(_) | Self::Line { .. } => ErrorKind::Config,
            Self::Unwritable { .. } => ErrorKind::Transient,
        }
    }
}

/// All accounts, in the order of the file.
#[derive(Debug, Default)]
pub struct Accounts {
    hashes: HashMap<String, Hash>,
    names: Vec<String>,
}

impl Accounts {
    /// The hash of `name`'s password.
    pub fn hash_of(&self, name: &str) -> Option<&Hash> {
        self.hashes.get(name)
    }

    /// Anybody's hash: what a name that is not there is compared with, so that it takes as long.
    pub fn any_hash(&self) -> Option<&Hash> {
        self.names.first().and_then(|name| self.hashes.get(name))
    }

    /// The names, in the order of the file.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    fn parse(path: &Path, text: &str) -> Result<Self, UsersError> {
        let mut accounts = Self::default();
        for (at, line) in text.lines().enumerate() {
            let wrong = |fault: String| UsersError::Line { path: path.to_owned(), line: at + 1, fault };
            if is_comment(line) {
                continue;
            }
            // What is not understood is not shown: it may be a password.
            let (name, hash) = line.split_once(':').ok_or_else(|| wrong("it is not \"name:hash\"".to_owned()))?;
            check_name(name).map_err(|error| wrong(error.to_string()))?;
            let hash = Hash::parse(hash.trim_end()).map_err(|fault| wrong(format!("account \"{name}\": {fault}")))?;
            if accounts.hashes.insert(name.to_owned(), hash).is_some() {
                return Err(wrong(format!("account \"{name}\" is there twice")));
            }
            accounts.names.push(name.to_owned());
        }
        Ok(accounts)
    }
}

fn is_comment(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with('#')
}

fn check_name(name: &str) -> Result<(), UsersError> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with('#') && name.trim() == name;
    if fits && !name.contains(|c: char| c == ':' || c.is_control()) { Ok(()) } else { Err(UsersError::Name(name.to_owned())) }
}

/// Reads the file at `path`.
///
/// # Errors
/// [`UsersError::File`], also when others may read or change it; [`UsersError::Line`].
pub fn read(path: &Path) -> Result<Accounts, UsersError> {
    Accounts::parse(path, &read_text(path)?)
}

fn read_text(path: &Path) -> Result<String, UsersError> {
    let bytes = secrets::read_private(path, MAX_BYTES)?;
    String::from_utf8(bytes).map_err(|_| UsersError::File(SecretError::NotText(path.to_owned())))
}

/// Gives `name` the password with this hash, or removes the account. Returns whether it was there. Comments, order and
/// owner stay; a file that is not there is made, and belongs to `owner` (user and group) if one is given.
///
/// # Errors
/// All of [`UsersError`]; the file is then as it was.
pub fn change(path: &Path, name: &str, hash: Option<&Hash>, owner: Option<(u32, u32)>) -> Result<bool, UsersError> {
    check_name(name)?;
    let failed = |source| UsersError::Unwritable { path: path.to_owned(), source };
    // Of two commands at the same time the second waits, and keeps what the first wrote.
    let folder = File::open(disk::folder_of(path)).map_err(failed)?;
    flock(&folder, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let found = std::fs::metadata(path).ok();
    let old = if found.is_some() { read_text(path)? } else { String::new() };
    let was_there = Accounts::parse(path, &old)?.hash_of(name).is_some();
    if !was_there && hash.is_none() {
        return Ok(false);
    }
    disk::write_atomically(path, edit(&old, name, hash).as_bytes()).map_err(failed)?;
    let owner = found.map(|found| (found.uid(), found.gid())).or(owner);
    if let Some((user, group)) = owner.filter(|_| rustix::process::geteuid().is_root()) {
        chown(path, Some(user), Some(group)).map_err(failed)?;
    }
    Ok(was_there)
}

/// `text` with one account set or removed.
fn edit(text: &str, name: &str, hash: Option<&Hash>) -> String {
    let is_its = |line: &str| !is_comment(line) && line.split(':').next() == Some(name);
    let line = hash.map(|hash| format!("{name}:{}", hash.as_str()));
    let mut lines: Vec<&str> = Vec::new();
    let mut pending = line.as_deref();
    for old in text.lines() {
        if is_its(old) { lines.extend(pending.take()) } else { lines.push(old) }
    }
    lines.extend(pending);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::hash::cheap;
    use super::*;

    fn write(folder: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = folder.path().join("users");
        disk::write_atomically(&path, text.as_bytes()).unwrap();
        path
    }

    #[test]
    fn accounts_come_and_go_and_comments_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let (first, second) = (cheap("1"), cheap("2"));
        assert!(!change(&path, "pump", Some(&first), None).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        write(&folder, &format!("# the shed\n{}", fs::read_to_string(&path).unwrap()));
        assert!(!change(&path, "weather station", Some(&first), None).unwrap());
        assert!(change(&path, "pump", Some(&second), None).unwrap());
        let accounts = read(&path).unwrap();
        assert_eq!(accounts.names(), ["pump", "weather station"]);
        assert!(accounts.hash_of("pump").unwrap().is_of(b"2") && accounts.hash_of("Pump").is_none());
        assert!(change(&path, "pump", None, None).unwrap());
        assert!(!change(&path, "pump", None, None).unwrap());
        assert_eq!(read(&path).unwrap().names(), ["weather station"]);
        assert!(fs::read_to_string(&path).unwrap().starts_with("# the shed\n"));
    }

    #[test]
    fn a_wrong_line_is_named_by_number_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let good = cheap("1");
        for (text, part) in [
            ("\n#\nhunter2\n".to_owned(), "line 3: it is not"),
            ("pump:hunter2\n".to_owned(), "line 1: account \"pump\""),
            (format!("a:{}\na:{}\n", good.as_str(), good.as_str()), "line 2: account \"a\" is there twice"),
            (format!(":{}\n", good.as_str()), "line 1"),
        ] {
            let fault = read(&write(&folder, &text)).unwrap_err().to_string();
            assert!(fault.contains(part) && !fault.contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn names_that_would_break_the_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        for name in ["", "a:b", "#a", "a\nb", " a", &"a".repeat(129)] {
            assert!(matches!(change(&path, name, Some(&cheap("1")), None), Err(UsersError::Name(_))), "{name:?}");
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, "");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        for refusal in [read(&path).map(drop), change(&path, "a", Some(&cheap("1")), None).map(drop)] {
            assert!(refusal.unwrap_err().to_string().contains("chmod"));
        }
    }

    #[test]
    fn of_many_changes_at_once_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let hash = cheap("1");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let (path, hash) = (&path, &hash);
                scope.spawn(move || change(path, &format!("sensor-{number}"), Some(hash), None).unwrap());
            }
        });
        assert_eq!(read(&path).unwrap().names().len(), 16);
    }
}
