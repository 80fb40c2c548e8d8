//! The seam to upstream: what every place that takes cuts can do, whether it is a directory, S3 or a collector.
//!
//! A put is create-only and compared by digest, so it may be repeated as often as it takes: the answer to "did it
//! arrive?" is to put it again. That is what settles a timeout, a lost reply and a crash alike.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;

use super::UploadError;
use super::file::FileUpstream;
use super::pace::Pace;
use super::remote::Remote;
use crate::config;
use crate::model::Digest;

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was not there, and is now, durably.
    Stored,
    /// It was there with the same bytes, durably.
    SameAlready,
}

/// Why upstream did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No way, no room, too busy: surely not done; try again later.
    #[error("{0}")]
    Transient(String),
    /// It asks for patience (429, 503): surely not done; try again, but not before `retry_after`.
    #[error("{detail}")]
    Busy {
        /// What it said.
        detail: String,
        /// How long to leave it alone.
        retry_after: Duration,
    },
    /// It may or may not have been done: ask, or do it again.
    #[error("no answer: {0}")]
    Ambiguous(String),
    /// Surely not done, because of what was to be put: trying again alone won't help.
    #[error("refused: {0}")]
    Permanent(String),
    /// It does not let us in, or not do this: surely not done, and not for what was to be put. A person has to change something.
    #[error("refused: {0}")]
    Denied(String),
    /// The name is taken by other bytes.
    #[error("\"{key}\" is there already with other content, SHA-256 {found}")]
    Conflict {
        /// The name.
        key: String,
        /// What is there.
        found: Digest,
    },
    /// The place does not know us: the mark that the first use leaves there is missing.
    #[error("{0}")]
    Unmarked(String),
    /// Our own bytes can't be read, or are not what their digest says; nothing was stored.
    #[error("can't send \"{key}\": {detail}")]
    Source {
        /// The name.
        key: String,
        /// What is wrong with them.
        detail: String,
    },
}

/// What is put: bytes with their size and digest, read as a stream so that a large segment costs no memory.
#[derive(Debug, Clone)]
pub struct Body {
    /// Where they are.
    pub content: Content,
    /// How many.
    pub bytes: u64,
    /// Their digest, known beforehand.
    pub sha256: Digest,
    /// How they go out.
    pub flow: Flow,
}

/// How a body goes out. Its bytes are counted chunk by chunk as they are handed to the line: by that a put shows that it
/// moves. And it may be held for a moment, so that something more urgent has the line.
#[derive(Debug, Clone, Default)]
pub struct Flow(Arc<FlowState>);

#[derive(Debug, Default)]
struct FlowState {
    sent: AtomicU64,
    held_until: Mutex<Option<Instant>>,
}

impl Flow {
    /// `bytes` more were handed to the line.
    pub fn add(&self, bytes: usize) {
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// All bytes until now.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// No more is handed to the line for `time`, or until [`Self::release`].
    pub fn hold(&self, time: Duration) {
        *self.held_until() = Instant::now().checked_add(time);
    }

    /// It goes on.
    pub fn release(&self) {
        *self.held_until() = None;
    }

    /// Whether it is held.
    pub fn is_held(&self) -> bool {
        self.held_until().is_some_and(|end| Instant::now() < end)
    }

    fn held_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.held_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the bytes of a [`Body`] are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Memory(Bytes),
    /// In a local file, which does not change.
    File(PathBuf),
}

impl Body {
    /// A body in memory.
    pub fn memory(bytes: impl Into<Bytes>) -> Self {
        let content = bytes.into();
        Self { bytes: content.len() as u64, sha256: Digest::of(&content), content: Content::Memory(content), flow: Flow::default() }
    }

    /// A body in a file of `bytes` bytes with the digest `sha256`, which whoever reads it checks.
    pub fn file(path: PathBuf, bytes: u64, sha256: Digest) -> Self {
        Self { content: Content::File(path), bytes, sha256, flow: Flow::default() }
    }

    /// Opens it for reading; blocking.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match &self.content {
            Content::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Content::File(path) => Box::new(File::open(path)?),
        })
    }
}

/// The answer of an upstream.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, UpstreamError>>;

/// A place that takes cuts. Keys are relative, `/`-separated, and made of our own names alone.
pub trait Upstream: Send + Sync {
    /// Puts `body` under `key` if nothing is there. What is there is compared by digest, never replaced; it is looked at
    /// before anything is sent, so that a repetition costs a question and no body. When this returns a [`Put`], the bytes
    /// are durable, complete and equal to the digest; a reader never sees a part of them.
    fn put_new<'a>(&'a self, key: &'a str, body: Body) -> Answer<'a, Put>;

    /// The digest of what is stored under `key`, if anything is.
    fn find<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Digest>>;

    /// What is stored under `key`, if anything is; of at most `max_bytes`, more is [`UpstreamError::Permanent`].
    fn get<'a>(&'a self, key: &'a str, max_bytes: u64) -> Answer<'a, Option<Bytes>>;

    /// Cheaply: is there a way, and is the place ours?
    fn probe(&self) -> Answer<'_, ()>;

    /// Bytes of bodies handed to the line since the start, also those that were in vain.
    fn sent_bytes(&self) -> u64;

    /// Makes the place ready. The caller knows that nothing was ever delivered from here.
    fn establish(&self) -> Answer<'_, ()>;

    /// The place, for logs and status; without secrets.
    fn describe(&self) -> String;
}

/// The upstream that `settings` name: `file:///path` or a plain path, `s3://bucket/prefix`, `https://host/path`. It keeps to
/// the rate limit.
///
/// # Errors
/// [`UploadError::Config`].
pub fn open(settings: &config::Upstream) -> Result<Arc<dyn Upstream>, UploadError> {
    let pace = Arc::new(Pace::new(settings.rate_limit.0));
    Ok(match settings.url.split_once(':') {
        Some(("s3", _)) => Arc::new(Remote::s3(settings, pace)?),
        Some(("https" | "http", _)) => Arc::new(Remote::collector(settings, pace)?),
        _ => Arc::new(FileUpstream::new(local_path(&settings.url)?, pace)),
    })
}

/// The folder that `url` means.
pub(super) fn local_path(url: &str) -> Result<PathBuf, UploadError> {
    let config = |rule: &str| Err(UploadError::Config(format!("upstream \"{url}\": {rule}")));
    let path = match url.split_once(':') {
        Some(("file", rest)) => match rest.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(path) => path.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or_default(),
            None => rest,
        },
        Some((scheme, rest)) if rest.starts_with("//") => {
            return config(&format!("\"{scheme}:\" is none of file:///path, s3://bucket/prefix and https://host/path"));
        }
        _ => url,
    };
    if path.is_empty() { config("it names no folder; write it like file:///path") } else { Ok(PathBuf::from(path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_by_url_or_path() {
        for (url, path) in [
            ("file:///mnt/lake", "/mnt/lake"),
            ("file://localhost/mnt/lake", "/mnt/lake"),
            ("file:/mnt/lake", "/mnt/lake"),
            ("/mnt/lake", "/mnt/lake"),
            ("lake", "lake"),
            ("./a:b", "./a:b"),
        ] {
            assert_eq!(local_path(url).unwrap(), PathBuf::from(path), "{url}");
        }
    }

    #[test]
    fn what_is_no_folder_is_a_configuration_error_that_says_what_to_write() {
        for url in ["", "file:", "file://", "file://host/share", "ftp://host/x"] {
            let error = local_path(url).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Config);
            assert!(error.to_string().contains("file:///path"), "{error}");
        }
    }
}
