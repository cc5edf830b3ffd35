//! The gateway is cut off from all db-processes at once, and what fails: nothing.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::copies::until_equal;
use super::load::Load;
use super::processes::Ring;

/// What becomes of the connections to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Works,
    /// Nothing arrives before it works again.
    Stalls,
    /// All connections are reset, and new ones as well.
    Resets,
}

/// Everything between the db-processes and the gateway passes through here.
struct Cable {
    port: u16,
    network: watch::Sender<Network>,
}

impl Cable {
    async fn to(gateway: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (network, state) = watch::channel(Network::Works);
        tokio::spawn(async move {
            while let Ok((process, _)) = listener.accept().await {
                tokio::spawn(connect(process, gateway, state.clone()));
            }
        });
        Self { port, network }
    }

    async fn cut(&self, how: Network, time: Duration) {
        self.network.send_replace(how);
        tokio::time::sleep(time).await;
        self.network.send_replace(Network::Works);
    }
}

/// One connection, until one of its ends closes it or it is reset.
async fn connect(mut process: TcpStream, gateway: u16, mut network: watch::Receiver<Network>) {
    let state = network.clone();
    let passes = async {
        let mut gateway = TcpStream::connect(("127.0.0.1", gateway)).await?;
        process.set_nodelay(true)?;
        gateway.set_nodelay(true)?;
        let ((from, to), (back_from, back_to)) = (process.split(), gateway.split());
        let ended = tokio::select! {
            ended = carry(from, back_to, state.clone()) => ended,
            ended = carry(back_from, to, state) => ended,
        };
        ended
    };
    tokio::select! {
        // Whichever end has closed it, the other one sees it closed.
        _ = passes => {}
        _ = network.wait_for(|network| *network == Network::Resets) => {}
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        // The end of the test ends it.
        let _ = network.wait_for(|network| *network != Network::Stalls).await;
        to.write_all(&buffer[..read]).await?;
    }
}

/// Where no packet passes for 0.3 s, TCP sends again what was lost after 0.6 s: longer than it takes to count
/// as lost.
#[tokio::test]
async fn a_gateway_that_is_cut_off_for_a_moment_fails_no_request() {
    let mut ring = Ring::without_processes(3);
    let cable = Cable::to(ring.socket_port).await;
    ring.socket_port = cable.port;
    (0..3).for_each(|place| ring.start_process(place));
    ring.until_ready().await;
    let load = Load::start(ring.rest_port, 64, 1_000).await;
    for (how, millis) in [(Network::Stalls, 650), (Network::Resets, 300)] {
        for _ in 0..5 {
            load.until_more(1_000, 500).await;
            cable.cut(how, Duration::from_millis(millis)).await;
        }
    }
    load.until_more(1_000, 500).await;
    ring.until_ready().await;
    let seen = load.finish().await;
    until_equal(&ring);
    seen.assert_nothing_failed(&ring);
}
