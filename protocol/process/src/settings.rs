//! Settings from flags and environment variables, and what is said where one is bad.

use std::any::TypeId;
use std::error::Error as _;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::exit;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, Command, Parser, ValueEnum};

use crate::secret::Secret;

/// Settings that both kinds of process have.
#[derive(Args, Clone, Debug)]
pub struct CommonSettings {
    /// production turns debug traces off
    #[arg(long, env = "NODE_ENV", default_value = "development", value_enum)]
    pub node_env: NodeEnv,
    /// Folder of the daily log files, 14 of which are kept
    #[arg(long, env = "LOG_DIR", default_value = "logs", value_name = "FOLDER")]
    pub log_dir: PathBuf,
    /// Most that the log files of this process take together, in MiB; a file is at most an eighth of it, and
    /// the oldest go first
    #[arg(long, env = "LOG_MAX_MIB", default_value_t = CommonSettings::LOG_MAX_MIB, value_name = "MIB",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub log_max_mib: u32,
    /// Secret that all processes of a ring share; production refuses to start without one
    #[arg(long, env = "CLUSTER_SECRET", hide_env_values = true, value_name = "TEXT")]
    pub cluster_secret: Option<Secret>,
}

impl CommonSettings {
    /// Room for the debug lines of a busy day, and little beside the data.
    pub const LOG_MAX_MIB: u32 = 256;
}

/// What a process runs for.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEnv {
    /// At a desk: debug lines in the log, and no secret needed on loopback.
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
        eprintln!("{}", explain(&error, &T::command()));
        exit(2)
    })
}

/// One line that names the variable, the value and what is allowed.
pub fn explain(error: &clap::Error, command: &Command) -> String {
    let mut command = command.clone();
    command.build(); // names the arguments as the error does
    let arg = text(error, ContextKind::InvalidArg).unwrap_or_default();
    let known = find(&command, &arg);
    let name = known.map_or(arg, variable);
    let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
    let mut line = match error.kind() {
        ErrorKind::InvalidValue if value.is_empty() => format!("{name}: a value is missing"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => format!("{name}: {value:?} is not allowed"),
        ErrorKind::UnknownArgument => format!("{name}: there is no such flag"),
        ErrorKind::InvalidSubcommand => {
            format!(
                "{}: there is no such command",
                text(error, ContextKind::InvalidSubcommand).unwrap_or_default()
            )
        }
        ErrorKind::MissingRequiredArgument => format!("{name}: it is missing"),
        _ => clap_text(error),
    };
    let allowed = text(error, ContextKind::ValidValue).or_else(|| text(error, ContextKind::ValidSubcommand));
    if let Some(allowed) = allowed.filter(|allowed| !allowed.is_empty()) {
        write!(line, "; allowed: {allowed}").expect("a string takes all text");
    } else if let Some(number) = known.and_then(whole_number) {
        write!(line, "; allowed: {}", range(error).unwrap_or_else(|| number.to_owned()))
            .expect("a string takes all text");
    } else if let Some(reason) = error.source() {
        write!(line, ": {reason}").expect("a string takes all text");
    }
    line
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

/// The argument that errors call `shown`, in this command or one of its subcommands.
fn find<'a>(command: &'a Command, shown: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|arg| arg.to_string() == shown)
        .or_else(|| command.get_subcommands().find_map(|subcommand| find(subcommand, shown)))
}

/// What a number may be: for those, the reason that clap gives ("invalid digit found in string")
/// helps no one.
fn whole_number(arg: &Arg) -> Option<&'static str> {
    let kind = arg.get_value_parser().type_id();
    let of = |number: TypeId| kind == number;
    if of(TypeId::of::<u16>()) {
        Some("a whole number from 0 to 65535")
    } else if [TypeId::of::<u8>(), TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()]
        .into_iter()
        .any(of)
    {
        Some("a whole number")
    } else {
        None
    }
}

/// The range, where that is what the number broke: "70000 is not in 1..=65535".
fn range(error: &clap::Error) -> Option<String> {
    let reason = error.source()?.to_string();
    let (_, range) = reason.split_once(" is not in ")?;
    let (first, last) = range.split_once("..=").unwrap_or((range, ""));
    Some(format!("a whole number from {first} to {last}"))
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
        #[command(flatten)]
        common: CommonSettings,
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
        assert_eq!(
            said(&["--size", "0"]),
            r#"EXPLAIN_TEST_SIZE (--size): "0" is not allowed; allowed: a whole number from 1 to 255"#
        );
    }

    #[test]
    fn an_empty_secret_says_what_to_do() {
        let line = said(&["--cluster-secret", ""]);
        assert!(
            line.starts_with("CLUSTER_SECRET (--cluster-secret)") && line.contains("leave it unset"),
            "{line}"
        );
    }

    #[test]
    fn other_mistakes_are_one_line_too() {
        assert_eq!(said(&["--colour", "red"]), "--colour: there is no such flag");
        assert!(said(&["--node-env"]).starts_with("NODE_ENV (--node-env): a value is missing"));
        for args in [&["--rest-port=1", "--rest-port=2"][..], &["stray"]] {
            let line = said(args);
            assert!(!line.is_empty() && !line.contains('\n'), "{line}");
        }
        let error = Thing::try_parse_from(["thing", "other"]).unwrap_err();
        assert_eq!(explain(&error, &Thing::command()), "<WHAT>: it is missing");
        let error = Thing::try_parse_from(["thing", "two"]).unwrap_err();
        assert!(explain(&error, &Thing::command()).starts_with("two: there is no such command"));
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
