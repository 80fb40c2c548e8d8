//! Rows as they come: from the engine's bytes to Flight's messages.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamDecoder;
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt as _, TryStreamExt as _};
use tonic::{Response, Status};

use super::statement::{Statement, internal};
use super::status;
use crate::api::query::{AnswerSql, INCOMPLETE};
use crate::engine::{Binding, Format, QueryError};

/// Messages of an answer.
pub(super) type Messages = BoxStream<'static, Result<FlightData, Status>>;

/// Answers `statement`. Dropping the answer ends the query.
pub(super) async fn answer(engine: &dyn AnswerSql, statement: Statement) -> Result<Response<Messages>, Status> {
    let Statement { sql, values } = statement;
    let rows = engine.answer(sql, Binding::Values(values), Format::Arrow, None).await.map_err(|error| status(&error))?;
    let mut batches = Batches { body: rows.body, decoder: StreamDecoder::new(), bytes: Buffer::from(Bytes::new()), ended: false };
    // The columns come first; an answer without rows has them too.
    let first = batches.next().await?;
    let columns = batches.columns().ok_or_else(|| Status::internal("the engine's answer has no columns"))?;
    let rest = stream::try_unfold(batches, |mut batches| async move { Ok(batches.next().await?.map(|batch| (batch, batches))) });
    let all = stream::iter(first.map(Ok)).chain(rest);
    let mut response = Response::new(messages(columns, all));
    if rows.incomplete {
        response.metadata_mut().insert(INCOMPLETE, "true".parse().map_err(|_| Status::internal("no metadata"))?);
    }
    Ok(response)
}

/// `batches` with `columns`, in messages that every client takes.
pub(super) fn messages(columns: SchemaRef, batches: impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static) -> Messages {
    let batches = batches.map_err(|status| FlightError::Tonic(Box::new(status)));
    FlightDataEncoderBuilder::new().with_schema(columns).build(batches).map_err(Status::from).boxed()
}

/// An Arrow stream that is being read.
struct Batches {
    body: BoxStream<'static, Result<bytes::Bytes, QueryError>>,
    decoder: StreamDecoder,
    /// Received and not decoded.
    bytes: Buffer,
    ended: bool,
}

impl Batches {
    fn columns(&self) -> Option<SchemaRef> {
        self.decoder.schema()
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, Status> {
        loop {
            if let Some(batch) = self.decoder.decode(&mut self.bytes).map_err(internal)? {
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.bytes = Buffer::from(bytes),
                Some(Err(error)) => return Err(status(&error)),
                None => {
                    self.ended = true;
                    self.decoder.finish().map_err(internal)?;
                }
            }
        }
    }
}
