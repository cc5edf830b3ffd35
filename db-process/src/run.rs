//! Wires a db-process together, and takes it apart.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use protocol::message::link::{ReplicationAddress, Role};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::DbProcessConfig;
use crate::identity::DataDir;
use crate::link::gateway::GatewayLink;
use crate::node::{Node, PerRole};
use crate::replication::follower::Follower;
use crate::replication::server::ReplicationServer;
use crate::store::{BlockCache, RocksStore};
use crate::worker::{self, CopyFailure, CopyHandle};

/// How long the gateway may take to let this process go.
const LEAVE_DEADLINE: Duration = Duration::from_secs(3);

/// How long links may take to end.
const STOP_DEADLINE: Duration = Duration::from_millis(1200);

/// What both commands that can be a db-process do: checks the settings, or the health of the db-process that runs with
/// them, or runs it until SIGTERM. An error is told in one line.
pub fn main(config: DbProcessConfig) -> ExitCode {
    if let Err(line) = config.check() {
        eprintln!("{line}");
        return ExitCode::from(2);
    }
    if let Some(health) = config.healthcheck {
        return match config.probe(health) {
            Ok(()) => ExitCode::SUCCESS,
            Err(line) => {
                eprintln!("{line}");
                ExitCode::FAILURE
            }
        };
    }
    let (name, common) = (config.db_instance_id.clone(), config.common.clone());
    process::run(name.as_str(), &common, async |shutdown| run(config, shutdown).await)
}

/// Runs a db-process until `shutdown`. When it returns, its databases are flushed and closed.
///
/// # Errors
/// If it cannot start, a copy fails, or the gateway refuses it for good.
pub async fn run(config: DbProcessConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.check().map_err(anyhow::Error::msg)?;
    let (failed, mut failures) = unbounded_channel();
    let name = config.db_instance_id.clone();
    let opened = {
        let (folder, name) = (config.data_dir(), name.clone());
        spawn_blocking(move || open(folder, &name, &failed)).await.context("opening its data")??
    };
    let node = Arc::new(opened);
    let (listener, address) = listen(config.replication_port).await?;
    let (primary, replica) = (node.reports().primary, node.reports().replica);
    info!(
        %name, incarnation = %node.incarnation(), folder = %config.data_dir().display(), replication_port = address.port(),
        primary_complete = primary.complete, primary_head = primary.head,
        replica_complete = replica.complete, replica_head = replica.head,
        "opened"
    );

    // Until the gateway lets go of it, everything has to work on.
    let stop = CancellationToken::new();
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let secret = config.common.cluster_secret;
    let server = ReplicationServer { secret: secret.clone(), node: Arc::clone(&node) };
    tasks.spawn({
        let stop = stop.clone();
        async move { server.run(listener, stop).await.context("the replication port") }
    });
    for role in Role::ALL {
        let follower = Follower { role, secret: secret.clone(), node: Arc::clone(&node) };
        let stop = stop.clone();
        tasks.spawn(async move {
            follower.run(stop).await;
            Ok(())
        });
    }
    let replication = ReplicationAddress { host: config.replication_address, port: address.port() };
    let link = GatewayLink { url: config.socket_server_url, secret, replication, node: Arc::clone(&node) };
    tasks.spawn({
        let (shutdown, stop) = (shutdown.clone(), stop.clone());
        async move { Ok(link.run(shutdown, stop).await?) }
    });

    let leave_deadline = async {
        shutdown.cancelled().await;
        info!(%name, "asked to stop");
        sleep(LEAVE_DEADLINE).await;
    };
    let outcome = tokio::select! {
        () = leave_deadline => Ok(()),
        Some(CopyFailure { role, error }) = failures.recv() => {
            Err(anyhow!(error).context(format!("the {} copy failed and is not used any more", role.as_str())))
        }
        Some(ended) = tasks.join_next() => ended.context("a task").and_then(|ended| ended),
    };
    stop.cancel();
    if timeout(STOP_DEADLINE, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        warn!(%name, "some connections did not end in time");
        tasks.shutdown().await;
    }
    close(node).await;
    info!(%name, "closed");
    outcome
}

/// Locks the folder, opens both databases, and starts their workers.
fn open(
    folder: PathBuf,
    name: &protocol::InstanceName,
    failed: &UnboundedSender<CopyFailure>,
) -> anyhow::Result<Node> {
    let data = DataDir::open(&folder, name)?;
    let cache = BlockCache::default();
    let start = |role| -> anyhow::Result<CopyHandle> {
        let store = RocksStore::open(&data.copy(role), &cache)?;
        Ok(worker::start(role, store, failed.clone())?)
    };
    let copies = PerRole { primary: start(Role::Primary)?, replica: start(Role::Replica)? };
    Ok(Node::new(data, copies))
}

async fn listen(port: u16) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
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
