//! TLS of a port: its certificate and key, read again when their files change.
//!
//! rustls with ring, TLS 1.2 and 1.3. New connections have the new certificate; those that are open keep what
//! they have. While the files do not fit together, as between the writing of one and of the other, what was
//! read before stays.
//!
//! Files are looked at every second rather than watched: certificates come as mounted volumes and by way of
//! symbolic links, which change without an event that could be waited for.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A file that holds more holds no certificate.
const LONGEST: u64 = 1 << 20;

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(1);

/// The files of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its CA, as PEM.
    pub cert: PathBuf,
    /// The private key, as PEM.
    pub key: PathBuf,
    /// Certificates of the CA that has to have signed those of the other side, as PEM; `None`: that has none.
    pub ca: Option<PathBuf>,
    /// How the variables of all of them begin: `TLS` or `RING`.
    prefix: &'static str,
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Contents {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// Of the other side.
    ca: Vec<CertificateDer<'static>>,
}

impl TlsFiles {
    /// Those that the variables `…_CERT_FILE` and `…_KEY_FILE` name; `None` where neither is set.
    ///
    /// # Errors
    /// One line that names the variable that is missing.
    pub fn given(
        prefix: &'static str,
        cert: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Option<Self>, String> {
        let missing = |this: &str, other: &str| {
            format!(
                "{prefix}_{this}_FILE: it is missing, and {prefix}_{other}_FILE is set; \
                 allowed: both, or neither"
            )
        };
        match (cert, key) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(missing("KEY", "CERT")),
            (None, Some(_)) => Err(missing("CERT", "KEY")),
            (Some(cert), Some(key)) => {
                Ok(Some(Self { cert: cert.to_owned(), key: key.to_owned(), ca: None, prefix }))
            }
        }
    }

    /// With those of the other side.
    #[must_use]
    pub fn mutual(self, ca: &Path) -> Self {
        Self { ca: Some(ca.to_owned()), ..self }
    }

    /// The names of hosts in the certificate, without those that begin with `*`.
    ///
    /// # Errors
    /// As [`Tls::open`].
    pub fn names(&self) -> Result<Vec<String>, String> {
        let chain = self.chain()?;
        let names = names(&chain[0]).map_err(|error| self.of_cert(&error))?;
        Ok(names.into_iter().filter(|name| !name.contains('*')).collect())
    }

    fn of_cert(&self, reason: &dyn std::fmt::Display) -> String {
        format!("{}_CERT_FILE: {}: {reason}", self.prefix, self.cert.display())
    }

    fn of_key(&self, reason: &dyn std::fmt::Display) -> String {
        format!("{}_KEY_FILE: {}: {reason}", self.prefix, self.key.display())
    }

    fn of_ca(&self, reason: &dyn std::fmt::Display) -> String {
        let path = self.ca.as_deref().unwrap_or_else(|| Path::new(""));
        format!("{}_CA_FILE: {}: {reason}", self.prefix, path.display())
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        certificates(&self.cert).map_err(|reason| self.of_cert(&reason))
    }

    /// The texts of certificate, key and CA, for another library.
    ///
    /// # Errors
    /// As [`Tls::open`].
    pub fn texts(&self) -> Result<[Vec<u8>; 3], String> {
        let cert = read(&self.cert).map_err(|error| self.of_cert(&error))?;
        let key = read(&self.key).map_err(|error| self.of_key(&error))?;
        let ca = self.ca.as_deref().map_or_else(|| Ok(Vec::new()), read);
        Ok([cert, key, ca.map_err(|error| self.of_ca(&error))?])
    }

    fn contents(&self) -> Result<Contents, String> {
        let chain = self.chain()?;
        let text = read(&self.key).map_err(|error| self.of_key(&error))?;
        // What is wrong with it is said without a byte of it.
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| self.of_key(&"it holds no private key; allowed: PEM, without a passphrase"))?;
        let ca = self.ca.as_deref().map_or_else(|| Ok(Vec::new()), certificates);
        Ok(Contents { chain, key, ca: ca.map_err(|reason| self.of_ca(&reason))? })
    }

    /// How to speak with these.
    fn config(&self, contents: &Contents) -> Result<ServerConfig, String> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| self.of_cert(&error))?;
        let builder = if self.ca.is_some() {
            let mut roots = RootCertStore::empty();
            for ca in &contents.ca {
                roots.add(ca.clone()).map_err(|error| self.of_ca(&error))?;
            }
            let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.with_client_cert_verifier(clients.build().map_err(|error| self.of_ca(&error))?)
        } else {
            builder.with_no_client_auth()
        };
        builder
            .with_single_cert(contents.chain.clone(), contents.key.clone_key())
            .map_err(|error| self.of_key(&format!("it does not fit the certificate: {error}")))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path).map_err(|error| error.to_string())?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("it holds no certificate; allowed: PEM".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The names of hosts in a certificate, in lower case.
fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, webpki::Error> {
    let certificate = webpki::EndEntityCert::try_from(certificate)?;
    Ok(certificate.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

/// Whether a certificate, as DER, is that of the process of this name.
pub fn certifies(certificate: &[u8], process: &str) -> bool {
    names(&CertificateDer::from(certificate))
        .is_ok_and(|names| names.iter().any(|name| name.eq_ignore_ascii_case(process)))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// The cryptography of all TLS here.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// How a process asks itself, by loopback, whether it is well: whatever its certificate says. It tells
/// nothing that is secret.
///
/// # Errors
/// Where it has to show a certificate, and there is none: one line.
pub fn self_trusting(files: &TlsFiles) -> Result<ClientConfig, String> {
    let provider = provider();
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    if files.ca.is_none() {
        return Ok(builder.with_no_client_auth());
    }
    let Contents { chain, key, .. } = files.contents()?;
    builder.with_client_auth_cert(chain, key).map_err(|error| files.of_key(&error))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// How a port speaks TLS at the moment: clones share it.
#[derive(Debug, Clone)]
pub struct Tls {
    files: TlsFiles,
    protocols: Vec<Vec<u8>>,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Tls {
    /// Reads the files. `protocols` are those of ALPN, the best first.
    ///
    /// # Errors
    /// One line that names the variable and the file. It does not show the key.
    pub fn open(files: TlsFiles, protocols: &[&str]) -> Result<Self, String> {
        let protocols: Vec<_> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut config = files.config(&files.contents()?)?;
        config.alpn_protocols.clone_from(&protocols);
        Ok(Self { files, protocols, config: Arc::new(RwLock::new(Arc::new(config))) })
    }

    /// For a new connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        // A whole value is put in its place.
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again and again, until `shutdown`.
    pub async fn watch(self, shutdown: CancellationToken) {
        let mut last = None;
        loop {
            let files = self.files.clone();
            // The disk may hang.
            let Ok(now) = spawn_blocking(move || files.contents()).await else { return };
            if last.as_ref() != Some(&now) {
                match now.as_ref().map_err(Clone::clone).and_then(|contents| self.files.config(contents)) {
                    Ok(mut config) => {
                        config.alpn_protocols.clone_from(&self.protocols);
                        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                        if last.is_some() {
                            info!(file = %self.files.cert.display(), "there is a new certificate");
                        }
                    }
                    Err(line) => warn!("{line}; the certificate that was read before stays"),
                }
                last = Some(now);
            }
            if shutdown.run_until_cancelled(sleep(INTERVAL)).await.is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn write(folder: &Path, names: &[&str]) -> TlsFiles {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        TlsFiles { cert, key, ca: None, prefix: "TLS" }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_without_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let files = write(folder.path(), &["localhost", "*.example.org", "API.example.org"]);
        let given = |cert, key| TlsFiles::given("TLS", cert, key);
        assert_eq!(given(None, None), Ok(None));
        assert_eq!(given(Some(&files.cert), Some(&files.key)), Ok(Some(files.clone())));
        assert!(given(Some(&files.cert), None).unwrap_err().starts_with("TLS_KEY_FILE: it is missing"));
        assert!(given(None, Some(&files.key)).unwrap_err().starts_with("TLS_CERT_FILE: it is missing"));
        assert_eq!(files.names().unwrap(), ["localhost", "api.example.org"]);
        let open = |cert: &Path, key: &Path| {
            let files = TlsFiles { cert: cert.to_owned(), key: key.to_owned(), ca: None, prefix: "TLS" };
            Tls::open(files, &[]).map(drop)
        };
        assert!(open(&files.cert, &files.key).is_ok());
        let der = files.chain().unwrap().remove(0);
        assert!(certifies(&der, "LOCALHOST") && !certifies(&der, "db-0") && !certifies(b"x", "localhost"));
        let mutual = files.clone().mutual(&files.key);
        assert!(Tls::open(mutual, &[]).unwrap_err().starts_with("TLS_CA_FILE: "));
        assert!(Tls::open(files.clone().mutual(&files.cert), &[]).is_ok());
        let nowhere = folder.path().join("nothing");
        let line = open(&nowhere, &files.key).unwrap_err();
        assert!(line.starts_with("TLS_CERT_FILE: ") && line.contains("nothing"), "{line}");
        assert!(open(&files.key, &files.key).unwrap_err().contains("no certificate"));
        assert!(open(&files.cert, &files.cert).unwrap_err().contains("no private key"));
        let other = tempfile::tempdir().unwrap();
        let line = open(&files.cert, &write(other.path(), &["localhost"]).key).unwrap_err();
        assert!(line.starts_with("TLS_KEY_FILE: ") && line.contains("does not fit"), "{line}");
    }

    #[tokio::test]
    async fn a_new_certificate_counts_a_moment_later_and_nonsense_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = write(folder.path(), &["localhost"]);
        let tls = Tls::open(files.clone(), &["h2"]).unwrap();
        let shutdown = CancellationToken::new();
        let watching = tokio::spawn(tls.clone().watch(shutdown.clone()));
        let until_other = async |old: &Arc<ServerConfig>| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while Arc::ptr_eq(old, &tls.config()) {
                assert!(Instant::now() < deadline, "it is not read again");
                sleep(Duration::from_millis(10)).await;
            }
        };
        // The first look.
        until_other(&tls.config()).await;
        let first = tls.config();
        std::fs::write(&files.cert, "nonsense").unwrap();
        sleep(INTERVAL * 2).await;
        assert!(Arc::ptr_eq(&first, &tls.config()));
        write(folder.path(), &["localhost"]);
        until_other(&first).await;
        assert_eq!(tls.config().alpn_protocols, [b"h2"]);
        shutdown.cancel();
        watching.await.unwrap();
    }
}
