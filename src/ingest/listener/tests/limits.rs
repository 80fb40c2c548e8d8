//! What is bounded, and what happens at the bound.

use super::*;
use crate::error::ErrorKind;

#[tokio::test]
async fn a_sensor_that_is_silent_beyond_its_keep_alive_is_closed_and_its_will_is_due() {
    let (mut bench, _folder) = Bench::start().await;
    let mut sensor = Sensor::dial(bench.address).await;
    sensor.send(&connect_packet("a", true, 1, Some(("a/state", "offline")))).await;
    sensor.expect(&[0x20, 2, 0, 0]).await;
    let begun = Instant::now();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        sensor.send(&[0xc0, 0]).await;
        sensor.expect(&[0xd0, 0]).await;
    }
    let last_ping = Instant::now();
    assert!(begun.elapsed() > Duration::from_millis(1900), "pings kept it");
    sensor.expect_closed().await;
    let silence = last_ping.elapsed();
    assert!((Duration::from_millis(1400)..Duration::from_secs(4)).contains(&silence), "{silence:?}");
    assert_eq!(bench.commit_next(1).await, ["offline"]);
    assert_eq!(bench.state.silent.get(), 1);
}

#[tokio::test]
async fn while_no_readings_are_taken_a_sensor_is_acknowledged_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, space) = (open_ledger(folder.path()), Space::default());
    let mut bench = Bench::run(listener_within(&ledger, space.clone()).await, ledger, |_| {});
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish_once(1, false, "one").await;
    sensor.publish(2, false, "two").await;
    let before = vec![bench.next().await, bench.next().await];
    space.refuse("the disk is full");
    // All in one piece: the ping is there already when the message has to wait.
    let waiting = [publish_packet(Some(3), false, b"s/t", b"three"), publish_packet(Some(4), false, b"s/t", b"four"), vec![0xc0, 0]];
    sensor.send(&waiting.concat()).await;
    sensor.expect(&[0xd0, 0]).await;
    bench.commit(before).await;
    sensor.expect(&[0x50, 2, 0, 1]).await;
    sensor.expect_acks([2]).await;
    sensor.release(1).await;
    assert_eq!(bench.commit_next(1).await, ["released"]);
    sensor.expect(&[0x70, 2, 0, 1]).await;
    sensor.send(&[0xc0, 0]).await;
    sensor.expect(&[0xd0, 0]).await;
    bench.expect_nothing().await;
    space.admit();
    assert_eq!(bench.commit_next(2).await, ["three", "four"]);
    sensor.expect_acks([3, 4]).await;
    assert_eq!(bench.state.pings.get(), 2);
}

#[tokio::test]
async fn a_sensor_that_dies_while_no_readings_are_taken_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, space) = (open_ledger(folder.path()), Space::default());
    let bench = Bench::run(listener_within(&ledger, space.clone()).await, ledger, |_| {});
    space.refuse("the disk is full");
    let mut sensor = Sensor::dial(bench.address).await;
    sensor.send(&connect_packet("a", true, 1, None)).await;
    sensor.expect(&[0x20, 2, 0, 0]).await;
    sensor.publish(1, false, "one").await;
    sensor.expect_closed().await;
    assert_eq!(bench.state.silent.get(), 1);
}

#[tokio::test]
async fn a_sensor_without_keep_alive_is_closed_after_the_own_bound() {
    let (bench, _folder) = Bench::with(|listener| listener.shared.limits.idle = Duration::from_millis(100)).await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", true).await;
    sensor.expect_closed().await;
    assert_eq!(bench.state.silent.get(), 1);
}

#[tokio::test]
async fn a_peer_that_does_not_connect_in_time_is_closed() {
    let (bench, _folder) = Bench::with(|listener| listener.shared.limits.connect = Duration::from_millis(100)).await;
    for beginning in [&b""[..], b"\x10", b"\x10\x20\0\x04MQTT"] {
        let mut sensor = Sensor::dial(bench.address).await;
        sensor.send(beginning).await;
        sensor.expect_closed().await;
    }
}

#[tokio::test]
async fn beyond_the_limit_a_connection_is_told_to_come_later() {
    let (bench, _folder) = Bench::with(|listener| listener.max_connections = 2).await;
    let (one, _) = Sensor::connect(&bench, "1", true).await;
    let (_two, _) = Sensor::connect(&bench, "2", true).await;
    let mut three = Sensor::dial(bench.address).await;
    three.send(&connect_packet("3", true, 0, None)).await;
    three.expect(&[0x20, 2, 0, 3]).await;
    three.expect_closed().await;
    assert_eq!((bench.state.refused_by_limit.get(), bench.state.connections.get()), (1, 2));
    drop(one);
    bench.until("a place is free", |state| state.connections.get() == 1).await;
    // The slot is given back a moment after the count.
    tokio::time::sleep(MOMENT).await;
    Sensor::connect(&bench, "3", true).await;
}

#[tokio::test]
async fn a_sensor_with_too_much_unacknowledged_is_not_read_from() {
    let (mut bench, _folder) = Bench::with(|listener| listener.shared.limits.max_unacknowledged = 10).await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", true).await;
    for id in 1..=25 {
        sensor.publish(id, false, &id.to_string()).await;
    }
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(bench.next().await);
    }
    bench.expect_nothing().await;
    bench.commit(held).await;
    assert_eq!(bench.commit_next(10).await.first().map(String::as_str), Some("11"));
    assert_eq!(bench.commit_next(5).await.last().map(String::as_str), Some("25"));
    sensor.expect_acks(1..=25).await;
}

#[tokio::test]
async fn under_pressure_qos_0_is_dropped_and_counted_and_qos_1_waits() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut loud, _) = Sensor::connect(&bench, "loud", true).await;
    for _ in 0..50 {
        loud.send(&publish_packet(None, false, b"t", b"x").repeat(100)).await;
    }
    bench.until("all came", |state| state.messages_qos0.get() == 5000).await;
    let dropped = bench.state.qos0_refused.get();
    assert!((900..1000).contains(&dropped), "{dropped} of 5000");
    let (mut patient, _) = Sensor::connect(&bench, "patient", true).await;
    patient.publish(1, false, "kept").await;
    let mut last = String::new();
    for _ in 0..5000 - dropped + 1 {
        last = text(&bench.next().await.delivery.content);
    }
    assert_eq!(last, "kept");
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answers_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut listener, _handed_in) = listener(&open_ledger(folder.path())).await;
    listener.shared.limits.write = Duration::from_millis(100);
    let (mut peer, stream) = tokio::io::duplex(64);
    let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let serving = tokio::spawn(connection::serve(Arc::new(listener.shared), stream, listener.addresses[0], slot));
    peer.write_all(&connect_packet("a", true, 0, None)).await.unwrap();
    let writing = async { while peer.write_all(&[0xc0, 0]).await.is_ok() {} };
    timeout(PATIENCE, writing).await.expect("the connection is closed");
    serving.await.unwrap();
}

#[tokio::test]
async fn long_packets_share_a_bounded_memory() {
    const MESSAGE: usize = 6 << 20;
    let (bench, _folder) = Bench::with(|listener| listener.shared.limits.max_message_bytes = MESSAGE).await;
    let texts = pump(bench.ledger.clone(), bench.handed_in, Duration::from_millis(10));
    let mut sensors = Vec::new();
    for number in 0..5 {
        let address = bench.address;
        sensors.push(tokio::spawn(async move {
            let mut sensor = Sensor::dial(address).await;
            sensor.send(&connect_packet(&number.to_string(), true, 0, None)).await;
            sensor.expect(&[0x20, 2, 0, 0]).await;
            sensor.send(&publish_packet(Some(1), false, b"t", &vec![b'l'; MESSAGE])).await;
            sensor.expect_acks([1]).await;
        }));
    }
    for sensor in sensors {
        sensor.await.unwrap();
    }
    assert!(texts.lock().unwrap().iter().all(|text| text.len() == MESSAGE));
}

#[tokio::test]
async fn a_long_packet_that_does_not_come_gives_its_memory_back() {
    let (bench, _folder) = Bench::with(|listener| {
        listener.shared.limits.max_message_bytes = 14 << 20;
        listener.shared.limits.long_packet = Duration::from_millis(200);
    })
    .await;
    let _texts = pump(bench.ledger.clone(), bench.handed_in, Duration::from_millis(10));
    let long = publish_packet(Some(1), false, b"t", &vec![b'l'; 10 << 20]);
    let mut slow = Sensor::dial(bench.address).await;
    slow.send(&[connect_packet("slow", true, 0, None), long[..1000].to_vec()].concat()).await;
    slow.expect(&[0x20, 2, 0, 0]).await;
    let mut quick = Sensor::dial(bench.address).await;
    quick.send(&[connect_packet("quick", true, 0, None), long].concat()).await;
    quick.expect(&[0x20, 2, 0, 0]).await;
    quick.expect_acks([1]).await;
    slow.expect_closed().await;
}

#[tokio::test]
async fn at_the_stop_what_was_handed_in_is_acknowledged_first() {
    let (mut bench, _folder) = Bench::start().await;
    let (mut sensor, _) = Sensor::connect(&bench, "a", false).await;
    sensor.publish(1, false, "last").await;
    let admitted = bench.next().await;
    bench.stop.cancel();
    tokio::time::sleep(MOMENT).await;
    sensor.publish(2, false, "too late").await;
    bench.commit(vec![admitted]).await;
    sensor.expect_acks([1]).await;
    sensor.expect_closed().await;
    bench.expect_end().await;
}

impl Bench {
    /// Nothing more comes, and the listener ends.
    async fn expect_end(mut self) {
        assert!(timeout(PATIENCE, self.handed_in.recv()).await.unwrap().is_none());
        self.stop().await;
    }
}

#[test]
fn an_idle_connection_is_small() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (listener, _handed_in) = listener(&open_ledger(folder.path())).await;
        let (_peer, stream) = tokio::io::duplex(64);
        let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let serving = connection::serve(Arc::new(listener.shared), stream, listener.addresses[0], slot);
        assert!(size_of_val(&serving) < 6 << 10, "{} bytes", size_of_val(&serving));
    });
}

#[tokio::test]
async fn settings_that_cannot_be_followed_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open_ledger(folder.path());
    let bind = |bind: &str| config::Listener { bind: vec![bind.to_owned()], ..settings() };
    let cases = [
        ("anonymous", bind("0.0.0.0:0")),
        ("anonymous", bind("[::]:0")),
        ("/no/users can't be read", config::Listener { users_file: Some("/no/users".into()), ..settings() }),
        ("only /no/cert is set", config::Listener { tls_cert: Some("/no/cert".into()), ..settings() }),
        ("only /no/key is set", config::Listener { tls_key: Some("/no/key".into()), ..settings() }),
        ("host:port", bind("1884")),
        ("host:port", bind("localhost:mqtt")),
        ("empty", config::Listener { bind: vec![], ..settings() }),
        ("max_connections", config::Listener { max_connections: 0, ..settings() }),
    ];
    for (word, settings) in cases {
        let refused = Listener::bind(&settings, 1, Intake::new().0, ledger.clone(), Arc::new(SystemClock), Arc::default()).await;
        let error = refused.err().expect(word);
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(word), "{word}: {error}");
    }
    let open = config::Listener { anonymous: true, ..bind("0.0.0.0:0") };
    let bound = Listener::bind(&open, 1, Intake::new().0, ledger, Arc::new(SystemClock), Arc::default()).await.unwrap();
    assert_ne!(bound.addresses()[0].port(), 0);
}
