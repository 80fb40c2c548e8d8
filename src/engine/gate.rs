//! The gate: which SQL may run at all. It judges the syntax tree that DuckDB's own parser gives.
//!
//! It is the first of several layers: what passes runs nested, in a read-only transaction, in a process that can reach
//! the segments and nothing else.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::protocol::{Failure, FailureKind};
use super::sql::place;

/// Functions with effects, or that run text as SQL or read files as bytes; queries have no use for them.
const DENIED_FUNCTIONS: [&str; 21] = [
    "checkpoint",
    "force_checkpoint",
    "vacuum",
    "disable_logging",
    "enable_logging",
    "enable_profile",
    "enable_profiling",
    "truncate_duckdb_logs",
    "write_log",
    "set_log_level",
    "sleep_ms",
    "getenv",
    "glob",
    "read_blob",
    "read_text",
    "query",
    "query_table",
    "json_execute_serialized_sql",
    "duckdb_secrets",
    "duckdb_settings",
    "which_secret",
];

const ONE_SELECT: &str = "a query is one SELECT (also WITH, FROM, VALUES, DESCRIBE, SUMMARIZE or SHOW TABLES); nothing else is allowed";

/// What `json_serialize_sql` says around the statements.
#[derive(Deserialize)]
struct Tree {
    error: bool,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error_message: String,
    position: Option<String>,
    /// Only counted here: they nest deeper than what is read at once may.
    statements: Option<Vec<IgnoredAny>>,
}

/// Judges `sql` by `tree`, which is what `json_serialize_sql` says of it.
pub fn judge(sql: &str, tree: &str) -> Result<(), Failure> {
    let read: Tree = serde_json::from_str(tree)
        .map_err(|error| Failure { kind: FailureKind::Internal, message: format!("the syntax tree can't be read: {error}") })?;
    if read.error {
        return Err(parse_failure(sql, &read));
    }
    match read.statements.map(|statements| statements.len()) {
        Some(1) => forbidden(tree).map_or(Ok(()), |what| Err(denied(format!("{what} is not allowed in a query")))),
        Some(0) => Err(wrong("there is no statement".to_owned())),
        Some(several) => Err(denied(format!("one statement at a time; these are {several}"))),
        None => Err(denied(ONE_SELECT.to_owned())),
    }
}

fn denied(message: String) -> Failure {
    Failure { kind: FailureKind::Denied, message }
}

fn wrong(message: String) -> Failure {
    Failure { kind: FailureKind::Sql, message }
}

fn parse_failure(sql: &str, tree: &Tree) -> Failure {
    if tree.error_type == "not implemented" {
        return denied(match sql.split_whitespace().next().map(str::to_ascii_lowercase).as_deref() {
            Some("pivot") => "PIVOT needs its values, as in PIVOT t ON x IN (1, 2) USING sum(y)".to_owned(),
            _ => ONE_SELECT.to_owned(),
        });
    }
    let message = &tree.error_message;
    if message.starts_with("Max expression depth") {
        return wrong(format!("an expression is nested too deep: {} levels at most", super::sql::MAX_DEPTH));
    }
    match tree.position.as_ref().and_then(|position| position.parse().ok()) {
        Some(position) => {
            let (line, column) = place(sql, position);
            wrong(format!("Parser Error: {message} (line {line}, column {column})"))
        }
        None => wrong(format!("Parser Error: {message}")),
    }
}

/// What in the tree is not allowed, if anything is.
fn forbidden(tree: &str) -> Option<String> {
    Words { rest: tree, key: "" }.find_map(|(key, word)| match key {
        "function_name" => {
            let name = word.to_ascii_lowercase();
            DENIED_FUNCTIONS.contains(&name.as_str()).then(|| format!("{name}()"))
        }
        "type" => word.strip_suffix("_QUERY_NODE").filter(|node| changes(node)).map(|change| format!("{change} inside WITH")),
        _ => None,
    })
}

fn changes(node: &str) -> bool {
    ["COPY", "INSERT", "UPDATE", "DELETE", "MERGE", "MERGE_INTO"].contains(&node)
}

/// Functions whose value depends on the DuckDB that is asked, beside those of the clock, which `database` makes.
const OF_THIS_PLACE: [&str; 11] = [
    "ago",
    "current_catalog",
    "current_database",
    "current_schema",
    "current_schemas",
    "current_setting",
    "getvariable",
    "in_search_path",
    "pg_conf_load_time",
    "pg_postmaster_start_time",
    "txid_current",
];

/// Whether the statement of `tree` means the same to another DuckDB with the same tables. Functions that are named with their
/// schema may be the system's own clock.
pub fn same_everywhere(tree: &str) -> bool {
    !Words { rest: tree, key: "" }.any(|(key, word)| match key {
        "function_name" => OF_THIS_PLACE.iter().any(|name| word.eq_ignore_ascii_case(name)),
        "schema" | "catalog" => true,
        _ => false,
    })
}

/// The members of a JSON text, at any depth, whose values are texts. What needs an escape is no name that is looked for.
struct Words<'a> {
    rest: &'a str,
    key: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (between, after) = self.rest.split_once('"')?;
            let (word, rest) = quoted(after)?;
            self.rest = rest;
            if rest.trim_start().starts_with(':') {
                self.key = word;
            } else if between.trim() == ":" {
                return Some((self.key, word));
            }
        }
    }
}

/// The text up to the quote that ends it, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(sql: &str, tree: &str) -> (FailureKind, String) {
        let Failure { kind, message } = judge(sql, tree).unwrap_err();
        (kind, message)
    }

    #[test]
    fn one_select_passes() {
        judge("select 1", r#"{"error":false,"statements":[{"node":{"type":"SELECT_NODE"}}]}"#).unwrap();
    }

    #[test]
    fn none_and_several_do_not() {
        assert_eq!(verdict("", r#"{"error":false,"statements":[]}"#).0, FailureKind::Sql);
        let (kind, message) = verdict("", r#"{"error":false,"statements":[{},{}]}"#);
        assert_eq!((kind, message.as_str()), (FailureKind::Denied, "one statement at a time; these are 2"));
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        let tree = r#"{"error":true,"error_type":"parser","error_message":"syntax error at or near \"selec\"","position":"9"}"#;
        let (kind, message) = verdict("-- a\n    selec 1", tree);
        assert_eq!(kind, FailureKind::Sql);
        assert_eq!(message, "Parser Error: syntax error at or near \"selec\" (line 2, column 5)");
    }

    #[test]
    fn what_is_no_select_is_denied_with_a_hint_where_there_is_one() {
        let tree = r#"{"error":true,"error_type":"not implemented","error_message":"Only SELECT statements can be serialized to json!"}"#;
        assert_eq!(verdict("drop table x", tree), (FailureKind::Denied, ONE_SELECT.to_owned()));
        assert!(verdict("pivot t on x", tree).1.contains("IN (1, 2)"));
    }

    #[test]
    fn functions_with_effects_and_changes_of_data_are_found_however_deep() {
        let function = r#"{"error":false,"statements":[{"node":{"from_table":[{"function":{"function_name":"Checkpoint"}}]}}]}"#;
        assert_eq!(verdict("", function).1, "checkpoint() is not allowed in a query");
        let copy = r#"{"error":false,"statements":[{"node":{"cte_map":{"map":[{"value":{"query_node":{"type":"COPY_QUERY_NODE"}}}]}}}]}"#;
        assert_eq!(verdict("", copy).1, "COPY inside WITH is not allowed in a query");
    }

    #[test]
    fn a_tree_of_any_depth_is_read_to_its_end() {
        let of = |leaf: &str| format!("{{\"error\":false,\"statements\":[{}{leaf}{}]}}", "{\"child\":[".repeat(5000), "]}".repeat(5000));
        judge("select 1", &of(r#"{"function_name":"sum"}"#)).unwrap();
        assert_eq!(verdict("", &of(r#"{"function_name":"getenv"}"#)).1, "getenv() is not allowed in a query");
    }

    #[test]
    fn names_are_told_from_texts_that_look_like_them() {
        for harmless in [
            r#"{"value":"function_name\":\"getenv"}"#,
            r#"{"value":"\\","alias":"getenv"}"#,
            r#"{"list":["function_name","getenv"]}"#,
            r#"{"function_name":"sum","value":"COPY_QUERY_NODE"}"#,
        ] {
            judge("select 1", &format!("{{\"error\":false,\"statements\":[{harmless}]}}")).unwrap();
        }
        let told = verdict("", r#"{"error":false,"statements":[{"value":"\\" , "function_name" : "getenv"}]}"#);
        assert_eq!(told.1, "getenv() is not allowed in a query");
    }

    #[test]
    fn functions_of_this_place_and_those_with_a_schema_are_known() {
        let of = |member: &str| same_everywhere(&format!(r#"{{"error":false,"statements":[{{{member}}}]}}"#));
        assert!(of(r#""function_name":"now""#) && of(r#""value":"getvariable""#) && of(r#""schema_name":"main""#));
        assert!(!of(r#""function_name":"GetVariable""#) && !of(r#""function_name":"now","schema":"main""#));
    }

    #[test]
    fn a_tree_that_is_none_is_not_taken_for_consent() {
        for tree in ["", "{}", "[]", "null", r#"{"error":false}"#, r#"{"statements":[{}]}"#] {
            assert!(judge("select 1", tree).is_err(), "{tree}");
        }
    }
}
