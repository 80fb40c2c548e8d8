//! Cuts the byte stream into packets. Pure: no packet is allocated before its length is known to be allowed, and of a
//! PUBLISH that is too long only the beginning is kept while the rest is read past.

use bytes::{Buf, BufMut, BytesMut};

use crate::ingest::header::{EndlessLength, Header, MAX_HEADER_BYTES, put_variable_length, variable_length};

/// First bytes of packets that need not wait for those before them.
const PINGREQ: u8 = 0xc0;
const PUBREL: u8 = 0x62;

/// How much of the payload of a message that is too long is kept to show it.
pub(super) const SAMPLE_BYTES: usize = 1024;

/// What a PUBLISH may have beside its payload: topic and packet id, and room to make a sample of what is longer.
const PUBLISH_ALLOWANCE: usize = 2 + 65_535 + 2 + SAMPLE_BYTES;

/// Longest properties of a message that is too long: they are kept for its topic alias, unread as they are.
const MAX_PROPERTIES_BYTES: usize = 16 << 10;

/// Longest packet that is no PUBLISH: ample for a CONNECT with a will, a user and a password.
const MAX_CONTROL_BYTES: usize = 32 << 10;

/// A PUBLISH longer than this, and than what is allowed, is not even read past: reading it would only cost the link.
const MAX_SKIMMED_BYTES: usize = 16 << 20;

/// The stream can't be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// More than four bytes of remaining length.
    #[error(transparent)]
    EndlessLength(#[from] EndlessLength),
    /// The packet may not be that long.
    #[error("a packet of type {packet_type} with {bytes} bytes, {limit} are allowed")]
    TooLong {
        /// The type, 0 to 15.
        packet_type: u8,
        /// The remaining length it announced.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// One packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// All its bytes, the fixed header first.
    Whole(BytesMut),
    /// A PUBLISH longer than allowed, cut short to [`SAMPLE_BYTES`] of payload: by itself a whole packet again.
    Shortened {
        /// The packet.
        packet: BytesMut,
        /// How long its payload was.
        payload_bytes: usize,
    },
}

/// A PUBLISH of which the rest is being read past.
#[derive(Debug)]
struct Skimming {
    packet: BytesMut,
    payload_bytes: usize,
    left: usize,
}

/// Cuts one connection's stream.
#[derive(Debug)]
pub(super) struct Framer {
    max_publish_bytes: usize,
    /// Whether messages have properties, as in version 5.
    properties: bool,
    skimming: Option<Skimming>,
}

impl Framer {
    /// Payloads up to `max_message_bytes` come whole.
    pub(super) fn new(max_message_bytes: usize) -> Self {
        Self { max_publish_bytes: max_message_bytes.saturating_add(PUBLISH_ALLOWANCE), properties: false, skimming: None }
    }

    /// From here on the stream is one of version 5.
    pub(super) fn expect_properties(&mut self) {
        self.properties = true;
        self.max_publish_bytes = self.max_publish_bytes.saturating_add(MAX_HEADER_BYTES - 1 + MAX_PROPERTIES_BYTES);
    }

    /// The longest packet that is read, or read past.
    pub(super) fn max_packet_bytes(&self) -> usize {
        MAX_HEADER_BYTES + self.max_publish_bytes.max(MAX_SKIMMED_BYTES)
    }

    /// Takes the next packet out of `inbound`; `None` if more bytes are needed.
    ///
    /// # Errors
    /// The connection can't be read any further.
    pub(super) fn next(&mut self, inbound: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if self.skimming.is_some() {
            return Ok(self.skim(inbound));
        }
        let Some(header) = Header::read(inbound)? else { return Ok(None) };
        let is_publish = header.is_publish();
        let whole_limit = if is_publish { self.max_publish_bytes } else { MAX_CONTROL_BYTES };
        if header.remaining <= whole_limit {
            let length = header.packet_bytes();
            return Ok((inbound.len() >= length).then(|| Frame::Whole(inbound.split_to(length))));
        }
        let limit = if is_publish { whole_limit.max(MAX_SKIMMED_BYTES) } else { whole_limit };
        if header.remaining > limit {
            return Err(FrameError::TooLong { packet_type: header.packet_type(), bytes: header.remaining, limit });
        }
        Ok(if self.begin_skimming(inbound, header)? { self.skim(inbound) } else { None })
    }

    /// Takes a whole ping, or a whole release of what `is_held`, out of `inbound`, from between the packets around it.
    pub(super) fn next_urgent(&self, inbound: &mut BytesMut, is_held: impl Fn(u16) -> bool) -> Option<BytesMut> {
        let (mut place, mut found) = (0, None);
        while self.skimming.is_none() && found.is_none() {
            let rest = inbound.get(place..)?;
            // What is no packet is found when its turn comes.
            let bytes = Header::read(rest).ok().flatten()?.packet_bytes();
            match rest.get(..bytes)? {
                [PINGREQ, 0] => found = Some(bytes),
                [PUBREL, _, high, low, ..] if is_held(u16::from_be_bytes([*high, *low])) => found = Some(bytes),
                _ => place += bytes,
            }
        }
        let mut behind = inbound.split_off(place);
        let packet = behind.split_to(found?);
        inbound.unsplit(behind);
        Some(packet)
    }

    /// The length of the packet of which the beginning is here, if it will be kept whole.
    pub(super) fn under_way(&self, inbound: &BytesMut) -> Option<usize> {
        let header = Header::read(inbound).ok().flatten().filter(|_| self.skimming.is_none())?;
        (header.remaining <= self.max_publish_bytes).then_some(header.packet_bytes())
    }

    /// Bytes to make room for before the next read: what the packet under way still needs, at least `least` and at most
    /// `most`, so that a length that was only announced costs nothing.
    pub(super) fn room(&self, inbound: &BytesMut, least: usize, most: usize) -> usize {
        if self.skimming.is_some() {
            return most;
        }
        match Header::read(inbound) {
            Ok(Some(header)) => header.packet_bytes().saturating_sub(inbound.len()).clamp(least, most),
            _ => least,
        }
    }

    /// Keeps the beginning of a long PUBLISH as soon as it is there; `false` if more bytes are needed for it.
    fn begin_skimming(&mut self, inbound: &mut BytesMut, header: Header) -> Result<bool, FrameError> {
        let Some(before_payload) = self.before_payload(inbound, header)? else { return Ok(false) };
        let kept = before_payload + SAMPLE_BYTES;
        if inbound.len() < header.length + kept {
            return Ok(false);
        }
        inbound.advance(header.length);
        let beginning = inbound.split_to(kept);
        let mut packet = BytesMut::with_capacity(MAX_HEADER_BYTES + kept);
        packet.put_u8(header.first_byte);
        put_variable_length(&mut packet, kept);
        packet.extend_from_slice(&beginning);
        let left = header.remaining - kept;
        self.skimming = Some(Skimming { packet, payload_bytes: header.remaining - before_payload, left });
        Ok(true)
    }

    /// The bytes of a long PUBLISH between its header and its payload; `None` if more are needed to tell. Never beyond the
    /// packet: it is longer than all that is allowed here, and a sample.
    fn before_payload(&self, inbound: &BytesMut, header: Header) -> Result<Option<usize>, FrameError> {
        let body = inbound.get(header.length..).unwrap_or_default();
        let Some(&topic_bytes) = body.first_chunk() else { return Ok(None) };
        let packet_id = if header.first_byte & 0b0110 == 0 { 0 } else { 2 };
        let before = 2 + usize::from(u16::from_be_bytes(topic_bytes)) + packet_id;
        if !self.properties {
            return Ok(Some(before));
        }
        let Some((bytes, length)) = variable_length(body.get(before..).unwrap_or_default())? else { return Ok(None) };
        if bytes > MAX_PROPERTIES_BYTES {
            return Err(FrameError::TooLong { packet_type: header.packet_type(), bytes: header.remaining, limit: self.max_publish_bytes });
        }
        Ok(Some(before + length + bytes))
    }

    fn skim(&mut self, inbound: &mut BytesMut) -> Option<Frame> {
        let mut skimming = self.skimming.take()?;
        let past = skimming.left.min(inbound.len());
        inbound.advance(past);
        skimming.left -= past;
        if skimming.left > 0 {
            self.skimming = Some(skimming);
            return None;
        }
        Some(Frame::Shortened { packet: skimming.packet, payload_bytes: skimming.payload_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(topic: &str, payload_bytes: usize, packet_id: Option<u16>) -> BytesMut {
        let mut packet = BytesMut::new();
        packet.put_u8(0x30 | if packet_id.is_some() { 0b0010 } else { 0 });
        put_variable_length(&mut packet, 2 + topic.len() + if packet_id.is_some() { 2 } else { 0 } + payload_bytes);
        packet.put_u16(topic.len() as u16);
        packet.extend_from_slice(topic.as_bytes());
        if let Some(id) = packet_id {
            packet.put_u16(id);
        }
        packet.put_bytes(b'x', payload_bytes);
        packet
    }

    /// Feeds `stream` in pieces of `piece` bytes.
    fn frames(framer: &mut Framer, stream: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
        let (mut inbound, mut found) = (BytesMut::new(), Vec::new());
        for part in stream.chunks(piece) {
            inbound.extend_from_slice(part);
            while let Some(frame) = framer.next(&mut inbound)? {
                found.push(frame);
            }
        }
        Ok(found)
    }

    #[test]
    fn packets_are_the_same_however_the_stream_is_torn() {
        let packets = [publish("a/b", 3, None), BytesMut::from(&[0xc0, 0][..]), publish("c", 300, Some(7))];
        let stream: Vec<u8> = packets.iter().flatten().copied().collect();
        for piece in [1, 2, 3, 7, 100, stream.len()] {
            let found = frames(&mut Framer::new(1000), &stream, piece).unwrap();
            assert_eq!(found, packets.iter().cloned().map(Frame::Whole).collect::<Vec<_>>(), "pieces of {piece}");
        }
    }

    #[test]
    fn a_ping_and_a_release_of_what_is_held_come_out_from_between_other_packets() {
        let (ping, held, other) = ([0xc0, 0], [0x62, 2, 0, 7], [0x62, 2, 0, 8]);
        let (first, last) = (publish("a", 300, Some(7)), publish("b", 9, None));
        let mut inbound = BytesMut::new();
        for part in [&first[..], &ping, &other, &held, &last, &ping[..1]] {
            inbound.extend_from_slice(part);
        }
        let framer = Framer::new(1000);
        let urgent: Vec<_> = std::iter::from_fn(|| framer.next_urgent(&mut inbound, |id| id == 7)).collect();
        assert_eq!(urgent, [&ping[..], &held]);
        assert_eq!(inbound, [&first[..], &other, &last, &ping[..1]].concat());
        for garbage in [&[][..], &[0x30], &[0x30, 0xff, 0xff, 0xff, 0xff], &[0x62, 0], &[0xc0, 5, 0]] {
            assert_eq!(framer.next_urgent(&mut BytesMut::from(garbage), |_| true), None, "{garbage:x?}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_read_past_and_the_next_packet_is_whole() {
        let long = publish("dev/1", 300_000, Some(9));
        let mut stream = long.to_vec();
        stream.extend_from_slice(&[0xc0, 0]);
        for piece in [1, 1000, 65_536, stream.len()] {
            let found = frames(&mut Framer::new(1000), &stream, piece).unwrap();
            let expected = Frame::Shortened { packet: publish("dev/1", SAMPLE_BYTES, Some(9)), payload_bytes: 300_000 };
            assert_eq!(found, [expected, Frame::Whole(BytesMut::from(&[0xc0, 0][..]))], "pieces of {piece}");
        }
    }

    #[test]
    fn a_topic_of_any_length_may_come_with_a_message_that_is_too_long() {
        let topic = "t".repeat(65_535);
        let stream = publish(&topic, 500_000, None);
        let found = frames(&mut Framer::new(0), &stream, 4096).unwrap();
        assert_eq!(found, [Frame::Shortened { packet: publish(&topic, SAMPLE_BYTES, None), payload_bytes: 500_000 }]);
    }

    #[test]
    fn in_version_5_the_properties_of_a_message_that_is_too_long_are_kept() {
        let message = |properties: &[u8], payload_bytes: usize| {
            let mut body = BytesMut::from(&b"\0\x01t\0\x09"[..]);
            put_variable_length(&mut body, properties.len());
            body.extend_from_slice(properties);
            body.put_bytes(b'x', payload_bytes);
            let mut packet = BytesMut::from(&[0x32][..]);
            put_variable_length(&mut packet, body.len());
            packet.extend_from_slice(&body);
            packet
        };
        let framer = || {
            let mut framer = Framer::new(1000);
            framer.expect_properties();
            framer
        };
        for properties in [vec![], vec![7; 3], vec![7; MAX_PROPERTIES_BYTES]] {
            let mut stream = message(&properties, 300_000).to_vec();
            stream.extend_from_slice(&[0xc0, 0]);
            for piece in [1, 1000, stream.len()] {
                let expected = Frame::Shortened { packet: message(&properties, SAMPLE_BYTES), payload_bytes: 300_000 };
                let found = frames(&mut framer(), &stream, piece).unwrap();
                assert_eq!(found, [expected, Frame::Whole(BytesMut::from(&[0xc0, 0][..]))], "pieces of {piece}");
            }
        }
        let found = frames(&mut framer(), &message(&[7; MAX_PROPERTIES_BYTES + 1], 300_000), 4096);
        assert!(matches!(found, Err(FrameError::TooLong { packet_type: 3, .. })), "{found:?}");
        let endless = [&[0x32, 0x80, 0x80, 0x40, 0, 1, b't', 0, 9][..], &[0x80; 4]].concat();
        assert_eq!(frames(&mut framer(), &endless, 1), Err(FrameError::EndlessLength(EndlessLength)));
        assert_eq!(framer().max_packet_bytes(), 5 + (16 << 20));
    }

    #[test]
    fn what_is_longer_than_any_limit_is_refused_by_its_header_alone() {
        let publish_header = [0x30, 0xff, 0xff, 0xff, 0x7f];
        let error = frames(&mut Framer::new(1000), &publish_header, 5).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { packet_type: 3, bytes: 0x0fff_ffff, .. }), "{error}");
        let connect_header = [0x10, 0x80, 0x80, 0x40];
        assert!(matches!(frames(&mut Framer::new(1 << 22), &connect_header, 1), Err(FrameError::TooLong { packet_type: 1, .. })));
    }

    #[test]
    fn a_fifth_byte_of_length_is_malformed() {
        assert_eq!(frames(&mut Framer::new(10), &[0x30, 0x80, 0x80, 0x80, 0x80], 1), Err(FrameError::EndlessLength(EndlessLength)));
        assert_eq!(frames(&mut Framer::new(10), &[0x30, 0x80, 0x80, 0x80], 1), Ok(vec![]));
    }

    #[test]
    fn room_follows_what_is_missing_but_never_what_is_announced() {
        let framer = Framer::new(1 << 20);
        let announced = BytesMut::from(&[0x30, 0x80, 0x80, 0x40][..]);
        assert_eq!(framer.room(&announced, 512, 4096), 4096);
        assert_eq!(framer.room(&BytesMut::from(&[0x30, 100][..]), 64, 4096), 100);
        assert_eq!(framer.room(&BytesMut::new(), 512, 4096), 512);
    }
}
