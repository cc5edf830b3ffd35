//! The settings of a db-process.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use process::{Addresses, CommonSettings};
use protocol::InstanceName;
use url::{Host, Url};

use crate::store::BlockCache;

/// The system allows some 4,096 bytes, and the files in the folder have names as well.
const LONGEST_PATH: usize = 4_000;

/// Settings of a db-process: environment variables, and flags of the same names.
#[derive(Args, Clone, Debug)]
pub struct DbProcessConfig {
    /// The gateways, separated by commas
    #[arg(long, env = "SOCKET_SERVER_URL", default_value = "ws://localhost:3002", value_name = "URL,…")]
    #[arg(value_parser = server_url, value_delimiter = ',')]
    pub socket_server_url: Vec<Url>,
    /// Name of this process; its last number is its place in the ring. No two alike
    #[arg(long, env = "DB_INSTANCE_ID", default_value = "db-0", value_name = "NAME")]
    pub db_instance_id: InstanceName,
    /// Folder of its two databases and its identity [default: data/<DB_INSTANCE_ID>]
    #[arg(long, env = "DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Port on which its neighbours follow it; 0 takes any free one
    #[arg(long, env = "REPLICATION_PORT", default_value_t = 0, value_name = "PORT")]
    pub replication_port: u16,
    /// Addresses on which its neighbours follow it: localhost, all, or a list [default: localhost; all in
    /// production]
    #[arg(long, env = "REPLICATION_BIND_ADDRESS", value_name = "ADDRESSES")]
    pub replication_bind_address: Option<Addresses>,
    /// Host name or address, and port if it is another, at which its neighbours find it [default: the address
    /// that the gateway sees]
    #[arg(long, env = "REPLICATION_ADDRESS", value_name = "HOST[:PORT]", value_parser = advertised)]
    pub replication_address: Option<Advertised>,
    /// Memory for what is read from disk, of both databases together, in MiB
    #[arg(long, env = "CACHE_MIB", default_value_t = BlockCache::DEFAULT_MIB, value_name = "MIB")]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    pub cache_mib: u32,
    /// Asks the process that runs with these settings whether it is well, and exits with 0 if so
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "live", value_name = "WHAT")]
    pub healthcheck: Option<Health>,
    /// See there.
    #[command(flatten)]
    pub common: CommonSettings,
}

/// Where neighbours find a process, if that is not where it listens: behind NAT, or a port of a container
/// that is published as another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Host name or address.
    pub host: String,
    /// `None`: the port on which it listens.
    pub port: Option<NonZeroU16>,
}

/// What a health check asks for.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Whether it runs.
    Live,
    /// Whether it has joined a ring, and both its copies can serve.
    Ready,
}

impl Health {
    /// Where the process answers it.
    pub fn path(self) -> &'static str {
        match self {
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
        }
    }
}

impl DbProcessConfig {
    /// Folder of the process's data.
    pub fn data_dir(&self) -> PathBuf {
        let default = || PathBuf::from("data").join(self.db_instance_id.as_str());
        self.data_dir.clone().unwrap_or_else(default)
    }

    /// Where its neighbours follow it.
    pub fn replication_addresses(&self) -> Addresses {
        let default = || Addresses::of(self.common.environment());
        self.replication_bind_address.clone().unwrap_or_else(default)
    }

    /// Memory for what is read from disk, in bytes.
    pub fn cache_bytes(&self) -> usize {
        (self.cache_mib as usize).saturating_mul(1 << 20)
    }

    /// What the flags cannot check one by one.
    ///
    /// # Errors
    /// One line that names the variable, and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.common.check()?;
        let tls = self.common.ring_files.open(self.db_instance_id.as_str())?;
        let is_plain = |url: &Url| !matches!(url.scheme(), "wss" | "https");
        if tls.is_some() && self.socket_server_url.iter().any(is_plain) {
            return Err("SOCKET_SERVER_URL (--socket-server-url): RING_CERT_FILE is set, and it is without \
                        TLS; allowed: wss://…"
                .to_owned());
        }
        let length = self.data_dir().as_os_str().len();
        if length > LONGEST_PATH {
            return Err(format!(
                "DATA_DIR (--data-dir): its path has {length} bytes; allowed: at most {LONGEST_PATH}"
            ));
        }
        Ok(())
    }

    /// Asks the process that runs with these settings whether it is well.
    ///
    /// # Errors
    /// What is wrong, in words for a person.
    pub fn probe(&self, health: Health) -> Result<(), String> {
        match self.replication_port {
            0 => Err("REPLICATION_PORT (--replication-port): a health check needs a fixed one".to_owned()),
            port => {
                let files = self.common.ring_files.given()?;
                let tls = files.as_ref().map(process::self_trusting).transpose()?;
                process::probe_at(&self.replication_addresses(), port, health.path(), tls)
            }
        }
    }
}

fn server_url(text: &str) -> Result<Url, String> {
    let allowed = "a URL such as ws://gateway:3002";
    let url = Url::parse(text).map_err(|error| format!("{error}; allowed: {allowed}"))?;
    if !matches!(url.scheme(), "ws" | "wss" | "http" | "https") || url.host().is_none() {
        return Err(format!("allowed: {allowed}"));
    }
    Ok(url)
}

fn advertised(text: &str) -> Result<Advertised, String> {
    let allowed =
        || "allowed: a host name or an address, and a port: db-1.ring, [2001:db8::1]:3003".to_owned();
    let (name, port) = match text.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let port = port.map(str::parse).transpose().map_err(|_| allowed())?;
    let host = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_name = !name.contains([':', '/']) && Host::parse(name).is_ok();
    if is_name || host.parse::<IpAddr>().is_ok() {
        Ok(Advertised { host: host.to_owned(), port })
    } else {
        Err(allowed())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser, Debug)]
    struct Command {
        #[command(flatten)]
        config: DbProcessConfig,
    }

    fn parse(args: &[&str]) -> Result<DbProcessConfig, String> {
        Command::try_parse_from([&["db-process"], args].concat())
            .map(|command| command.config)
            .map_err(|error| process::explain(&error, &Command::command()))
    }

    #[test]
    fn defaults_follow_the_name() {
        let config = parse(&["--db-instance-id", "db-2"]).unwrap();
        assert_eq!(config.data_dir(), PathBuf::from("data/db-2"));
        assert_eq!((config.replication_port, &config.replication_address), (0, &None));
        assert_eq!(config.healthcheck, None);
        assert_eq!(config.cache_bytes(), 64 << 20);
    }

    #[test]
    fn neighbours_are_on_the_same_machine_unless_it_is_production_or_set() {
        let addresses = |args: &[&str]| parse(args).unwrap().replication_addresses();
        assert_eq!(addresses(&[]), Addresses::loopback());
        assert_eq!(addresses(&["--node-env=production"]), Addresses::all());
        assert_eq!(addresses(&["--replication-bind-address=10.0.0.1"]), "10.0.0.1".parse().unwrap());
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        for (flag, value, allowed) in [
            ("--socket-server-url", "gateway:3002", "ws://gateway:3002"),
            ("--socket-server-url", "3002", "ws://gateway:3002"),
            ("--db-instance-id", "db", "db-0, db-1"),
            ("--replication-address", "10.0.0.1:0", "and a port"),
            ("--replication-address", "db-1:70000", "and a port"),
            ("--replication-address", "[::1]:", "and a port"),
            ("--replication-address", "http://x", "and a port"),
            ("--cache-mib", "8", "a whole number from 16 to 1048576"),
            ("--cache-mib", "64M", "a whole number from 16 to 1048576"),
        ] {
            let line = parse(&[flag, value]).unwrap_err();
            assert!(line.contains(flag) && line.contains(value) && line.contains(allowed), "{line}");
        }
    }

    #[test]
    fn addresses_may_be_names_and_both_kinds_of_numbers() {
        for (given, host, port) in [
            ("db-1.ring", "db-1.ring", None),
            ("db-1.ring:3003", "db-1.ring", Some(3003)),
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:77", "10.0.0.1", Some(77)),
            ("[::1]", "::1", None),
            ("[::1]:77", "::1", Some(77)),
            ("::1", "::1", None),
        ] {
            let config = parse(&["--replication-address", given]).unwrap();
            let expected = Advertised { host: host.to_owned(), port: port.and_then(NonZeroU16::new) };
            assert_eq!(config.replication_address, Some(expected));
        }
    }

    #[test]
    fn a_secret_is_needed_and_production_needs_a_good_one() {
        for (secret, environment, good) in [
            (None, "development", false),
            (Some("s"), "development", true),
            (Some("s"), "production", false),
            (Some("of sixteen bytes"), "production", true),
        ] {
            let secret = secret.map(|secret| format!("--cluster-secret={secret}"));
            let flags = [Some("--node-env"), Some(environment), secret.as_deref()];
            let checked = parse(&flags.into_iter().flatten().collect::<Vec<_>>()).unwrap().check();
            assert_eq!(checked.is_ok(), good);
            assert!(checked.err().is_none_or(|line| line.starts_with("CLUSTER_SECRET")));
        }
    }

    #[test]
    fn a_path_that_leaves_no_room_for_files_is_refused() {
        let check = |length: usize| {
            let folder = "x/".repeat(length / 2);
            parse(&["--cluster-secret", "sesame", "--data-dir", &folder]).unwrap().check()
        };
        assert_eq!(check(4_000), Ok(()));
        let line = check(4_002).unwrap_err();
        assert!(line.starts_with("DATA_DIR (--data-dir)") && line.contains("4002 bytes"), "{line}");
    }

    #[test]
    fn a_health_check_asks_for_live_by_default() {
        assert_eq!(parse(&["--healthcheck"]).unwrap().healthcheck, Some(Health::Live));
        assert_eq!(parse(&["--healthcheck=ready"]).unwrap().healthcheck, Some(Health::Ready));
        let error = parse(&[]).unwrap().probe(Health::Live).unwrap_err();
        assert!(error.contains("REPLICATION_PORT"), "{error}");
    }
}
