//! The description of all of it, from the handlers and their types: OpenAPI for programs, a page for people.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr};
use utoipa::{Modify, OpenApi as _};

use super::refusal::FaultBody;
use super::{Hall, guard, routes};

const PAGE: &str = include_str!("docs.html");

/// What is said of all routes together.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "forebay",
        description = "Keeps sensor readings safe on a gateway, answers SQL on the spot, and sends everything upstream as Parquet. \
                       The same on the Unix socket and on TCP; every error has the same shape.",
    ),
    components(schemas(FaultBody)),
    security(("token" = [])),
    modifiers(&Token)
)]
pub(super) struct Frame;

struct Token;

impl Modify for Token {
    fn modify(&self, described: &mut OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some("Asked for on TCP where api.token_file is set".to_owned());
        described.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The description as JSON: of each route what its handler says, and what the guard refuses before it.
pub(super) fn describe() -> String {
    let mut described = Frame::openapi().merge_from(routes::table().into_openapi());
    for item in described.paths.paths.values_mut() {
        item.get.iter_mut().for_each(|operation| add_guard(operation, false));
        item.post.iter_mut().for_each(|operation| add_guard(operation, true));
    }
    described.to_json().unwrap_or_default()
}

/// Where the handler refuses with the same status, both reasons are told.
fn add_guard(operation: &mut Operation, writes: bool) {
    for (status, guarded) in guard::refused(writes) {
        let RefOr::T(guarded) = guarded else { continue };
        match operation.responses.responses.get_mut(&status) {
            Some(RefOr::T(own)) => own.description = format!("{}; or {}", own.description, guarded.description),
            _ => drop(operation.responses.responses.insert(status, guarded.into())),
        }
    }
}

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", responses((status = OK, body = Object, description = "OpenAPI")))]
pub(super) async fn openapi(State(hall): State<Arc<Hall>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], hall.description.clone()).into_response()
}

/// This description as a page for people.
#[utoipa::path(get, path = "/docs", responses((status = OK, body = String, content_type = "text/html", description = "The page")))]
pub(super) async fn page() -> Html<&'static str> {
    Html(PAGE)
}
