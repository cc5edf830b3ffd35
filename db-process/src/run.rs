//! Wires a db-process together, and takes it apart.

use std::iter;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use process::{Addresses, Listener, Secret, Tls};
use protocol::message::link::{CopyReports, PerRole, ReplicationAddress, Role};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::DbProcessConfig;
use crate::identity::DataDir;
use crate::link::gateway::{GatewayLinks, LinkError};
use crate::node::Node;
use crate::remedy::Owner;
use crate::replication::client::Follower;
use crate::replication::server::ReplicationServer;
use crate::store::{BlockCache, RocksStore, StoreError};
use crate::worker::{self, CopyFailure, CopyHandle};

/// How long the gateway may take to release this process.
const LEAVE_DEADLINE: Duration = Duration::from_secs(3);

/// How long what still reads in a database may take to end, when that is to be opened again.
const REOPEN_DEADLINE: Duration = Duration::from_secs(60);

/// How long links may take to end.
const STOP_DEADLINE: Duration = Duration::from_millis(1200);

/// What both commands that can be a db-process do: checks the settings, or the health of the db-process that
/// runs with them, or runs it until SIGTERM. An error is printed in one line.
pub fn main(config: DbProcessConfig) -> ExitCode {
    if let Some(health) = config.healthcheck {
        return match config.probe(health) {
            Ok(()) => ExitCode::SUCCESS,
            Err(line) => {
                process::complain(&line);
                ExitCode::FAILURE
            }
        };
    }
    if let Err(line) = config.check() {
        process::complain(&line);
        return ExitCode::from(2);
    }
    let (name, common) = (config.db_instance_id.clone(), config.common.clone());
    process::run(name.as_str(), &common, async |shutdown| run(config, shutdown).await)
}

/// Runs a db-process until `shutdown`. When it returns, its databases are flushed and closed. Where one of
/// them is found damaged and is to be discarded, the process leaves the ring as if it were to stop, and comes
/// back with a new one.
///
/// # Errors
/// If it cannot start, a copy fails, or the gateway refuses it for good.
pub async fn run(config: DbProcessConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.check().map_err(anyhow::Error::msg)?;
    let secret = config.common.ring_secret().map_err(anyhow::Error::msg)?;
    let tls = config.common.ring_files.open(config.db_instance_id.as_str()).map_err(anyhow::Error::msg)?;
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.watch(shutdown.clone()));
    }
    let mut discard = None;
    loop {
        discard =
            Box::pin(run_once(config.clone(), (secret.clone(), tls.clone()), shutdown.clone(), discard))
                .await?;
        if discard.is_none() || shutdown.is_cancelled() {
            return Ok(());
        }
    }
}

/// Runs until `shutdown`, or until a copy is to be discarded, which is returned. `discard` is the one to be
/// discarded first.
async fn run_once(
    config: DbProcessConfig,
    (secret, tls): (Secret, Option<Tls>),
    shutdown: CancellationToken,
    discard: Option<Role>,
) -> anyhow::Result<Option<Role>> {
    let (name, folder) = (config.db_instance_id.clone(), config.data_dir());
    let (failed, mut failures) = unbounded_channel();
    let node = {
        let (folder, name, cache) = (folder.clone(), name.clone(), BlockCache::new(config.cache_bytes()));
        let open = spawn_blocking(move || open(&folder, &name, &cache, &failed, discard));
        open.await.context("opening its data")??
    };
    let node = Arc::new(node);
    let (listener, address) = listen(&config.replication_addresses(), config.replication_port)?;
    log_opened(&node, &folder, address);
    let leave = shutdown.child_token();
    // Until the gateway releases the process, everything has to work on.
    let stop = CancellationToken::new();
    let mut tasks = start_tasks(config, secret, &node, (listener.with_tls(tls), address), &leave, &stop);
    let mut failed = None;
    let outcome = tokio::select! {
        () = leave_deadline(&node, &shutdown, &leave) => Ok(()),
        failure = failures.recv() => {
            failed = failure;
            Ok(())
        }
        Some(ended) = tasks.join_next() => ended.context("a task").and_then(|ended| ended),
    };
    stop.cancel();
    if timeout(STOP_DEADLINE, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        warn!(%name, "some connections did not end in time");
        tasks.shutdown().await;
    }
    let discard = *node.discard().borrow();
    let owner = Owner { name: name.clone(), folder, ring: node.ring() };
    close(node).await;
    info!(%name, "closed");
    let failed = failed.into_iter().chain(iter::from_fn(|| failures.try_recv().ok()));
    let outcome = outcome.map_err(|error| match error.downcast() {
        Ok(LinkError::Identity(error)) => owner.of_folder(error),
        Ok(other) => other.into(),
        Err(other) => other,
    });
    check_failures(&owner, failed, discard).and(outcome).map(|()| discard)
}

fn log_opened(node: &Node, folder: &Path, address: SocketAddr) {
    let CopyReports { primary, replica } = node.reports();
    info!(
        name = %node.name(), incarnation = %node.incarnation(), folder = %folder.display(),
        replication_port = address.port(),
        primary_complete = primary.complete, primary_head = primary.head,
        replica_complete = replica.complete, replica_head = replica.head,
        "opened"
    );
}

/// Starts the links to the gateways, and all that follows neighbours and is followed by them.
fn start_tasks(
    config: DbProcessConfig,
    secret: Secret,
    node: &Arc<Node>,
    (listener, address): (Listener, SocketAddr),
    leave: &CancellationToken,
    stop: &CancellationToken,
) -> JoinSet<anyhow::Result<()>> {
    let mut tasks = JoinSet::new();
    // It was checked at the start.
    let tls = config.common.ring_files.given().unwrap_or_default();
    let server = ReplicationServer { secret: secret.clone(), node: Arc::clone(node) };
    let stopped = stop.clone();
    tasks.spawn(async move {
        server.run(listener, stopped).await;
        Ok(())
    });
    for role in Role::ALL {
        let follower = Follower { role, secret: secret.clone(), tls: tls.clone(), node: Arc::clone(node) };
        let stopped = stop.clone();
        tasks.spawn(async move {
            follower.run(stopped).await;
            Ok(())
        });
    }
    let (host, port) = config.replication_address.map_or((None, None), |at| (Some(at.host), at.port));
    let replication = ReplicationAddress { host, port: port.map_or(address.port(), NonZeroU16::get) };
    let (urls, node) = (config.socket_server_url, Arc::clone(node));
    let link = GatewayLinks { urls, secret, tls, replication, node };
    let (leave, stopped) = (leave.clone(), stop.clone());
    tasks.spawn(async move { Ok(link.run(leave, stopped).await?) });
    tasks
}

/// Waits until the process is to leave the ring, and then for as long as the gateway may take to release it.
async fn leave_deadline(node: &Node, shutdown: &CancellationToken, leave: &CancellationToken) {
    let mut to_discard = node.discard();
    tokio::select! {
        () = shutdown.cancelled() => info!(name = %node.name(), "asked to stop"),
        Ok(_) = to_discard.wait_for(Option::is_some) => leave.cancel(),
    }
    sleep(LEAVE_DEADLINE).await;
}

/// An error where a copy failed that is not to be discarded. Here and not at the end of a task: that of the
/// link ends as well where a copy fails, is seen first at times, and does not know why; and what is written
/// out at the very end may find no room.
fn check_failures(
    owner: &Owner,
    mut failed: impl Iterator<Item = CopyFailure>,
    discard: Option<Role>,
) -> anyhow::Result<()> {
    match failed.find(|failure| discard != Some(failure.role)) {
        None => Ok(()),
        Some(CopyFailure { role, error }) => {
            let failed = format!("the {} copy failed and is not used any more", role.as_str());
            Err(owner.of_copy(role, error).context(failed))
        }
    }
}

/// Locks the folder, sets aside the copy that is to be discarded, opens both databases, and starts their
/// workers. Where a copy is discarded, this process had all of it open just now: what still reads there gets
/// a while to end.
fn open(
    folder: &Path,
    name: &protocol::InstanceName,
    cache: &BlockCache,
    failed: &UnboundedSender<CopyFailure>,
    discard: Option<Role>,
) -> anyhow::Result<Node> {
    let deadline = discard.map(|_| Instant::now() + REOPEN_DEADLINE);
    let mut owner = Owner { name: name.clone(), folder: folder.to_owned(), ring: None };
    let data = when_free(deadline, || DataDir::open(folder, name)).map_err(|error| owner.of_folder(error))?;
    owner.ring = data.identity().membership.as_ref().map(|kept| kept.ring);
    if let Some(role) = discard {
        data.set_aside(role).map_err(|error| owner.of_folder(error))?;
    }
    let start = |role| -> anyhow::Result<CopyHandle> {
        let store = match when_free(deadline, || RocksStore::open(&data.copy(role), cache)) {
            Err(error @ StoreError::LogDamaged { .. }) => {
                warn!(copy = role.as_str(), %error, "it is set aside, and filled anew");
                data.set_aside(role)?;
                RocksStore::open(&data.copy(role), cache)
            }
            opened => opened,
        };
        let started = store.and_then(|store| worker::start(role, store, &data.mark(role), failed.clone()));
        let copy = started.map_err(|error| owner.of_copy(role, error))?;
        copy.merge_small_tables();
        Ok(copy)
    };
    let primary = start(Role::Primary)?;
    // A database must not be at work any more when the process ends.
    let replica = start(Role::Replica).inspect_err(|_| primary.stop())?;
    let copies = PerRole { primary, replica };
    Ok(Node::new(data, copies))
}

/// Opens something that may be open still, until the deadline where there is one.
fn when_free<T, E>(deadline: Option<Instant>, open: impl Fn() -> Result<T, E>) -> Result<T, E> {
    loop {
        match open() {
            Err(_) if deadline.is_some_and(|deadline| Instant::now() < deadline) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            opened => return opened,
        }
    }
}

fn listen(addresses: &Addresses, port: u16) -> anyhow::Result<(Listener, SocketAddr)> {
    let listener = process::listen(addresses, port);
    let listener = listener.with_context(|| format!("REPLICATION_PORT: {port} cannot be listened on"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Ends the workers and closes the databases.
async fn close(node: Arc<Node>) {
    let closed = spawn_blocking(move || {
        for role in Role::ALL {
            node.copy(role).stop();
        }
    });
    if closed.await.is_err() {
        error!("a worker panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_data_directory_may_have_a_long_name_and_one_that_is_not_utf_8() {
        let parent = tempfile::tempdir().unwrap();
        let open = |name: OsString| {
            let (folder, cache) = (parent.path().join(name), BlockCache::default());
            open(&folder, &"db-1".parse().unwrap(), &cache, &unbounded_channel().0, None)
        };
        for name in [OsString::from("x".repeat(255)), OsString::from_vec(b"data-\xff\xfe".to_vec())] {
            // It is made, and opened again.
            for _ in 0..2 {
                let node = open(name.clone()).unwrap();
                Role::ALL.into_iter().for_each(|role| node.copy(role).stop());
            }
            assert!(parent.path().join(name).join("primary/CURRENT").exists());
        }
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2, "nothing is made under another name");
        let line = open("x".repeat(256).into()).map(drop).unwrap_err().to_string();
        assert!(line.starts_with("DATA_DIR: ") && line.contains("File name too long"), "{line}");
    }

    #[test]
    fn a_copy_that_fails_ends_the_process_with_an_error_unless_it_is_to_be_discarded() {
        let owner = Owner { name: "db-1".parse().unwrap(), folder: "data".into(), ring: None };
        let ends = |failed: &[Role], discard| {
            let failed = failed.iter().map(|&role| CopyFailure { role, error: StoreError::Poisoned });
            check_failures(&owner, failed, discard).map_err(|error| error.to_string())
        };
        let replica = Err("the replica copy failed and is not used any more".to_owned());
        assert_eq!(ends(&[], None), Ok(()));
        assert_eq!(ends(&[Role::Replica], None), replica);
        assert_eq!(ends(&[Role::Replica], Some(Role::Primary)), replica);
        assert_eq!(ends(&[Role::Primary], Some(Role::Primary)), Ok(()));
        assert_eq!(ends(&[Role::Primary, Role::Replica], Some(Role::Primary)), replica);
    }
}
