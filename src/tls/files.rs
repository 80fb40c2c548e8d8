//! Certificates and keys in files, in PEM.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{TlsError, provider};
use crate::disk;
use crate::secrets;

/// Longest file with certificates; a system's list of authorities has a quarter of it.
const MAX_BYTES: u64 = 1 << 20;

/// Longest file with a key.
const MAX_KEY_BYTES: u64 = 64 << 10;

/// A certificate (with those between it and its authority) and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain's file, its own certificate first.
    pub cert: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

impl Identity {
    /// Of two files, both or none of which are set.
    pub fn of(cert: Option<&Path>, key: Option<&Path>) -> Result<Option<Self>, TlsError> {
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Some(Self { cert: cert.to_owned(), key: key.to_owned() })),
            (None, None) => Ok(None),
            (Some(only), None) | (None, Some(only)) => Err(TlsError::Half(only.to_owned())),
        }
    }

    /// Reads both.
    pub fn read(&self) -> Result<CertifiedKey, TlsError> {
        let (chain, key) = (certificates(&self.cert)?, key(&self.key)?);
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { key: self.key.clone(), cert: self.cert.clone() },
            rustls::Error::InvalidCertificate(error) => content(&self.cert, format!("the certificate can't be used: {error:?}")),
            _ => content(&self.key, "the key can't be used; RSA, ECDSA (P-256, P-384) and Ed25519 keys can"),
        })
    }
}

fn content(path: &Path, fault: impl Into<String>) -> TlsError {
    TlsError::Content { path: path.to_owned(), fault: fault.into() }
}

/// The certificates in the file at `path`: at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = disk::read_at_most(path, MAX_BYTES).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(content(path, "there is no certificate in it (PEM, \"BEGIN CERTIFICATE\")")),
        Ok(found) => Ok(found),
        // Never the error itself: whoever swapped the files would find a key in it.
        Err(_) => Err(content(path, "the certificate in it is damaged (PEM)")),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = secrets::read_private(path, MAX_KEY_BYTES)?;
    let is_encrypted = bytes.windows(9).any(|word| word == b"ENCRYPTED");
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| match is_encrypted {
        true => content(path, "the key in it is encrypted, and nobody is there to be asked; decrypt it: openssl pkey -in IN -out OUT"),
        false => content(path, "there is no key in it (PEM, \"BEGIN PRIVATE KEY\")"),
    })
}

/// The authorities in the file at `path`, or the system's.
pub fn authorities(path: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut authorities = RootCertStore::empty();
    let Some(path) = path else {
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if authorities.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(authorities) };
    };
    for certificate in certificates(path)? {
        let added = authorities.add(certificate);
        added.map_err(|error| content(path, format!("a certificate in it is no authority's: {error}")))?;
    }
    Ok(authorities)
}
