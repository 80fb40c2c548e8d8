//! Our side when others connect.

use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::Validity;
use super::files::{self, Identity};
use super::{TlsError, fault, provider};
use crate::model::Timestamp;
use crate::refusals::Refusals;
use crate::watched::Watched;

/// For a whole handshake: a small sensor behind a poor mobile link takes some seconds.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often renewed files are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Who we are, and whom we let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    identity: Identity,
    client_ca: Option<PathBuf>,
}

impl ServerFiles {
    /// `None` without a certificate; with `client_ca` everybody must show one that it signed.
    ///
    /// # Errors
    /// [`TlsError::Half`].
    pub fn of(cert: Option<&Path>, key: Option<&Path>, client_ca: Option<&Path>) -> Result<Option<Self>, TlsError> {
        let identity = Identity::of(cert, key)?;
        Ok(identity.map(|identity| Self { identity, client_ca: client_ca.map(Path::to_owned) }))
    }

    fn all(&self) -> Vec<PathBuf> {
        [&self.identity.cert, &self.identity.key].into_iter().chain(&self.client_ca).cloned().collect()
    }

    fn load(&self, protocols: &[&str]) -> Result<Loaded, TlsError> {
        let own = self.identity.read()?;
        let validity = own.cert.first().and_then(|certificate| Validity::of(certificate));
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let authorities = Arc::new(files::authorities(Some(path))?);
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider()).build();
                let unusable = |error| TlsError::Content { path: path.clone(), fault: format!("it can't be used: {error}") };
                builder.with_client_cert_verifier(verifier.map_err(unusable)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Loaded { config: Arc::new(config), validity })
    }
}

struct Loaded {
    config: Arc<ServerConfig>,
    validity: Option<Validity>,
}

/// Agrees on TLS with those who come to one door.
pub struct Acceptor {
    cert: PathBuf,
    trusted: String,
    loaded: Watched<Loaded>,
    failed: Refusals,
    deadline: Duration,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// By `files`; `protocols` are those of ALPN. `failed` names in a log what failed, as in [`Refusals::new`].
    ///
    /// # Errors
    /// All of [`TlsError`] but a wrong name.
    pub fn new(files: ServerFiles, protocols: &'static [&'static str], failed: &'static str) -> Result<Self, TlsError> {
        let cert = files.identity.cert.clone();
        let trusted = files.client_ca.as_deref().map(|ca| format!("those in {}", ca.display())).unwrap_or_default();
        let loaded = Watched::new(files.all(), LOOK_EVERY, move || files.load(protocols))?;
        Ok(Self { cert, trusted, loaded, failed: Refusals::new(failed), deadline: HANDSHAKE })
    }

    /// The stream to talk on; `None` when nothing came of it, which is counted and told.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, peer: &(dyn Display + Sync)) -> Option<TlsStream<S>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.loaded.get().config));
        match tokio::time::timeout(self.deadline, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => self.failed.note(peer, &self.reason(&error)),
            Err(_) => self.failed.note(peer, &format!("nothing came of it in {}s", self.deadline.as_secs())),
        }
        None
    }

    fn reason(&self, error: &io::Error) -> String {
        fault(error, &self.trusted).unwrap_or_else(|| match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
            _ => error.to_string(),
        })
    }

    /// Handshakes that failed since the start.
    pub fn failures(&self) -> u64 {
        self.failed.count()
    }

    /// What a person should know of, at `now`.
    pub fn troubles(&self, now: Timestamp) -> Vec<String> {
        let loaded = self.loaded.get();
        let run_out = loaded.validity.and_then(|validity| validity.fault(now));
        let run_out = run_out.map(|fault| format!("the certificate in {} {fault}", self.cert.display()));
        let stale = self.loaded.fault().map(|fault| format!("a renewed certificate can't be used: {fault}"));
        run_out.into_iter().chain(stale).chain(self.failed.recent()).collect()
    }

    #[cfg(test)]
    pub(crate) fn hurry(&mut self, deadline: Duration) {
        self.deadline = deadline;
        self.loaded.hurry();
    }
}
