//! What shows the certificate of this process, and wants one of the ring's CA in return.
//!
//! The library for socket.io takes OpenSSL and nothing else. The files are read for each connection: so those
//! that have changed count at once.

use native_tls::{Certificate, Identity, Protocol, TlsConnector};
use process::TlsFiles;
use tokio::task::spawn_blocking;

/// What speaks TLS with other processes of the ring.
///
/// # Errors
/// What is wrong with which file.
pub(super) async fn connector(files: &TlsFiles) -> Result<TlsConnector, String> {
    let files = files.clone();
    // The disk may hang.
    let made = spawn_blocking(move || {
        let [cert, key, ca] = files.texts()?;
        let identity = Identity::from_pkcs8(&cert, &key)
            .map_err(|error| format!("RING_KEY_FILE: {}: {error}", files.key.display()))?;
        let mut builder = TlsConnector::builder();
        builder.identity(identity).min_protocol_version(Some(Protocol::Tlsv12)).disable_built_in_roots(true);
        for ca in Certificate::stack_from_pem(&ca).map_err(|error| format!("RING_CA_FILE: {error}"))? {
            builder.add_root_certificate(ca);
        }
        builder.build().map_err(|error| format!("RING_CERT_FILE: {}: {error}", files.cert.display()))
    });
    made.await.unwrap_or_else(|error| Err(error.to_string()))
}
