//! Every answer of these tests is held against the description: its status, its type, its headers, and each of its members.

use std::sync::LazyLock;

use axum::http::header;
use serde_json::Value;

use super::ask::Answered;
use crate::api::docs::describe;

pub static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(&describe()).unwrap());

/// What is answered where there is no route, and by the guard before it looks whether there is.
const ELSEWHERE: [u16; 5] = [401, 403, 404, 405, 415];

pub fn check(method: &str, uri: &str, answer: &Answered) {
    let path = uri.split('?').next().unwrap();
    let operation = &DESCRIPTION["paths"][path][method.to_lowercase()];
    let told = &operation["responses"][answer.status.as_str()];
    if !operation.is_object() {
        assert!(ELSEWHERE.contains(&answer.status.as_u16()), "{method} {uri} answers {}", answer.status);
        return;
    }
    assert!(told.is_object(), "{method} {uri} answers {}, which is not described", answer.status);
    for name in [header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
        let is_told = told["headers"].as_object().is_some_and(|told| told.keys().any(|told| told.eq_ignore_ascii_case(name.as_str())));
        assert!(is_told || !answer.headers.contains_key(&name), "{method} {uri} answers {name}, which is not described");
    }
    let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap().split(';').next().unwrap();
    let content = &told["content"][kind];
    assert!(content.is_object(), "{method} {uri} answers {kind}, which is not described");
    if kind == "application/json" {
        check_members(&answer.json(), &content["schema"], uri);
    }
}

/// That all that is referred to is there.
pub fn check_references(part: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(name) = part["$ref"].as_str() {
                assert!(DESCRIPTION.pointer(name.trim_start_matches('#')).is_some(), "{name} is nowhere");
            }
            members.values().for_each(check_references);
        }
        Value::Array(elements) => elements.iter().for_each(check_references),
        _ => {}
    }
}

/// The members that the body of `operation` may have, in order.
pub fn members_of_body(operation: &Value) -> Vec<String> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let objects = alternatives(schema).into_iter().filter_map(|schema| schema["properties"].as_object());
    let mut names: Vec<_> = objects.flat_map(|members| members.keys().cloned()).collect();
    names.sort();
    names
}

/// That every member of every object in `value` is told of in `schema`.
fn check_members(value: &Value, schema: &Value, place: &str) {
    match value {
        Value::Object(members) => {
            let known = alternatives(schema);
            let is_open = known.iter().all(|schema| schema["properties"].is_null());
            for (name, member) in members.iter().filter(|_| !is_open) {
                let told = known.iter().map(|schema| &schema["properties"][name]).find(|told| !told.is_null());
                let told = told.unwrap_or_else(|| panic!("{place}.{name} is not described"));
                check_members(member, told, &format!("{place}.{name}"));
            }
        }
        Value::Array(elements) => {
            let known = alternatives(schema);
            let of = known.iter().map(|schema| &schema["items"]).find(|items| !items.is_null());
            let of = of.unwrap_or_else(|| panic!("{place} is not described as an array"));
            elements.iter().for_each(|element| check_members(element, of, &format!("{place}[]")));
        }
        _ => {}
    }
}

/// `schema` with all that it refers to and is made of.
fn alternatives(schema: &Value) -> Vec<&Value> {
    let mut found = vec![schema];
    if let Some(name) = schema["$ref"].as_str() {
        let target = DESCRIPTION.pointer(name.trim_start_matches('#'));
        found.extend(alternatives(target.unwrap_or_else(|| panic!("{name} is nowhere"))));
    }
    for keyword in ["allOf", "oneOf", "anyOf"] {
        found.extend(schema[keyword].as_array().into_iter().flatten().flat_map(alternatives));
    }
    found
}
