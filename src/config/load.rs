//! Layers of configuration: the defaults, the file, `forebay.d/*.toml` beside it, then `FOREBAY__SECTION__KEY`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::{Config, Period, check, template};
use crate::secrets::hide_accounts;

/// Where the file is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/forebay/forebay.toml";

/// Age at which readings are sealed where nothing is uploaded and no age is set. Nobody waits for a segment there, and larger
/// ones take fewer bytes of flash: each has a footer, and is merged with others later.
const SEAL_INTERVAL_ALONE: Period = Period(Duration::from_secs(3600));

/// Keys that hold lists, which an environment variable separates by commas.
const LIST_KEYS: [&str; 4] = ["mqtt.topics", "listener.bind", "api.http", "api.flight"];

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, as `section.key`.
    pub key: String,
    /// What is wrong with its value, and what to do.
    pub message: String,
}

impl Problem {
    /// `key` has a value that breaks a rule. A message repeats what somebody wrote, but no account in it.
    pub fn new(key: impl Into<String>, message: impl AsRef<str>) -> Self {
        Self { key: key.into(), message: hide_accounts(message.as_ref()) }
    }
}

/// All that is wrong, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is wrong in {} {}", self.0.len(), if self.0.len() == 1 { "place" } else { "places" })?;
        self.0.iter().try_for_each(|Problem { key, message }| write!(f, "\n  {key}: {message}"))
    }
}

/// A configuration that has been read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where each key that was set comes from; the others have their defaults.
    pub origins: BTreeMap<String, String>,
}

/// Reads and checks the configuration; `named` is the file asked for, without it the default one may be absent.
///
/// # Errors
/// All problems at once.
pub fn load(named: Option<&Path>) -> Result<Loaded, Problems> {
    let path = named.map_or_else(|| PathBuf::from(DEFAULT_PATH), Path::to_path_buf);
    if named.is_some() && !path.is_file() {
        let message = format!("{} is not a readable file; name an existing one with --config", path.display());
        return Err(Problems(vec![Problem::new("--config", message)]));
    }
    let mut problems = Vec::new();
    let mut layers = Vec::new();
    for file in files(&path) {
        // Only the default file may be absent; one that is there and can't be read must not be passed over.
        match File::from(file.as_path()).format(FileFormat::Toml).collect() {
            Ok(layer) => layers.push(layer),
            Err(error) => problems.push(Problem::new(file.display().to_string(), error.to_string())),
        }
    }
    match environment().collect() {
        Ok(layer) => layers.push(nested(layer)),
        Err(error) => problems.push(Problem::new("environment", error.to_string())),
    }
    let mut merged = Map::new();
    layers.into_iter().for_each(|layer| merge(&mut merged, layer));
    load_merged(merged, path.parent().unwrap_or(Path::new(".")), problems)
}

/// The same from one text; for tests and `demo`.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str) -> Result<Loaded, Problems> {
    let layer = File::from_str(text, FileFormat::Toml).collect();
    let layer = layer.map_err(|error| Problems(vec![Problem::new("configuration", error.to_string())]))?;
    load_merged(layer, Path::new("."), Vec::new())
}

fn load_merged(merged: Map<String, Value>, folder: &Path, mut problems: Vec<Problem>) -> Result<Loaded, Problems> {
    let mut leaves = BTreeMap::new();
    flatten("", &merged, &mut leaves);
    problems.extend(unknown_keys(&leaves));
    let known: Vec<_> = leaves.iter().filter(|(key, _)| !problems.iter().any(|problem| problem.key == **key)).collect();
    problems.extend(known.iter().filter_map(|(key, value)| wrong_type(key, value)));
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let whole = Value::new(None, ValueKind::Table(merged));
    let mut config: Config = whole.try_deserialize().map_err(|error| Problems(vec![Problem::new("configuration", error.to_string())]))?;
    let named = config.gateway.id.is_empty();
    config.complete(folder);
    let alone = config.upstream.is_none() && !leaves.contains_key("segment.seal_interval");
    if alone {
        config.segment.seal_interval = SEAL_INTERVAL_ALONE;
    }
    let problems = check::problems(&config);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let mut origins: BTreeMap<_, _> =
        leaves.iter().map(|(key, value)| (key.clone(), value.origin().unwrap_or("text").to_owned())).collect();
    if named {
        origins.insert("gateway.id".to_owned(), "the host name".to_owned());
    }
    if alone {
        origins.insert("segment.seal_interval".to_owned(), "without [upstream]".to_owned());
    }
    Ok(Loaded { config, origins })
}

/// The file itself and those of `forebay.d` beside it, by name.
fn files(path: &Path) -> Vec<PathBuf> {
    let extra = path.parent().map(|folder| folder.join("forebay.d"));
    let listing = extra.and_then(|folder| std::fs::read_dir(folder).ok());
    let mut extra: Vec<_> = listing.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    extra.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    extra.sort();
    let is_absent = std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let main = Some(path.to_path_buf()).filter(|_| !is_absent);
    main.into_iter().chain(extra).collect()
}

fn environment() -> Environment {
    let lists = Environment::with_prefix("FOREBAY").prefix_separator("__").separator("__").try_parsing(true).list_separator(",");
    LIST_KEYS.into_iter().fold(lists, Environment::with_list_parse_key)
}

/// The environment's `a.b = value` as tables in tables.
fn nested(flat: Map<String, Value>) -> Map<String, Value> {
    let mut tree = Map::new();
    for (key, value) in flat {
        let layer = key.rsplit('.').fold(value, |value, part| {
            let origin = value.origin().map(str::to_owned);
            Value::new(origin.as_ref(), ValueKind::Table(Map::from_iter([(part.to_owned(), value)])))
        });
        if let ValueKind::Table(layer) = layer.kind {
            merge(&mut tree, layer);
        }
    }
    tree
}

/// Lays `over` on `under`: tables are merged, anything else is replaced.
fn merge(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (under.get_mut(&key).map(|value| &mut value.kind), value.kind.clone()) {
            (Some(ValueKind::Table(old)), ValueKind::Table(new)) => merge(old, new),
            _ => {
                under.insert(key, value);
            }
        }
    }
}

/// Every key that is not a table of settings, with its value; routes are one key.
fn flatten(prefix: &str, table: &Map<String, Value>, leaves: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match &value.kind {
            ValueKind::Table(inner) if !inner.is_empty() || !template::sections().contains(&path.as_str()) => flatten(&path, inner, leaves),
            _ => {
                leaves.insert(path, value.clone());
            }
        }
    }
}

fn unknown_keys(leaves: &BTreeMap<String, Value>) -> Vec<Problem> {
    let known = template::keys();
    let is_known = |key: &str| known.iter().any(|known| known == key) || template::sections().contains(&key);
    let unknown = leaves.keys().filter(|key| !is_known(key));
    unknown.map(|key| Problem::new(key, format!("there is no such key{}", nearest(key, &known)))).collect()
}

/// `; did you mean ...?`, where a known key is near enough.
fn nearest(key: &str, known: &[String]) -> String {
    let best = known.iter().map(|known| (strsim::damerau_levenshtein(key, known), known)).min();
    let same_name = known.iter().find(|known| known.rsplit('.').next() == key.rsplit('.').next());
    match (best, same_name) {
        (Some((distance, known)), _) if distance <= 3 => format!("; did you mean {known}?"),
        (_, Some(known)) => format!("; did you mean {known}?"),
        _ => "; `forebay config default` lists them all".to_owned(),
    }
}

/// What is wrong with this key alone, if anything.
fn wrong_type(key: &str, value: &Value) -> Option<Problem> {
    let alone = nested(Map::from_iter([(key.to_owned(), value.clone())]));
    let outcome: Result<Config, _> = Value::new(None, ValueKind::Table(alone)).try_deserialize();
    outcome.err().map(|error| Problem::new(key, format!("{} ({error})", shown(value))))
}

fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::Table(_) | ValueKind::Array(_) => "its value does not fit".to_owned(),
        plain => format!("\"{plain}\" does not fit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap_err().0.into_iter().map(|problem| (problem.key, problem.message)).collect()
    }

    #[test]
    fn an_empty_file_is_a_working_configuration() {
        let loaded = parse("").unwrap();
        assert_eq!(loaded.config.journal, crate::config::Journal::default());
        assert!(!loaded.config.gateway.id.is_empty(), "the host name stands in");
    }

    #[test]
    fn without_an_upstream_cuts_are_made_each_hour_unless_an_age_is_set() {
        for (text, seconds, origin) in [
            ("", 3600, Some("without [upstream]")),
            ("[upstream]\nurl = \"file:///lake\"", 300, None),
            ("[segment]\nseal_interval = \"5m\"", 300, Some("text")),
        ] {
            let Loaded { config, origins } = parse(text).unwrap();
            assert_eq!(config.segment.seal_interval.0.as_secs(), seconds, "{text}");
            assert_eq!(origins.get("segment.seal_interval").map(String::as_str), origin, "{text}");
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let found = problems("[journal]\ncomit_interval = \"1s\"\n[upsteam]\nurl = \"x\"");
        assert_eq!(found[0].0, "journal.comit_interval");
        assert!(found[0].1.contains("journal.commit_interval"), "{found:?}");
        assert!(found[1].1.contains("upstream.url"), "{found:?}");
    }

    #[test]
    fn all_problems_come_at_once_each_with_key_and_value() {
        let found = problems("[journal]\ncommit_interval = \"soon\"\ncommit_readings = \"many\"\n[mqtt]\nqos = \"x\"\n[nonsense]\na = 1");
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["nonsense.a", "journal.commit_interval", "journal.commit_readings", "mqtt.qos"]);
        assert!(found[1].1.contains("soon") && found[1].1.contains("15m"), "{found:?}");
    }

    #[test]
    fn a_later_layer_wins_key_by_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("forebay.toml");
        std::fs::write(&file, "[gateway]\nid = \"a\"\ndata_dir = \"/tmp/x\"\n").unwrap();
        std::fs::create_dir(folder.path().join("forebay.d")).unwrap();
        std::fs::write(folder.path().join("forebay.d/10-id.toml"), "[gateway]\nid = \"b\"\n").unwrap();
        let loaded = load(Some(&file)).unwrap();
        assert_eq!((loaded.config.gateway.id.as_str(), loaded.config.gateway.data_dir.to_str()), ("b", Some("/tmp/x")));
        assert!(loaded.origins["gateway.id"].contains("10-id.toml"), "{:?}", loaded.origins);
    }

    #[test]
    fn a_file_that_is_there_and_cannot_be_read_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("forebay.toml");
        std::fs::write(&file, "").unwrap();
        let extra = folder.path().join("forebay.d/10-lost.toml");
        std::fs::create_dir(folder.path().join("forebay.d")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", &extra).unwrap();
        let found = load(Some(&file)).unwrap_err().0;
        assert_eq!(found.iter().map(|problem| problem.key.clone()).collect::<Vec<_>>(), [extra.display().to_string()]);
    }

    #[test]
    fn an_empty_section_turns_it_on() {
        assert_eq!(parse("[listener]").unwrap().config.listener, Some(crate::config::Listener::default()));
    }
}
