//! What Flight SQL asks for, call by call.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandStatementQuery, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{Action, ActionType, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, Ticket};
use futures::stream::{self, BoxStream, StreamExt as _};
use prost::Message;
use prost::bytes::Bytes;
use tonic::{Request, Response, Status, Streaming};

use super::answer::{Messages, answer, messages};
use super::statement::{Statement, info};
use super::{Token, catalog, guard, params};
use crate::api::query::AnswerSql;

/// What a client does when it leaves.
const CLOSE_SESSION: &str = "CloseSession";

/// `CloseSessionResult` with the status "closed".
const CLOSED: [u8; 2] = [8, 1];

/// Answers to commands.
pub(super) struct Sql {
    engine: Arc<dyn AnswerSql>,
    token: Option<Token>,
}

impl Sql {
    /// Asks `engine`.
    pub fn new(engine: Arc<dyn AnswerSql>, token: Option<Token>) -> Self {
        Self { engine, token }
    }
}

/// Rows that are there at once.
fn at_once(batch: RecordBatch) -> Response<Messages> {
    Response::new(messages(batch.schema(), stream::iter([Ok(batch)])))
}

/// A command whose answer needs no engine to be told: its own bytes are the ticket.
fn info_of(columns: &Schema, command: &impl ProstMessageExt, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
    info(columns, command.as_any().encode_to_vec(), request.into_inner()).map(Response::new)
}

fn sql_info() -> Result<&'static SqlInfoData, Status> {
    catalog::SQL_INFO.as_ref().map_err(Status::internal)
}

fn types() -> Result<&'static XdbcTypeInfoData, Status> {
    catalog::TYPES.as_ref().map_err(Status::internal)
}

fn no_transaction(transaction: Option<&Bytes>) -> Result<(), Status> {
    match transaction {
        Some(id) if !id.is_empty() => Err(Status::invalid_argument("there are no transactions here: a query sees one moment")),
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl FlightSqlService for Sql {
    type FlightService = super::Door;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<BoxStream<'static, Result<HandshakeResponse, Status>>>, Status> {
        let token = guard::log_in(self.token.as_ref(), request.metadata())?;
        let payload = HandshakeResponse { protocol_version: 0, payload: Bytes::from(token.clone()) };
        let mut response = Response::new(stream::iter([Ok(payload)]).boxed());
        let bearer = format!("Bearer {token}").parse().map_err(|_| Status::invalid_argument("the token is no text for a header"))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        no_transaction(query.transaction_id.as_ref())?;
        Ok(Response::new(Statement::of(query.query).info(&*self.engine, request.into_inner()).await?))
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = Statement::from_handle(&query.prepared_statement_handle)?;
        Ok(Response::new(statement.info(&*self.engine, request.into_inner()).await?))
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, _: Request<Ticket>) -> Result<Response<Messages>, Status> {
        answer(&*self.engine, Statement::from_handle(&ticket.statement_handle)?).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        _: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        answer(&*self.engine, Statement::from_handle(&query.prepared_statement_handle)?).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        no_transaction(query.transaction_id.as_ref())?;
        Statement::of(query.query).prepare(&*self.engine).await
    }

    /// The handle that is given back carries the values, too.
    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let Statement { sql, .. } = Statement::from_handle(&query.prepared_statement_handle)?;
        let values = params::read(request.into_inner()).await?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(Statement { sql, values }.handle()?) })
    }

    /// Nothing was remembered.
    async fn do_action_close_prepared_statement(&self, _: ActionClosePreparedStatementRequest, _: Request<Action>) -> Result<(), Status> {
        Ok(())
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let close = ActionType { r#type: CLOSE_SESSION.to_owned(), description: "Ends a session; there is none to end.".to_owned() };
        Some(vec![Ok(close)])
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<BoxStream<'static, Result<arrow_flight::Result, Status>>>, Status> {
        match request.get_ref().r#type.as_str() {
            CLOSE_SESSION => Ok(Response::new(stream::iter([Ok(arrow_flight::Result::new(CLOSED.to_vec()))]).boxed())),
            other => Err(Status::unimplemented(format!("there is no action {other}"))),
        }
    }

    async fn get_flight_info_catalogs(
        &self,
        command: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&command.into_builder().schema(), &command, request)
    }

    async fn get_flight_info_schemas(
        &self,
        command: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&command.clone().into_builder().schema(), &command, request)
    }

    async fn get_flight_info_tables(
        &self,
        command: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&command.clone().into_builder().schema(), &command, request)
    }

    async fn get_flight_info_table_types(
        &self,
        command: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&command.into_builder().schema(), &command, request)
    }

    async fn get_flight_info_sql_info(
        &self,
        command: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let columns: SchemaRef = sql_info()?.schema();
        info_of(&columns, &command, request)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        command: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&types()?.schema(), &command, request)
    }

    async fn do_get_catalogs(&self, command: CommandGetCatalogs, _: Request<Ticket>) -> Result<Response<Messages>, Status> {
        catalog::catalogs(command).map(at_once)
    }

    async fn do_get_schemas(&self, command: CommandGetDbSchemas, _: Request<Ticket>) -> Result<Response<Messages>, Status> {
        catalog::schemas(command).map(at_once)
    }

    async fn do_get_tables(&self, command: CommandGetTables, _: Request<Ticket>) -> Result<Response<Messages>, Status> {
        catalog::tables(&*self.engine, command).await.map(at_once)
    }

    async fn do_get_table_types(&self, command: CommandGetTableTypes, _: Request<Ticket>) -> Result<Response<Messages>, Status> {
        catalog::table_types(command).map(at_once)
    }

    async fn do_get_sql_info(&self, command: CommandGetSqlInfo, _: Request<Ticket>) -> Result<Response<Messages>, Status> {
        command.into_builder(sql_info()?).build().map(at_once).map_err(catalog::failed)
    }

    async fn do_get_xdbc_type_info(&self, command: CommandGetXdbcTypeInfo, _: Request<Ticket>) -> Result<Response<Messages>, Status> {
        command.into_builder(types()?).build().map(at_once).map_err(catalog::failed)
    }

    async fn do_get_fallback(&self, _: Request<Ticket>, message: Any) -> Result<Response<Messages>, Status> {
        Err(Status::unimplemented(format!("there is nothing to get with {}", message.type_url)))
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}
