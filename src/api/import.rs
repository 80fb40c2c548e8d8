//! `/api/v1/import`: rows of a file, piece by piece, each once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Response};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::params::{self, Params};
use super::refusal::{Refusal, described};
use super::{Hall, body, reads};
use crate::error::ErrorKind;
use crate::ingest::files::{ImportError, Piece, read_stream};
use crate::model::Digest;

/// Longest piece.
const MAX_BODY_BYTES: usize = 16 << 20;

/// For the commit: a card may stall for long.
const COMMIT_TIME: Duration = Duration::from_secs(60);

/// Which file.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct File {
    /// SHA-256 of the whole file.
    #[param(pattern = "^[0-9a-fA-F]{64}$")]
    file: String,
}

/// Which piece of which file.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Place {
    /// SHA-256 of the whole file.
    #[param(pattern = "^[0-9a-fA-F]{64}$")]
    file: String,
    /// Where in the file the first row of the piece stands, counted from 0: as many as are in.
    row: u64,
}

/// How much of a file is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    /// Rows from its beginning.
    pub rows: u64,
}

/// Why rows are not stored, for the description.
struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described([
            (StatusCode::CONFLICT, "Rows before these are missing; a GET says which comes next"),
            (StatusCode::TOO_MANY_REQUESTS, "Other imports are under way"),
        ])
    }
}

/// How much of a file is imported.
#[utoipa::path(get, path = "/api/v1/import", params(File), responses(
    (status = OK, body = Imported, description = "It may be none"),
    params::Refused,
    reads::Refused,
))]
pub(super) async fn known(State(hall): State<Arc<Hall>>, Params(asked): Params<File>) -> Result<Json<Imported>, Refusal> {
    let rows = hall.rooms.importer.known(digest(&asked.file)?).await?;
    Ok(Json(Imported { rows }))
}

/// Stores rows of a file, all of them or none, each once.
///
/// Answered with 200 only when they are durable. At most 65,536 rows with the columns of `readings`: time, sensor, metric and
/// value or text are needed.
#[utoipa::path(post, path = "/api/v1/import", params(Place), responses(
    (status = OK, body = Imported, description = "They are on disk"),
    params::Refused,
    body::Refused,
    reads::Refused,
    Refused,
), request_body(content = inline(body::Binary), content_type = "application/vnd.apache.arrow.stream", description = "The rows"))]
pub(super) async fn import(State(hall): State<Arc<Hall>>, Params(place): Params<Place>, body: Body) -> Result<Json<Imported>, Refusal> {
    let file = digest(&place.file)?;
    let _seat = Arc::clone(&hall.imports).try_acquire_owned().map_err(|_| Refusal::busy("other imports are under way"))?;
    let body = body::read(body, MAX_BODY_BYTES).await?;
    let read = tokio::task::spawn_blocking(move || read_stream(body)).await;
    let batches = read.map_err(|_| Refusal::invalid("the body is no Arrow stream", HINT))?.map_err(ImportError::from)?;
    let taken = hall.rooms.importer.take(Piece { file, first_row: place.row, batches });
    let rows = tokio::time::timeout(COMMIT_TIME, taken).await.map_err(|_| not_settled())??;
    Ok(Json(Imported { rows }))
}

const HINT: &str = "nothing of the request was stored; GET /docs shows the columns";

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|_| Refusal::invalid(format!("file={text} is no SHA-256"), "write 64 hexadecimal digits"))
}

fn not_settled() -> Refusal {
    let message = "the rows were handed in, but their commit did not come in time: it is not known whether they are stored";
    Refusal::unavailable("not_settled", message, "send the same request again")
}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Self {
        let message = error.to_string();
        match error {
            ImportError::Bad(_) => Self::invalid(message, HINT),
            ImportError::Gap { .. } => {
                Self::new(StatusCode::CONFLICT, "gap", message, "GET /api/v1/import?file=... says which row comes next")
            }
            ImportError::TooManySeries(_) => Self::unavailable("too_many_series", message, "raise ingest.max_series"),
            ImportError::NoSpace(_) => Self::unavailable("no_space", message, "send the same request again when space is back"),
            ImportError::Busy(_) => Self::unavailable("busy", message, "send the same request again"),
            ImportError::Ledger(error) if error.kind() == ErrorKind::Full => Self::unavailable("full", message, "make room on the disk"),
            ImportError::Ledger(error) => error.into(),
            ImportError::Panicked(_) => Self::internal(message),
        }
    }
}
