//! The command line: which command there are, how each one ends, and its exit code.

use std::io::{Write, stdout};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use db_process::config::DbProcessConfig;
use gateway::config::GatewayConfig;
use rustix::process::Signal;

use crate::bench::{self, BenchArgs};
use crate::certs::{self, CertsArgs};
use crate::check::{self, CheckArgs};
use crate::demo::{self, DemoArgs};
use crate::drill::{self, DrillArgs};
use crate::erase::{self, EraseArgs};
use crate::parent;
use crate::promote::{self, PromoteArgs};
use crate::secret::{self, SecretArgs};
use crate::status::{self, StatusArgs};
use crate::terminal::complain;
use crate::token::{self, TokenArgs};
use crate::transfer::{self, ExportArgs, ImportArgs};
use crate::users::{self, UsersArgs};

/// A replicated, partitioned user store: a whole ring on this machine, or one of its processes
#[derive(Parser, Debug)]
#[command(name = "corro", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// End when this process, the parent, ends
    #[arg(long, value_name = "PID", global = true, hide = true)]
    exit_with_parent: Option<NonZeroU32>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start a ring on this machine, and stop, kill or restart its processes
    Demo(DemoArgs),
    /// Break a ring under load, again and again, and check that no request fails
    #[command(after_help = DRILL_EXIT)]
    Drill(Box<DrillArgs>),
    /// Compare the copies of a running ring, and repair them
    #[command(after_help = CHECK_EXIT)]
    Check(CheckArgs),
    /// Measure how fast a ring is, as a fraction of how fast it could be
    Bench(Box<BenchArgs>),
    /// The other side of a bench, in a process of its own
    #[command(hide = true)]
    BenchCeiling,
    /// Write the users of a ring to a file
    #[command(after_help = EXPORT_EXIT)]
    Export(Box<ExportArgs>),
    /// Read users from a file into a ring; run again, it continues where it ended
    #[command(after_help = IMPORT_EXIT)]
    Import(Box<ImportArgs>),
    /// Read, list, count, create, update or delete users of a ring
    #[command(after_help = USERS_EXIT)]
    Users(UsersArgs),
    /// Show the ring: its processes, and which partitions take reads and writes
    #[command(after_help = STATUS_EXIT)]
    Status(StatusArgs),
    /// Make a token of the API
    Token(TokenArgs),
    /// Let the copy that is there lead a partition, though writes may be lost
    Promote(PromoteArgs),
    /// Make the secret of a ring, in a file that only its owner can read
    Secret(SecretArgs),
    /// Make a CA for a ring, and certificates for its processes
    Certs(CertsArgs),
    /// Delete a user, and leave nothing of it in any file of the ring
    Erase(EraseArgs),
    /// Run the gateway of a ring
    Gateway(Box<GatewayConfig>),
    /// Run a db-process of a ring
    DbProcess(Box<DbProcessConfig>),
    /// Print a script that completes this command in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page of this command
    Man {
        /// Write the pages of all commands into this folder
        folder: Option<PathBuf>,
    },
}

const DRILL_EXIT: &str =
    "Exit code: 0 the ring has kept its promise, 1 it has not, 2 the drill could not be done.";

const CHECK_EXIT: &str =
    "Exit code: 0 all copies are what they should be, 1 they are not, 2 that could not be found out.";

const USERS_EXIT: &str = "Exit code: 0 it is done, 1 the ring refuses it (no such user, a field that is not \
    valid), 2 it could not be done.";

const STATUS_EXIT: &str = "Exit code: 0 every partition takes reads and writes, 1 some do not, 2 that could \
    not be found out.";

const EXPORT_EXIT: &str = "Exit code: 0 all users are written, 2 they are not.";

const IMPORT_EXIT: &str = "Exit code: 0 every row is in the ring, 1 some are not, 2 the import could not be \
    done or not to its end.";

/// Does what the command line says.
pub fn main() -> ExitCode {
    let Cli { command, exit_with_parent } = process::settings();
    // A demo, a drill and a bench clean up when their parent ends; a process of a ring is built to be killed.
    let (signal, failure) = match command {
        Command::Gateway(_) | Command::DbProcess(_) | Command::BenchCeiling => {
            (Signal::KILL, ExitCode::FAILURE)
        }
        Command::Demo(_) | Command::Bench(_) | Command::Promote(_) => (Signal::TERM, ExitCode::FAILURE),
        _ => (Signal::TERM, ExitCode::from(2)),
    };
    if let Some(Err(error)) = exit_with_parent.map(|parent| parent::end_with(parent, signal)) {
        complain(&format!("corro: {error:#}"));
        return ExitCode::FAILURE;
    }
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("corro: {error:#}"));
            failure
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Gateway(config) => return Ok(gateway::run::main(*config)),
        Command::DbProcess(config) => return Ok(db_process::run::main(*config)),
        _ => {}
    }
    // One thread: a drill takes little from the ring that it measures.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("no runtime")?;
    let done = |()| true;
    let good = runtime.block_on(async {
        match command {
            Command::Demo(args) => demo::main(args).await.map(done),
            Command::Drill(args) => drill::run(*args).await,
            Command::Check(args) => check::run(args).await,
            Command::Bench(args) => bench::run(*args).await.map(done),
            Command::BenchCeiling => bench::ceiling::run().await.map(done),
            Command::Export(args) => transfer::export(*args).await.map(done),
            Command::Import(args) => transfer::import(*args).await,
            Command::Token(args) => token::run(args).map(done),
            Command::Promote(args) => promote::run(args).await.map(done),
            Command::Erase(args) => erase::run(args).await.map(done),
            Command::Users(args) => users::run(args).await,
            Command::Certs(args) => certs::run(args).map(done),
            Command::Secret(args) => secret::run(args).map(done),
            Command::Status(args) => status::run(args).await,
            Command::Completions { shell } => completions(shell).map(done),
            Command::Man { folder } => manual(folder.as_deref()).map(done),
            Command::Gateway(_) | Command::DbProcess(_) => unreachable!("they have a runtime of their own"),
        }
    });
    // What blocks a thread, such as a resolver, is not waited for.
    runtime.shutdown_background();
    let good = good?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(&Cli::command()), "corro", &mut script);
    Ok(stdout().write_all(&script)?)
}

/// A command without its hidden commands and flags, which completions would offer.
fn shown(command: &clap::Command) -> clap::Command {
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned();
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set()).map(shown);
    // It lives as long as the process, which ends when the script is printed.
    let name: &'static str = command.get_name().to_owned().leak();
    let about = command.get_about().cloned().unwrap_or_default();
    let mut shown = clap::Command::new(name).about(about);
    if command.get_version().is_some() {
        shown = shown.version(env!("CARGO_PKG_VERSION"));
    }
    shown.args(arguments).subcommands(commands)
}

fn manual(folder: Option<&Path>) -> anyhow::Result<()> {
    match folder {
        None => Ok(clap_mangen::Man::new(Cli::command()).render(&mut stdout())?),
        Some(folder) => {
            let written = std::fs::create_dir_all(folder)
                .and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
            written.with_context(|| folder.display().to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_what_can_be_run() {
        let help = Cli::command().render_help().to_string();
        for part in [
            "A replicated, partitioned user store",
            "demo",
            "drill",
            "check",
            "bench",
            "export",
            "import",
            "gateway",
            "db-process",
            "users",
            "secret",
            "status",
            "completions",
        ] {
            assert!(help.contains(part), "{part} is missing in {help}");
        }
    }

    #[test]
    fn the_drill_takes_the_name_of_a_process() {
        let parsed = Cli::try_parse_from(["corro", "demo", "kill", "db-1", "--folder", "elsewhere"]).unwrap();
        let Command::Demo(demo) = parsed.command else { panic!("another command: {parsed:?}") };
        assert!(matches!(demo.order, Some(demo::Order::Kill(name)) if name.process == "db-1"));
        assert_eq!(demo.settings.folder, Path::new("elsewhere"));
        assert!(Cli::try_parse_from(["corro", "demo", "kill"]).is_err());
    }
}
