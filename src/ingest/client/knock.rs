//! Whether the broker would let us in, asked beside a daemon that may be connected to it.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::Packet;

use super::wire::{Wire, WireError, encode};
use super::{ClientError, login, target};
use crate::config;

/// The broker does not let us in, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum KnockError {
    /// The settings are wrong: nothing was asked.
    #[error(transparent)]
    Settings(#[from] ClientError),
    /// What came of it.
    #[error("{0}")]
    Broker(#[from] WireError),
}

/// Connects with the account and the certificates of `settings`, and goes again. Under a client id of its own and without a
/// session: under the daemon's it would end the daemon's connection.
///
/// # Errors
/// All of [`KnockError`].
pub async fn knock(settings: &config::Mqtt, gateway_id: &str) -> Result<(), KnockError> {
    let target = target(settings)?;
    let mut login = login(settings, gateway_id)?;
    login.client_id = format!("{}-doctor-{}", login.client_id, std::process::id());
    login.clean_session = true;
    let mut wire = Wire::open(&target, login, 0).await?;
    let mut goodbye = BytesMut::new();
    encode(&Packet::Disconnect, &mut goodbye);
    // It has answered already; how the connection ends tells nothing more.
    let _ = wire.writer.write_all(&mut goodbye).await;
    Ok(())
}
