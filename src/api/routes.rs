//! The table of routes: the listing of what can be asked.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};

use super::refusal::Refusal;
use super::{Hall, docs, export, flush, health, import, listing, query, range, readings};

/// Paths and the methods they take, for the table below and for the description.
#[cfg(test)]
pub(super) const PATHS: [(&str, &str); 17] = [
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/api/v1/status"),
    ("post", "/api/v1/query"),
    ("get", "/api/v1/series"),
    ("get", "/api/v1/latest"),
    ("get", "/api/v1/range"),
    ("get", "/api/v1/export"),
    ("get", "/api/v1/import"),
    ("post", "/api/v1/import"),
    ("get", "/api/v1/records"),
    ("get", "/api/v1/segments"),
    ("get", "/api/v1/losses"),
    ("post", "/api/v1/readings"),
    ("post", "/api/v1/flush"),
    ("get", "/api/v1/openapi.json"),
];

/// All routes, with what is answered elsewhere.
pub(super) fn routes(hall: Arc<Hall>) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/status", get(health::status))
        .route("/api/v1/query", post(query::query))
        .route("/api/v1/series", get(listing::series))
        .route("/api/v1/latest", get(listing::latest))
        .route("/api/v1/range", get(range::range))
        .route("/api/v1/export", get(export::export))
        .route("/api/v1/import", get(import::known).post(import::import))
        .route("/api/v1/records", get(listing::records))
        .route("/api/v1/segments", get(listing::segments))
        .route("/api/v1/losses", get(listing::losses))
        .route("/api/v1/readings", post(readings::readings))
        .route("/api/v1/flush", post(flush::flush))
        .route("/api/v1/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::page))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(hall)
}

async fn not_found(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at {}", uri.path()), "GET /docs lists what there is")
}

async fn not_allowed(method: Method, uri: Uri) -> Refusal {
    let message = format!("{} does not take {method}", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message, "GET /docs lists what there is")
}
