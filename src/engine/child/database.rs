//! DuckDB: how it is opened, and its tables.

use duckdb::{Config, Connection};

use super::planner;
use super::{ChildError, SqlLayer};
use crate::engine::protocol::{Opening, SmallTable};

/// For the tree of one query.
const PLANNER_BYTES: u64 = 64 << 20;

/// DuckDB's memory for each segment that a query opens: beside it an open one takes four to five kilobytes.
const SEGMENT_BYTES: u64 = 4 << 10;

/// Tables. What queries see is in `main`, what it is made of in `internal`.
const SCHEMA: &str = "
create schema internal;
create table internal.hot (
    time timestamp, sensor varchar, metric varchar, value double, text varchar, unit varchar, quality smallint,
    arrived timestamp, time_source varchar, seq bigint);
create table books (
    accepted bigint, hot bigint, sealed bigint, delivered bigint, thinned bigint, dropped bigint, damaged bigint, kept bigint);
insert into books values (0, 0, 0, 0, 0, 0, 0, 0);
";

/// Without ICU, which is not bundled, a time with a zone knows no arithmetic: the clock's functions are made to give plain
/// UTC times, so that `time > now() - interval 1 hour` works. It is the time that [`set_now`] set.
const CLOCK: [(&str, &str); 7] = [
    ("now", "timestamp"),
    ("current_timestamp", "timestamp"),
    ("current_localtimestamp", "timestamp"),
    ("get_current_timestamp", "timestamp"),
    ("transaction_timestamp", "timestamp"),
    ("current_date", "date"),
    ("today", "date"),
];

/// Series: what is sealed, from the ledger, and what is hot, counted here. Of equal times the later seq is the newest.
const SERIES: &str = "
create view series as
with fresh as (
    select sensor, metric, arg_max(unit, seq) as unit, min(time) as first_time, max(time) as last_time,
        count(*) as readings, last({'value': value, 'text': text} order by time, seq) as latest
    from internal.hot group by sensor, metric),
joined as (
    select coalesce(fresh.sensor, sealed.sensor) as sensor, coalesce(fresh.metric, sealed.metric) as metric,
        coalesce(fresh.unit, sealed.unit) as unit,
        least(fresh.first_time, sealed.first_time) as first_time, greatest(fresh.last_time, sealed.last_time) as last_time,
        coalesce(fresh.readings, 0) + coalesce(sealed.readings, 0) as readings,
        fresh.latest as latest, sealed.last_value as sealed_value, sealed.last_text as sealed_text,
        fresh.last_time is not null and (sealed.last_time is null or fresh.last_time >= sealed.last_time) as is_fresh
    from internal.sealed_series sealed full join fresh on fresh.sensor = sealed.sensor and fresh.metric = sealed.metric)
select sensor, metric, unit, first_time, last_time, readings,
    if(is_fresh, latest.value, sealed_value) as last_value, if(is_fresh, latest.text, sealed_text) as last_text
from joined;
";

/// The statement that makes `table`, empty; in place of the old one.
pub fn create(table: SmallTable) -> &'static str {
    match table {
        SmallTable::SealedSeries => {
            "create or replace table internal.sealed_series (sensor varchar, metric varchar, unit varchar, first_time timestamp, \
             last_time timestamp, readings bigint, last_value double, last_text varchar)"
        }
        SmallTable::Records => {
            "create or replace table records (id bigint, source varchar, kind varchar, body varchar, first_received timestamp, \
             last_received timestamp, times bigint)"
        }
        SmallTable::Segments => "create or replace table internal.segments (name varchar, min_time bigint, max_time bigint)",
        SmallTable::Losses => {
            "create or replace table losses (id bigint, instance varchar, first_seq bigint, last_seq bigint, readings bigint, \
             reason varchar, noted timestamp, detail varchar, shipment bigint)"
        }
    }
}

/// What `readings` are: a statement that each query finds in a variable of its connection. So the segments that it opens are
/// its own, and their names are no SQL, of which the parser would take a hundred times the memory.
const READINGS: &str = "create view readings as from query(getvariable('readings'))";

/// Lets `readings` be, on `connection`, what is hot, joined where `sealed` with the segments that the variable `segments`
/// lists. Hive columns would add a `date`.
///
/// # Errors
/// DuckDB's.
pub fn set_readings(connection: &Connection, sealed: bool) -> duckdb::Result<()> {
    const COLUMNS: &str = "time, sensor, metric, value, text, unit, quality, arrived, time_source, seq";
    let segments = format!("union all select {COLUMNS} from read_parquet(getvariable(''segments''), hive_partitioning = false)");
    let segments = if sealed { segments } else { String::new() };
    connection.execute_batch(&format!("set variable readings = 'select {COLUMNS} from memory.internal.hot {segments}'"))
}

/// Sets what the clock's functions say on `connection`, in microseconds since 1970.
///
/// # Errors
/// DuckDB's.
pub fn set_now(connection: &Connection, now: i64) -> duckdb::Result<()> {
    connection.execute_batch(&format!("set variable now = make_timestamp({now}::bigint)"))
}

/// Settings that must hold before the first query.
const LOCKED: [(&str, &str); 5] = [
    ("enable_external_access", "false"),
    ("autoinstall_known_extensions", "false"),
    ("autoload_known_extensions", "false"),
    ("allow_community_extensions", "false"),
    ("lock_configuration", "true"),
];

/// DuckDB in memory, and another one without data that plans.
pub struct Database {
    first: Connection,
    plans: Connection,
    max_segments: u64,
    sql_layer: SqlLayer,
}

impl Database {
    /// Opens DuckDB, which may read the current folder (that of the segments) and nothing else, and can't be told to do
    /// more.
    pub fn open(opening: &Opening, sql_layer: SqlLayer) -> Result<Self, ChildError> {
        let first = open(opening)?;
        set_readings(&first, false).and_then(|()| first.execute_batch(READINGS)).map_err(failed("making its tables"))?;
        let plans = open(&Opening { memory_bytes: PLANNER_BYTES, threads: 1, ..opening.clone() })?;
        plans.execute_batch("create table readings as from internal.hot").map_err(failed("making its tables"))?;
        planner::switch_off_the_others(&plans)?;
        if sql_layer == SqlLayer::On {
            lock(&first)?;
            lock(&plans)?;
        }
        Ok(Self { first, plans, max_segments: opening.memory_bytes / SEGMENT_BYTES, sql_layer })
    }

    /// What stands before a query.
    pub fn sql_layer(&self) -> SqlLayer {
        self.sql_layer
    }

    /// Most segments that one query may open.
    pub fn max_segments(&self) -> u64 {
        self.max_segments
    }

    /// Another connection.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn connect(&self) -> duckdb::Result<Connection> {
        self.first.try_clone()
    }

    /// A connection to the one that plans.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn connect_planner(&self) -> duckdb::Result<Connection> {
        self.plans.try_clone()
    }
}

/// Opens an empty DuckDB with the tables.
fn open(opening: &Opening) -> Result<Connection, ChildError> {
    let connection = settings(opening).and_then(Connection::open_in_memory_with_flags).map_err(failed("opening"))?;
    let small = [SmallTable::SealedSeries, SmallTable::Records, SmallTable::Losses, SmallTable::Segments];
    let clock = CLOCK.map(|(name, kind)| format!("create macro {name}() as getvariable('now')::timestamp::{kind};")).concat();
    let schema = [SCHEMA, &clock, &small.map(create).join("; "), ";", SERIES].concat();
    connection.execute_batch(&schema).map_err(failed("making its tables"))?;
    Ok(connection)
}

fn settings(opening: &Opening) -> duckdb::Result<Config> {
    Config::default()
        .enable_autoload_extension(false)?
        .max_memory(&format!("{}KiB", opening.memory_bytes >> 10))?
        .threads(i64::try_from(opening.threads).unwrap_or(1))?
        // It would start four threads a processor to read ahead.
        .with("async_threads", "1")?
        // It writes no file.
        .with("temp_directory", "")?
        // Freed memory goes back to the system after 16 MiB, not 128.
        .with("allocator_flush_threshold", "16MB")?
        .with("allow_community_extensions", "false")
}

/// Order matters: folders can be allowed only while everything still is.
fn lock(connection: &Connection) -> Result<(), ChildError> {
    connection.execute_batch("set allowed_directories = ['.']").map_err(failed("allowing the segments folder"))?;
    connection.execute_batch("set enable_external_access = false; set lock_configuration = true").map_err(failed("locking"))?;
    for (setting, expected) in LOCKED {
        let sql = format!("select current_setting('{setting}')::varchar");
        let found: String = connection.query_row(&sql, [], |row| row.get(0)).map_err(failed("reading its settings"))?;
        if found != expected {
            return Err(ChildError::Unlocked(setting));
        }
    }
    Ok(())
}

/// Says what DuckDB was doing.
pub fn failed(doing: &'static str) -> impl FnOnce(duckdb::Error) -> ChildError {
    move |source| ChildError::DuckDb { doing, source }
}
