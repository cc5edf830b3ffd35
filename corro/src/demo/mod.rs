//! `corro demo`: a whole ring on this machine, and a drill by hand.
//!
//! One process, the demo, starts a gateway and n db-processes as real child processes of its own executable,
//! so that `kill -9` means what it means in production. It restarts nothing by itself: what happens is up to
//! who does the drill, from a second terminal. Three things hold whatever happens:
//!
//! - Children end with the demo. Ctrl-C and SIGTERM stop them in order; where the demo itself is killed, the
//!   kernel does it.
//! - One demo runs in a folder: a lock says so, which the kernel releases, so there is nothing stale to clean
//!   up by hand.
//! - Data stays. `.corro/` holds all that a demo writes; the next one finds its users again, and removing it
//!   starts afresh.
//!
//! [`layout`] says where things are, [`children`] how a process is started and ended, [`control`] how the
//! second terminal reaches the demo, [`supervise`] what is done about what happens, [`banner`] what is
//! printed once the ring is ready.

mod banner;
mod children;
mod control;
mod layout;
mod ports;
mod supervise;

use clap::{Args, Subcommand};

pub(crate) use control::{Order, Whereabouts, processes, send, whereabouts};
pub(crate) use layout::Layout;
pub(crate) use supervise::run;

/// `corro demo`, with its settings and the orders of the drill.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) settings: DemoSettings,
    #[command(subcommand)]
    pub(crate) drill: Option<Drill>,
}

/// What a demo can be told at its start.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoSettings {
    /// HTTP port of the gateway; 0: any free one
    #[arg(long, env = "REST_PORT", default_value_t = 3001, value_name = "PORT")]
    pub(crate) rest_port: u16,
    /// Port where the db-processes reach the gateway; 0: any free one
    #[arg(long, env = "SOCKET_PORT", default_value_t = 3002, value_name = "PORT")]
    pub(crate) socket_port: u16,
    /// Size of the ring [default: 3, or the size of the ring that the folder holds]
    #[arg(long, env = "DB_PROCESSES", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) db_processes: Option<u16>,
    /// Folder for all that the demo writes
    #[arg(long, default_value = ".corro", value_name = "FOLDER", global = true)]
    pub(crate) folder: std::path::PathBuf,
}

/// What can be done to a running demo, from a second terminal in the same folder.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Drill {
    /// Kill a process as `kill -9` does
    Kill {
        /// gateway, db-0, db-1, …
        process: String,
    },
    /// Stop a process as SIGTERM does
    Stop {
        /// gateway, db-0, db-1, …
        process: String,
    },
    /// Make a process hang as SIGSTOP does
    Pause {
        /// gateway, db-0, db-1, …
        process: String,
    },
    /// Let a process that hangs go on
    Resume {
        /// gateway, db-0, db-1, …
        process: String,
    },
    /// Start a process again; one that runs is stopped first
    Restart {
        /// gateway, db-0, db-1, …
        process: String,
    },
    /// Say which processes run
    Status,
}

/// Hands an order to the demo that runs in this folder, and prints what came of it.
///
/// # Errors
/// Where no demo runs here, or it refuses.
pub(crate) async fn drill(settings: &DemoSettings, drill: Drill) -> anyhow::Result<()> {
    let order = match drill {
        Drill::Kill { process } => Order::Kill { process },
        Drill::Stop { process } => Order::Stop { process },
        Drill::Pause { process } => Order::Pause { process },
        Drill::Resume { process } => Order::Resume { process },
        Drill::Restart { process } => Order::Restart { process },
        Drill::Status => Order::Status,
    };
    println!("{}", send(&Layout::of(&settings.folder), &order).await?);
    Ok(())
}
