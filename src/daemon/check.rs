//! What the rooms would say of their settings, without anything being opened or touched.

use super::DaemonError;
use crate::api;
use crate::config::Config;
use crate::ingest::decode::Decoder;
use crate::ingest::{client, listener};
use crate::upload;

/// Everything that would keep a daemon with `config` from starting and that can be told beforehand.
pub fn check(config: &Config) -> Vec<DaemonError> {
    let mut found: Vec<DaemonError> = Vec::new();
    found.extend(Decoder::new(&config.route, &config.ingest).err().map(Into::into));
    let upstream = config.upstream.as_ref().and_then(|upstream| upload::open(upstream).err());
    found.extend(upstream.map(Into::into));
    let client = config.mqtt.as_ref().and_then(|mqtt| client::check(mqtt, &config.gateway.id).err());
    found.extend(client.map(Into::into));
    let listener = config.listener.as_ref().and_then(|settings| listener::check(settings).err());
    found.extend(listener.map(Into::into));
    found.extend(api::check(&config.api).err().map(Into::into));
    found
}
