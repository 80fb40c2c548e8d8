//! What the standard asks for, seen from a sensor.

use super::*;

#[tokio::test]
async fn a_message_at_qos_1_is_acknowledged_after_its_commit_and_not_before() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, present) = Sensor::connect(&bench, "a", true).await;
    assert!(!present);
    sensor.publish(7, false, "1").await;
    let admitted = bench.next().await;
    sensor.expect_nothing().await;
    bench.commit(vec![admitted]).await;
    sensor.expect_acks([7]).await;
}

#[tokio::test]
async fn acknowledgements_come_in_the_order_of_arrival() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", true).await;
    let ids: Vec<u16> = vec![5, 3, 65_535, 1, 2];
    let burst: Vec<u8> = ids.iter().flat_map(|id| publish_packet(Some(*id), false, b"t", id.to_string().as_bytes())).collect();
    sensor.send(&burst).await;
    assert_eq!(bench.commit_next(5).await, ["5", "3", "65535", "1", "2"]);
    sensor.expect_acks(ids).await;
    bench.until("counted", |state| state.acknowledged.get() == 5 && state.messages_qos1.get() == 5).await;
}

#[tokio::test]
async fn a_message_at_qos_0_is_handed_in_alone_and_retain_does_not_make_it_old() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", true).await;
    sensor.send(&packet(0x31, &[&field("küche/ t//".as_bytes()), b"21.5"])).await;
    let delivery = bench.next().await.delivery;
    let Content::Message(message) = delivery.content else { panic!("{delivery:?}") };
    assert_eq!((&*message.topic, &*message.payload, message.qos, message.retained), ("küche/ t//", &b"21.5"[..], 0, false));
    assert!(delivery.receipt.is_none() && delivery.mark.is_none());
    sensor.send(&[0xc0, 0]).await;
    sensor.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn subscriptions_are_refused_politely() {
    let (bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", true).await;
    sensor.send(&packet(0x82, &[&[0, 9], &field(b"#"), &[1], &field(b"a/+"), &[0]])).await;
    sensor.expect(&[0x90, 4, 0, 9, 0x80, 0x80]).await;
    sensor.send(&packet(0xa2, &[&[0, 10], &field(b"#")])).await;
    sensor.expect(&[0xb0, 2, 0, 10]).await;
    assert_eq!(bench.state.subscriptions_refused.get(), 2);
}

#[tokio::test]
async fn a_topic_of_65535_bytes_comes_whole() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", true).await;
    sensor.send(&publish_packet(Some(1), false, &[b'x'; 65_535], b"v")).await;
    let Content::Message(message) = bench.next().await.delivery.content else { panic!() };
    assert_eq!((message.topic.len(), &*message.payload), (65_535, &b"v"[..]));
}

#[tokio::test]
async fn other_protocol_levels_are_told_so() {
    let (bench, _folder) = Bench::start().await;
    let answers: [(&[u8], &[u8]); 2] =
        [(b"\0\x06MQIsdp\x03\x02\0\0\0\x01a", &[0x20, 2, 0, 1]), (b"\0\x04MQTT\x09\x02\0\0\0\x01a", &[0x20, 2, 0, 1])];
    for (connect, answer) in answers {
        let mut sensor = Sensor::dial(bench.address).await;
        sensor.send(&packet(0x10, &[connect])).await;
        sensor.expect(answer).await;
        sensor.expect_closed().await;
    }
    assert_eq!(bench.state.refused.get(), 2);
}

#[tokio::test]
async fn an_empty_client_id_is_assigned_one_with_a_clean_session_and_refused_without() {
    let (bench, _folder) = Bench::start().await;
    let (_one, _) = Sensor::connect(&bench, "", true).await;
    let (mut two, _) = Sensor::connect(&bench, "", true).await;
    two.send(&[0xc0, 0]).await;
    two.expect(&[0xd0, 0]).await;
    assert_eq!(bench.state.connections.get(), 2);
    for client_id in [String::new(), "x".repeat(5000)] {
        let mut sensor = Sensor::dial(bench.address).await;
        sensor.send(&connect_packet(&client_id, false, 0, None)).await;
        sensor.expect(&[0x20, 2, 0, 2]).await;
        sensor.expect_closed().await;
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_the_connection() {
    let (mut bench, _folder) = Bench::start().await;
    let broken: [(&str, Vec<u8>); 11] = [
        ("a second CONNECT", connect_packet("a", true, 0, None)),
        ("packet id 0", publish_packet(Some(0), false, b"t", b"x")),
        ("a PUBREL with packet id 0", packet(0x62, &[&[0, 0]])),
        ("a PUBREC, of what nobody sent", packet(0x50, &[&[0, 1]])),
        ("QoS 3", packet(0x36, &[&field(b"t"), &[0, 1], b"x"])),
        ("an empty topic", publish_packet(Some(1), false, b"", b"x")),
        ("a wildcard", publish_packet(Some(1), false, b"a/#", b"x")),
        ("a topic that is not UTF-8", publish_packet(Some(1), false, b"\xff", b"x")),
        ("a remaining length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("a message beyond 16 MiB", vec![0x32, 0xff, 0xff, 0xff, 0x7f]),
        ("a packet of a server", vec![0xd0, 0]),
    ];
    for (what, bytes) in &broken {
        let (mut sensor, _) = Sensor::connect(&bench, "a", true).await;
        sensor.send(bytes).await;
        assert_eq!(sensor.read().await, None, "{what}");
    }
    bench.until("counted", |state| state.protocol_errors.get() == 11 && state.connections.get() == 0).await;
    bench.expect_nothing().await;
}

#[tokio::test]
async fn a_connection_must_begin_with_connect() {
    let (bench, _folder) = Bench::start().await;
    let beginnings: [&[u8]; 4] = [&[0xc0, 0], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", &[0x32, 0xff, 0xff, 0x03, 0, 1]];
    for bytes in beginnings {
        let mut sensor = Sensor::dial(bench.address).await;
        sensor.send(bytes).await;
        sensor.expect_closed().await;
    }
    assert_eq!(bench.state.accepted.get(), 0);
}

#[tokio::test]
async fn a_will_becomes_a_message_unless_the_sensor_says_goodbye() {
    let (mut bench, _folder) = Bench::start().await;
    for goodbye in [true, false] {
        let mut sensor = Sensor::dial(bench.address).await;
        sensor.send(&connect_packet("a", true, 0, Some(("a/state", "offline")))).await;
        sensor.expect(&[0x20, 2, 0, 0]).await;
        if goodbye {
            sensor.send(&[0xe0, 0]).await;
            sensor.expect_closed().await;
            bench.expect_nothing().await;
        }
    }
    let Content::Message(message) = bench.next().await.delivery.content else { panic!() };
    assert_eq!((&*message.topic, &*message.payload, message.qos), ("a/state", &b"offline"[..], 0));
    assert_eq!(bench.state.wills.get(), 1);
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_with_a_sample_and_acknowledged() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", true).await;
    // One that is read whole, and one that is read past.
    for (id, bytes) in [(1, MAX_MESSAGE_BYTES + 1), (2, 3_000_000)] {
        sensor.send(&publish_packet(Some(id), false, b"big", &vec![b'z'; bytes])).await;
        let admitted = bench.next().await;
        let Content::Refused { topic, sample, qos, reason } = &admitted.delivery.content else { panic!("{admitted:?}") };
        assert_eq!((&**topic, *qos, sample.len()), ("big", 1, 1024));
        assert!(reason.contains(&bytes.to_string()), "{reason}");
        bench.commit(vec![admitted]).await;
        sensor.expect_acks([id]).await;
    }
    sensor.publish(3, false, "small").await;
    assert_eq!(bench.commit_next(1).await, ["small"]);
    sensor.expect_acks([3]).await;
    assert_eq!(bench.state.too_long.get(), 2);
}

#[tokio::test]
async fn an_ordinary_client_gets_all_its_messages_acknowledged() {
    let (bench, _folder) = Bench::start().await;
    let texts = pump(bench.ledger.clone(), bench.handed_in, Duration::from_millis(200));
    let mut options = rumqttc::MqttOptions::new("ordinary", "127.0.0.1", bench.address.port());
    options.set_clean_session(false).set_inflight(20);
    let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
    let publishing = tokio::spawn(async move {
        for number in 0..500 {
            client.publish("s/t", rumqttc::QoS::AtLeastOnce, false, number.to_string()).await.unwrap();
        }
        client
    });
    let acknowledged = async {
        let mut count = 0;
        while count < 500 {
            if let rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) = events.poll().await.unwrap() {
                count += 1;
            }
        }
    };
    timeout(PATIENCE, acknowledged).await.expect("all acknowledgements");
    publishing.await.unwrap();
    assert_eq!(*texts.lock().unwrap(), (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
}
