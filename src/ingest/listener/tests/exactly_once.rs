//! QoS 2: exactly once, whoever dies between two steps.

use super::*;
use crate::ingest::Rejection;

const V5_PERSISTENT: [u8; 5] = [0x11, 0, 0, 0x0e, 0x10];

#[tokio::test]
async fn each_answer_follows_the_commit_of_what_it_says() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish_once(7, false, "1").await;
    let message = bench.next().await;
    sensor.expect_nothing().await;
    bench.commit(vec![message]).await;
    sensor.expect(&[0x50, 2, 0, 7]).await;
    sensor.release(7).await;
    let release = bench.next().await;
    sensor.expect_nothing().await;
    bench.commit(vec![release]).await;
    sensor.expect(&[0x70, 2, 0, 7]).await;
    bench.until("counted", |state| state.messages_qos2.get() == 1 && state.acknowledged.get() == 1).await;
}

#[tokio::test]
async fn answers_of_all_kinds_come_in_the_order_of_arrival() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish_once(1, false, "one").await;
    sensor.publish(2, false, "two").await;
    sensor.publish_once(3, false, "three").await;
    assert_eq!(bench.commit_next(3).await, ["one", "two", "three"]);
    for answer in [[0x50, 2, 0, 1], [0x40, 2, 0, 2], [0x50, 2, 0, 3]] {
        sensor.expect(&answer).await;
    }
    sensor.release(1).await;
    sensor.publish(2, false, "four").await;
    sensor.release(3).await;
    assert_eq!(bench.commit_next(3).await, ["released", "four", "released"]);
    for answer in [[0x70, 2, 0, 1], [0x40, 2, 0, 2], [0x70, 2, 0, 3]] {
        sensor.expect(&answer).await;
    }
}

#[tokio::test]
async fn what_comes_again_before_its_release_is_stored_once_with_and_without_dup() {
    for clean in [true, false] {
        let (mut bench, _folder) = Bench::start().await;
        let (mut sensor, _) = Sensor::connect(&bench, "a", clean).await;
        sensor.publish_once(1, false, "one").await;
        sensor.publish_once(1, true, "one").await;
        sensor.publish_once(1, false, "one").await;
        assert_eq!(bench.commit_next(3).await, ["one", "=", "="]);
        for _ in 0..3 {
            sensor.expect(&[0x50, 2, 0, 1]).await;
        }
        sensor.release(1).await;
        assert_eq!(bench.commit_next(1).await, ["released"]);
        sensor.expect(&[0x70, 2, 0, 1]).await;
        sensor.publish_once(1, false, "one").await;
        assert_eq!(bench.commit_next(1).await, ["one"], "it is another message");
        assert_eq!(bench.state.duplicates.get(), 2);
    }
}

#[tokio::test]
async fn a_release_of_what_is_not_held_is_confirmed() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut old, _) = Sensor::connect(&bench, "a", false).await;
    old.release(9).await;
    assert_eq!(bench.commit_next(1).await, ["released"]);
    old.expect(&[0x70, 2, 0, 9]).await;
    let (mut new, _) = Sensor::connect_v5(&bench, "b", false, &V5_PERSISTENT).await;
    new.release(9).await;
    assert_eq!(bench.commit_next(1).await, ["released"]);
    new.expect(&[0x70, 3, 0, 9, 0x92]).await;
}

#[tokio::test]
async fn a_release_before_the_receipt_confirms_nothing_that_is_not_committed() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish_once(1, false, "one").await;
    sensor.release(1).await;
    let (message, release) = (bench.next().await, bench.next().await);
    sensor.expect_nothing().await;
    bench.commit(vec![message, release]).await;
    sensor.expect(&[0x50, 2, 0, 1]).await;
    sensor.expect(&[0x70, 2, 0, 1]).await;
}

/// Each step is committed, or lost with the daemon, and the sensor repeats it: by both versions.
#[tokio::test]
async fn the_daemon_may_die_between_any_two_steps() {
    for version5 in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open_ledger(folder.path());
        let begin = async |bench: &Bench, expected: bool| {
            let (sensor, present) = if version5 {
                Sensor::connect_v5(bench, "a", false, &V5_PERSISTENT).await
            } else {
                Sensor::connect(bench, "a", false).await
            };
            assert_eq!(present, expected);
            sensor
        };
        let publish = async |sensor: &mut Sensor, id: u16, dup: bool, text: &str| {
            if version5 {
                sensor.send(&publish_packet_v5(2, id, dup, b"s/t", &[], text.as_bytes())).await;
            } else {
                sensor.publish_once(id, dup, text).await;
            }
        };
        // The message of 1 is committed, that of 2 is lost; nobody hears of either.
        let mut bench = Bench::on(ledger.clone(), |_| {}).await;
        let mut sensor = begin(&bench, false).await;
        publish(&mut sensor, 1, false, "one").await;
        publish(&mut sensor, 2, false, "two").await;
        let (committed, lost) = (bench.next().await, bench.next().await);
        commit_unheard(&ledger, &[&committed]).await;
        drop((committed, lost, sensor));
        bench.running.abort();

        // Both come again. The release of 1 is lost, that of 2 is committed; nobody hears of either.
        let mut bench = Bench::on(ledger.clone(), |_| {}).await;
        let mut sensor = begin(&bench, true).await;
        publish(&mut sensor, 1, true, "one").await;
        publish(&mut sensor, 2, true, "two").await;
        assert_eq!(bench.commit_next(2).await, ["=", "two"]);
        for id in [1, 2] {
            sensor.expect(&[0x50, 2, 0, id]).await;
            sensor.release(id.into()).await;
        }
        let (lost, committed) = (bench.next().await, bench.next().await);
        commit_unheard(&ledger, &[&committed]).await;
        drop((committed, lost, sensor));
        bench.running.abort();

        // Both releases come again. A message that is not released stays held.
        let mut bench = Bench::on(ledger.clone(), |_| {}).await;
        let mut sensor = begin(&bench, true).await;
        publish(&mut sensor, 1, true, "one").await;
        assert_eq!(bench.commit_next(1).await, ["="]);
        sensor.expect(&[0x50, 2, 0, 1]).await;
        sensor.release(1).await;
        sensor.release(2).await;
        assert_eq!(bench.commit_next(2).await, ["released", "released"]);
        sensor.expect(&[0x70, 2, 0, 1]).await;
        if version5 {
            sensor.expect(&[0x70, 3, 0, 2, 0x92]).await;
        } else {
            sensor.expect(&[0x70, 2, 0, 2]).await;
        }
        // Both ids are free: the same words are another message.
        publish(&mut sensor, 1, false, "one").await;
        publish(&mut sensor, 2, false, "two").await;
        assert_eq!(bench.commit_next(2).await, ["one", "two"]);
        bench.stop().await;
    }
}

/// The commit is the last thing that happens.
async fn commit_unheard(ledger: &Ledger, deliveries: &[&Admitted]) {
    let marks = deliveries.iter().filter_map(|admitted| admitted.delivery.mark).collect();
    ledger.commit(Batch { marks, ..Batch::default() }).await.unwrap();
}

#[tokio::test]
async fn a_release_on_its_way_when_its_connection_ends_is_answered_to_the_next_in_its_turn() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish_once(1, false, "one").await;
    bench.commit_next(1).await;
    sensor.expect(&[0x50, 2, 0, 1]).await;
    sensor.release(1).await;
    let first = bench.next().await;
    drop(sensor);
    let (mut sensor, present) = Sensor::connect(&bench, "a", false).await;
    assert!(present);
    sensor.release(1).await;
    let again = bench.next().await;
    sensor.expect_nothing().await;
    bench.commit(vec![first]).await;
    sensor.expect_nothing().await;
    bench.commit(vec![again]).await;
    sensor.expect(&[0x70, 2, 0, 1]).await;
}

#[tokio::test]
async fn one_packet_id_for_every_message_loses_and_doubles_nothing() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    for number in 0..20 {
        let text = (number / 2).to_string();
        sensor.publish_once(1, false, &text).await;
        assert_eq!(bench.commit_next(1).await, [text]);
        sensor.expect(&[0x50, 2, 0, 1]).await;
        // A new connection at every step.
        (sensor, _) = Sensor::connect(&bench, "a", false).await;
        sensor.release(1).await;
        assert_eq!(bench.commit_next(1).await, ["released"]);
        sensor.expect(&[0x70, 2, 0, 1]).await;
    }
}

#[tokio::test]
async fn a_sender_that_begins_its_ids_anew_loses_no_new_message() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish_once(1, false, "before its restart").await;
    bench.commit_next(1).await;
    sensor.expect(&[0x50, 2, 0, 1]).await;
    let (mut sensor, present) = Sensor::connect(&bench, "a", false).await;
    assert!(present);
    sensor.publish_once(1, false, "after it").await;
    assert_eq!(bench.commit_next(1).await, ["after it"]);
    sensor.expect(&[0x50, 2, 0, 1]).await;
}

#[tokio::test]
async fn what_is_rejected_is_complete_for_its_sender_too() {
    let (mut bench, _folder) = Bench::start().await;
    let big = "z".repeat(MAX_MESSAGE_BYTES + 1);
    // 3.1.1 can't say why, and goes through all the steps.
    let (mut old, _) = Sensor::connect(&bench, "a", false).await;
    for (id, text) in [(1, &*big), (2, "no sense")] {
        old.publish_once(id.into(), false, text).await;
        let admitted = bench.next().await;
        settle_rejected(&bench.ledger, admitted, Rejection::Unreadable).await;
        old.expect(&[0x50, 2, 0, id]).await;
        old.release(id.into()).await;
        bench.commit_next(1).await;
        old.expect(&[0x70, 2, 0, id]).await;
    }
    // 5 says why, and the id is free at once.
    let (mut new, _) = Sensor::connect_v5(&bench, "b", false, &V5_PERSISTENT).await;
    let reasons = [(Rejection::BeyondLimits, 0x97), (Rejection::Unreadable, 0x99)];
    for ((rejection, reason), text) in reasons.into_iter().zip([&*big, "no sense"]) {
        new.send(&publish_packet_v5(2, 5, false, b"s/t", &[], text.as_bytes())).await;
        let admitted = bench.next().await;
        settle_rejected(&bench.ledger, admitted, rejection).await;
        new.expect(&[0x50, 3, 0, 5, reason]).await;
    }
    new.send(&publish_packet_v5(2, 5, false, b"s/t", &[], b"no sense")).await;
    assert_eq!(bench.commit_next(1).await, ["no sense"], "nothing is held of what was rejected");
    assert_eq!(bench.state.duplicates.get(), 0);
}

/// As the pump does it.
async fn settle_rejected(ledger: &Ledger, admitted: Admitted, rejection: Rejection) {
    let marks = admitted.delivery.mark.map(MarkEvent::of_rejected).into_iter().collect();
    ledger.commit(Batch { marks, ..Batch::default() }).await.unwrap();
    admitted.delivery.receipt.unwrap().settle(Outcome::Rejected(rejection));
}

#[tokio::test]
async fn a_sensor_that_releases_nothing_is_closed_at_the_limit_and_goes_on_when_it_does() {
    let (mut bench, _folder) = Bench::with(|listener| listener.shared.limits.max_unacknowledged = 3).await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    for id in 1..=3 {
        sensor.publish_once(id.into(), false, "x").await;
        bench.commit_next(1).await;
        sensor.expect(&[0x50, 2, 0, id]).await;
    }
    sensor.publish(8, false, "at QoS 1 it goes on").await;
    bench.commit_next(1).await;
    sensor.expect_acks([8]).await;
    sensor.publish_once(4, false, "one too many").await;
    sensor.expect_closed().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.release(1).await;
    bench.commit_next(1).await;
    sensor.expect(&[0x70, 2, 0, 1]).await;
    sensor.publish_once(4, true, "one too many").await;
    assert_eq!(bench.commit_next(1).await, ["one too many"]);
    assert_eq!(bench.state.protocol_errors.get(), 1);
}

#[tokio::test]
async fn a_sender_that_waits_is_hurried_for_at_both_steps() {
    let (bench, _folder) = Bench::start().await;
    let interval = Duration::from_millis(300);
    let texts = pump(bench.ledger.clone(), bench.handed_in, interval);
    let mut sensor = Sensor::dial(bench.address).await;
    sensor.send(&connect_packet("a", false, 0, None)).await;
    sensor.expect(&[0x20, 2, 0, 0]).await;
    let begun = Instant::now();
    for number in 0..50 {
        sensor.publish_once(1, false, &number.to_string()).await;
        sensor.expect(&[0x50, 2, 0, 1]).await;
        sensor.release(1).await;
        sensor.expect(&[0x70, 2, 0, 1]).await;
    }
    assert!(begun.elapsed() < 40 * interval, "each step waited for the interval: {:?}", begun.elapsed());
    assert_eq!(texts.lock().unwrap().len(), 100);
}
