//! What MQTT 5 adds, seen from a sensor.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::clock::Clock;
use crate::ingest::Rejection;
use crate::model::Timestamp;

/// The value of a property of CONNACK; none of its values is a string.
fn connack_property(connack: &[u8], wanted: u8) -> Option<Vec<u8>> {
    let mut rest = &connack[5..];
    while let Some((id, after)) = rest.split_first() {
        let length = match id {
            0x28..=0x2a => 1,
            0x21 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 => 2 + usize::from(after[1]),
            other => panic!("property {other:x} in {connack:x?}"),
        };
        if *id == wanted {
            return Some(after[..length].to_vec());
        }
        rest = &after[length..];
    }
    None
}

#[tokio::test]
async fn a_sensor_is_told_what_it_can_do_and_what_it_can_not() {
    let (bench, _folder) = Bench::start().await;
    let mut sensor = Sensor::dial(bench.address).await;
    sensor.send(&connect_packet_v5("a", true, &expiry(60))).await;
    let connack = sensor.read().await.unwrap();
    assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0));
    for unavailable in [0x28, 0x29, 0x2a] {
        assert_eq!(connack_property(&connack, unavailable), Some(vec![0]));
    }
    assert_eq!(connack_property(&connack, 0x21), Some(10_000_u16.to_be_bytes().to_vec()));
    assert_eq!(connack_property(&connack, 0x22), Some(vec![0, 32]));
    assert_eq!(connack_property(&connack, 0x27), Some((5 + (16_u32 << 20)).to_be_bytes().to_vec()));
    for absent in [0x11, 0x12, 0x13, 0x24, 0x25] {
        assert_eq!(connack_property(&connack, absent), None);
    }
    // Who asks for ever gets as long as there is.
    let mut sensor = Sensor::dial(bench.address).await;
    sensor.send(&connect_packet_v5("b", true, &expiry(u32::MAX))).await;
    let connack = sensor.read().await.unwrap();
    assert_eq!(connack_property(&connack, 0x11), Some((90 * 86_400_u32).to_be_bytes().to_vec()));
}

#[tokio::test]
async fn a_client_id_that_was_assigned_is_good_for_its_session() {
    let (bench, _folder) = Bench::start().await;
    for clean in [false, true] {
        let mut sensor = Sensor::dial(bench.address).await;
        sensor.send(&connect_packet_v5("", clean, &expiry(60))).await;
        let connack = sensor.read().await.unwrap();
        let assigned = connack_property(&connack, 0x12).expect("an id");
        let (_sensor, present) = Sensor::connect_v5(&bench, std::str::from_utf8(&assigned[2..]).unwrap(), false, &expiry(60)).await;
        assert!(present);
    }
}

#[tokio::test]
async fn a_message_with_all_it_may_have_is_taken_as_it_is() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect_v5(&bench, "a", true, &[]).await;
    // Payload format, an expiry that is over, content type, response topic, correlation data, two user properties.
    let properties = b"\x01\x01\x02\0\0\0\0\x03\0\x01j\x08\0\x01r\x09\0\x01c\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v";
    sensor.send(&publish_packet_v5(1, 1, false, b"s/t", properties, b"21.5")).await;
    assert_eq!(bench.commit_next(1).await, ["21.5"]);
    sensor.expect_acks([1]).await;
    sensor.send(&publish_packet_v5(0, 0, false, b"s/t", &[], b"22")).await;
    assert_eq!(bench.commit_next(1).await, ["22"]);
}

#[tokio::test]
async fn an_alias_stands_for_its_topic_as_long_as_the_connection_lasts() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    let alias = [0x23, 0, 32];
    sensor.send(&publish_packet_v5(0, 0, false, b"s/t", &alias, b"1")).await;
    sensor.send(&publish_packet_v5(1, 1, false, b"", &alias, b"2")).await;
    for _ in 0..2 {
        let Content::Message(message) = bench.next().await.delivery.content else { panic!() };
        assert_eq!(&*message.topic, "s/t");
    }
    let (mut sensor, present) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    assert!(present);
    sensor.send(&publish_packet_v5(1, 1, true, b"", &alias, b"2")).await;
    sensor.expect_disconnect(0x82).await;
}

#[tokio::test]
async fn the_alias_of_a_message_that_is_too_long_is_known_to_the_next() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect_v5(&bench, "a", true, &[]).await;
    for (id, bytes) in [(1, MAX_MESSAGE_BYTES + 1), (2, 3_000_000)] {
        let alias = [0x23, 0, id];
        sensor.send(&publish_packet_v5(1, id.into(), false, b"s/t", &alias, &vec![b'z'; bytes])).await;
        let admitted = bench.next().await;
        assert!(matches!(&admitted.delivery.content, Content::Refused { topic, .. } if &**topic == "s/t"));
        admitted.delivery.receipt.unwrap().settle(Outcome::Rejected(Rejection::BeyondLimits));
        sensor.expect(&[0x40, 3, 0, id, 0x97]).await;
        sensor.send(&publish_packet_v5(0, 0, false, b"", &alias, b"short")).await;
        let Content::Message(message) = bench.next().await.delivery.content else { panic!() };
        assert_eq!(&*message.topic, "s/t");
    }
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_told_how() {
    let (mut bench, _folder) = Bench::start().await;
    let broken: [(&str, Vec<u8>, u8); 19] = [
        ("a second CONNECT", connect_packet_v5("a", true, &[]), 0x82),
        ("QoS 3", publish_packet_v5(3, 1, false, b"t", &[], b"x"), 0x81),
        ("packet id 0", publish_packet_v5(1, 0, false, b"t", &[], b"x"), 0x82),
        ("an empty topic", publish_packet_v5(1, 1, false, b"", &[], b"x"), 0x82),
        ("a wildcard", publish_packet_v5(1, 1, false, b"a/#", &[], b"x"), 0x90),
        ("a topic that is not UTF-8", publish_packet_v5(1, 1, false, b"\xff", &[], b"x"), 0x81),
        ("alias 0", publish_packet_v5(0, 0, false, b"t", &[0x23, 0, 0], b"x"), 0x94),
        ("an alias out of range", publish_packet_v5(0, 0, false, b"t", &[0x23, 0, 33], b"x"), 0x94),
        ("an alias of nothing", publish_packet_v5(0, 0, false, b"", &[0x23, 0, 1], b"x"), 0x82),
        ("a property twice", publish_packet_v5(0, 0, false, b"t", &[0x01, 1, 0x01, 1], b"x"), 0x82),
        ("a property of another packet", publish_packet_v5(0, 0, false, b"t", &[0x21, 0, 1], b"x"), 0x81),
        ("properties beyond the packet", packet(0x30, &[&field(b"t"), &[9]]), 0x81),
        ("a PUBREC of what nobody sent", packet(0x50, &[&[0, 1]]), 0x82),
        ("a PUBREL with packet id 0", packet(0x62, &[&[0, 0]]), 0x82),
        ("authentication", packet(0xf0, &[&[0x19, 0]]), 0x82),
        ("a remaining length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01], 0x81),
        ("a message beyond 16 MiB", vec![0x32, 0xff, 0xff, 0xff, 0x7f], 0x95),
        ("a SUBSCRIBE beyond 32 KiB", vec![0x82, 0x80, 0x80, 0x04], 0x95),
        ("a session that is to outlive its connection after all", packet(0xe0, &[&[0, 5], &expiry(9)]), 0x82),
    ];
    for (what, bytes, reason) in &broken {
        let (mut sensor, _) = Sensor::connect_v5(&bench, "a", true, &[]).await;
        sensor.send(bytes).await;
        let answer = sensor.read().await.unwrap_or_else(|| panic!("{what}: closed without a word"));
        assert_eq!((answer[0], answer[2]), (0xe0, *reason), "{what}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(sensor.read().await, None, "{what}");
    }
    bench.until("counted", |state| state.protocol_errors.get() == broken.len() as u64 && state.connections.get() == 0).await;
    bench.expect_nothing().await;
}

#[tokio::test]
async fn a_connect_that_can_not_be_taken_is_answered_with_the_reason() {
    let (bench, _folder) = Bench::with(|listener| listener.max_connections = 2).await;
    let refused: [(&str, Vec<u8>, u8); 6] = [
        ("enhanced authentication", connect_packet_v5("a", true, b"\x15\0\x05SCRAM"), 0x8c),
        ("a property twice", connect_packet_v5("a", true, &[expiry(1), expiry(1)].concat()), 0x82),
        ("a property of another packet", connect_packet_v5("a", true, &[0x23, 0, 1]), 0x81),
        ("receive maximum 0", connect_packet_v5("a", true, &[0x21, 0, 0]), 0x82),
        ("a client id that is too long", connect_packet_v5(&"x".repeat(513), true, &[]), 0x85),
        ("bytes behind its end", packet(0x10, &[b"\0\x04MQTT\x05\x02\0\0\0\0\x01ax"]), 0x81),
    ];
    for (what, bytes, reason) in refused {
        let mut sensor = Sensor::dial(bench.address).await;
        sensor.send(&bytes).await;
        assert_eq!(sensor.read().await, Some(vec![0x20, 3, 0, reason, 0]), "{what}");
        sensor.expect_closed().await;
    }
    let (_one, _) = Sensor::connect_v5(&bench, "1", true, &[]).await;
    let (_two, _) = Sensor::connect_v5(&bench, "2", true, &[]).await;
    let mut three = Sensor::dial(bench.address).await;
    three.send(&connect_packet_v5("3", true, &[])).await;
    three.expect(&[0x20, 3, 0, 0x89, 0]).await;
}

#[tokio::test]
async fn subscriptions_are_refused_with_the_reason() {
    let (bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect_v5(&bench, "a", true, &[]).await;
    sensor.send(&packet(0x82, &[&[0, 9, 0], &field(b"#"), &[1], &field(b"a"), &[0], &field(b"$share/g/a"), &[0]])).await;
    sensor.expect(&[0x90, 6, 0, 9, 0, 0xa2, 0x83, 0x9e]).await;
    sensor.send(&packet(0xa2, &[&[0, 10, 0], &field(b"#"), &field(b"a")])).await;
    sensor.expect(&[0xb0, 5, 0, 10, 0, 0x11, 0x11]).await;
    sensor.send(&[0xc0, 0]).await;
    sensor.expect(&[0xd0, 0]).await;
    assert_eq!(bench.state.subscriptions_refused.get(), 3);
}

#[tokio::test]
async fn more_messages_under_way_than_announced_end_the_connection() {
    for qos in [1, 2] {
        let (mut bench, _folder) = Bench::with(|listener| listener.shared.limits.max_unacknowledged = 3).await;
        let (mut sensor, _) = Sensor::connect_v5(&bench, "a", true, &[0x21, 0, 9]).await;
        for id in 1..=3 {
            sensor.send(&publish_packet_v5(qos, id, false, b"t", &[], b"x")).await;
        }
        sensor.send(&[0xc0, 0]).await;
        sensor.expect(&[0xd0, 0]).await;
        bench.commit_next(3).await;
        for id in 1..=3 {
            sensor.expect(&[if qos == 1 { 0x40 } else { 0x50 }, 2, 0, id]).await;
        }
        if qos == 2 {
            sensor.release(1).await;
            bench.commit_next(1).await;
            sensor.expect(&[0x70, 2, 0, 1]).await;
        }
        // One is free at QoS 2, three at QoS 1.
        let free = if qos == 1 { 3 } else { 1 };
        for id in 4..4 + free {
            sensor.send(&publish_packet_v5(qos, id, false, b"t", &[], b"x")).await;
        }
        sensor.send(&publish_packet_v5(qos, 9, false, b"t", &[], b"x")).await;
        sensor.expect_disconnect(0x93).await;
    }
}

#[tokio::test]
async fn what_is_rejected_is_acknowledged_with_the_reason_and_what_is_not_taken_is_not() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    for (id, rejection, reason) in [(1, Rejection::Unreadable, 0x99), (2, Rejection::BeyondLimits, 0x97)] {
        sensor.send(&publish_packet_v5(1, id, false, b"s/t", &[], b"x")).await;
        bench.next().await.delivery.receipt.unwrap().settle(Outcome::Rejected(rejection));
        sensor.expect(&[0x40, 3, 0, id as u8, reason]).await;
    }
    sensor.send(&publish_packet_v5(1, 3, false, b"s/t", &[], b"later")).await;
    bench.next().await.delivery.receipt.unwrap().settle(Outcome::Refused("there is no room".to_owned()));
    sensor.expect_disconnect(0x97).await;
    let (mut sensor, present) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    assert!(present);
    sensor.send(&publish_packet_v5(1, 3, true, b"s/t", &[], b"later")).await;
    assert_eq!(bench.commit_next(1).await, ["later"]);
    sensor.expect_acks([3]).await;
}

#[tokio::test]
async fn who_is_taken_over_from_is_told_and_the_next_does_not_wait_for_it() {
    let (mut bench, _folder) = Bench::with(|listener| listener.shared.limits.farewell = Duration::from_secs(3600)).await;
    let (mut old, _) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    old.send(&publish_packet_v5(1, 1, false, b"t", &[], b"old")).await;
    bench.until("handed in", |state| state.messages_qos1.get() == 1).await;
    // The old one does not close its side.
    let (mut new, present) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    assert!(present);
    old.expect_disconnect(0x8e).await;
    new.send(&publish_packet_v5(1, 1, true, b"t", &[], b"old")).await;
    assert_eq!(bench.commit_next(2).await, ["old", "="]);
    new.expect_acks([1]).await;
}

#[tokio::test]
async fn silence_and_the_stop_are_told() {
    let (bench, _folder) = Bench::with(|listener| listener.shared.limits.idle = Duration::from_millis(100)).await;
    let (mut sensor, _) = Sensor::connect_v5(&bench, "a", true, &[]).await;
    sensor.expect_disconnect(0x8d).await;
    let (bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect_v5(&bench, "a", true, &[]).await;
    bench.stop.cancel();
    sensor.expect_disconnect(0x8b).await;
    drop(sensor);
    bench.stop().await;
}

/// A clock that the test sets.
#[derive(Default)]
struct Hands(AtomicI64);

impl Hands {
    fn forward(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(1_795_168_800_000_000 + self.0.load(Ordering::SeqCst))
    }

    fn synchronised(&self) -> bool {
        true
    }
}

/// Sends a message at QoS 2 that nobody releases, and goes.
async fn leave_something(bench: &mut Bench, mut sensor: Sensor, goodbye: &[u8]) {
    sensor.send(&publish_packet_v5(2, 1, false, b"t", &[], b"held")).await;
    bench.commit_next(1).await;
    sensor.expect(&[0x50, 2, 0, 1]).await;
    sensor.send(goodbye).await;
    drop(sensor);
    bench.until("gone", |state| state.connections.get() == 0).await;
    while bench.seats.len() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_session_expires_after_its_connection_and_takes_what_it_held_along() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Arc::new(Hands::default());
    let mut bench = Bench::on(open_ledger_with(folder.path(), hands.clone()), |_| {}).await;
    let (sensor, _) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    hands.forward(1000);
    leave_something(&mut bench, sensor, &[]).await;
    hands.forward(59);
    let (sensor, present) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    assert!(present, "it lasts from the end of its connection");
    leave_something(&mut bench, sensor, &[]).await;
    hands.forward(61);
    let (mut sensor, present) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    assert!(!present);
    sensor.send(&publish_packet_v5(2, 1, true, b"t", &[], b"held")).await;
    assert_eq!(bench.commit_next(1).await, ["held"], "nobody can know it any more");
}

#[tokio::test]
async fn a_session_may_end_with_its_connection_or_be_told_to_at_the_goodbye() {
    let (mut bench, _folder) = Bench::start().await;
    let (sensor, _) = Sensor::connect_v5(&bench, "a", false, &[]).await;
    leave_something(&mut bench, sensor, &[]).await;
    let (sensor, present) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    assert!(!present);
    leave_something(&mut bench, sensor, &[]).await;
    // One that ends with this connection goes on with the one before.
    let (mut sensor, present) = Sensor::connect_v5(&bench, "a", false, &[]).await;
    assert!(present);
    sensor.send(&publish_packet_v5(2, 1, true, b"t", &[], b"held")).await;
    assert_eq!(bench.commit_next(1).await, ["="]);
    drop(sensor);
    bench.until("gone", |state| state.connections.get() == 0).await;
    let (sensor, present) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    assert!(!present);
    leave_something(&mut bench, sensor, &packet(0xe0, &[&[0, 5], &expiry(0)])).await;
    let (sensor, present) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    assert!(!present);
    leave_something(&mut bench, sensor, &packet(0xe0, &[&[0, 5], &expiry(9000)])).await;
    let (_sensor, present) = Sensor::connect_v5(&bench, "a", true, &expiry(60)).await;
    assert!(!present, "a clean start");
    // Both versions know the same sessions.
    let (_sensor, present) = Sensor::connect(&bench, "a", false).await;
    assert!(present);
}

#[tokio::test]
async fn of_a_daemon_that_died_sessions_expire_from_its_next_start_on() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Arc::new(Hands::default());
    let ledger = open_ledger_with(folder.path(), hands.clone());
    for (seconds, expected) in [(59, true), (61, false)] {
        let bench = Bench::on(ledger.clone(), |_| {}).await;
        let (sensor, _) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
        bench.running.abort();
        let _ = bench.running.await;
        drop(sensor);
        hands.forward(1000);
        let bench = Bench::on(ledger.clone(), |_| {}).await;
        Sensor::connect_v5(&bench, "somebody", true, &[]).await;
        hands.forward(seconds);
        let (_sensor, present) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
        assert_eq!(present, expected, "{seconds} s after the start");
    }
}
