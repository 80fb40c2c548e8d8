//! Against a broker that does exactly what the test says.

use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};

use super::*;
use crate::ingest::client::scripted::{Peer, Script};

/// Long enough that what should not come would have come.
pub(super) const A_WHILE: Duration = Duration::from_millis(300);

pub(super) async fn begin() -> (Script, Gateway) {
    let script = Script::start().await;
    let gateway = Gateway::new(script.url());
    (script, gateway)
}

pub(super) fn message(payload: &str) -> Given {
    Given::Message { topic: "t/s".to_owned(), payload: payload.to_owned(), retained: false }
}

#[tokio::test]
async fn a_message_is_acknowledged_after_its_commit_and_in_the_order_of_arrival() {
    let (script, gateway) = begin().await;
    let client = gateway.start();
    client.pump.mode.send_replace(Mode::Hold);
    let mut peer = script.subscriber(false).await;
    for (id, payload) in [(5, "a"), (3, "b"), (4, "c")] {
        peer.publish(id, false, payload).await;
    }
    assert!(peer.is_silent_for(A_WHILE).await, "nothing is committed yet");
    client.pump.mode.send_replace(Mode::Commit);
    for id in [5, 3, 4] {
        peer.expect_ack(id).await;
    }
    assert_eq!(client.pump.given(), [message("a"), message("b"), message("c")]);
    let status = client.state.status();
    assert!(status.connected && status.connects == 1 && status.messages_qos1 == 3 && status.unacknowledged == 0);
    client.stop().await;
}

#[tokio::test]
async fn a_redelivery_after_a_reconnect_is_acknowledged_and_stored_once() {
    let (script, gateway) = begin().await;
    let client = gateway.start();
    let mut peer = script.subscriber(false).await;
    peer.publish(7, false, "21.5").await;
    peer.expect_ack(7).await;
    drop(peer);
    let mut peer = script.accept(true).await;
    peer.publish(7, true, "21.5").await;
    peer.expect_ack(7).await;
    // Not sent again, although the words are the same.
    peer.publish(7, false, "21.5").await;
    peer.expect_ack(7).await;
    assert_eq!(client.pump.given(), [message("21.5"), Given::Duplicate, message("21.5")]);
    assert_eq!(client.state.status().redelivered, 1);
    client.stop().await;
}

#[tokio::test]
async fn a_redelivery_after_a_crash_is_stored_once() {
    let (script, gateway) = begin().await;
    let client = gateway.start();
    let mut peer = script.subscriber(false).await;
    peer.publish(7, false, "1").await;
    peer.expect_ack(7).await;
    client.pump.mode.send_replace(Mode::Hold);
    peer.publish(8, false, "2").await;
    client.pump.wait("the second message", |given| given.len() == 2).await;
    client.kill().await;

    let client = gateway.start();
    let mut peer = script.subscriber(true).await;
    peer.publish(7, true, "1").await;
    peer.publish(8, true, "2").await;
    peer.expect_ack(7).await;
    peer.expect_ack(8).await;
    assert_eq!(client.pump.given(), [Given::Duplicate, message("2")]);
    client.stop().await;
}

#[tokio::test]
async fn what_is_settled_after_its_connection_ended_is_never_acknowledged_in_another() {
    let (script, gateway) = begin().await;
    let client = gateway.start();
    client.pump.mode.send_replace(Mode::Hold);
    let mut peer = script.subscriber(false).await;
    peer.publish(7, false, "old").await;
    client.pump.wait("the message", |given| given.len() == 1).await;
    drop(peer);
    // The broker may give the id to another message, so the commit of the old one must not acknowledge it.
    assert!(script.is_silent_for(A_WHILE).await, "a new connection waits for what the old one handed in");
    client.pump.mode.send_replace(Mode::Commit);
    let mut peer = script.accept(true).await;
    assert!(peer.is_silent_for(A_WHILE).await, "nothing of the old connection is acknowledged");
    client.pump.mode.send_replace(Mode::Hold);
    peer.publish(7, false, "new").await;
    assert!(peer.is_silent_for(A_WHILE).await);
    client.pump.mode.send_replace(Mode::Commit);
    peer.expect_ack(7).await;
    assert_eq!(client.pump.given(), [message("old"), message("new")]);
    assert!(peer.is_silent_for(A_WHILE).await, "one message, one acknowledgement");
    client.stop().await;
}

#[tokio::test]
async fn a_lost_session_ends_its_marks_because_its_ids_begin_anew() {
    let (script, gateway) = begin().await;
    let client = gateway.start();
    let mut peer = script.subscriber(false).await;
    peer.publish(1, false, "21.5").await;
    peer.expect_ack(1).await;
    drop(peer);
    let mut peer = script.subscriber(false).await;
    // Sent in the new session, its acknowledgement lost, sent again: for us it is the first time.
    peer.publish(1, true, "21.5").await;
    peer.expect_ack(1).await;
    assert_eq!(client.pump.given(), [message("21.5"), message("21.5")]);
    client.stop().await;
}

#[tokio::test]
async fn a_message_that_can_never_be_taken_is_rejected_acknowledged_and_costs_no_connection() {
    let (script, mut gateway) = begin().await;
    gateway.max_message_bytes = 10_000;
    let client = gateway.start();
    let mut peer = script.subscriber(false).await;
    peer.publish(1, false, &"x".repeat(10_001)).await;
    let foreign_topics = [&[0xff, 0xfe][..], b"a\0b", b""];
    for (id, topic) in (2..).zip(foreign_topics) {
        let mut bytes = BytesMut::new();
        bytes.put_slice(&[0x32, 5 + topic.len() as u8, 0, topic.len() as u8]);
        bytes.put_slice(topic);
        bytes.put_slice(&[0, id, b'p']);
        peer.send_bytes(&bytes).await;
    }
    peer.publish(5, false, "good").await;
    for id in 1..=5 {
        peer.expect_ack(id).await;
    }
    let given = client.pump.given();
    let reasons: Vec<_> =
        given.iter().filter_map(|given| if let Given::Refused { reason, .. } = given { Some(reason.as_str()) } else { None }).collect();
    let [long, foreign, zero, empty] = &reasons[..] else { panic!("{given:?}") };
    assert!(long.contains("10001") && long.contains("max_message_bytes (10000)"), "{long}");
    assert!(foreign.contains("UTF-8") && zero.contains("zero byte") && empty.contains("empty"));
    assert_eq!(given.last(), Some(&message("good")));
    let status = client.state.status();
    assert_eq!((status.oversized, status.malformed, status.connects), (1, 3, 1));
    client.stop().await;
}

#[tokio::test]
async fn what_could_not_be_stored_is_not_acknowledged_and_taken_when_it_comes_again() {
    let (script, gateway) = begin().await;
    let client = gateway.start();
    let mut peer = script.subscriber(false).await;
    client.pump.mode.send_replace(Mode::Refuse);
    peer.publish(1, false, "precious").await;
    peer.expect_end().await;
    client.pump.mode.send_replace(Mode::Commit);
    let mut peer = script.accept(true).await;
    peer.publish(1, true, "precious").await;
    peer.expect_ack(1).await;
    assert_eq!(client.pump.given(), [message("precious"), message("precious")], "the mark went with the refused batch");
    client.stop().await;
}

/// Answers pings until `count` are answered; other packets are not expected.
pub(super) async fn answer_pings(peer: &mut Peer, count: usize) {
    for _ in 0..count {
        assert_eq!(peer.next().await, Packet::PingReq);
        peer.send_pingresp().await;
    }
}

#[tokio::test]
async fn a_pingresp_frees_the_ids_so_that_the_same_words_are_a_new_message_again() {
    let (script, mut gateway) = begin().await;
    gateway.ping_interval = Duration::from_millis(200);
    let client = gateway.start();
    let mut peer = script.subscriber(false).await;
    peer.publish(1, false, "21.5").await;
    peer.expect_ack(1).await;
    answer_pings(&mut peer, 2).await;
    peer.publish(2, false, "21.6").await;
    peer.expect_ack(2).await;
    client.kill().await;

    let client = gateway.start();
    let mut peer = script.subscriber(true).await;
    // 1 was proven, so this is another message, whose first delivery we never saw. 2 was not.
    peer.publish(1, true, "21.5").await;
    peer.publish(2, true, "21.6").await;
    peer.expect_ack(1).await;
    peer.expect_ack(2).await;
    assert_eq!(client.pump.given(), [message("21.5"), Given::Duplicate]);
    client.stop().await;
}

#[tokio::test]
async fn a_full_waiting_room_holds_the_broker_back_while_pings_go_on() {
    let (script, mut gateway) = begin().await;
    gateway.ping_interval = Duration::from_millis(200);
    let client = gateway.start();
    client.pump.mode.send_replace(Mode::Ignore);
    let mut peer = script.subscriber(false).await;
    // The waiting room holds 16 MiB; the rest is neither read nor lost.
    let payload = "x".repeat(1 << 20);
    let sending = async {
        for id in 1..=20 {
            peer.publish(id, false, &payload).await;
        }
        peer
    };
    let (mut peer, ()) = tokio::join!(sending, async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(client.state.status().connected && client.state.status().messages_qos1 < 20);
        client.pump.mode.send_replace(Mode::Commit);
    });
    let (mut pings, mut acks) = (0, 0);
    while acks < 20 {
        match peer.next().await {
            Packet::PingReq => {
                pings += 1;
                peer.send_pingresp().await;
            }
            Packet::PubAck(_) => acks += 1,
            other => panic!("{other:?}"),
        }
    }
    // Ten, where the machine has time; none, if they waited behind the messages.
    assert!(pings >= 2, "{pings}");
    assert_eq!((client.pump.payloads().len(), client.state.status().connects), (20, 1));
    client.stop().await;
}

#[tokio::test]
async fn qos_0_is_handed_in_and_under_pressure_counted_as_refused() {
    let (script, gateway) = begin().await;
    let client = gateway.start();
    client.pump.mode.send_replace(Mode::Ignore);
    let mut peer = script.subscriber(false).await;
    for retain in [true, false] {
        let mut publish = Publish::new("t/s", QoS::AtMostOnce, "small");
        publish.retain = retain;
        peer.send(Packet::Publish(publish)).await;
    }
    for _ in 0..20 {
        let big = Bytes::from(vec![b'x'; 1 << 20]);
        peer.send(Packet::Publish(Publish::from_bytes("t/s", QoS::AtMostOnce, big))).await;
    }
    eventually("all messages", || client.state.status().messages_qos0 == 22).await;
    let refused = client.state.status().qos0_refused;
    assert!((4..20).contains(&refused), "{refused}");
    client.pump.mode.send_replace(Mode::Commit);
    client.pump.wait("what was taken", |given| given.len() as u64 == 22 - refused).await;
    let retained = Given::Message { topic: "t/s".to_owned(), payload: "small".to_owned(), retained: true };
    assert_eq!(client.pump.given()[..2], [retained, message("small")]);
    client.stop().await;
}

#[tokio::test]
async fn a_full_window_hurries_the_commit() {
    let (script, mut gateway) = begin().await;
    gateway.settings.inflight = 3;
    let client = gateway.start();
    client.pump.mode.send_replace(Mode::Hold);
    let mut peer = script.subscriber(false).await;
    for id in 1..=2 {
        peer.publish(id, false, "x").await;
    }
    client.pump.wait("two messages", |given| !given.is_empty()).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(client.pump.hurried(), 0);
    peer.publish(3, false, "x").await;
    client.pump.mode.send_replace(Mode::Commit);
    peer.expect_ack(1).await;
    peer.expect_ack(2).await;
    peer.expect_ack(3).await;
    assert_eq!(client.pump.hurried(), 1);
    client.stop().await;
}

#[tokio::test]
async fn stopping_acknowledges_what_is_committed_and_says_good_bye() {
    let (script, gateway) = begin().await;
    let client = gateway.start();
    client.pump.mode.send_replace(Mode::Hold);
    let mut peer = script.subscriber(false).await;
    peer.publish(1, false, "last").await;
    client.pump.wait("the message", |given| given.len() == 1).await;
    client.stop.cancel();
    tokio::time::sleep(A_WHILE).await;
    client.pump.mode.send_replace(Mode::Commit);
    peer.expect_ack(1).await;
    assert_eq!(peer.next().await, Packet::Disconnect);
    client.stop().await;
}

#[tokio::test]
async fn a_client_whose_pump_is_gone_ends() {
    let (script, gateway) = begin().await;
    let (intake, from) = Intake::new();
    let task = tokio::spawn(gateway.client(intake, Arc::default()).unwrap().run(CancellationToken::new()));
    let mut peer = script.subscriber(false).await;
    drop(from);
    peer.publish(1, false, "x").await;
    task.await.unwrap().unwrap();
    assert!(script.is_silent_for(A_WHILE).await);
}
