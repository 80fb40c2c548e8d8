//! Simulated sensors that really publish, for `forebay sim` and `forebay demo`.
//!
//! Owns: the simulated sensors, their connections, and what is sent but not acknowledged.
//! Does not own: what becomes of the messages; it counts acknowledgements and nothing else.
//! Invariants: every message holds a sensor and a number that no other has; a message with QoS 1 is sent again until it is
//! acknowledged, whatever happens to connections; it counts as acknowledged once.
//! On failure: connects again; only a receiver that can't be reached at the start, or that refuses us, is an error.

mod outbox;
mod publisher;
mod sensors;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::mqttbytes::v4::Connect;
use tokio_util::sync::CancellationToken;

use self::publisher::Publisher;
use self::sensors::Sensors;
use super::client::{self, Address, ClientError, Target};
use crate::error::{ErrorKind, explain};
use crate::tls::ClientFiles;

/// Most connections; more sensors share them.
const MAX_CONNECTIONS: usize = 50;

/// What to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `mqtt://host:port`, or `mqtts://host:port` for TLS.
    pub url: String,
    /// Whom to trust and who we are, for TLS.
    pub tls: ClientFiles,
    /// Account, of all connections.
    pub username: Option<String>,
    /// File with its password.
    pub password_file: Option<PathBuf>,
    /// Sensors.
    pub sensors: usize,
    /// Messages per second of all sensors together; 0: as fast as they are acknowledged.
    pub rate: f64,
    /// How long to publish; `None`: until told to stop.
    pub duration: Option<Duration>,
    /// 0 or 1.
    pub qos: u8,
    /// Numbers in a message, one of which is its own number `seq`.
    pub readings_per_message: usize,
    /// Most messages of one connection that are not acknowledged yet.
    pub window: u16,
    /// Begins the client ids and the sensors' names; letters, digits, `-` and `_`.
    pub client_prefix: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "mqtt://127.0.0.1:1884".to_owned(),
            tls: ClientFiles::default(),
            username: None,
            password_file: None,
            sensors: 10,
            rate: 10.0,
            duration: None,
            qos: 1,
            readings_per_message: 3,
            window: 100,
            client_prefix: "sim".to_owned(),
        }
    }
}

/// What happened so far; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    errors: AtomicU64,
    reconnects: AtomicU64,
    connections: AtomicU64,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Outcome {
    /// Messages sent, each counted once.
    pub sent: u64,
    /// Messages acknowledged; none with QoS 0.
    pub acknowledged: u64,
    /// Readings in the messages sent.
    pub readings_sent: u64,
    /// Readings in the messages acknowledged.
    pub readings_acknowledged: u64,
    /// Connections and attempts that failed.
    pub errors: u64,
    /// Connections made after the first of each.
    pub reconnects: u64,
}

impl Progress {
    /// The counts now, for `settings`.
    pub fn outcome(&self, settings: &Settings) -> Outcome {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let readings = settings.readings_per_message as u64;
        // Acknowledged first: it never shows more than sent.
        let acknowledged = count(&self.acknowledged);
        let sent = count(&self.sent);
        Outcome {
            sent,
            acknowledged,
            readings_sent: sent * readings,
            readings_acknowledged: acknowledged * readings,
            errors: count(&self.errors),
            reconnects: count(&self.reconnects),
        }
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// What went wrong in the simulation.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
    /// The receiver could not be reached, or does not let us in.
    #[error("can't publish to {address}: {reason}")]
    Unreachable {
        /// Where.
        address: Address,
        /// Why.
        reason: String,
    },
    /// A fault of our own.
    #[error("a simulated sensor failed: {0}")]
    Failed(String),
}

impl SimError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting(_) => ErrorKind::Config,
            Self::Unreachable { .. } => ErrorKind::Transient,
            Self::Failed(_) => ErrorKind::Broken,
        }
    }
}

fn check(settings: &Settings) -> Result<(Target, Connect), SimError> {
    let wrong = |problem: &str| Err(SimError::Setting(problem.to_owned()));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match settings {
        Settings { qos: 2, .. } => wrong("QoS 2 is not supported yet; use 0 or 1"),
        Settings { qos: 3.., .. } => wrong("QoS is 0 or 1"),
        Settings { sensors: 0, .. } => wrong("at least one sensor is needed"),
        Settings { readings_per_message: 0, .. } => wrong("a message holds at least one reading"),
        Settings { readings_per_message: 10_001.., .. } => wrong("a message holds at most 10000 readings"),
        Settings { window: 0, .. } => wrong("the window holds at least one message"),
        Settings { rate, .. } if !rate.is_finite() || *rate < 0.0 => wrong("the rate is a number of messages per second, or 0"),
        Settings { client_prefix, .. } if client_prefix.is_empty() || !client_prefix.chars().all(plain) => {
            wrong("the prefix is made of letters, digits, '-' and '_'")
        }
        Settings { url, .. } => {
            let address = Address::parse(url).map_err(SimError::Setting)?;
            let wrong = |error: &dyn std::error::Error| SimError::Setting(explain(error));
            let target = Target::new(address, &settings.tls).map_err(|error| wrong(&error))?;
            Ok((target, login(settings).map_err(|error| wrong(&error))?))
        }
    }
}

/// The CONNECT of every connection, but for its client id.
fn login(settings: &Settings) -> Result<Connect, ClientError> {
    let mut login = Connect::new("");
    login.clean_session = false;
    login.keep_alive = 60;
    if let Some((username, password)) = client::account(settings.username.as_deref(), settings.password_file.as_deref())? {
        login.set_login(username, password.reveal());
    }
    Ok(login)
}

/// Publishes until the duration is over or `stop`, then waits (up to a bound) for what is not acknowledged.
///
/// # Errors
/// [`SimError::Setting`] at once; [`SimError::Unreachable`] if no first connection succeeds.
pub async fn run(settings: Settings, stop: CancellationToken, progress: Arc<Progress>) -> Result<Outcome, SimError> {
    let (target, login) = check(&settings)?;
    let target = Arc::new(target);
    let connections = settings.sensors.min(MAX_CONNECTIONS);
    let end = settings.duration.map(|duration| tokio::time::Instant::now() + duration);
    let failed = CancellationToken::new();
    let mut publishers = tokio::task::JoinSet::new();
    for connection in 0..connections {
        let sensors = Sensors::new(&settings, connection, connections);
        let login = Connect { client_id: format!("{}-{connection:02}", settings.client_prefix), ..login.clone() };
        let publisher = Publisher::new(&settings, Arc::clone(&target), login, sensors, Arc::clone(&progress));
        let rate = settings.rate / connections as f64;
        let (stop, failed) = (stop.clone(), failed.clone());
        publishers.spawn(async move {
            tokio::select! {
                outcome = publisher.run(rate, end, stop) => outcome,
                () = failed.cancelled() => Ok(()),
            }
        });
    }
    let mut first_error = None;
    while let Some(outcome) = publishers.join_next().await {
        if let Err(error) = outcome.unwrap_or_else(|panic| Err(SimError::Failed(panic.to_string()))) {
            failed.cancel();
            first_error.get_or_insert(error);
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(progress.outcome(&settings)),
    }
}
