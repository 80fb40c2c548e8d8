//! MQTT 3.1.1 on a socket or over TLS, from the client's side: frames in, packets out.
//!
//! Packets are rumqttc's; PUBLISH is read here, because its decoder ends the connection at a message that is too long
//! or whose topic is not UTF-8. A broker redelivers such a message at every connection, so that it would keep all others
//! out for ever. Here it is passed on, cut to a sample, and can be refused and acknowledged.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Packet};
use tokio_util::codec::{Decoder, FramedRead};

use super::target::{Socket, Target, Writer};
use crate::ingest::header::Header;
use crate::tls::HandshakeError;

/// How much of a message that is too long is kept, for a look at it.
pub const SAMPLE_BYTES: usize = 1024;

/// Longest packet that is not a message. The longest that a broker sends is a SUBACK: a byte a filter.
const MAX_CONTROL_BYTES: usize = 64 << 10;

/// What is read from the socket at once.
const READ_BUFFER_BYTES: usize = 32 << 10;

/// Time for the name, the TCP handshake and the CONNACK together: a broker behind a slow link takes a few seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The same with TLS: two round trips more, and some kilobytes of certificates.
const TLS_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What went wrong on the wire.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket failed, or there is no way to the broker.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No TLS with the broker.
    #[error("no TLS with the broker: {0}")]
    Tls(#[from] HandshakeError),
    /// No CONNACK in time.
    #[error("the broker did not answer within {}s", .0.as_secs())]
    Timeout(Duration),
    /// The broker ended the connection instead of accepting it.
    #[error("the broker closed the connection without an answer; does it speak {} on this port?", if *.tls { "TLS" } else { "MQTT without TLS (or mqtts://)" })]
    Unanswered {
        /// Whether we speak TLS.
        tls: bool,
    },
    /// The broker ended the connection.
    #[error("the broker closed the connection, as it does too when another client takes the same client id")]
    Closed,
    /// CONNACK with a reason.
    #[error("the broker refused the connection: {}", reason(*.0))]
    Refused(ConnectReturnCode),
    /// What came is not MQTT.
    #[error("malformed packet: {0}")]
    Malformed(String),
    /// A packet that does not belong here.
    #[error("unexpected packet {0}")]
    Unexpected(&'static str),
}

/// A CONNACK's refusal in words, with what to look at.
fn reason(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::Success => "it did not",
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1",
        ConnectReturnCode::BadClientId => "it does not allow this client id",
        ConnectReturnCode::ServiceUnavailable => "it is not available",
        ConnectReturnCode::BadUserNamePassword => "wrong user name or password",
        ConnectReturnCode::NotAuthorized => "not authorised; does it ask for a user name and password?",
    }
}

/// A message as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Kept by the broker from before the subscription.
    pub retain: bool,
    /// Not zero with QoS 1 and 2, zero with QoS 0.
    pub packet_id: u16,
    /// UTF-8 if the sender keeps to the standard.
    pub topic: Bytes,
    /// The body, or its beginning where it is longer than allowed.
    pub payload: Bytes,
    /// Length of the whole body in bytes.
    pub length: usize,
}

impl Publish {
    /// Whether the body was longer than allowed, and is cut.
    pub fn is_cut(&self) -> bool {
        self.length > self.payload.len()
    }
}

/// What a broker sends.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Publish(Publish),
    /// Anything else.
    Packet(Packet),
}

/// Cuts the stream into packets; holds at most one, and of a message that is too long no more than a sample.
#[derive(Debug)]
pub struct Frames {
    max_payload_bytes: usize,
    /// A message whose remaining bytes are being skipped.
    skipping: Option<(Publish, usize)>,
}

impl Frames {
    /// Cuts messages beyond `max_payload_bytes`.
    pub fn new(max_payload_bytes: usize) -> Self {
        Self { max_payload_bytes, skipping: None }
    }

    fn skip(&mut self, src: &mut BytesMut, publish: Publish, rest: usize) -> Option<Incoming> {
        let skipped = rest.min(src.len());
        src.advance(skipped);
        if skipped == rest {
            return Some(Incoming::Publish(publish));
        }
        self.skipping = Some((publish, rest - skipped));
        None
    }

    fn publish(&mut self, src: &mut BytesMut, header: Header) -> Result<Option<Incoming>, WireError> {
        let qos = (header.first_byte >> 1) & 0b11;
        let id_bytes = match qos {
            0 => 0,
            1 | 2 => 2,
            _ => return Err(WireError::Malformed("a message with QoS 3".to_owned())),
        };
        let Some(&[high, low]) = src.get(header.length..header.length + 2) else { return Ok(None) };
        let topic_bytes = usize::from(u16::from_be_bytes([high, low]));
        let head = 2 + topic_bytes + id_bytes;
        let Some(length) = header.remaining.checked_sub(head) else {
            return Err(WireError::Malformed("a message whose topic is longer than itself".to_owned()));
        };
        let kept = if length > self.max_payload_bytes { SAMPLE_BYTES.min(self.max_payload_bytes) } else { length };
        let wanted = header.length + head + kept;
        if src.len() < wanted {
            src.reserve(wanted - src.len());
            return Ok(None);
        }
        let mut frame = src.split_to(wanted).freeze();
        frame.advance(header.length + 2);
        let topic = frame.split_to(topic_bytes);
        let packet_id = if id_bytes == 0 { 0 } else { frame.get_u16() };
        if id_bytes != 0 && packet_id == 0 {
            return Err(WireError::Malformed("a message with packet id 0".to_owned()));
        }
        let (dup, retain) = (header.first_byte & 0b1000 != 0, header.first_byte & 0b1 != 0);
        let publish = Publish { dup, qos, retain, packet_id, topic, payload: frame, length };
        Ok(self.skip(src, publish, length - kept))
    }
}

impl Decoder for Frames {
    type Item = Incoming;
    type Error = WireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Incoming>, WireError> {
        if let Some((publish, rest)) = self.skipping.take() {
            return Ok(self.skip(src, publish, rest));
        }
        let Some(header) = Header::read(src).map_err(|error| WireError::Malformed(error.to_string()))? else { return Ok(None) };
        if header.is_publish() {
            return self.publish(src, header);
        }
        match Packet::read(src, MAX_CONTROL_BYTES) {
            Ok(packet) => Ok(Some(Incoming::Packet(packet))),
            Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(WireError::Malformed(error.to_string())),
        }
    }
}

/// A connection that the broker has accepted.
pub struct Wire {
    /// What the broker sends.
    pub reader: FramedRead<Socket, Frames>,
    /// To the broker.
    pub writer: Writer,
    /// Whether the broker still knew our session.
    pub session_present: bool,
}

impl Wire {
    /// Connects and logs in; cuts messages beyond `max_payload_bytes`.
    pub async fn open(target: &Target, login: Connect, max_payload_bytes: usize) -> Result<Self, WireError> {
        let limit = if target.address.tls { TLS_CONNECT_TIMEOUT } else { CONNECT_TIMEOUT };
        let open = Self::handshake(target, login, max_payload_bytes);
        let opened = tokio::time::timeout(limit, open).await.unwrap_or(Err(WireError::Timeout(limit)));
        // A broker that does not like our certificate says so where its first answer should be.
        opened.map_err(|error| match error {
            WireError::Io(error) => target.fault(&error).map_or(WireError::Io(error), WireError::Tls),
            error => error,
        })
    }

    async fn handshake(target: &Target, login: Connect, max_payload_bytes: usize) -> Result<Self, WireError> {
        let (reader, mut writer) = target.connect().await?;
        let mut out = BytesMut::new();
        encode(&Packet::Connect(login), &mut out);
        writer.write_all(&mut out).await?;
        let mut reader = FramedRead::with_capacity(reader, Frames::new(max_payload_bytes), READ_BUFFER_BYTES);
        match reader.next().await.ok_or(WireError::Unanswered { tls: target.address.tls })?? {
            Incoming::Packet(Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, session_present })) => {
                Ok(Self { reader, writer, session_present })
            }
            Incoming::Packet(Packet::ConnAck(ConnAck { code, .. })) => Err(WireError::Refused(code)),
            other => Err(WireError::Unexpected(other.name())),
        }
    }
}

impl Incoming {
    /// The packet's name in the standard.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Publish(_) | Self::Packet(Packet::Publish(_)) => "PUBLISH",
            Self::Packet(packet) => match packet {
                Packet::Connect(_) => "CONNECT",
                Packet::ConnAck(_) => "CONNACK",
                Packet::PubAck(_) => "PUBACK",
                Packet::PubRec(_) => "PUBREC",
                Packet::PubRel(_) => "PUBREL",
                Packet::PubComp(_) => "PUBCOMP",
                Packet::Subscribe(_) => "SUBSCRIBE",
                Packet::SubAck(_) => "SUBACK",
                Packet::Unsubscribe(_) => "UNSUBSCRIBE",
                Packet::UnsubAck(_) => "UNSUBACK",
                Packet::PingReq => "PINGREQ",
                Packet::PingResp => "PINGRESP",
                _ => "DISCONNECT",
            },
        }
    }
}

/// Appends `packet`, which is one of ours and well within MQTT's limits, to what is to be written.
pub fn encode(packet: &Packet, out: &mut BytesMut) {
    let written = packet.write(out, usize::MAX);
    debug_assert!(written.is_ok(), "a packet of our own could not be written: {written:?}");
}
