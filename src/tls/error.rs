//! What can be wrong with certificates and keys, and with a handshake.

use std::io;
use std::path::PathBuf;

use crate::error::ErrorKind;
use crate::secrets::SecretError;

/// TLS can't be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file with certificates can't be read.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file with a key can't be used.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// What is in a file can't be used.
    #[error("{}: {fault}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// Key and certificate do not belong together.
    #[error("the key in {} does not fit the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// One of a pair is set.
    #[error("a certificate needs its key and a key its certificate; only {} is set", .0.display())]
    Half(PathBuf),
    /// No certificate can be for this name.
    #[error("\"{0}\" is not a host name or address that a certificate can be for")]
    Name(String),
    /// The system trusts nobody.
    #[error("this system has no list of authorities; install ca-certificates, or set the file of the authority")]
    NoAuthorities,
    /// The library refuses.
    #[error("TLS can't be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Config
    }
}

/// A handshake that failed: what the other side did, or what is wrong with its certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandshakeError(pub(super) String);
