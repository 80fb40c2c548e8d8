//! Accounts: made by `forebay user`, asked for by the listener.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::support::{Gateway, PROGRAM};
use crate::tls::{PROTOCOLS, mosquitto_pub, paho};

/// The codes as paho names them, for all versions alike.
const BAD_CREDENTIALS: u64 = 134;
const NOT_AUTHORISED: u64 = 135;

#[test]
fn strangers_are_refused_with_the_right_code_and_accounts_let_in() {
    let mut gateway = Gateway::new("[listener]\nbind = [\"127.0.0.1:0\"]\nusers_file = \"listener-users\"\n[engine]\nenabled = false\n");
    gateway.add_user("pump", "right");
    gateway.start();
    let port = gateway.listener_port();
    let (right, wrong) = (gateway.secret("right", "right\n"), gateway.secret("wrong", "wr0ng\n"));
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    for (version, mosquitto_version) in PROTOCOLS {
        for (account, code) in [
            (&["--username", "pump", "--password-file", right][..], 0),
            (&["--username", "pump", "--password-file", wrong], BAD_CREDENTIALS),
            (&["--username", "nobody", "--password-file", right], BAD_CREDENTIALS),
            (&[], NOT_AUTHORISED),
        ] {
            let outcome = paho(port, &[&["--protocol", version][..], account].concat());
            assert_eq!(outcome["code"], code, "{account:?}: {outcome}");
        }
        for (account, said) in [
            (&["-u", "pump", "-P", "right"][..], ""),
            (&["-u", "pump", "-P", "wr0ng"], "bad user name or password"),
            (&["-u", "nobody", "-P", "right"], "bad user name or password"),
            (&[], "not authori"),
        ] {
            let output = mosquitto_pub(port, &[&["-V", mosquitto_version][..], account].concat());
            let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
            assert_eq!(output.status.success(), said.is_empty(), "{account:?}: {text}");
            assert!(text.contains(said), "{account:?}: {text}");
        }
    }
    let status = gateway.status();
    let reason = status["reasons"].as_array().unwrap().iter().find(|reason| reason["code"] == "listener_access").unwrap();
    assert!(reason["message"].as_str().unwrap().contains("logins were refused"), "{reason}");
    // An account made while it runs is known, one that is removed is not.
    gateway.add_user("boiler", "b");
    let password = gateway.secret("boiler", "b\n");
    let boiler = ["--username", "boiler", "--password-file", password.to_str().unwrap()];
    gateway.wait_for("the new account", |_| paho(port, &boiler)["code"] == 0);
    let file = gateway.folder.path().join("listener-users");
    assert!(Command::new(PROGRAM).args(["user", "remove", "boiler", "--file"]).arg(&file).status().unwrap().success());
    gateway.wait_for("the account to be gone", |_| paho(port, &boiler)["code"] == BAD_CREDENTIALS);
}

#[test]
fn accounts_are_added_changed_listed_and_removed() {
    let gateway = Gateway::new("[listener]\nusers_file = \"listener-users\"\n");
    gateway.add_user("pump", "1");
    let file = gateway.folder.path().join("listener-users");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let first = fs::read_to_string(&file).unwrap();
    assert!(first.starts_with("pump:$argon2id$") && !first.contains(":1\n"), "{first}");
    let user = |args: &[&str]| {
        let output =
            Command::new(PROGRAM).arg("user").args(args).arg("--config").arg(gateway.config()).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let password = gateway.secret("password", "2\n");
    let (code, text) = user(&["add", "pump", "--password-file", password.to_str().unwrap()]);
    assert!(code == Some(0) && text.contains("has a new password"), "{text}");
    assert_ne!(fs::read_to_string(&file).unwrap(), first);
    assert_eq!(user(&["add", "roof", "--password-file", password.to_str().unwrap()]).0, Some(0));
    assert_eq!(user(&["list"]), (Some(0), "pump\nroof\n".to_owned()));
    assert_eq!(user(&["list", "--json"]), (Some(0), "[\"pump\",\"roof\"]\n".to_owned()));
    assert_eq!(user(&["remove", "pump"]).0, Some(0));
    assert_eq!(user(&["remove", "pump"]).0, Some(1));
    assert_eq!(user(&["add", "a:b", "--password-file", password.to_str().unwrap()]).0, Some(2));
    let (code, text) = user(&["add", "empty"]);
    assert!(code == Some(1) && text.contains("empty"), "{text}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = user(&["list"]);
    assert!(code == Some(78) && text.contains("chmod"), "{text}");
    assert!(user(&["add", "pump", "hunter2"]).0 == Some(2), "a password is no argument");
}

#[cfg(feature = "failpoints")]
#[test]
fn killed_while_an_account_is_written_the_others_are_there() {
    let gateway = Gateway::new("");
    gateway.add_user("pump", "1");
    let file = gateway.folder.path().join("listener-users");
    let before = fs::read_to_string(&file).unwrap();
    let password = gateway.secret("password", "2\n");
    let mut command = Command::new(PROGRAM);
    command.args(["user", "add", "roof", "--password-file"]).arg(&password).arg("--file").arg(&file);
    assert_eq!(command.env("FOREBAY_KILL_AT", "disk.before_rename").status().unwrap().code(), None);
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    gateway.add_user("roof", "2");
    assert!(fs::read_to_string(&file).unwrap().starts_with(&before));
}

#[test]
fn a_listener_that_others_reach_asks_who_they_are() {
    let gateway = Gateway::new("");
    gateway.add_user("pump", "1");
    for (settings, code) in [("", 78), ("anonymous = true\n", 0), ("users_file = \"listener-users\"\n", 0)] {
        gateway.configure(&format!("[listener]\nbind = [\"0.0.0.0:0\"]\n{settings}"));
        let output = Command::new(PROGRAM).args(["config", "check", "--config"]).arg(gateway.config()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{settings}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
