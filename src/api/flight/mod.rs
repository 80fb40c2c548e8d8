//! Flight SQL: the door of ADBC, JDBC and Grafana's plugin.
//!
//! Owns: handles and tickets, which carry their statement, so that they outlive an engine; how an answer is cut into
//! messages. Does not own: the engine, its limits (which hold here as on HTTP), the connections.
//! Invariants: nothing but a handshake is answered without the token, where there is one; an answer has one endpoint
//! without a location, so that a client asks where it asked before.
//! On failure: a call that fails costs that call alone.
//!
//! `service` is what Flight SQL asks for, `door` what Flight asks for beside it; `statement` is what a handle carries,
//! `answer` brings rows, `catalog` tells of tables, `params` reads parameters, `guard` asks for the token.

mod answer;
mod catalog;
mod door;
mod guard;
mod params;
mod service;
mod statement;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use axum::Router;
use tonic::Status;
use tonic::service::Routes;

use super::guard::Token;
use super::query::AnswerSql;
use crate::engine::QueryError;
use crate::error::ErrorKind;
use door::Door;
use guard::Guard;
use service::Sql;

/// Longest message that is taken: SQL with its parameters.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// What is answered here, for those who bring `token`.
pub(super) fn router(engine: Arc<dyn AnswerSql>, token: Option<Token>) -> Router {
    let service = FlightServiceServer::new(Door::new(Sql::new(engine, token.clone()))).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let routes = Routes::new(service).into_axum_router();
    routes.layer(axum::middleware::from_fn_with_state(Arc::new(Guard::new(token)), guard::guard))
}

/// A query that failed, as gRPC says it.
fn status(error: &QueryError) -> Status {
    let message = error.to_string();
    match error {
        QueryError::Denied(_) => Status::permission_denied(message),
        QueryError::TimedOut { .. } => Status::deadline_exceeded(message),
        QueryError::Memory(_) | QueryError::TooLong(_) | QueryError::Busy { .. } => Status::resource_exhausted(message),
        // What is damaged is set aside: the next answer is without it.
        QueryError::Segment(_) => Status::unavailable(message),
        _ => match error.kind() {
            ErrorKind::Invalid => Status::invalid_argument(message),
            ErrorKind::Transient => Status::unavailable(message),
            ErrorKind::Config => Status::failed_precondition(message),
            _ => Status::internal(message),
        },
    }
}
