//! What packets of MQTT 5 say.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::fields::Fields;
use super::properties::{self, Properties};
use super::{Connect, Dialect, Incoming, LONGEST_EXPIRY, PacketError, Publish, QoS, Reason, Will, check_topic};

/// CONNECT's protocol name and level.
const BEFORE_FLAGS: usize = 7;

const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

/// The only reason code of DISCONNECT that drops the will (3.14.4).
const NORMAL: u8 = 0x00;

/// The first byte, and what follows the fixed header.
fn split(packet: Bytes) -> Result<(u8, Fields), PacketError> {
    let mut fields = Fields::new(packet);
    let first_byte = fields.byte()?;
    let bytes = fields.variable()?;
    let body = fields.split(bytes)?;
    fields.end().map(|()| (first_byte, body))
}

/// Reads a CONNECT; its protocol name and level are known to be right.
pub(super) fn connect(packet: Bytes) -> Result<Box<Connect>, PacketError> {
    let (_, mut fields) = split(packet)?;
    fields.split(BEFORE_FLAGS)?;
    let flags = fields.byte()?;
    if flags & 1 != 0 {
        return Err(PacketError::Malformed("a reserved flag of CONNECT"));
    }
    let keep_alive = fields.short()?;
    let properties = Properties::read(&mut fields, properties::CONNECT)?;
    let client_id = fields.text()?;
    let will = will(flags, &mut fields)?;
    let username = (flags & USERNAME != 0).then(|| fields.text()).transpose()?;
    // A copy, so that it doesn't keep the packet.
    let password = (flags & PASSWORD != 0).then(|| fields.binary()).transpose()?.map(|bytes| Bytes::copy_from_slice(&bytes));
    fields.end()?;
    Ok(Box::new(Connect {
        dialect: Dialect::V5 { max_packet_bytes: properties.max_packet_bytes.unwrap_or(u32::MAX) },
        client_id,
        clean_start: flags & CLEAN_START != 0,
        expiry: Some(expiry(properties.session_expiry.unwrap_or(0))),
        keep_alive,
        will,
        username,
        password,
        enhanced_auth: properties.has_auth_method(),
    }))
}

/// As asked for, or the longest there is; "never" is asked for with the greatest number.
fn expiry(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()).min(LONGEST_EXPIRY)
}

fn will(flags: u8, fields: &mut Fields) -> Result<Option<Will>, PacketError> {
    if flags & WILL == 0 {
        let alone = flags & (WILL_QOS | WILL_RETAIN) == 0;
        return if alone { Ok(None) } else { Err(PacketError::Malformed("flags of a will without a will")) };
    }
    if flags & WILL_QOS == WILL_QOS {
        return Err(PacketError::Malformed("a will at QoS 3"));
    }
    let properties = Properties::read(fields, properties::WILL)?;
    let topic: Arc<str> = fields.text()?;
    check_topic(&topic)?;
    let payload = Bytes::copy_from_slice(&fields.binary()?);
    let delay = Duration::from_secs(properties.will_delay.unwrap_or(0).into());
    Ok(Some(Will { topic, payload, delay }))
}

/// Reads any packet but a CONNECT.
pub(super) fn decode(packet: Bytes) -> Result<Incoming, PacketError> {
    let (first_byte, fields) = split(packet)?;
    match first_byte {
        0x30..=0x3f => publish(first_byte & 0x0f, fields),
        0x62 => release(fields),
        0x82 => subscribe(fields),
        0xa2 => unsubscribe(fields),
        0xc0 => fields.end().map(|()| Incoming::Ping),
        0xe0 => disconnect(fields),
        0x10 => Err(PacketError::Forbidden("a second CONNECT")),
        0xf0 => Err(PacketError::Forbidden("authentication that was not agreed on")),
        0x20 | 0x40 | 0x50 | 0x70 | 0x90 | 0xb0 | 0xd0 => {
            Err(PacketError::Forbidden("a packet that only a server may send, or that answers nothing we sent"))
        }
        _ => Err(PacketError::Malformed("a type or flags that do not exist")),
    }
}

fn publish(flags: u8, mut fields: Fields) -> Result<Incoming, PacketError> {
    let qos = QoS::try_from(flags >> 1 & 0b11).map_err(|_| PacketError::Malformed("a message at QoS 3"))?;
    let dup = flags & 0b1000 != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(PacketError::Forbidden("DUP at QoS 0"));
    }
    let topic: Arc<str> = fields.text()?;
    let packet_id = (qos != QoS::AtMostOnce).then(|| packet_id(&mut fields)).transpose()?;
    let alias = Properties::read(&mut fields, properties::PUBLISH)?.topic_alias;
    match alias {
        Some(0) => return Err(PacketError::TopicAlias(0)),
        Some(_) if topic.is_empty() => {}
        None if topic.is_empty() => return Err(PacketError::Forbidden("neither a topic nor an alias of one")),
        _ => check_topic(&topic)?,
    }
    Ok(Incoming::Publish(Box::new(Publish { dup, qos, packet_id, topic, alias, payload: fields.rest() })))
}

fn packet_id(fields: &mut Fields) -> Result<NonZeroU16, PacketError> {
    NonZeroU16::new(fields.short()?).ok_or(PacketError::Forbidden("packet id 0"))
}

fn release(mut fields: Fields) -> Result<Incoming, PacketError> {
    let packet_id = packet_id(&mut fields)?;
    // The reason code is 0 or "unknown id"; either way the sender is done with it.
    if !fields.is_empty() {
        fields.byte()?;
    }
    if !fields.is_empty() {
        Properties::read(&mut fields, properties::PUBREL)?;
    }
    fields.end().map(|()| Incoming::Release { packet_id })
}

fn subscribe(mut fields: Fields) -> Result<Incoming, PacketError> {
    let packet_id = packet_id(&mut fields)?;
    let numbered = Properties::read(&mut fields, properties::SUBSCRIBE)?.has_subscription_id();
    let mut refusals = Vec::new();
    while !fields.is_empty() {
        let filter: Box<str> = fields.text()?;
        if fields.byte()? & 0b1100_0000 != 0 {
            return Err(PacketError::Malformed("reserved options of a subscription"));
        }
        refusals.push(match &*filter {
            "" => return Err(PacketError::Forbidden("an empty topic filter")),
            _ if numbered => Reason::SubscriptionIds,
            filter if filter.starts_with("$share/") => Reason::Shared,
            filter if filter.contains(['+', '#']) => Reason::Wildcards,
            _ => Reason::NotDone,
        });
    }
    if refusals.is_empty() {
        return Err(PacketError::Forbidden("a subscription to nothing"));
    }
    Ok(Incoming::Subscribe { packet_id, refusals })
}

fn unsubscribe(mut fields: Fields) -> Result<Incoming, PacketError> {
    let packet_id = packet_id(&mut fields)?;
    Properties::read(&mut fields, properties::UNSUBSCRIBE)?;
    let mut filters = 0;
    while !fields.is_empty() {
        fields.skip_text()?;
        filters += 1;
    }
    if filters == 0 {
        return Err(PacketError::Forbidden("nothing to unsubscribe from"));
    }
    Ok(Incoming::Unsubscribe { packet_id, filters })
}

fn disconnect(mut fields: Fields) -> Result<Incoming, PacketError> {
    let reason = if fields.is_empty() { NORMAL } else { fields.byte()? };
    let properties = if fields.is_empty() { Properties::default() } else { Properties::read(&mut fields, properties::DISCONNECT)? };
    fields.end()?;
    Ok(Incoming::Disconnect { with_will: reason != NORMAL, expiry: properties.session_expiry.map(expiry) })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rmqtt_codec::v5 as codec;
    use tokio_util::codec::Encoder;

    use super::*;

    /// A packet as another codec writes it.
    fn written(packet: codec::Packet) -> Bytes {
        let mut bytes = BytesMut::new();
        codec::Codec::new(0, 0).encode(packet, &mut bytes).unwrap();
        bytes.freeze()
    }

    fn connect_with(flags: u8, rest: &[u8]) -> Result<Box<Connect>, PacketError> {
        let mut packet = b"\x10\0\0\x04MQTT\x05".to_vec();
        packet.push(flags);
        packet.extend(b"\0\x3c");
        packet.extend(rest);
        packet[1] = (packet.len() - 2) as u8;
        connect(packet.into())
    }

    #[test]
    fn a_connect_is_read_as_another_codec_writes_it() {
        let will = codec::LastWill {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "w/t".into(),
            message: Bytes::from_static(b"off"),
            will_delay_interval_sec: Some(30),
            correlation_data: Some(Bytes::from_static(b"c")),
            message_expiry_interval: std::num::NonZeroU32::new(5),
            content_type: Some("text".into()),
            user_properties: vec![("a".into(), "b".into()), ("a".into(), "c".into())],
            is_utf8_payload: Some(true),
            response_topic: Some("r".into()),
        };
        let asked = codec::Connect {
            keep_alive: 60,
            session_expiry_interval_secs: 3600,
            auth_method: Some("SCRAM".into()),
            auth_data: Some(Bytes::from_static(b"x")),
            request_problem_info: false,
            receive_max: NonZeroU16::new(9),
            topic_alias_max: 4,
            user_properties: vec![("k".into(), "v".into())],
            max_packet_size: std::num::NonZeroU32::new(1000),
            last_will: Some(will),
            client_id: "id".into(),
            username: Some("user".into()),
            password: Some(Bytes::from_static(b"\xff\xfe")),
            ..codec::Connect::default()
        };
        let found = connect(written(codec::Packet::Connect(Box::new(asked)))).unwrap();
        let will = Will { topic: "w/t".into(), payload: Bytes::from_static(b"off"), delay: Duration::from_secs(30) };
        let expected = Connect {
            dialect: Dialect::V5 { max_packet_bytes: 1000 },
            client_id: "id".into(),
            clean_start: false,
            expiry: Some(Duration::from_secs(3600)),
            keep_alive: 60,
            will: Some(will),
            username: Some("user".into()),
            password: Some(Bytes::from_static(b"\xff\xfe")),
            enhanced_auth: true,
        };
        assert_eq!(*found, expected);
    }

    #[test]
    fn a_session_expires_as_asked_for_but_not_later_than_the_longest() {
        let asked = |seconds: u32| {
            let properties = [&[5, 0x11][..], &seconds.to_be_bytes(), &[0, 1, b'a']].concat();
            connect_with(2, &properties).unwrap().expiry
        };
        assert_eq!(connect_with(2, b"\0\0\x01a").unwrap().expiry, Some(Duration::ZERO));
        assert_eq!((asked(7), asked(u32::MAX)), (Some(Duration::from_secs(7)), Some(LONGEST_EXPIRY)));
    }

    #[test]
    fn an_empty_client_id_may_come_with_and_without_a_clean_start() {
        for flags in [0, 2] {
            assert_eq!(&*connect_with(flags, b"\0\0\0").unwrap().client_id, "");
        }
    }

    #[test]
    fn connects_that_the_standard_forbids_are_refused() {
        let bad: [(&str, u8, &[u8]); 10] = [
            ("reserved flag", 3, b"\0\0\x01a"),
            ("will flags without a will", 0x0a, b"\0\0\x01a"),
            ("will retain without a will", 0x22, b"\0\0\x01a"),
            ("a will at QoS 3", 0x1e, b"\0\0\x01a\0\0\x01t\0\0"),
            ("a will's topic with a wildcard", 0x06, b"\0\0\x01a\0\0\x01#\0\0"),
            ("a property of another packet", 2, b"\x03\x23\0\x01\0\x01a"),
            ("a property twice", 2, b"\x06\x21\0\x01\x21\0\x01\0\x01a"),
            ("U+0000 in the client id", 2, b"\0\0\x01\0"),
            ("bytes behind its end", 2, b"\0\0\x01ax"),
            ("no password where there is to be one", 0x42, b"\0\0\x01a"),
        ];
        for (what, flags, rest) in bad {
            assert!(connect_with(flags, rest).is_err(), "{what}");
        }
    }

    #[test]
    fn a_message_is_read_with_its_alias_and_without_the_rest() {
        let found = decode(Bytes::from_static(b"\x3c\x17\0\x01a\x01\x02\x0f\x02\0\0\0\0\x23\0\x05\x26\0\x01a\0\x01b12")).unwrap();
        let (packet_id, alias) = (NonZeroU16::new(0x0102), Some(5));
        let expected = Publish { dup: true, qos: QoS::ExactlyOnce, packet_id, topic: "a".into(), alias, payload: "12".into() };
        assert_eq!(found, Incoming::Publish(Box::new(expected)));
        let Incoming::Publish(publish) = decode(Bytes::from_static(b"\x30\x06\0\0\x03\x23\0\x05")).unwrap() else { panic!() };
        assert_eq!((&*publish.topic, publish.alias, publish.packet_id, publish.payload.len()), ("", Some(5), None, 0));
    }

    #[test]
    fn other_packets_are_read_as_another_codec_writes_them() {
        let id = NonZeroU16::new(7).unwrap();
        let released = codec::PublishAck2 { packet_id: id, reason_string: Some("so".into()), ..codec::PublishAck2::default() };
        assert_eq!(decode(written(codec::Packet::PublishRelease(released))), Ok(Incoming::Release { packet_id: id }));
        let filter = |text: &'static str| (text.into(), codec::SubscriptionOptions::default());
        let mut subscribe = codec::Subscribe {
            packet_id: id,
            id: None,
            user_properties: vec![],
            topic_filters: vec![filter("a/+"), filter("$share/g/a"), filter("a")],
        };
        let refusals = vec![Reason::Wildcards, Reason::Shared, Reason::NotDone];
        assert_eq!(decode(written(codec::Packet::Subscribe(subscribe.clone()))), Ok(Incoming::Subscribe { packet_id: id, refusals }));
        subscribe.id = std::num::NonZeroU32::new(300);
        let refusals = vec![Reason::SubscriptionIds; 3];
        assert_eq!(decode(written(codec::Packet::Subscribe(subscribe))), Ok(Incoming::Subscribe { packet_id: id, refusals }));
        let unsubscribe = codec::Unsubscribe { packet_id: id, user_properties: vec![], topic_filters: vec!["a".into(), "b".into()] };
        assert_eq!(decode(written(codec::Packet::Unsubscribe(unsubscribe))), Ok(Incoming::Unsubscribe { packet_id: id, filters: 2 }));
        let gone = codec::Disconnect {
            reason_code: codec::DisconnectReasonCode::DisconnectWithWillMessage,
            session_expiry_interval_secs: Some(9),
            ..codec::Disconnect::default()
        };
        let expiry = Some(Duration::from_secs(9));
        assert_eq!(decode(written(codec::Packet::Disconnect(gone))), Ok(Incoming::Disconnect { with_will: true, expiry }));
    }

    #[test]
    fn short_forms_are_read() {
        let quiet = Incoming::Disconnect { with_will: false, expiry: None };
        for (bytes, expected) in [
            (&b"\xe0\0"[..], &quiet),
            (b"\xe0\x01\0", &quiet),
            (b"\xc0\0", &Incoming::Ping),
            (b"\x62\x02\0\x01", &Incoming::Release { packet_id: NonZeroU16::MIN }),
            (b"\x62\x03\0\x01\x92", &Incoming::Release { packet_id: NonZeroU16::MIN }),
            (b"\x62\x04\0\x01\0\0", &Incoming::Release { packet_id: NonZeroU16::MIN }),
        ] {
            assert_eq!(decode(Bytes::from_static(bytes)).as_ref(), Ok(expected), "{bytes:x?}");
        }
    }

    #[test]
    fn malformed_and_forbidden_packets_are_refused() {
        let bad: [(&str, &[u8]); 25] = [
            ("no topic and no alias", b"\x30\x03\0\0\0"),
            ("a wildcard", b"\x30\x04\0\x01#\0"),
            ("alias 0", b"\x30\x07\0\x01a\x03\x23\0\0"),
            ("an alias twice", b"\x30\x0a\0\x01a\x06\x23\0\x01\x23\0\x01"),
            ("a subscription identifier", b"\x30\x06\0\x01a\x02\x0b\x01"),
            ("no properties", b"\x30\x03\0\x01a"),
            ("packet id 0", b"\x32\x06\0\x01a\0\0\0"),
            ("QoS 3", b"\x36\x06\0\x01a\0\x01\0"),
            ("DUP at QoS 0", b"\x38\x04\0\x01a\0"),
            ("topic beyond the packet", b"\x30\x04\0\x09a\0"),
            ("topic that is not UTF-8", b"\x30\x04\0\x01\xff\0"),
            ("PINGREQ with a body", b"\xc0\x01x"),
            ("PINGREQ with flags", b"\xc1\0"),
            ("PUBREL with other flags", b"\x60\x02\0\x01"),
            ("PUBREL of id 0", b"\x62\x02\0\0"),
            ("PUBREL with bytes behind its end", b"\x62\x05\0\x01\0\0x"),
            ("SUBSCRIBE without filters", b"\x82\x03\0\x01\0"),
            ("SUBSCRIBE with reserved options", b"\x82\x07\0\x01\0\0\x01a\x40"),
            ("UNSUBSCRIBE without filters", b"\xa2\x03\0\x01\0"),
            ("PUBACK to us", b"\x40\x02\0\x01"),
            ("PUBREC to us", b"\x50\x02\0\x01"),
            ("PUBCOMP to us", b"\x70\x02\0\x01"),
            ("CONNACK to us", b"\x20\x03\0\0\0"),
            ("AUTH", b"\xf0\0"),
            ("type 0", b"\0\0"),
        ];
        for (what, bytes) in bad {
            assert!(decode(Bytes::from_static(bytes)).is_err(), "{what}: {:?}", decode(Bytes::from_static(bytes)));
        }
    }
}
