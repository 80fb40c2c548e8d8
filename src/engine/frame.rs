//! Frames: how daemon and engine talk over a stream socket.
//!
//! Two little-endian lengths, a head (JSON, what it is) and a body (bytes, what it carries). Both lengths have bounds,
//! and the daemon's are narrow: what the engine sends is not trusted.

use std::io;
use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::Decoder;

/// Bytes of the two lengths.
const LENGTHS: usize = 8;

/// Longest head and body that a reader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the head.
    pub head: usize,
    /// Bytes of the body.
    pub body: usize,
}

/// Towards the engine: the list of all segments is a head (a year of five-minute seals is 6 MiB), the longest journal
/// batch a body.
#[cfg(feature = "engine")]
pub const TO_ENGINE: Bounds = Bounds { head: 64 << 20, body: 512 << 20 };

/// From the engine: an event or a piece of an answer.
pub const FROM_ENGINE: Bounds = Bounds { head: 64 << 10, body: 1 << 20 };

/// The bytes that come before a body of `body_bytes`.
///
/// # Errors
/// A head that is no JSON, or lengths beyond 4 GiB.
pub fn head_of<T: Serialize>(head: &T, body_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; LENGTHS];
    serde_json::to_writer(&mut bytes, head)?;
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a frame is beyond 4 GiB");
    let lengths = [bytes.len() - LENGTHS, body_bytes].map(u32::try_from);
    for (place, length) in bytes.chunks_exact_mut(4).zip(lengths) {
        place.copy_from_slice(&length.map_err(too_long)?.to_le_bytes());
    }
    Ok(bytes)
}

/// Reads frames whose heads are `T`.
#[derive(Debug)]
pub struct FrameReader<T> {
    bounds: Bounds,
    head: PhantomData<fn() -> T>,
}

impl<T> FrameReader<T> {
    /// Reads frames within `bounds`.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, head: PhantomData }
    }
}

impl<T: DeserializeOwned> Decoder for FrameReader<T> {
    type Item = (T, Bytes);
    type Error = io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let mut lengths = source.as_ref();
        if lengths.len() < LENGTHS {
            return Ok(None);
        }
        let (head, body) = (lengths.get_u32_le() as usize, lengths.get_u32_le() as usize);
        if head > self.bounds.head || body > self.bounds.body {
            let message = format!("a frame of {head} and {body} bytes is beyond its bounds");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let whole = LENGTHS + head + body;
        if source.len() < whole {
            source.reserve(whole - source.len());
            return Ok(None);
        }
        let mut frame = source.split_to(whole);
        frame.advance(LENGTHS);
        let head = serde_json::from_slice(&frame.split_to(head))?;
        Ok(Some((head, frame.freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> FrameReader<String> {
        FrameReader::new(Bounds { head: 16, body: 8 })
    }

    fn frame(head: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = head_of(&head, body.len()).unwrap();
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn frames_come_back_whatever_the_pieces_they_arrive_in() {
        let mut bytes = frame("one", b"1");
        bytes.extend(frame("two", b""));
        bytes.extend(frame("three", b"12345678"));
        for piece in 1..=bytes.len() {
            let (mut source, mut seen) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(piece) {
                source.extend_from_slice(part);
                while let Some((head, body)) = reader().decode(&mut source).unwrap() {
                    seen.push((head, body.to_vec()));
                }
            }
            let expected = [("one", b"1".as_slice()), ("two", b""), ("three", b"12345678")];
            assert_eq!(seen, expected.map(|(head, body)| (head.to_owned(), body.to_vec())), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_frame_beyond_its_bounds_is_refused_before_it_is_there() {
        let mut long_body = BytesMut::from(&head_of(&"x", 9).unwrap()[..]);
        assert!(reader().decode(&mut long_body).is_err());
        let mut long_head = BytesMut::from(&head_of(&"x".repeat(17), 0).unwrap()[..8]);
        assert!(reader().decode(&mut long_head).is_err());
    }

    #[test]
    fn a_head_of_another_kind_is_an_error() {
        let mut bytes = BytesMut::from(&frame("x", b"")[..]);
        assert!(FrameReader::<u64>::new(FROM_ENGINE).decode(&mut bytes).is_err());
    }
}
