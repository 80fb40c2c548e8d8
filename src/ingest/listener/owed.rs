//! What a sensor is owed for a delivery, from the moment it is handed in.

use std::num::NonZeroU16;

use crate::ingest::Rejection;

/// What a sensor is owed once its delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    /// For a message at QoS 1.
    Puback,
    /// For a message at QoS 2: it is held.
    Pubrec,
    /// For a PUBREL: the message is held no longer.
    Pubcomp,
    /// For a PUBREL of what was not held.
    PubcompOfNothing,
}

impl Owed {
    const ALL: [Self; 4] = [Self::Puback, Self::Pubrec, Self::Pubcomp, Self::PubcompOfNothing];

    /// What is written on the receipt; to whom it is owed is known from where that goes.
    pub(super) fn token(self, packet_id: NonZeroU16) -> u64 {
        (self as u64) << 16 | u64::from(packet_id.get())
    }

    /// The other way round.
    pub(super) fn of_token(token: u64) -> Option<(Self, NonZeroU16)> {
        let packet_id = NonZeroU16::new((token & 0xffff) as u16)?;
        Self::ALL.into_iter().find(|owed| owed.token(packet_id) == token).map(|owed| (owed, packet_id))
    }
}

/// What a settled delivery means for the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settlement {
    /// Send this.
    Acknowledge {
        /// What.
        owed: Owed,
        /// For which packet.
        packet_id: NonZeroU16,
        /// Why the message is not kept, if it is not.
        rejection: Option<Rejection>,
    },
    /// It belonged to an earlier connection: the sensor will send it again, and that will be acknowledged.
    Earlier,
    /// Close without acknowledging anything more.
    NotTaken(String),
}

/// A message that wants to be acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    /// Its packet id.
    pub(super) packet_id: NonZeroU16,
    /// Sent before, says its sender.
    pub(super) dup: bool,
    /// Exactly once: at QoS 2.
    pub(super) exactly_once: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_say_what_is_owed() {
        for owed in Owed::ALL {
            for packet_id in [NonZeroU16::MIN, NonZeroU16::MAX] {
                assert_eq!(Owed::of_token(owed.token(packet_id)), Some((owed, packet_id)));
            }
        }
        assert_eq!((Owed::of_token(0), Owed::of_token(4 << 16 | 1)), (None, None));
    }
}
