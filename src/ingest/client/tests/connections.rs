//! Connections that fail, are refused or come back, against a broker that does exactly what the test says.

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, Publish, SubAck, SubscribeReasonCode};

use super::scripts::{A_WHILE, answer_pings, begin, message};
use super::*;

#[tokio::test]
async fn filters_are_sent_to_a_broker_that_does_not_have_them_and_to_no_other() {
    let (script, mut gateway) = begin().await;
    gateway.settings.topics = vec!["a/#".to_owned(), "b/+".to_owned()];
    let client = gateway.start();
    let mut peer = script.accept(true).await;
    let asked = peer.subscribe().await;
    let filters: Vec<_> = asked.filters.iter().map(|filter| (filter.path.as_str(), filter.qos)).collect();
    assert_eq!(filters, [("a/#", QoS::AtLeastOnce), ("b/+", QoS::AtLeastOnce)], "the settings may have changed since the last run");
    drop(peer);
    let mut peer = script.subscriber(true).await;
    peer.publish(1, false, "x").await;
    peer.expect_ack(1).await;
    drop(peer);
    let mut peer = script.accept(true).await;
    assert!(peer.is_silent_for(A_WHILE).await, "the broker would send every retained message again");
    drop(peer);
    script.subscriber(false).await;
    client.stop().await;
}

#[tokio::test]
async fn refused_filters_are_reported_and_asked_for_again() {
    let (script, mut gateway) = begin().await;
    gateway.settings.topics = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let client = gateway.start();
    let mut peer = script.accept(false).await;
    let asked = peer.subscribe().await;
    let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::Failure];
    peer.send(Packet::SubAck(SubAck::new(asked.pkid, codes))).await;
    eventually("the refusal in status", || client.state.status().refused_filters == ["b", "c"]).await;
    drop(peer);
    let _peer = script.subscriber(true).await;
    eventually("the end of the refusal", || client.state.status().refused_filters.is_empty()).await;
    client.stop().await;
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_and_its_reason_shown() {
    let (script, gateway) = begin().await;
    let client = gateway.start();
    for _ in 0..3 {
        let (mut peer, connect) = script.connection().await;
        assert_eq!((connect.client_id.as_str(), connect.clean_session, connect.keep_alive), ("forebay-gw", false, 60));
        peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::NotAuthorized, false))).await;
    }
    eventually("the reason", || client.state.status().last_error.is_some_and(|error| error.contains("not authorised"))).await;
    assert!(!client.state.status().connected);
    let _peer = script.subscriber(false).await;
    eventually("the connection", || client.state.status().connected).await;
    client.stop().await;
}

#[tokio::test]
async fn a_broker_that_dies_stammers_or_says_nonsense_is_tried_again() {
    let (script, gateway) = begin().await;
    let client = gateway.start();
    drop(script.connection().await);
    let (mut peer, _) = script.connection().await;
    peer.send(Packet::PingResp).await;
    let (mut peer, _) = script.connection().await;
    peer.send_bytes(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nServer: not a broker at all, really not\r\n\r\n").await;
    let mut peer = script.subscriber(false).await;
    peer.send_bytes(&[0x32, 100, 0, 3, b't']).await;
    drop(peer);
    let mut peer = script.subscriber(false).await;
    peer.send(Packet::PingReq).await;
    peer.expect_end().await;
    let mut peer = script.subscriber(false).await;
    let mut unasked = Publish::new("t/s", QoS::ExactlyOnce, "x");
    unasked.pkid = 1;
    peer.send(Packet::Publish(unasked)).await;
    peer.expect_end().await;
    let mut peer = script.subscriber(false).await;
    peer.publish(1, false, "at last").await;
    peer.expect_ack(1).await;
    assert_eq!(client.pump.given(), [message("at last")]);
    client.stop().await;
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_left_and_found_again() {
    let (script, mut gateway) = begin().await;
    gateway.ping_interval = Duration::from_millis(100);
    let client = gateway.start();
    let mut peer = script.subscriber(false).await;
    peer.expect_end().await;
    eventually("the reason", || client.state.status().last_error.is_some_and(|error| error.contains("does not answer"))).await;
    let mut peer = script.subscriber(false).await;
    answer_pings(&mut peer, 3).await;
    client.stop().await;
}

#[tokio::test]
async fn nobody_there_is_tried_again_quietly_until_told_to_stop() {
    let gateway = Gateway::new("mqtt://127.0.0.1:9".to_owned());
    let client = gateway.start();
    eventually("the reason", || client.state.status().last_error.is_some()).await;
    let status = client.state.status();
    assert!(!status.connected && status.connects == 0 && status.since.is_some());
    client.stop().await;
}
