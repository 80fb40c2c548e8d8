//! schemathesis (PyPI) asks the real program all that its description says, and much that it does not.

use std::path::Path;
use std::process::Command;

use crate::support::Gateway;

#[test]
fn every_answer_is_as_the_description_says() {
    let mut gateway = Gateway::new("");
    let token = gateway.secret("api-token", "secret");
    let lake = gateway.lake();
    gateway.configure(&format!(
        "http = [\"127.0.0.1:0\"]\ntoken_file = \"{}\"\n[upstream]\nurl = \"file://{}\"\n[engine]\nquery_timeout = \"2s\"\n",
        token.display(),
        lake.display()
    ));
    gateway.start();
    if cfg!(feature = "engine") {
        gateway.wait_for("an answer", |gateway| gateway.command(&["query", "select 1"]).status.success());
    }
    let address = gateway.status()["listeners"]["http"][0].as_str().unwrap().to_owned();
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let mut command = Command::new("python3");
    command.args(["-m", "schemathesis.cli", "--config-file"]).arg(support.join("schemathesis.toml")).arg("run");
    command.env("SCHEMATHESIS_HOOKS", support.join("schemathesis_hooks.py"));
    command.args(["--no-color", "--header", "Authorization: Bearer secret"]).arg(format!("http://{address}/api/v1/openapi.json"));
    if !cfg!(feature = "engine") {
        // It says what is missing, with a 503, which to schemathesis is a fault whatever was promised.
        command.args(["--exclude-path", "/api/v1/query"]);
    }
    // Its reports and its memory of earlier runs go where the gateway goes.
    let output = command.current_dir(gateway.folder.path()).output().expect("python3 with schemathesis is installed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}\n{}", gateway.last_lines());
    gateway.books();
}
