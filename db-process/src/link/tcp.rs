//! The TCP socket beneath a connection of rust_socketio, which has no way to reach it.
//!
//! It is needed for three things: `TCP_NODELAY` (with Nagle's algorithm an exchange can stall for 44 ms),
//! noticing that the other side has closed (the library then ends its stream silently), and closing
//! it for sure (the library closes politely, which takes for ever when the other side hangs).
//!
//! So it is looked up among the open files of this process, by the address that it is connected to.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use socket2::{SockRef, Socket};

/// A second handle on a socket of this process; dropping it ends the connection, although the library holds
/// the first.
#[derive(Debug)]
pub(super) struct TcpHandle(Socket);

impl TcpHandle {
    /// Every socket of this process that is connected to one of these addresses.
    pub(super) fn connected_to(peers: &[SocketAddr]) -> io::Result<Vec<Socket>> {
        // All are looked at before any is duplicated: a duplicate may get a number that is still to be looked
        // at.
        let mut files = open_files()?;
        files.retain(|number| with_file(*number, |file| is_socket_to(file, peers)));
        let mut sockets: Vec<_> = files
            .into_iter()
            .filter_map(|number| with_file(number, |file| SockRef::from(&file).try_clone().ok()))
            .collect();
        // Once more, as another thread may have closed and opened files meanwhile.
        sockets.retain(|socket| is_socket_to(socket.as_fd(), peers));
        Ok(sockets)
    }

    /// Takes a socket over, and turns Nagle's algorithm off.
    pub(super) fn take(socket: Socket) -> io::Result<Self> {
        socket.set_tcp_nodelay(true)?;
        Ok(Self(socket))
    }

    /// Whether the other side has closed, and all that it sent before has been read.
    pub(super) fn is_closed(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match self.0.peek(&mut byte) {
            Ok(received) => received == 0,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> &Socket {
        &self.0
    }
}

impl Drop for TcpHandle {
    fn drop(&mut self) {
        // Reads and writes on it fail at once. An error means that it is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Address of this end, which differs between two sockets to the same peer.
pub(super) fn local_address(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

/// Numbers of the open files of this process.
fn open_files() -> io::Result<Vec<RawFd>> {
    let folder = std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd"))?;
    let number = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    Ok(folder.filter_map(number).collect())
}

/// Whether it is a socket that is connected to one of them. Files of other kinds must not be
/// duplicated: closing the duplicate of a file can release a lock that the process holds on it.
fn is_socket_to(file: BorrowedFd<'_>, peers: &[SocketAddr]) -> bool {
    let peer = SockRef::from(&file).peer_addr().ok().and_then(|address| address.as_socket());
    peer.is_some_and(|peer| peers.contains(&peer))
}

#[expect(unsafe_code, reason = "a file that a library has opened can only be had by its number")]
fn with_file<T>(number: RawFd, look: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    // SAFETY: `look` asks for the peer of the file, or duplicates it; nothing is read, written or closed by
    // its number. If another thread has closed it meanwhile, that fails, or comes upon another file, which is
    // checked for.
    look(unsafe { BorrowedFd::borrow_raw(number) })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        (client, listener.accept().unwrap().0, address)
    }

    fn only(address: SocketAddr) -> TcpHandle {
        let mut found = TcpHandle::connected_to(&[address]).unwrap();
        assert_eq!(found.len(), 1);
        TcpHandle::take(found.remove(0)).unwrap()
    }

    #[test]
    fn nagle_is_off_for_the_holder_of_the_first_handle() {
        let (client, _server, address) = pair();
        assert!(!client.nodelay().unwrap(), "the system's default");
        let _handle = only(address);
        assert!(client.nodelay().unwrap());
    }

    #[test]
    fn only_sockets_to_that_peer_are_found() {
        let (_client, _server, address) = pair();
        let (_other, _server, elsewhere) = pair();
        assert_eq!(TcpHandle::connected_to(&[address]).unwrap().len(), 1);
        assert_eq!(TcpHandle::connected_to(&[address, elsewhere]).unwrap().len(), 2);
        assert_eq!(TcpHandle::connected_to(&["127.0.0.1:1".parse().unwrap()]).unwrap().len(), 0);
    }

    #[test]
    fn dropping_it_ends_the_connection_for_both_sides() {
        let (mut client, mut server, address) = pair();
        drop(only(address));
        assert_eq!(io::Read::read(&mut server, &mut [0]).unwrap(), 0);
        assert_eq!(io::Read::read(&mut client, &mut [0]).unwrap(), 0);
    }

    #[test]
    fn the_other_sides_end_is_seen_after_its_last_byte() {
        let (mut client, mut server, address) = pair();
        client.set_nonblocking(true).unwrap();
        let handle = only(address);
        assert!(!handle.is_closed());
        io::Write::write_all(&mut server, b"x").unwrap();
        drop(server);
        client.set_nonblocking(false).unwrap();
        assert_eq!(client.peek(&mut [0]).unwrap(), 1, "the last byte has arrived");
        client.set_nonblocking(true).unwrap();
        assert!(!handle.is_closed(), "a byte is still to be read");
        client.set_nonblocking(false).unwrap();
        io::Read::read_exact(&mut client, &mut [0]).unwrap();
        assert_eq!(io::Read::read(&mut client, &mut [0]).unwrap(), 0);
        assert!(handle.is_closed());
    }
}
