//! Marks: which message of a session each packet id stood for last, so that a redelivery is stored once.
//!
//! MQTT lets a sender use a packet id again only after it has read the acknowledgement of the message before, and
//! acknowledgements are read in the order they were sent (MQTT 3.1.1, 2.3.1 and 4.6). So an id used again proves that
//! this acknowledgement and all earlier ones arrived: their marks can go.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest as _, Sha256};

/// The ledger's number of a session.
pub type SessionId = u32;

/// What one message was: the first eight bytes of SHA-256 over topic, a zero byte and payload.
pub type MessageDigest = u64;

/// The digest that tells one message from another.
pub fn message_digest(topic: &[u8], payload: &[u8]) -> MessageDigest {
    let mut hasher = Sha256::new();
    hasher.update(topic);
    hasher.update([0]);
    hasher.update(payload);
    let digest: [u8; 32] = hasher.finalize().into();
    let mut head = [0; 8];
    head.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    u64::from_be_bytes(head)
}

/// A change of the marks, committed with the batch that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkEvent {
    /// The session's message with this packet id was accepted.
    Noted {
        /// The session.
        session: SessionId,
        /// The packet id.
        packet_id: u16,
        /// The message.
        digest: MessageDigest,
    },
    /// The peer has read the acknowledgements of the session's oldest `count` marks.
    Proven {
        /// The session.
        session: SessionId,
        /// How many marks, oldest first.
        count: u32,
    },
    /// The session ended, and its marks with it.
    Ended {
        /// The session.
        session: SessionId,
    },
}

impl MarkEvent {
    /// The session it changes.
    pub fn session(&self) -> SessionId {
        match *self {
            Self::Noted { session, .. } | Self::Proven { session, .. } | Self::Ended { session } => session,
        }
    }
}

/// The marks of one session, oldest first, with the place of each packet id's mark so that a lookup costs no scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionMarks {
    marks: VecDeque<(u16, MessageDigest)>,
    /// How many marks have left at the front: ordinal minus `gone` is a mark's place.
    gone: u64,
    ordinals: HashMap<u16, u64>,
}

impl SessionMarks {
    /// Whether a message that came with DUP set is the one last accepted under its packet id.
    pub fn is_redelivery(&self, packet_id: u16, digest: MessageDigest) -> bool {
        self.place(packet_id).and_then(|place| self.marks.get(place)).is_some_and(|(_, known)| *known == digest)
    }

    /// Takes one event of the session into account.
    pub fn apply(&mut self, event: &MarkEvent) {
        match *event {
            MarkEvent::Noted { packet_id, digest, .. } => self.note(packet_id, digest),
            MarkEvent::Proven { count, .. } => self.forget_oldest(count as usize),
            MarkEvent::Ended { .. } => self.forget_oldest(self.marks.len()),
        }
    }

    fn note(&mut self, packet_id: u16, digest: MessageDigest) {
        if let Some(place) = self.place(packet_id) {
            self.forget_oldest(place + 1);
        }
        self.ordinals.insert(packet_id, self.gone + self.marks.len() as u64);
        self.marks.push_back((packet_id, digest));
    }

    /// How many marks are older than the one of `packet_id`.
    pub fn place(&self, packet_id: u16) -> Option<usize> {
        let ordinal = self.ordinals.get(&packet_id)?;
        usize::try_from(ordinal.checked_sub(self.gone)?).ok()
    }

    fn forget_oldest(&mut self, count: usize) {
        for (packet_id, _) in self.marks.drain(..count.min(self.marks.len())) {
            self.ordinals.remove(&packet_id);
            self.gone += 1;
        }
    }

    /// How many marks there are: at most 65,535, one a packet id.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The marks, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u16, MessageDigest)> + '_ {
        self.marks.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(packet_id: u16, digest: MessageDigest) -> MarkEvent {
        MarkEvent::Noted { session: 1, packet_id, digest }
    }

    #[test]
    fn an_id_used_again_forgets_all_marks_up_to_its_own() {
        let mut marks = SessionMarks::default();
        for id in 1..=5 {
            marks.apply(&noted(id, u64::from(id)));
        }
        marks.apply(&noted(3, 33));
        assert_eq!(marks.iter().collect::<Vec<_>>(), [(4, 4), (5, 5), (3, 33)]);
        assert!(marks.is_redelivery(3, 33) && marks.is_redelivery(4, 4));
        assert!(!marks.is_redelivery(3, 3) && !marks.is_redelivery(1, 1));
    }

    #[test]
    fn proven_marks_go_oldest_first_and_the_rest_stay() {
        let mut marks = SessionMarks::default();
        for id in 1..=4 {
            marks.apply(&noted(id, 7));
        }
        marks.apply(&MarkEvent::Proven { session: 1, count: 3 });
        assert!(!marks.is_redelivery(3, 7) && marks.is_redelivery(4, 7));
        marks.apply(&MarkEvent::Ended { session: 1 });
        assert!(marks.is_empty());
    }

    #[test]
    fn marks_never_outnumber_packet_ids() {
        let mut marks = SessionMarks::default();
        for round in 0..3 {
            for id in 1..=u16::MAX {
                marks.apply(&noted(id, round));
            }
        }
        assert_eq!(marks.len(), usize::from(u16::MAX));
    }
}
