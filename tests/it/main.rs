//! Tests that drive the real program: one binary, so that DuckDB is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod bad_input;
mod crash_points;
mod faults;
mod files;
mod flight;
mod redelivery;
mod retention;
mod sql;
mod story;
mod support;
mod tidy;
