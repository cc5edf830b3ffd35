//! The stream of a connection: TCP, or TLS on it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use native_tls::TlsStream;
use url::Host;

use crate::client::Endpoint;

/// See the module. Nothing of it blocks once it is made.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Connects, and shakes hands where the target is one with https.
    ///
    /// # Errors
    /// Where that fails, or takes longer than `patience` in one of its steps.
    pub(super) fn connect(
        target: &Endpoint,
        address: &SocketAddr,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect_timeout(address, patience).with_context(|| address.to_string())?;
        tcp.set_nodelay(true)?;
        let wire = if target.base.scheme() == "https" {
            tcp.set_read_timeout(Some(patience))?;
            tcp.set_write_timeout(Some(patience))?;
            let name = match target.base.host().context("the address has a host")? {
                Host::Domain(name) => name.to_owned(),
                Host::Ipv4(address) => address.to_string(),
                Host::Ipv6(address) => address.to_string(),
            };
            let tls = target.trust.connector().connect(&name, tcp);
            Self::Tls(Box::new(tls.map_err(|error| anyhow::anyhow!("{target}: {error}"))?))
        } else {
            Self::Plain(tcp)
        };
        wire.tcp().set_nonblocking(true)?;
        Ok(wire)
    }

    /// What lies beneath.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref(),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
