//! TLS: rustls with ring, the one provider of cryptography in this program.
//!
//! Owns: how certificates and keys are read from files (and read again when they are renewed), the deadline of a
//! handshake, and the words for what went wrong.
//! Does not own: sockets, and what is said on them.
//! Invariants: TLS 1.2 or 1.3; a server's name is always checked; no key is ever shown.
//! On failure: files that can't be used at the start are an error that names file and fault; later the ones before stay
//! in use. A handshake that fails costs its connection.

mod certificate;
mod client;
mod error;
mod fault;
mod files;
#[cfg(test)]
#[path = "../../tests/support/certificates.rs"]
pub(crate) mod minted;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::{ClientFiles, Connector, client_config};
pub use error::{HandshakeError, TlsError};
pub use fault::fault;
pub use server::{Acceptor, ServerFiles};
pub use tokio_rustls::server::TlsStream as ServerStream;

/// The provider that every configuration here is built with.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes it the process's own, for libraries that ask the process. May be called again.
pub fn install_provider() {
    // An error says that one is installed: ours, from an earlier call.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
