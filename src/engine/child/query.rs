//! A query: judged, nested, run in a read-only transaction on a thread of its own.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use arrow::error::ArrowError;
use duckdb::types::{TimeUnit, Value};
use duckdb::{Connection, params_from_iter};

use super::SqlLayer;
use super::control::Events;
use super::database::Database;
use super::guard::Guard;
use crate::config::ByteSize;
use crate::engine::binding::{Binding, Param};
use crate::engine::format::AnswerWriter;
use crate::engine::frame::head_of;
use crate::engine::gate;
use crate::engine::protocol::{Ask, Event, Failure, FailureKind, Piece, monotonic_ms};
use crate::engine::sql;

/// DuckDB's parser and planner recurse deep.
const STACK_BYTES: usize = 8 << 20;

/// A piece of an answer; small, so that the first rows are there soon.
const PIECE_BYTES: usize = 64 << 10;

/// Begins a query. The state it sees is taken here, before the next order is obeyed; the answer comes on `answer_on`.
pub fn begin(database: &Database, ask: Ask, answer_on: OwnedFd, events: Events) {
    let (id, sql_layer) = (ask.id, database.sql_layer());
    let socket = UnixStream::from(answer_on);
    let begun = snapshot(database).and_then(|connection| {
        let socket = socket.try_clone().map_err(|error| internal(format!("no descriptor is left: {error}")))?;
        let events = events.clone();
        let work = move || {
            run(&connection, &ask, &socket, sql_layer);
            // Before the word, which frees the place of this query.
            drop((connection, socket));
            let _ = events.send(&Event::Finished { id });
        };
        let spawned = thread::Builder::new().name(format!("query {id}")).stack_size(STACK_BYTES).spawn(work);
        spawned.map_err(|error| internal(format!("no thread is left: {error}")))
    });
    if let Err(failure) = begun {
        // Where nobody listens any more there is nobody to tell, here and below.
        let _ = send(&socket, &Piece::Failed(failure), &[]);
        let _ = events.send(&Event::Finished { id });
    }
}

/// A connection that will go on seeing the state of now: DuckDB begins a transaction at its first look at a table.
fn snapshot(database: &Database) -> Result<Connection, Failure> {
    let connection = database.connect().map_err(|error| internal(error.to_string()))?;
    let reading = if database.sql_layer() == SqlLayer::On { "begin transaction read only" } else { "begin transaction" };
    let begin = || {
        connection.execute_batch(reading)?;
        connection.query_row("select accepted from books", [], |row| row.get::<_, i64>(0))
    };
    begin().map_err(|error| failure_of(&error))?;
    Ok(connection)
}

fn run(connection: &Connection, ask: &Ask, socket: &UnixStream, sql_layer: SqlLayer) {
    let limit = Duration::from_millis(ask.deadline_ms.saturating_sub(monotonic_ms()));
    let guard = match Guard::set(connection.interrupt_handle(), socket, limit) {
        Ok(guard) => guard,
        Err(error) => {
            let _ = send(socket, &Piece::Failed(internal(format!("the query can't be guarded: {error}"))), &[]);
            return;
        }
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| answer(connection, ask, socket, sql_layer)));
    let outcome = outcome.unwrap_or_else(|_| Err(internal("a query panicked".to_owned())));
    let last = match outcome {
        Ok((rows, parameters)) => Piece::Done { rows, parameters },
        Err(_) if guard.expired() => Piece::Failed(Failure { kind: FailureKind::TimedOut, message: String::new() }),
        Err(failure) => Piece::Failed(failure),
    };
    let _ = send(socket, &last, &[]);
    guard.lift(socket);
}

fn answer(connection: &Connection, ask: &Ask, socket: &UnixStream, sql_layer: SqlLayer) -> Result<(u64, usize), Failure> {
    let statement = if sql_layer == SqlLayer::On { statement_of(connection, ask)? } else { ask.sql.clone() };
    let mut statement = connection.prepare(&statement).map_err(|error| failure_of(&error))?;
    let parameters = statement.parameter_count();
    let values = values_of(&ask.binding, parameters)?;
    let batches = statement.stream_arrow(params_from_iter(values)).map_err(|error| failure_of(&error))?;
    let sent = AtomicU64::new(0);
    let mut writer = AnswerWriter::begin(ask.format, Pieces::new(socket, &sent), &batches.get_schema()).map_err(unwritable)?;
    for batch in batches {
        writer.write(&batch.map_err(|error| failure_of(&error))?).map_err(unwritable)?;
        if sent.load(Ordering::Relaxed) > ask.max_bytes {
            let message = format!("the answer is longer than engine.max_answer, {}", ByteSize(ask.max_bytes));
            return Err(Failure { kind: FailureKind::TooLong, message });
        }
    }
    let (mut pieces, rows) = writer.finish().map_err(unwritable)?;
    pieces.flush().map_err(|error| internal(error.to_string()))?;
    Ok((rows, parameters))
}

/// The values of `wanted` parameters. Where they are not known, nulls tell the types of everything else.
fn values_of(binding: &Binding, wanted: usize) -> Result<Vec<Value>, Failure> {
    let value = |param: &Param| match param {
        Param::Null => Value::Null,
        Param::Bool(value) => Value::Boolean(*value),
        Param::Int(value) => Value::BigInt(*value),
        Param::Real(value) => Value::Double(*value),
        Param::Text(value) => Value::Text(value.clone()),
        Param::Time(value) => Value::Timestamp(TimeUnit::Microsecond, value.0),
    };
    match binding {
        Binding::Unknown => Ok(vec![Value::Null; wanted]),
        Binding::Values(params) if params.len() == wanted => Ok(params.iter().map(value).collect()),
        Binding::Values(params) => {
            let message = format!("the statement has {wanted} parameters, {} values were given", params.len());
            Err(Failure { kind: FailureKind::Sql, message })
        }
    }
}

/// The statement that runs, judged as the user wrote it and as it runs: to prepare several would run all but the last.
fn statement_of(connection: &Connection, ask: &Ask) -> Result<String, Failure> {
    if let Some((line, column)) = sql::too_deep(&ask.sql) {
        let message = format!("the SQL nests more than {} levels deep (line {line}, column {column})", sql::MAX_DEPTH);
        return Err(Failure { kind: FailureKind::Sql, message });
    }
    let explained = sql::explained(&ask.sql);
    let query = explained.as_ref().unwrap_or(&ask.sql);
    if explained.is_some() && starts_with_word(query, "analyze") {
        let message = "EXPLAIN ANALYZE is not allowed; EXPLAIN shows the plan without running it".to_owned();
        return Err(Failure { kind: FailureKind::Denied, message });
    }
    pass_the_gate(connection, query)?;
    let nested = sql::nest(query, ask.max_rows);
    pass_the_gate(connection, &nested)?;
    Ok(if explained.is_some() { format!("EXPLAIN {nested}") } else { nested })
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.split_whitespace().next().is_some_and(|first| first.eq_ignore_ascii_case(word))
}

fn pass_the_gate(connection: &Connection, text: &str) -> Result<(), Failure> {
    const TREE: &str = "select json_serialize_sql(?, skip_null := true, skip_empty := true, skip_default := true)";
    let tree: String = connection.query_row(TREE, [text], |row| row.get(0)).map_err(|error| failure_of(&error))?;
    gate::judge(text, &tree)
}

fn internal(message: String) -> Failure {
    Failure { kind: FailureKind::Internal, message }
}

fn unwritable(error: ArrowError) -> Failure {
    Failure { kind: FailureKind::Sql, message: format!("the answer can't be written in this format: {error}") }
}

/// DuckDB's error in terms of the user's text. Its message begins with its sort.
fn failure_of(error: &duckdb::Error) -> Failure {
    let duckdb::Error::DuckDBFailure(_, Some(message)) = error else {
        return Failure { kind: FailureKind::Sql, message: error.to_string() };
    };
    let kind = match message.split(" Error: ").next().unwrap_or_default() {
        // What follows speaks of settings that a query does not have.
        "Out of Memory" => {
            let message = message.lines().next().unwrap_or_default().to_owned();
            return Failure { kind: FailureKind::Memory, message };
        }
        _ if message.contains("Allocation failure") || message.contains("bad_alloc") => FailureKind::Memory,
        "Permission" => FailureKind::Denied,
        "IO" | "Invalid Input" | "Serialization" if message.contains(".parquet") => FailureKind::Segment,
        "INTERNAL" | "FATAL" => FailureKind::Internal,
        _ => FailureKind::Sql,
    };
    Failure { kind, message: sql::message_for_user(message) }
}

fn send(mut socket: &UnixStream, head: &Piece, body: &[u8]) -> io::Result<()> {
    socket.write_all(&head_of(head, body.len())?)?;
    socket.write_all(body)
}

/// Collects what is written and sends it in pieces.
struct Pieces<'a> {
    socket: &'a UnixStream,
    buffer: Vec<u8>,
    sent: &'a AtomicU64,
}

impl<'a> Pieces<'a> {
    fn new(socket: &'a UnixStream, sent: &'a AtomicU64) -> Self {
        Self { socket, buffer: Vec::with_capacity(PIECE_BYTES), sent }
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == PIECE_BYTES {
            self.flush()?;
        }
        let (now, _) = bytes.split_at_checked(PIECE_BYTES - self.buffer.len()).unwrap_or((bytes, &[]));
        self.buffer.extend_from_slice(now);
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            send(self.socket, &Piece::Data, &self.buffer)?;
            self.sent.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
            self.buffer.clear();
        }
        Ok(())
    }
}
