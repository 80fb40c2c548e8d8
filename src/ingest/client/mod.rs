//! The client: subscribes at an existing broker and acknowledges what is committed.
//!
//! Owns: the connection to the broker, and when to try again.
//! Does not own: what a message means (decode), when it is durable (pump and ledger).
//! Invariants: fixed client id with a persistent session; a PUBACK follows the commit, in the order of arrival; a new
//! connection begins only when everything handed in by the one before is settled, with the marks as committed.
//! On failure: tries again for ever, with growing pauses; only a broken ledger ends it.
//!
//! It speaks MQTT 3.1.1, which every broker does, on packets of rumqttc and an exchange of its own. rumqttc's event loop
//! holds back acknowledgements with publishes, flushes each alone, stops its pings while we wait for room, ends the
//! connection at a message that it can't decode, so that the broker's redelivery repeats for ever, and carries
//! acknowledgements over to a connection where the id means another message.
//!
//! It stays with 3.1.1, though the listener takes 5. Nothing promised here depends on 5: it would tell the window (Receive
//! Maximum), which is configured and learned, and the reason of a refusal; sessions, redelivery and what an acknowledgement
//! means are the same. rumqttc's second module is not to be trusted with it. Its codec follows a length of properties that
//! lies into the payload, so that a reading would be cut and stored without a word, counts a subscription identifier twice,
//! takes any bytes for a topic, and ends the connection at AUTH and at reason codes it does not know. Its state keeps topic
//! aliases without bound and over connections, hands on messages whose alias stands for nothing with an empty topic, forgets
//! the ids of QoS 2 with the connection and refuses their PUBREL afterwards, and panics on requests it has no case for. The
//! listener's own reading of 5 (`listener/packet`) could serve here, should a broker ever offer nothing else.

mod address;
mod connection;
mod knock;
#[cfg(test)]
pub(in crate::ingest) mod scripted;
mod session;
mod state;
mod target;
#[cfg(test)]
mod tests;
pub(in crate::ingest) mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes::v4::Connect;
use rumqttc::mqttbytes::{QoS, valid_filter};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::address::Address;
pub use self::knock::{KnockError, knock};
pub use self::state::{ClientState, ClientStatus};
pub use self::target::Target;

use self::connection::{Connection, End, Lost, Terms};
use self::session::Session;
use self::wire::Wire;
use super::Intake;
use crate::backoff::Backoff;
use crate::clock::SharedClock;
use crate::config;
use crate::error::ErrorKind;
use crate::ledger::{Ledger, LedgerError, StoredSession};
use crate::secrets::{self, Secret, SecretError};
use crate::tls::{ClientFiles, TlsError};

/// A broker that does not hear from us for this long ends the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Often enough that a lost PINGREQ or two cost no connection, seldom enough for a paid link.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// First and longest pause between attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// A connection that held this long was a good one: the next pause is the first again.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// MQTT's longest string.
const MAX_STRING_BYTES: usize = 65_535;

/// What went wrong in the client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A setting is wrong.
    #[error("mqtt.{key}: {problem}")]
    Setting {
        /// The key in `[mqtt]`.
        key: &'static str,
        /// The rule that it breaks.
        problem: String,
    },
    /// The file with the password can't be used.
    #[error("mqtt.password_file: {0}")]
    Password(#[from] SecretError),
    /// Certificates or keys.
    #[error("mqtt: {0}")]
    Tls(#[from] TlsError),
    /// Sessions can't be kept.
    #[error("the client's session can't be kept")]
    Ledger(#[source] LedgerError),
}

impl ClientError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. } | Self::Password(_) => ErrorKind::Config,
            Self::Tls(error) => error.kind(),
            Self::Ledger(error) => error.kind(),
        }
    }

    fn setting(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting { key, problem: problem.into() }
    }
}

/// Whether a client could be made of `settings`: what [`Client::new`] would say.
///
/// # Errors
/// All of [`ClientError`] but [`ClientError::Ledger`].
pub fn check(settings: &config::Mqtt, gateway_id: &str) -> Result<(), ClientError> {
    target(settings)?;
    login(settings, gateway_id)?;
    topics(settings).map(drop)
}

/// A client of one broker.
pub struct Client {
    target: Target,
    login: Connect,
    terms: Terms,
    ledger: Ledger,
    /// Name of its session in the ledger.
    session: String,
    backoff: Backoff,
    good_after: Duration,
    /// Whether this process has told the broker all filters.
    subscribed: bool,
    /// Proven marks that the ledger was not told of.
    untold: u32,
    /// What the log was last warned of.
    warned: Option<String>,
}

impl Client {
    /// A client by `settings`, all of them checked; connects in [`Client::run`].
    ///
    /// # Errors
    /// All of [`ClientError`] but [`ClientError::Ledger`].
    pub fn new(
        settings: &config::Mqtt,
        gateway_id: &str,
        max_message_bytes: u64,
        intake: Intake,
        ledger: Ledger,
        clock: SharedClock,
        state: Arc<ClientState>,
    ) -> Result<Self, ClientError> {
        let target = target(settings)?;
        let login = login(settings, gateway_id)?;
        let terms = Terms {
            topics: topics(settings)?,
            qos: match settings.qos {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                other => return Err(ClientError::setting("qos", format!("{other} is not 0 or 1"))),
            },
            window: usize::from(settings.inflight),
            max_message_bytes: usize::try_from(max_message_bytes).unwrap_or(usize::MAX),
            ping_interval: PING_INTERVAL,
            intake,
            clock,
            state,
        };
        terms.state.name_broker(target.address.to_string());
        Ok(Self {
            session: format!("client/{}", login.client_id),
            target,
            login,
            terms,
            ledger,
            backoff: Backoff::new(RETRY.0, RETRY.1),
            good_after: GOOD_AFTER,
            subscribed: false,
            untold: 0,
            warned: None,
        })
    }

    /// Connects, and connects again, until `stop` or until the pump is gone.
    ///
    /// # Errors
    /// [`ClientError::Ledger`], when sessions can't be kept any more.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ClientError> {
        loop {
            let begun = Instant::now();
            let end = tokio::select! {
                opened = Wire::open(&self.target, self.login.clone(), self.terms.max_message_bytes) => match opened {
                    Ok(wire) => self.connected(wire, &stop).await?,
                    Err(error) => End::from(error),
                },
                () = stop.cancelled() => End::Stopped,
            };
            let now = self.terms.clock.now();
            let End::Lost(lost) = end else {
                self.terms.state.disconnected(now, None);
                return Ok(());
            };
            let reason = lost.to_string();
            self.terms.state.disconnected(now, Some(reason.clone()));
            if begun.elapsed() >= self.good_after {
                self.backoff.reset();
                self.warned = None;
            }
            self.report(reason);
            tokio::select! {
                () = tokio::time::sleep(self.backoff.pause()) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Works on an open connection to its end, and until all that it handed in is settled.
    async fn connected(&mut self, wire: Wire, stop: &CancellationToken) -> Result<End, ClientError> {
        let stored = match self.resume(wire.session_present).await {
            Ok(stored) => stored,
            Err(error) if error.kind() == ErrorKind::Full => return Ok(End::Lost(Lost::NoSession(error.to_string()))),
            Err(error) => return Err(ClientError::Ledger(error)),
        };
        self.terms.state.connected(self.terms.clock.now());
        let session_present = wire.session_present;
        tracing::info!(broker = %self.target.address, client_id = self.login.client_id, session_present, "connected to the broker");
        // A broker that knows the session knows its filters, and would send every retained message again.
        let subscribed = self.subscribed && session_present;
        let mut remains = Connection::new(&self.terms, Session::new(stored, self.untold), subscribed).run(wire, stop).await;
        self.untold = remains.untold;
        self.subscribed = remains.subscribed;
        tokio::select! {
            () = async { while remains.settled.recv().await.is_some() {} } => {}
            () = stop.cancelled() => {}
        }
        Ok(remains.end)
    }

    /// The session as committed. Where the broker has lost it, ids start anew and old marks mean nothing.
    async fn resume(&mut self, present: bool) -> Result<StoredSession, LedgerError> {
        let stored = self.ledger.open_session(self.session.clone(), None).await?;
        if present || stored.marks.is_empty() {
            self.untold = if present { self.untold } else { 0 };
            return Ok(stored);
        }
        tracing::info!(client_id = self.login.client_id, "the broker does not know our session; it begins anew");
        self.untold = 0;
        self.ledger.end_session(self.session.clone()).await?;
        self.ledger.open_session(self.session.clone(), None).await
    }

    /// Warns once of each new reason; a broker that is away for a week fills no log.
    fn report(&mut self, reason: String) {
        let broker = &self.target.address;
        if self.warned.as_ref() == Some(&reason) {
            tracing::debug!(%broker, reason, "still no good connection to the broker");
        } else {
            tracing::warn!(%broker, reason, "no connection to the broker; trying again");
            self.warned = Some(reason);
        }
    }
}

/// Where the broker is, and how TLS is spoken with it.
fn target(settings: &config::Mqtt) -> Result<Target, ClientError> {
    let address = Address::parse(&settings.url).map_err(|problem| ClientError::setting("url", problem))?;
    let files = ClientFiles { ca: settings.ca_file.clone(), cert: settings.cert_file.clone(), key: settings.key_file.clone() };
    if !address.tls && !files.is_empty() {
        return Err(ClientError::setting("url", "does not begin with mqtts://, and ca_file, cert_file or key_file is set"));
    }
    Ok(Target::new(address, &files)?)
}

/// The CONNECT of every connection.
fn login(settings: &config::Mqtt, gateway_id: &str) -> Result<Connect, ClientError> {
    let client_id = match settings.client_id.as_str() {
        "" => format!("forebay-{gateway_id}"),
        given => given.to_owned(),
    };
    check_string("client_id", &client_id)?;
    let mut login = Connect::new(client_id);
    login.clean_session = false;
    login.keep_alive = u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX);
    if let Some((username, password)) = account(settings.username.as_deref(), settings.password_file.as_deref())? {
        login.set_login(username, password.reveal());
    }
    Ok(login)
}

/// The account to log in with, if there is one.
pub(in crate::ingest) fn account<'a>(
    username: Option<&'a str>,
    password_file: Option<&Path>,
) -> Result<Option<(&'a str, Secret)>, ClientError> {
    let Some(username) = username else {
        return match password_file {
            None => Ok(None),
            Some(_) => Err(ClientError::setting("username", "is missing; MQTT has no password without one")),
        };
    };
    check_string("username", username)?;
    let password = password_file.map(secrets::read).transpose()?;
    if let Some(password) = &password {
        check_string("password_file", password.reveal())?;
    }
    Ok(Some((username, password.unwrap_or_else(|| Secret::new("")))))
}

/// MQTT 3.1.1, 1.5.3. Never shows `text`, which may be a password.
fn check_string(key: &'static str, text: &str) -> Result<(), ClientError> {
    if text.is_empty() || text.len() > MAX_STRING_BYTES || text.contains('\0') {
        return Err(ClientError::setting(key, format!("is not 1 to {MAX_STRING_BYTES} bytes of text without a zero byte")));
    }
    Ok(())
}

fn topics(settings: &config::Mqtt) -> Result<Vec<String>, ClientError> {
    if settings.topics.is_empty() {
        return Err(ClientError::setting("topics", "names no topic; write [\"#\"] for all"));
    }
    for topic in &settings.topics {
        if !valid_filter(topic) {
            return Err(ClientError::setting("topics", format!("\"{topic}\" is not a topic filter")));
        }
        check_string("topics", topic)?;
    }
    Ok(settings.topics.clone())
}
