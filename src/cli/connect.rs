//! The way to the daemon: HTTP over its Unix socket.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::CliError;
use crate::api::FaultBody;
use crate::config;

/// For the daemon to begin its answer, unless a command knows that it takes longer.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// For the daemon to make room and to commit, beyond the usual.
const IMPORT_PATIENCE: Duration = Duration::from_secs(60);

const JSON: &str = "application/json";
const ARROW: &str = "application/vnd.apache.arrow.stream";

/// Longest error answer that is read.
const MAX_FAULT_BYTES: usize = 64 << 10;

/// The daemon behind a socket.
#[derive(Debug, Clone)]
pub struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    /// The daemon at `flag`, else at `FOREBAY_SOCKET`, else where the configuration says.
    pub fn find(flag: Option<PathBuf>) -> Self {
        // A configuration that is wrong elsewhere is no reason not to ask a daemon that runs.
        Self::find_or(flag, || config::load(None).map_or_else(|_| config::Api::default().socket, |loaded| loaded.config.api.socket))
    }

    /// The same, with another place than the usual one for the configuration.
    pub fn find_or(flag: Option<PathBuf>, configured: impl FnOnce() -> PathBuf) -> Self {
        Self { socket: choose(flag, std::env::var_os("FOREBAY_SOCKET"), configured) }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for `path` and reads the JSON answer.
    ///
    /// # Errors
    /// The daemon can't be reached, refuses, or answers something else.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        json(self.ask(Method::GET, path, JSON, Bytes::new(), ANSWER_TIME).await?).await
    }

    /// Asks for `path`; the answer's body is read by the caller as it comes.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_stream(&self, path: &str) -> Result<Response<Incoming>, CliError> {
        self.ask(Method::GET, path, JSON, Bytes::new(), ANSWER_TIME).await
    }

    /// Sends the Arrow stream `body` to `path` and reads the JSON answer.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post_arrow<T: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<T, CliError> {
        json(self.ask(Method::POST, path, ARROW, body, ANSWER_TIME + IMPORT_PATIENCE).await?).await
    }

    /// Asks for `path` and gives the answer as it is written.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn text(&self, path: &str) -> Result<String, CliError> {
        let body = whole(self.ask(Method::GET, path, JSON, Bytes::new(), ANSWER_TIME).await?).await?;
        String::from_utf8(body.into()).map_err(|error| unreadable(&error))
    }

    /// Sends `body` to `path` and reads the JSON answer, which may take `patience` beyond the usual time.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize, patience: Duration) -> Result<T, CliError> {
        json(self.ask(Method::POST, path, JSON, encode(body)?, ANSWER_TIME + patience).await?).await
    }

    /// Sends `body` to `path`; the answer's body is read by the caller as it comes.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn stream(&self, path: &str, body: &impl Serialize) -> Result<Response<Incoming>, CliError> {
        self.ask(Method::POST, path, JSON, encode(body)?, ANSWER_TIME).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Response<Incoming>, CliError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let broken = |error: hyper::Error| CliError::failed(format!("the daemon at {} did not answer: {error}", self.socket.display()));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer's body; what goes wrong on it is seen there.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, content_type)
            // An answer may say at its end that something is missing in it.
            .header(header::TE, "trailers")
            .body(Full::new(body))
            .map_err(|error| CliError::failed(format!("the request for {path} can't be made: {error}")))?;
        let answer = tokio::time::timeout(patience, sender.send_request(request)).await;
        let late = |_| CliError::failed(format!("the daemon at {} did not answer within {} s", self.socket.display(), patience.as_secs()));
        let response = answer.map_err(late)?.map_err(broken)?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    fn unreachable(&self, error: &io::Error) -> CliError {
        let socket = self.socket.display();
        CliError::unreachable(match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("the socket {socket} may not be used by this user; add it to the group of the daemon")
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!("no daemon answers at {socket}; start it with \"forebay run\", or name its socket with --socket")
            }
            _ => format!("the daemon at {socket} can't be reached: {error}"),
        })
    }
}

fn choose(flag: Option<PathBuf>, environment: Option<OsString>, configured: impl FnOnce() -> PathBuf) -> PathBuf {
    let environment = environment.filter(|value| !value.is_empty()).map(PathBuf::from);
    flag.or(environment).unwrap_or_else(configured)
}

/// `text` as a value in a URI.
pub fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn encode(body: &impl Serialize) -> Result<Bytes, CliError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| CliError::failed(format!("the request can't be written: {error}")))
}

async fn json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, CliError> {
    serde_json::from_slice(&whole(response).await?).map_err(|error| unreadable(&error))
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, CliError> {
    Ok(response.into_body().collect().await.map_err(|error| unreadable(&error))?.to_bytes())
}

fn unreadable(error: &dyn std::fmt::Display) -> CliError {
    CliError::failed(format!("the daemon's answer can't be read: {error}"))
}

/// What the daemon says against the request, as one sentence.
async fn refusal(response: Response<Incoming>) -> CliError {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), MAX_FAULT_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    CliError::failed(match serde_json::from_slice::<FaultBody>(&body) {
        Ok(FaultBody { error }) if error.hint.is_empty() => error.message,
        // What points at a place in SQL has lines of its own.
        Ok(FaultBody { error }) if error.message.contains('\n') => format!("{}\n({})", error.message, error.hint),
        Ok(FaultBody { error }) => format!("{} ({})", error.message, error.hint),
        Err(_) => format!("the daemon answered {status}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::UNREACHABLE;

    #[test]
    fn the_flag_comes_before_the_environment_and_that_before_the_configuration() {
        let path = |text: &str| Some(PathBuf::from(text));
        let configured = || PathBuf::from("c");
        assert_eq!(choose(path("a"), Some("b".into()), configured), PathBuf::from("a"));
        assert_eq!(choose(None, Some("b".into()), configured), PathBuf::from("b"));
        assert_eq!(choose(None, Some("".into()), configured), PathBuf::from("c"));
        assert_eq!(choose(None, None, configured), PathBuf::from("c"));
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_told_with_its_socket_and_exit_code_69() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = Daemon::find(Some(folder.path().join("forebay.sock")));
        let error = daemon.get::<serde_json::Value>("/healthz").await.unwrap_err();
        assert_eq!(error.code(), UNREACHABLE);
        assert!(error.to_string().contains("forebay.sock"), "{error}");

        drop(std::os::unix::net::UnixListener::bind(folder.path().join("forebay.sock")).unwrap());
        assert_eq!(daemon.get::<serde_json::Value>("/healthz").await.unwrap_err().code(), UNREACHABLE);
    }
}
