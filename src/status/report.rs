//! The report: reads the ledger once, asks the rooms once, and puts both together.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::health::{Signs, judge};
use super::machine;
use super::now::Now;
use super::page::{BufferPage, ClockPage, FlashPage, IngestPage, LinkPage, LinkState, ProcessPage, Status};
use super::pulse::PulseWatch;
use crate::clock::SharedClock;
use crate::error::ErrorKind;
use crate::ledger::{Backlog, Ledger, LedgerError, Reader, Refusals};
use crate::model::{Books, Tally, Timestamp};

/// No report could be made.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The ledger can't be read.
    #[error("the status can't be read from the ledger")]
    Ledger(#[from] LedgerError),
}

impl StatusError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ledger(error) => error.kind(),
        }
    }
}

/// Everything a report is made of.
pub struct Sources {
    gateway: String,
    cap_bytes: AtomicU64,
    started: Instant,
    ledger: Ledger,
    clock: SharedClock,
    data_dir: PathBuf,
    pulse: Mutex<PulseWatch>,
    now: Box<dyn Fn() -> Now + Send + Sync>,
}

/// What the settings say that a report shows or judges by.
#[derive(Debug, Clone)]
pub struct Frame {
    /// This gateway's name in the lake.
    pub gateway: String,
    /// The data folder.
    pub data_dir: PathBuf,
    /// `retention.cap`.
    pub cap_bytes: u64,
}

impl Sources {
    /// `now` gathers what the rooms hold in memory; it is called once an answer and must not block.
    pub fn new(frame: Frame, ledger: Ledger, clock: SharedClock, now: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        let started = Instant::now();
        Self {
            gateway: frame.gateway,
            cap_bytes: AtomicU64::new(frame.cap_bytes),
            started,
            ledger,
            clock,
            data_dir: frame.data_dir,
            pulse: Mutex::new(PulseWatch::new(started)),
            now: Box::new(now),
        }
    }

    /// The cap has changed.
    pub fn set_cap(&self, cap_bytes: u64) {
        self.cap_bytes.store(cap_bytes, Ordering::Relaxed);
    }

    /// What the rooms hold in memory at this moment.
    pub fn now(&self) -> Now {
        (self.now)()
    }

    /// How long what arrived has been waiting without a commit.
    pub fn stalled(&self, now: &Now) -> Duration {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner).look(now.pulse, Instant::now())
    }

    fn around(&self, stalled: Duration) -> Surroundings {
        Surroundings {
            gateway: self.gateway.clone(),
            uptime: self.started.elapsed(),
            stalled,
            cap_bytes: self.cap_bytes.load(Ordering::Relaxed),
            disk_free_bytes: machine::disk_free_bytes(&self.data_dir),
            damaged_files: machine::damaged_files(&self.data_dir),
            rss_bytes: machine::rss_bytes(),
            written_bytes: machine::written_bytes(),
            clock_synchronized: self.clock.synchronised(),
        }
    }
}

/// What one snapshot of the ledger says.
#[derive(Debug, Clone, Default)]
pub struct LedgerFacts {
    /// Whose books these are.
    pub instance: String,
    /// Where every accepted reading is.
    pub books: Books,
    /// What arrived.
    pub tally: Tally,
    /// When the oldest hot batch was committed.
    pub oldest_hot: Option<Timestamp>,
    /// Segments here.
    pub segments: u64,
    /// What is sealed and not delivered.
    pub backlog: Backlog,
    /// What of it upstream refuses.
    pub refusals: Option<Refusals>,
}

impl LedgerFacts {
    /// Reads all of it in one snapshot. Blocks.
    ///
    /// # Errors
    /// The ledger can't be read.
    pub fn read(ledger: &Ledger) -> Result<Self, LedgerError> {
        let instance = ledger.identity().instance.to_string();
        ledger.reader()?.snapshot(|reader: &Reader| {
            Ok(Self {
                instance,
                books: reader.books()?,
                tally: reader.tally()?,
                oldest_hot: reader.hot()?.0,
                segments: reader.segment_count()?,
                backlog: reader.backlog()?,
                refusals: reader.refusals()?,
            })
        })
    }
}

/// What is neither in the ledger nor in a room.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// This gateway's name in the lake.
    pub gateway: String,
    /// Since the daemon's start.
    pub uptime: Duration,
    /// How long work has been waiting without a commit.
    pub stalled: Duration,
    /// The limit of the data folder.
    pub cap_bytes: u64,
    /// What is free on its file system.
    pub disk_free_bytes: u64,
    /// Files that failed their checksum.
    pub damaged_files: usize,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Bytes written since the start.
    pub written_bytes: u64,
    /// Whether something disciplines the clock.
    pub clock_synchronized: bool,
}

/// The status now. Blocks for short reads; call it on a blocking thread.
///
/// # Errors
/// The ledger can't be read.
pub fn report(sources: &Sources) -> Result<Status, StatusError> {
    let facts = LedgerFacts::read(&sources.ledger)?;
    let now = sources.now();
    let around = sources.around(sources.stalled(&now));
    Ok(assemble(&facts, &now, around))
}

/// Puts a status together. Pure.
pub fn assemble(facts: &LedgerFacts, now: &Now, around: Surroundings) -> Status {
    let (state, reasons) = judge(
        now,
        &Signs {
            books: facts.books,
            refusals: facts.refusals.clone(),
            stalled: around.stalled,
            disk_free_bytes: around.disk_free_bytes,
            cap_bytes: around.cap_bytes,
            damaged_files: around.damaged_files,
        },
    );
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: facts.instance.clone(),
        uptime_s: around.uptime.as_secs_f64(),
        state,
        reasons,
        ingest: ingest_page(facts, now),
        buffer: buffer_page(facts, now, &around),
        link: link_page(facts, now),
        books: facts.books.into(),
        engine: now.engine.clone(),
        clock: ClockPage { synchronized: around.clock_synchronized },
        process: ProcessPage { rss_bytes: around.rss_bytes },
        flash: flash_page(&around, now.ingest.committed_since_start),
        listeners: now.listeners.clone(),
        gateway: around.gateway,
    }
}

fn ingest_page(facts: &LedgerFacts, now: &Now) -> IngestPage {
    let tally = &facts.tally;
    IngestPage {
        messages: tally.messages(),
        messages_qos0: tally.messages_qos0,
        messages_qos1: tally.messages_qos1,
        messages_qos2: tally.messages_qos2,
        messages_http: tally.messages_http,
        readings: tally.readings,
        records: tally.records,
        rejected: tally.rejected,
        last_reject: now.ingest.last_reject.clone(),
        connections: now.ingest.connections,
        connections_refused: now.ingest.connections_refused,
        handshakes_failed: now.ingest.handshakes_failed,
        duplicates: tally.duplicates,
        ignored: tally.ignored,
        skipped_members: tally.skipped_members,
        times_replaced: tally.times_replaced,
        refused_under_pressure: now.ingest.refused_under_pressure,
        readings_per_s: now.ingest.readings_per_s,
        waiting: now.ingest.waiting,
        commit_p50_s: now.ingest.commit_p50.as_secs_f64(),
        commit_p99_s: now.ingest.commit_p99.as_secs_f64(),
        series: now.ingest.series,
        last_arrival: now.ingest.last_arrival,
    }
}

fn buffer_page(facts: &LedgerFacts, now: &Now, around: &Surroundings) -> BufferPage {
    BufferPage {
        hot_readings: facts.books.hot,
        segments: facts.segments,
        undelivered_readings: facts.books.hot + facts.backlog.readings,
        undelivered_bytes: facts.backlog.bytes,
        oldest_undelivered: [facts.backlog.oldest, facts.oldest_hot].into_iter().flatten().min(),
        disk_bytes: now.room.disk_bytes,
        cap_bytes: around.cap_bytes,
        disk_free_bytes: around.disk_free_bytes,
    }
}

fn link_page(facts: &LedgerFacts, now: &Now) -> LinkPage {
    let link = &now.link;
    LinkPage {
        state: link.state,
        since: link.since,
        last_success: link.last_success,
        last_error: link.last_error.clone(),
        delivered_readings: facts.books.delivered,
        delivered_bytes: link.delivered_bytes,
        sent_bytes: link.sent_bytes,
        bytes_per_s: link.bytes_per_s,
        refused_cuts: facts.refusals.as_ref().map_or(0, |refusals| refusals.cuts),
        drain_eta_s: drain_eta(facts, now),
    }
}

/// Seconds until the backlog is gone, while the link is online and more goes out than comes in.
fn drain_eta(facts: &LedgerFacts, now: &Now) -> Option<f64> {
    let backlog = &facts.backlog;
    let waiting = backlog.bytes.saturating_sub(backlog.held_bytes);
    let online = now.link.state == LinkState::Online;
    let bytes_per_reading = if backlog.readings == 0 { 0.0 } else { backlog.bytes as f64 / backlog.readings as f64 };
    let rate = now.link.bytes_per_s? - now.ingest.readings_per_s * bytes_per_reading;
    (online && rate > 0.0).then(|| waiting as f64 / rate)
}

/// Less time tells nothing of a day.
const DAY_TOLD_AFTER: Duration = Duration::from_secs(600);

const DAY_S: f64 = 86_400.0;

fn flash_page(around: &Surroundings, committed: u64) -> FlashPage {
    let Surroundings { written_bytes, uptime, .. } = *around;
    let bytes_per_reading = if committed == 0 { 0.0 } else { written_bytes as f64 / committed as f64 };
    let bytes_per_day = (uptime >= DAY_TOLD_AFTER).then(|| written_bytes as f64 / uptime.as_secs_f64() * DAY_S);
    FlashPage { written_bytes, bytes_per_reading, bytes_per_day }
}
