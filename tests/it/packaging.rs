//! What is installed beside the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::PROGRAM;

#[path = "../../examples/pages.rs"]
mod pages;

fn below_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_command_has_its_page_and_the_shells_know_it() {
    let folder = tempfile::tempdir().unwrap();
    pages::write(folder.path()).unwrap();
    for command in ["", "-run", "-status", "-query", "-doctor", "-config-check", "-user-add"] {
        let page = fs::read_to_string(folder.path().join(format!("man1/forebay{command}.1"))).unwrap();
        assert!(page.contains(".SH NAME"), "forebay{command}.1");
    }
    assert!(!folder.path().join("man1/forebay-engine.1").exists(), "it is hidden");
    for name in ["forebay.bash", "_forebay", "forebay.fish"] {
        let text = fs::read_to_string(folder.path().join("completions").join(name)).unwrap();
        assert!(text.contains("doctor"), "{name}");
    }
}

#[test]
fn every_example_of_a_configuration_is_right() {
    let mut checked = 0;
    for entry in fs::read_dir(below_root("deploy/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        // Their secrets lie beside them on a gateway.
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("forebay.toml");
        fs::copy(&path, &config).unwrap();
        for secret in ["mqtt-password", "s3-credentials"] {
            let file = folder.path().join(secret);
            fs::write(&file, "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n").unwrap();
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        let output = Command::new(PROGRAM).args(["config", "check", "--config"]).arg(&config).output().unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        checked += 1;
    }
    assert!(checked >= 4, "{checked} examples");
}
