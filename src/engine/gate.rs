//! The gate: which SQL may run at all. It judges the syntax tree that DuckDB's own parser gives.
//!
//! It is the first of several layers: what passes runs nested, in a read-only transaction, in a process that can reach
//! the segments and nothing else.

use serde_json::Value;

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

/// Judges `sql` by `tree`, which is what `json_serialize_sql` says of it.
pub fn judge(sql: &str, tree: &str) -> Result<(), Failure> {
    let tree: Value = serde_json::from_str(tree)
        .map_err(|error| Failure { kind: FailureKind::Internal, message: format!("the syntax tree can't be read: {error}") })?;
    if tree.get("error").and_then(Value::as_bool) != Some(false) {
        return Err(parse_failure(sql, &tree));
    }
    match tree.get("statements").and_then(Value::as_array).map(Vec::as_slice) {
        Some([statement]) => forbidden(statement).map_or(Ok(()), |what| Err(denied(format!("{what} is not allowed in a query")))),
        Some([]) => Err(wrong("there is no statement".to_owned())),
        Some(several) => Err(denied(format!("one statement at a time; these are {}", several.len()))),
        None => Err(denied(ONE_SELECT.to_owned())),
    }
}

fn denied(message: String) -> Failure {
    Failure { kind: FailureKind::Denied, message }
}

fn wrong(message: String) -> Failure {
    Failure { kind: FailureKind::Sql, message }
}

fn parse_failure(sql: &str, tree: &Value) -> Failure {
    let text = |key: &str| tree.get(key).and_then(Value::as_str);
    if text("error_type") == Some("not implemented") {
        return denied(match sql.split_whitespace().next().map(str::to_ascii_lowercase).as_deref() {
            Some("explain") => "EXPLAIN is not supported yet".to_owned(),
            Some("pivot") => "PIVOT needs its values, as in PIVOT t ON x IN (1, 2) USING sum(y)".to_owned(),
            _ => ONE_SELECT.to_owned(),
        });
    }
    let message = text("error_message").unwrap_or("the statement can't be parsed");
    match text("position").and_then(|position| position.parse().ok()) {
        Some(position) => {
            let (line, column) = place(sql, position);
            wrong(format!("Parser Error: {message} (line {line}, column {column})"))
        }
        None => wrong(format!("Parser Error: {message}")),
    }
}

/// What in the tree is not allowed, if anything is.
fn forbidden(tree: &Value) -> Option<String> {
    match tree {
        Value::Object(members) => {
            let word = |key: &str| members.get(key).and_then(Value::as_str);
            let function = word("function_name").map(str::to_ascii_lowercase);
            if let Some(name) = function.filter(|name| DENIED_FUNCTIONS.contains(&name.as_str())) {
                return Some(format!("{name}()"));
            }
            if let Some(change) = word("type").and_then(|node| node.strip_suffix("_QUERY_NODE")).filter(|node| changes(node)) {
                return Some(format!("{change} inside WITH"));
            }
            members.values().find_map(forbidden)
        }
        Value::Array(items) => items.iter().find_map(forbidden),
        _ => None,
    }
}

fn changes(node: &str) -> bool {
    ["COPY", "INSERT", "UPDATE", "DELETE", "MERGE", "MERGE_INTO"].contains(&node)
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
        assert!(verdict("Explain select 1", tree).1.contains("EXPLAIN"));
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
    fn a_tree_that_is_none_is_not_taken_for_consent() {
        for tree in ["", "{}", "[]", "null", r#"{"error":false}"#, r#"{"statements":[{}]}"#] {
            assert!(judge("select 1", tree).is_err(), "{tree}");
        }
    }
}
