//! The commented default file: what `config default` prints, and the list of all keys.
//!
//! A line that begins with `#` and no blank is a setting left out; with the `#` taken away the file sets every key there
//! is. So the file is the one list of keys, and a test keeps its values equal to the built-in defaults.

use std::sync::LazyLock;

/// The file as it is shipped.
pub const DEFAULT_FILE: &str = include_str!("../../config/forebay.toml");

/// The sections that may stand empty.
const SECTIONS: [&str; 10] = ["gateway", "mqtt", "listener", "ingest", "journal", "segment", "retention", "upstream", "api", "engine"];

static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let table: toml::Table = everything().parse().unwrap_or_default();
    let mut keys = Vec::new();
    for (section, value) in table {
        match value {
            toml::Value::Table(settings) => keys.extend(settings.keys().map(|key| format!("{section}.{key}"))),
            _ => keys.push(section),
        }
    }
    keys
});

/// The file with every setting switched on.
pub fn everything() -> String {
    let switched_on = DEFAULT_FILE.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting,
        _ => line,
    });
    switched_on.map(|line| format!("{line}\n")).collect()
}

/// Every key, as `section.key`; `route` stands for all of a route.
pub fn keys() -> Vec<String> {
    KEYS.clone()
}

/// Sections that may stand empty: an empty `[mqtt]` or `[listener]` turns it on.
pub fn sections() -> &'static [&'static str] {
    &SECTIONS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Listener, Mqtt, Upstream};

    /// Keys that have no default: what the file shows is an example.
    const EXAMPLES: [&str; 23] = [
        "gateway.id",
        "mqtt.client_id",
        "mqtt.username",
        "mqtt.password_file",
        "mqtt.ca_file",
        "mqtt.cert_file",
        "mqtt.key_file",
        "listener.users_file",
        "listener.tls_cert",
        "listener.tls_key",
        "listener.tls_client_ca",
        "ingest.timezone",
        "upstream.url",
        "upstream.endpoint",
        "upstream.region",
        "upstream.path_style",
        "upstream.credentials_file",
        "upstream.token_file",
        "upstream.ca_file",
        "api.token_file",
        "api.tls_cert",
        "api.tls_key",
        "engine.socket",
    ];

    #[test]
    fn the_default_file_says_what_is_built_in() {
        let mut shown: toml::Table = everything().parse().unwrap();
        shown.remove("route");
        for key in EXAMPLES {
            let (section, key) = key.split_once('.').unwrap();
            assert!(shown[section].as_table_mut().unwrap().remove(key).is_some(), "{section}.{key} is not in the file");
        }
        let shown: Config = shown.try_into().unwrap();
        let everything = Config {
            mqtt: Some(Mqtt::default()),
            listener: Some(Listener::default()),
            upstream: Some(Upstream::default()),
            ..Config::default()
        };
        assert_eq!(shown, everything);
    }

    #[test]
    fn the_default_file_names_every_key() {
        let everything = Config {
            mqtt: Some(Mqtt::default()),
            listener: Some(Listener::default()),
            upstream: Some(Upstream::default()),
            ..Config::default()
        };
        let table = toml::Table::try_from(&everything).unwrap();
        for (section, settings) in &table {
            for key in settings.as_table().into_iter().flat_map(toml::Table::keys) {
                assert!(keys().contains(&format!("{section}.{key}")), "{section}.{key} is not in config/forebay.toml");
            }
        }
    }

    #[test]
    fn the_default_file_as_shipped_is_an_empty_one() {
        let shipped: Config = toml::from_str(DEFAULT_FILE).unwrap();
        assert_eq!(shipped, Config::default());
    }
}
