//! Packets: what bytes say, and how answers are written.
//!
//! The codec is `rmqtt-codec`. It speaks 3.1.1 and 5, checks fixed header flags and packet ids, leaves payloads as slices
//! of the stream, takes binary passwords, and does not panic on what we feed it. The others compared:
//! `rumqttc`'s own codec takes wrong header flags, reserved CONNECT flags and packet id 0 in SUBSCRIBE, demands passwords
//! in UTF-8, and its version 5 reads properties past their end; `mqtt-protocol-core` is the strictest but copies every
//! payload, brings a session machine of its own and seven procedural macros; `ntex-mqtt` comes with its own runtime and
//! buffers, and subtracts a topic's length from the packet's unchecked. What `rmqtt-codec` lets pass (a limit after the
//! buffer has grown, trailing bytes, topics with wildcards or U+0000) is checked here and in `frame`.

use std::num::NonZeroU16;

use bytes::BytesMut;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::{types, v3, v5};
use tokio_util::codec::{Decoder, Encoder};

pub(super) use rmqtt_codec::types::QoS;
pub(super) use rmqtt_codec::v3::{Connect, ConnectAckReason};

/// The protocol level of MQTT 3.1.1.
const LEVEL_311: u8 = 4;
const LEVEL_5: u8 = 5;

/// What a CONNECT begins with.
pub(super) const CONNECT_FIRST_BYTE: u8 = 0x10;

/// CONNECT's protocol name, level, flags and keep-alive.
const CONNECT_BEFORE_CLIENT_ID: usize = 10;

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
    /// It is readable, and forbidden.
    #[error("{0}")]
    Forbidden(&'static str),
    /// An empty client id without a clean session.
    #[error("an empty client id needs a clean session")]
    NoClientId,
}

/// A packet from a sensor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// The first of a connection.
    Connect(Box<Connect>),
    /// A message.
    Publish(Box<types::Publish>),
    /// Wants messages, by so many filters.
    Subscribe {
        /// To answer with.
        packet_id: NonZeroU16,
        /// How many.
        filters: usize,
    },
    /// Wants no more messages.
    Unsubscribe {
        /// To answer with.
        packet_id: NonZeroU16,
    },
    /// Is there.
    Ping,
    /// Goes in order.
    Disconnect,
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
    let body = packet.iter().skip(1).position(|byte| byte & 0x80 == 0).and_then(|last| packet.get(last + 2..))?;
    let level = match (packet.first()?, body) {
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

/// Reads `packet`, which is whole.
///
/// # Errors
/// Anything that 3.1.1 tells a server to close the connection for.
pub(super) fn decode(mut packet: BytesMut) -> Result<Incoming, PacketError> {
    let length = packet.len();
    let packet_type = packet.first().map_or(0, |first| first >> 4);
    let decoded = v3::Codec::new(0).decode(&mut packet).map_err(|error| match error {
        DecodeError::InvalidClientId => PacketError::NoClientId,
        other => PacketError::Unreadable { packet_type, reason: other.to_string() },
    })?;
    match decoded {
        Some((v3::Packet::Connect(connect), remaining)) => check_connect(connect, remaining as usize),
        Some((v3::Packet::Publish(publish), _)) => check_publish(publish),
        Some((v3::Packet::Subscribe { packet_id, topic_filters }, _)) => {
            Ok(Incoming::Subscribe { packet_id, filters: topic_filters.len() })
        }
        Some((v3::Packet::Unsubscribe { packet_id, .. }, _)) => Ok(Incoming::Unsubscribe { packet_id }),
        Some((v3::Packet::PingRequest, 0)) => Ok(Incoming::Ping),
        Some((v3::Packet::Disconnect, 0)) => Ok(Incoming::Disconnect),
        Some((v3::Packet::PingRequest | v3::Packet::Disconnect, _)) => Err(PacketError::Forbidden("a body where none may be")),
        Some((v3::Packet::PublishRelease { .. }, _)) => Err(PacketError::Forbidden("QoS 2 is not supported yet")),
        Some(_) => Err(PacketError::Forbidden("a packet that only a server may send, or that answers nothing we sent")),
        None => Err(PacketError::Unreadable { packet_type, reason: format!("{length} bytes are not all of it") }),
    }
}

fn check_connect(connect: Box<Connect>, remaining: usize) -> Result<Incoming, PacketError> {
    if connect.client_id.contains('\0') {
        return Err(PacketError::Forbidden("a client id with U+0000"));
    }
    if connect.password.is_some() && connect.username.is_none() {
        return Err(PacketError::Forbidden("a password without a user"));
    }
    let will = connect.last_will.as_ref();
    if let Some(will) = will {
        check_topic(&will.topic)?;
    }
    let fields = [
        Some(connect.client_id.len()),
        will.map(|will| will.topic.len()),
        will.map(|will| will.message.len()),
        connect.username.as_ref().map(|user| user.len()),
        connect.password.as_ref().map(|password| password.len()),
    ];
    let known: usize = CONNECT_BEFORE_CLIENT_ID + fields.iter().flatten().map(|bytes| 2 + bytes).sum::<usize>();
    if known != remaining {
        return Err(PacketError::Forbidden("bytes behind the end of a CONNECT"));
    }
    Ok(Incoming::Connect(connect))
}

fn check_publish(publish: Box<types::Publish>) -> Result<Incoming, PacketError> {
    check_topic(&publish.topic)?;
    if publish.dup && publish.qos == QoS::AtMostOnce {
        return Err(PacketError::Forbidden("DUP at QoS 0"));
    }
    Ok(Incoming::Publish(publish))
}

fn check_topic(topic: &str) -> Result<(), PacketError> {
    if topic.is_empty() {
        return Err(PacketError::Forbidden("an empty topic"));
    }
    if topic.contains(['+', '#', '\0']) {
        return Err(PacketError::Forbidden("a topic with a wildcard or U+0000"));
    }
    Ok(())
}

/// Writes CONNACK of 3.1.1.
pub(super) fn put_connack(outbound: &mut BytesMut, return_code: ConnectAckReason, session_present: bool) {
    put(outbound, v3::Packet::ConnectAck(v3::ConnectAck { return_code, session_present }));
}

/// Writes the CONNACK by which a client of MQTT 5 learns that this server does not speak it.
pub(super) fn put_connack_unsupported_v5(outbound: &mut BytesMut) {
    let refusal = v5::ConnectAck { reason_code: v5::ConnectAckReason::UnsupportedProtocolVersion, ..v5::ConnectAck::default() };
    let written = v5::Codec::new(0, 0).encode(v5::Packet::ConnectAck(Box::new(refusal)), outbound);
    debug_assert!(written.is_ok(), "a CONNACK has no field that could be too long");
}

/// Writes PUBACK.
pub(super) fn put_puback(outbound: &mut BytesMut, packet_id: NonZeroU16) {
    put(outbound, v3::Packet::PublishAck { packet_id });
}

/// Writes a SUBACK that refuses every filter.
pub(super) fn put_suback_refusing(outbound: &mut BytesMut, packet_id: NonZeroU16, filters: usize) {
    put(outbound, v3::Packet::SubscribeAck { packet_id, status: vec![v3::SubscribeReturnCode::Failure; filters] });
}

/// Writes UNSUBACK.
pub(super) fn put_unsuback(outbound: &mut BytesMut, packet_id: NonZeroU16) {
    put(outbound, v3::Packet::UnsubscribeAck { packet_id });
}

/// Writes PINGRESP.
pub(super) fn put_pingresp(outbound: &mut BytesMut) {
    put(outbound, v3::Packet::PingResponse);
}

fn put(outbound: &mut BytesMut, packet: v3::Packet) {
    let written = v3::Codec::new(0).encode(packet, outbound);
    debug_assert!(written.is_ok(), "no answer has a field that could be too long");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_bytes(bytes: &[u8]) -> Result<Incoming, PacketError> {
        decode(BytesMut::from(bytes))
    }

    #[test]
    fn a_connect_is_read_with_its_will_and_its_binary_password() {
        let bytes = b"\x10\x26\0\x04MQTT\x04\xe6\0\x3c\0\x02id\0\x03w/t\0\x03off\0\x04user\0\x02\xff\xfe";
        let mut bytes = bytes.to_vec();
        bytes[1] = (bytes.len() - 2) as u8;
        let Ok(Incoming::Connect(connect)) = decode_bytes(&bytes) else { panic!("{:?}", decode_bytes(&bytes)) };
        assert_eq!((&*connect.client_id, connect.keep_alive, connect.clean_session), ("id", 60, true));
        assert_eq!(&*connect.last_will.unwrap().message, b"off");
        assert_eq!(&*connect.password.unwrap(), b"\xff\xfe");
    }

    #[test]
    fn malformed_and_forbidden_packets_are_told_apart_from_good_ones() {
        let good: [&[u8]; 6] =
            [b"\x30\x05\0\x01a12", b"\x32\x05\0\x01a\0\x01", b"\x30\x07\0\x05a//b ", b"\xc0\0", b"\xe0\0", b"\x82\x06\0\x01\0\x01a\0"];
        for bytes in good {
            assert!(decode_bytes(bytes).is_ok(), "{bytes:x?}: {:?}", decode_bytes(bytes));
        }
        let bad: [(&str, &[u8]); 20] = [
            ("empty topic", b"\x30\x02\0\0"),
            ("wildcard", b"\x30\x05\0\x03a/+"),
            ("wildcard", b"\x30\x03\0\x01#"),
            ("U+0000", b"\x30\x03\0\x01\0"),
            ("topic that is not UTF-8", b"\x30\x04\0\x02\xff\xfe"),
            ("surrogate in a topic", b"\x30\x05\0\x03\xed\xa0\x80"),
            ("topic beyond the packet", b"\x30\x03\0\x09a"),
            ("packet id 0", b"\x32\x05\0\x01a\0\0"),
            ("no packet id", b"\x32\x03\0\x01a"),
            ("QoS 3", b"\x36\x05\0\x01a\0\x01"),
            ("DUP at QoS 0", b"\x38\x03\0\x01a"),
            ("PINGREQ with a body", b"\xc0\x01x"),
            ("PINGREQ with flags", b"\xc1\0"),
            ("SUBSCRIBE without its flags", b"\x80\x06\0\x01\0\x01a\0"),
            ("SUBSCRIBE without filters", b"\x82\x02\0\x01"),
            ("PUBREL", b"\x62\x02\0\x01"),
            ("PUBACK to us", b"\x40\x02\0\x01"),
            ("CONNACK to us", b"\x20\x02\0\0"),
            ("type 0", b"\0\0"),
            ("type 15", b"\xf0\0"),
        ];
        for (what, bytes) in bad {
            assert!(decode_bytes(bytes).is_err(), "{what}: {:?}", decode_bytes(bytes));
        }
    }

    #[test]
    fn connects_that_3_1_1_forbids_are_refused() {
        assert_eq!(decode_bytes(b"\x10\x0c\0\x04MQTT\x04\0\0\0\0\0"), Err(PacketError::NoClientId));
        let bad: [(&str, &[u8]); 6] = [
            ("reserved flag", b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01a"),
            ("password without a user", b"\x10\x10\0\x04MQTT\x04\x42\0\0\0\x01a\0\x01p"),
            ("will flags without a will", b"\x10\x0d\0\x04MQTT\x04\x0a\0\0\0\x01a"),
            ("trailing bytes", b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x01ax"),
            ("will topic with a wildcard", b"\x10\x12\0\x04MQTT\x04\x06\0\0\0\x01a\0\x01#\0\0"),
            ("U+0000 in the client id", b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01\0"),
        ];
        for (what, bytes) in bad {
            assert!(decode_bytes(bytes).is_err(), "{what}");
        }
    }

    #[test]
    fn the_level_is_found_before_the_rest_is_read() {
        assert_eq!(level(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a"), Some(Level::V311));
        assert_eq!(level(b"\x10\x8e\x00\0\x04MQTT\x05\x02\0\0\0\0\x01a"), Some(Level::V5));
        assert_eq!(level(b"\x10\x0f\0\x06MQIsdp\x03\x02\0\0\0\x01a"), Some(Level::Other(3)));
        assert_eq!(level(b"\x10\x0d\0\x04HTTP\x04\x02\0\0\0\x01a"), None);
        assert_eq!(level(b"\xc0\0"), None);
        assert_eq!(level(b""), None);
    }

    #[test]
    fn answers_have_the_bytes_of_the_standard() {
        let id = NonZeroU16::new(0x0102).unwrap();
        let mut outbound = BytesMut::new();
        put_connack(&mut outbound, ConnectAckReason::ConnectionAccepted, true);
        put_puback(&mut outbound, id);
        put_suback_refusing(&mut outbound, id, 2);
        put_unsuback(&mut outbound, id);
        put_pingresp(&mut outbound);
        let expected = b"\x20\x02\x01\0\x40\x02\x01\x02\x90\x04\x01\x02\x80\x80\xb0\x02\x01\x02\xd0\0";
        assert_eq!(&outbound[..], expected);
        outbound.clear();
        put_connack_unsupported_v5(&mut outbound);
        assert_eq!(&outbound[..], b"\x20\x03\0\x84\0");
    }
}
