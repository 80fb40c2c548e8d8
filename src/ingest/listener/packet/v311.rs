//! What packets of MQTT 3.1.1 say.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::{types, v3};
use tokio_util::codec::Decoder;

use super::{Connect, Dialect, Incoming, PacketError, Publish, QoS, Reason, Will, check_topic};

/// CONNECT's protocol name, level, flags and keep-alive.
const CONNECT_BEFORE_CLIENT_ID: usize = 10;

/// Reads a CONNECT.
pub(super) fn connect(packet: BytesMut) -> Result<Box<Connect>, PacketError> {
    match read(packet)? {
        (v3::Packet::Connect(connect), remaining) => check_connect(&connect, remaining as usize),
        _ => Err(PacketError::Forbidden("no CONNECT")),
    }
}

/// Reads any packet but a CONNECT.
pub(super) fn decode(packet: BytesMut) -> Result<Incoming, PacketError> {
    match read(packet)? {
        (v3::Packet::Publish(publish), _) => check_publish(*publish),
        (v3::Packet::PublishRelease { packet_id }, _) => Ok(Incoming::Release { packet_id }),
        (v3::Packet::Subscribe { packet_id, topic_filters }, _) => {
            Ok(Incoming::Subscribe { packet_id, refusals: vec![Reason::NotDone; topic_filters.len()] })
        }
        (v3::Packet::Unsubscribe { packet_id, topic_filters }, _) => Ok(Incoming::Unsubscribe { packet_id, filters: topic_filters.len() }),
        (v3::Packet::PingRequest, 0) => Ok(Incoming::Ping),
        (v3::Packet::Disconnect, 0) => Ok(Incoming::Disconnect { with_will: false, expiry: None }),
        (v3::Packet::PingRequest | v3::Packet::Disconnect, _) => Err(PacketError::Forbidden("a body where none may be")),
        (v3::Packet::Connect(_), _) => Err(PacketError::Forbidden("a second CONNECT")),
        _ => Err(PacketError::Forbidden("a packet that only a server may send, or that answers nothing we sent")),
    }
}

/// The packet, and the bytes behind its fixed header.
fn read(mut packet: BytesMut) -> Result<(v3::Packet, u32), PacketError> {
    let length = packet.len();
    let packet_type = packet.first().map_or(0, |first| first >> 4);
    let decoded = v3::Codec::new(0).decode(&mut packet).map_err(|error| match error {
        DecodeError::InvalidClientId => PacketError::NoClientId,
        other => PacketError::Unreadable { packet_type, reason: other.to_string() },
    })?;
    decoded.ok_or_else(|| PacketError::Unreadable { packet_type, reason: format!("{length} bytes are not all of it") })
}

fn check_connect(connect: &v3::Connect, remaining: usize) -> Result<Box<Connect>, PacketError> {
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
    Ok(Box::new(own(connect)))
}

/// Copies all of it, so that nothing keeps the whole packet.
fn own(connect: &v3::Connect) -> Connect {
    let will = connect.last_will.as_ref().map(|will| Will {
        topic: Arc::from(&*will.topic),
        payload: Bytes::copy_from_slice(&will.message),
        delay: Duration::ZERO,
    });
    Connect {
        dialect: Dialect::V311,
        client_id: Box::from(&*connect.client_id),
        clean_start: connect.clean_session,
        expiry: connect.clean_session.then_some(Duration::ZERO),
        keep_alive: connect.keep_alive,
        will,
        username: connect.username.as_ref().map(|user| Box::from(&**user)),
        password: connect.password.as_ref().map(|password| Bytes::copy_from_slice(password)),
        enhanced_auth: false,
    }
}

fn check_publish(publish: types::Publish) -> Result<Incoming, PacketError> {
    check_topic(&publish.topic)?;
    let types::Publish { dup, qos, packet_id, payload, .. } = publish;
    if dup && qos == QoS::AtMostOnce {
        return Err(PacketError::Forbidden("DUP at QoS 0"));
    }
    Ok(Incoming::Publish(Box::new(Publish { dup, qos, packet_id, topic: Arc::from(&*publish.topic), alias: None, payload })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_bytes(bytes: &[u8]) -> Result<Incoming, PacketError> {
        decode(BytesMut::from(bytes))
    }

    fn connect_bytes(bytes: &[u8]) -> Result<Box<Connect>, PacketError> {
        connect(BytesMut::from(bytes))
    }

    #[test]
    fn a_connect_is_read_with_its_will_and_its_binary_password() {
        let bytes = b"\x10\x26\0\x04MQTT\x04\xe6\0\x3c\0\x02id\0\x03w/t\0\x03off\0\x04user\0\x02\xff\xfe";
        let mut bytes = bytes.to_vec();
        bytes[1] = (bytes.len() - 2) as u8;
        let connect = connect_bytes(&bytes).unwrap();
        assert_eq!((&*connect.client_id, connect.keep_alive, connect.clean_start), ("id", 60, true));
        assert_eq!((connect.expiry, connect.username.as_deref()), (Some(Duration::ZERO), Some("user")));
        assert_eq!(&*connect.will.unwrap().payload, b"off");
        assert_eq!(&*connect.password.unwrap(), b"\xff\xfe");
    }

    #[test]
    fn malformed_and_forbidden_packets_are_told_apart_from_good_ones() {
        let good: [&[u8]; 8] = [
            b"\x30\x05\0\x01a12",
            b"\x32\x05\0\x01a\0\x01",
            b"\x30\x07\0\x05a//b ",
            b"\xc0\0",
            b"\xe0\0",
            b"\x82\x06\0\x01\0\x01a\0",
            b"\x34\x05\0\x01a\0\x01",
            b"\x62\x02\0\x01",
        ];
        for bytes in good {
            assert!(decode_bytes(bytes).is_ok(), "{bytes:x?}: {:?}", decode_bytes(bytes));
        }
        let bad: [(&str, &[u8]); 23] = [
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
            ("PUBREL with other flags", b"\x60\x02\0\x01"),
            ("PUBREL of id 0", b"\x62\x02\0\0"),
            ("PUBREC to us", b"\x50\x02\0\x01"),
            ("a second CONNECT", b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a"),
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
        assert_eq!(connect_bytes(b"\x10\x0c\0\x04MQTT\x04\0\0\0\0\0"), Err(PacketError::NoClientId));
        let bad: [(&str, &[u8]); 6] = [
            ("reserved flag", b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01a"),
            ("password without a user", b"\x10\x10\0\x04MQTT\x04\x42\0\0\0\x01a\0\x01p"),
            ("will flags without a will", b"\x10\x0d\0\x04MQTT\x04\x0a\0\0\0\x01a"),
            ("trailing bytes", b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x01ax"),
            ("will topic with a wildcard", b"\x10\x12\0\x04MQTT\x04\x06\0\0\0\x01a\0\x01#\0\0"),
            ("U+0000 in the client id", b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01\0"),
        ];
        for (what, bytes) in bad {
            assert!(connect_bytes(bytes).is_err(), "{what}");
        }
    }
}
