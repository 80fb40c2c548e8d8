//! Who may publish: accounts and certificates.

use std::path::PathBuf;

use super::*;
use crate::ingest::users;
use crate::tls::minted::{Authority, Pair};
use crate::tls::{ClientFiles, Connector};

const ACCEPTED: u8 = 0;
const BUSY: u8 = 3;
const BAD_CREDENTIALS: u8 = 4;
const NOT_AUTHORISED: u8 = 5;

/// Accounts and certificates, in a folder that outlives the listener.
struct House(TempDir);

impl House {
    /// With one account, `pump`.
    fn new() -> Self {
        let house = Self(tempfile::tempdir().unwrap());
        house.add("pump", "right");
        house
    }

    fn users(&self) -> PathBuf {
        self.0.path().join("users")
    }

    fn add(&self, name: &str, password: &str) {
        users::change(&self.users(), name, Some(&users::cheap(password)), None).unwrap();
    }

    /// A listener with the accounts, and with what `change` adds.
    async fn bench(&self, change: impl FnOnce(&mut config::Listener)) -> (Bench, TempDir) {
        let mut settings = config::Listener { users_file: Some(self.users()), ..settings() };
        change(&mut settings);
        let mut gate = Gate::new(&settings).unwrap();
        gate.shrink(Duration::from_secs(5));
        Bench::with(|listener| listener.shared.gate = Arc::new(gate)).await
    }
}

fn connect_as(client_id: &str, username: Option<&str>, password: Option<&str>) -> Vec<u8> {
    let flags = 2 | if username.is_some() { 0x80 } else { 0 } | if password.is_some() { 0x40 } else { 0 };
    let mut fields = vec![b"\0\x04MQTT\x04".to_vec(), vec![flags], vec![0, 0], field(client_id.as_bytes())];
    fields.extend([username, password].into_iter().flatten().map(|text| field(text.as_bytes())));
    packet(0x10, &fields.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// The code in the CONNACK.
async fn code(bench: &Bench, username: Option<&str>, password: Option<&str>) -> u8 {
    let mut sensor = Sensor::dial(bench.address).await;
    sensor.send(&connect_as("one", username, password)).await;
    sensor.read().await.expect("a CONNACK")[3]
}

#[tokio::test]
async fn each_kind_of_stranger_gets_the_code_of_the_standard() {
    let house = House::new();
    let (bench, _data) = house.bench(|_| {}).await;
    for _ in 0..2 {
        assert_eq!(code(&bench, Some("pump"), Some("right")).await, ACCEPTED);
        assert_eq!(code(&bench, Some("pump"), Some("wrong")).await, BAD_CREDENTIALS);
        assert_eq!(code(&bench, Some("pump"), Some("")).await, BAD_CREDENTIALS);
        assert_eq!(code(&bench, Some("pump"), None).await, BAD_CREDENTIALS);
        assert_eq!(code(&bench, Some("stranger"), Some("right")).await, BAD_CREDENTIALS);
        assert_eq!(code(&bench, None, None).await, NOT_AUTHORISED);
    }
    assert_eq!((bench.state.accepted.get(), bench.state.refused.get()), (2, 10));
}

#[tokio::test]
async fn who_names_no_account_may_come_where_that_is_allowed_and_a_wrong_password_may_not() {
    let house = House::new();
    let (bench, _data) = house.bench(|settings| settings.anonymous = true).await;
    assert_eq!(code(&bench, None, None).await, ACCEPTED);
    assert_eq!(code(&bench, Some("pump"), Some("wrong")).await, BAD_CREDENTIALS);
}

#[tokio::test]
async fn without_accounts_a_password_is_not_looked_at() {
    let (bench, _data) = Bench::start().await;
    assert_eq!(code(&bench, Some("anyone"), Some("anything")).await, ACCEPTED);
}

#[tokio::test]
async fn accounts_come_and_go_while_it_runs() {
    let house = House::new();
    let (bench, _data) = house.bench(|_| {}).await;
    assert_eq!(code(&bench, Some("boiler"), Some("b")).await, BAD_CREDENTIALS);
    house.add("boiler", "b");
    assert_eq!(code(&bench, Some("boiler"), Some("b")).await, ACCEPTED);
    house.add("boiler", "c");
    assert_eq!(code(&bench, Some("boiler"), Some("b")).await, BAD_CREDENTIALS, "what was verified before counts no more");
    users::change(&house.users(), "boiler", None, None).unwrap();
    assert_eq!(code(&bench, Some("boiler"), Some("c")).await, BAD_CREDENTIALS);
    // A file that is broken by hand locks nobody out, and lets nobody in.
    crate::disk::write_atomically(&house.users(), b"boiler:c\n").unwrap();
    assert_eq!(code(&bench, Some("pump"), Some("right")).await, ACCEPTED);
    assert_eq!(code(&bench, Some("boiler"), Some("c")).await, BAD_CREDENTIALS);
}

#[tokio::test]
async fn a_stranger_does_not_end_the_connection_of_another() {
    let house = House::new();
    let (mut bench, _data) = house.bench(|_| {}).await;
    let mut sensor = Sensor::dial(bench.address).await;
    sensor.send(&connect_as("one", Some("pump"), Some("right"))).await;
    sensor.expect(&[0x20, 2, 0, ACCEPTED]).await;
    assert_eq!(code(&bench, Some("pump"), Some("wrong")).await, BAD_CREDENTIALS);
    assert_eq!(code(&bench, None, None).await, NOT_AUTHORISED);
    sensor.publish(7, false, "still here").await;
    assert_eq!(bench.commit_next(1).await, ["still here"]);
    sensor.expect_acks([7]).await;
}

#[tokio::test]
async fn one_password_is_verified_at_a_time_and_who_waits_too_long_is_told_to_come_again() {
    let house = House::new();
    let settings = config::Listener { users_file: Some(house.users()), ..settings() };
    let mut gate = Gate::new(&settings).unwrap();
    gate.shrink(Duration::from_millis(100));
    let gate = Arc::new(gate);
    let busy = gate.occupy();
    let (bench, _data) = Bench::with(|listener| listener.shared.gate = Arc::clone(&gate)).await;
    assert_eq!(code(&bench, Some("pump"), Some("right")).await, BUSY);
    drop(busy);
    assert_eq!(code(&bench, Some("pump"), Some("right")).await, ACCEPTED);
    let _busy = gate.occupy();
    assert_eq!(code(&bench, Some("pump"), Some("right")).await, ACCEPTED, "known from before");
}

#[tokio::test]
async fn wrong_passwords_without_end_take_bounded_memory() {
    let house = House::new();
    let gate = Gate::new(&config::Listener { users_file: Some(house.users()), ..settings() }).unwrap();
    for number in 0..3000 {
        assert!(gate.check(Some("pump"), Some(format!("{number}").as_bytes())).await.is_err());
    }
    let (granted, denied) = gate.remembered();
    assert_eq!(granted, 0);
    assert!(denied <= 1024, "{denied}");
}

/// Connects by TLS, logs in and publishes; the CONNACK's code and the packet id of the PUBACK.
async fn publish_by_tls(bench: &mut Bench, ca: &Pair, own: Option<&Pair>) -> Result<(u8, u8), String> {
    let files = ClientFiles { ca: Some(ca.cert.clone()), cert: own.map(|own| own.cert.clone()), key: own.map(|own| own.key.clone()) };
    let connector = Connector::new(&files, "127.0.0.1").unwrap();
    let socket = TcpStream::connect(bench.address).await.unwrap();
    let mut stream = connector.connect(socket).await.map_err(|error| error.to_string())?;
    let text = |error: std::io::Error| connector.fault(&error).map_or(error.to_string(), |fault| fault.to_string());
    stream.write_all(&connect_as("one", Some("pump"), Some("right"))).await.map_err(text)?;
    let (mut connack, mut puback) = ([0; 4], [0; 4]);
    stream.read_exact(&mut connack).await.map_err(text)?;
    stream.write_all(&publish_packet(Some(9), false, b"s/t", &[b'x'; 1900])).await.map_err(text)?;
    assert_eq!(bench.commit_next(1).await, ["x".repeat(1900)]);
    stream.read_exact(&mut puback).await.map_err(text)?;
    stream.write_all(&[0xe0, 0]).await.map_err(text)?;
    Ok((connack[3], puback[3]))
}

#[tokio::test]
async fn by_tls_messages_come_and_acknowledgements_go() {
    let house = House::new();
    let authority = Authority::new(house.0.path(), "ca");
    let server = authority.sign("server");
    let (mut bench, _data) = house.bench(|l| (l.tls_cert, l.tls_key) = (Some(server.cert.clone()), Some(server.key.clone()))).await;
    for _ in 0..3 {
        assert_eq!(publish_by_tls(&mut bench, &authority.pair, None).await, Ok((ACCEPTED, 9)));
    }
    bench.stop().await;
}

#[tokio::test]
async fn where_certificates_are_asked_for_only_those_of_the_authority_come_in() {
    let house = House::new();
    let (authority, other) = (Authority::new(house.0.path(), "ca"), Authority::new(house.0.path(), "other"));
    let server = authority.sign("server");
    let (mut bench, _data) = house
        .bench(|settings| {
            (settings.tls_cert, settings.tls_key) = (Some(server.cert.clone()), Some(server.key.clone()));
            settings.tls_client_ca = Some(authority.pair.cert.clone());
        })
        .await;
    assert_eq!(publish_by_tls(&mut bench, &authority.pair, Some(&authority.sign("pump"))).await, Ok((ACCEPTED, 9)));
    for stranger in [None, Some(other.sign("stranger"))] {
        publish_by_tls(&mut bench, &authority.pair, stranger.as_ref()).await.unwrap_err();
    }
    assert_eq!(bench.state.accepted.get(), 1);
}

#[tokio::test]
async fn handshakes_under_way_count_and_end_and_do_not_keep_the_listener_from_stopping() {
    let house = House::new();
    let server = Authority::new(house.0.path(), "ca").sign("server");
    let mut gate = Gate::new(&config::Listener { tls_cert: Some(server.cert), tls_key: Some(server.key), ..settings() }).unwrap();
    gate.shrink(Duration::from_millis(300));
    let (bench, _data) = Bench::with(|listener| {
        listener.shared.gate = Arc::new(gate);
        listener.max_connections = 2;
    })
    .await;
    let (mut one, mut two) = (Sensor::dial(bench.address).await, Sensor::dial(bench.address).await);
    one.send(&[0x16, 3, 1, 2]).await;
    let mut three = Sensor::dial(bench.address).await;
    three.expect_closed().await;
    assert_eq!(bench.state.refused_by_limit.get(), 1);
    one.expect_closed().await;
    two.expect_closed().await;
    let mut plain = Sensor::dial(bench.address).await;
    plain.send(&connect_as("one", None, None)).await;
    // An alert of TLS, which says in its own way that this was none.
    assert_eq!(plain.read().await.map(|answer| answer[0]), Some(0x15));
    let _silent = Sensor::dial(bench.address).await;
    bench.stop().await;
}

#[tokio::test]
async fn tls_at_a_plain_listener_is_told_apart_and_closed() {
    let (bench, _data) = Bench::start().await;
    let mut sensor = Sensor::dial(bench.address).await;
    sensor.send(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await;
    sensor.expect_closed().await;
    assert_eq!(bench.state.protocol_errors.get(), 1);
}
