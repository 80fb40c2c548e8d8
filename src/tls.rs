//! TLS: rustls with ring, the one provider of cryptography in this program.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The provider that every configuration here is built with.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes it the process's own, for libraries that ask the process. May be called again.
pub fn install_provider() {
    // An error says that one is installed: ours, from an earlier call.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
