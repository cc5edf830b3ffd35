//! Settings from flags and environment variables, and what is said where one is bad.

use std::any::TypeId;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{Write as _, stderr};
use std::path::PathBuf;
use std::process::exit;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, Command, Parser, ValueEnum};

use crate::ring_files::RingFiles;
use crate::secret::{self, Secret};

/// Settings that both kinds of process have.
#[derive(Args, Clone, Debug)]
pub struct CommonSettings {
    /// production turns debug traces off, and refuses secrets that can be guessed [default: development]
    #[arg(long, env = "NODE_ENV", value_enum)]
    pub node_env: Option<NodeEnv>,
    /// The same as NODE_ENV, and wins over it
    #[arg(long, env = "CORRO_ENV", value_enum)]
    pub corro_env: Option<NodeEnv>,
    /// Folder of the daily log files, 14 of which are kept
    #[arg(long, env = "LOG_DIR", default_value = "logs", value_name = "FOLDER")]
    pub log_dir: PathBuf,
    /// Most that the log files of this process take together, in MiB; a file is at most an eighth of it, and
    /// the oldest go first
    #[arg(long, env = "LOG_MAX_MIB", default_value_t = CommonSettings::LOG_MAX_MIB, value_name = "MIB",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub log_max_mib: u32,
    /// Secret that all processes of a ring share, or else CLUSTER_SECRET_FILE: openssl rand -hex 32
    #[arg(long, env = "CLUSTER_SECRET", hide_env_values = true, value_name = "TEXT")]
    pub cluster_secret: Option<Secret>,
    /// File with that secret
    #[arg(long, env = "CLUSTER_SECRET_FILE", value_name = "FILE")]
    pub cluster_secret_file: Option<PathBuf>,
    /// TLS of the inner ports.
    #[command(flatten)]
    pub ring_files: RingFiles,
}

impl CommonSettings {
    /// Room for the debug lines of a busy day, and little beside the data.
    pub const LOG_MAX_MIB: u32 = 256;

    /// What the process runs for.
    pub fn environment(&self) -> NodeEnv {
        let both = [self.corro_env, self.node_env];
        // The stricter one: no variable that is left over from elsewhere takes the demand for a good secret
        // away.
        if both.contains(&Some(NodeEnv::Production)) { NodeEnv::Production } else { NodeEnv::Development }
    }

    /// The secret of the ring.
    ///
    /// # Errors
    /// One line that names the variable and what is allowed, if there is none, or one that production does
    /// not accept.
    pub fn ring_secret(&self) -> Result<Secret, String> {
        let secret = secret::given(
            "CLUSTER_SECRET",
            self.cluster_secret.as_ref(),
            self.cluster_secret_file.as_deref(),
        )?;
        let secret = secret.ok_or(
            "CLUSTER_SECRET (--cluster-secret): it is missing, and CLUSTER_SECRET_FILE too; make one for all \
             processes of the ring: openssl rand -hex 32",
        )?;
        self.check_strength("CLUSTER_SECRET", &secret)?;
        Ok(secret)
    }

    /// Whether production accepts a secret.
    ///
    /// # Errors
    /// One line that names the variable and what is allowed.
    pub fn check_strength(&self, variable: &str, secret: &Secret) -> Result<(), String> {
        if self.environment() == NodeEnv::Production && secret.is_weak() {
            return Err(format!(
                "{variable}: it can be guessed, which NODE_ENV=production refuses; allowed: at least 16 \
                 bytes, such as those of `openssl rand -hex 32`, and not change-me"
            ));
        }
        Ok(())
    }

    /// What no single value can show.
    ///
    /// # Errors
    /// One line that names the variable and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        self.ring_secret().map(drop)
    }
}

/// What a process runs for.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEnv {
    /// At a desk: debug lines in the log, and any secret.
    Development,
    /// For real.
    Production,
}

/// Parses flags and environment. `--help` works as usual; a bad value ends the process with exit code 2 and
/// one line.
pub fn settings<T: Parser>() -> T {
    T::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            error.exit(); // the help or the version is what is wanted
        }
        let line = match error.kind() {
            ErrorKind::InvalidUtf8 => {
                not_unicode(&T::command(), std::env::args_os(), |name| std::env::var_os(name))
            }
            _ => explain(&error, &T::command()),
        };
        complain(&line);
        exit(2)
    })
}

/// Prints a line to standard error. Where that is closed or full, the exit code has to say it.
pub fn complain(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// One line that names the variable, the value and what is allowed.
pub fn explain(error: &clap::Error, command: &Command) -> String {
    let mut command = command.clone();
    command.build(); // names the arguments as the error does
    let arg = text(error, ContextKind::InvalidArg).unwrap_or_default();
    let known = all(&command).into_iter().find(|known| known.to_string() == arg);
    let name = known.map_or(arg, variable);
    let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
    let mut line = match error.kind() {
        ErrorKind::InvalidValue if value.is_empty() => format!("{name}: a value is missing"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => format!("{name}: {value:?} is not allowed"),
        ErrorKind::UnknownArgument if name.starts_with('-') => match elsewhere(&command, &name) {
            Some(place) => return format!("{name}: there is no such flag here; {place}"),
            None => format!("{name}: there is no such flag"),
        },
        ErrorKind::UnknownArgument => format!("{name}: there is nothing that takes this argument"),
        ErrorKind::InvalidSubcommand => {
            format!(
                "{}: there is no such command",
                text(error, ContextKind::InvalidSubcommand).unwrap_or_default()
            )
        }
        ErrorKind::MissingRequiredArgument => format!("{name}: it is missing"),
        _ => clap_text(error),
    };
    let meant = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand];
    if let Some(meant) = meant.into_iter().find_map(|kind| text(error, kind)) {
        write!(line, "; did you mean {meant}?").expect("a string takes all text");
        return line;
    }
    let allowed = text(error, ContextKind::ValidValue).or_else(|| text(error, ContextKind::ValidSubcommand));
    let reason = error.source().map(ToString::to_string);
    if let Some(allowed) = allowed.filter(|allowed| !allowed.is_empty()) {
        write!(line, "; allowed: {allowed}").expect("a string takes all text");
    } else if let Some(reason) = reason.as_ref().filter(|reason| reason.starts_with("allowed: ")) {
        write!(line, "; {reason}").expect("a string takes all text");
    } else if let Some(numbers) = known.and_then(whole_numbers) {
        write!(line, "; allowed: {numbers}").expect("a string takes all text");
    } else if let Some(reason) = reason {
        write!(line, ": {reason}").expect("a string takes all text");
    }
    line
}

/// Where a flag that is not known in its place would be: after a command, or as a value without a flag.
fn elsewhere(command: &Command, flag: &str) -> Option<String> {
    let name = flag.trim_start_matches('-');
    let arguments = all(command);
    if let Some(value) = arguments.iter().find(|arg| arg.is_positional() && arg.get_id() == name) {
        return Some(format!("{value} is given without one"));
    }
    let known = arguments.iter().any(|arg| arg.get_long() == Some(name));
    known.then(|| format!("{flag} belongs after the command that takes it"))
}

/// The variable that sets this argument, and the flag.
fn variable(arg: &Arg) -> String {
    match (arg.get_env(), arg.get_long()) {
        (Some(variable), Some(flag)) => format!("{} (--{flag})", variable.to_string_lossy()),
        (Some(variable), None) => variable.to_string_lossy().into_owned(),
        (None, Some(flag)) => format!("--{flag}"),
        (None, None) => arg.to_string(),
    }
}

/// What a number may be: for those, the reason that clap gives ("invalid digit found in string") helps no
/// one. clap says the range only of a value that is beyond it.
fn whole_numbers(arg: &Arg) -> Option<String> {
    let kind = arg.get_value_parser().type_id();
    if kind == TypeId::of::<i32>() {
        return Some(format!("a whole number from {} to {}", i32::MIN, i32::MAX));
    }
    let numbers = [TypeId::of::<u8>(), TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>()];
    if !numbers.into_iter().any(|number| kind == number) && kind != TypeId::of::<usize>() {
        return None;
    }
    let range = ["-1", "0", "18446744073709551615"].into_iter().find_map(|beyond| {
        let alone = Arg::new("number").long("number").value_parser(arg.get_value_parser().clone());
        let number = format!("--number={beyond}");
        let error = Command::new("alone").arg(alone).try_get_matches_from(["alone", &number]).err()?;
        error.source()?.to_string().split_once(" is not in ").map(|(_, range)| range.to_owned())
    });
    let range = range.unwrap_or_else(|| "0..".to_owned());
    Some(match range.split_once("..").unwrap_or((&range, "")) {
        (first, "") => format!("a whole number from {first}"),
        (first, last) => format!("a whole number from {first} to {}", last.trim_start_matches('=')),
    })
}

/// One line that names the variable or the flag whose value is not UTF-8, which clap does not.
fn not_unicode(
    command: &Command,
    flags: impl Iterator<Item = OsString>,
    value: impl Fn(&OsStr) -> Option<OsString>,
) -> String {
    let mut command = command.clone();
    command.build();
    let mut last = String::new();
    for flag in flags {
        match flag.to_str() {
            Some(text) => last = text.to_owned(),
            // `--flag=value`, or `--flag value`.
            None => {
                let shown = flag.to_string_lossy();
                let name = shown.split_once('=').map_or(&*last, |(name, _)| name);
                return format!("{name}: {shown:?} is not allowed; allowed: UTF-8");
            }
        }
    }
    let is_bad = |arg: &&Arg| {
        let path = arg.get_value_parser().type_id() == TypeId::of::<PathBuf>();
        let value = arg.get_env().and_then(&value);
        !path && value.is_some_and(|value| value.to_str().is_none())
    };
    match all(&command).into_iter().find(is_bad) {
        // A secret may be among them.
        Some(arg) => format!("{}: its value is not allowed; allowed: UTF-8", variable(arg)),
        None => "a value is not allowed; allowed: UTF-8".to_owned(),
    }
}

/// The arguments of the command and its subcommands.
fn all(command: &Command) -> Vec<&Arg> {
    command.get_arguments().chain(command.get_subcommands().flat_map(all)).collect()
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(", ")),
        _ => None,
    }
}

/// The first line of what clap says, for kinds of errors that are rare here.
fn clap_text(error: &clap::Error) -> String {
    let rendered = error.to_string();
    let line = rendered.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use clap::{CommandFactory, Subcommand};

    use super::*;

    /// The whole thing
    #[derive(Parser, Debug)]
    #[command(name = "thing", version)]
    struct Thing {
        #[command(subcommand)]
        command: Part,
    }

    #[derive(Subcommand, Debug)]
    enum Part {
        /// One part
        One(One),
        /// Another
        Other {
            /// What it is about
            what: String,
        },
    }

    #[derive(Args, Debug)]
    struct One {
        /// HTTP
        #[arg(long, env = "EXPLAIN_TEST_PORT", default_value_t = 3001)]
        rest_port: u16,
        #[arg(long, env = "EXPLAIN_TEST_SIZE", default_value_t = 3)]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=255))]
        size: u16,
        #[arg(long, default_value_t = 3)]
        long: u64,
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
        some: u64,
        #[arg(long, default_value_t = 3)]
        signed: i32,
        #[arg(long, default_value = "a", value_parser = letter)]
        letter: String,
        #[command(flatten)]
        common: CommonSettings,
    }

    fn letter(text: &str) -> Result<String, String> {
        if text.len() == 1 { Ok(text.to_owned()) } else { Err("allowed: one letter".to_owned()) }
    }

    fn said(args: &[&str]) -> String {
        let error = Thing::try_parse_from([&["thing", "one"], args].concat()).unwrap_err();
        explain(&error, &Thing::command())
    }

    #[test]
    fn a_bad_value_is_one_line_with_the_variable_the_value_and_what_is_allowed() {
        assert_eq!(
            said(&["--node-env", "staging"]),
            r#"NODE_ENV (--node-env): "staging" is not allowed; allowed: development, production"#
        );
        assert_eq!(
            said(&["--rest-port", "http"]),
            r#"EXPLAIN_TEST_PORT (--rest-port): "http" is not allowed; allowed: "#.to_owned()
                + "a whole number from 0 to 65535"
        );
        assert_eq!(
            said(&["--rest-port", "70000"]),
            r#"EXPLAIN_TEST_PORT (--rest-port): "70000" is not allowed; allowed: "#.to_owned()
                + "a whole number from 0 to 65535"
        );
        assert_eq!(
            said(&["--log-max-mib", "0"]),
            r#"LOG_MAX_MIB (--log-max-mib): "0" is not allowed; allowed: a whole number from 1 to 1048576"#
        );
        for value in ["0", "256", "70000", "-1", "many", "1.5", "99999999999999999999"] {
            assert_eq!(
                said(&[&format!("--size={value}")]),
                format!(
                    "EXPLAIN_TEST_SIZE (--size): {value:?} is not allowed; \
                     allowed: a whole number from 1 to 255"
                )
            );
        }
        for (flag, range) in [
            ("--log-max-mib", "1 to 1048576"),
            ("--rest-port", "0 to 65535"),
            ("--long", "0"),
            ("--some", "1 to 18446744073709551615"),
        ] {
            let line = said(&[&format!("{flag}=many")]);
            assert!(line.ends_with(&format!("allowed: a whole number from {range}")), "{line}");
        }
        assert!(said(&["--some=0"]).contains("allowed: a whole number from 1 to "));
    }

    #[test]
    fn a_value_that_is_not_utf_8_is_named() {
        let bad = OsStr::from_bytes(b"caf\xe9").to_owned();
        let said = |flags: &[&OsStr], variable: &str| {
            let value = |name: &OsStr| (name == variable).then(|| bad.clone());
            not_unicode(&Thing::command(), flags.iter().map(|&flag| flag.to_owned()), value)
        };
        for (variable, flag) in [
            ("EXPLAIN_TEST_PORT", "rest-port"),
            ("NODE_ENV", "node-env"),
            ("CLUSTER_SECRET", "cluster-secret"),
        ] {
            let expected = format!("{variable} (--{flag}): its value is not allowed; allowed: UTF-8");
            assert_eq!(said(&[], variable), expected);
        }
        assert!(!said(&[], "LOG_DIR").contains("LOG_DIR"), "a path may be any bytes");
        let joined = OsString::from_iter([OsStr::new("--size="), &bad]);
        for flags in [&[OsStr::new("--size"), &*bad][..], &[&*joined]] {
            assert!(said(flags, "").starts_with("--size: "), "{}", said(flags, ""));
        }
        let error = Thing::try_parse_from([OsStr::new("thing"), OsStr::new("one"), &joined]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUtf8);
    }

    #[test]
    fn corro_env_is_another_name_of_node_env() {
        let environment = |flags: &[&str]| {
            let thing = Thing::try_parse_from([&["thing", "one"], flags].concat()).unwrap();
            let Part::One(one) = thing.command else { panic!("another part: {thing:?}") };
            let weak = Some("sesame".parse().unwrap());
            let common = CommonSettings { cluster_secret: weak, ..one.common.clone() };
            assert_eq!(common.check().is_ok(), common.environment() == NodeEnv::Development);
            one.common.environment()
        };
        assert_eq!(environment(&[]), NodeEnv::Development);
        assert_eq!(environment(&["--node-env=production"]), NodeEnv::Production);
        assert_eq!(environment(&["--corro-env=production"]), NodeEnv::Production);
        assert_eq!(environment(&["--node-env=production", "--corro-env=development"]), NodeEnv::Production);
    }

    #[test]
    fn a_ring_has_a_secret_and_production_a_good_one() {
        let secret = |flags: &[&str]| {
            let thing = Thing::try_parse_from([&["thing", "one"], flags].concat()).unwrap();
            let Part::One(one) = thing.command else { panic!("another part: {thing:?}") };
            one.common.ring_secret().map(|secret| secret.expose().to_owned())
        };
        let line = secret(&[]).unwrap_err();
        assert!(line.starts_with("CLUSTER_SECRET (--cluster-secret): it is missing"), "{line}");
        assert!(line.contains("CLUSTER_SECRET_FILE") && line.ends_with("openssl rand -hex 32"), "{line}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let in_file = format!("--cluster-secret-file={}", file.display());
        for (text, good) in [("sesame", false), ("change-me", false), ("of sixteen bytes", true)] {
            std::fs::write(&file, text).unwrap();
            for flag in [&format!("--cluster-secret={text}"), &in_file] {
                assert_eq!(secret(&[flag]), Ok(text.to_owned()));
                let strict = secret(&["--node-env=production", flag]);
                assert_eq!(strict.is_ok(), good, "{strict:?}");
                assert!(!strict.is_err_and(|line| line.contains("sesame")));
            }
        }
    }

    #[test]
    fn a_blank_secret_says_what_to_do() {
        for blank in ["", " ", "\n", "\t \u{a0}"] {
            let line = said(&["--cluster-secret", blank]);
            assert!(
                line.starts_with("CLUSTER_SECRET (--cluster-secret)") && line.contains("leave it unset"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_flag_in_the_wrong_place_says_which_is_the_right_one() {
        let said = |args: &[&str]| {
            let error = Thing::try_parse_from([&["thing"], args].concat()).unwrap_err();
            explain(&error, &Thing::command())
        };
        let line = said(&["--size=3", "one"]);
        assert_eq!(
            line,
            "--size: there is no such flag here; --size belongs after the command that takes it"
        );
        let line = said(&["other", "--what=x"]);
        assert_eq!(line, "--what: there is no such flag here; <WHAT> is given without one");
        assert!(said(&["one", "--signed=x"]).ends_with("whole number from -2147483648 to 2147483647"));
        assert!(said(&["one", "--letter=xy"]).ends_with("is not allowed; allowed: one letter"));
    }

    #[test]
    fn other_mistakes_are_one_line_too() {
        assert_eq!(said(&["--colour", "red"]), "--colour: there is no such flag");
        assert_eq!(said(&["--rest-prot=1"]), "--rest-prot: there is no such flag; did you mean --rest-port?");

        assert!(said(&["--node-env"]).starts_with("NODE_ENV (--node-env): a value is missing"));
        for args in [&["--rest-port=1", "--rest-port=2"][..], &["stray"]] {
            let line = said(args);
            assert!(!line.is_empty() && !line.contains('\n'), "{line}");
        }
        let error = Thing::try_parse_from(["thing", "other"]).unwrap_err();
        assert_eq!(explain(&error, &Thing::command()), "<WHAT>: it is missing");
        let error = Thing::try_parse_from(["thing", "two"]).unwrap_err();
        assert!(explain(&error, &Thing::command()).starts_with("two: there is no such command"));
        let error = Thing::try_parse_from(["thing", "othr"]).unwrap_err();
        let line = explain(&error, &Thing::command());
        assert_eq!(line, "othr: there is no such command; did you mean other?");
    }

    #[test]
    fn the_help_of_the_whole_is_its_own() {
        let help = Thing::command().render_help().to_string();
        assert!(help.contains("The whole thing") && !help.contains("both kinds"), "{help}");
    }

    #[test]
    fn defaults_hold_and_a_secret_is_kept_out_of_debug_output() {
        let thing = Thing::try_parse_from(["thing", "one", "--cluster-secret", "sesame"]).unwrap();
        assert!(!format!("{thing:?}").contains("sesame"), "{thing:?}");
        let Part::One(one) = thing.command else { panic!("another part: {thing:?}") };
        assert_eq!((one.rest_port, one.size), (3001, 3));
        assert!(one.common.cluster_secret.unwrap().matches("sesame"));
    }
}
