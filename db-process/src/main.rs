//! The db-process as a process of its own.

use std::process::ExitCode;

use clap::Parser;
use db_process::config::DbProcessConfig;

/// Keeps two copies of user partitions, and serves them to the gateway of a ring
#[derive(Parser, Debug)]
#[command(name = "db-process", version)]
struct Command {
    #[command(flatten)]
    config: DbProcessConfig,
}

fn main() -> ExitCode {
    db_process::run::main(process::settings::<Command>().config)
}
