//! `corro certs`: a CA for a ring, and certificates that it signs.
//!
//! For rings without a public name, whose clients get the CA to trust (`--cacert`). The key of the
//! CA is needed for new certificates alone: keep it off the machines of the ring.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::NamedTempFile;

use crate::terminal::say;

/// The file names of the CA; no certificate has its name.
const CA: &str = "ca";

/// How long the CA is valid, in days.
const CA_DAYS: u32 = 3_650;

/// Clocks of other machines may be behind.
const EARLIER: Duration = Duration::from_secs(60 * 60);

/// `corro certs`.
#[derive(Args, Debug)]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    order: Order,
}

#[derive(Subcommand, Debug)]
enum Order {
    /// Make a CA: ca.crt, which clients trust, and ca.key
    Init {
        /// The folder; it is made if it is not there
        folder: PathBuf,
    },
    /// Make a certificate that the CA of the folder signs: NAME.crt and NAME.key
    Issue {
        /// The folder of the CA
        folder: PathBuf,
        /// Name of the process, such as gateway or db-0; it is in the certificate
        name: String,
        /// Another name or an IP address by which clients ask for it; can be repeated
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// Valid for so many days
        #[arg(long, value_name = "NUMBER", default_value_t = 365,
              value_parser = clap::value_parser!(u32).range(1..=i64::from(CA_DAYS)))]
        days: u32,
    },
}

/// # Errors
/// Where a name is not allowed, a file is there already, or cannot be written.
pub(crate) fn run(CertsArgs { order }: CertsArgs) -> anyhow::Result<()> {
    match order {
        Order::Init { folder } => init(&folder),
        Order::Issue { folder, name, hosts, days } => issue(&folder, &name, hosts, days),
    }
}

fn init(folder: &Path) -> anyhow::Result<()> {
    let mut maker = DirBuilder::new();
    maker.recursive(true).mode(0o700).create(folder).with_context(|| folder.display().to_string())?;
    let files = Files::free(folder, CA)?;
    let key = KeyPair::generate()?;
    let mut params = ca()?;
    last(&mut params, CA_DAYS);
    files.write(&params.self_signed(&key)?.pem(), &key)
}

fn issue(folder: &Path, name: &str, hosts: Vec<String>, days: u32) -> anyhow::Result<()> {
    ensure!(name != CA, "{name}: the CA has this name; allowed: any other");
    check("NAME", name)?;
    hosts.iter().try_for_each(|host| check("--host", host))?;
    let files = Files::free(folder, name)?;
    let path = folder.join(format!("{CA}.key"));
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{}: there is no CA; corro certs init makes one", path.display()))?;
    // Without what it says of the text.
    let Ok(ca_key) = KeyPair::from_pem(&text) else { bail!("{} holds no key", path.display()) };
    let (key, issuer) = (KeyPair::generate()?, Issuer::new(ca()?, ca_key));
    let names: Vec<String> = [name.to_owned()].into_iter().chain(hosts).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A process of a ring is both.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    last(&mut params, days);
    files.write(&params.signed_by(&key, &issuer)?.pem(), &key)
}

/// The CA, but for its key and its time: what it says of itself is always the same, so that the file of its
/// key is enough to sign.
fn ca() -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "corro ring CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn last(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 24 * 60 * 60)).into();
}

/// Names of hosts, addresses, and `*` for one label: nothing that leads out of the folder.
fn check(what: &str, name: &str) -> anyhow::Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:*".contains(&byte);
    ensure!(
        !name.is_empty() && !name.starts_with(['.', '-']) && name.len() <= 253 && name.bytes().all(allowed),
        "{what}: {name:?} is not allowed; allowed: a host name or an IP address"
    );
    Ok(())
}

/// The files of a certificate.
struct Files {
    folder: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    /// # Errors
    /// Where one of them is there already.
    fn free(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let of = |end| folder.join(format!("{name}.{end}"));
        let files = Self { folder: folder.to_owned(), cert: of("crt"), key: of("key") };
        for file in [&files.cert, &files.key] {
            ensure!(!file.try_exists()?, "{} is there already, and stays as it is", file.display());
        }
        Ok(files)
    }

    fn write(&self, cert: &str, key: &KeyPair) -> anyhow::Result<()> {
        self.write_one(&self.key, &key.serialize_pem(), 0o600)?;
        self.write_one(&self.cert, cert, 0o644)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(())
    }

    /// Under another name first, so that no process reads the half of it.
    fn write_one(&self, file: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
        let named = || format!("{} cannot be written", file.display());
        let mut new = NamedTempFile::new_in(&self.folder).with_context(named)?;
        new.write_all(text.as_bytes()).with_context(named)?;
        new.as_file().set_permissions(PermissionsExt::from_mode(mode)).with_context(named)?;
        new.as_file().sync_all().with_context(named)?;
        new.persist_noclobber(file).with_context(named)?;
        say(&format!("{}: made", file.display()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use process::TlsFiles;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_private_names_are_in_certificates_and_nothing_is_overwritten() {
        let outer = tempfile::tempdir().unwrap();
        let folder = &outer.path().join("certs");
        let hosts = || vec!["api.example.org".to_owned(), "10.0.0.7".to_owned()];
        let error = issue(folder, "db-0", hosts(), 1).unwrap_err().to_string();
        assert!(error.contains("corro certs init"), "{error}");
        init(folder).unwrap();
        issue(folder, "db-0", hosts(), 1).unwrap();
        assert_eq!(mode(folder), 0o700);
        for name in ["ca", "db-0"] {
            assert_eq!(mode(&folder.join(format!("{name}.key"))), 0o600);
        }
        let [cert, key] = ["crt", "key"].map(|end| folder.join(format!("db-0.{end}")));
        let files = TlsFiles::given("TLS", Some(&cert), Some(&key)).unwrap().unwrap();
        assert_eq!(files.names().unwrap(), ["db-0", "api.example.org"]);
        let before = ["ca.crt", "ca.key", "db-0.crt", "db-0.key"].map(|name| folder.join(name));
        let before = before.map(|file| (std::fs::read(&file).unwrap(), file));
        assert!(init(folder).is_err() && issue(folder, "db-0", hosts(), 1).is_err());
        std::fs::remove_file(&cert).unwrap();
        assert!(issue(folder, "db-0", hosts(), 1).is_err(), "its key is still there");
        for (text, file) in before.iter().filter(|(_, file)| *file != cert) {
            assert_eq!(&std::fs::read(file).unwrap(), text);
        }
        for bad in ["", "ca", "../db-1", ".db", "db 1", "-x"] {
            assert!(issue(folder, bad, Vec::new(), 1).is_err(), "{bad}");
        }
    }
}
