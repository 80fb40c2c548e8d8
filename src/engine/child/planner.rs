//! The planner: which times of readings a query can see, so that only the segments of those times are opened.
//!
//! A DuckDB of its own, with the same tables and nothing in them, optimizes the query and shows the bounds that it pushed
//! down to each scan of `readings`. What its optimizer could learn from data is switched off: so its plan is the query's
//! for any data, and a reading that no scan lets through can't change the answer. Where it says nothing, or something
//! unknown, the query sees all segments.

use duckdb::Connection;
use serde::Deserialize;
use serde_json::Value;

use super::ChildError;
use super::database::{failed, set_now};
use crate::engine::binding::Param;

/// What moves bounds to where they apply, and nothing that looks at data.
const OPTIMIZERS: [&str; 4] = ["expression_rewriter", "filter_pullup", "filter_pushdown", "cte_inlining"];

/// Leaves [`OPTIMIZERS`] alone.
///
/// # Errors
/// DuckDB knows none of them.
pub fn switch_off_the_others(connection: &Connection) -> Result<(), ChildError> {
    let names = OPTIMIZERS.map(|name| format!("'{name}'")).join(", ");
    let others = format!("select string_agg(name, ',') from duckdb_optimizers() where name not in ({names})");
    let others: String = connection.query_row(&others, [], |row| row.get(0)).map_err(failed("listing optimizers"))?;
    connection.execute_batch(&format!("set disabled_optimizers = '{others}'")).map_err(failed("preparing the planner"))
}

/// Plans one query.
pub struct Planner {
    connection: Connection,
}

impl Planner {
    /// Plans on `connection`, which is that of an empty DuckDB.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The times of readings that `statement` can see when it is `now` (microseconds since 1970), one span for each time it
    /// looks; `None`: all of them.
    pub fn spans(&self, statement: &str, now: i64) -> Option<Vec<Span>> {
        const PLAN: &str = "select json_serialize_plan(?, skip_null := true, optimize := true)";
        set_now(&self.connection, now).ok()?;
        let plan: String = self.connection.query_row(PLAN, [statement], |row| row.get(0)).ok()?;
        let mut spans = Vec::new();
        collect(&serde_json::from_str(&plan).ok()?, &mut spans);
        // A query without any scan may be one whose scans are called something else.
        (!spans.is_empty() && !spans.contains(&ALL)).then_some(spans)
    }
}

/// `statement` with `values` for its parameters, which `tree` (what `json_serialize_sql` says of it) tells the places of. Each
/// has the type that it has where the statement runs. `None` where a parameter has no value, or no place.
pub fn fill_in(statement: &str, tree: &str, values: &[Param]) -> Option<String> {
    // Between quotes within a text there are backslashes, so this is no text of the user.
    let nodes = tree.match_indices(r#"{"class":"PARAMETER""#).map(|(at, _)| Parameter::read(tree.get(at..)?));
    let mut parameters = nodes.collect::<Option<Vec<_>>>()?;
    parameters.sort_unstable_by_key(|parameter| parameter.query_location);
    let (mut filled, mut done) = (String::new(), 0);
    for Parameter { query_location: begin, query_location_length: length, identifier } in parameters {
        let number = identifier.parse::<usize>().ok()?.checked_sub(1)?;
        if !statement.get(begin..begin + length)?.starts_with(['?', '$']) {
            return None;
        }
        filled.push_str(statement.get(done..begin)?);
        filled.push_str(&literal(values.get(number)?));
        done = begin + length;
    }
    filled.push_str(statement.get(done..)?);
    Some(filled)
}

/// Where a parameter stands in the text, and its number from 1, or its name.
#[derive(Deserialize)]
struct Parameter {
    query_location: usize,
    query_location_length: usize,
    identifier: String,
}

impl Parameter {
    /// Reads one at the beginning of `tree`.
    fn read(tree: &str) -> Option<Self> {
        serde_json::Deserializer::from_str(tree).into_iter().next()?.ok()
    }
}

/// SQL for a value, with its type.
fn literal(value: &Param) -> String {
    match value {
        Param::Null => "null".to_owned(),
        Param::Bool(value) => value.to_string(),
        Param::Int(value) => format!("cast('{value}' as bigint)"),
        Param::Real(value) => format!("cast('{value:e}' as double)"),
        Param::Text(value) => format!("cast('{}' as varchar)", value.replace('\'', "''")),
        Param::Time(value) => format!("make_timestamp(cast('{}' as bigint))", value.0),
    }
}

/// Times from the first through the last, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: i64,
    pub to: i64,
}

/// It begins a microsecond after the first time there is, whose number no SQL can say.
const ALL: Span = Span { from: -i64::MAX, to: i64::MAX };

impl Span {
    fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    /// And all between the two.
    fn or(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }
}

/// Adds the span of each scan of `readings` in the plan.
fn collect(plan: &Value, spans: &mut Vec<Span>) {
    match plan {
        Value::Object(members) => {
            if word(plan, "type") == "LOGICAL_GET" && word(&plan["function_data"], "table") == "readings" {
                spans.push(scanned(plan).unwrap_or(ALL));
            }
            members.values().for_each(|member| collect(member, spans));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, spans)),
        _ => {}
    }
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// What the filters of a scan let through; `None` where they are not as expected.
fn scanned(scan: &Value) -> Option<Span> {
    let Some(filters) = scan.pointer("/table_filters/filters").and_then(Value::as_array) else { return Some(ALL) };
    if scan["table_filters_by_projection"] != true {
        return None;
    }
    let columns = scan["column_indexes"].as_array()?;
    let mut span = ALL;
    for filter in filters {
        let column = columns.get(usize::try_from(filter["key"].as_u64()?).ok()?)?;
        // The first column is the time.
        if column["index"].as_u64()? == 0 {
            span = span.and(passed(&filter["value"]));
        }
    }
    Some(span)
}

/// What one filter of the time lets through, or more.
fn passed(filter: &Value) -> Span {
    let children = || filter["child_filters"].as_array().into_iter().flatten().map(passed);
    match word(filter, "filter_type") {
        "LEGACY_CONSTANT_COMPARISON" => compared(word(filter, "comparison_type"), &filter["constant"]).unwrap_or(ALL),
        "LEGACY_CONJUNCTION_AND" => children().fold(ALL, Span::and),
        "LEGACY_CONJUNCTION_OR" => children().reduce(Span::or).unwrap_or(ALL),
        "LEGACY_OPTIONAL_FILTER" => passed(&filter["child_filter"]),
        "LEGACY_IN_FILTER" => {
            let values = filter["values"].as_array().into_iter().flatten();
            values.map(|value| compared("COMPARE_EQUAL", value).unwrap_or(ALL)).reduce(Span::or).unwrap_or(ALL)
        }
        _ => ALL,
    }
}

fn compared(comparison: &str, constant: &Value) -> Option<Span> {
    if word(&constant["type"], "id") != "TIMESTAMP" {
        return None;
    }
    let time = constant["value"].as_i64()?;
    match comparison {
        "COMPARE_EQUAL" => Some(Span { from: time, to: time }),
        "COMPARE_GREATERTHAN" | "COMPARE_GREATERTHANOREQUALTO" => Some(Span { from: time, ..ALL }),
        "COMPARE_LESSTHAN" | "COMPARE_LESSTHANOREQUALTO" => Some(Span { to: time, ..ALL }),
        _ => None,
    }
}
