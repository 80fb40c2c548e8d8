//! Who may come in: the token, as bearer or as the password of a basic login; and how many at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, header};
use axum::middleware::Next;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use futures::stream::{self, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::Token;
use crate::api::body::BODY_TIME;

/// The one call that brings the token instead of showing it.
const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// What a client that needs no token is given: it wants one to show.
const NO_TOKEN: &str = "none";

/// Calls that may wait for their answers to begin: what each sends is held in memory until then.
const MAX_CALLS: usize = 16;

/// How long a call waits for a place.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// What the door asks for.
pub(super) struct Guard {
    token: Option<Token>,
    places: Semaphore,
}

impl Guard {
    /// Asks for `token`, where there is one.
    pub fn new(token: Option<Token>) -> Self {
        Self { token, places: Semaphore::new(MAX_CALLS) }
    }

    fn admits(&self, request: &Request) -> bool {
        let is_known = |token: &Token| given(request.headers()).is_some_and(|given| token.is(&given));
        self.token.as_ref().is_none_or(is_known) || request.uri().path() == HANDSHAKE
    }
}

/// The middleware of the door.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response<Body> {
    if !guard.admits(&request) {
        return refusal().into_http();
    }
    match timeout(MAX_WAIT, guard.places.acquire()).await {
        Ok(Ok(_place)) => next.run(request.map(in_time)).await,
        _ => Status::resource_exhausted("other calls are under way; ask again in a moment").into_http(),
    }
}

/// A body that fails where it does not arrive in time.
fn in_time(body: Body) -> Body {
    let end = Instant::now() + BODY_TIME;
    Body::from_stream(stream::unfold(body.into_data_stream(), move |mut pieces| async move {
        let late = |_| Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))));
        let piece = timeout_at(end, pieces.next()).await.unwrap_or_else(late)?;
        Some((piece, pieces))
    }))
}

/// What a client that logs in shows from then on.
pub(super) fn log_in(token: Option<&Token>, metadata: &MetadataMap) -> Result<String, Status> {
    let given = given(metadata.as_ref());
    match (token, given) {
        (None, given) => Ok(given.unwrap_or_else(|| NO_TOKEN.to_owned())),
        (Some(token), Some(given)) if token.is(&given) => Ok(given),
        (Some(_), _) => Err(refusal()),
    }
}

fn refusal() -> Status {
    Status::unauthenticated("the token is missing or wrong; send that of api.token_file as bearer token, or as password of any user")
}

/// The token that `headers` bring.
fn given(headers: &HeaderMap) -> Option<String> {
    let (scheme, given) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(given.trim().to_owned());
    }
    // Go's driver leaves out what fills it up to four.
    let login = String::from_utf8(BASE64_STANDARD_NO_PAD.decode(given.trim().trim_end_matches('=')).ok()?).ok()?;
    scheme.eq_ignore_ascii_case("basic").then(|| login.split_once(':').map(|(_, password)| password.to_owned()))?
}
