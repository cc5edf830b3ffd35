//! Asking a process on this machine whether it is well: a HEALTHCHECK that needs no curl.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::listen::Addresses;

/// For connecting, asking and being answered together.
const DEADLINE: Duration = Duration::from_secs(2);

/// As [`probe_at`] by loopback.
///
/// # Errors
/// As there.
pub fn probe(port: u16, path: &str) -> Result<(), String> {
    probe_at(&Addresses::loopback(), port, path, None)
}

/// Sends `GET http://localhost:port/path`, or https where it is said how to speak TLS, to the first of these
/// addresses that can be connected to, and is content with nothing but the status 200, within 2 seconds.
///
/// # Errors
/// What was answered instead, or why there was no answer, in words for a person.
pub fn probe_at(
    addresses: &Addresses,
    port: u16,
    path: &str,
    tls: Option<ClientConfig>,
) -> Result<(), String> {
    let line = status_line(addresses, port, path, tls, DEADLINE).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("no answer from port {port} within {DEADLINE:?}")
        }
        ErrorKind::ConnectionRefused => format!("nothing listens on port {port}"),
        _ => format!("no answer from port {port}: {error}"),
    })?;
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("port {port} answers {line:?} for {path}")),
    }
}

/// The first line of the answer. A socket's own timeouts start again with each byte; the deadline does not.
fn status_line(
    addresses: &Addresses,
    port: u16,
    path: &str,
    tls: Option<ClientConfig>,
    within: Duration,
) -> io::Result<String> {
    let deadline = Instant::now() + within;
    let connect = |address| TcpStream::connect_timeout(&SocketAddr::from((address, port)), within);
    let connect_to_any = |first, next| match first {
        // A machine may have IPv6 alone. What is said is said of the first address.
        Err(error) => connect(next).map_err(|_| error),
        connected => connected,
    };
    let mut addresses = addresses.reachable().into_iter();
    let first = addresses.next().map_or_else(|| Err(ErrorKind::AddrNotAvailable.into()), connect);
    let stream = Limited { stream: addresses.fold(first, connect_to_any)?, deadline };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    match tls {
        None => exchange(stream, &request),
        Some(config) => {
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
            exchange(StreamOwned::new(session, stream), &request)
        }
    }
}

/// Sends a request, and returns the first line of what comes back.
fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 512]);
    while !answer.contains(&b'\n') && answer.len() < 4096 {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            // By a signal, which says nothing of the other side.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

/// A connection that ends at a moment, however slowly bytes come.
struct Limited {
    stream: TcpStream,
    deadline: Instant,
}

impl Limited {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use super::*;

    /// A server for one request: it waits for the end of the request's head, and answers `answer`.
    fn server(text: &'static str) -> (u16, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        (listener.local_addr().unwrap().port(), answer(listener, text))
    }

    fn answer(listener: TcpListener, answer: &'static str) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        })
    }

    #[test]
    fn is_content_with_200() {
        let (port, server) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(probe(port, "/health/live"), Ok(()));
        assert!(server.join().unwrap().starts_with("GET /health/live HTTP/1.1\r\n"));
    }

    #[test]
    fn asks_by_ipv6_where_nothing_listens_on_ipv4() {
        let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
            println!("skipped: this machine has no IPv6");
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let server = answer(listener, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(probe(port, "/health/live"), Ok(()));
        server.join().unwrap();
    }

    #[test]
    fn says_what_was_answered_instead() {
        for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1 404 200\r\n\r\n", "nonsense", ""]
        {
            let (port, server) = server(answer);
            let error = probe(port, "/health/ready").unwrap_err();
            assert!(error.contains(answer.trim_end()) && error.contains(&port.to_string()), "{error}");
            server.join().unwrap();
        }
    }

    #[test]
    fn says_that_nothing_listens() {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        assert_eq!(probe(port, "/"), Err(format!("nothing listens on port {port}")));
    }

    #[test]
    fn does_not_wait_for_ever() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error =
            status_line(&Addresses::loopback(), port, "/", None, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    }
}
