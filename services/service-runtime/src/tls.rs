//! The one cryptography provider of every TLS connection in the process: ring.
//!
//! rustls picks none by itself when more than one could be linked, and then panics at the first
//! connection; so the choice is made here, before any client is built.

/// Makes ring the process's provider. Harmless when called again.
pub fn install_crypto_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
