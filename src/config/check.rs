//! What a configuration must satisfy beyond its types, and what is filled in where it is silent. No I/O but the host name.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::Problem;
use super::{Config, Mqtt, Upstream, WhenFull};

/// Below this there is no room for the ledger, a segment being written and the reserve.
const MIN_CAP: u64 = 16 << 20;

/// Below, a checkpoint comes with nearly every commit; above, the WAL is cut when it begins anew, and grows again.
const CHECKPOINTS: RangeInclusive<u64> = 64 << 10..=2 << 20;

impl Config {
    /// Fills in what is left out: the gateway's id, the client's id, the default subscription, folders of files.
    pub(super) fn complete(&mut self, folder: &Path) {
        if self.gateway.id.is_empty() {
            self.gateway.id = host_name();
        }
        if self.mqtt.is_none() && self.listener.is_none() {
            self.mqtt = Some(Mqtt::default());
        }
        let gateway = &self.gateway.id;
        if let Some(mqtt) = self.mqtt.as_mut().filter(|mqtt| mqtt.client_id.is_empty()) {
            mqtt.client_id = format!("forebay-{gateway}");
        }
        for file in self.files_mut() {
            *file = find_file(folder, file);
        }
    }

    fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let mqtt = self.mqtt.iter_mut().flat_map(|m| [&mut m.password_file, &mut m.ca_file, &mut m.cert_file, &mut m.key_file]);
        let listener = self.listener.iter_mut().flat_map(|l| [&mut l.users_file, &mut l.tls_cert, &mut l.tls_key, &mut l.tls_client_ca]);
        let upstream = self.upstream.iter_mut().flat_map(|u| [&mut u.credentials_file, &mut u.token_file, &mut u.ca_file]);
        let api = [&mut self.api.token_file, &mut self.api.tls_cert, &mut self.api.tls_key];
        mqtt.chain(listener).chain(upstream).chain(api).flatten()
    }
}

/// A credential handed over by systemd under this name, if it is a bare one; else the file relative to the configuration's
/// folder.
fn find_file(folder: &Path, file: &Path) -> PathBuf {
    let is_bare = file.file_name() == Some(file.as_os_str());
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY").map(|credentials| Path::new(&credentials).join(file));
    credential.filter(|path| is_bare && path.is_file()).unwrap_or_else(|| folder.join(file))
}

/// The host's name, with what a lake key cannot hold replaced.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = name.chars().map(|c| if is_id_char(c) { c } else { '-' }).collect();
    if name.is_empty() { "gateway".to_owned() } else { name }
}

fn is_id_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Every rule that the configuration breaks.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    gateway(config, &mut found);
    sources(config, &mut found);
    storage(config, &mut found);
    doors(config, &mut found);
    found
}

/// Adds a problem unless the rule holds.
fn rule(found: &mut Vec<Problem>, holds: bool, key: &str, value: impl std::fmt::Display, rule: &str) {
    if !holds {
        found.push(Problem::new(key, format!("\"{value}\" {rule}")));
    }
}

fn gateway(config: &Config, found: &mut Vec<Problem>) {
    let id = &config.gateway.id;
    let fits = !id.is_empty() && id.len() <= 64 && id.chars().all(is_id_char) && !id.starts_with('.');
    rule(found, fits, "gateway.id", id, "must be 1 to 64 letters, digits, \".\", \"_\" or \"-\", and not begin with a dot");
    let folder = &config.gateway.data_dir;
    rule(found, folder.is_absolute() || !folder.as_os_str().is_empty(), "gateway.data_dir", folder.display(), "must name a folder");
}

fn sources(config: &Config, found: &mut Vec<Problem>) {
    if let Some(mqtt) = &config.mqtt {
        rule(found, mqtt.qos <= 1, "mqtt.qos", mqtt.qos, "must be 0 or 1");
        rule(found, mqtt.inflight > 0, "mqtt.inflight", mqtt.inflight, "must be at least 1");
        rule(found, !mqtt.topics.is_empty(), "mqtt.topics", "[]", "must name at least one topic filter; \"#\" is all of them");
        let scheme = mqtt.url.starts_with("mqtt://") || mqtt.url.starts_with("mqtts://");
        rule(found, scheme, "mqtt.url", &mqtt.url, "must begin with mqtt:// or mqtts://");
        no_account(found, "mqtt.url", &mqtt.url, "set mqtt.username and mqtt.password_file");
        pair(found, ("mqtt.cert_file", &mqtt.cert_file), ("mqtt.key_file", &mqtt.key_file));
        let files = [("mqtt.ca_file", &mqtt.ca_file), ("mqtt.cert_file", &mqtt.cert_file)];
        for (key, file) in files.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?))) {
            rule(found, mqtt.url.starts_with("mqtts://"), key, file.display(), "is for TLS, and mqtt.url does not begin with mqtts://");
        }
    }
    if let Some(listener) = &config.listener {
        rule(found, !listener.bind.is_empty(), "listener.bind", "[]", "must name at least one address, for example \"127.0.0.1:1884\"");
        for address in &listener.bind {
            rule(found, is_address(address), "listener.bind", address, "must be host:port");
            let knows = listener.anonymous || listener.users_file.is_some() || listener.tls_client_ca.is_some();
            rule(
                found,
                knows || !reaches_others(address),
                "listener.bind",
                address,
                "lets other machines in; set listener.users_file, bind a loopback address, or set listener.anonymous = true",
            );
        }
        pair(found, ("listener.tls_cert", &listener.tls_cert), ("listener.tls_key", &listener.tls_key));
        if let Some(ca) = &listener.tls_client_ca {
            rule(
                found,
                listener.tls_cert.is_some(),
                "listener.tls_client_ca",
                ca.display(),
                "needs TLS; set listener.tls_cert and tls_key",
            );
        }
        rule(found, listener.max_connections > 0, "listener.max_connections", listener.max_connections, "must be at least 1");
        rule(
            found,
            (1..=65_535).contains(&listener.max_unacknowledged),
            "listener.max_unacknowledged",
            listener.max_unacknowledged,
            "must be 1 to 65535",
        );
    }
    let ingest = &config.ingest;
    rule(found, ingest.max_series > 0, "ingest.max_series", ingest.max_series, "must be at least 1");
    rule(found, ingest.max_new_series_per_hour > 0, "ingest.max_new_series_per_hour", ingest.max_new_series_per_hour, "must be at least 1");
    let size = ingest.max_message_bytes;
    rule(found, (1024..=16 << 20).contains(&size.0), "ingest.max_message_bytes", size, "must be 1KiB to 16MiB");
}

fn storage(config: &Config, found: &mut Vec<Problem>) {
    let interval = config.journal.commit_interval;
    let fits = (Duration::from_millis(10)..=Duration::from_secs(60)).contains(&interval.0);
    rule(found, fits, "journal.commit_interval", interval, "must be 10ms to 1m");
    let readings = config.journal.commit_readings;
    rule(found, (1..=100_000).contains(&readings), "journal.commit_readings", readings, "must be 1 to 100000");
    let checkpoint = config.journal.checkpoint;
    rule(found, CHECKPOINTS.contains(&checkpoint.0), "journal.checkpoint", checkpoint, "must be 64KiB to 2MiB");
    let (interval, readings) = (config.segment.seal_interval, config.segment.seal_readings);
    rule(found, (1..=86_400).contains(&interval.0.as_secs()), "segment.seal_interval", interval, "must be 1s to 1d");
    rule(found, (1..=1_000_000).contains(&readings), "segment.seal_readings", readings, "must be 1 to 1000000");
    let cap = config.retention.cap;
    rule(found, cap.0 >= MIN_CAP, "retention.cap", cap, "must be at least 16MiB");
    let thins = config.retention.when_full == WhenFull::Thin;
    rule(found, !thins, "retention.when_full", "thin", "comes with a later version; use drop_oldest or refuse");
    let (age, interval) = (config.retention.max_age, config.retention.check_interval);
    rule(found, !age.0.is_zero(), "retention.max_age", age, "must be more than 0");
    rule(found, (1..=3600).contains(&interval.0.as_secs()), "retention.check_interval", interval, "must be 1s to 1h");
    if let Some(settings) = &config.upstream {
        upstream(settings, found);
    }
}

fn upstream(upstream: &Upstream, found: &mut Vec<Problem>) {
    let addresses = [("upstream.url", Some(&upstream.url)), ("upstream.endpoint", upstream.endpoint.as_ref())];
    for (key, url) in addresses.into_iter().filter_map(|(key, url)| Some((key, url?))) {
        no_account(found, key, url, "name a file with its secret instead");
        if url.contains('?') {
            found.push(Problem::new(key, "a query does not belong into it; name a file with its secret instead"));
        }
    }
    rule(found, !upstream.url.is_empty(), "upstream.url", &upstream.url, "must name a lake, for example \"file:///srv/lake\"");
    let (min, max) = (upstream.retry_min, upstream.retry_max);
    rule(found, !min.0.is_zero() && min <= max, "upstream.retry_min", min, &format!("must be more than 0 and at most retry_max ({max})"));
    rule(found, !upstream.probe_interval.0.is_zero(), "upstream.probe_interval", upstream.probe_interval, "must be more than 0");
    let is_s3 = upstream.url.starts_with("s3:");
    let for_s3 = [
        ("upstream.endpoint", upstream.endpoint.is_some()),
        ("upstream.region", upstream.region.is_some()),
        ("upstream.path_style", upstream.path_style.is_some()),
        ("upstream.credentials_file", upstream.credentials_file.is_some()),
    ];
    for (key, _) in for_s3.into_iter().filter(|(_, is_set)| *is_set && !is_s3) {
        rule(found, false, key, &upstream.url, "is no s3: place, and only that takes this key; leave it out");
    }
    let takes_token = upstream.token_file.is_none() || upstream.url.starts_with("http");
    rule(found, takes_token, "upstream.token_file", &upstream.url, "is no collector, and only that takes a token; leave it out");
}

fn doors(config: &Config, found: &mut Vec<Problem>) {
    let http = config.api.http.iter().map(|address| ("api.http", address));
    let flight = config.api.flight.iter().map(|address| ("api.flight", address));
    for (key, address) in http.chain(flight) {
        rule(found, is_address(address), key, address, "must be host:port");
        let guarded = config.api.token_file.is_some() || !reaches_others(address);
        rule(found, guarded, key, address, "is open to the network and needs a token; set api.token_file, or bind to 127.0.0.1");
    }
    pair(found, ("api.tls_cert", &config.api.tls_cert), ("api.tls_key", &config.api.tls_key));
    if let Some(socket) = &config.engine.socket {
        rule(found, socket.is_absolute(), "engine.socket", socket.display(), "must be an absolute path");
    }
    let queries = config.engine.max_concurrent_queries;
    rule(found, (1..=64).contains(&queries), "engine.max_concurrent_queries", queries, "must be 1 to 64");
    rule(found, !config.engine.query_timeout.0.is_zero(), "engine.query_timeout", config.engine.query_timeout, "must be more than 0");
}

/// A certificate needs its key.
fn pair(found: &mut Vec<Problem>, one: (&str, &Option<PathBuf>), other: (&str, &Option<PathBuf>)) {
    for ((key, file), (missing, partner)) in [(one, other), (other, one)] {
        if let (Some(file), None) = (file, partner) {
            found.push(Problem::new(key, format!("\"{}\" is one half; set {missing} too", file.display())));
        }
    }
}

/// An address is shown wherever it is used, and a password in it would be too.
fn no_account(found: &mut Vec<Problem>, key: &str, url: &str, instead: &str) {
    let (_, place) = url.split_once("://").unwrap_or(("", url));
    // In a path it is a letter like any other; a broker has no path.
    let place = if key == "mqtt.url" { place } else { place.split('/').next().unwrap_or(place) };
    if place.contains('@') {
        found.push(Problem::new(key, format!("an account does not belong into an address; {instead}")));
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Whether `address` is surely none of loopback; what a name stands for is known when it is bound.
fn reaches_others(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::load::parse;

    #[test]
    fn every_broken_rule_is_named_with_its_key_and_value() {
        for (text, key, value) in [
            ("[gateway]\nid = \"a b\"", "gateway.id", "a b"),
            ("[mqtt]\nqos = 2", "mqtt.qos", "2"),
            ("[mqtt]\nurl = \"broker\"", "mqtt.url", "broker"),
            ("[mqtt]\nurl = \"mqtts://broker\"\ncert_file = \"c.pem\"", "mqtt.cert_file", "mqtt.key_file"),
            ("[mqtt]\nca_file = \"ca.pem\"", "mqtt.ca_file", "mqtts://"),
            ("[listener]\ntls_key = \"k.pem\"", "listener.tls_key", "listener.tls_cert"),
            ("[listener]\ntls_client_ca = \"ca.pem\"", "listener.tls_client_ca", "needs TLS"),
            ("[api]\ntls_cert = \"c.pem\"", "api.tls_cert", "api.tls_key"),
            ("[listener]\nbind = [\"1884\"]", "listener.bind", "1884"),
            ("[listener]\nbind = [\"0.0.0.0:1884\"]", "listener.bind", "0.0.0.0:1884"),
            ("[api]\nhttp = [\"[::]:8480\"]", "api.http", "[::]:8480"),
            ("[journal]\ncommit_interval = \"5h\"", "journal.commit_interval", "5h"),
            ("[journal]\ncheckpoint = \"4KiB\"", "journal.checkpoint", "64KiB"),
            ("[engine]\nsocket = \"engine.sock\"", "engine.socket", "engine.sock"),
            ("[retention]\ncap = \"1MiB\"", "retention.cap", "1MiB"),
            ("[retention]\nwhen_full = \"thin\"", "retention.when_full", "later version"),
            ("[retention]\nmax_age = \"0\"", "retention.max_age", "0"),
            ("[retention]\ncheck_interval = \"2h\"", "retention.check_interval", "2h"),
            ("[upstream]", "upstream.url", ""),
            ("[upstream]\nurl = \"file:///x\"\nregion = \"eu-west-1\"", "upstream.region", "file:///x"),
            ("[upstream]\nurl = \"s3://lake\"\ntoken_file = \"x\"", "upstream.token_file", "s3://lake"),
            ("[upstream]\nurl = \"file:///x\"\nretry_min = \"5m\"", "upstream.retry_min", "5m"),
        ] {
            let found = parse(text).unwrap_err().0;
            assert!(found.iter().any(|problem| problem.key == key && problem.message.contains(value)), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_shown() {
        for (text, key) in [
            ("[mqtt]\nurl = \"mqtt://joe:hunter2@broker\"", "mqtt.url"),
            ("[mqtt]\nurl = \"mqtts://hunter2@broker/\"", "mqtt.url"),
            ("[mqtt]\nurl = \"http://joe:hunter2@broker\"", "mqtt.url"),
            ("[upstream]\nurl = \"https://joe:hunter2@host/lake\"", "upstream.url"),
            ("[upstream]\nurl = \"https://host/lake?key=hunter2\"", "upstream.url"),
            ("[upstream]\nurl = \"s3://lake\"\nendpoint = \"https://joe:hunter2@host\"", "upstream.endpoint"),
            ("[journal]\ncommit_interval = \"mqtt://joe:hunter2@broker\"", "journal.commit_interval"),
            ("[mqtt]\nurl = \"mqtt://joe:hunter2@broker", "configuration"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.0.iter().any(|problem| problem.key == key), "{text}: {found:?}");
            assert!(!format!("{found} {found:?}").contains("hunter2"), "{found}");
        }
    }

    #[test]
    fn accounts_or_client_certificates_open_a_listener_to_other_machines() {
        for (settings, is_open) in [
            ("", false),
            ("anonymous = true", true),
            ("users_file = \"users\"", true),
            ("tls_cert = \"c\"\ntls_key = \"k\"", false),
            ("tls_cert = \"c\"\ntls_key = \"k\"\ntls_client_ca = \"ca\"", true),
        ] {
            let parsed = parse(&format!("[listener]\nbind = [\"0.0.0.0:1884\"]\n{settings}\n"));
            assert_eq!(parsed.is_ok(), is_open, "{settings}: {parsed:?}");
        }
    }

    #[test]
    fn without_any_source_the_local_broker_is_subscribed_to() {
        let mqtt = parse("[gateway]\nid = \"gw-7\"").unwrap().config.mqtt.unwrap();
        assert_eq!((mqtt.url.as_str(), mqtt.client_id.as_str()), ("mqtt://127.0.0.1:1883", "forebay-gw-7"));
        assert_eq!(parse("[listener]").unwrap().config.mqtt, None);
    }
}
