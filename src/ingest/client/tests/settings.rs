//! Settings that are refused before anything is connected.

use super::*;

fn refused(change: impl FnOnce(&mut config::Mqtt)) -> String {
    let mut gateway = Gateway::new("mqtt://127.0.0.1:1883".to_owned());
    change(&mut gateway.settings);
    let (intake, _pump) = Intake::new();
    let Err(error) = gateway.client(intake, Arc::default()) else { panic!("these settings should be refused") };
    assert_eq!(error.kind(), crate::error::ErrorKind::Config);
    error.to_string()
}

fn accepted(change: impl FnOnce(&mut config::Mqtt)) -> Client {
    let mut gateway = Gateway::new("mqtt://127.0.0.1:1883".to_owned());
    change(&mut gateway.settings);
    gateway.client(Intake::new().0, Arc::default()).unwrap()
}

#[tokio::test]
async fn wrong_settings_name_their_key() {
    let file = || Some("/nowhere/file".into());
    for (key, message) in [
        ("mqtt.url", refused(|mqtt| mqtt.url = "broker".to_owned())),
        ("mqtt.url", refused(|mqtt| mqtt.url = "mqtts://joe:s3cret@broker:8883".to_owned())),
        ("mqtt.qos", refused(|mqtt| mqtt.qos = 2)),
        ("mqtt.topics", refused(|mqtt| mqtt.topics.clear())),
        ("mqtt.topics", refused(|mqtt| mqtt.topics = vec!["a/#/b".to_owned()])),
        ("mqtt.topics", refused(|mqtt| mqtt.topics = vec!["a\0".to_owned()])),
        ("mqtt.url", refused(|mqtt| mqtt.ca_file = file())),
        ("mqtt.url", refused(|mqtt| mqtt.key_file = file())),
        ("mqtt: /nowhere/file can't be read", refused(|mqtt| (mqtt.url, mqtt.ca_file) = ("mqtts://broker".to_owned(), file()))),
        ("mqtt.username", refused(|mqtt| mqtt.password_file = file())),
        ("mqtt.password_file", refused(|mqtt| (mqtt.username, mqtt.password_file) = (Some("u".to_owned()), file()))),
    ] {
        assert!(message.starts_with(key) && !message.contains("s3cret"), "{key}: {message}");
    }
}

#[tokio::test]
async fn the_client_id_is_the_gateways_unless_it_is_given() {
    assert_eq!(accepted(|_| {}).login.client_id, "forebay-gw");
    let given = accepted(|mqtt| mqtt.client_id = "mine".to_owned());
    assert_eq!((given.login.client_id.as_str(), given.session.as_str()), ("mine", "client/mine"));
    assert!(!given.login.clean_session);
}

#[tokio::test]
async fn the_password_is_read_without_its_line_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    crate::disk::write_atomically(&path, b"s3cret \r\n").unwrap();
    let client = accepted(|mqtt| (mqtt.username, mqtt.password_file) = (Some("gw".to_owned()), Some(path.clone())));
    let login = client.login.login.unwrap();
    assert_eq!((login.username.as_str(), login.password.as_str()), ("gw", "s3cret "));

    crate::disk::write_atomically(&path, b"\n").unwrap();
    let message = refused(|mqtt| (mqtt.username, mqtt.password_file) = (Some("gw".to_owned()), Some(path.clone())));
    assert!(message.contains("is empty"), "{message}");
}
