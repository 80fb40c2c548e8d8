//! Who may come in by TCP: the Host header (against rebound names), the token, the content type of writes (against
//! forms on other people's pages). The Unix socket is guarded by its permissions alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use utoipa::openapi::{RefOr, Response as Described};

use super::error::ApiError;
use super::refusal::{Refusal, described};
use crate::error::explain;
use crate::model::Digest;
use crate::secrets::{self, SecretError};

/// The token that requests must bring; only its digest is kept.
#[derive(Clone)]
pub struct Token(Digest);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Token {
    /// Reads the file; whitespace around the token does not count.
    pub(super) fn read(path: &Path) -> Result<Self, ApiError> {
        let wrong = |fault: &dyn std::error::Error| ApiError::Config(format!("api.token_file: {}", explain(fault)));
        let secret = secrets::read(path).map_err(|error| wrong(&error))?;
        match secret.reveal().trim() {
            "" => Err(wrong(&SecretError::Empty(path.to_owned()))),
            token => Ok(Self(Digest::of(token.as_bytes()))),
        }
    }

    /// Compares digests, all bytes of them, so that the time taken tells nothing of the token.
    pub(super) fn is(&self, given: &str) -> bool {
        let given = Digest::of(given.trim().as_bytes());
        self.0.0.iter().zip(given.0).fold(0, |difference, (own, other)| difference | (own ^ other)) == 0
    }
}

/// What one TCP door asks for.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    bound: IpAddr,
    host_name: String,
    token: Option<Token>,
    /// The paths that take writes. Elsewhere a write is told that there is no such thing, whatever its type.
    writes: BTreeSet<String>,
}

impl Guard {
    pub(super) fn new(bound: IpAddr, token: Option<Token>, writes: BTreeSet<String>) -> Self {
        let host_name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        Self { bound, host_name, token, writes }
    }

    /// `host` as in a Host header: a name or an address, with or without a port.
    fn knows(&self, host: &str) -> bool {
        let name = without_port(host).to_lowercase();
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // An address can't be rebound, and where we listen on all of them, any may be ours.
            Ok(address) => address.is_loopback() || address == self.bound || self.bound.is_unspecified(),
            Err(_) if name == "localhost" => true,
            // Off loopback there is a token, which a rebound name does not have.
            Err(_) => !self.bound.is_loopback() && (name == self.host_name || name.strip_suffix(".local") == Some(&self.host_name)),
        }
    }

    fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        if !self.knows(host) {
            let message = format!("the Host header \"{host}\" is not this gateway");
            return Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", message, "ask by address, or by localhost"));
        }
        if let Some(token) = &self.token {
            let given = text(header::AUTHORIZATION)
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            if !given.is_some_and(|(_, given)| token.is(given)) {
                let hint = "send the token of api.token_file as \"Authorization: Bearer ...\"";
                return Err(Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", "the token is missing or wrong", hint));
            }
        }
        if *method == Method::POST && self.writes.contains(path) && !text(header::CONTENT_TYPE).is_some_and(is_own_type) {
            let hint = "send \"Content-Type: application/json\" (or application/x-ndjson for JSON lines)";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", "a write needs a content type of its own", hint));
        }
        Ok(())
    }
}

/// What a guard refuses, for the description; more of a request that writes.
pub(super) fn refused(writes: bool) -> BTreeMap<String, RefOr<Described>> {
    let mut refused = described([
        (StatusCode::UNAUTHORIZED, "The token is missing or wrong"),
        (StatusCode::FORBIDDEN, "The Host header is not this gateway"),
    ]);
    if writes {
        refused.extend(described([(StatusCode::UNSUPPORTED_MEDIA_TYPE, "A write needs a content type of its own")]));
    }
    refused
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Within brackets, a colon is part of an IPv6 address.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    }
}

/// Types that a form can't send.
fn is_own_type(value: &str) -> bool {
    let plain = value.split(';').next().unwrap_or_default().trim();
    const OWN: [&str; 4] = ["application/json", "application/x-ndjson", "application/jsonl", "application/vnd.apache.arrow.stream"];
    OWN.iter().any(|own| plain.eq_ignore_ascii_case(own))
}

/// The middleware of a TCP door.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Result<Response, Refusal> {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    guard.check(request.method(), path, request.headers())?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard_on(address: &str) -> Guard {
        Guard { bound: address.parse().unwrap(), host_name: "gw-1".to_owned(), token: None, writes: BTreeSet::new() }
    }

    #[test]
    fn on_loopback_only_loopback_names_are_known() {
        let guard = guard_on("127.0.0.1");
        for host in ["localhost", "localhost:8480", "127.0.0.1:8480", "127.0.0.1", "[::1]:8480", "LOCALHOST"] {
            assert!(guard.knows(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example", "gw-1", "10.0.0.1:8480", "127.0.0.1.evil.example:80"] {
            assert!(!guard.knows(host), "{host}");
        }
    }

    #[test]
    fn off_loopback_the_bound_address_and_the_own_name_are_known_too() {
        assert!(guard_on("10.0.0.1").knows("10.0.0.1:8480") && !guard_on("10.0.0.1").knows("10.0.0.2"));
        for host in ["10.0.0.2", "gw-1:8480", "gw-1.local", "localhost"] {
            assert!(guard_on("0.0.0.0").knows(host), "{host}");
        }
        assert!(!guard_on("0.0.0.0").knows("evil.example"));
        assert!(guard_on("::").knows("[fd00::1]:8480"));
    }

    #[test]
    fn a_write_needs_a_type_that_no_form_sends() {
        for own in ["application/json", "application/json; charset=utf-8", "Application/X-NDJSON"] {
            assert!(is_own_type(own), "{own}");
        }
        for foreign in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"] {
            assert!(!is_own_type(foreign), "{foreign}");
        }
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token = Token(Digest::of(b"secret"));
        assert!(token.is("secret") && token.is(" secret "));
        assert!(!token.is("secre") && !token.is("") && !token.is("Secret"));
    }
}
