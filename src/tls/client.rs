//! Our side when we connect.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::{self, Identity};
use super::{HandshakeError, TlsError, fault, provider};
use crate::watched::Watched;

/// Whom to trust, and who we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Authorities; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate, with `key`.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl ClientFiles {
    /// Whether any is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn all(&self) -> Vec<PathBuf> {
        [&self.ca, &self.cert, &self.key].into_iter().flatten().cloned().collect()
    }
}

/// What `files` make of a connection of ours.
///
/// # Errors
/// All of [`TlsError`] but a wrong name.
pub fn client_config(files: &ClientFiles) -> Result<ClientConfig, TlsError> {
    let authorities = files::authorities(files.ca.as_deref())?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(authorities);
    Ok(match Identity::of(files.cert.as_deref(), files.key.as_deref())? {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.read()?))),
        None => builder.with_no_client_auth(),
    })
}

/// Speaks TLS to one host.
pub struct Connector {
    name: ServerName<'static>,
    config: Watched<ClientConfig>,
    trusted: String,
}

impl Connector {
    /// To `host`, whose certificate must be for that name. The files are looked at before every connection.
    ///
    /// # Errors
    /// All of [`TlsError`].
    pub fn new(files: &ClientFiles, host: &str) -> Result<Self, TlsError> {
        // An address of one link alone carries the link's name, and a certificate does not.
        let plain = host.split('%').next().unwrap_or(host);
        let name = ServerName::try_from(plain.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
        let trusted = match &files.ca {
            Some(ca) => format!("those in {}", ca.display()),
            None => "the system's".to_owned(),
        };
        let files = files.clone();
        let config = Watched::new(files.all(), Duration::ZERO, move || client_config(&files))?;
        Ok(Self { name, config, trusted })
    }

    /// Agrees on TLS over `stream`. The caller bounds the time.
    ///
    /// # Errors
    /// What the other side did, or what is wrong with its certificate.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<TlsStream<S>, HandshakeError> {
        let connector = TlsConnector::from(self.config.get());
        let agreed = connector.connect(self.name.clone(), stream).await;
        agreed.map_err(|error| HandshakeError(self.reason(&error)))
    }

    /// What went wrong on a stream of ours: a refusal of our certificate comes with the first answer only.
    pub fn fault(&self, error: &io::Error) -> Option<HandshakeError> {
        fault(error, &self.trusted).map(HandshakeError)
    }

    fn reason(&self, error: &io::Error) -> String {
        let reason = fault(error, &self.trusted).unwrap_or_else(|| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "it closed the connection instead of speaking TLS".to_owned(),
            _ => error.to_string(),
        });
        match self.config.fault() {
            Some(stale) => format!("{reason} (and a changed file can't be used: {stale})"),
            None => reason,
        }
    }
}
