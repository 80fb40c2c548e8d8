//! The simulation against a scripted receiver.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, PubComp, PubRec, PubRel, Publish};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ingest::client::scripted::{Peer, Script};

fn settings(script: &Script, sensors: usize, rate: f64, millis: u64) -> Settings {
    let duration = Some(Duration::from_millis(millis));
    Settings { url: script.url(), sensors, rate, duration, window: 3, ..Settings::default() }
}

async fn message(peer: &mut Peer) -> Publish {
    match peer.next().await {
        Packet::Publish(publish) => publish,
        other => panic!("expected PUBLISH, got {other:?}"),
    }
}

async fn acknowledge(peer: &mut Peer, packet_id: u16) {
    peer.send(Packet::PubAck(PubAck::new(packet_id))).await;
}

/// Takes messages and acknowledges them until the sensor says good-bye; counts how often each came.
async fn take_all(mut peer: Peer, came: &mut HashMap<(String, Vec<u8>), usize>) {
    loop {
        match peer.next().await {
            Packet::Publish(publish) => {
                acknowledge(&mut peer, publish.pkid).await;
                *came.entry((publish.topic, publish.payload.to_vec())).or_default() += 1;
            }
            Packet::Disconnect => return,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn sent_and_acknowledged_are_counted_exactly_and_the_last_is_waited_for() {
    let script = Script::start().await;
    let settings = Settings { readings_per_message: 5, ..settings(&script, 1, 200.0, 500) };
    let simulation = tokio::spawn(run(settings, CancellationToken::new(), Arc::default()));
    let mut came = HashMap::new();
    take_all(script.accept(false).await, &mut came).await;
    let outcome = simulation.await.unwrap().unwrap();
    assert!((80..=101).contains(&outcome.sent), "{outcome:?}");
    assert_eq!((outcome.sent, outcome.acknowledged), (came.len() as u64, came.len() as u64));
    assert_eq!((outcome.readings_sent, outcome.readings_acknowledged), (outcome.sent * 5, outcome.sent * 5));
    assert!(came.values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_full_window_waits_and_a_second_acknowledgement_counts_for_nothing() {
    let script = Script::start().await;
    let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let settings = Settings { duration: None, ..settings(&script, 1, 0.0, 0) };
    let simulation = tokio::spawn(run(settings.clone(), stop.clone(), Arc::clone(&progress)));
    let mut peer = script.accept(false).await;
    let ids = [message(&mut peer).await.pkid, message(&mut peer).await.pkid, message(&mut peer).await.pkid];
    assert_eq!(ids, [1, 2, 3]);
    assert!(peer.is_silent_for(Duration::from_millis(200)).await);
    for _ in 0..2 {
        acknowledge(&mut peer, 2).await;
    }
    let next = message(&mut peer).await;
    assert_eq!((next.pkid, next.dup), (2, false));
    stop.cancel();
    for id in [1, 3, 2] {
        acknowledge(&mut peer, id).await;
    }
    assert_eq!(peer.next().await, Packet::Disconnect);
    let outcome = simulation.await.unwrap().unwrap();
    assert_eq!((outcome.sent, outcome.acknowledged), (4, 4));
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_to_a_receiver_that_came_back() {
    let script = Script::start().await;
    let simulation = tokio::spawn(run(settings(&script, 1, 100.0, 1500), CancellationToken::new(), Arc::default()));
    let mut peer = script.accept(false).await;
    let first = message(&mut peer).await;
    acknowledge(&mut peer, first.pkid).await;
    let lost = [message(&mut peer).await, message(&mut peer).await];
    drop(peer);
    // It remembers the session: told that they are sent again.
    let mut peer = script.accept(true).await;
    for lost in &lost {
        let again = message(&mut peer).await;
        assert_eq!((again.pkid, again.dup, &again.payload), (lost.pkid, true, &lost.payload));
    }
    drop(peer);
    // It forgot the session: the same messages, as if they were new.
    let mut peer = script.accept(false).await;
    for lost in &lost {
        let again = message(&mut peer).await;
        assert_eq!((again.pkid, again.dup, &again.payload), (lost.pkid, false, &lost.payload));
        acknowledge(&mut peer, again.pkid).await;
    }
    let mut came = HashMap::new();
    take_all(peer, &mut came).await;
    let outcome = simulation.await.unwrap().unwrap();
    assert_eq!((outcome.sent, outcome.reconnects), (3 + came.len() as u64, 2));
    assert_eq!(outcome.acknowledged, outcome.sent);
}

#[tokio::test]
async fn qos_0_is_sent_without_acknowledgement() {
    let script = Script::start().await;
    let settings = Settings { qos: 0, ..settings(&script, 2, 100.0, 300) };
    let simulation = tokio::spawn(run(settings, CancellationToken::new(), Arc::default()));
    let mut peers = [script.accept(false).await, script.accept(false).await];
    let mut came = 0;
    for peer in &mut peers {
        while let Packet::Publish(publish) = peer.next().await {
            assert_eq!((publish.pkid, publish.dup), (0, false));
            came += 1;
        }
    }
    let outcome = simulation.await.unwrap().unwrap();
    assert_eq!((outcome.sent, outcome.acknowledged), (came, 0));
}

#[tokio::test]
async fn at_qos_2_each_message_is_released_and_the_step_that_was_not_answered_is_repeated() {
    let script = Script::start().await;
    let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let settings = Settings { duration: None, qos: 2, ..settings(&script, 1, 0.0, 0) };
    let simulation = tokio::spawn(run(settings.clone(), stop.clone(), Arc::clone(&progress)));
    let mut peer = script.accept(false).await;
    let sent = [message(&mut peer).await, message(&mut peer).await, message(&mut peer).await];
    stop.cancel();
    peer.send(Packet::PubRec(PubRec::new(1))).await;
    assert_eq!(peer.next().await, Packet::PubRel(PubRel::new(1)));
    assert_eq!(progress.outcome(&settings).acknowledged, 0);
    drop(peer);
    let mut peer = script.accept(true).await;
    assert_eq!(peer.next().await, Packet::PubRel(PubRel::new(1)));
    for lost in &sent[1..] {
        let again = message(&mut peer).await;
        assert_eq!((again.pkid, again.dup, &again.payload), (lost.pkid, true, &lost.payload));
    }
    for lost in &sent[1..] {
        peer.send(Packet::PubRec(PubRec::new(lost.pkid))).await;
        assert_eq!(peer.next().await, Packet::PubRel(PubRel::new(lost.pkid)));
    }
    for id in 1..=3 {
        peer.send(Packet::PubComp(PubComp::new(id))).await;
    }
    assert_eq!(peer.next().await, Packet::Disconnect);
    let outcome = simulation.await.unwrap().unwrap();
    assert_eq!((outcome.sent, outcome.acknowledged), (3, 3));
}

#[tokio::test]
async fn a_receiver_that_refuses_us_is_an_error_at_once() {
    let script = Script::start().await;
    let settings = settings(&script, 1, 1.0, 60_000);
    let simulation = tokio::spawn(run(settings, CancellationToken::new(), Arc::default()));
    let (mut peer, connect) = script.connection().await;
    assert_eq!((connect.client_id.as_str(), connect.clean_session), ("sim-00", false));
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::BadUserNamePassword, false))).await;
    let error = simulation.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("wrong user name or password"), "{error}");
}

#[tokio::test]
async fn wrong_settings_are_refused_with_the_rule() {
    let good = Settings::default();
    for (settings, rule) in [
        (Settings { qos: 3, ..good.clone() }, "0, 1 or 2"),
        (Settings { sensors: 0, ..good.clone() }, "one sensor"),
        (Settings { readings_per_message: 0, ..good.clone() }, "one reading"),
        (Settings { window: 0, ..good.clone() }, "window"),
        (Settings { rate: f64::NAN, ..good.clone() }, "rate"),
        (Settings { rate: -1.0, ..good.clone() }, "rate"),
        (Settings { client_prefix: "a/b".to_owned(), ..good.clone() }, "prefix"),
        (Settings { url: "broker".to_owned(), ..good.clone() }, "mqtt://"),
    ] {
        let error = run(settings, CancellationToken::new(), Arc::default()).await.unwrap_err();
        assert!(error.to_string().contains(rule), "{error}");
    }
}
