//! Which gateways are trusted, where they are asked with https, and what is said of one that is not.

use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, ensure};
use native_tls::{Certificate, Protocol, TlsConnector};

/// One for all clients: OpenSSL reads the certificates of the system for each, which takes 0.1 s.
static SYSTEM: LazyLock<TlsConnector> = LazyLock::new(|| {
    let mut system = TlsConnector::builder();
    system.min_protocol_version(Some(Protocol::Tlsv12));
    system.build().expect("OpenSSL can be initialised")
});

/// Those whose certificate one of these has signed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// `None`: those that the system trusts.
    own: Option<TlsConnector>,
}

impl Trust {
    /// In the certificates of a file alone, as PEM.
    ///
    /// # Errors
    /// Where it cannot be read, or holds none.
    pub(crate) fn of_file(file: &Path) -> anyhow::Result<Self> {
        let named = || format!("--cacert: {}", file.display());
        let text = std::fs::read(file).with_context(named)?;
        let certificates = Certificate::stack_from_pem(&text).with_context(named)?;
        ensure!(!certificates.is_empty(), "{}: it holds no certificate; allowed: PEM", named());
        let mut own = TlsConnector::builder();
        own.min_protocol_version(Some(Protocol::Tlsv12)).disable_built_in_roots(true);
        for certificate in certificates {
            own.add_root_certificate(certificate);
        }
        Ok(Self { own: Some(own.build().with_context(named)?) })
    }

    /// What speaks TLS with them.
    pub(crate) fn connector(&self) -> TlsConnector {
        self.own.as_ref().unwrap_or_else(|| &SYSTEM).clone()
    }
}

/// What OpenSSL says, in plain words. Its text is a list between colons: the fifth part is the reason, and
/// what is wrong with a certificate stands in parentheses at the end.
pub(crate) fn cause_of_tls(text: &str) -> String {
    let reason = text.split(':').nth(4).unwrap_or(text);
    let about_certificate = text.rsplit_once('(').map(|(_, detail)| detail.trim_end_matches(')'));
    match (reason, about_certificate) {
        ("wrong version number" | "packet length too long" | "record layer failure", _) => {
            "nothing speaks TLS there; try http:// instead of https://".to_owned()
        }
        ("certificate verify failed", detail) => {
            let why = detail.unwrap_or("it cannot be verified");
            format!("its certificate is not trusted: {why}; --cacert names a CA of your own")
        }
        (reason, _) => format!("TLS is not possible: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openssl_says_is_put_into_words() {
        let routine = "error:0A000086:SSL routines:tls_post_process_server_certificate";
        let untrusted =
            format!("{routine}:certificate verify failed:../ssl/statem.c:1889: (self-signed certificate)");
        assert!(
            cause_of_tls(&untrusted).starts_with("its certificate is not trusted: self-signed certificate;")
        );
        let plain = "error:0A00010B:SSL routines:ssl3_get_record:wrong version number:../ssl/record.c:354:";
        assert!(cause_of_tls(plain).contains("try http://"));
        let other = "error:0A000410:SSL routines:ssl3_read_bytes:sslv3 alert handshake failure:../ssl/x.c:1:";
        assert_eq!(cause_of_tls(other), "TLS is not possible: sslv3 alert handshake failure");
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        assert!(format!("{:#}", Trust::of_file(&file).unwrap_err()).starts_with("--cacert: "));
        std::fs::write(&file, "nonsense").unwrap();
        assert!(format!("{:#}", Trust::of_file(&file).unwrap_err()).starts_with("--cacert: "));
    }
}
