//! Secrets stay secret: planted wherever one can be, and searched for wherever something is shown.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use crate::certificates::Authority;
use crate::support::{Gateway, Mosquitto, PROGRAM, free_port};
use crate::tls::{mosquitto_pub, paho};

/// Every word that must not show. Long and strange, so that nothing else contains them.
const BROKER_PASSWORD: &str = "planted-broker-password-7f3a";
const SENSOR_PASSWORD: &str = "planted-sensor-password-9c1e";
const WRONG_PASSWORD: &str = "planted-wrong-password-4b77";
const TOKEN: &str = "planted-token-2d90";
const WRONG_TOKEN: &str = "planted-wrong-token-aa31";
const S3_KEY: &str = "planted-s3-key-e5f2";
const URL_PASSWORD: &str = "planted-url-password-c8d4";

struct Search {
    planted: Vec<String>,
}

impl Search {
    fn look(&self, place: &str, text: &str) {
        for secret in &self.planted {
            assert!(!text.contains(secret.as_str()), "{place} shows {secret}");
        }
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The command lines of the daemon and of the processes it started.
fn command_lines(pid: u32) -> String {
    let is_its = |process: &fs::DirEntry| {
        let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{pid}") || line == format!("Pid:\t{pid}"))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(is_its);
    let lines: Vec<_> = processes.map(|process| fs::read(process.path().join("cmdline")).unwrap_or_default()).collect();
    assert!(!lines.is_empty());
    lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

/// An upstream that reads what it is sent and says no; its port.
fn refuse_everything() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 65_536]);
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
        }
    });
    port
}

/// A broker and sensors with passwords, TLS everywhere, a token, keys in the environment; all of it really used.
fn planted_gateway() -> (Gateway, Mosquitto, Authority, u16) {
    let mut gateway = Gateway::new("");
    let authority = Authority::new(gateway.folder.path(), "ca");
    let server = authority.sign("server");
    let passwords = gateway.secret("passwords", "");
    assert!(Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args(["gw", BROKER_PASSWORD]).status().unwrap().success());
    let broker = Mosquitto::with(&format!("password_file {}\n", passwords.display()));
    let (http, upstream) = (free_port(), refuse_everything());
    let (broker_password, token) = (gateway.secret("broker-password", BROKER_PASSWORD), gateway.secret("token", TOKEN));
    gateway.add_user("pump", SENSOR_PASSWORD);
    let tls = format!("tls_cert = \"{}\"\ntls_key = \"{}\"\n", server.cert.display(), server.key.display());
    gateway.configure(&format!(
        "http = [\"127.0.0.1:{http}\"]\ntoken_file = \"{}\"\n{tls}\
         [mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nusername = \"gw\"\npassword_file = \"{}\"\n\
         [listener]\nbind = [\"127.0.0.1:0\"]\nusers_file = \"listener-users\"\n{tls}\
         [segment]\nseal_interval = \"1s\"\n[upstream]\nurl = \"s3://lake\"\nendpoint = \"http://127.0.0.1:{upstream}\"\n\
         [log]\nlevel = \"trace\"\n",
        token.display(),
        broker.port,
        broker_password.display(),
    ));
    for name in ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"] {
        gateway.environment.insert(name.to_owned(), S3_KEY.to_owned());
    }
    gateway.start();
    (gateway, broker, authority, http)
}

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    let (mut gateway, _broker, authority, http) = planted_gateway();
    let port = gateway.listener_port();
    let ca = authority.pair.cert.to_str().unwrap();
    gateway.wait_for("the subscription", |gateway| gateway.log().contains("subscribed"));
    for (password, code) in [(SENSOR_PASSWORD, 0), (WRONG_PASSWORD, 134)] {
        let file = gateway.secret("password", password);
        let account = ["--ca-file", ca, "--username", "pump", "--password-file", file.to_str().unwrap()];
        assert_eq!(paho(port, &account)["code"], code);
        mosquitto_pub(port, &["--cafile", ca, "-u", password, "-P", password]);
    }
    let url = format!("https://127.0.0.1:{http}");
    for token in [TOKEN, WRONG_TOKEN] {
        for path in ["/metrics", "/api/v1/status", "/api/v1/losses", "/nowhere"] {
            let header = format!("Authorization: Bearer {token}");
            said(Command::new("curl").args(["-s", "--cacert", ca, "-H", &header, &format!("{url}{path}")]));
        }
    }
    gateway.wait_for("the upstream's refusal", |gateway| gateway.status()["link"]["last_error"].is_string());
    let keys = ["ca-key.pem", "server-key.pem"].map(|name| fs::read_to_string(gateway.folder.path().join(name)).unwrap());
    let hashes = fs::read_to_string(gateway.folder.path().join("listener-users")).unwrap();
    let mut planted: Vec<String> =
        keys.iter().flat_map(|key| key.lines().skip(1)).filter(|line| line.len() > 20).map(str::to_owned).collect();
    planted.extend(hashes.trim().rsplit('$').take(2).map(str::to_owned));
    // A sensor that names its password as its user tells it to everybody; ours are shown to nobody.
    planted.extend([BROKER_PASSWORD, SENSOR_PASSWORD, WRONG_PASSWORD, TOKEN, WRONG_TOKEN, S3_KEY].map(str::to_owned));
    let search = Search { planted };

    search.look("status", &gateway.status().to_string());
    search.look("the status page", &gateway.ok(&["status"]));
    search.look("the command lines", &command_lines(gateway.pid()));
    for path in ["/metrics", "/api/v1/status", "/api/v1/losses", "/api/v1/segments", "/api/v1/records", "/docs"] {
        let header = format!("Authorization: Bearer {TOKEN}");
        let body = said(Command::new("curl").args(["-sS", "--cacert", ca, "-H", &header, &format!("{url}{path}")]));
        assert!(!body.is_empty());
        search.look(path, &body);
    }
    for args in [vec!["config", "show"], vec!["config", "show", "--json"], vec!["config", "check"], vec!["user", "list"]] {
        let mut command = Command::new(PROGRAM);
        search.look(&args.join(" "), &said(command.args(&args).arg("--config").arg(gateway.config()).envs(&gateway.environment)));
    }
    assert_eq!(gateway.stop(), Some(0));
    let log = gateway.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log tells everything it can");
    search.look("the log", &log);
    // Nor is any of it kept.
    let words = [BROKER_PASSWORD, SENSOR_PASSWORD, WRONG_PASSWORD, TOKEN, S3_KEY].join("|");
    assert_eq!(said(Command::new("grep").args(["-rlaE", &words]).arg(gateway.data())), "");
}

#[test]
fn a_collector_s_token_is_shown_nowhere() {
    let mut gateway = Gateway::new("");
    let token = gateway.secret("upstream-token", TOKEN);
    gateway.configure(&format!(
        "[listener]\nbind = [\"127.0.0.1:0\"]\n[segment]\nseal_interval = \"1s\"\n\
         [upstream]\nurl = \"http://127.0.0.1:{}/lake\"\ntoken_file = \"{}\"\n[log]\nlevel = \"trace\"\n",
        refuse_everything(),
        token.display()
    ));
    gateway.start();
    assert!(mosquitto_pub(gateway.listener_port(), &[]).status.success());
    gateway.wait_for("the upstream's refusal", |gateway| gateway.status()["link"]["last_error"].is_string());
    let search = Search { planted: vec![TOKEN.to_owned()] };
    search.look("status", &gateway.status().to_string());
    search.look("config show", &said(Command::new(PROGRAM).args(["config", "show", "--config"]).arg(gateway.config())));
    search.look("the command lines", &command_lines(gateway.pid()));
    gateway.stop();
    search.look("the log", &gateway.log());
}

#[test]
fn an_address_with_a_password_is_refused_and_the_password_not_shown() {
    let gateway = Gateway::new("");
    let search = Search { planted: vec![URL_PASSWORD.to_owned()] };
    for (settings, environment) in [
        (format!("[mqtt]\nurl = \"mqtt://gw:{URL_PASSWORD}@127.0.0.1\"\n"), None),
        (format!("[mqtt]\nurl = \"{URL_PASSWORD}:x@127.0.0.1\"\n"), None),
        (format!("[upstream]\nurl = \"https://gw:{URL_PASSWORD}@127.0.0.1/lake\"\n"), None),
        (format!("[upstream]\nurl = \"s3://{URL_PASSWORD}@bucket/lake\"\n"), None),
        (format!("[mqtt]\nurl = \"mqtt://gw:{URL_PASSWORD}@127.0.0.1\n"), None),
        (String::new(), Some(("FOREBAY__MQTT__URL", format!("mqtts://gw:{URL_PASSWORD}@127.0.0.1")))),
    ] {
        gateway.configure(&settings);
        for args in [vec!["run"], vec!["config", "check"], vec!["config", "show"]] {
            let mut command = Command::new(PROGRAM);
            let output = command.args(&args).arg("--config").arg(gateway.config()).envs(environment.clone()).output().unwrap();
            assert_eq!(output.status.code(), Some(78), "{args:?} of {settings}");
            search.look(&args.join(" "), &String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
        }
    }
    let output =
        Command::new(PROGRAM).args(["sim", "--for", "1s", "--mqtt", &format!("mqtt://gw:{URL_PASSWORD}@127.0.0.1")]).output().unwrap();
    assert!(!output.status.success());
    search.look("sim", &String::from_utf8_lossy(&output.stderr));
}

#[test]
fn secrets_handed_over_by_systemd_are_found_by_their_bare_names() {
    let mut gateway = Gateway::new("http = [\"127.0.0.1:0\"]\ntoken_file = \"api-token\"\n[listener]\nbind = [\"127.0.0.1:0\"]\n");
    let credentials = tempfile::tempdir().unwrap();
    fs::rename(gateway.secret("made", TOKEN), credentials.path().join("api-token")).unwrap();
    gateway.environment.insert("CREDENTIALS_DIRECTORY".to_owned(), credentials.path().display().to_string());
    gateway.start();
    let address = gateway.status()["listeners"]["http"][0].as_str().unwrap().to_owned();
    let header = format!("Authorization: Bearer {TOKEN}");
    let code = |more: &[&str]| {
        said(Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]).args(more).arg(format!("http://{address}/healthz")))
    };
    assert_eq!((code(&["-H", &header]), code(&[])), ("200".to_owned(), "401".to_owned()));
}
