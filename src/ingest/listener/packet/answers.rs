//! How answers are written. Those of version 5 are a fixed byte or two more than those of 3.1.1, but for CONNACK.

use std::num::NonZeroU16;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::{Dialect, Reason};
use crate::ingest::header::put_variable_length;

/// CONNACK's return codes of 3.1.1.
const BAD_VERSION: u8 = 1;
const BAD_CLIENT_ID: u8 = 2;
const UNAVAILABLE: u8 = 3;
const BAD_CREDENTIALS: u8 = 4;
const NOT_AUTHORISED: u8 = 5;

/// A filter's refusal in a SUBACK of 3.1.1.
const FAILURE: u8 = 0x80;

/// What a sensor is told when it is let in.
#[derive(Debug)]
pub(in crate::ingest::listener) struct Welcome<'a> {
    /// Whether there was a session.
    pub(in crate::ingest::listener) session_present: bool,
    /// The client id, where we chose it.
    pub(in crate::ingest::listener) assigned_client_id: Option<&'a str>,
    /// Until when the session outlives the connection, where that is not what was asked for.
    pub(in crate::ingest::listener) expiry: Option<Duration>,
    /// Messages that may be under way.
    pub(in crate::ingest::listener) receive_maximum: u16,
    /// The longest packet that is read.
    pub(in crate::ingest::listener) max_packet_bytes: u32,
    /// The greatest topic alias.
    pub(in crate::ingest::listener) topic_alias_maximum: u16,
}

impl Dialect {
    /// Writes the CONNACK that lets a sensor in.
    ///
    /// We say that RETAIN is available, and ignore it: who does not know it must refuse every will that has it (3.2.2.3.5).
    pub(in crate::ingest::listener) fn put_welcome(self, outbound: &mut BytesMut, welcome: &Welcome<'_>) {
        let present = u8::from(welcome.session_present);
        match self {
            Self::V311 => self.put(outbound, 0x20, &[present, 0]),
            Self::V5 { .. } => {
                let mut body = vec![present, Reason::Success.code()];
                put_properties(&mut body, &welcome.properties());
                self.put(outbound, 0x20, &body);
            }
        }
    }

    /// Writes the CONNACK that does not; 3.1.1 has few reasons.
    pub(in crate::ingest::listener) fn put_refusal(self, outbound: &mut BytesMut, reason: Reason) {
        let code = match (self, reason) {
            (Self::V5 { .. }, reason) => return self.put(outbound, 0x20, &[0, reason.code(), 0]),
            (Self::V311, Reason::Version) => BAD_VERSION,
            (Self::V311, Reason::ClientId) => BAD_CLIENT_ID,
            (Self::V311, Reason::BadCredentials) => BAD_CREDENTIALS,
            (Self::V311, Reason::NotAuthorised) => NOT_AUTHORISED,
            (Self::V311, _) => UNAVAILABLE,
        };
        self.put(outbound, 0x20, &[0, code]);
    }

    /// Writes PUBACK.
    pub(in crate::ingest::listener) fn put_puback(self, outbound: &mut BytesMut, packet_id: NonZeroU16, reason: Reason) {
        self.put_acknowledgement(outbound, 0x40, packet_id, reason);
    }

    /// Writes PUBREC.
    pub(in crate::ingest::listener) fn put_pubrec(self, outbound: &mut BytesMut, packet_id: NonZeroU16, reason: Reason) {
        self.put_acknowledgement(outbound, 0x50, packet_id, reason);
    }

    /// Writes PUBCOMP.
    pub(in crate::ingest::listener) fn put_pubcomp(self, outbound: &mut BytesMut, packet_id: NonZeroU16, reason: Reason) {
        self.put_acknowledgement(outbound, 0x70, packet_id, reason);
    }

    fn put_acknowledgement(self, outbound: &mut BytesMut, first_byte: u8, packet_id: NonZeroU16, reason: Reason) {
        let [high, low] = packet_id.get().to_be_bytes();
        match self {
            Self::V5 { .. } if reason != Reason::Success => self.put(outbound, first_byte, &[high, low, reason.code()]),
            _ => self.put(outbound, first_byte, &[high, low]),
        }
    }

    /// Writes a SUBACK that refuses every filter.
    pub(in crate::ingest::listener) fn put_suback(self, outbound: &mut BytesMut, packet_id: NonZeroU16, refusals: &[Reason]) {
        let mut body = packet_id.get().to_be_bytes().to_vec();
        match self {
            Self::V311 => body.extend(refusals.iter().map(|_| FAILURE)),
            Self::V5 { .. } => {
                body.push(0);
                body.extend(refusals.iter().map(|reason| reason.code()));
            }
        }
        self.put(outbound, 0x90, &body);
    }

    /// Writes UNSUBACK.
    pub(in crate::ingest::listener) fn put_unsuback(self, outbound: &mut BytesMut, packet_id: NonZeroU16, filters: usize) {
        let mut body = packet_id.get().to_be_bytes().to_vec();
        if let Self::V5 { .. } = self {
            body.push(0);
            body.extend(std::iter::repeat_n(Reason::NoSubscription.code(), filters));
        }
        self.put(outbound, 0xb0, &body);
    }

    /// Writes PINGRESP.
    pub(in crate::ingest::listener) fn put_pingresp(self, outbound: &mut BytesMut) {
        self.put(outbound, 0xd0, &[]);
    }

    /// Writes DISCONNECT, with words for whoever looks into it; 3.1.1 has none for servers.
    pub(in crate::ingest::listener) fn put_disconnect(self, outbound: &mut BytesMut, reason: Reason, words: &str) {
        let Self::V5 { max_packet_bytes } = self else { return };
        let mut said = vec![reason.code()];
        let mut property = vec![0x1f];
        put_text(&mut property, words);
        put_properties(&mut said, &property);
        if packet_bytes(said.len()) > max_packet_bytes as usize {
            said = vec![reason.code()];
        }
        self.put(outbound, 0xe0, &said);
    }

    /// A packet that is longer than the sensor takes is not sent (3.1.2.11.4).
    fn put(self, outbound: &mut BytesMut, first_byte: u8, body: &[u8]) {
        if let Self::V5 { max_packet_bytes } = self
            && packet_bytes(body.len()) > max_packet_bytes as usize
        {
            return;
        }
        outbound.put_u8(first_byte);
        put_variable_length(outbound, body.len());
        outbound.put_slice(body);
    }
}

impl Welcome<'_> {
    fn properties(&self) -> Vec<u8> {
        // No subscriptions with wildcards, with identifiers, or shared.
        let mut bytes = vec![0x28, 0, 0x29, 0, 0x2a, 0];
        if let Some(expiry) = self.expiry {
            bytes.push(0x11);
            bytes.extend(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
        }
        bytes.push(0x21);
        bytes.extend(self.receive_maximum.to_be_bytes());
        bytes.push(0x22);
        bytes.extend(self.topic_alias_maximum.to_be_bytes());
        bytes.push(0x27);
        bytes.extend(self.max_packet_bytes.to_be_bytes());
        if let Some(client_id) = self.assigned_client_id {
            bytes.push(0x12);
            put_text(&mut bytes, client_id);
        }
        bytes
    }
}

/// With the shortest length that fits.
fn packet_bytes(body: usize) -> usize {
    let length = match body {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x0020_0000 => 3,
        _ => 4,
    };
    1 + length + body
}

fn put_properties(to: &mut Vec<u8>, properties: &[u8]) {
    put_variable_length(to, properties.len());
    to.extend(properties);
}

/// Cut to what a string may hold; ours are short.
fn put_text(to: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(0);
    to.extend(length.to_be_bytes());
    to.extend(text.as_bytes().iter().take(length.into()));
}

#[cfg(test)]
mod tests {
    use rmqtt_codec::v5 as codec;
    use tokio_util::codec::Decoder;

    use super::*;

    const V5: Dialect = Dialect::V5 { max_packet_bytes: u32::MAX };
    const WELCOME: Welcome<'_> = Welcome {
        session_present: true,
        assigned_client_id: Some("assigned-1"),
        expiry: Some(Duration::from_secs(90)),
        receive_maximum: 10_000,
        max_packet_bytes: 1 << 24,
        topic_alias_maximum: 32,
    };

    /// What another codec reads of what `put` writes.
    fn read(put: impl FnOnce(&mut BytesMut)) -> codec::Packet {
        let mut bytes = BytesMut::new();
        put(&mut bytes);
        let packet = codec::Codec::new(0, 0).decode(&mut bytes).unwrap().unwrap().0;
        assert!(bytes.is_empty());
        packet
    }

    #[test]
    fn answers_of_3_1_1_have_the_bytes_of_the_standard() {
        let (id, dialect) = (NonZeroU16::new(0x0102).unwrap(), Dialect::V311);
        let mut outbound = BytesMut::new();
        dialect.put_welcome(&mut outbound, &WELCOME);
        dialect.put_puback(&mut outbound, id, Reason::Payload);
        dialect.put_pubrec(&mut outbound, id, Reason::Quota);
        dialect.put_pubcomp(&mut outbound, id, Reason::UnknownId);
        dialect.put_suback(&mut outbound, id, &[Reason::NotDone, Reason::Shared]);
        dialect.put_unsuback(&mut outbound, id, 2);
        dialect.put_pingresp(&mut outbound);
        dialect.put_disconnect(&mut outbound, Reason::Stopping, "it stops");
        for reason in [Reason::Version, Reason::ClientId, Reason::Unavailable, Reason::Busy, Reason::BadCredentials, Reason::NotAuthorised]
        {
            dialect.put_refusal(&mut outbound, reason);
        }
        let expected = b"\x20\x02\x01\0\x40\x02\x01\x02\x50\x02\x01\x02\x70\x02\x01\x02\x90\x04\x01\x02\x80\x80\xb0\x02\x01\x02\xd0\0\
            \x20\x02\0\x01\x20\x02\0\x02\x20\x02\0\x03\x20\x02\0\x03\x20\x02\0\x04\x20\x02\0\x05";
        assert_eq!(&outbound[..], &expected[..]);
    }

    #[test]
    fn a_welcome_of_version_5_says_what_we_can_and_what_we_can_not() {
        let codec::Packet::ConnectAck(found) = read(|bytes| V5.put_welcome(bytes, &WELCOME)) else { panic!() };
        let expected = codec::ConnectAck {
            session_present: true,
            session_expiry_interval_secs: Some(90),
            receive_max: NonZeroU16::new(10_000).unwrap(),
            max_packet_size: Some(1 << 24),
            assigned_client_id: Some("assigned-1".into()),
            topic_alias_max: 32,
            wildcard_subscription_available: false,
            subscription_identifiers_available: false,
            shared_subscription_available: false,
            ..codec::ConnectAck::default()
        };
        assert_eq!(*found, expected);
    }

    #[test]
    fn answers_of_version_5_are_what_another_codec_reads() {
        let packet_id = NonZeroU16::new(7).unwrap();
        let ack = |reason_code| codec::PublishAck { packet_id, reason_code, ..codec::PublishAck::default() };
        let refused = ack(codec::PublishAckReason::PayloadFormatInvalid);
        assert_eq!(read(|bytes| V5.put_puback(bytes, packet_id, Reason::Payload)), codec::Packet::PublishAck(refused));
        let taken = ack(codec::PublishAckReason::Success);
        assert_eq!(read(|bytes| V5.put_pubrec(bytes, packet_id, Reason::Success)), codec::Packet::PublishReceived(taken));
        let reason_code = codec::PublishAck2Reason::PacketIdNotFound;
        let unknown = codec::PublishAck2 { packet_id, reason_code, ..codec::PublishAck2::default() };
        assert_eq!(read(|bytes| V5.put_pubcomp(bytes, packet_id, Reason::UnknownId)), codec::Packet::PublishComplete(unknown));
        let status = vec![codec::SubscribeAckReason::SharedSubscriptionNotSupported; 2];
        let refused = codec::SubscribeAck { packet_id, properties: vec![], reason_string: None, status };
        assert_eq!(read(|bytes| V5.put_suback(bytes, packet_id, &[Reason::Shared; 2])), codec::Packet::SubscribeAck(refused));
        let status = vec![codec::UnsubscribeAckReason::NoSubscriptionExisted; 3];
        let nothing = codec::UnsubscribeAck { packet_id, properties: vec![], reason_string: None, status };
        assert_eq!(read(|bytes| V5.put_unsuback(bytes, packet_id, 3)), codec::Packet::UnsubscribeAck(nothing));
        let mut gone = codec::Disconnect::new(codec::DisconnectReasonCode::SessionTakenOver);
        gone.reason_string = Some("another".into());
        assert_eq!(read(|bytes| V5.put_disconnect(bytes, Reason::TakenOver, "another")), codec::Packet::Disconnect(gone));
        let codec::Packet::ConnectAck(refused) = read(|bytes| V5.put_refusal(bytes, Reason::AuthMethod)) else { panic!() };
        assert_eq!(refused.reason_code, codec::ConnectAckReason::BadAuthenticationMethod);
    }

    #[test]
    fn no_packet_is_longer_than_the_sensor_takes() {
        let mut outbound = BytesMut::new();
        let small = Dialect::V5 { max_packet_bytes: 4 };
        small.put_welcome(&mut outbound, &WELCOME);
        small.put_puback(&mut outbound, NonZeroU16::MIN, Reason::Payload);
        assert!(outbound.is_empty());
        small.put_puback(&mut outbound, NonZeroU16::MIN, Reason::Success);
        small.put_disconnect(&mut outbound, Reason::Stopping, "too many words");
        assert_eq!(&outbound[..], b"\x40\x02\0\x01\xe0\x01\x8b");
        let long = "x".repeat(300);
        outbound.clear();
        Dialect::V5 { max_packet_bytes: 309 }.put_disconnect(&mut outbound, Reason::Stopping, &long);
        assert_eq!(outbound.len(), 309);
        outbound.clear();
        Dialect::V5 { max_packet_bytes: 308 }.put_disconnect(&mut outbound, Reason::Stopping, &long);
        assert_eq!(outbound.len(), 3);
    }
}
