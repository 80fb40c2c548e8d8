//! Where a broker is: `mqtt://host:port`, or `mqtts://host:port` for TLS.

use std::fmt;

/// The port of MQTT without TLS, and with it.
const DEFAULT_PORT: u16 = 1883;
const DEFAULT_TLS_PORT: u16 = 8883;

/// Host and port of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is spoken there.
    pub tls: bool,
}

impl Address {
    /// Reads `mqtt://host[:port]` or `mqtts://host[:port]`.
    ///
    /// # Errors
    /// A sentence that names the rule that `url` breaks; never shows an account written into it.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.contains('@') {
            return Err("an account does not belong into the address; set username and password_file".to_owned());
        }
        let (tls, rest) = match url.split_once("://") {
            Some(("mqtt" | "tcp", rest)) => (false, rest),
            Some(("mqtts" | "ssl", rest)) => (true, rest),
            Some((scheme, _)) => return Err(format!("\"{scheme}://\" is not a broker's scheme; write mqtt://host:1883")),
            None => return Err(format!("\"{url}\" is not a broker's address; write mqtt://host:1883")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(wrong) = rest.find(['/', '?', '#']) {
            return Err(format!("\"{}\" after the broker's address means nothing; remove it", rest.get(wrong..).unwrap_or_default()));
        }
        let default = if tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT };
        let (host, port) = split_port(rest, default).ok_or_else(|| format!("\"{rest}\" is not host:port"))?;
        if host.is_empty() {
            return Err(format!("\"{url}\" names no host"));
        }
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(text: &str, default: u16) -> Option<(&str, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            match rest {
                "" => (host, None),
                rest => (host, Some(rest.strip_prefix(':')?)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => default,
    };
    Some((host, port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, tls } = self;
        let scheme = if *tls { "mqtts" } else { "mqtt" };
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_written_with_its_port() {
        for (written, shown) in [
            ("mqtt://127.0.0.1:1884", "mqtt://127.0.0.1:1884"),
            ("mqtt://broker.local", "mqtt://broker.local:1883"),
            ("tcp://broker/", "mqtt://broker:1883"),
            ("mqtt://[::1]:99", "mqtt://[::1]:99"),
            ("mqtt://[fe80::1]", "mqtt://[fe80::1]:1883"),
            ("mqtts://broker", "mqtts://broker:8883"),
            ("ssl://broker:1884/", "mqtts://broker:1884"),
        ] {
            assert_eq!(Address::parse(written).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_rule() {
        for (written, rule) in [
            ("broker:1883", "mqtt://host:1883"),
            ("http://broker", "scheme"),
            ("mqtt://", "no host"),
            ("mqtt://broker:0", "host:port"),
            ("mqtt://broker:65536", "host:port"),
            ("mqtt://::1:1883", "host:port"),
            ("mqtt://broker/path", "/path"),
        ] {
            let refusal = Address::parse(written).unwrap_err();
            assert!(refusal.contains(rule), "{written}: {refusal}");
        }
    }

    #[test]
    fn an_account_in_the_address_is_refused_without_being_shown() {
        for url in ["mqtt://joe:secret@broker", "mqtts://secret@broker", "joe:secret@broker", "http://joe:se/cret@broker"] {
            let refusal = Address::parse(url).unwrap_err();
            assert!(refusal.contains("password_file") && !refusal.contains("cret"), "{refusal}");
        }
    }
}
