//! Each message once, whatever becomes of connections and of the daemon.

use super::*;

#[tokio::test]
async fn what_is_redelivered_before_its_commit_is_stored_once() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, present) = Sensor::connect(&bench, "a", false).await;
    assert!(!present);
    sensor.publish(1, false, "one").await;
    sensor.publish(2, false, "two").await;
    let first = [bench.next().await, bench.next().await];
    drop(sensor);
    let (mut sensor, present) = Sensor::connect(&bench, "a", false).await;
    assert!(present);
    sensor.publish(1, true, "one").await;
    sensor.publish(2, true, "two").await;
    sensor.publish(3, false, "three").await;
    bench.commit(first.into()).await;
    assert_eq!(bench.commit_next(3).await, ["=", "=", "three"]);
    sensor.expect_acks([1, 2, 3]).await;
    assert_eq!(bench.state.duplicates.get(), 2);
}

#[tokio::test]
async fn a_session_that_is_passed_on_acknowledges_only_what_its_new_connection_sent() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish(1, false, "one").await;
    let first = bench.next().await;
    drop(sensor);
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    bench.commit(vec![first]).await;
    sensor.expect_nothing().await;
    sensor.publish(1, true, "one").await;
    assert_eq!(bench.commit_next(1).await, ["="]);
    sensor.expect_acks([1]).await;
}

#[tokio::test]
async fn what_is_redelivered_after_the_daemon_died_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open_ledger(folder.path());
    let mut bench = Bench::on(ledger.clone(), |_| {}).await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish(1, false, "one").await;
    sensor.publish(2, false, "two").await;
    let committed = bench.next().await;
    let lost = bench.next().await;
    // The commit is the last thing that happens: nobody hears of it.
    ledger.commit(Batch { marks: committed.delivery.mark.into_iter().collect(), ..Batch::default() }).await.unwrap();
    drop((lost, committed, sensor));
    bench.running.abort();

    let mut bench = Bench::on(ledger, |_| {}).await;
    let (mut sensor, present) = Sensor::connect(&bench, "a", false).await;
    assert!(present);
    sensor.publish(1, true, "one").await;
    sensor.publish(2, true, "two").await;
    assert_eq!(bench.commit_next(2).await, ["=", "two"]);
    sensor.expect_acks([1, 2]).await;
}

#[tokio::test]
async fn one_packet_id_used_for_every_message_loses_and_doubles_nothing() {
    let (mut bench, _folder) = Bench::start().await;
    let mut stored = Vec::new();
    for number in 0..20 {
        let text = (number / 2).to_string();
        let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
        // Each message is sent twice: the first time its acknowledgement does not arrive.
        sensor.publish(1, number % 2 == 1, &text).await;
        stored.extend(bench.commit_next(1).await);
        if number % 2 == 1 {
            sensor.expect_acks([1]).await;
        }
    }
    assert_eq!(stored, ["0", "=", "1", "=", "2", "=", "3", "=", "4", "=", "5", "=", "6", "=", "7", "=", "8", "=", "9", "="]);
}

#[tokio::test]
async fn who_connects_again_takes_over_and_the_order_holds() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut old, _) = Sensor::connect(&bench, "a", false).await;
    old.publish(1, false, "old").await;
    bench.until("handed in", |state| state.messages_qos1.get() == 1).await;
    let (mut new, present) = Sensor::connect(&bench, "a", false).await;
    assert!(present);
    old.expect_closed().await;
    new.publish(2, false, "new").await;
    assert_eq!(bench.commit_next(2).await, ["old", "new"]);
    new.expect_acks([2]).await;
    bench.until("counted", |state| state.taken_over.get() == 1 && state.connections.get() == 1).await;
}

#[tokio::test]
async fn many_who_take_over_from_each_other_leave_one() {
    let (bench, _folder) = Bench::start().await;
    let mut sensors = Vec::new();
    for _ in 0..30 {
        let mut sensor = Sensor::dial(bench.address).await;
        sensor.send(&connect_packet("a", false, 0, None)).await;
        sensors.push(sensor);
    }
    bench.until("29 gone", |state| state.taken_over.get() == 29 && state.connections.get() == 1).await;
    drop(sensors);
    bench.until("all gone", |state| state.connections.get() == 0).await;
    while bench.seats.len() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_clean_session_forgets_the_persistent_one_before_it() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish(1, false, "one").await;
    assert_eq!(bench.commit_next(1).await, ["one"]);
    sensor.expect_acks([1]).await;
    let (mut sensor, present) = Sensor::connect(&bench, "a", true).await;
    assert!(!present);
    sensor.send(&[0xe0, 0]).await;
    sensor.expect_closed().await;
    let (mut sensor, present) = Sensor::connect(&bench, "a", false).await;
    assert!(!present, "the session was ended");
    sensor.publish(1, true, "one").await;
    assert_eq!(bench.commit_next(1).await, ["one"], "nobody can know it any more");
}

#[tokio::test]
async fn a_clean_session_waits_until_the_deliveries_of_the_persistent_one_are_settled() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish(1, false, "one").await;
    let first = bench.next().await;
    let mut next = Sensor::dial(bench.address).await;
    next.send(&connect_packet("a", true, 0, None)).await;
    next.expect_nothing().await;
    bench.commit(vec![first]).await;
    next.expect(&[0x20, 2, 0, 0]).await;
}

#[tokio::test]
async fn a_message_that_was_not_taken_is_not_acknowledged_and_stored_when_it_comes_again() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish(1, false, "one").await;
    sensor.publish(2, false, "two").await;
    let (first, second) = (bench.next().await, bench.next().await);
    first.delivery.receipt.unwrap().settle(Outcome::Refused("the disk is full".to_owned()));
    sensor.expect_closed().await;
    // The sensor is back before the fate of the second is known: its marks can't be trusted until then.
    let mut sensor = Sensor::dial(bench.address).await;
    sensor.send(&connect_packet("a", false, 0, None)).await;
    sensor.expect_nothing().await;
    second.delivery.receipt.unwrap().settle(Outcome::Refused("the disk is full".to_owned()));
    sensor.expect(&[0x20, 2, 1, 0]).await;
    sensor.publish(1, true, "one").await;
    sensor.publish(2, true, "two").await;
    assert_eq!(bench.commit_next(2).await, ["one", "two"]);
    sensor.expect_acks([1, 2]).await;
}

#[tokio::test]
async fn a_redelivery_behind_a_message_that_was_not_taken_is_not_acknowledged() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish(1, false, "one").await;
    let first = bench.next().await;
    drop(sensor);
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish(1, true, "one").await;
    let again = bench.next().await;
    first.delivery.receipt.clone().unwrap().settle(Outcome::Refused("the disk is full".to_owned()));
    again.delivery.receipt.clone().unwrap().settle(Outcome::Committed);
    sensor.expect_closed().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish(1, true, "one").await;
    assert_eq!(bench.commit_next(1).await, ["one"]);
    sensor.expect_acks([1]).await;
}
