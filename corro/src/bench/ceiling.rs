//! `corro bench-ceiling`: the ceiling as a process. It prints its port and serves until it is killed.

use std::net::Ipv4Addr;

use anyhow::Context;
use tokio::net::TcpListener;

/// Serves on a free port of this machine.
///
/// # Errors
/// If there is no port.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port can be opened")?;
    println!("{}", listener.local_addr()?.port());
    gateway::run::serve_ceiling(listener).await;
    Ok(())
}
