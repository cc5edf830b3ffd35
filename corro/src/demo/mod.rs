//! `corro demo`: a whole ring on this machine, whose processes a second terminal can stop, kill and restart.
//!
//! One process, the demo, starts a gateway and n db-processes as child processes of its own executable, so
//! that `kill -9` means what it means in production. It restarts nothing by itself. Three things always hold:
//!
//! - Children end with the demo. Ctrl-C and SIGTERM stop them in order; where the demo itself is killed, the
//!   kernel kills them.
//! - One demo runs in a folder. A lock of the kernel ensures it, so nothing stale is left to clean up.
//! - Data stays. `.corro/` holds all that a demo writes; the next one finds its users again, and removing it
//!   starts afresh.
//!
//! [`layout`]: where files are. [`children`]: how a process is started and ended. [`control`]: how the second
//! terminal reaches the demo. [`supervise`]: the demo itself. [`banner`]: what is printed once the ring is
//! ready. [`ring`]: a demo that another command has started, or found.

mod banner;
mod children;
mod control;
mod layout;
mod ports;
mod ring;
mod supervise;

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::RangedU64ValueParser;

pub(crate) use control::{Name, OneOrAll, Order};
use layout::Layout;
pub(crate) use ring::{DataFolder, DemoRing};

use crate::terminal::say;

/// Where a demo writes, where no other folder is asked for.
const DEFAULT_FOLDER: &str = ".corro";

/// `corro demo`, with its settings and the orders to a running one.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) settings: DemoSettings,
    #[command(subcommand)]
    pub(crate) order: Option<Order>,
}

/// The token of the demo in this folder, if it is the one that has this port.
pub(crate) async fn token_of(port: u16) -> Option<String> {
    let layout = Layout::of(Path::new(DEFAULT_FOLDER));
    let token = std::fs::read_to_string(&layout.token).ok()?;
    let status = control::status(&layout).await.ok()?;
    (status.rest_port == port).then_some(token)
}

/// How a demo is set up.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoSettings {
    /// HTTP port of the gateway; 0: any free one
    #[arg(long, env = "REST_PORT", default_value_t = 3001, value_name = "PORT")]
    rest_port: u16,
    /// Port where the db-processes reach the gateway; 0: any free one
    #[arg(long, env = "SOCKET_PORT", default_value_t = 3002, value_name = "PORT")]
    socket_port: u16,
    /// Size of the ring [default: 3, or the size of the ring that the folder holds]
    #[arg(long, env = "DB_PROCESSES", value_name = "N", value_parser = ring_size())]
    db_processes: Option<u16>,
    /// Folder for all that the demo writes
    #[arg(long, default_value = DEFAULT_FOLDER, value_name = "FOLDER", global = true)]
    pub(crate) folder: PathBuf,
}

fn ring_size() -> RangedU64ValueParser<u16> {
    RangedU64ValueParser::new().range(1..=64)
}

/// Runs a demo, or gives an order to the one that runs in this folder.
///
/// # Errors
/// Where it cannot start; where no demo runs here, or it refuses.
pub(crate) async fn main(DemoArgs { settings, order }: DemoArgs) -> anyhow::Result<()> {
    match order {
        Some(order) => say(&control::send(&Layout::of(&settings.folder), &order).await?),
        None => supervise::run(settings, process::shutdown_on_signal()).await?,
    }
    Ok(())
}
