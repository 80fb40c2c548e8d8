//! Wills of MQTT 5: when they are due.

use super::*;

/// Connects with a will that is due `delay` seconds after the connection, and a session that outlives it by `lasts`.
async fn connect_with_will(bench: &Bench, delay: u32, lasts: u32, clean: bool) -> Sensor {
    let mut sensor = Sensor::dial(bench.address).await;
    let flags = if clean { 6 } else { 4 };
    let will_properties = [&[0x18][..], &delay.to_be_bytes()].concat();
    let fields: [&[u8]; 9] = [
        b"\0\x04MQTT\x05",
        &[flags, 0, 0, 5],
        &expiry(lasts),
        &field(b"a"),
        &[5],
        &will_properties,
        &field(b"a/state"),
        &field(b"off"),
        &[],
    ];
    sensor.send(&packet(0x10, &fields)).await;
    assert_eq!(sensor.read().await.unwrap()[3], 0);
    sensor
}

#[tokio::test]
async fn a_will_waits_for_its_delay() {
    let (mut bench, _folder) = Bench::start().await;
    let begun = Instant::now();
    drop(connect_with_will(&bench, 1, 60, true).await);
    assert_eq!(bench.commit_next(1).await, ["off"]);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(bench.state.wills.get(), 1);
}

#[tokio::test]
async fn a_sensor_that_comes_again_in_time_has_no_will() {
    let (mut bench, _folder) = Bench::start().await;
    drop(connect_with_will(&bench, 3600, 3600, false).await);
    bench.until("gone", |state| state.connections.get() == 0).await;
    let (mut sensor, present) = Sensor::connect_v5(&bench, "a", false, &expiry(60)).await;
    assert!(present);
    sensor.send(&publish_packet_v5(0, 0, false, b"t", &[], b"here")).await;
    assert_eq!(bench.commit_next(1).await, ["here"]);
    assert_eq!(bench.state.wills.get(), 0);
}

#[tokio::test]
async fn a_will_is_due_at_once_where_its_session_ends() {
    let (mut bench, _folder) = Bench::start().await;
    // With the connection.
    drop(connect_with_will(&bench, 3600, 0, true).await);
    assert_eq!(bench.commit_next(1).await, ["off"]);
    // With a clean start, before and after the connection is gone.
    for gone in [false, true] {
        let old = connect_with_will(&bench, 3600, 3600, true).await;
        let _kept = if gone {
            drop(old);
            bench.until("gone", |state| state.connections.get() == 0).await;
            None
        } else {
            Some(old)
        };
        let (mut new, present) = Sensor::connect_v5(&bench, "a", true, &[]).await;
        assert!(!present);
        assert_eq!(bench.commit_next(1).await, ["off"]);
        new.send(&[0xe0, 0]).await;
        new.expect_closed().await;
    }
    assert_eq!(bench.state.wills.get(), 3);
}

#[tokio::test]
async fn a_goodbye_drops_the_will_unless_it_asks_for_it() {
    let (mut bench, _folder) = Bench::start().await;
    let mut sensor = connect_with_will(&bench, 0, 60, true).await;
    sensor.send(&[0xe0, 1, 0]).await;
    sensor.expect_closed().await;
    bench.expect_nothing().await;
    let mut sensor = connect_with_will(&bench, 0, 60, true).await;
    sensor.send(&[0xe0, 1, 4]).await;
    assert_eq!(bench.commit_next(1).await, ["off"]);
    sensor.expect_closed().await;
}

#[tokio::test]
async fn a_will_without_a_place_to_wait_is_due_at_once_and_the_stop_waits_for_none() {
    let (mut bench, _folder) = Bench::with(|listener| listener.shared.waiting_wills = Semaphore::new(1)).await;
    drop(connect_with_will(&bench, 3600, 3600, true).await);
    bench.until("gone", |state| state.connections.get() == 0).await;
    bench.expect_nothing().await;
    let mut other = Sensor::dial(bench.address).await;
    let fields: [&[u8]; 8] =
        [b"\0\x04MQTT\x05", &[6, 0, 0, 5], &expiry(60), &field(b"b"), &[5, 0x18, 0, 0, 9, 9], &field(b"b/state"), &field(b"gone"), &[]];
    other.send(&packet(0x10, &fields)).await;
    assert_eq!(other.read().await.unwrap()[3], 0);
    drop(other);
    assert_eq!(bench.commit_next(1).await, ["gone"]);
    let begun = Instant::now();
    bench.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
