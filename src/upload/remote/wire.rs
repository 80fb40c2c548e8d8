//! HTTP as the remote upstreams speak it: one client that follows no redirects and hurries no slow link, and replies of
//! which no more is read than is of use.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, Request, Response, StatusCode, Url, redirect, retry};
use sha2::{Digest as _, Sha256};

use super::outgoing::outgoing;
use crate::config;
use crate::error::explain;
use crate::model::Digest;
use crate::tls;
use crate::upload::UploadError;
use crate::upload::pace::Pace;
use crate::upload::upstream::{Body, UpstreamError};

/// Longest wait for a connection, TLS included.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// A connection on which nothing gets through for so long is dead. How long a put may take is the uploader's to say:
/// a total time here would end every large put on a slow link.
const SILENCE: Duration = Duration::from_secs(60);

/// Connections that rest longer are closed, before a router on the way forgets them.
const IDLE_TIME: Duration = Duration::from_secs(20);

/// Read of a refusal, and shown of it.
const EXCERPT_BYTES: usize = 4096;
const EXCERPT_CHARS: usize = 300;

/// What the client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Putting: only the caller knows how long that may take.
    Upload,
    /// Reading: what stops for [`SILENCE`] has failed. In a client that puts this would end every long put.
    Reading,
}

/// The client for `target`.
///
/// # Errors
/// [`UploadError::Config`]: a target that is refused, or authorities that can't be read.
pub fn client(settings: &config::Upstream, target: &Url, purpose: Use) -> Result<Client, UploadError> {
    let loopback = is_loopback(target);
    check(settings, target, loopback)?;
    tls::install_provider();
    let mut builder = Client::builder()
        .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIME)
        .tcp_keepalive(SILENCE / 2)
        .tcp_user_timeout(SILENCE)
        .pool_idle_timeout(IDLE_TIME);
    if purpose == Use::Reading {
        builder = builder.read_timeout(SILENCE);
    }
    if loopback {
        builder = builder.no_proxy();
    }
    if let Some(file) = &settings.ca_file {
        builder = builder.tls_certs_only(authorities(file)?);
    } else if target.scheme() == "http" {
        // A machine without any authorities can do without them here.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| UploadError::Config(format!("upstream \"{}\": {}", shown(target), explain(&error))))
}

fn check(settings: &config::Upstream, target: &Url, loopback: bool) -> Result<(), UploadError> {
    let problem = if !matches!(target.scheme(), "https" | "http") {
        "it must be https:"
    } else if target.scheme() == "http" && !loopback && !settings.allow_plain {
        "http: can be read on the way; use https:, or set upstream.allow_plain = true"
    } else if !target.username().is_empty() || target.password().is_some() {
        "secrets do not belong in a URL; name a file"
    } else if target.query().is_some() || target.fragment().is_some() || !target.has_host() {
        "it must be a host and a path alone"
    } else {
        ""
    };
    if problem.is_empty() { Ok(()) } else { Err(UploadError::Config(format!("upstream \"{}\": {problem}", shown(target)))) }
}

fn authorities(file: &Path) -> Result<Vec<Certificate>, UploadError> {
    let config = |why: String| UploadError::Config(format!("upstream.ca_file \"{}\": {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| config(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| config(explain(&error)))?;
    if found.is_empty() { Err(config("there is no certificate in it".to_owned())) } else { Ok(found) }
}

fn is_loopback(target: &Url) -> bool {
    let host = target.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// `target` without what may be secret in it.
fn shown(target: &Url) -> String {
    let mut shown = target.clone();
    // They fail for URLs that hold no such parts.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.to_string()
}

/// The connection to one server.
pub struct Wire {
    client: Client,
    pace: Arc<Pace>,
}

impl Wire {
    /// Requests by `client`; what they carry goes out at `pace`.
    pub fn new(client: Client, pace: Arc<Pace>) -> Self {
        Self { client, pace }
    }

    /// Sends a request without a body.
    pub async fn ask(&self, request: Request) -> Result<Reply, UpstreamError> {
        let answer = self.client.execute(request).await;
        answer.map(Reply::new).map_err(|error| UpstreamError::Transient(explain(&error.without_url())))
    }

    /// Sends `request` with `body`, which goes under `key`.
    pub async fn send(&self, mut request: Request, key: &str, body: &Body) -> Result<Reply, UpstreamError> {
        let source = |detail: String| UpstreamError::Source { key: key.to_owned(), detail };
        let (chunks, flaw) = outgoing(body, Arc::clone(&self.pace)).await.map_err(|error| source(error.to_string()))?;
        if body.bytes == 0 && body.sha256 != Digest::of(b"") {
            return Err(source(format!("it is empty, and its SHA-256 is not {}", body.sha256)));
        }
        *request.body_mut() = Some(reqwest::Body::wrap_stream(chunks));
        let answer = self.client.execute(request).await;
        if let Some(detail) = flaw.found() {
            return Err(source(detail));
        }
        answer.map(Reply::new).map_err(|error| {
            let surely_not_sent = error.is_connect() || error.is_builder();
            let text = explain(&error.without_url());
            if surely_not_sent { UpstreamError::Transient(text) } else { UpstreamError::Ambiguous(text) }
        })
    }
}

/// A reply, of which the head is read.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    response: Response,
}

impl Reply {
    fn new(response: Response) -> Self {
        Self { status: response.status(), headers: response.headers().clone(), response }
    }

    /// The text of header `name`; empty without it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The size that its head tells of.
    pub fn bytes_told(&self) -> Option<u64> {
        self.header("content-length").parse().ok()
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let silence = |_| UpstreamError::Transient(format!("its reply stopped for {SILENCE:?}"));
        let chunk = tokio::time::timeout(SILENCE, self.response.chunk()).await.map_err(silence)?;
        chunk.map_err(|error| UpstreamError::Transient(explain(&error.without_url())))
    }

    /// The beginning of what it says; empty where that can't be read.
    pub async fn excerpt(&mut self) -> String {
        let mut text = Vec::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            text.extend_from_slice(chunk.get(..EXCERPT_BYTES.min(chunk.len())).unwrap_or_default());
            if text.len() >= EXCERPT_BYTES {
                break;
            }
        }
        text.truncate(EXCERPT_BYTES);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// All of it, of at most `max` bytes; `None` where it is more.
    pub async fn bytes(mut self, max: u64) -> Result<Option<Bytes>, UpstreamError> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > max {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.freeze()))
    }

    /// The digest of all of it, of at most `max` bytes; `None` where it is more.
    pub async fn digest(mut self, max: u64) -> Result<Option<Digest>, UpstreamError> {
        let (mut sum, mut bytes) = (Sha256::new(), 0);
        while let Some(chunk) = self.chunk().await? {
            bytes += chunk.len() as u64;
            if bytes > max {
                return Ok(None);
            }
            sum.update(&chunk);
        }
        Ok(Some(Digest(sum.finalize().into())))
    }
}

/// `text` on one line, of a length that fits a log.
pub fn one_line(text: &str) -> String {
    let words: Vec<_> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(EXCERPT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, settings: &config::Upstream) -> String {
        client(settings, &url.parse().unwrap(), Use::Upload).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn plain_http_is_for_this_machine_or_has_to_be_asked_for() {
        let settings = config::Upstream::default();
        for url in ["http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]:9/"] {
            assert_eq!(refused(url, &settings), "");
        }
        assert!(refused("http://lake.example/x", &settings).contains("allow_plain"));
        assert_eq!(refused("http://lake.example/x", &config::Upstream { allow_plain: true, ..settings }), "");
    }

    #[test]
    fn a_secret_in_a_url_is_refused_and_not_shown() {
        for url in ["https://me:hidden@lake.example/x", "https://lake.example/x?token=hidden"] {
            let text = refused(url, &config::Upstream::default());
            assert!(!text.is_empty() && !text.contains("hidden"), "{text}");
        }
        assert!(refused("ftp://lake.example/x", &config::Upstream::default()).contains("https:"));
    }

    #[test]
    fn authorities_that_can_t_be_read_are_a_configuration_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let settings = config::Upstream { ca_file: Some(file.clone()), ..config::Upstream::default() };
        for content in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")] {
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            let text = refused("https://lake.example/", &settings);
            assert!(text.contains("ca.pem") || text.contains("certificate"), "{content:?}: {text}");
        }
    }

    #[test]
    fn what_a_server_says_fits_a_line() {
        assert_eq!(one_line("<html>\r\n\t<b>no\u{1b}[31m</b>"), "<html> <b>no [31m</b>");
        assert_eq!(one_line(&"x".repeat(9999)).len(), EXCERPT_CHARS);
    }
}
