//! What there is to ask of: catalog, schema and tables, types, and what the server can do.

use std::sync::LazyLock;

use arrow::array::{AsArray, RecordBatch};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables, Nullable, Searchable, SqlInfo, XdbcDataType,
};
use futures::stream::TryStreamExt as _;
use tonic::Status;

use super::statement::{describe, internal};
use super::status;
use crate::api::query::AnswerSql;
use crate::engine::{Binding, Format};

/// DuckDB's names: what a client puts before a table's must work.
const CATALOG: &str = "memory";
const SCHEMA: &str = "main";

/// Grafana's plugin asks for tables of this type alone, so the views are of it, too.
const TABLE_TYPE: &str = "BASE TABLE";

/// What there is, by name.
const TABLES: &str = "select table_name from information_schema.tables where table_schema = 'main' order by table_name";

pub(super) fn catalogs(command: CommandGetCatalogs) -> Result<RecordBatch, Status> {
    let mut names = command.into_builder();
    names.append(CATALOG);
    names.build().map_err(failed)
}

pub(super) fn schemas(command: CommandGetDbSchemas) -> Result<RecordBatch, Status> {
    let mut names = command.into_builder();
    names.append(CATALOG, SCHEMA);
    names.build().map_err(failed)
}

pub(super) fn table_types(command: CommandGetTableTypes) -> Result<RecordBatch, Status> {
    let mut types = command.into_builder();
    types.append(TABLE_TYPE);
    types.build().map_err(failed)
}

pub(super) async fn tables(engine: &dyn AnswerSql, command: CommandGetTables) -> Result<RecordBatch, Status> {
    let with_columns = command.include_schema;
    let mut tables = command.into_builder();
    for name in names(engine).await? {
        let columns = if with_columns {
            describe(engine, &format!("select * from \"{name}\""), Binding::default()).await?.0
        } else {
            std::sync::Arc::new(arrow::datatypes::Schema::empty())
        };
        tables.append(CATALOG, SCHEMA, name, TABLE_TYPE, &columns).map_err(failed)?;
    }
    tables.build().map_err(failed)
}

async fn names(engine: &dyn AnswerSql) -> Result<Vec<String>, Status> {
    let answer = engine.answer(TABLES.to_owned(), Binding::default(), Format::Arrow, None).await.map_err(|error| status(&error))?;
    let pieces: Vec<_> = answer.body.try_collect().await.map_err(|error| status(&error))?;
    let read = || -> Result<Vec<String>, ArrowError> {
        let mut names = Vec::new();
        for batch in StreamReader::try_new(pieces.concat().as_slice(), None)? {
            names.extend(batch?.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        Ok(names)
    };
    read().map_err(internal)
}

/// What the server can do; drivers ask when they connect.
pub(super) static SQL_INFO: LazyLock<Result<SqlInfoData, String>> = LazyLock::new(|| {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "forebay");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    // No transactions, no cancelling but by going away, no bulk ingestion.
    info.append(SqlInfo::FlightSqlServerTransaction, 0_i32);
    info.append(SqlInfo::FlightSqlServerCancel, false);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0_i32);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    // Case is kept, and told apart by nobody.
    info.append(SqlInfo::SqlIdentifierCase, 1_i64);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlQuotedIdentifierCase, 1_i64);
    info.build().map_err(|error| error.to_string())
});

/// The types that columns here have.
pub(super) static TYPES: LazyLock<Result<XdbcTypeInfoData, String>> = LazyLock::new(|| {
    let number = |name: &str, kind: XdbcDataType, size: i32| XdbcTypeInfo {
        column_size: Some(size),
        unsigned_attribute: Some(false),
        num_prec_radix: Some(if matches!(kind, XdbcDataType::XdbcDouble) { 2 } else { 10 }),
        ..plain(name, kind)
    };
    let quoted = |name: &str, kind: XdbcDataType, size: Option<i32>| XdbcTypeInfo {
        column_size: size,
        literal_prefix: Some("'".to_owned()),
        literal_suffix: Some("'".to_owned()),
        case_sensitive: true,
        ..plain(name, kind)
    };
    let mut types = XdbcTypeInfoDataBuilder::new();
    types.append(plain("BOOLEAN", XdbcDataType::XdbcBit));
    types.append(number("SMALLINT", XdbcDataType::XdbcSmallint, 5));
    types.append(number("INTEGER", XdbcDataType::XdbcInteger, 10));
    types.append(number("BIGINT", XdbcDataType::XdbcBigint, 19));
    types.append(number("DOUBLE", XdbcDataType::XdbcDouble, 53));
    types.append(quoted("VARCHAR", XdbcDataType::XdbcVarchar, None));
    types.append(quoted("TIMESTAMP", XdbcDataType::XdbcTimestamp, Some(26)));
    types.build().map_err(|error| error.to_string())
});

fn plain(name: &str, kind: XdbcDataType) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type: kind,
        sql_data_type: kind,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        ..XdbcTypeInfo::default()
    }
}

pub(super) fn failed(error: FlightError) -> Status {
    Status::from(error)
}
