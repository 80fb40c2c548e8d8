//! The fields that packets of MQTT 5 are made of (1.5), read from a packet that is whole.

use bytes::{Buf, Bytes};

use super::PacketError;
use crate::ingest::header::variable_length;

/// What is left of a packet. Binary data are slices of it.
#[derive(Debug)]
pub(super) struct Fields {
    rest: Bytes,
}

impl Fields {
    pub(super) fn new(rest: Bytes) -> Self {
        Self { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), PacketError> {
        if self.is_empty() { Ok(()) } else { Err(PacketError::Malformed("bytes behind its end")) }
    }

    /// The next `bytes` bytes as fields of their own.
    pub(super) fn split(&mut self, bytes: usize) -> Result<Self, PacketError> {
        self.take(bytes).map(Self::new)
    }

    fn take(&mut self, bytes: usize) -> Result<Bytes, PacketError> {
        if self.rest.len() < bytes {
            return Err(PacketError::Malformed("it ends within a field"));
        }
        Ok(self.rest.split_to(bytes))
    }

    pub(super) fn byte(&mut self) -> Result<u8, PacketError> {
        Ok(self.take(1)?.get_u8())
    }

    pub(super) fn short(&mut self) -> Result<u16, PacketError> {
        Ok(self.take(2)?.get_u16())
    }

    pub(super) fn long(&mut self) -> Result<u32, PacketError> {
        Ok(self.take(4)?.get_u32())
    }

    /// A number in one to four bytes.
    pub(super) fn variable(&mut self) -> Result<usize, PacketError> {
        let (value, bytes) = variable_length(&self.rest).ok().flatten().ok_or(PacketError::Malformed("a length that does not end"))?;
        self.rest.advance(bytes);
        Ok(value)
    }

    pub(super) fn binary(&mut self) -> Result<Bytes, PacketError> {
        let bytes = self.short()?;
        self.take(bytes.into())
    }

    /// A string, without U+0000.
    pub(super) fn text<T: for<'a> From<&'a str>>(&mut self) -> Result<T, PacketError> {
        let bytes = self.binary()?;
        valid(&bytes).map(T::from)
    }

    /// The same for one that nobody needs.
    pub(super) fn skip_text(&mut self) -> Result<(), PacketError> {
        valid(&self.binary()?).map(drop)
    }
}

fn valid(bytes: &[u8]) -> Result<&str, PacketError> {
    let text = std::str::from_utf8(bytes).map_err(|_| PacketError::Malformed("a string that is not UTF-8"))?;
    if text.contains('\0') { Err(PacketError::Malformed("a string with U+0000")) } else { Ok(text) }
}
