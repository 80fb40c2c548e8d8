//! forebay keeps sensor readings safe on a gateway, answers SQL on the spot, and sends everything upstream as Parquet.
//!
//! This page is the map. The words it uses mean one thing each, here, in code, configuration, status and documents.
//!
//! # The way of a reading
//!
//! ```text
//!  MQTT broker --> client   \                        commit (one transaction, one fsync)
//!                             > decode, by route \    |
//!  MQTT sensors -> listener  /        |            > batcher --> [ ledger: journal, records, series, marks, counters ]
//!  HTTP ---------> http ------------- | --------- /                 |  after the commit: settle, which acknowledges
//!  files --------> importer --------- | --------------- import ---> |
//!                                     v                             v  cut (by count, age or on demand)
//!                                 quarantine              [ segments/*.parquet ]  sort, write, fsync, verify, rename, fsync
//!                                                                   |             folder, then ONE transaction
//!                                                                   v
//!                                                    upload (parts, then the manifest) --> the lake
//!                                                                   |
//!                                                                   v
//!                       merge what is delivered, and what nobody ships; retention: evict, then drop or refuse by `when_full`
//! ```
//!
//! Data flows one way; only hints flow back. The store is the queue, a hint is a wake-up without data
//! ([`ledger::Ledger::progress`]), a tick is the safety net. Each worker's loop asks, acts, records.
//!
//! # The rooms
//!
//! | room | owns |
//! | --- | --- |
//! | [`model`] | the nouns; no I/O |
//! | [`config`] | the settings as plain data |
//! | [`ingest`] | sources and their sessions, what messages mean, the batch that gathers ([`ingest::Pump`]) |
//! | [`ledger`] | `forebay.db`: the journal, the books, the next seq, cut and shipment |
//! | [`segment`] | segment files: [`segment::SegmentDir`] alone creates and removes them |
//! | [`upload`] | the shipment under way and the link; what a lake must be ([`upload::verify`]) |
//! | [`retention`] | the limits: what must go, in which order, and whether readings are taken ([`space::Space`]) |
//! | [`engine`] | DuckDB, in a process that may die: a child, or a unit of its own |
//! | [`range`] | nothing: it reads one series, or all, from journal and segments, without SQL |
//! | [`status`] | what the daemon says of itself |
//! | [`api`] | the doors; no logic |
//! | [`daemon`] | open, run, stop: one line a room |
//! | [`cli`] | the commands; thin |
//!
//! Rooms import those before them and never those after: model, config, ledger, ingest, segment, upload, retention, engine,
//! range, status, api, daemon, cli. Below them all is the base, which imports the model and no other room: [`disk`] (what
//! makes a file durable), [`owner`] (a thread that owns a blocking resource), [`tasks`] (the supervisor), [`space`] (whether
//! readings are taken), [`clock`], [`error`], [`memory`], [`failpoints`], [`secrets`], [`tls`], what is read again when its
//! files change, what strangers do wrong at a door, and the pauses between attempts. Third-party names are fenced: SQLite is
//! spoken in `ledger` alone, DuckDB in `engine`, MQTT in `ingest`, Parquet in `segment`, object stores in `upload`, HTTP
//! servers in `api`. A test checks it.
//!
//! # Invariants
//!
//! 1. Acknowledged after fsync.
//! 2. An accepted reading is in exactly one of: journal, one sealed segment, delivered, loss ledger.
//! 3. Nothing is removed before its successor is durable and recorded.
//! 4. The books in the ledger balance after every transaction ([`model::Books::balanced`]).
//! 5. A file is complete under its final name or absent.
//! 6. Upstream names are a function of gateway, instance and number; a manifest's bytes are in the ledger before they are
//!    put. One shipment is under way at most.
//! 7. No message, query or file can end the daemon.
//! 8. A failed fsync is never tried again: stop acknowledging, exit, start again from disk.
//! 9. Damage is found by checksum, set aside, counted and reported, never deleted.
//! 10. What a query can see changes atomically: a seal neither hides nor doubles a reading.
//!
//! # Absences
//!
//! There are no globals: a second pipeline with its own data folder can run in the same process. DuckDB writes no file. No
//! room but `ledger` can begin a transaction, and none but `segment` can remove a file of readings. Nothing in this process
//! opens `forebay.db` but SQLite itself: closing any other descriptor of it would drop the locks that SQLite holds.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking"))]

pub mod api;
mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod disk;
pub mod engine;
pub mod error;
pub mod failpoints;
pub mod ingest;
pub mod ledger;
pub mod memory;
pub mod model;
pub mod owner;
pub mod range;
mod refusals;
pub mod retention;
pub mod secrets;
pub mod segment;
pub mod space;
pub mod status;
pub mod tasks;
pub mod tls;
pub mod upload;
mod watched;
