//! The byte stream of one connection: it notes what moves, ends when it is told to, and words the refusals that hyper
//! gives by itself.
//!
//! A head that cannot be read never reaches the router: hyper answers it with a bare status and closes. Those few bytes
//! are replaced here by a problem, so that every error of this API is one. They are known by being written while a
//! head was coming in, and by having no request id, which every answer of a handler has. One exception is left: behind a
//! request that came in the same packet, the bare status stays.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Seat;
use super::progress::{End, Progress};
use crate::http::kind::Kind;
use crate::http::problem::Problem;

#[derive(Debug)]
pub(super) struct Stream {
    tcp: TcpStream,
    progress: Arc<Progress>,
    /// What goes out instead of a refusal of hyper, as far as it has not yet.
    instead: Option<Vec<u8>>,
    /// Kept here, since a stream may outlive its HTTP as a WebSocket.
    _seat: Seat,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, progress: Arc<Progress>, seat: Seat) -> Self {
        Self { tcp, progress, instead: None, _seat: seat }
    }

    /// Writes what stands in the place of `refusal`, which counts as written when all of it is.
    fn poll_replace(&mut self, context: &mut Context<'_>, refusal: usize) -> Poll<io::Result<usize>> {
        while let Some(rest) = self.instead.as_mut().filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(context, rest))?;
            rest.drain(..written);
        }
        self.instead = None;
        Poll::Ready(Ok(refusal))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = self.progress.ended() {
            if end == End::HeadTooSlow {
                let detail = "Nothing was done: the head of the request did not arrive in time.";
                let answer = Problem::new(Kind::HeadTooSlow, detail).into_last_words();
                // A caller that is this slow may not even have room for that.
                let _ = self.tcp.try_write(&answer);
            }
            return Poll::Ready(Ok(())); // the end of the stream
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.progress.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.progress.ended().is_some() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.progress.is_unheard() {
            if self.instead.is_none() {
                self.instead = refusal(bytes);
            }
            if self.instead.is_some() {
                return self.poll_replace(context, bytes.len());
            }
        }
        let written = ready!(Pin::new(&mut self.tcp).poll_write(context, bytes))?;
        self.progress.written();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.progress.ended().is_some() || self.progress.is_unheard() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(context, first);
        }
        let written = ready!(Pin::new(&mut self.tcp).poll_write_vectored(context, slices))?;
        self.progress.written();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// What to say in the place of these bytes, if they are a refusal that no handler gave.
fn refusal(bytes: &[u8]) -> Option<Vec<u8>> {
    let status = StatusCode::from_bytes(bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?;
    let name = b"x-request-id:";
    let is_answer = bytes.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name));
    (status.is_client_error() && !is_answer).then(|| Problem::unreadable(status).into_last_words())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_without_a_request_id_is_replaced() {
        let bare =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let said = String::from_utf8(refusal(bare).expect("a refusal")).expect("text");
        assert!(
            said.starts_with("HTTP/1.1 431 ") && said.contains("urn:corro:problem:head-too-large"),
            "{said}"
        );
        for other in [
            &b"HTTP/1.1 404 Not Found\r\nX-Request-Id: 1\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 4",
            b"",
        ] {
            assert_eq!(refusal(other), None);
        }
    }
}
