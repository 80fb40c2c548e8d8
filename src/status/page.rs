//! The status answer: its names are promises to dashboards and scripts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Books, Timestamp};

/// What `GET /api/v1/status` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// This gateway's name in the lake.
    pub gateway: String,
    /// The life of its data folder.
    pub instance: String,
    /// Since the daemon's start.
    pub uptime_s: f64,
    /// How it is.
    pub state: State,
    /// Why it is not `ok`.
    pub reasons: Vec<Reason>,
    /// What comes in.
    pub ingest: IngestPage,
    /// What is here.
    pub buffer: BufferPage,
    /// What goes out.
    pub link: LinkPage,
    /// Where every accepted reading is.
    pub books: BooksPage,
    /// SQL.
    pub engine: EnginePage,
    /// Time.
    pub clock: ClockPage,
    /// The daemon without its engine.
    pub process: ProcessPage,
    /// Wear.
    pub flash: FlashPage,
    /// Addresses really bound.
    pub listeners: Listeners,
}

/// How the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does all it should.
    #[default]
    Ok,
    /// It takes readings, but a person should look.
    Degraded,
    /// It does not take readings.
    Failing,
}

impl State {
    /// All of them, best first.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Degraded, Self::Failing];

    /// The word in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

/// Why the state is not `ok`: a code for scripts, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// For scripts, for example `disk_full`.
    pub code: String,
    /// For people: what is wrong, with the value.
    pub message: String,
    /// How bad it is.
    pub state: State,
}

impl Reason {
    /// A person should look.
    pub fn degraded(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), state: State::Degraded }
    }

    /// Readings are not taken.
    pub fn failing(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), state: State::Failing }
    }
}

/// What comes in. Totals cover this instance and survive restarts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct IngestPage {
    /// Messages of every kind: the sum of the four below.
    pub messages: u64,
    /// At QoS 0.
    pub messages_qos0: u64,
    /// At QoS 1.
    pub messages_qos1: u64,
    /// At QoS 2.
    pub messages_qos2: u64,
    /// Requests with readings.
    pub messages_http: u64,
    /// Readings committed.
    pub readings: u64,
    /// Records received.
    pub records: u64,
    /// Messages refused: they can't be decoded or exceed a limit.
    pub rejected: u64,
    /// Why the newest of them was; `None` if there was none since the start.
    pub last_reject: Option<String>,
    /// Messages redelivered, and so not stored again.
    pub duplicates: u64,
    /// Messages left out by a route.
    pub ignored: u64,
    /// Members skipped alone inside good messages.
    pub skipped_members: u64,
    /// Implausible times replaced by the arrival.
    pub times_replaced: u64,
    /// QoS 0 messages not taken because too much was waiting; since the start.
    pub refused_under_pressure: u64,
    /// Sensors connected to the listener.
    pub connections: u64,
    /// Connections the listener refused: too many, or not let in; since the start.
    pub connections_refused: u64,
    /// TLS handshakes of the listener that failed; since the start.
    pub handshakes_failed: u64,
    /// Over the last seconds.
    pub readings_per_s: f64,
    /// Deliveries that wait for their commit.
    pub waiting: u64,
    /// Median time from a batch's commit call to its fsync, in seconds.
    pub commit_p50_s: f64,
    /// The same, 99th percentile.
    pub commit_p99_s: f64,
    /// Known series.
    pub series: u64,
    /// When the last message arrived.
    pub last_arrival: Option<Timestamp>,
}

/// What is on this machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct BufferPage {
    /// Readings in the journal.
    pub hot_readings: u64,
    /// Segments here, of readings and of records.
    pub segments: u64,
    /// Readings here that are not delivered: hot and sealed, of every instance.
    pub undelivered_readings: u64,
    /// Bytes of the sealed ones among them.
    pub undelivered_bytes: u64,
    /// When the oldest of them was committed (hot) or sealed.
    pub oldest_undelivered: Option<Timestamp>,
    /// Everything in the data folder.
    pub disk_bytes: u64,
    /// Its limit.
    pub cap_bytes: u64,
    /// Free on its file system.
    pub disk_free_bytes: u64,
}

/// Whether upstream can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// The last attempt went well.
    Online,
    /// The last attempt failed.
    Offline,
    /// Looking whether there is a way again.
    Probing,
    /// No upstream is configured.
    #[default]
    Off,
}

impl LinkState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Online, Self::Offline, Self::Probing, Self::Off];

    /// The word in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Probing => "probing",
            Self::Off => "off",
        }
    }
}

/// What goes out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct LinkPage {
    /// Whether upstream can be reached.
    pub state: LinkState,
    /// Since when it is so.
    pub since: Option<Timestamp>,
    /// When something last arrived there.
    pub last_success: Option<Timestamp>,
    /// What the last failed attempt said; `None` once one went well.
    pub last_error: Option<String>,
    /// Readings delivered by this instance.
    pub delivered_readings: u64,
    /// Bytes put since the start.
    pub delivered_bytes: u64,
    /// Bytes handed to the line since the start, also those that were in vain; without what the protocols add.
    pub sent_bytes: u64,
    /// Bytes a second while shipping, from the latest shipments; `None` before the first.
    pub bytes_per_s: Option<f64>,
    /// Cuts that upstream refused: tried again in a day, or by a flush.
    pub refused_cuts: u64,
    /// At the present rates of sending and of what comes in, until the backlog is gone; `None` while offline, without a
    /// rate, and while more comes in than goes out. What is refused or set aside does not count.
    pub drain_eta_s: Option<f64>,
}

/// The books and whether they balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct BooksPage {
    /// Where every accepted reading is.
    #[serde(flatten)]
    pub books: Books,
    /// Whether each is in exactly one place.
    pub balanced: bool,
}

impl From<Books> for BooksPage {
    fn from(books: Books) -> Self {
        Self { books, balanced: books.balanced() }
    }
}

/// How the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineState {
    /// It answers.
    Ready,
    /// It is being filled for the first time.
    Starting,
    /// It ended and comes again.
    Restarting,
    /// It is switched off or not built in.
    #[default]
    Off,
}

impl EngineState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Starting, Self::Restarting, Self::Off];

    /// The word in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Restarting => "restarting",
            Self::Off => "off",
        }
    }
}

/// The process that answers SQL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct EnginePage {
    /// How it is.
    pub state: EngineState,
    /// How often it was started again.
    pub restarts: u64,
    /// Its resident memory.
    pub rss_bytes: u64,
    /// Highest seq in its table.
    pub last_seq: u64,
    /// Segments attached.
    pub segments: u64,
    /// Hot readings, where they are more than it can hold: queries wait until they are sealed. Otherwise 0.
    pub excess_readings: u64,
    /// The layers of its sandbox that hold.
    pub isolation: Vec<String>,
    /// Whether it is a unit of its own (`engine.socket`), and no child of the daemon.
    pub own_unit: bool,
    /// Why there is none, where none can be started or reached.
    pub absence: Option<String>,
}

/// Time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ClockPage {
    /// Whether something disciplines this machine's clock.
    pub synchronized: bool,
}

/// The daemon's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ProcessPage {
    /// Resident memory.
    pub rss_bytes: u64,
}

/// Wear of the card, since the daemon's start.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct FlashPage {
    /// Bytes that the daemon caused to be written.
    pub written_bytes: u64,
    /// The same by readings committed; 0 before the first.
    pub bytes_per_reading: f64,
    /// The same by days, at the rate since the start; null in the first ten minutes.
    pub bytes_per_day: Option<f64>,
}

/// Addresses really bound.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Listeners {
    /// For sensors.
    pub mqtt: Vec<String>,
    /// For requests.
    pub http: Vec<String>,
    /// For Flight SQL.
    pub flight: Vec<String>,
}
