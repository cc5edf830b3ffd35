//! The settings of TLS between the processes.

use std::path::PathBuf;

use clap::Args;

use crate::tls::{Tls, TlsFiles};

/// TLS of the inner ports: all of these, or none.
#[derive(Args, Clone, Debug, Default)]
pub struct RingFiles {
    /// Certificate of this process for the other processes of the ring, as PEM, with its name
    #[arg(long, env = "RING_CERT_FILE", value_name = "FILE")]
    pub ring_cert_file: Option<PathBuf>,
    /// Private key of that certificate, as PEM (PKCS#8)
    #[arg(long, env = "RING_KEY_FILE", value_name = "FILE")]
    pub ring_key_file: Option<PathBuf>,
    /// Certificate of the CA that has signed those of all processes of the ring, as PEM
    #[arg(long, env = "RING_CA_FILE", value_name = "FILE")]
    pub ring_ca_file: Option<PathBuf>,
}

impl RingFiles {
    /// The files, where they are set.
    ///
    /// # Errors
    /// One line that names the variable that is missing.
    pub fn given(&self) -> Result<Option<TlsFiles>, String> {
        let Self { ring_cert_file: cert, ring_key_file: key, ring_ca_file: ca } = self;
        match (TlsFiles::given("RING", cert.as_deref(), key.as_deref())?, ca) {
            (None, None) => Ok(None),
            (Some(files), Some(ca)) => Ok(Some(files.mutual(ca))),
            (None, Some(_)) => Err("RING_CERT_FILE: it is missing, and RING_CA_FILE is set; allowed: \
                                    RING_CERT_FILE, RING_KEY_FILE and RING_CA_FILE, or none of them"
                .to_owned()),
            (Some(_), None) => Err("RING_CA_FILE: it is missing, and RING_CERT_FILE is set; allowed: \
                                    RING_CERT_FILE, RING_KEY_FILE and RING_CA_FILE, or none of them"
                .to_owned()),
        }
    }

    /// How an inner port speaks TLS, if it does, as the process of this name.
    ///
    /// # Errors
    /// One line that names the variable, and the file, and what is wrong.
    pub fn open(&self, process: &str) -> Result<Option<Tls>, String> {
        let Some(files) = self.given()? else { return Ok(None) };
        if !files.names()?.iter().any(|name| name.eq_ignore_ascii_case(process)) {
            return Err(format!("RING_CERT_FILE: {}: it lacks the name {process}", files.cert.display()));
        }
        Tls::open(files, &[]).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_set_or_none_and_the_certificate_has_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["db-0".to_owned()]).unwrap();
        let [cert, key] = ["cert", "key"].map(|name| folder.path().join(name));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let files = |cert_too: bool, key_too: bool, ca_too: bool| RingFiles {
            ring_cert_file: cert_too.then(|| cert.clone()),
            ring_key_file: key_too.then(|| key.clone()),
            ring_ca_file: ca_too.then(|| cert.clone()),
        };
        assert!(files(false, false, false).open("db-0").unwrap().is_none());
        assert!(files(true, true, true).open("db-0").unwrap().is_some());
        for (set, missing) in [
            ((true, true, false), "RING_CA_FILE: "),
            ((false, false, true), "RING_CERT_FILE: "),
            ((true, false, true), "RING_KEY_FILE: "),
        ] {
            let line = files(set.0, set.1, set.2).open("db-0").unwrap_err();
            assert!(line.starts_with(missing) && line.contains("missing"), "{line}");
        }
        let line = files(true, true, true).open("db-1").unwrap_err();
        assert!(line.ends_with("it lacks the name db-1"), "{line}");
    }
}
