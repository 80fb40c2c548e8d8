//! Bytes that no sensor would send: none of them panics, and each costs its own connection at most.

use tokio::io::AsyncWriteExt as _;

use super::*;

/// xorshift64*: the same strings in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.roll() as u8).collect()
    }
}

/// A stream that begins well.
fn good_stream(dice: &mut Dice) -> Vec<u8> {
    if dice.below(2) == 0 {
        return good_stream_v5(dice);
    }
    let mut stream = connect_packet("fuzz", dice.below(2) == 0, 10, (dice.below(2) == 0).then_some(("w", "off")));
    for _ in 0..dice.below(6) {
        let (topic, payload) = (dice.bytes(12), dice.bytes(40));
        stream.extend(match dice.below(8) {
            0 => vec![0xc0, 0],
            1 => packet(0x82, &[&[0, 1], &field(&topic), &[1]]),
            2 => packet(0xa2, &[&[0, 1], &field(b"x")]),
            3 => publish_packet(Some(dice.roll() as u16), true, b"t/a", &payload),
            4 => publish_packet(None, false, &topic, &payload),
            5 => packet(0x34 | (dice.roll() as u8 & 8), &[&field(b"t"), &[0, dice.roll() as u8], &payload]),
            6 => packet(0x62, &[&[0, dice.roll() as u8]]),
            _ => publish_packet(Some(1), false, b"t", &vec![b'x'; dice.below(200_000)]),
        });
    }
    stream
}

/// The same of version 5, with properties that may be right.
fn good_stream_v5(dice: &mut Dice) -> Vec<u8> {
    let expiry = expiry(dice.below(3) as u32);
    let mut stream = connect_packet_v5("fuzz", dice.below(2) == 0, if dice.below(2) == 0 { &expiry } else { &[] });
    for _ in 0..dice.below(8) {
        let (topic, payload, id) = (dice.bytes(3), dice.bytes(40), dice.below(4) as u8);
        let properties = match dice.below(5) {
            0 => vec![0x23, 0, dice.below(40) as u8],
            1 => [&[0x26][..], &field(&topic), &field(&payload)].concat(),
            2 => vec![0x02, 0, 0, 0, 9, 0x01, 1],
            3 => dice.bytes(20),
            _ => vec![],
        };
        stream.extend(match dice.below(8) {
            0 => vec![0xc0, 0],
            1 => packet(0x82, &[&[0, id], &[0], &field(b"a/#"), &[1]]),
            2 => packet(0xa2, &[&[0, id], &[0], &field(b"x")]),
            3 => packet(0x62, &[&[0, id]]),
            4 => packet(0xe0, &[&[dice.roll() as u8 & 4], &[5], &expiry]),
            5 => publish_packet_v5(2, 1, false, b"t", &properties, &vec![b'x'; dice.below(200_000)]),
            _ => publish_packet_v5(dice.below(3) as u8, id.into(), dice.below(2) == 0, &topic, &properties, &payload),
        });
    }
    stream
}

/// A stream with something wrong: random, cut, with bytes changed, or with a length that lies.
fn bad_stream(dice: &mut Dice) -> Vec<u8> {
    let mut stream = good_stream(dice);
    match dice.below(5) {
        0 => return dice.bytes(300),
        1 => stream.truncate(dice.below(stream.len())),
        2 => {
            for _ in 0..1 + dice.below(8) {
                let place = dice.below(stream.len());
                stream[place] = dice.roll() as u8;
            }
        }
        3 => {
            let connect = connect_packet("fuzz", true, 10, None);
            stream = [connect, dice.bytes(200)].concat();
        }
        _ => {
            let connect = connect_packet("fuzz", false, 10, None);
            let lie = [0x30 | dice.below(16) as u8, 0x80 | dice.roll() as u8, 0x80 | dice.roll() as u8, dice.roll() as u8 & 0x7f];
            stream = [connect, lie.to_vec(), dice.bytes(2000)].concat();
        }
    }
    stream
}

#[tokio::test]
async fn thousands_of_damaged_streams_end_and_the_listener_goes_on() {
    let (mut bench, _folder) = Bench::with(|listener| listener.shared.limits.farewell = Duration::from_millis(20)).await;
    let (_, unused) = mpsc::channel(1);
    let handed_in = std::mem::replace(&mut bench.handed_in, unused);
    let _texts = pump(bench.ledger.clone(), handed_in, Duration::from_millis(1));
    let (listener, more) = listener(&bench.ledger).await;
    let _more_texts = pump(bench.ledger.clone(), more, Duration::from_millis(1));
    let (shared, peer) = (Arc::new(listener.shared), listener.addresses[0]);
    let slots = Arc::new(Semaphore::new(1));
    let (mut dice, mut served) = (Dice(0x5eed), Vec::new());
    for round in 0..4000 {
        let stream = bad_stream(&mut dice);
        let (mut near, far) = tokio::io::duplex(1 + dice.below(5000));
        let slot = slots.clone().acquire_owned().await.unwrap();
        served.push(tokio::spawn(connection::serve(Arc::clone(&shared), far, peer, slot)));
        let (mut reading, mut writing) = tokio::io::split(&mut near);
        let sending = async {
            // The listener may have closed before all of it is sent.
            let _ = writing.write_all(&stream).await;
            let _ = writing.shutdown().await;
        };
        let answers = async {
            let mut answers = Vec::new();
            reading.read_to_end(&mut answers).await.map(|_| answers)
        };
        let ended = timeout(PATIENCE, async { tokio::join!(sending, answers).1 }).await;
        assert!(ended.is_ok(), "round {round} does not end: {stream:x?}");
    }
    for (round, served) in served.into_iter().enumerate() {
        assert!(timeout(PATIENCE, served).await.expect("its session is settled").is_ok(), "round {round} panics");
    }
    let (mut sensor, _) = Sensor::connect(&bench, "sane", false).await;
    sensor.publish(1, false, "still here").await;
    sensor.expect_acks([1]).await;
}

#[tokio::test]
async fn damaged_streams_over_the_network_cost_their_own_connection_only() {
    let (bench, _folder) = Bench::with(|listener| listener.shared.limits.farewell = Duration::from_millis(20)).await;
    let texts = pump(bench.ledger.clone(), bench.handed_in, Duration::from_millis(1));
    let mut sane = Sensor::dial(bench.address).await;
    sane.send(&connect_packet("sane", false, 0, None)).await;
    sane.expect(&[0x20, 2, 0, 0]).await;
    let mut dice = Dice(0xbad);
    for round in 1..=300_u16 {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        let _ = stream.write_all(&bad_stream(&mut dice)).await;
        drop(stream);
        sane.publish(round, false, &format!("sane {round}")).await;
        sane.expect_acks([round]).await;
    }
    let kept = texts.lock().unwrap().iter().filter(|text| text.starts_with("sane ")).count();
    assert_eq!(kept, 300);
}
