//! What can go wrong: with the listener as a whole, and with one connection.

use std::io;
use std::net::SocketAddr;

use super::frame::FrameError;
use super::gate::Refusal;
use super::packet::PacketError;
use crate::error::ErrorKind;
use crate::ingest::users::UsersError;
use crate::tls::TlsError;

/// The listener can't start.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The section `[listener]` can't be followed.
    #[error("{0}")]
    Config(String),
    /// Certificates or keys.
    #[error("listener: {0}")]
    Tls(#[from] TlsError),
    /// Accounts.
    #[error("listener: {0}")]
    Users(#[from] UsersError),
    /// An address can't be taken.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured.
        address: String,
        /// Why.
        source: io::Error,
    },
}

impl ListenerError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) => ErrorKind::Config,
            Self::Tls(error) => error.kind(),
            Self::Users(error) => error.kind(),
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => ErrorKind::Config,
            // The address may be free, or up, at the next start.
            Self::Bind { .. } => ErrorKind::Transient,
        }
    }
}

/// Why a connection ended. It costs that connection alone.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// DISCONNECT: the only end that drops the will.
    #[error("the sensor disconnected")]
    Disconnected,
    /// The stream ended without a DISCONNECT.
    #[error("the sensor closed the connection")]
    Closed,
    /// Nothing came within one and a half times the keep-alive.
    #[error("nothing came within the keep-alive")]
    Silent,
    /// Answers could not be written.
    #[error("the sensor does not read our answers")]
    NotReading,
    /// No CONNECT came in time.
    #[error("no connect came in time")]
    NoConnect,
    /// The CONNECT was answered with a refusal.
    #[error("the connect was refused: {0}")]
    Refused(&'static str),
    /// The gate did not let it in, which its CONNACK says.
    #[error("the login was refused: {0}")]
    Denied(Refusal),
    /// Another connection came with the same client id.
    #[error("another connection took over")]
    TakenOver,
    /// The daemon stops.
    #[error("the daemon is stopping")]
    Stopping,
    /// The pump did not take a delivery: it must not be acknowledged.
    #[error("a message was not taken: {0}")]
    NotTaken(String),
    /// Bytes that are no packets.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Packets that may not come.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// A packet in the wrong place.
    #[error("{0}")]
    OutOfPlace(&'static str),
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

impl End {
    /// Whether the peer broke the protocol.
    pub(super) fn is_protocol_error(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Packet(_) | Self::OutOfPlace(_))
    }

    /// Whether the sensor's will is due: always but after a DISCONNECT, and not when it is us who go.
    pub(super) fn leaves_will(&self) -> bool {
        !matches!(self, Self::Disconnected | Self::Stopping)
    }
}

/// Only loopback may be open to anyone by default.
pub(super) fn not_loopback(address: SocketAddr) -> ListenerError {
    ListenerError::Config(format!(
        "listener.bind has {address}, which other machines reach, and there are no accounts; set listener.users_file \
         (or listener.tls_client_ca), bind a loopback address, or set listener.anonymous = true to let anyone in"
    ))
}
