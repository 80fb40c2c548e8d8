//! The house rules, checked on every file: sizes, fences, the direction of imports, banned words.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_LINE_WIDTH: usize = 140;

/// Third-party names and the rooms that may speak them.
const FENCES: [(&str, &[&str]); 9] = [
    ("duckdb", &["engine"]),
    ("rusqlite", &["ledger"]),
    ("rumqttc", &["ingest"]),
    ("parquet", &["segment"]),
    ("object_store", &["upload"]),
    ("axum", &["api"]),
    ("tonic", &["api"]),
    ("arrow_flight", &["api"]),
    ("libc", &["clock.rs", "memory.rs", "engine"]),
];

/// Rooms in the order of the data path: a room imports those before it, never those after. What is no room (the clock, the
/// disk ...) is the base below them: it imports `model` and no other room.
const PATH: [&str; 13] =
    ["model", "config", "ledger", "ingest", "segment", "upload", "retention", "engine", "range", "status", "api", "daemon", "cli"];

/// What must not stand in the sources: leftovers, and names that place nothing.
const BANNED: [&str; 6] = ["todo!(", "unimplemented!(", "FIXME", "XXX", "dbg!(", "HACK"];
const BANNED_FILES: [&str; 5] = ["utils", "common", "helpers", "manager", "misc"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Name, below `folder`, and text of every file.
fn texts(folder: &str) -> Vec<(String, String)> {
    let folder = root().join(folder);
    let named = files_below(&folder, "rs").into_iter();
    named.map(|path| (path.strip_prefix(&folder).unwrap().display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

fn sources() -> Vec<(String, String)> {
    texts("src")
}

/// Sources, tests and benchmarks, by their names below the root.
fn all_code() -> Vec<(String, String)> {
    let below = |folder: &'static str| texts(folder).into_iter().map(move |(name, text)| (format!("{folder}/{name}"), text));
    ["src", "tests", "benches"].into_iter().flat_map(below).collect()
}

/// The lines of code, numbered from 1, without comments and without the tests at the end of the file; none of a file of
/// tests.
fn product_code<'a>(name: &str, text: &'a str) -> Vec<(usize, &'a str)> {
    if name.contains("/tests/") || name.ends_with("tests.rs") {
        return Vec::new();
    }
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//")).collect()
}

/// The room of a source file: its folder below `src/`, or its own name.
fn room(name: &str) -> &str {
    name.split('/').next().unwrap().trim_end_matches(".rs")
}

fn check(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn no_file_is_too_long_and_no_line_too_wide() {
    let mut problems = Vec::new();
    for (name, text) in all_code() {
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            problems.push(format!("{name}: {lines} lines, {MAX_FILE_LINES} at most"));
        }
        let wide = text.lines().enumerate().filter(|(_, line)| line.chars().count() > MAX_LINE_WIDTH);
        problems.extend(wide.map(|(at, _)| format!("{name}:{}: wider than {MAX_LINE_WIDTH}", at + 1)));
    }
    check(problems);
}

#[test]
fn a_function_fits_a_screen() {
    let mut problems = Vec::new();
    for (name, text) in all_code() {
        let lines: Vec<_> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_function = line.trim_start().split("fn ").count() > 1 && !line.trim_start().starts_with("//") && line.contains('(');
            if !is_function || !(line.trim_start().starts_with("fn ") || line.contains(" fn ")) {
                continue;
            }
            let end = lines.iter().skip(start + 1).position(|line| line.len() - line.trim_start().len() == indent && line.trim() == "}");
            if let Some(length) = end.filter(|length| *length > MAX_FUNCTION_LINES) {
                problems.push(format!("{name}:{}: a function of {length} lines, {MAX_FUNCTION_LINES} at most", start + 1));
            }
        }
    }
    check(problems);
}

#[test]
fn third_party_names_stay_in_their_rooms() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        for (at, line) in product_code(&name, &text) {
            for (crate_name, rooms) in FENCES {
                let spoken = line.contains(&format!("{crate_name}::")) || line.contains(&format!("use {crate_name};"));
                if spoken && !rooms.iter().any(|allowed| name == *allowed || room(&name) == *allowed) {
                    problems.push(format!("src/{name}:{at}: {crate_name} belongs in {}", rooms.join(", ")));
                }
            }
        }
    }
    check(problems);
}

#[test]
fn imports_run_down_the_data_path_only() {
    let mut problems = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| !["lib.rs", "main.rs"].contains(&&**name)) {
        // The base imports what is before the second room: `model`.
        let own = PATH.iter().position(|known| *known == room(&name)).unwrap_or(0);
        for (at, line) in product_code(&name, &text) {
            let names = |later: &str| line.contains(&format!("crate::{later}::")) || line.contains(&format!("crate::{later};"));
            for later in PATH.iter().skip(own + 1).filter(|later| names(later)) {
                problems.push(format!("src/{name}:{at}: imports {later}, which comes later on the data path"));
            }
            if line.contains("crate::{") {
                problems.push(format!("src/{name}:{at}: one import a room"));
            }
        }
    }
    check(problems);
}

#[test]
fn nothing_is_left_behind_and_every_name_places_something() {
    let mut problems = Vec::new();
    for (name, text) in all_code().into_iter().filter(|(name, _)| !name.ends_with("tidy.rs")) {
        problems.extend(BANNED.iter().filter(|word| text.contains(**word)).map(|word| format!("{name}: {word}")));
        let stem = Path::new(&name).file_stem().unwrap().to_str().unwrap();
        if BANNED_FILES.contains(&stem) {
            problems.push(format!("{name}: the name places nothing"));
        }
    }
    check(problems);
}

#[test]
fn every_dependency_has_its_reason_beside_it() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut problems = Vec::new();
    let (mut section, mut reasoned) = (String::new(), false);
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        }
        let is_dependency = section.contains("dependencies]") && line.contains(" = ");
        if is_dependency && !reasoned {
            problems.push(format!("Cargo.toml: {line} has no reason above it"));
        }
        // A reason covers the lines directly below it.
        reasoned = line.starts_with('#') || (is_dependency && reasoned);
    }
    check(problems);
}

#[test]
fn the_readme_and_the_check_run_the_same_tests() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let check = fs::read_to_string(root().join(".ci/run")).unwrap();
    let command = readme.lines().find(|line| line.starts_with("cargo test")).expect("README.md has a line with the test command");
    assert!(check.contains(command), ".ci/run does not run `{command}`");
}
