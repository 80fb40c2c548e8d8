//! Secrets: read from files that nobody else may read, and shown nowhere.
//!
//! A file that others may read is refused, not read with a warning: whoever put a password there believes it to be safe,
//! and says so nowhere else. The group may read: an administrator shares a key with a service that way.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::disk;

/// Longest file with a secret. Keys of certificates are the longest, a few thousand bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Reading or writing by others.
const OTHERS: u32 = 0o006;

/// A password, a token, or anything else that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What it says; for whom it is meant for, and nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A file with a secret can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It can't be read.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read or change it.
    #[error("others may read or change {0} (mode {1:04o}); run: chmod o-rw {0}", path.display(), mode)]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is nothing in it.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// It is not UTF-8.
    #[error("{} is not text", .0.display())]
    NotText(PathBuf),
}

/// The secret in the file at `path`; a line end after it does not belong to it.
///
/// # Errors
/// All of [`SecretError`].
pub fn read(path: &Path) -> Result<Secret, SecretError> {
    let text = String::from_utf8(read_private(path, MAX_BYTES)?).map_err(|_| SecretError::NotText(path.to_owned()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(SecretError::Empty(path.to_owned())),
        text => Ok(Secret::new(text)),
    }
}

/// The bytes of the file at `path`, which others may neither read nor write.
///
/// # Errors
/// [`SecretError::Unreadable`], also beyond `max` bytes; [`SecretError::Exposed`].
pub fn read_private(path: &Path, max: u64) -> Result<Vec<u8>, SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    disk::read_at_most(path, max).map_err(unreadable)
}

/// `text` with every account in an address (`name:password@host`) replaced: for messages that repeat what somebody wrote.
pub fn hide_accounts(text: &str) -> String {
    let ends_word = |c: char| c.is_whitespace() || c == '"';
    text.split_inclusive(ends_word).map(hide_account).collect()
}

fn hide_account(word: &str) -> String {
    match word.rsplit_once('@') {
        Some((account, host)) if account.contains(':') => {
            let scheme = account.find("://").map_or("", |end| word.get(..end + 3).unwrap_or_default());
            format!("{scheme}***@{host}")
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(folder: &Path, text: &[u8], mode: u32) -> PathBuf {
        let path = folder.join(format!("{mode:o}"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_is_read_without_its_line_end_and_shown_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let secret = read(&file(folder.path(), b" s3cret \r\n", 0o640)).unwrap();
        assert_eq!(secret.reveal(), " s3cret ");
        assert!(!format!("{secret:?}").contains("s3cret"));
    }

    #[test]
    fn what_others_may_read_or_change_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o602, 0o666] {
            let refusal = read(&file(folder.path(), b"s3cret", mode)).unwrap_err().to_string();
            assert!(refusal.contains("chmod o-rw") && refusal.contains(&format!("{mode:04o}")), "{refusal}");
            assert!(!refusal.contains("s3cret"));
        }
    }

    #[test]
    fn what_holds_no_secret_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = read(&file(folder.path(), b"\n", 0o600)).unwrap_err().to_string();
        assert!(empty.ends_with("is empty"), "{empty}");
        let binary = read(&file(folder.path(), b"\xff\xfe", 0o600)).unwrap_err().to_string();
        assert!(binary.ends_with("is not text"), "{binary}");
        let absent = read(&folder.path().join("absent")).unwrap_err().to_string();
        assert!(absent.contains("absent") && absent.contains("can't be read"), "{absent}");
    }

    #[test]
    fn accounts_in_addresses_are_hidden_wherever_they_stand() {
        for (text, shown) in [
            ("mqtt://joe:s3cret@broker:1883", "mqtt://***@broker:1883"),
            ("mqtt://joe:s3@cret@broker", "mqtt://***@broker"),
            ("a = \"s3://KEY:x@bucket/path\" and https://t0ken@host/", "a = \"s3://***@bucket/path\" and https://***@host/"),
            ("mqtt://joe:s3/cret@broker", "mqtt://***@broker"),
            ("joe:s3cret@broker is nothing", "***@broker is nothing"),
            ("joe@farm.example", "joe@farm.example"),
            ("nothing", "nothing"),
            ("://", "://"),
        ] {
            assert_eq!(hide_accounts(text), shown);
        }
    }
}
