//! The table of routes: the listing of what can be asked. Each is described by its handler.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::refusal::Refusal;
use super::{Hall, docs, export, flush, health, import, listing, query, range, readings};

/// All routes, with their description.
pub(super) fn table() -> OpenApiRouter<Arc<Hall>> {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::status))
        .routes(routes!(query::query))
        .routes(routes!(listing::series))
        .routes(routes!(listing::latest))
        .routes(routes!(range::range))
        .routes(routes!(export::export))
        .routes(routes!(import::known, import::import))
        .routes(routes!(listing::records))
        .routes(routes!(listing::segments))
        .routes(routes!(listing::losses))
        .routes(routes!(readings::readings))
        .routes(routes!(flush::flush))
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::page))
}

/// All routes, with what is answered elsewhere.
pub(super) fn routes(hall: Arc<Hall>) -> Router {
    let (router, _) = table().split_for_parts();
    router.fallback(not_found).method_not_allowed_fallback(not_allowed).with_state(hall)
}

/// The paths that take writes.
pub(super) fn writes() -> BTreeSet<String> {
    let paths = table().into_openapi().paths.paths;
    paths.into_iter().filter(|(_, item)| item.post.is_some()).map(|(path, _)| path).collect()
}

async fn not_found(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at {}", uri.path()), "GET /docs lists what there is")
}

async fn not_allowed(method: Method, uri: Uri) -> Refusal {
    let message = format!("{} does not take {method}", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message, "GET /docs lists what there is")
}
