//! How the engine is: what status shows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::error::QueryError;
use super::process::resident_bytes;
use crate::model::Seq;

/// What the engine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It comes up for the first time.
    Starting,
    /// It answers.
    Ready,
    /// It ended and comes up again.
    Restarting,
    /// There is none, or it has not been started yet.
    #[default]
    Off,
}

/// How the engine is, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EngineReport {
    /// What it is doing.
    pub state: Phase,
    /// How often it was started again.
    pub restarts: u64,
    /// Whether it is a unit of its own, and no child of the daemon.
    pub own_unit: bool,
    /// Why there is none, where none can be started or reached.
    pub absence: Option<String>,
    /// Its resident memory.
    pub rss_bytes: u64,
    /// Highest seq that it answers for.
    pub last_seq: Seq,
    /// Segments attached.
    pub segments: usize,
    /// Segments here whose digest is not verified yet; while there are any, answers are incomplete.
    pub waiting_segments: usize,
    /// Readings that are hot, where they are more than it can hold: until they are sealed queries wait. Otherwise 0.
    pub excess_readings: u64,
    /// Layers of isolation that hold.
    pub isolation: Vec<String>,
}

/// The report, kept by the supervisor and read by status.
#[derive(Debug, Default)]
pub struct EngineState {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    report: EngineReport,
    pid: Option<u32>,
}

impl EngineState {
    /// How it is now. Reads the memory of the process.
    pub fn report(&self) -> EngineReport {
        let (report, pid) = {
            let kept = self.lock();
            (kept.report.clone(), kept.pid)
        };
        EngineReport { rss_bytes: pid.map_or(report.rss_bytes, resident_bytes), ..report }
    }

    /// What it is doing now.
    pub fn phase(&self) -> Phase {
        self.lock().report.state
    }

    /// Why there is none, where none can be started or reached.
    pub fn absence(&self) -> Option<String> {
        self.lock().report.absence.clone()
    }

    /// Whether answers cover every segment.
    pub fn complete(&self) -> bool {
        self.lock().report.waiting_segments == 0
    }

    /// Why a query could not be handed over in its time.
    pub(super) fn why_not(&self) -> QueryError {
        let report = &self.lock().report;
        match (report.state, &report.absence, report.excess_readings) {
            (Phase::Ready, _, 0) => QueryError::EngineGone,
            (_, Some(why), _) => QueryError::Absent(why.clone()),
            (_, None, 0) => QueryError::NotReady,
            (_, None, hot) => QueryError::Behind { hot },
        }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut EngineReport)) {
        change(&mut self.lock().report);
    }

    /// The process began, or is gone.
    pub(super) fn process(&self, pid: Option<u32>) {
        self.lock().pid = pid;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
