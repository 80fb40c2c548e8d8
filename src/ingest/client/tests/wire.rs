//! The stream cut into packets.

use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, PubAck, Publish as Sent};
use tokio_util::codec::Decoder;

use crate::ingest::client::wire::{Frames, Incoming, Publish, SAMPLE_BYTES, WireError};

fn sent(qos: QoS, packet_id: u16, payload: &[u8]) -> BytesMut {
    let mut publish = Sent::from_bytes("a/b", qos, Bytes::copy_from_slice(payload));
    publish.pkid = packet_id;
    let mut bytes = BytesMut::new();
    publish.write(&mut bytes).unwrap();
    bytes
}

fn publish(frames: &mut Frames, bytes: &mut BytesMut) -> Option<Publish> {
    match frames.decode(bytes).unwrap()? {
        Incoming::Publish(publish) => Some(publish),
        Incoming::Packet(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_message_comes_whole_however_the_stream_is_cut() {
    for (qos, packet_id) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 515), (QoS::ExactlyOnce, 65_535)] {
        for length in [0, 1, 200] {
            let whole = sent(qos, packet_id, &vec![7; length]);
            for cut in 0..whole.len() {
                let (mut frames, mut bytes) = (Frames::new(200), BytesMut::from(&whole[..cut]));
                assert_eq!(publish(&mut frames, &mut bytes), None);
                bytes.extend_from_slice(&whole[cut..]);
                let message = publish(&mut frames, &mut bytes).unwrap();
                assert_eq!((message.packet_id, message.qos), (packet_id, qos as u8));
                assert_eq!((&message.topic[..], &message.payload[..]), (&b"a/b"[..], &vec![7; length][..]));
                assert!(!message.is_cut() && bytes.is_empty());
            }
        }
    }
}

#[test]
fn of_a_message_too_long_a_sample_comes_when_all_of_it_is_here_and_the_next_is_unharmed() {
    let long: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
    let mut stream = sent(QoS::AtLeastOnce, 9, &long);
    let whole = stream.len();
    stream.extend_from_slice(&sent(QoS::AtLeastOnce, 10, b"next"));
    let (mut frames, mut bytes, mut messages) = (Frames::new(4999), BytesMut::new(), Vec::new());
    for (place, byte) in stream.iter().enumerate() {
        bytes.put_u8(*byte);
        messages.extend(publish(&mut frames, &mut bytes));
        assert!(messages.is_empty() || place + 1 >= whole, "it comes before its end");
        assert!(bytes.len() <= SAMPLE_BYTES + 16, "it is not kept");
    }
    let [cut, next] = &messages[..] else { panic!("{messages:?}") };
    assert!(cut.is_cut() && cut.length == 5000 && cut.packet_id == 9);
    assert_eq!(cut.payload, &long[..SAMPLE_BYTES]);
    assert!(!next.is_cut() && next.payload == "next" && next.packet_id == 10);
}

#[test]
fn a_limit_below_the_sample_keeps_no_more_than_the_limit() {
    let message = publish(&mut Frames::new(3), &mut sent(QoS::AtMostOnce, 0, b"12345")).unwrap();
    assert!(message.is_cut() && message.payload == "123" && message.length == 5);
}

#[test]
fn flags_and_foreign_topics_are_kept_as_they_came() {
    let mut bytes = BytesMut::from(&[0x3b, 6, 0, 2, 0xff, 0xfe, 0, 1][..]);
    let message = publish(&mut Frames::new(10), &mut bytes).unwrap();
    assert!(message.dup && message.retain && message.qos == 1 && message.packet_id == 1);
    assert_eq!(&message.topic[..], [0xff, 0xfe]);
}

#[test]
fn what_is_not_mqtt_is_named_and_never_panics() {
    for bytes in [
        &[0x36, 3, 0, 0, 1][..],               // QoS 3
        &[0x32, 4, 0, 0, 0, 0],                // packet id 0
        &[0x30, 2, 0, 9],                      // a topic beyond the packet
        &[0x30, 1, 0, 9],                      // no room for a topic
        &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01], // a length of five bytes
        &[0xd0, 0xff, 0xff, 0x7f],             // a PINGRESP of two megabytes
        &[0x00, 0x00],                         // no packet type
        &[0x90, 3, 0, 1, 0x55],                // an unknown answer to a subscription
    ] {
        let mut source = BytesMut::from(bytes);
        assert!(matches!(Frames::new(100).decode(&mut source), Err(WireError::Malformed(_))), "{bytes:?}");
    }
}

#[test]
fn random_bytes_never_panic() {
    use rand::{RngExt, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    for _ in 0..20_000 {
        let (mut frames, mut bytes) = (Frames::new(16), BytesMut::new());
        for _ in 0..random.random_range(1..60) {
            bytes.put_u8(random.random());
            if frames.decode(&mut bytes).is_err() {
                break;
            }
        }
    }
}

#[test]
fn other_packets_come_through() {
    let (mut frames, mut bytes) = (Frames::new(1), BytesMut::from(&[0x40, 2][..]));
    assert!(frames.decode(&mut bytes).unwrap().is_none());
    bytes.extend_from_slice(&[1, 2, 0xd0, 0]);
    assert!(matches!(frames.decode(&mut bytes).unwrap(), Some(Incoming::Packet(Packet::PubAck(PubAck { pkid: 0x102 })))));
    assert!(matches!(frames.decode(&mut bytes).unwrap(), Some(Incoming::Packet(Packet::PingResp))));
}
