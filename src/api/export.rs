//! `GET /api/v1/export`: all readings of a selection as an Arrow stream, without the engine.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use utoipa::openapi::{RefOr, Response as Described};
use utoipa::{IntoParams, IntoResponses};

use super::params::{self, Moment, Params};
use super::query::INCOMPLETE;
use super::refusal::{Refusal, described};
use super::{Hall, body, reads};
use crate::model::{Timestamp, columns};
use crate::range::{Export, Ranges, Selection};

/// Pieces that wait for a slow client; each has some megabytes at most.
const PIECES: usize = 2;

/// How long a client may take nothing before its export ends: what it reads is kept from being evicted.
const STALL_TIME: Duration = Duration::from_secs(60);

/// Which readings.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Only this sensor's.
    #[param(value_type = Option<String>)]
    sensor: Option<Arc<str>>,
    /// Only this metric's.
    #[param(value_type = Option<String>)]
    metric: Option<Arc<str>>,
    /// The first moment that counts.
    #[param(inline)]
    from: Option<Moment>,
    /// The first moment that does not; after `from`.
    #[param(inline)]
    to: Option<Moment>,
}

/// Why there is no export now, for the description.
struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described([(StatusCode::TOO_MANY_REQUESTS, "Other exports are under way")])
    }
}

type Piece = io::Result<Frame<Bytes>>;

/// All readings of a selection: segments by their oldest time, then what is not sealed yet; without the engine.
///
/// Where a segment can't be read, the trailer `forebay-incomplete` says so at the end, or the answer ends early if the
/// request has no `TE: trailers`.
#[utoipa::path(get, path = "/api/v1/export", params(Asked), responses(
    (status = OK, body = inline(body::Binary), content_type = "application/vnd.apache.arrow.stream", description = "Their columns"),
    params::Refused,
    reads::Refused,
    Refused,
))]
pub(super) async fn export(State(hall): State<Arc<Hall>>, headers: HeaderMap, Params(asked): Params<Asked>) -> Result<Response, Refusal> {
    let moment = |asked: Option<Moment>, otherwise| asked.map_or(Timestamp(otherwise), |Moment(time)| time);
    let times = moment(asked.from, i64::MIN)..moment(asked.to, i64::MAX);
    if times.is_empty() {
        return Err(Refusal::invalid("the range is empty: from is not before to", "from is inclusive, to is exclusive"));
    }
    let seat = Arc::clone(&hall.exports).try_acquire_owned().map_err(|_| Refusal::busy("other exports are under way"))?;
    let ranges = Ranges::new(hall.rooms.ledger.clone(), hall.rooms.dir.clone());
    let selection = Selection { sensor: asked.sensor, metric: asked.metric, times };
    let export = hall.reads.block(move || Ok(ranges.export(selection)?)).await?;
    let trailers = headers.get(header::TE).is_some_and(|value| value.to_str().is_ok_and(|text| text.contains("trailers")));
    let (to, from) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let _seat = seat;
        send(export, &to, trailers);
    });
    let pieces = unfold(from, |mut from: mpsc::Receiver<Piece>| async move { Some((from.recv().await?, from)) });
    let kind = "application/vnd.apache.arrow.stream";
    Ok(([(header::CONTENT_TYPE, kind), (header::TRAILER, INCOMPLETE)], Body::new(StreamBody::new(pieces))).into_response())
}

/// Sends all of `export`. That it is incomplete is known at the end only: it is told in a trailer, or by cutting the
/// answer short where the client takes none.
fn send(mut export: Export, to: &mpsc::Sender<Piece>, trailers: bool) {
    let outcome = write(&mut export, to);
    let last = match outcome {
        Ok(()) if !export.is_incomplete() => return,
        Ok(()) if trailers => {
            Ok(Frame::trailers(HeaderMap::from_iter([(HeaderName::from_static(INCOMPLETE), HeaderValue::from_static("true"))])))
        }
        Ok(()) => Err(io::Error::other("the export is incomplete")),
        Err(error) => Err(io::Error::other(error)),
    };
    // Who is gone need not be told.
    let _ = hand_over(to, last);
}

fn write(export: &mut Export, to: &mpsc::Sender<Piece>) -> Result<(), ArrowError> {
    let gone = |error| ArrowError::IoError("sending an export".to_owned(), error);
    let mut stream = StreamWriter::try_new(Vec::new(), &columns::reading_schema())?;
    for batch in export {
        stream.write(&batch)?;
        hand_over(to, Ok(Frame::data(std::mem::take(stream.get_mut()).into()))).map_err(gone)?;
    }
    hand_over(to, Ok(Frame::data(stream.into_inner()?.into()))).map_err(gone)
}

/// Waits while the client is slow, but not for ever.
fn hand_over(to: &mpsc::Sender<Piece>, piece: Piece) -> io::Result<()> {
    let sent = tokio::runtime::Handle::current().block_on(timeout(STALL_TIME, to.send(piece)));
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
