//! The daemon: open, run, stop; one line a room.
//!
//! Owns: the order of the life cycle, the data folder's lock. Does not own: any state of a room.
//! Start: folder, ledger, recovery, doors (so that status answers early), upload, sealer, retention, engine, sources last,
//! READY.
//! Stop: sources, pump, sealer and enforcer, uploader, doors, engine, ledger; each up to its deadline.
//! On failure: a critical task's end stops the rest in order, and the process ends with a failure so that it is started
//! again from disk.

mod check;
mod folder;
mod gather;
mod reload;
mod rooms;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::api::ApiError;
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::disk;
use crate::error::ErrorKind;
use crate::ingest::client::ClientError;
use crate::ingest::listener::ListenerError;
use crate::ingest::route::RouteError;
use crate::ledger::LedgerError;
use crate::segment::{Demand, SegmentError};
use crate::status::{self, Status, StatusError, systemd};
use crate::tasks::{Failure, TaskSet};
use crate::upload::UploadError;

pub use check::check;
use folder::{FolderError, FolderLock};
use rooms::Rooms;

/// The daemon could not start, or ended because something failed.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The segments.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The upstream.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The routes.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The listener.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// The broker's client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The doors.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A critical task ended.
    #[error("{} failed: {}", .0.task, .0.message)]
    Task(Failure),
}

impl DaemonError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Folder(FolderError::Unusable { .. }) => ErrorKind::Config,
            Self::Folder(FolderError::Taken { .. }) | Self::Task(_) => ErrorKind::Broken,
            Self::Ledger(error) => error.kind(),
            Self::Segment(error) => error.kind(),
            Self::Upload(error) => error.kind(),
            Self::Route(_) => ErrorKind::Config,
            Self::Listener(error) => error.kind(),
            Self::Client(error) => error.kind(),
            Self::Api(error) => error.kind(),
        }
    }
}

/// A daemon that runs.
pub struct Daemon {
    tasks: TaskSet,
    rooms: Rooms,
    _lock: FolderLock,
}

/// The addresses really bound.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// Of the MQTT listener.
    pub mqtt: Vec<SocketAddr>,
    /// Of HTTP on TCP.
    pub http: Vec<SocketAddr>,
    /// Of Flight SQL.
    pub flight: Vec<SocketAddr>,
}

impl Daemon {
    /// Starts everything; returns when the sources run.
    ///
    /// # Errors
    /// The first room that can't start.
    pub async fn start(config: Config) -> Result<Self, DaemonError> {
        let lock = folder::take(&config.gateway.data_dir)?;
        let open_files = disk::raise_file_limit();
        tracing::debug!(open_files, "this many files may be open");
        let clock: SharedClock = Arc::new(SystemClock);
        let tasks = TaskSet::new();
        let rooms = match rooms::open(config, clock, &tasks).await {
            Ok(rooms) => rooms,
            Err(error) => {
                tasks.stop().await;
                return Err(error);
            }
        };
        systemd::ready();
        Ok(Self { tasks, rooms, _lock: lock })
    }

    /// The addresses really bound.
    pub fn addresses(&self) -> &Addresses {
        &self.rooms.addresses
    }

    /// What it does now.
    ///
    /// # Errors
    /// The ledger can't be read.
    pub async fn status(&self) -> Result<Status, StatusError> {
        let sources = Arc::clone(&self.rooms.sources);
        let report = tokio::task::spawn_blocking(move || status::report(&sources)).await;
        report.unwrap_or_else(|panic| Err(LedgerError::Broken(format!("reading it panicked: {panic}")).into()))
    }

    /// Seals what is hot and wakes the uploader.
    ///
    /// # Errors
    /// What keeps it from sealing.
    pub async fn flush(&self) -> Result<(), SegmentError> {
        self.rooms.sealer.seal_now(Demand::Flush).await?;
        if let Some(uploader) = &self.rooms.uploader {
            uploader.flush().await.map_err(SegmentError::from)?;
        }
        Ok(())
    }

    /// Takes the routes, the limits and the commit settings of `config` while it runs; names the sections of which something
    /// waits for the next start.
    ///
    /// # Errors
    /// Something in it is wrong: nothing is changed.
    pub fn reload(&self, config: Config) -> Result<Vec<&'static str>, DaemonError> {
        if let Some(error) = check(&config).into_iter().next() {
            return Err(error);
        }
        Ok(self.rooms.live.apply(config)?)
    }

    /// Returns when a critical task has failed.
    pub async fn failed(&self) {
        self.tasks.failed().await;
    }

    /// Ends everything in order.
    ///
    /// # Errors
    /// The failure that made it end, if there was one.
    pub async fn stop(self) -> Result<(), DaemonError> {
        systemd::stopping();
        tracing::info!("stopping");
        self.tasks.stop().await;
        let closed = self.rooms.ledger.close().await;
        if let Some(failure) = self.tasks.failure() {
            return Err(DaemonError::Task(failure));
        }
        tracing::info!("stopped");
        Ok(closed?)
    }
}
