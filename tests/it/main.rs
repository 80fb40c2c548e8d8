//! Tests that drive the real program: one binary, so that DuckDB is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod access;
mod bad_input;
#[path = "../support/certificates.rs"]
mod certificates;
mod crash_points;
mod description;
mod doctor;
mod engine;
mod engine_unit;
mod exactly_once;
mod faults;
mod files;
mod flight;
mod http;
mod packaging;
mod redelivery;
mod reload;
mod retention;
mod s3;
mod secrets;
mod sql;
mod story;
mod support;
mod tidy;
mod tls;
mod unshipped;
mod upgrade;
mod watching;
