//! `GET /api/v1/export`: all readings of a selection as an Arrow stream, without the engine.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Hall;
use super::params::{Params, time};
use super::query::INCOMPLETE;
use super::refusal::Refusal;
use crate::model::{Timestamp, columns};
use crate::range::{Export, Ranges, Selection};

/// Pieces that wait for a slow client; each has some megabytes at most.
const PIECES: usize = 2;

/// How long a client may take nothing before its export ends: what it reads is kept from being evicted.
const STALL_TIME: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    sensor: Option<Arc<str>>,
    metric: Option<Arc<str>>,
    from: Option<String>,
    to: Option<String>,
}

type Piece = io::Result<Frame<Bytes>>;

pub(super) async fn export(State(hall): State<Arc<Hall>>, headers: HeaderMap, Params(asked): Params<Asked>) -> Result<Response, Refusal> {
    let (from, to) = (time("from", asked.from.as_deref())?, time("to", asked.to.as_deref())?);
    let times = from.unwrap_or(Timestamp(i64::MIN))..to.unwrap_or(Timestamp(i64::MAX));
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
