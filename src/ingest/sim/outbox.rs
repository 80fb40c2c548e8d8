//! What a simulated sensor has sent and nobody has acknowledged. No I/O.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

/// DUP in a PUBLISH's first byte.
const DUP: u8 = 0b1000;

/// Messages under way, by packet id, with the ids that are free. Ids are 1 to the window, so that a window of one uses
/// one id over and over, which is the hardest case for a receiver.
#[derive(Debug)]
pub struct Outbox {
    qos: u8,
    free: VecDeque<u16>,
    /// Place `id - 1` holds the frame under way with `id`, and its number.
    under_way: Vec<Option<(u64, Bytes)>>,
    sent: u64,
}

impl Outbox {
    /// Room for `window` messages with QoS 1; without bound and memory with QoS 0.
    pub fn new(qos: u8, window: u16) -> Self {
        Self { qos, free: (1..=window).collect(), under_way: vec![None; usize::from(window)], sent: 0 }
    }

    /// Whether another message may be sent.
    pub fn has_room(&self) -> bool {
        self.qos == 0 || !self.free.is_empty()
    }

    /// Whether everything sent is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.under_way.len()
    }

    /// Appends a PUBLISH to `out` and keeps it until it is acknowledged. Call only with room.
    pub fn publish(&mut self, topic: &str, payload: &[u8], out: &mut BytesMut) {
        let begin = out.len();
        let id = if self.qos == 0 { None } else { self.free.pop_front() };
        out.put_u8(0x30 | self.qos << 1);
        put_length(out, 2 + topic.len() + payload.len() + id.map_or(0, |_| 2));
        out.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        out.put_slice(topic.as_bytes());
        if let Some(id) = id {
            out.put_u16(id);
        }
        out.put_slice(payload);
        self.sent += 1;
        let number = self.sent;
        if let Some(place) = id.and_then(|id| self.place(id)) {
            *place = out.get(begin..).map(|frame| (number, Bytes::copy_from_slice(frame)));
        }
    }

    fn place(&mut self, id: u16) -> Option<&mut Option<(u64, Bytes)>> {
        self.under_way.get_mut(usize::from(id).checked_sub(1)?)
    }

    /// Takes a PUBACK; `false` if nothing was under way with `id`.
    pub fn acknowledge(&mut self, id: u16) -> bool {
        let known = self.place(id).and_then(Option::take).is_some();
        if known {
            self.free.push_back(id);
        }
        known
    }

    /// Appends everything under way to `out` again, in the order it was first sent. A receiver that still knows our
    /// session is told that it is sent again; for another one it is new.
    pub fn resend(&self, session_present: bool, out: &mut BytesMut) {
        let mut frames: Vec<&(u64, Bytes)> = self.under_way.iter().flatten().collect();
        frames.sort_unstable_by_key(|(number, _)| *number);
        for (_, frame) in frames {
            let begin = out.len();
            out.put_slice(frame);
            if let Some(first) = out.get_mut(begin).filter(|_| session_present) {
                *first |= DUP;
            }
        }
    }
}

/// MQTT 3.1.1, 2.2.3.
fn put_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let digit = (length & 0x7f) as u8;
        length >>= 7;
        out.put_u8(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::mqttbytes::v4::{Packet, Publish};

    fn read(bytes: &mut BytesMut) -> Vec<Publish> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            match Packet::read(bytes, usize::MAX).unwrap() {
                Packet::Publish(publish) => messages.push(publish),
                other => panic!("{other:?}"),
            }
        }
        messages
    }

    #[test]
    fn messages_are_written_as_the_standard_says() {
        for length in [0, 1, 100, 127, 128, 20_000, 3_000_000] {
            for qos in [0, 1] {
                let (payload, mut out) = (vec![b'x'; length], BytesMut::new());
                Outbox::new(qos, 1).publish("a/b", &payload, &mut out);
                let [message] = &read(&mut out)[..] else { panic!() };
                assert_eq!((message.topic.as_str(), &message.payload[..]), ("a/b", &payload[..]));
                assert_eq!((message.qos as u8, message.pkid, message.dup), (qos, u16::from(qos), false));
            }
        }
    }

    #[test]
    fn a_window_of_one_uses_one_id_over_and_over() {
        let (mut outbox, mut out) = (Outbox::new(1, 1), BytesMut::new());
        for _ in 0..3 {
            assert!(outbox.has_room());
            outbox.publish("t", b"p", &mut out);
            assert!(!outbox.has_room());
            assert!(!outbox.acknowledge(2) && outbox.acknowledge(1) && !outbox.acknowledge(1));
            assert!(outbox.is_empty());
        }
        assert!(read(&mut out).iter().all(|message| message.pkid == 1));
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_in_its_order() {
        let (mut outbox, mut out) = (Outbox::new(1, 3), BytesMut::new());
        for payload in ["1", "2", "3"] {
            outbox.publish("t", payload.as_bytes(), &mut out);
        }
        outbox.acknowledge(1);
        outbox.publish("t", b"4", &mut out);
        for session_present in [true, false] {
            out.clear();
            outbox.resend(session_present, &mut out);
            let again: Vec<_> = read(&mut out).into_iter().map(|message| (message.pkid, message.dup, message.payload)).collect();
            let expected: [(u16, bool, Bytes); 3] =
                [(2, session_present, "2".into()), (3, session_present, "3".into()), (1, session_present, "4".into())];
            assert_eq!(again, expected);
        }
    }
}
