//! The first bytes of every MQTT packet, read from a stream by client and listener alike (MQTT 3.1.1, 2.2).

use bytes::BufMut;

/// The packet type of a PUBLISH.
pub const PUBLISH: u8 = 3;

/// Longest header: one byte and four of remaining length.
pub const MAX_HEADER_BYTES: usize = 5;

/// The length takes more than four bytes: what follows can't be told from anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed remaining length")]
pub struct EndlessLength;

/// The length at the beginning of `bytes`, and how many bytes it takes, at most four; `None` if more are needed. Seven bits
/// a byte, least significant first.
///
/// # Errors
/// It does not end with its fourth byte.
pub fn variable_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, EndlessLength> {
    let mut length = 0;
    for (place, &byte) in bytes.iter().take(MAX_HEADER_BYTES - 1).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((length, place + 1)));
        }
    }
    if bytes.len() < MAX_HEADER_BYTES - 1 { Ok(None) } else { Err(EndlessLength) }
}

/// Appends a length, as [`variable_length`] reads it.
pub fn put_variable_length(out: &mut impl BufMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

/// The fixed header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Packet type and flags.
    pub first_byte: u8,
    /// Bytes that follow the header.
    pub remaining: usize,
    /// Bytes of the header itself.
    pub length: usize,
}

impl Header {
    /// The header at the beginning of `stream`; `None` if more bytes are needed.
    ///
    /// # Errors
    /// The stream can't be read any further.
    pub fn read(stream: &[u8]) -> Result<Option<Self>, EndlessLength> {
        let Some((&first_byte, rest)) = stream.split_first() else { return Ok(None) };
        Ok(variable_length(rest)?.map(|(remaining, bytes)| Self { first_byte, remaining, length: 1 + bytes }))
    }

    /// Bytes of the packet with its header.
    pub fn packet_bytes(self) -> usize {
        self.length + self.remaining
    }

    /// 0 to 15.
    pub fn packet_type(self) -> u8 {
        self.first_byte >> 4
    }

    /// Whether it begins a message.
    pub fn is_publish(self) -> bool {
        self.packet_type() == PUBLISH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_at_their_limits() {
        let read = |bytes: &[u8]| Header::read(bytes).map(|header| header.map(|header| (header.length, header.remaining)));
        for (bytes, expected) in [
            (&[0x30, 0][..], (2, 0)),
            (&[0x30, 0x7f], (2, 127)),
            (&[0x30, 0x80, 0x01], (3, 128)),
            (&[0x30, 0xff, 0xff, 0xff, 0x7f], (5, 268_435_455)),
        ] {
            assert_eq!(read(bytes), Ok(Some(expected)));
            (0..bytes.len()).for_each(|end| assert_eq!(read(&bytes[..end]), Ok(None)));
        }
        assert_eq!(read(&[0x30, 0x80, 0x80, 0x80, 0x80]), Err(EndlessLength));
        assert!(Header::read(&[0x3f, 0]).unwrap().unwrap().is_publish());
    }
}
