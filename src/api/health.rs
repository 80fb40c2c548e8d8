//! `/healthz`, `/readyz`, `/metrics` and `/api/v1/status`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::refusal::Refusal;
use super::{Hall, reads};
use crate::status::{self, Reason, Status};

/// Whether something is as it should be.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok`, `ready` or `failing`.
    status: &'static str,
    /// Why not; empty if it is.
    reasons: Vec<Reason>,
}

fn health(word: &'static str, reasons: Vec<Reason>) -> Response {
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let status = if reasons.is_empty() { word } else { "failing" };
    (code, Json(Health { status, reasons })).into_response()
}

fn vital(hall: &Hall) -> (status::Now, Vec<Reason>) {
    let now = hall.rooms.sources.now();
    let reasons = status::vital(&now, hall.rooms.sources.stalled(&now));
    (now, reasons)
}

/// Whether what comes in gets committed.
#[utoipa::path(get, path = "/healthz", responses(
    (status = OK, body = Health, description = "It does"),
    (status = SERVICE_UNAVAILABLE, body = Health, description = "It does not; the reasons are in the body"),
))]
pub(super) async fn healthz(State(hall): State<Arc<Hall>>) -> Response {
    health("ok", vital(&hall).1)
}

/// Whether it is the time to send something.
#[utoipa::path(get, path = "/readyz", responses(
    (status = OK, body = Health, description = "It is"),
    (status = SERVICE_UNAVAILABLE, body = Health, description = "It is not; the reasons are in the body"),
))]
pub(super) async fn readyz(State(hall): State<Arc<Hall>>) -> Response {
    let (now, mut reasons) = vital(&hall);
    if !now.ready {
        reasons.push(Reason::failing("not_ready", "the sources are not open: the daemon is starting or stopping"));
    }
    health("ready", reasons)
}

async fn report(hall: &Hall) -> Result<Status, Refusal> {
    let sources = Arc::clone(&hall.rooms.sources);
    hall.reads.block(move || Ok(status::report(&sources)?)).await
}

/// What the daemon does: state, ingest, buffer, link, books, engine.
#[utoipa::path(get, path = "/api/v1/status", responses((status = OK, body = Status, description = "All of one moment"), reads::Refused))]
pub(super) async fn status(State(hall): State<Arc<Hall>>) -> Result<Json<Status>, Refusal> {
    Ok(Json(report(&hall).await?))
}

/// The status as metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", responses(
    (status = OK, body = String, content_type = "text/plain", description = "Prometheus text"),
    reads::Refused,
))]
pub(super) async fn metrics(State(hall): State<Arc<Hall>>) -> Result<Response, Refusal> {
    let status = report(&hall).await?;
    let text = status::metrics::render(&status);
    Ok(([(header::CONTENT_TYPE, status::metrics::CONTENT_TYPE)], text).into_response())
}
