//! Ports that are open on every address of this machine.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens on all IPv4 and IPv6 addresses of this machine; port 0 takes any free one. Where the system has no
/// IPv6, on those of IPv4. A peer that comes by IPv4 has an IPv6 address (`::ffff:127.0.0.1`): see
/// [`std::net::IpAddr::to_canonical`].
///
/// # Errors
/// If the port is taken, by a listener on either kind of address, or not allowed. Outside a runtime.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = match open((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if is_without_ipv6(&error) => open((Ipv4Addr::UNSPECIFIED, port).into())?,
        opened => opened?,
    };
    TcpListener::from_std(listener)
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
        socket.set_only_v6(false)?;
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
        let listener = listen(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), Ipv4Addr::LOCALHOST);
        if listener.local_addr().unwrap().is_ipv6() {
            assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).is_ok());
        }
        let taken = listen(port).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_port_that_is_taken_on_ipv4_alone_is_not_free() {
        let other = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let taken = listen(other.local_addr().unwrap().port()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
