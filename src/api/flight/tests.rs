//! Calls through a real door, with an engine of the test's own; what real drivers do is in `tests/it/flight.rs`.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampSecondArray};
use arrow::ipc::writer::StreamWriter;
use arrow_flight::Action;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables, SqlInfo};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::api::query::Rows;
use crate::engine::{Binding, Format, Param};
use crate::model::Timestamp;

fn numbers(rows: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef)]).unwrap()
}

fn stream_of(batches: &[RecordBatch]) -> Vec<u8> {
    let mut stream = StreamWriter::try_new(Vec::new(), &numbers(0).schema()).unwrap();
    batches.iter().for_each(|batch| stream.write(batch).unwrap());
    stream.into_inner().unwrap()
}

/// Answers every statement with numbers in three batches, and notes what it was asked.
#[derive(Default)]
struct Numbers {
    asked: Mutex<Vec<(String, Binding)>>,
}

impl AnswerSql for Numbers {
    fn answer(&self, sql: String, binding: Binding, format: Format, _: Option<u64>) -> BoxFuture<'_, Result<Rows, QueryError>> {
        assert_eq!(format, Format::Arrow);
        self.asked.lock().unwrap().push((sql.clone(), binding));
        let bytes = stream_of(&[numbers(3), numbers(1000), numbers(4)]);
        // In pieces that keep to no message, as they come from the engine.
        let mut pieces: Vec<_> = bytes.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        if sql == "halfway" {
            pieces.truncate(pieces.len() / 2);
            pieces.push(Err(QueryError::EngineGone));
        }
        async move { Ok(Rows { incomplete: sql == "incomplete", body: stream::iter(pieces).boxed() }) }.boxed()
    }

    fn describe(&self, sql: String, _: Binding) -> BoxFuture<'_, Result<(Vec<u8>, usize), QueryError>> {
        let described = match sql.as_str() {
            "wrong" => Err(QueryError::Sql("no such table".to_owned())),
            "forbidden" => Err(QueryError::Denied("not allowed".to_owned())),
            "busy" => Err(QueryError::Busy { running: 4 }),
            "gone" => Err(QueryError::EngineGone),
            "off" => Err(QueryError::Off("there is no engine")),
            sql => Ok((stream_of(&[]), sql.matches('?').count())),
        };
        async move { described }.boxed()
    }
}

async fn open(token: Option<&str>) -> (Arc<Numbers>, FlightSqlServiceClient<Channel>) {
    let engine = Arc::new(Numbers::default());
    let token = token.map(|token| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, token).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Token::read(&path).unwrap()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(Arc::clone(&engine) as Arc<dyn AnswerSql>, token);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (engine, FlightSqlServiceClient::new(channel))
}

async fn rows_of(client: &mut FlightSqlServiceClient<Channel>, info: arrow_flight::FlightInfo) -> usize {
    assert_eq!((info.endpoint.len(), info.endpoint[0].location.len()), (1, 0));
    let batches: Vec<_> = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap().try_collect().await.unwrap();
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test]
async fn a_statement_is_described_and_its_rows_come_however_they_are_cut() {
    let (engine, mut client) = open(None).await;
    let info = client.execute("select n".to_owned(), None).await.unwrap();
    assert_eq!(info.clone().try_decode_schema().unwrap(), *numbers(0).schema());
    assert_eq!(rows_of(&mut client, info).await, 1007);
    assert_eq!(*engine.asked.lock().unwrap(), [("select n".to_owned(), Binding::default())]);
}

#[tokio::test]
async fn a_prepared_statement_carries_its_values_in_its_handle() {
    let (engine, mut client) = open(None).await;
    let mut prepared = client.prepare("select ?, ?, ?, ?".to_owned(), None).await.unwrap();
    assert_eq!(prepared.parameter_schema().unwrap().fields().len(), 4);
    assert_eq!(*prepared.dataset_schema().unwrap(), *numbers(0).schema());
    let values: [(&str, ArrayRef); 4] = [
        ("1", Arc::new(Int64Array::from(vec![7]))),
        ("2", Arc::new(StringArray::from(vec!["seven"]))),
        ("3", Arc::new(Float64Array::from(vec![None]))),
        ("4", Arc::new(TimestampSecondArray::from(vec![5]).with_timezone("+02:00"))),
    ];
    prepared.set_parameters(RecordBatch::try_from_iter(values).unwrap()).unwrap();
    let info = prepared.execute().await.unwrap();
    assert_eq!(rows_of(&mut client, info).await, 1007);
    let values = vec![Param::Int(7), Param::Text("seven".to_owned()), Param::Null, Param::Time(Timestamp(5_000_000))];
    assert_eq!(*engine.asked.lock().unwrap(), [("select ?, ?, ?, ?".to_owned(), Binding::Values(values))]);
    prepared.close().await.unwrap();
}

#[tokio::test]
async fn what_fails_says_so_in_grpcs_words_also_halfway() {
    let (_, mut client) = open(None).await;
    let codes = [
        ("wrong", Code::InvalidArgument),
        ("forbidden", Code::PermissionDenied),
        ("busy", Code::ResourceExhausted),
        ("gone", Code::Unavailable),
        ("off", Code::FailedPrecondition),
    ];
    for (sql, expected) in codes {
        let error = client.execute(sql.to_owned(), None).await.unwrap_err();
        assert!(matches!(&error, FlightError::Tonic(status) if status.code() == expected), "{sql}: {error}");
    }
    let info = client.execute("halfway".to_owned(), None).await.unwrap();
    let rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(rows.try_collect::<Vec<_>>().await.is_err());
    assert!(client.execute("select n".to_owned(), Some(Bytes::from("a transaction"))).await.is_err());
}

#[tokio::test]
async fn the_token_is_asked_for_by_everything_but_the_handshake() {
    let (_, mut client) = open(Some("secret")).await;
    assert!(client.execute("select n".to_owned(), None).await.is_err());
    assert!(client.get_catalogs().await.is_err());
    assert!(client.handshake("anyone", "wrong").await.is_err());
    client.handshake("anyone", "secret").await.unwrap();
    assert_eq!(client.token(), Some(&"secret".to_owned()));
    client.execute("select n".to_owned(), None).await.unwrap();
    client.set_token("wrong".to_owned());
    assert!(client.execute("select n".to_owned(), None).await.is_err());
}

#[tokio::test]
async fn drivers_find_what_they_ask_for_when_they_connect() {
    let (_, mut client) = open(None).await;
    client.handshake("anyone", "").await.unwrap();
    let all = client.get_sql_info(vec![]).await.unwrap();
    assert!(rows_of(&mut client, all).await > 10);
    let one = client.get_sql_info(vec![SqlInfo::FlightSqlServerTransaction]).await.unwrap();
    assert_eq!(rows_of(&mut client, one).await, 1);
    let (catalogs, types) = (client.get_catalogs().await.unwrap(), client.get_table_types().await.unwrap());
    assert_eq!((rows_of(&mut client, catalogs).await, rows_of(&mut client, types).await), (1, 1));
    let schemas = client.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    assert_eq!(rows_of(&mut client, schemas).await, 1);
    let xdbc = client.get_xdbc_type_info(arrow_flight::sql::CommandGetXdbcTypeInfo::default()).await.unwrap();
    assert!(rows_of(&mut client, xdbc).await > 5);
    // The names of the tables come from the engine, which here has only numbers.
    let tables = client.get_tables(CommandGetTables::default()).await.unwrap();
    assert!(client.do_get(tables.endpoint[0].ticket.clone().unwrap()).await.is_err());
    let closed = client.inner_mut().do_action(Action::new("CloseSession", Bytes::new())).await.unwrap();
    assert_eq!(closed.into_inner().message().await.unwrap().unwrap().body.to_vec(), [8, 1]);
    assert_eq!(client.inner_mut().do_action(Action::new("Dance", Bytes::new())).await.unwrap_err().code(), Code::Unimplemented);
}
