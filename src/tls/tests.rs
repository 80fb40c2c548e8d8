//! Handshakes in memory, with certificates made for each test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::minted::{Authority, Pair};
use super::*;
use crate::model::Timestamp;

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

fn acceptor(own: &Pair, client_ca: Option<&Path>) -> Acceptor {
    let files = ServerFiles::of(Some(&own.cert), Some(&own.key), client_ca).unwrap().unwrap();
    let mut acceptor = Acceptor::new(files, &[], "handshakes failed").unwrap();
    acceptor.hurry(Duration::from_secs(10));
    acceptor
}

fn connector(ca: &Path, own: Option<&Pair>) -> Connector {
    let files = ClientFiles { ca: Some(ca.to_owned()), cert: own.map(|own| own.cert.clone()), key: own.map(|own| own.key.clone()) };
    Connector::new(&files, "localhost").unwrap()
}

/// Agrees on TLS and says something in both directions; what went wrong on the client's side.
async fn talk(connector: &Connector, acceptor: &Acceptor) -> Result<(), String> {
    let (near, far) = duplex(64 << 10);
    let client = async {
        let mut stream = connector.connect(near).await.map_err(|error| error.to_string())?;
        let mut answer = [0; 5];
        let exchange = async {
            stream.write_all(b"hello").await?;
            stream.flush().await?;
            stream.read_exact(&mut answer).await
        };
        exchange.await.map_err(|error| connector.fault(&error).map_or(error.to_string(), |fault| fault.to_string()))?;
        assert_eq!(&answer, b"HELLO");
        Ok(())
    };
    let server = async {
        let Some(mut stream) = acceptor.accept(far, &"peer").await else { return };
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        stream.write_all(&text.to_ascii_uppercase()).await.unwrap();
        stream.flush().await.unwrap();
    };
    tokio::join!(client, server).0
}

#[tokio::test]
async fn both_sides_agree_with_and_without_a_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let (server, client) = (authority.sign("server"), authority.sign("client"));
    let ca = &authority.pair.cert;
    talk(&connector(ca, None), &acceptor(&server, None)).await.unwrap();
    talk(&connector(ca, Some(&client)), &acceptor(&server, Some(ca))).await.unwrap();
    talk(&connector(ca, Some(&client)), &acceptor(&server, None)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_can_not_be_believed_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let localhost = &["localhost"];
    for (server, fault) in [
        (theirs.sign("other"), "signed by no authority that is trusted here (those in "),
        (ours.sign_for("old", (2000, 2001), localhost), "expired on 2001-01-01"),
        (ours.sign_for("young", (4000, 4001), localhost), "not valid before 4000-01-01"),
        (ours.sign_for("elsewhere", (2020, 4096), &["broker.example"]), "is for DnsName(\"broker.example\"), not for localhost"),
        (ours.sign_for("nowhere", (2020, 4096), &[]), "names no host"),
        (ours.pair.clone(), "authority's own"),
    ] {
        let acceptor = acceptor(&server, None);
        let refusal = talk(&connector(&ours.pair.cert, None), &acceptor).await.unwrap_err();
        assert!(refusal.contains(fault), "{fault}: {refusal}");
        assert_eq!(acceptor.failures(), 1, "the server hears of it");
    }
}

#[tokio::test]
async fn a_client_that_can_not_be_believed_is_refused_and_both_sides_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let server = ours.sign("server");
    for (client, told, counted) in [
        (None, "asks for a client certificate", "shows no client certificate"),
        (Some(theirs.sign("stranger")), "does not know the authority", "signed by no authority that is trusted here"),
        (Some(ours.sign_for("old", (2000, 2001), &[])), "our certificate has expired", "expired on 2001"),
    ] {
        let acceptor = acceptor(&server, Some(&ours.pair.cert));
        let refusal = talk(&connector(&ours.pair.cert, client.as_ref()), &acceptor).await.unwrap_err();
        assert!(refusal.contains(told), "{told}: {refusal}");
        let trouble = acceptor.troubles(now()).concat();
        assert!(trouble.contains(counted) && trouble.contains("(peer)"), "{counted}: {trouble}");
    }
}

async fn said_instead(bytes: &[u8], stays: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut acceptor = acceptor(&Authority::new(folder.path(), "ca").sign("server"), None);
    acceptor.hurry(Duration::from_millis(300));
    let (mut near, far): (DuplexStream, _) = duplex(64 << 10);
    near.write_all(bytes).await.unwrap();
    let kept = stays.then_some(near);
    assert!(acceptor.accept(far, &"peer").await.is_none());
    drop(kept);
    acceptor.troubles(now()).concat()
}

#[tokio::test]
async fn who_speaks_something_else_or_nothing_is_let_go() {
    let mqtt = [0x10, 15, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 3, b'o', b'n', b'e'];
    assert!(said_instead(&mqtt, true).await.contains("does not speak TLS"));
    assert!(said_instead(b"GET / HTTP/1.1\r\n\r\n", true).await.contains("does not speak TLS"));
    assert!(said_instead(b"", true).await.contains("nothing came of it in 0s"));
    assert!(said_instead(&[0x16, 3, 1, 2], true).await.contains("nothing came of it"), "half a hello");
    assert!(said_instead(b"", false).await.contains("closed the connection"));
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    for (bytes, fault) in [(&[0x20, 2, 0, 0, 0, 0][..], "does not speak TLS"), (&[], "closed the connection instead")] {
        let (near, mut far) = duplex(64 << 10);
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let Err(error) = connector(&authority.pair.cert, None).connect(near).await else { panic!("{fault}") };
        assert!(error.to_string().contains(fault), "{error}");
    }
}

#[tokio::test]
async fn renewed_files_are_used_and_half_a_renewal_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let server = authority.sign_for("server", (2000, 2001), &["localhost"]);
    let (acceptor, connector) = (acceptor(&server, None), connector(&authority.pair.cert, None));
    assert!(talk(&connector, &acceptor).await.unwrap_err().contains("expired"));
    assert!(acceptor.troubles(now())[0].contains("server.pem expired on 2001-01-01"));
    // The certificate is there, its key is still on its way.
    let renewed = authority.sign("renewed");
    fs::copy(&renewed.cert, &server.cert).unwrap();
    assert!(talk(&connector, &acceptor).await.unwrap_err().contains("expired"));
    assert!(acceptor.troubles(now()).concat().contains("does not fit"));
    fs::copy(&renewed.key, &server.key).unwrap();
    talk(&connector, &acceptor).await.unwrap();
    assert!(!acceptor.troubles(now()).concat().contains("server.pem"), "{:?}", acceptor.troubles(now()));
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    crate::disk::write_atomically(&path, text.as_bytes()).unwrap();
    path
}

#[test]
fn files_that_can_not_be_used_are_named_with_their_fault() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let (one, two) = (authority.sign("one"), authority.sign("two"));
    let (empty, absent) = (file(folder.path(), "empty.pem", ""), folder.path().join("absent.pem"));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIE\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted = file(folder.path(), "encrypted.pem", encrypted);
    let damaged = fs::read_to_string(&one.cert).unwrap().replacen("MII", "!!!", 1);
    let damaged = file(folder.path(), "damaged.pem", &damaged);
    let exposed = file(folder.path(), "exposed.pem", &fs::read_to_string(&one.key).unwrap());
    fs::set_permissions(&exposed, fs::Permissions::from_mode(0o644)).unwrap();
    let no_key = file(folder.path(), "no-key.pem", &fs::read_to_string(&one.cert).unwrap());
    for (cert, key, names, fault) in [
        (&absent, &one.key, "absent.pem", "can't be read"),
        (&one.cert, &absent, "absent.pem", "can't be read"),
        (&empty, &one.key, "empty.pem", "no certificate in it"),
        (&one.key, &one.key, "one-key.pem", "no certificate in it"),
        (&damaged, &one.key, "damaged.pem", "is damaged"),
        (&one.cert, &no_key, "no-key.pem", "no key in it"),
        (&one.cert, &encrypted, "encrypted.pem", "is encrypted"),
        (&one.cert, &exposed, "exposed.pem", "chmod"),
        (&one.cert, &two.key, "two-key.pem", "does not fit the certificate in"),
    ] {
        let files = ServerFiles::of(Some(cert), Some(key), None).unwrap().unwrap();
        let Err(error) = Acceptor::new(files, &[], "") else { panic!("{fault}") };
        let text = error.to_string();
        assert!(text.contains(names) && text.contains(fault), "{names} {fault}: {text}");
        let client = ClientFiles { ca: Some(authority.pair.cert.clone()), cert: Some(cert.clone()), key: Some(key.clone()) };
        assert_eq!(Connector::new(&client, "localhost").err().unwrap().to_string(), text);
    }
    let client = ClientFiles { ca: Some(empty), ..ClientFiles::default() };
    assert!(Connector::new(&client, "localhost").err().unwrap().to_string().contains("empty.pem"));
    let client = ClientFiles { ca: Some(authority.pair.cert), ..ClientFiles::default() };
    assert!(Connector::new(&client, "no host").err().unwrap().to_string().contains("no host"));
    assert!(Connector::new(&client, "fe80::1%eth0").is_ok() && Connector::new(&client, "192.168.1.7").is_ok());
}
