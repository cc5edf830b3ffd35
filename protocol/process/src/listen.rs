//! Ports, and the addresses of this machine on which they are open.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::task::Poll;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::settings::NodeEnv;
use crate::tls::Tls;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Any free port has to be free on all addresses; so often another one is tried.
const ATTEMPTS: usize = 16;

/// Addresses on which a port is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<IpAddr>);

impl Addresses {
    /// Programs of this machine reach them.
    pub fn loopback() -> Self {
        Self(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
    }

    /// All addresses of this machine, of IPv4 and IPv6.
    pub fn all() -> Self {
        Self(vec![Ipv6Addr::UNSPECIFIED.into()])
    }

    /// Those of a port for which none are set: at a desk no other machine reaches it.
    pub fn of(environment: NodeEnv) -> Self {
        match environment {
            NodeEnv::Development => Self::loopback(),
            NodeEnv::Production => Self::all(),
        }
    }

    /// Whether no other machine reaches them.
    pub fn are_loopback(&self) -> bool {
        self.0.iter().all(|address| address.to_canonical().is_loopback())
    }

    /// Where a program of this machine connects, one after the other.
    pub(crate) fn reachable(&self) -> Vec<IpAddr> {
        if self.0.iter().any(IpAddr::is_unspecified) { Self::loopback().0 } else { self.0.clone() }
    }
}

impl FromStr for Addresses {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "localhost" => Ok(Self::loopback()),
            "all" => Ok(Self::all()),
            list => {
                let addresses = list.split(',').map(|address| address.trim().parse::<IpAddr>());
                addresses.collect::<Result<_, _>>().map(Self).map_err(
                    |_| "allowed: localhost, all, or IP addresses of this machine, separated by commas",
                )
            }
        }
    }
}

/// An open port.
#[derive(Debug)]
pub struct Listener {
    /// Of each address.
    listeners: Vec<TcpListener>,
    /// Which is asked first, so that none has to wait for the callers of another.
    first: usize,
    tls: Option<Tls>,
}

impl Listener {
    /// With TLS, if there is any.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// How it speaks TLS, if it does.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The first of its addresses, and the port.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listeners
            .first()
            .map_or_else(|| Err(io::ErrorKind::NotConnected.into()), TcpListener::local_addr)
    }

    /// The next connection. May be given up at any time.
    ///
    /// # Errors
    /// As accept(2).
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.first = (self.first + 1) % self.listeners.len();
        let (before, first) = self.listeners.split_at(self.first);
        poll_fn(|context| {
            for listener in first.iter().chain(before) {
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { listeners: vec![listener], first: 0, tls: None }
    }
}

/// Opens a port on these addresses; port 0 takes any that is free on all of them. Those of IPv6 are left out
/// where the system has no IPv6. On all addresses, a peer that comes by IPv4 has an IPv6 address
/// (`::ffff:127.0.0.1`): see [`IpAddr::to_canonical`].
///
/// # Errors
/// If the port is taken on one of them, or not allowed, or one is no address of this machine. Outside a
/// runtime.
pub fn listen(addresses: &Addresses, port: u16) -> io::Result<Listener> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match open_all(&addresses.0, port) {
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse && attempts < ATTEMPTS => {}
            opened => return opened,
        }
    }
}

fn open_all(addresses: &[IpAddr], mut port: u16) -> io::Result<Listener> {
    let mut listeners = Vec::new();
    for &address in addresses {
        let listener = match open((address, port).into()) {
            Err(error) if address.is_ipv6() && is_without_ipv6(&error) => {
                if !address.is_unspecified() {
                    continue;
                }
                open((Ipv4Addr::UNSPECIFIED, port).into())?
            }
            opened => opened?,
        };
        port = listener.local_addr()?.port();
        listeners.push(TcpListener::from_std(listener)?);
    }
    if listeners.is_empty() {
        Err(io::ErrorKind::AddrNotAvailable.into())
    } else {
        Ok(Listener { listeners, first: 0, tls: None })
    }
}

/// Switched off when the system was started, or later, for all interfaces.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Some systems have it otherwise by default.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn both_kinds_of_addresses_are_accepted_and_neither_is_free_any_more() {
        for addresses in [Addresses::all(), Addresses::loopback()] {
            let mut listener = listen(&addresses, 0).unwrap();
            let port = listener.local_addr().unwrap().port();
            for address in addresses.reachable() {
                let Ok(stream) = TcpStream::connect((address, port)) else {
                    assert!(address.is_ipv6() && std::net::TcpListener::bind((address, 0)).is_err());
                    continue;
                };
                let (_, peer) = listener.accept().await.unwrap();
                assert_eq!(peer.ip().to_canonical(), address);
                assert_eq!(peer.port(), stream.local_addr().unwrap().port());
            }
            let taken = listen(&addresses, port).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[tokio::test]
    async fn a_port_on_loopback_is_open_on_no_other_address() {
        let listener = listen(&Addresses::loopback(), 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        // All of 127/8 are addresses of this machine.
        assert!(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port)).is_err());
    }

    #[tokio::test]
    async fn a_port_that_is_taken_on_ipv4_alone_is_not_free() {
        let other = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        for addresses in [Addresses::all(), Addresses::loopback()] {
            assert_eq!(listen(&addresses, port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn addresses_are_names_or_lists() {
        let addresses = |text: &str| text.parse::<Addresses>();
        assert_eq!(addresses("localhost"), Ok(Addresses::loopback()));
        assert_eq!(addresses("127.0.0.1, ::1"), Ok(Addresses::loopback()));
        assert_eq!(addresses("all"), addresses("::"));
        assert!(addresses("127.0.0.1, ::1, 127.0.0.9").unwrap().are_loopback());
        assert!(
            !addresses("127.0.0.1, 10.0.0.7").unwrap().are_loopback() && !Addresses::all().are_loopback()
        );
        assert_eq!(addresses("10.0.0.7").unwrap().reachable(), ["10.0.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses("0.0.0.0").unwrap().reachable(), Addresses::loopback().0);
        for bad in ["", "127.0.0.1:80", "gateway", "10.0.0.7,"] {
            assert!(addresses(bad).is_err(), "{bad}");
        }
    }
}
