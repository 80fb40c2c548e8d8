//! Packets: what bytes say, and how answers are written, in MQTT 3.1.1 and 5.
//!
//! `v311` reads and writes through `rmqtt-codec`: it checks fixed header flags and packet ids, leaves payloads as slices of
//! the stream, takes binary passwords, and does not panic on what we feed it. The others compared: `rumqttc`'s own codec
//! takes wrong header flags, reserved CONNECT flags and packet id 0 in SUBSCRIBE, and demands passwords in UTF-8;
//! `mqtt-protocol-core` is the strictest but copies every payload, brings a session machine of its own and seven procedural
//! macros; `ntex-mqtt` comes with its own runtime and buffers, and subtracts a topic's length from the packet's unchecked.
//! What `rmqtt-codec` lets pass (a limit after the buffer has grown, trailing bytes, topics with wildcards or U+0000) is
//! checked there and in `frame`.
//!
//! Version 5 is read and written here, in `v5`, `properties` and `answers`. No codec compared reads it as it must be:
//! `rmqtt-codec` copies the user properties that we ignore into thirteen times their memory, refuses a message expiry of 0
//! and an empty client id without a clean start, passes a CONNECT with bytes behind its end or a will's flags without a
//! will, can't tell what is malformed (0x81) from what breaks the protocol (0x82), and underflows when the peer allows only
//! tiny packets; `rumqttc`'s reads properties past their end. The tests hold ours against `rmqtt-codec`'s.

mod answers;
mod fields;
mod properties;
mod reason;
mod v311;
mod v5;

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

pub(super) use self::answers::Welcome;
pub(super) use self::reason::Reason;
pub(super) use rmqtt_codec::types::QoS;

/// The protocol level of MQTT 3.1.1.
const LEVEL_311: u8 = 4;
const LEVEL_5: u8 = 5;

/// How long a session of version 5 outlives its connection at most, and then the sensor is told: what was on its way three
/// months ago does not come again. Of 3.1.1 a session has no end; their number is bounded by the ledger.
pub(super) const LONGEST_EXPIRY: Duration = Duration::from_secs(90 * 24 * 3600);

/// What a CONNECT begins with.
pub(super) const CONNECT_FIRST_BYTE: u8 = 0x10;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5 {
        /// The longest packet that the sensor takes.
        max_packet_bytes: u32,
    },
}

/// The bytes are no packet that a sensor may send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PacketError {
    /// The codec can't read it.
    #[error("unreadable packet of type {packet_type}: {reason}")]
    Unreadable {
        /// 0 to 15.
        packet_type: u8,
        /// What the codec says.
        reason: String,
    },
    /// Its fields are not what they must be.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// It is readable, and forbidden.
    #[error("{0}")]
    Forbidden(&'static str),
    /// A message for a topic that can't be.
    #[error("{0}")]
    Topic(&'static str),
    /// A topic alias of 0, or beyond what was announced.
    #[error("topic alias {0} is out of range")]
    TopicAlias(u16),
    /// An empty client id without a clean session.
    #[error("an empty client id needs a clean session")]
    NoClientId,
}

impl PacketError {
    /// What a sensor of version 5 is told.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Unreadable { .. } | Self::Malformed(_) => Reason::Malformed,
            Self::Forbidden(_) => Reason::Protocol,
            Self::Topic(_) => Reason::Topic,
            Self::TopicAlias(_) => Reason::TopicAlias,
            Self::NoClientId => Reason::ClientId,
        }
    }
}

/// The first packet of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Connect {
    /// What it speaks.
    pub(super) dialect: Dialect,
    /// Empty where we are to choose one.
    pub(super) client_id: Box<str>,
    /// Forget the session there was.
    pub(super) clean_start: bool,
    /// How long the session outlives its connection, in whole seconds; `None`: until it is ended.
    pub(super) expiry: Option<Duration>,
    /// Seconds; 0: it promises nothing.
    pub(super) keep_alive: u16,
    /// What to say for it when it is gone.
    pub(super) will: Option<Will>,
    /// Who it says it is.
    pub(super) username: Option<Box<str>>,
    /// Any bytes.
    pub(super) password: Option<Bytes>,
    /// It wants to exchange packets of authentication.
    pub(super) enhanced_auth: bool,
}

/// A message that is due when its sensor is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Will {
    /// Where it belongs.
    pub(super) topic: Arc<str>,
    /// What it says.
    pub(super) payload: Bytes,
    /// How long after the end of the connection it is due.
    pub(super) delay: Duration,
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publish {
    /// Sent before.
    pub(super) dup: bool,
    /// How it is to be acknowledged.
    pub(super) qos: QoS,
    /// Where there is something to acknowledge.
    pub(super) packet_id: Option<NonZeroU16>,
    /// Where it belongs; empty where only the alias says it.
    pub(super) topic: Arc<str>,
    /// The number that stands for the topic from now on, or has stood for it.
    pub(super) alias: Option<u16>,
    /// The body.
    pub(super) payload: Bytes,
}

/// A packet from a sensor that is connected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A message.
    Publish(Box<Publish>),
    /// PUBREL: a message at QoS 2 need be held no longer.
    Release {
        /// Whose.
        packet_id: NonZeroU16,
    },
    /// Wants messages.
    Subscribe {
        /// To answer with.
        packet_id: NonZeroU16,
        /// Why it gets none, for each of its filters.
        refusals: Vec<Reason>,
    },
    /// Wants no more messages.
    Unsubscribe {
        /// To answer with.
        packet_id: NonZeroU16,
        /// How many.
        filters: usize,
    },
    /// Is there.
    Ping,
    /// Goes in order.
    Disconnect {
        /// And yet its will is due.
        with_will: bool,
        /// How long the session is to outlive it, if that has changed.
        expiry: Option<Duration>,
    },
}

/// The protocol level that a CONNECT asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
    /// Another one of MQTT's.
    Other(u8),
}

/// The level of the CONNECT in `packet`, which is whole; `None` if it is no CONNECT of MQTT.
pub(super) fn level(packet: &[u8]) -> Option<Level> {
    let level = match (packet.first()?, body(packet)?) {
        (&CONNECT_FIRST_BYTE, [0, 4, b'M', b'Q', b'T', b'T', level, ..])
        | (&CONNECT_FIRST_BYTE, [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..]) => *level,
        _ => return None,
    };
    Some(match level {
        LEVEL_311 => Level::V311,
        LEVEL_5 => Level::V5,
        other => Level::Other(other),
    })
}

/// What follows the fixed header.
fn body(packet: &[u8]) -> Option<&[u8]> {
    packet.iter().skip(1).position(|byte| byte & 0x80 == 0).and_then(|last| packet.get(last + 2..))
}

/// Reads a CONNECT of 3.1.1, which is whole.
///
/// # Errors
/// Anything that the standard tells a server to close the connection for.
pub(super) fn connect_v311(packet: BytesMut) -> Result<Box<Connect>, PacketError> {
    v311::connect(packet)
}

/// Reads a CONNECT of version 5, which is whole.
///
/// # Errors
/// As for 3.1.1.
pub(super) fn connect_v5(packet: BytesMut) -> Result<Box<Connect>, PacketError> {
    v5::connect(packet.freeze())
}

/// Reads `packet`, which is whole.
///
/// # Errors
/// Anything that the standard tells a server to close the connection for.
pub(super) fn decode(dialect: Dialect, packet: BytesMut) -> Result<Incoming, PacketError> {
    match dialect {
        Dialect::V311 => v311::decode(packet),
        Dialect::V5 { .. } => v5::decode(packet.freeze()),
    }
}

fn check_topic(topic: &str) -> Result<(), PacketError> {
    if topic.is_empty() {
        return Err(PacketError::Topic("an empty topic"));
    }
    if topic.contains(['+', '#', '\0']) {
        return Err(PacketError::Topic("a topic with a wildcard or U+0000"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_found_before_the_rest_is_read() {
        assert_eq!(level(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a"), Some(Level::V311));
        assert_eq!(level(b"\x10\x8e\x00\0\x04MQTT\x05\x02\0\0\0\0\x01a"), Some(Level::V5));
        assert_eq!(level(b"\x10\x0f\0\x06MQIsdp\x03\x02\0\0\0\x01a"), Some(Level::Other(3)));
        assert_eq!(level(b"\x10\x0d\0\x04HTTP\x04\x02\0\0\0\x01a"), None);
        assert_eq!(level(b"\xc0\0"), None);
        assert_eq!(level(b""), None);
    }
}
