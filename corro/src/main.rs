//! `corro`, the one command that a person runs: a whole ring for a try, and the processes that it is made of.

mod bench;
mod check;
mod demo;
mod drill;
mod load;
mod parent;
mod promote;
mod transfer;

use std::num::NonZeroU32;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use db_process::config::DbProcessConfig;
use gateway::config::GatewayConfig;
use rustix::process::Signal;

use bench::BenchArgs;
use check::CheckArgs;
use demo::DemoArgs;
use drill::DrillArgs;
use promote::PromoteArgs;
use transfer::{ExportArgs, ImportArgs};

/// A replicated, partitioned user store: a whole ring on this machine, or one of its processes
#[derive(Parser, Debug)]
#[command(name = "corro", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// End when this process, the parent, ends
    #[arg(long, value_name = "PID", global = true)]
    exit_with_parent: Option<NonZeroU32>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start a ring on this machine, and drill with it
    Demo(DemoArgs),
    /// Break a ring under load, again and again, and prove that nobody notices
    #[command(after_help = DRILL_EXIT)]
    Drill(Box<DrillArgs>),
    /// Compare the copies of a running ring, and make good what is wrong
    #[command(after_help = CHECK_EXIT)]
    Check(CheckArgs),
    /// Measure how fast a ring is, as a fraction of how fast it could be
    Bench(Box<BenchArgs>),
    /// The other side of a bench, in a process of its own
    #[command(hide = true)]
    BenchCeiling,
    /// The load of a bench, in a process of its own
    #[command(hide = true)]
    BenchGenerator,
    /// Take users out of a ring into a file
    Export(Box<ExportArgs>),
    /// Bring users from a file into a ring; run again, it goes on where it ended
    #[command(after_help = IMPORT_EXIT)]
    Import(Box<ImportArgs>),
    /// Let the copy that is there lead a partition, though writes may be lost
    Promote(PromoteArgs),
    /// Run the gateway of a ring
    Gateway(Box<GatewayConfig>),
    /// Run a db-process of a ring
    DbProcess(Box<DbProcessConfig>),
}

const DRILL_EXIT: &str =
    "Exit code: 0 the ring has kept its promise, 1 it has not, 2 the drill could not be done.";

const CHECK_EXIT: &str =
    "Exit code: 0 all copies are what they should be, 1 they are not, 2 that could not be found out.";

const IMPORT_EXIT: &str = "Exit code: 0 every row is in the ring, 1 some are not, 2 the import could not be done or not to its end.";

fn main() -> ExitCode {
    let cli: Cli = process::settings();
    if let Err(error) = watch_parent(&cli) {
        return failed(&error);
    }
    match cli.command {
        Command::Demo(demo) => exit_code(run_demo(demo)),
        Command::Drill(drill) => verdict(runtime().and_then(|runtime| runtime.block_on(drill::run(*drill)))),
        Command::Check(args) => verdict(runtime().and_then(|runtime| runtime.block_on(check::run(args)))),
        Command::Bench(bench) => {
            exit_code(runtime().and_then(|runtime| runtime.block_on(bench::run(*bench))))
        }
        Command::BenchCeiling => {
            exit_code(runtime().and_then(|runtime| runtime.block_on(bench::ceiling::run())))
        }
        Command::BenchGenerator => exit_code(bench::generator::run()),
        Command::Export(args) => {
            exit_code(runtime().and_then(|runtime| runtime.block_on(transfer::export(*args))))
        }
        Command::Import(args) => {
            verdict(runtime().and_then(|runtime| runtime.block_on(transfer::import(*args))))
        }
        Command::Promote(promote) => {
            exit_code(runtime().and_then(|runtime| runtime.block_on(promote::run(promote))))
        }
        Command::Gateway(config) => gateway::run::main(*config),
        Command::DbProcess(config) => db_process::run::main(*config),
    }
}

/// The demo has no log of its own: it talks to a person.
fn run_demo(DemoArgs { settings, drill }: DemoArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        match drill {
            Some(drill) => demo::drill(&settings, drill).await,
            None => demo::run(settings, process::shutdown_on_signal()).await,
        }
    })
}

/// Whether it went well is one thing, whether it could be done another.
fn verdict(outcome: anyhow::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            failed(&error);
            ExitCode::from(2)
        }
    }
}

/// One thread: a drill takes little from the ring that it measures.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}

fn exit_code(outcome: anyhow::Result<()>) -> ExitCode {
    outcome.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("corro: {error:#}");
    ExitCode::FAILURE
}

/// A demo, a drill and a bench have something to put in order when their parent ends; a process of a ring is
/// built for being killed.
fn watch_parent(cli: &Cli) -> anyhow::Result<()> {
    let signal = match cli.command {
        Command::Promote(_)
        | Command::Demo(_)
        | Command::Drill(_)
        | Command::Bench(_)
        | Command::Check(_) => Signal::TERM,
        Command::BenchCeiling | Command::BenchGenerator | Command::Gateway(_) | Command::DbProcess(_) => {
            Signal::KILL
        }
        // What is complete of them is kept.
        Command::Export(_) | Command::Import(_) => Signal::TERM,
    };
    cli.exit_with_parent.map_or(Ok(()), |parent| parent::end_with(parent, signal))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

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
            "--exit-with-parent",
        ] {
            assert!(help.contains(part), "{part} is missing in {help}");
        }
    }

    #[test]
    fn the_drill_takes_the_name_of_a_process() {
        let parsed = Cli::try_parse_from(["corro", "demo", "kill", "db-1", "--folder", "elsewhere"]).unwrap();
        let Command::Demo(demo) = parsed.command else { panic!("another command: {parsed:?}") };
        assert!(matches!(demo.drill, Some(demo::Drill::Kill { process }) if process == "db-1"));
        assert_eq!(demo.settings.folder, std::path::Path::new("elsewhere"));
        assert!(Cli::try_parse_from(["corro", "demo", "kill"]).is_err());
    }
}
