//! The handle: how the rest of the daemon asks, and how an answer comes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::codec::FramedRead;

use super::binding::Binding;
use super::error::QueryError;
use super::format::Format;
use super::frame::{FROM_ENGINE, FrameReader};
use super::limits::Limits;
use super::protocol::{Failure, Piece};
use super::state::{EngineState, Phase};
use crate::model::SegmentName;
use crate::segment::Verified;

/// Longest SQL text.
const MAX_SQL_BYTES: usize = 1 << 20;

/// How long a query may wait for a place: most queries are over by then, and a place is free a moment after its answer's end.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// How long after its limit a query may take to say that it was ended; then its engine is killed.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// What the answers of an engine that is not there say.
pub(super) const NO_ENGINE: &str = "this build has no engine; install the full package, or build with the feature `engine`";
pub(super) const SWITCHED_OFF: &str = "the engine is switched off (engine.enabled = false)";

/// A query on its way to the engine.
pub(super) struct Request {
    pub sql: String,
    pub binding: Binding,
    pub format: Format,
    pub max_rows: Option<u64>,
    pub deadline: Instant,
    /// Held until the engine says that the query has ended.
    pub permit: OwnedSemaphorePermit,
    /// Where the socket with the answer goes.
    pub reply: oneshot::Sender<UnixStream>,
}

/// Asks the engine. Cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    requests: mpsc::Sender<Request>,
    permits: Arc<Semaphore>,
    max_queries: usize,
    query_timeout: Duration,
    state: Arc<EngineState>,
    /// Where a segment that can't be read is doubted.
    verified: Verified,
    /// Why there is none.
    absent: Option<&'static str>,
}

impl EngineHandle {
    pub(super) fn new(
        limits: &Limits,
        state: Arc<EngineState>,
        verified: Verified,
        absent: Option<&'static str>,
    ) -> (Self, mpsc::Receiver<Request>) {
        let Limits { max_queries, query_timeout, .. } = *limits;
        // No more can be on their way than there are permits.
        let (requests, receiver) = mpsc::channel(max_queries);
        let permits = Arc::new(Semaphore::new(max_queries));
        (Self { requests, permits, max_queries, query_timeout, state, verified, absent }, receiver)
    }

    /// How the engine is.
    pub fn state(&self) -> &Arc<EngineState> {
        &self.state
    }

    /// Runs one SELECT over everything that was acknowledged before this call. `max_rows` cuts the answer off. Returns
    /// when the first bytes of the answer are there; dropping the answer ends the query.
    ///
    /// # Errors
    /// See [`QueryError`]. What goes wrong after the first bytes is the last item of the body.
    pub async fn query(&self, sql: String, format: Format, max_rows: Option<u64>) -> Result<Answer, QueryError> {
        self.query_bound(sql, Binding::default(), format, max_rows).await
    }

    /// The columns of the answer that `sql` would give, as an Arrow stream without rows, and how many `?` it has.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn describe(&self, sql: String, binding: Binding) -> Result<(Vec<u8>, usize), QueryError> {
        let mut answer = self.query_bound(sql, binding, Format::Arrow, Some(0)).await?;
        let mut columns = Vec::new();
        while let Some(piece) = answer.body.next().await {
            columns.extend_from_slice(&piece?);
        }
        Ok((columns, answer.body.parameters))
    }

    /// As [`Self::query`], of a statement with `?`.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn query_bound(&self, sql: String, binding: Binding, format: Format, max_rows: Option<u64>) -> Result<Answer, QueryError> {
        if let Some(why) = self.absent {
            return Err(QueryError::Off(why));
        }
        if sql.len() > MAX_SQL_BYTES {
            return Err(QueryError::Sql(format!("the SQL has {} bytes, {MAX_SQL_BYTES} at most", sql.len())));
        }
        if binding.bytes() > MAX_SQL_BYTES {
            return Err(QueryError::Sql(format!("the parameters have {} bytes, {MAX_SQL_BYTES} at most", binding.bytes())));
        }
        let busy = || QueryError::Busy { running: self.max_queries };
        let permit = timeout(MAX_WAIT, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| busy())?.map_err(|_| QueryError::NotReady)?;
        let limit = self.query_timeout;
        let deadline = Instant::now() + limit;
        let (reply, answer) = oneshot::channel();
        let request = Request { sql, binding, format, max_rows, deadline, permit, reply };
        self.requests.try_send(request).map_err(|refused| match refused {
            TrySendError::Full(_) => busy(),
            TrySendError::Closed(_) => QueryError::NotReady,
        })?;
        let Ok(Ok(socket)) = timeout_at(deadline, answer).await else {
            return Err(match (self.state.phase(), self.state.absence()) {
                (Phase::Ready, _) => QueryError::EngineGone,
                (_, Some(why)) => QueryError::Absent(why),
                (_, None) => QueryError::NotReady,
            });
        };
        let pieces = FramedRead::new(socket, FrameReader::new(FROM_ENGINE));
        let verified = self.verified.clone();
        let mut body = AnswerBody { pieces, first: None, limit, deadline, parameters: 0, verified, ended: false };
        // The engine ends a query at its limit, and its supervisor the engine; this is only for a supervisor that is gone.
        let first = timeout_at(deadline + 3 * GRACE, body.next()).await.map_err(|_| QueryError::TimedOut { limit })?;
        body.first = first.transpose()?;
        Ok(Answer { incomplete: !self.state.complete(), body })
    }
}

/// An answer on its way.
pub struct Answer {
    /// Whether there are segments that it does not cover, because they are not verified yet.
    pub incomplete: bool,
    /// Its bytes.
    pub body: AnswerBody,
}

impl Answer {
    /// All of it at once; for small answers.
    ///
    /// # Errors
    /// What ended it early.
    pub async fn bytes(mut self) -> Result<Vec<u8>, QueryError> {
        let mut all = Vec::new();
        while let Some(piece) = self.body.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }
}

/// The bytes of an answer; the last item may be an error. Dropping it ends the query.
pub struct AnswerBody {
    pieces: FramedRead<UnixStream, FrameReader<Piece>>,
    first: Option<Bytes>,
    limit: Duration,
    deadline: Instant,
    /// Known at its end.
    parameters: usize,
    verified: Verified,
    ended: bool,
}

impl AnswerBody {
    /// What the engine said. A segment that it could not read is out until its digest was checked again.
    fn failed(&self, failure: Failure) -> QueryError {
        let error = QueryError::from_failure(failure, self.limit);
        if let QueryError::Segment(message) = &error
            && let Some(name) = segment_in(message)
        {
            tracing::warn!(segment = %name, %error, "a segment is checked again");
            self.verified.doubt(&name);
        }
        error
    }

    /// What an end without a last word means.
    fn cut_short(&self) -> QueryError {
        if Instant::now() >= self.deadline { QueryError::TimedOut { limit: self.limit } } else { QueryError::EngineGone }
    }
}

impl Stream for AnswerBody {
    type Item = Result<Bytes, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let item = match ready!(self.pieces.poll_next_unpin(context)) {
            Some(Ok((Piece::Data, bytes))) => return Poll::Ready(Some(Ok(bytes))),
            Some(Ok((Piece::Done { parameters, .. }, _))) => {
                self.parameters = parameters;
                None
            }
            Some(Ok((Piece::Failed(failure), _))) => Some(Err(self.failed(failure))),
            Some(Err(_)) | None => Some(Err(self.cut_short())),
        };
        self.ended = true;
        Poll::Ready(item)
    }
}

/// The first name of a segment in a message.
fn segment_in(message: &str) -> Option<SegmentName> {
    message.split(|separator: char| separator.is_whitespace() || "\"'`()[],;:".contains(separator)).find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_found_in_what_is_said_of_it() {
        const NAME: &str = "readings/date=2026-11-20/00000000000000aa-0000000007.parquet";
        for (before, after) in [("IO Error: Cannot open file \"", "\": No such file"), ("File '", "' is no Parquet"), ("", "")] {
            assert_eq!(segment_in(&format!("{before}{NAME}{after}")), NAME.parse().ok());
        }
        assert_eq!(segment_in("IO Error: readings/date=2026-11-20/x.parquet, readings/a.parquet"), None);
    }
}
