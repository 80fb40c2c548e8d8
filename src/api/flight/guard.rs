//! Who may come in: the token, as bearer or as the password of a basic login.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, header};
use axum::middleware::Next;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::Token;

/// The one call that brings the token instead of showing it.
const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// What a client that needs no token is given: it wants one to show.
const NO_TOKEN: &str = "none";

/// The middleware of the door.
pub(super) async fn guard(State(token): State<Arc<Option<Token>>>, request: Request, next: Next) -> Response<Body> {
    let known = token.as_ref().as_ref().is_none_or(|token| given(request.headers()).is_some_and(|given| token.is(&given)));
    if known || request.uri().path() == HANDSHAKE { next.run(request).await } else { refusal().into_http() }
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
    let login = String::from_utf8(BASE64_STANDARD.decode(given.trim()).ok()?).ok()?;
    scheme.eq_ignore_ascii_case("basic").then(|| login.split_once(':').map(|(_, password)| password.to_owned()))?
}
