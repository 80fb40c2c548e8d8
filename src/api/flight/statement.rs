//! What a handle or a ticket carries: the statement and its values, so that nothing need be remembered.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{ActionCreatePreparedStatementResult, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use prost::Message;
use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};
use tonic::Status;

use super::status;
use crate::api::query::AnswerSql;
use crate::engine::{Binding, Param};

/// A statement with the values of its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Statement {
    pub sql: String,
    /// Of its `?`; none before they are bound.
    pub values: Vec<Param>,
}

impl Statement {
    /// One without values.
    pub fn of(sql: String) -> Self {
        Self { sql, values: Vec::new() }
    }

    /// Reads what [`Self::handle`] wrote.
    pub fn from_handle(handle: &[u8]) -> Result<Self, Status> {
        serde_json::from_slice(handle).map_err(|_| Status::invalid_argument("the handle is none of this gateway's"))
    }

    /// As a handle.
    pub fn handle(&self) -> Result<Bytes, Status> {
        serde_json::to_vec(self).map(Bytes::from).map_err(|error| Status::internal(error.to_string()))
    }

    /// Where its answer is, and what it will be.
    pub async fn info(&self, engine: &dyn AnswerSql, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        let (columns, _) = describe(engine, &self.sql, Binding::Values(self.values.clone())).await?;
        let ticket = TicketStatementQuery { statement_handle: self.handle()? };
        info(&columns, ticket.as_any().encode_to_vec(), descriptor)
    }

    /// As a prepared statement: its columns, as far as they are known without values, and its parameters.
    pub async fn prepare(&self, engine: &dyn AnswerSql) -> Result<ActionCreatePreparedStatementResult, Status> {
        let (columns, parameters) = describe(engine, &self.sql, Binding::Unknown).await?;
        // Whatever is bound is cast to what the place needs; of text that always makes sense.
        let parameters = Schema::new((1..=parameters).map(|place| Field::new(place.to_string(), DataType::Utf8, true)).collect::<Vec<_>>());
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: self.handle()?,
            dataset_schema: message_of(&columns)?,
            parameter_schema: message_of(&parameters)?,
        })
    }
}

/// The columns of the answer to `sql`, and how many parameters it has.
pub(super) async fn describe(engine: &dyn AnswerSql, sql: &str, binding: Binding) -> Result<(SchemaRef, usize), Status> {
    let (stream, parameters) = engine.describe(sql.to_owned(), binding).await.map_err(|error| status(&error))?;
    let reader = StreamReader::try_new(stream.as_slice(), None).map_err(internal)?;
    Ok((reader.schema(), parameters))
}

/// An answer with `columns` that `ticket` brings: one endpoint, at the place that was asked.
pub(super) fn info(columns: &Schema, ticket: Vec<u8>, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new().try_with_schema(columns).map_err(internal)?;
    Ok(info.with_descriptor(descriptor).with_endpoint(endpoint))
}

fn message_of(columns: &Schema) -> Result<Bytes, Status> {
    let IpcMessage(message) = SchemaAsIpc::new(columns, &IpcWriteOptions::default()).try_into().map_err(internal)?;
    Ok(message)
}

pub(super) fn internal(error: ArrowError) -> Status {
    Status::internal(error.to_string())
}
