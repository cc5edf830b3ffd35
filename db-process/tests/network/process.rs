//! A db-process in the test's own process, and requests to its replication port.

use std::net::SocketAddr;
use std::path::Path;

use db_process::config::DbProcessConfig;
use db_process::store::BlockCache;
use process::{CommonSettings, NodeEnv, RingFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::gateway::SECRET;
use crate::soon;

pub(crate) struct Process {
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

pub(crate) fn config(name: &str, folder: &Path, gateway: SocketAddr) -> DbProcessConfig {
    DbProcessConfig {
        replication_bind_address: None,
        socket_server_url: vec![format!("ws://{gateway}").parse().unwrap()],
        db_instance_id: name.parse().unwrap(),
        data_dir: Some(folder.join(name)),
        replication_port: 0,
        replication_address: None,
        cache_mib: BlockCache::DEFAULT_MIB,
        healthcheck: None,
        common: CommonSettings {
            node_env: Some(NodeEnv::Development),
            corro_env: None,
            log_dir: "unused".into(),
            log_max_mib: CommonSettings::LOG_MAX_MIB,
            cluster_secret: Some(SECRET.parse().unwrap()),
            cluster_secret_file: None,
            ring_files: RingFiles::default(),
        },
    }
}

impl Process {
    pub(crate) fn start(config: DbProcessConfig) -> Self {
        let shutdown = CancellationToken::new();
        let running = db_process::run::run(config, shutdown.clone());
        let task = tokio::spawn(async {
            // A test that waits for such a process in vain should show why.
            running.await.inspect_err(|error| println!("a process ended: {error:#}"))
        });
        Self { shutdown, task }
    }

    /// None, as a placeholder.
    pub(crate) fn none() -> Self {
        Self { shutdown: CancellationToken::new(), task: tokio::spawn(async { Ok(()) }) }
    }

    /// Asks it to stop.
    pub(crate) fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// Asks it to stop, and sees that it does so well.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        soon(self.task).await.unwrap().unwrap();
    }

    /// Waits until it ends by itself, and returns why.
    pub(crate) async fn fails(self) -> String {
        format!("{:#}", soon(self.task).await.unwrap().unwrap_err())
    }
}

/// Status of `GET path` on that port of this machine.
pub(crate) async fn status(port: u16, path: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
