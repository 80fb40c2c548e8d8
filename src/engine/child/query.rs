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
use duckdb::{Connection, Statement, params_from_iter};

use super::SqlLayer;
use super::control::Events;
use super::database::{Database, set_now, set_readings};
use super::guard::Guard;
use super::planner::{Planner, Span, fill_in};
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
    let id = ask.id;
    let socket = UnixStream::from(answer_on);
    let begun = Snapshot::take(database).and_then(|snapshot| {
        let socket = socket.try_clone().map_err(|error| internal(format!("no descriptor is left: {error}")))?;
        let events = events.clone();
        let work = move || {
            run(&snapshot, &ask, &socket);
            // Before the word, which frees the place of this query.
            drop((snapshot, socket));
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

/// What a query sees.
struct Snapshot {
    /// In a transaction that goes on seeing the state of its begin.
    connection: Connection,
    planner: Planner,
    /// When the transaction began, in microseconds since 1970.
    now: i64,
    /// Most segments that it may open.
    max_segments: u64,
    sql_layer: SqlLayer,
}

impl Snapshot {
    fn take(database: &Database) -> Result<Self, Failure> {
        let (sql_layer, max_segments) = (database.sql_layer(), database.max_segments());
        let begin = if sql_layer == SqlLayer::On { "begin transaction read only" } else { "begin transaction" };
        // DuckDB begins a transaction at its first look at a table.
        let look = "select epoch_us(system.main.now()) from books";
        let take = || {
            let (connection, planner) = (database.connect()?, Planner::new(database.connect_planner()?));
            connection.execute_batch(begin)?;
            let now = connection.query_row(look, [], |row| row.get(0))?;
            set_now(&connection, now)?;
            Ok(Self { connection, planner, now, max_segments, sql_layer })
        };
        take().map_err(|error| failure_of(&error))
    }

    /// The statement for `ask`, and before it the list of the segments that it can need.
    fn prepare(&self, ask: &Ask) -> Result<Statement<'_>, Failure> {
        let statement = if self.sql_layer == SqlLayer::On { self.judge(ask)? } else { Judged::unseen(&ask.sql) };
        let spans = match &ask.binding {
            // No row is asked for, only what it would look like.
            _ if ask.max_rows == Some(0) => Some(Vec::new()),
            Binding::Values(values) => statement.to_plan(values).and_then(|query| self.planner.spans(&query, self.now)),
            Binding::Unknown => None,
        };
        self.list_segments(spans.as_deref())?;
        self.connection.prepare(&statement.text()).map_err(|error| failure_of(&error))
    }

    /// Lists those with readings in `spans`; `None`: all.
    fn list_segments(&self, spans: Option<&[Span]>) -> Result<(), Failure> {
        let overlaps = |span: &Span| format!("max_time >= {} and min_time <= {}", span.from, span.to);
        let seen = match spans {
            None => "true".to_owned(),
            Some([]) => "false".to_owned(),
            Some(spans) => spans.iter().map(overlaps).collect::<Vec<_>>().join(" or "),
        };
        let list = format!("set variable segments = (select list(name) from internal.segments where {seen})");
        let count = || {
            self.connection.execute_batch(&list)?;
            self.connection.query_row("select coalesce(len(getvariable('segments')), 0)", [], |row| row.get::<_, u64>(0))
        };
        let (count, most) = (count().map_err(|error| failure_of(&error))?, self.max_segments);
        if count > most {
            let message = format!("it looks into {count} segments, and this much is good for {most} at a time; ask for a shorter time");
            return Err(Failure { kind: FailureKind::Memory, message });
        }
        set_readings(&self.connection, count > 0).map_err(|error| failure_of(&error))
    }

    /// The statement that runs, judged as the user wrote it and as it runs: to prepare several would run all but the last.
    fn judge(&self, ask: &Ask) -> Result<Judged, Failure> {
        if let Some((line, column)) = sql::too_deep(&ask.sql) {
            let message = format!("the SQL nests more than {} levels deep (line {line}, column {column})", sql::MAX_DEPTH);
            return Err(Failure { kind: FailureKind::Sql, message });
        }
        let rest = sql::explained(&ask.sql);
        let (query, explain) = (rest.as_ref().unwrap_or(&ask.sql), rest.is_some());
        if explain && starts_with_word(query, "analyze") {
            let message = "EXPLAIN ANALYZE is not allowed; EXPLAIN shows the plan without running it".to_owned();
            return Err(Failure { kind: FailureKind::Denied, message });
        }
        self.pass_the_gate(query)?;
        let nested = sql::nest(query, ask.max_rows);
        let tree = self.pass_the_gate(&nested)?;
        Ok(Judged { query: nested, explain, tree: gate::same_everywhere(&tree).then_some(tree) })
    }

    /// The syntax tree of `text`, which may run.
    fn pass_the_gate(&self, text: &str) -> Result<String, Failure> {
        const TREE: &str = "select json_serialize_sql(?, skip_null := true, skip_empty := true, skip_default := true)";
        let tree: String = self.connection.query_row(TREE, [text], |row| row.get(0)).map_err(|error| failure_of(&error))?;
        gate::judge(text, &tree)?;
        Ok(tree)
    }
}

/// A statement that may run.
struct Judged {
    query: String,
    /// Whether its plan is asked for and not its answer.
    explain: bool,
    /// Its syntax tree, if the planner understands it as DuckDB does that runs it.
    tree: Option<String>,
}

impl Judged {
    /// A statement that nobody has looked at.
    fn unseen(sql: &str) -> Self {
        Self { query: sql.to_owned(), explain: false, tree: None }
    }

    /// The query with `values` in their places, for the planner.
    fn to_plan(&self, values: &[Param]) -> Option<String> {
        fill_in(&self.query, self.tree.as_ref()?, values)
    }

    fn text(&self) -> String {
        let explain = if self.explain { "EXPLAIN " } else { "" };
        format!("{explain}{}", self.query)
    }
}

fn run(snapshot: &Snapshot, ask: &Ask, socket: &UnixStream) {
    let limit = Duration::from_millis(ask.deadline_ms.saturating_sub(monotonic_ms()));
    let guard = match Guard::set(snapshot.connection.interrupt_handle(), socket, limit) {
        Ok(guard) => guard,
        Err(error) => {
            let _ = send(socket, &Piece::Failed(internal(format!("the query can't be guarded: {error}"))), &[]);
            return;
        }
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| answer(snapshot, ask, socket)));
    let outcome = outcome.unwrap_or_else(|_| Err(internal("a query panicked".to_owned())));
    let last = match outcome {
        Ok((rows, parameters)) => Piece::Done { rows, parameters },
        Err(_) if guard.expired() => Piece::Failed(Failure { kind: FailureKind::TimedOut, message: String::new() }),
        Err(failure) => Piece::Failed(failure),
    };
    let _ = send(socket, &last, &[]);
    guard.lift(socket);
}

fn answer(snapshot: &Snapshot, ask: &Ask, socket: &UnixStream) -> Result<(u64, usize), Failure> {
    let mut statement = snapshot.prepare(ask)?;
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
    pieces.send().map_err(|error| internal(error.to_string()))?;
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

fn starts_with_word(text: &str, word: &str) -> bool {
    text.split_whitespace().next().is_some_and(|first| first.eq_ignore_ascii_case(word))
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

    fn send(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            send(self.socket, &Piece::Data, &self.buffer)?;
            self.sent.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == PIECE_BYTES {
            self.send()?;
        }
        let (now, _) = bytes.split_at_checked(PIECE_BYTES - self.buffer.len()).unwrap_or((bytes, &[]));
        self.buffer.extend_from_slice(now);
        Ok(now.len())
    }

    /// Nothing: a query that fails before its first whole piece fails as a whole, and a writer flushes when it is dropped.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
