//! `corro erase`: nothing is left of a user, in no copy and in no file of the ring.

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use uuid::Uuid;

use crate::target::GatewayArgs;
use crate::terminal::say;

/// Seconds within which the files of two large copies are written anew.
const PATIENCE: u64 = 600;

/// `corro erase`.
#[derive(Args, Debug)]
pub(crate) struct EraseArgs {
    /// Id of the user; it may be deleted already
    id: Uuid,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// What was erased.
#[derive(Deserialize)]
struct Erased {
    existed: bool,
}

/// Erases a user. When it returns, both copies have said that nothing is left.
///
/// # Errors
/// If something is left, or may be.
pub(crate) async fn run(mut args: EraseArgs) -> anyhow::Result<()> {
    args.gateway.patience.get_or_insert(PATIENCE);
    let client = args.gateway.client().await?;
    let path = format!("/api/user/{}/erase", args.id);
    let Erased { existed } = client.ask(Method::POST, &path).await?;
    let was = if existed { "It was deleted just now." } else { "There was no such user." };
    say(&format!(
        "{was} Neither record nor op-log nor file of the two copies has a name, an address or a group of \
         it.\nExports, copies of disks, *.damaged directories and your own logs may: see the operations \
         guide."
    ));
    Ok(())
}
