//! Settings of the gateway: environment variables, and flags of the same names.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use process::handshake::GATEWAY;
use process::secret::{self, Secret};
use process::{Addresses, CommonSettings, NodeEnv, TlsFiles};

use crate::audit::{Audit, Target};
use crate::http::{
    self, Access, Advertised, AllowedHost, AllowedOrigin, HttpSettings, Launcher, Rate, Sites, Token,
};
use crate::tokens_file;

/// The longest name of a gateway.
const MAX_NAME: usize = 64;

/// The REST gateway of a ring of users
#[derive(Parser, Clone, Debug)]
#[command(name = "gateway", version)]
pub struct GatewayConfig {
    /// Port of the REST API; 0 takes any free one
    #[arg(long, env = "REST_PORT", default_value_t = 3001, value_name = "PORT")]
    pub rest_port: u16,
    /// Port on which the db-processes connect; 0 takes any free one
    #[arg(long, env = "SOCKET_PORT", default_value_t = 3002, value_name = "PORT")]
    pub socket_port: u16,
    /// Addresses of the REST API: localhost, all, or a list [default: localhost; all in production]
    #[arg(long, env = "REST_ADDRESS", value_name = "ADDRESSES")]
    pub rest_address: Option<Addresses>,
    /// Addresses on which the db-processes connect: localhost, all, or a list [default: localhost; all in
    /// production]
    #[arg(long, env = "SOCKET_ADDRESS", value_name = "ADDRESSES")]
    pub socket_address: Option<Addresses>,
    /// Number of db-processes, for a ring that has no data yet: 1 to 999
    #[arg(long, env = "DB_PROCESSES", default_value_t = 3, value_name = "NUMBER",
          value_parser = clap::value_parser!(u16).range(1..=999))]
    pub db_processes: u16,
    /// Certificate of the REST API, and those between it and its CA, as PEM; read again when it changes
    #[arg(long, env = "TLS_CERT_FILE", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of that certificate, as PEM
    #[arg(long, env = "TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Production serves the REST API to other machines without TLS, too: where a proxy or a network keeps
    /// strangers out
    #[arg(long, env = "ALLOW_PLAINTEXT", value_name = "BOOL", default_value = "false",
          default_missing_value = "true", num_args = 0..=1, require_equals = true,
          action = clap::ArgAction::Set)]
    pub allow_plaintext: bool,
    /// Token of the role admin, or several separated by commas; sent as Authorization: Bearer
    #[arg(long, env = "API_TOKEN", hide_env_values = true, value_name = "TEXT")]
    pub api_token: Option<Secret>,
    /// File with that token, or several
    #[arg(long, env = "API_TOKEN_FILE", value_name = "FILE")]
    pub api_token_file: Option<PathBuf>,
    /// Tokens name:role:secret, separated by commas or line ends; role: read, write or admin
    #[arg(long, env = "API_TOKENS", hide_env_values = true, value_name = "TEXT")]
    pub api_tokens: Option<Secret>,
    /// File of tokens name:role:sha256:digest, as corro token new makes them; read again when it changes
    #[arg(long, env = "API_TOKENS_FILE", value_name = "FILE")]
    pub api_tokens_file: Option<PathBuf>,
    /// Requests without a token may do everything; for a ring that no stranger reaches
    #[arg(long, env = "ALLOW_ANONYMOUS", value_name = "BOOL", default_value = "false",
          default_missing_value = "true", num_args = 0..=1, require_equals = true,
          action = clap::ArgAction::Set)]
    pub allow_anonymous: bool,
    /// Names of the gateway beside localhost, those of its machine and its certificate, and all addresses,
    /// separated by commas; * for any
    #[arg(long, env = "ALLOWED_HOSTS", value_delimiter = ',', value_name = "NAMES",
          value_parser = some(AllowedHost::parse))]
    pub allowed_hosts: Vec<Option<AllowedHost>>,
    /// Origins of pages that may use the gateway beside its own, separated by commas; local for those of this
    /// machine, * for any
    #[arg(long, env = "ALLOWED_ORIGINS", value_delimiter = ',', value_name = "ORIGINS",
          default_value = "local", value_parser = some(AllowedOrigin::parse))]
    pub allowed_origins: Vec<Option<AllowedOrigin>>,
    /// Name of this gateway among those of its ring; no two alike
    #[arg(long, env = "GATEWAY_NAME", default_value = "gateway", value_name = "NAME",
          value_parser = gateway_name)]
    pub gateway_name: String,
    /// Host name or address, and port if it is another, at which other gateways find the REST API [default:
    /// the address that the db-processes see]
    #[arg(long, env = "ADVERTISED_ADDRESS", value_name = "HOST[:PORT]", value_parser = Advertised::parse)]
    pub advertised_address: Option<Advertised>,
    /// So many seconds after a user was deleted nothing is kept of it any more; 0 keeps what is left for ever
    #[arg(long, env = "PURGE_AFTER", default_value_t = 86_400, value_name = "SECONDS")]
    pub purge_after: u64,
    /// So many seconds the data of a db-process may be ahead of this clock; it is refused otherwise
    #[arg(long, env = "MAX_CLOCK_OFFSET", default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub max_clock_offset: u64,
    /// So many requests a second of one token, or of one address where requests show none [default: no
    /// limit]
    #[arg(long, env = "RATE_LIMIT", value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_limit: Option<u32>,
    /// So many of them at once, after a pause [default: twice RATE_LIMIT]
    #[arg(long, env = "RATE_BURST", value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_burst: Option<u32>,
    /// File of the audit log, or - for stdout: a line of JSON for each write and each call of an
    /// administrator
    #[arg(long, env = "AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<Target>,
    /// Nothing is done that is not in the audit log: while it cannot be written, writes are answered 503
    #[arg(long, env = "AUDIT_STRICT", value_name = "BOOL", default_value = "false",
          default_missing_value = "true", num_args = 0..=1, require_equals = true,
          action = clap::ArgAction::Set)]
    pub audit_strict: bool,
    /// So much the audit log takes at most, in MiB; the oldest lines go
    #[arg(long, env = "AUDIT_MAX_MIB", default_value_t = 1_024, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub audit_max_mib: u32,
    /// What started the ring; the page at / says accordingly how to stop a process of it
    #[arg(long, env = "CORRO_LAUNCHER", value_enum, default_value_t, value_name = "NAME")]
    pub launcher: Launcher,
    /// Asks the gateway that runs with these settings whether it is well, and exits with 0 if so
    #[arg(long)]
    pub healthcheck: bool,
    /// What both kinds of process have.
    #[command(flatten)]
    pub common: CommonSettings,
}

impl GatewayConfig {
    /// What no single value can show: whether the settings fit together.
    ///
    /// # Errors
    /// One line that names the variable and what is allowed. It does not show secrets.
    pub fn validate(&self) -> Result<(), String> {
        self.common.check()?;
        if self.rest_port == self.socket_port && self.rest_port != 0 {
            return Err(format!(
                "SOCKET_PORT (--socket-port): {} is REST_PORT as well; allowed: any other port",
                self.socket_port
            ));
        }
        if self.audit_strict && self.audit_log.is_none() {
            return Err("AUDIT_STRICT (--audit-strict): AUDIT_LOG is not set; allowed: both".to_owned());
        }
        self.tokens()?;
        self.check_tls()?;
        self.common.ring_files.open(GATEWAY)?;
        self.api_tokens_file.as_deref().map_or(Ok(()), |file| tokens_file::read(file).map(drop))
    }

    /// Whether strangers on the way could read along where it matters, and whether TLS would be possible.
    fn check_tls(&self) -> Result<(), String> {
        if let Some(tls) = self.tls()? {
            return http::tls(tls).map(drop);
        }
        let needed =
            self.common.environment() == NodeEnv::Production && !self.rest_addresses().are_loopback();
        if needed && !self.allow_plaintext {
            return Err(
                "TLS_CERT_FILE (--tls-cert-file): it is missing, and NODE_ENV=production serves other \
                        machines with TLS; allowed: TLS_CERT_FILE and TLS_KEY_FILE, or \
                        REST_ADDRESS=localhost, or ALLOW_PLAINTEXT=true"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The files of the certificate of the REST API, if it has one.
    ///
    /// # Errors
    /// One line that names the variable that is missing.
    pub(crate) fn tls(&self) -> Result<Option<TlsFiles>, String> {
        TlsFiles::given("TLS", self.tls_cert_file.as_deref(), self.tls_key_file.as_deref())
    }

    /// The tokens that stay as they are: those of the file may change.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub(crate) fn tokens(&self) -> Result<Vec<Token>, String> {
        let mut tokens = Vec::new();
        let plain = secret::given("API_TOKEN", self.api_token.as_ref(), self.api_token_file.as_deref())?;
        if let Some(list) = plain {
            tokens.extend(
                Token::of_plain_list(&list).map_err(|bad| format!("API_TOKEN (--api-token): {bad}"))?,
            );
            self.check_strength("API_TOKEN", &list)?;
        }
        if let Some(list) = &self.api_tokens {
            tokens.extend(Token::of_list(list).map_err(|bad| format!("API_TOKENS (--api-tokens): {bad}"))?);
            self.check_strength("API_TOKENS", list)?;
        }
        Ok(tokens)
    }

    /// Whether production accepts each secret of a list.
    fn check_strength(&self, variable: &str, list: &Secret) -> Result<(), String> {
        let secrets = list.expose().split([',', '\n']).filter_map(|entry| entry.rsplit(':').next());
        let mut secrets = secrets.filter_map(|secret| secret.trim().parse::<Secret>().ok());
        secrets.try_for_each(|secret| self.common.check_strength(variable, &secret))
    }

    /// Where the REST API is.
    pub fn rest_addresses(&self) -> Addresses {
        self.rest_address.clone().unwrap_or_else(|| Addresses::of(self.common.environment()))
    }

    /// Where db-processes connect.
    pub fn socket_addresses(&self) -> Addresses {
        self.socket_address.clone().unwrap_or_else(|| Addresses::of(self.common.environment()))
    }

    /// The age at which tombstones go, if they do.
    pub fn purge_after(&self) -> Option<Duration> {
        (self.purge_after > 0).then(|| Duration::from_secs(self.purge_after))
    }

    /// Opens the audit log, if there is to be one.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn open_audit(&self) -> std::io::Result<Audit> {
        let most = u64::from(self.audit_max_mib) << 20;
        self.audit_log.as_ref().map_or(Ok(Audit::default()), |to| Audit::open(to, self.audit_strict, most))
    }

    /// How many requests a client may begin in a second, if that is bounded.
    pub fn rate(&self) -> Option<Rate> {
        let per_second = NonZeroU32::new(self.rate_limit?)?;
        let burst = self.rate_burst.and_then(NonZeroU32::new);
        let two = NonZeroU32::MIN.saturating_add(1);
        Some(Rate { per_second, burst: burst.unwrap_or_else(|| per_second.saturating_mul(two)) })
    }

    /// The settings of the HTTP side, without the tokens of the file. Tokens that [`Self::validate`] refuses
    /// admit no request.
    pub fn http_settings(&self) -> HttpSettings {
        let listed = self.allowed_hosts.iter().flatten().cloned();
        let certified = self.tls().ok().flatten().and_then(|tls| tls.names().ok()).unwrap_or_default();
        HttpSettings {
            access: Access::new(self.tokens().unwrap_or_default(), self.allow_anonymous),
            sites: Sites::new(
                // Requests that other gateways forward ask for that address.
                listed
                    .chain(certified.into_iter().map(AllowedHost::Name))
                    .chain(self.advertised_address.as_ref().map(Advertised::name))
                    .collect(),
                self.allowed_origins.iter().flatten().cloned().collect(),
            ),
            launcher: self.launcher,
            rate: self.rate(),
            ..HttpSettings::default()
        }
    }
}

/// A list may be empty, which is one entry that is empty.
fn some<T>(
    parse: fn(&str) -> Result<T, &'static str>,
) -> impl Fn(&str) -> Result<Option<T>, &'static str> + Clone {
    move |text| if text.trim().is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// Names appear in metrics and in the page.
fn gateway_name(text: &str) -> Result<String, &'static str> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_good) {
        Ok(text.to_owned())
    } else {
        Err("allowed: 1 to 64 letters, digits, hyphens and dots")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn config(args: &[&str]) -> Result<GatewayConfig, String> {
        GatewayConfig::try_parse_from([&["gateway"], args].concat())
            .map_err(|error| process::explain(&error, &GatewayConfig::command()))
    }

    /// The one line with which a start is refused.
    fn refusal(args: &[&str]) -> String {
        let line = config(args).and_then(|config| config.validate()).expect_err("a refusal");
        assert!(!line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn nothing_has_to_be_set_but_the_secret() {
        let config = config(&["--cluster-secret=sesame"]).expect("defaults");
        assert_eq!((config.rest_port, config.socket_port, config.db_processes), (3001, 3002, 3));
        assert!(config.validate().is_ok());
        assert!(config.http_settings().access.summary().contains("/api answers 401"));
        assert_eq!(config.purge_after(), Some(Duration::from_secs(24 * 60 * 60)));
    }

    #[test]
    fn limits_are_allowed() {
        for args in [
            &["--rest-port", "0", "--socket-port", "0"][..],
            &["--db-processes", "1"],
            &["--db-processes", "999"],
            &["--node-env", "production", "--allow-plaintext"],
            &["--node-env", "production", "--rest-address=localhost"],
            &["--api-token", "one, two"],
            &["--api-tokens", "ci:write:sesame,\nops:admin:barley", "--allow-anonymous=false"],
            &["--allow-anonymous"],
        ] {
            let args = &[args, &["--cluster-secret", "of sixteen bytes"]].concat();
            assert!(config(args).and_then(|config| config.validate()).is_ok(), "{args:?}");
        }
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        for number in ["0", "1000", "70000", "-1", "three"] {
            let line = refusal(&[&format!("--db-processes={number}")]);
            assert!(line.starts_with("DB_PROCESSES (--db-processes): "), "{line}");
            assert!(line.contains(&format!("{number:?}")), "{line}");
            assert!(line.ends_with("allowed: a whole number from 1 to 999"), "{line}");
        }
        assert_eq!(
            refusal(&["--rest-port", "65536"]),
            r#"REST_PORT (--rest-port): "65536" is not allowed; allowed: a whole number from 0 to 65535"#
        );
        assert_eq!(
            refusal(&["--rest-port", "4000", "--socket-port", "4000", "--cluster-secret", "sesame"]),
            "SOCKET_PORT (--socket-port): 4000 is REST_PORT as well; allowed: any other port"
        );
    }

    #[test]
    fn a_burst_is_twice_the_rate_where_it_is_not_set() {
        let rate = |args: &[&str]| {
            let rate = config(args).expect("numbers").rate();
            rate.map(|rate| (rate.per_second.get(), rate.burst.get()))
        };
        assert_eq!(rate(&[]), None);
        assert_eq!(rate(&["--rate-burst=9"]), None);
        assert_eq!(rate(&["--rate-limit=7"]), Some((7, 14)));
        assert_eq!(rate(&["--rate-limit=4294967295"]), Some((u32::MAX, u32::MAX)));
        assert_eq!(rate(&["--rate-limit=7", "--rate-burst=1"]), Some((7, 1)));
        let line = refusal(&["--rate-limit=0"]);
        assert!(line.starts_with("RATE_LIMIT (--rate-limit): \"0\" is not allowed"), "{line}");
    }

    #[test]
    fn ports_are_open_to_other_machines_in_production_or_where_it_is_set() {
        let addresses = |args: &[&str]| {
            let config = config(args).expect("addresses");
            (config.rest_addresses(), config.socket_addresses())
        };
        let (all, loopback) = (Addresses::all(), Addresses::loopback());
        assert_eq!(addresses(&[]), (loopback.clone(), loopback.clone()));
        assert_eq!(addresses(&["--node-env=production"]), (all.clone(), all.clone()));
        assert_eq!(addresses(&["--rest-address=all"]), (all, loopback));
        let line = refusal(&["--socket-address", "gateway"]);
        assert!(
            line.starts_with(
                "SOCKET_ADDRESS (--socket-address): \"gateway\" is not allowed; allowed: localhost"
            ),
            "{line}"
        );
    }

    #[test]
    fn lists_of_hosts_and_origins() {
        let lists = |args: &[&str]| {
            let config = config(args).expect("lists");
            let origins = config.allowed_origins.into_iter().flatten().collect::<Vec<_>>();
            (config.allowed_hosts.into_iter().flatten().collect::<Vec<_>>(), origins)
        };
        assert_eq!(lists(&[]), (vec![], vec![AllowedOrigin::Local]));
        assert_eq!(lists(&["--allowed-hosts=", "--allowed-origins="]), (vec![], vec![]));
        let name = |name: &str| AllowedHost::Name(name.to_owned());
        assert_eq!(
            lists(&["--allowed-hosts=gateway, api.example.org"]).0,
            [name("gateway"), name("api.example.org")]
        );
        let line = refusal(&["--allowed-hosts", "gateway:3001"]);
        assert!(
            line.starts_with("ALLOWED_HOSTS (--allowed-hosts): \"gateway:3001\" is not allowed"),
            "{line}"
        );
        let line = refusal(&["--allowed-origins", "app.example.org"]);
        assert!(line.ends_with("separated by commas; local; or *"), "{line}");
    }

    #[test]
    fn gateways_have_names_and_addresses() {
        let one = config(&["--gateway-name=gateway-1.a", "--advertised-address=gw-1:4001"]).expect("both");
        assert_eq!(one.gateway_name, "gateway-1.a");
        assert_eq!(one.advertised_address.map(|at| at.to_string()).as_deref(), Some("gw-1:4001"));
        assert_eq!(config(&[]).expect("defaults").gateway_name, "gateway");
        for bad in ["", "a b", "a_b", "ä", &"a".repeat(65)] {
            let line = refusal(&[&format!("--gateway-name={bad}")]);
            assert!(line.starts_with("GATEWAY_NAME (--gateway-name): "), "{line}");
        }
        let line = refusal(&["--advertised-address=http://a"]);
        assert!(line.starts_with("ADVERTISED_ADDRESS (--advertised-address): "), "{line}");
    }

    #[test]
    fn a_secret_is_needed_and_production_needs_good_ones() {
        let line = refusal(&[]);
        assert!(line.starts_with("CLUSTER_SECRET (--cluster-secret): it is missing"), "{line}");
        let line = refusal(&["--node-env", "production", "--cluster-secret", "change-me"]);
        assert!(line.starts_with("CLUSTER_SECRET: it can be guessed"), "{line}");
        let good = ["--node-env=production", "--cluster-secret=of sixteen bytes", "--rest-address=localhost"];
        let line = refusal(&[&good[..], &["--api-token", "of-sixteen-bytes,short"]].concat());
        assert!(line.starts_with("API_TOKEN: it can be guessed"), "{line}");
        let line = refusal(&[&good[..], &["--api-tokens", "ci:write:short"]].concat());
        assert!(line.starts_with("API_TOKENS: it can be guessed"), "{line}");
    }

    #[test]
    fn production_serves_other_machines_with_tls_or_where_it_is_told_not_to() {
        let production = ["--node-env=production", "--cluster-secret=of sixteen bytes"];
        let line = refusal(&production);
        assert!(line.starts_with("TLS_CERT_FILE (--tls-cert-file): it is missing"), "{line}");
        assert!(line.ends_with("ALLOW_PLAINTEXT=true"), "{line}");
        let folder = tempfile::tempdir().expect("a folder");
        let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
        let made = rcgen::generate_simple_self_signed(["api.example.org".to_owned()]).expect("a certificate");
        std::fs::write(&cert, made.cert.pem()).expect("a file");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
        let flags =
            [format!("--tls-cert-file={}", cert.display()), format!("--tls-key-file={}", key.display())];
        let with_tls = [&production[..], &[&flags[0], &flags[1]]].concat();
        let config = config(&with_tls).expect("flags");
        assert_eq!(config.validate(), Ok(()));
        assert!(format!("{:?}", config.http_settings().sites).contains("api.example.org"));
        let line = refusal(&[&production[..], &["--allow-plaintext", &flags[1]]].concat());
        assert!(line.starts_with("TLS_CERT_FILE: it is missing"), "{line}");
        let line = refusal(&[&production[..], &["--allow-plaintext", &flags[0]]].concat());
        assert!(line.starts_with("TLS_KEY_FILE: it is missing"), "{line}");
        std::fs::write(&key, "hush").expect("a file");
        let line = refusal(&with_tls);
        assert!(line.starts_with("TLS_KEY_FILE: ") && !line.contains("hush"), "{line}");
    }

    #[test]
    fn tokens_may_be_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens");
        std::fs::write(&file, "one,two\n").expect("a file");
        let flag = format!("--api-token-file={}", file.display());
        let config = config(&["--cluster-secret=sesame", &flag]).expect("a file");
        assert!(config.validate().is_ok());
        assert!(config.http_settings().access.summary().contains("admin: 2"));
        let line = refusal(&["--cluster-secret=sesame", "--api-token=one", &flag]);
        assert_eq!(line, "API_TOKEN_FILE: API_TOKEN is set as well; allowed: one of the two");
        drop(folder);
        assert!(refusal(&["--cluster-secret=sesame", &flag]).starts_with("API_TOKEN_FILE: "));
        assert!(config.http_settings().access.summary().contains("401"), "no one is let in");
    }

    #[test]
    fn a_bad_token_is_refused_without_being_shown() {
        for bad in ["hush,", "hush,,hush", "hush hush"] {
            let line = refusal(&["--api-token", bad, "--cluster-secret", "sesame"]);
            assert!(line.starts_with("API_TOKEN (--api-token): "), "{line}");
            assert!(!line.contains("hush"), "{line}");
        }
        let config = config(&["--api-token", "hush"]).expect("a token");
        assert!(!format!("{config:?} {:?}", config.http_settings()).contains("hush"));
        assert!(refusal(&["--api-token", ""]).starts_with("API_TOKEN (--api-token): "));
        let line = refusal(&["--cluster-secret=sesame", "--api-tokens", "ci:writer:hush"]);
        assert!(line.starts_with("API_TOKENS (--api-tokens): entry 1: ") && !line.contains("hush"), "{line}");
        let line = refusal(&["--cluster-secret=sesame", "--api-tokens-file", "/no/such/file"]);
        assert!(line.starts_with("API_TOKENS_FILE (--api-tokens-file): /no/such/file: "), "{line}");
        let line = refusal(&["--allow-anonymous=perhaps"]);
        assert!(line.ends_with("allowed: true, false"), "{line}");
    }

    #[test]
    fn the_help_lists_every_variable() {
        let help = GatewayConfig::command().render_long_help().to_string();
        for variable in [
            "REST_PORT",
            "SOCKET_PORT",
            "REST_ADDRESS",
            "SOCKET_ADDRESS",
            "DB_PROCESSES",
            "API_TOKEN",
            "API_TOKEN_FILE",
            "API_TOKENS",
            "API_TOKENS_FILE",
            "ALLOW_ANONYMOUS",
            "GATEWAY_NAME",
            "ADVERTISED_ADDRESS",
            "ALLOWED_HOSTS",
            "ALLOWED_ORIGINS",
            "PURGE_AFTER",
            "MAX_CLOCK_OFFSET",
            "RATE_LIMIT",
            "RATE_BURST",
            "AUDIT_LOG",
            "AUDIT_STRICT",
            "AUDIT_MAX_MIB",
            "CORRO_LAUNCHER",
            "NODE_ENV",
            "CORRO_ENV",
            "LOG_DIR",
            "CLUSTER_SECRET",
            "CLUSTER_SECRET_FILE",
        ] {
            assert!(help.contains(&format!("[env: {variable}")), "{variable}");
        }
    }
}
