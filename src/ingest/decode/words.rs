//! What a text means: a number, a state, or neither.

/// Longest state; longer ones are sentences.
const MAX_STATE_BYTES: usize = 32;

/// Whole numbers with this many digits or more are serial numbers (an IMEI has 15).
const SERIAL_DIGITS: usize = 15;

/// From here on, a word with digits and both cases is a blob.
const BLOB_BYTES: usize = 16;

/// Last words of keys that name a thing or its make; neither number nor text under them is a measurement.
const IDENTITIES: [&str; 43] = [
    "id",
    "uid",
    "uuid",
    "guid",
    "imei",
    "imsi",
    "iccid",
    "msisdn",
    "serial",
    "serialno",
    "serialnumber",
    "sn",
    "mac",
    "macaddress",
    "bssid",
    "ssid",
    "eui",
    "deveui",
    "addr",
    "address",
    "deviceid",
    "devid",
    "clientid",
    "gatewayid",
    "nodeid",
    "userid",
    "version",
    "ver",
    "hwver",
    "swver",
    "fwver",
    "fwversion",
    "hwversion",
    "swversion",
    "firmware",
    "fw",
    "hw",
    "revision",
    "build",
    "model",
    "ip",
    "port_id",
    "ident",
];

/// Last words of keys whose text is a label or a blob, though a number under them may be measured.
const LABELS: [&str; 41] = [
    "name",
    "type",
    "manufacturer",
    "vendor",
    "brand",
    "make",
    "product",
    "host",
    "hostname",
    "url",
    "uri",
    "topic",
    "time",
    "date",
    "datetime",
    "timestamp",
    "ts",
    "tz",
    "timezone",
    "data",
    "raw",
    "payload",
    "hex",
    "msg",
    "message",
    "description",
    "desc",
    "title",
    "label",
    "comment",
    "key",
    "token",
    "session",
    "context",
    "servicedata",
    "manufacturerdata",
    "tid",
    "tags",
    "sensor",
    "icon",
    "friendlyname",
];

/// What a text means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Meaning {
    /// A number.
    Number(f64),
    /// NaN, infinite, or beyond a float.
    NotFinite,
    /// `true` or `false`.
    Switch(bool),
    /// A word for a state, with its number where it has one.
    State(Option<f64>),
    /// Nothing.
    Empty,
    /// Not to be read as a value, and why.
    Other(&'static str),
}

/// What a whole payload means.
pub(super) fn of_payload(text: &str) -> Meaning {
    meaning(text, decimal)
}

/// What a member of an object means. Stricter with numbers, because hexadecimal and serial numbers look like them.
pub(super) fn of_member(text: &str) -> Meaning {
    meaning(text, |text| if is_serial(text) { None } else { decimal(text) })
}

fn meaning(text: &str, number: impl Fn(&str) -> Option<f64>) -> Meaning {
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("null") {
        return Meaning::Empty;
    }
    if let Some(value) = number(text) {
        return if value.is_finite() { Meaning::Number(value) } else { Meaning::NotFinite };
    }
    if ["nan", "inf", "infinity"].iter().any(|word| text.trim_start_matches(['+', '-']).eq_ignore_ascii_case(word)) {
        return Meaning::NotFinite;
    }
    switch(text).unwrap_or_else(|| state(text))
}

/// A decimal number; infinite where a float can't hold it.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches(['+', '-']);
    let plain =
        digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if plain { text.parse().ok() } else { None }
}

/// Digits that are a name: leading zeros, very many of them, or hexadecimal that looks like `4e10`.
fn is_serial(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['+', '-']);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits == unsigned.len();
    let padded = digits > 1 && unsigned.starts_with('0');
    let like_hex = unsigned.contains(['e', 'E']) && !unsigned.contains(['.', '+', '-']);
    padded || like_hex || (whole && digits >= SERIAL_DIGITS)
}

/// Words with a number.
fn switch(text: &str) -> Option<Meaning> {
    const WORDS: [(&str, bool); 6] = [("true", true), ("false", false), ("on", true), ("off", false), ("online", true), ("offline", false)];
    let (word, value) = WORDS.iter().find(|(word, _)| text.eq_ignore_ascii_case(word))?;
    Some(match *word {
        "true" | "false" => Meaning::Switch(*value),
        _ => Meaning::State(Some(f64::from(u8::from(*value)))),
    })
}

fn state(text: &str) -> Meaning {
    if text.len() > MAX_STATE_BYTES {
        return Meaning::Other("it is too long for a state");
    }
    if is_duration(text) {
        return Meaning::State(None);
    }
    if !text.starts_with(char::is_alphabetic) {
        return Meaning::Other("it is neither number nor word");
    }
    if !text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
        return Meaning::Other("it is not a single word");
    }
    if is_hexadecimal(text) || is_blob(text) {
        return Meaning::Other("it looks like an address or a blob");
    }
    Meaning::State(None)
}

/// `0T18:36:12`: days, hours, minutes, seconds.
fn is_duration(text: &str) -> bool {
    let Some((days, clock)) = text.split_once('T') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = 0;
    let sound = clock.split(':').all(|part| {
        parts += 1;
        part.len() == 2 && digits(part)
    });
    digits(days) && sound && parts == 3
}

/// MAC addresses, UUIDs, colours and other bytes: six or more hexadecimal digits with a number among them, or very many.
/// Shorter ones may be codes, as `E101`.
fn is_hexadecimal(text: &str) -> bool {
    let digits = || text.bytes().filter(|byte| *byte != b'-');
    let count = digits().count();
    digits().all(|byte| byte.is_ascii_hexdigit()) && (count >= 8 || (count >= 6 && digits().any(|byte| byte.is_ascii_digit())))
}

fn is_blob(text: &str) -> bool {
    let has = |class: fn(&u8) -> bool| text.as_bytes().iter().any(class);
    text.len() >= BLOB_BYTES && has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase)
}

/// Whether `key` names a thing, so that even a number under it is no measurement.
pub(super) fn is_identity(key: &str) -> bool {
    any_word(key, &IDENTITIES)
}

/// Whether a text under `key` is a label.
pub(super) fn is_label(key: &str) -> bool {
    any_word(key, &LABELS) || is_identity(key)
}

fn any_word(key: &str, words: &[&str]) -> bool {
    let last = last_word(key);
    words.iter().any(|word| last.eq_ignore_ascii_case(word) || key.eq_ignore_ascii_case(word))
}

/// The last word of `model_id`, `modelId`, `deviceID` or `model id`.
fn last_word(key: &str) -> &str {
    let bytes = key.as_bytes();
    let begins_word = |at: usize| match (bytes.get(at - 1), bytes.get(at)) {
        (Some(b'_' | b'-' | b' ' | b'.' | b'/'), _) => true,
        (Some(before), Some(byte)) if byte.is_ascii_uppercase() => {
            // The last capital of a row belongs to what follows: `SSId` is `SS` and `Id`.
            before.is_ascii_lowercase() || (before.is_ascii_uppercase() && bytes.get(at + 1).is_some_and(u8::is_ascii_lowercase))
        }
        _ => false,
    };
    (1..bytes.len()).rev().find(|at| begins_word(*at)).and_then(|at| key.get(at..)).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_separators_and_capitals() {
        let cases = [
            ("id", "id"),
            ("model_id", "id"),
            ("modelId", "Id"),
            ("deviceID", "ID"),
            ("SSId", "Id"),
            ("UID", "UID"),
            ("grid", "grid"),
            ("Humid", "Humid"),
            ("hum id", "id"),
            ("temperature2", "temperature2"),
            ("", ""),
            ("größe", "größe"),
            ("_", "_"),
        ];
        for (key, expected) in cases {
            assert_eq!(last_word(key), expected, "{key}");
        }
    }

    #[test]
    fn numbers_in_text_are_numbers_and_names_are_not() {
        for (text, expected) in
            [("52.6", 52.6), ("-0.5", -0.5), ("+7", 7.0), (" 21 ", 21.0), ("1e+08", 1e8), ("2.5e3", 2500.0), (".5", 0.5), ("0", 0.0)]
        {
            assert_eq!(of_member(text), Meaning::Number(expected), "{text}");
        }
        for text in ["4e10", "00189440", "356938035643809", "0x8F20", "1.2.3", "4/5", "0.8s", "12 V", "1-2", "--"] {
            assert!(matches!(of_member(text), Meaning::Other(_)), "{text}");
        }
        assert_eq!(of_payload("4e10"), Meaning::Number(4e10));
        assert_eq!(of_payload("007"), Meaning::Number(7.0));
        for text in ["nan", "NaN", "-inf", "Infinity", "1e400"] {
            assert_eq!(of_payload(text), Meaning::NotFinite, "{text}");
        }
    }

    #[test]
    fn states_are_single_words_and_neither_addresses_nor_blobs() {
        for text in
            ["single", "high", "decoupled", "CR_4_5", "ua-data", "geöffnet", "0T18:36:12", "unavailable", "open", "N", "face", "E101"]
        {
            assert_eq!(of_member(text), Meaning::State(None), "{text}");
        }
        for text in [
            "Master bedroom",
            "A4C1387FC1E1",
            "00:00:00:00:00:00",
            "AA:BB:CC:DD:EE:FF",
            "FFC773",
            "qg==",
            "https://x",
            "2019-09-04T13:08:48",
            "wheels,engine",
            "RADjUgC5gRKfTt7eEfAw",
            "deadbeef-dead-beef-dead-beefdeadbeef",
            "11n",
            "@0.1s",
            "07:16:17",
            "100,50,10",
        ] {
            assert!(matches!(of_member(text), Meaning::Other(_)), "{text}");
        }
        assert_eq!(of_member("ON"), Meaning::State(Some(1.0)));
        assert_eq!(of_member("offline"), Meaning::State(Some(0.0)));
        assert_eq!(of_member("True"), Meaning::Switch(true));
        assert_eq!(of_member("  "), Meaning::Empty);
    }

    #[test]
    fn identities_and_labels_are_known_by_their_last_word() {
        for key in ["id", "imei", "dev_eui", "ModelId", "hwver", "installed_version", "SerialNumber", "BSSId", "gw_mac"] {
            assert!(is_identity(key), "{key}");
        }
        for key in ["humidity", "grid", "voltage", "Endpoint", "valid", "PID", "identify", "pressure"] {
            assert!(!is_identity(key) && !is_label(key), "{key}");
        }
        assert!(is_label("friendly_name") && is_label("mac_type") && !is_identity("mac_type"));
    }
}
