//! The properties of a packet of MQTT 5 (2.2.2): which it may have, each once, and the few that matter here. All others are
//! checked for their form and passed over; nothing of them is kept.

use super::PacketError;
use super::fields::Fields;

const PAYLOAD_FORMAT: u8 = 0x01;
const MESSAGE_EXPIRY: u8 = 0x02;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const SUBSCRIPTION_ID: u8 = 0x0b;
const SESSION_EXPIRY: u8 = 0x11;
const AUTH_METHOD: u8 = 0x15;
const AUTH_DATA: u8 = 0x16;
const REQUEST_PROBLEM: u8 = 0x17;
const WILL_DELAY: u8 = 0x18;
const REQUEST_RESPONSE: u8 = 0x19;
const REASON_STRING: u8 = 0x1f;
const RECEIVE_MAXIMUM: u8 = 0x21;
const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
const TOPIC_ALIAS: u8 = 0x23;
const USER: u8 = 0x26;
const MAX_PACKET: u8 = 0x27;

/// The properties that a packet of one type may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed(u64);

impl Allowed {
    const fn of(ids: &[u8]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < ids.len() {
            #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
            let id = ids[at];
            bits |= 1 << id;
            at += 1;
        }
        Self(bits)
    }
}

pub(super) const CONNECT: Allowed = Allowed::of(&[
    SESSION_EXPIRY,
    AUTH_METHOD,
    AUTH_DATA,
    REQUEST_PROBLEM,
    REQUEST_RESPONSE,
    RECEIVE_MAXIMUM,
    TOPIC_ALIAS_MAXIMUM,
    USER,
    MAX_PACKET,
]);
pub(super) const WILL: Allowed =
    Allowed::of(&[PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, WILL_DELAY, USER]);
pub(super) const PUBLISH: Allowed =
    Allowed::of(&[PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, TOPIC_ALIAS, USER]);
pub(super) const PUBREL: Allowed = Allowed::of(&[REASON_STRING, USER]);
pub(super) const SUBSCRIBE: Allowed = Allowed::of(&[SUBSCRIPTION_ID, USER]);
pub(super) const UNSUBSCRIBE: Allowed = Allowed::of(&[USER]);
pub(super) const DISCONNECT: Allowed = Allowed::of(&[SESSION_EXPIRY, REASON_STRING, USER]);

/// The properties that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Properties {
    /// Bits by identifier.
    seen: u64,
    /// Seconds.
    pub(super) session_expiry: Option<u32>,
    /// Seconds.
    pub(super) will_delay: Option<u32>,
    /// As it came: 0 is for the caller to refuse.
    pub(super) topic_alias: Option<u16>,
    /// Never 0.
    pub(super) max_packet_bytes: Option<u32>,
}

impl Properties {
    /// Reads the next properties of a packet that may have those in `allowed`.
    ///
    /// # Errors
    /// One that may not be there, or be there twice, or has no such value.
    pub(super) fn read(fields: &mut Fields, allowed: Allowed) -> Result<Self, PacketError> {
        let bytes = fields.variable()?;
        let mut fields = fields.split(bytes)?;
        let mut found = Self::default();
        while !fields.is_empty() {
            let id = fields.byte()?;
            let bit = 1_u64.checked_shl(id.into()).unwrap_or(0);
            if allowed.0 & bit == 0 {
                return Err(PacketError::Malformed("a property that it can't have"));
            }
            if found.seen & bit != 0 && id != USER {
                return Err(PacketError::Forbidden("a property that is there twice"));
            }
            found.seen |= bit;
            found.take(id, &mut fields)?;
        }
        if found.has(AUTH_DATA) && !found.has(AUTH_METHOD) {
            return Err(PacketError::Forbidden("data of authentication without its method"));
        }
        Ok(found)
    }

    fn take(&mut self, id: u8, fields: &mut Fields) -> Result<(), PacketError> {
        match id {
            PAYLOAD_FORMAT | REQUEST_PROBLEM | REQUEST_RESPONSE => {
                if fields.byte()? > 1 {
                    return Err(PacketError::Forbidden("a property that is neither 0 nor 1"));
                }
            }
            MESSAGE_EXPIRY => _ = fields.long()?,
            SESSION_EXPIRY => self.session_expiry = Some(fields.long()?),
            WILL_DELAY => self.will_delay = Some(fields.long()?),
            MAX_PACKET => self.max_packet_bytes = Some(not_zero(fields.long()?)?),
            RECEIVE_MAXIMUM => _ = not_zero(fields.short()?.into())?,
            TOPIC_ALIAS_MAXIMUM => _ = fields.short()?,
            TOPIC_ALIAS => self.topic_alias = Some(fields.short()?),
            SUBSCRIPTION_ID => _ = not_zero(u32::try_from(fields.variable()?).unwrap_or(u32::MAX))?,
            CORRELATION_DATA | AUTH_DATA => _ = fields.binary()?,
            USER => {
                fields.skip_text()?;
                fields.skip_text()?;
            }
            _ => fields.skip_text()?,
        }
        Ok(())
    }

    fn has(&self, id: u8) -> bool {
        self.seen & (1 << id) != 0
    }

    /// Whether a method of authentication is named.
    pub(super) fn has_auth_method(&self) -> bool {
        self.has(AUTH_METHOD)
    }

    /// Whether a subscription has an identifier.
    pub(super) fn has_subscription_id(&self) -> bool {
        self.has(SUBSCRIPTION_ID)
    }
}

fn not_zero(value: u32) -> Result<u32, PacketError> {
    if value == 0 { Err(PacketError::Forbidden("a property of 0 that must be more")) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(allowed: Allowed, bytes: &'static [u8]) -> Result<Properties, PacketError> {
        let mut fields = Fields::new(Bytes::from_static(bytes));
        let found = Properties::read(&mut fields, allowed)?;
        fields.end().map(|()| found)
    }

    #[test]
    fn what_matters_is_found_among_what_does_not() {
        let found = read(CONNECT, b"\x1c\x17\0\x26\0\x01a\0\x01b\x11\0\0\x0e\x10\x26\0\x01a\0\0\x21\0\x05\x27\0\0\x01\0").unwrap();
        assert_eq!((found.session_expiry, found.max_packet_bytes), (Some(3600), Some(256)));
        assert!(!found.has_auth_method());
        assert_eq!(read(PUBLISH, b"\x08\x02\0\0\0\0\x23\0\x07").unwrap().topic_alias, Some(7));
        assert_eq!(read(WILL, b"\x05\x18\0\0\0\x09").unwrap().will_delay, Some(9));
        assert!(read(CONNECT, b"\x08\x15\0\x01x\x16\0\x01y").unwrap().has_auth_method());
        assert!(read(SUBSCRIBE, b"\x03\x0b\x80\x01").unwrap().has_subscription_id());
        assert_eq!(read(PUBREL, b"\0").unwrap(), Properties::default());
    }

    #[test]
    fn malformed_ones_and_forbidden_ones_are_told_apart() {
        let malformed: [(&str, Allowed, &[u8]); 8] = [
            ("longer than the packet", PUBLISH, b"\x05\x23\0\x01"),
            ("a length that does not end", PUBLISH, b"\x80\x80\x80\x80\x01"),
            ("a value cut off", PUBLISH, b"\x02\x23\0"),
            ("an identifier that is none", PUBLISH, b"\x01\x7f"),
            ("an identifier beyond all", PUBLISH, b"\x01\xff"),
            ("one of another packet", PUBLISH, b"\x05\x11\0\0\0\x01"),
            ("a string that is not UTF-8", PUBLISH, b"\x04\x03\0\x01\xff"),
            ("a subscription identifier in a message", PUBLISH, b"\x02\x0b\x01"),
        ];
        for (what, allowed, bytes) in malformed {
            assert!(matches!(read(allowed, bytes), Err(PacketError::Malformed(_))), "{what}: {:?}", read(allowed, bytes));
        }
        let forbidden: [(&str, Allowed, &[u8]); 6] = [
            ("twice", PUBLISH, b"\x06\x23\0\x01\x23\0\x01"),
            ("not a flag", PUBLISH, b"\x02\x01\x02"),
            ("receive maximum 0", CONNECT, b"\x03\x21\0\0"),
            ("maximum packet size 0", CONNECT, b"\x05\x27\0\0\0\0"),
            ("subscription identifier 0", SUBSCRIBE, b"\x02\x0b\0"),
            ("data without a method", CONNECT, b"\x04\x16\0\x01y"),
        ];
        for (what, allowed, bytes) in forbidden {
            assert!(matches!(read(allowed, bytes), Err(PacketError::Forbidden(_))), "{what}: {:?}", read(allowed, bytes));
        }
    }
}
