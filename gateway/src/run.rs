//! Wires the gateway together: the one place that knows all its parts.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use process::handshake::GATEWAY;
use process::server::{self, Policy};
use process::{Addresses, Listener};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::config::GatewayConfig;
use crate::election::{ElectedEngine, Election};
use crate::engine::EngineConfig;
use crate::engine_task::{EngineHandle, EngineTask};
use crate::http::{self, Advertised, HttpSettings};
use crate::standing::Standing;
use crate::tokens_file;
use crate::transport::{self, Connections};

/// Bound of each partition's unreplicated tail.
const TAIL_BYTES: usize = 64 << 20;

/// So many open files are left for everything that is no connection of a caller.
const RESERVED_FILES: usize = 512;

/// Links of db-processes: two of each, as one may come back before the gateway notices that it was gone.
const MAX_MEMBERS: usize = 2_000;

/// The hand-over to another gateway may take this long.
const HAND_OVER: Duration = Duration::from_millis(1_500);

/// Within this time after it, other gateways send no more requests here.
const HEARD_OF: Duration = Duration::from_millis(100);

/// Requests in flight get this long to end after the order to stop.
const GRACE: Duration = Duration::from_secs(4);

/// What both commands that can be a gateway do: checks the settings, or the health of the gateway that runs
/// with them, or runs it until SIGTERM. An error is one line on standard error.
pub fn main(config: GatewayConfig) -> ExitCode {
    if config.healthcheck {
        return match healthcheck(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(line) => {
                process::complain(&line);
                ExitCode::FAILURE
            }
        };
    }
    if let Err(line) = config.validate() {
        process::complain(&line);
        return ExitCode::from(2);
    }
    let common = config.common.clone();
    process::run("gateway", &common, async |shutdown| run(config, shutdown).await)
}

fn healthcheck(config: &GatewayConfig) -> Result<(), String> {
    let tls = config.tls()?.as_ref().map(process::self_trusting).transpose()?;
    process::probe_at(&config.rest_addresses(), config.rest_port, "/health/live", tls)
}

/// A gateway whose ports are open, but that serves nothing yet.
pub struct Gateway {
    config: GatewayConfig,
    rest: Listener,
    socket: Listener,
}

/// Runs a gateway until `shutdown`: then it accepts nothing more, finishes what is in flight, and returns
/// within five seconds.
///
/// # Errors
/// If a port cannot be opened, or a part of it panics.
pub async fn run(config: GatewayConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    Gateway::bind(config).await?.serve(shutdown).await
}

impl Gateway {
    /// Opens the ports; 0 stands for any free one.
    ///
    /// # Errors
    /// If one of them is taken or not allowed.
    pub async fn bind(config: GatewayConfig) -> anyhow::Result<Self> {
        let rest = listen("REST_PORT", &config.rest_addresses(), config.rest_port)?;
        let socket = listen("SOCKET_PORT", &config.socket_addresses(), config.socket_port)?;
        Ok(Self { config, rest, socket })
    }

    /// Where HTTP is served.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn rest_address(&self) -> std::io::Result<SocketAddr> {
        self.rest.local_addr()
    }

    /// Where db-processes connect.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn socket_address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// See [`run`].
    ///
    /// # Errors
    /// If a part of it panics.
    pub async fn serve(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { config, rest, socket } = self;
        let tls = config.tls().and_then(|files| files.map(http::tls).transpose());
        let tls = tls.map_err(anyhow::Error::msg)?;
        let ring_tls = config.common.ring_files.open(GATEWAY).map_err(anyhow::Error::msg)?;
        let (rest_address, socket_address) = (rest.local_addr()?, socket.local_addr()?);
        info!(
            rest = %rest_address, tls = tls.is_some(), socket = %socket_address, size = config.db_processes,
            "gateway started"
        );
        let secret = config.common.ring_secret().map_err(anyhow::Error::msg)?;
        let id = Uuid::new_v4();
        let advertised = config.advertised_address.as_ref();
        let me = protocol::term::Gateway {
            id,
            name: config.gateway_name.clone(),
            host: advertised.map(Advertised::host),
            port: advertised.and_then(Advertised::port).unwrap_or(rest_address.port()),
        };
        let election = Election::new(me, config.db_processes, id.as_u64_pair().1);
        let engine = ElectedEngine::new(
            EngineConfig {
                size: config.db_processes,
                new_ring: Uuid::new_v4(),
                tail_bytes: TAIL_BYTES,
                max_clock_offset: Duration::from_secs(config.max_clock_offset),
            },
            election,
        );
        let (standing, standings) = watch::channel(Standing::Active { term: 0 });
        let connections = Connections::default();
        let (handle, requests) = EngineHandle::channel();
        let (events_in, events) = mpsc::unbounded_channel();
        // The ring is served until the last HTTP request has its answer.
        let ring_shutdown = CancellationToken::new();
        let feed = Arc::clone(handle.feed());
        let purge_after = config.purge_after();
        let task = EngineTask::new(engine, standing, connections.clone(), Arc::clone(&feed), purge_after);
        let (leave, left) = (shutdown.clone(), CancellationToken::new());
        let deciding = tokio::spawn(task.run(requests, events, leave, left.clone(), ring_shutdown.clone()));
        let waking = ring_shutdown.clone();
        let waking = tokio::spawn(async move { feed.wake(waking).await });
        let (rest_policy, socket_policy) = policies(process::open_files());
        if let Some(tls) = ring_tls.clone() {
            tokio::spawn(tls.watch(ring_shutdown.clone()));
        }
        let socket = socket.with_tls(ring_tls);
        let links_shutdown = CancellationToken::new();
        let links =
            transport::serve((socket, socket_policy), secret, connections, events_in, links_shutdown.clone());
        let linking = tokio::spawn(links);

        let audit = config.open_audit()?;
        let settings = HttpSettings {
            closing: shutdown.clone(),
            standing: standings,
            audit: audit.clone(),
            ..config.http_settings()
        };
        let access = settings.access.clone();
        if let Some(file) = config.api_tokens_file.clone() {
            let others = config.tokens().map_err(anyhow::Error::msg)?;
            let tokens = tokens_file::read(&file).map_err(anyhow::Error::msg)?;
            access.replace([&others[..], &tokens].concat());
            tokio::spawn(tokens_file::watch(file, others, access.clone(), ring_shutdown.clone()));
        }
        match access.summary() {
            summary if access.is_unusual() => warn!("{summary}"),
            summary => info!("{summary}"),
        }
        if let Some(tls) = tls.clone() {
            tokio::spawn(tls.watch(ring_shutdown.clone()));
        }
        let app = http::router(handle, &settings);
        let http_shutdown = CancellationToken::new();
        let (closing, handed_over) = (shutdown.clone(), http_shutdown.clone());
        let standing = settings.standing.clone();
        tokio::spawn(async move {
            closing.cancelled().await;
            let _ = tokio::time::timeout(HAND_OVER, left.cancelled()).await;
            // Other gateways hear of it a moment later, and must find their connections open until then.
            if !matches!(*standing.borrow(), Standing::Active { .. }) {
                tokio::time::sleep(HEARD_OF).await;
            }
            handed_over.cancel();
        });
        let serving = server::serve(rest.with_tls(tls), app, rest_policy, http_shutdown);
        let deadline = async {
            shutdown.cancelled().await;
            info!("gateway stopping");
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = serving => {}
            () = deadline => warn!("some requests were still in flight when the time to stop was over"),
        }
        ring_shutdown.cancel();
        // It may have to tell the processes that another gateway is next.
        deciding.await.context("the engine panicked")?;
        links_shutdown.cancel();
        linking.await.context("the link server panicked")?;
        waking.await.context("the feed panicked")?;
        audit.flush().await;
        info!("gateway stopped");
        Ok(())
    }
}

/// What the callers of both ports may cost, where the process may open so many files: some are left for logs,
/// rejected connections and whatever else.
fn policies(files: usize) -> (Policy, Policy) {
    let room = files - RESERVED_FILES.min(files / 4);
    let socket = Policy::inner("SOCKET_PORT", (room / 4).clamp(1, MAX_MEMBERS));
    let connections = room.saturating_sub(socket.files()).clamp(1, http::MAX_CONNECTIONS);
    (http::policy(connections), socket)
}

fn listen(variable: &str, addresses: &Addresses, port: u16) -> anyhow::Result<Listener> {
    process::listen(addresses, port)
        .with_context(|| format!("{variable}={port} cannot be opened; is another program using it?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_links_and_other_files() {
        for (files, connections, members) in [
            (usize::MAX, 16_384, 2_000),
            (20_000, 16_384, 2_000),
            (4_096, 2_560, 896),
            (1_024, 448, 192),
            (0, 1, 1),
        ] {
            let (rest, socket) = policies(files);
            assert_eq!((rest.connections, socket.members), (connections, Some(members)), "{files}");
            assert!(files < 1_024 || rest.files() + socket.files() + 256 <= files, "{files}");
        }
    }
}
