//! Which cryptography is used.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, ring};

/// The cryptography of all TLS in skep: ring's. It is handed to whoever needs it and installed nowhere, so that no library that brings another
/// one can change what protects the swarm.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    PROVIDER.clone()
}
