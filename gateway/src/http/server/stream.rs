//! The byte stream of one connection: it notes what moves, ends when it is told to, and words the refusals that hyper
//! gives by itself.
//!
//! A head that cannot be read never reaches the router: hyper answers it with a bare status and closes. Those few bytes
//! are replaced here by a problem, so that every error of this API is one. They are known by what they lack: every answer
//! of a handler has a request id. Where requests come one behind the other, they may stand behind an answer in the same
//! buffer; that answer leaves first.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use memchr::memmem;
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

    /// The refusal at the end of these bytes, as [`refusal`] finds it; a handler at work gives none.
    fn refusal<'a>(&self, bytes: &'a [u8]) -> Option<(&'a [u8], Vec<u8>)> {
        if self.progress.is_handling() { None } else { refusal(bytes) }
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
        mut bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.progress.ended().is_some() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.instead.is_none()
            && let Some((before, refusal)) = self.refusal(bytes)
        {
            match before {
                [] => self.instead = Some(refusal),
                // The rest will be offered again.
                before => bytes = before,
            }
        }
        if self.instead.is_some() {
            return self.poll_replace(context, bytes.len());
        }
        let written = ready!(Pin::new(&mut self.tcp).poll_write(context, bytes))?;
        self.progress.written();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.progress.ended().is_some() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        // A refusal is the last that hyper has to say.
        if let [before @ .., last] = slices
            && (self.instead.is_some() || self.refusal(last).is_some())
        {
            if before.iter().all(|slice| slice.is_empty()) {
                return self.poll_write(context, last);
            }
            slices = before;
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

/// No refusal of hyper is longer.
const LONGEST_REFUSAL: usize = 256;

/// If these bytes end with a refusal that no handler gave: what is before it, and what to say in its place.
///
/// Such a refusal has no header but these, and no body. Nothing else can be taken for one: an answer of a handler has a
/// request id, and no body has a line that ends with a carriage return, as JSON escapes those.
fn refusal(bytes: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let head = bytes.strip_suffix(b"\r\n\r\n")?; // nearly every answer has a body, and is done with here
    let near = head.len().saturating_sub(LONGEST_REFUSAL);
    let begin = near + memmem::rfind(&head[near..], b"HTTP/1.")?;
    let (status, headers) = std::str::from_utf8(&head[begin..]).ok()?.split_once("\r\n")?;
    let mut headers = headers.split("\r\n").map(|header| header.split(':').next().unwrap_or_default());
    if !headers.all(|name| ["connection", "content-length", "date"].contains(&name)) {
        return None;
    }
    let status = StatusCode::from_bytes(status.split(' ').nth(1)?.as_bytes()).ok()?;
    status.is_client_error().then(|| (&bytes[..begin], Problem::unreadable(status).into_last_words()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\
                        date: Sat, 21 Nov 2026 17:00:00 GMT\r\n\r\n";

    #[test]
    fn a_refusal_without_a_request_id_is_replaced_also_behind_an_answer() {
        let answers = [
            "",
            "HTTP/1.1 200 OK\r\nx-request-id: 1\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 204 No Content\r\nx-request-id: 1\r\n\r\n",
            "0\r\n\r\n",
        ];
        for before in answers {
            let bytes = format!("{before}{BARE}");
            let (rest, said) = refusal(bytes.as_bytes()).expect("a refusal");
            let said = String::from_utf8(said).expect("text");
            assert_eq!(rest, before.as_bytes());
            assert!(
                said.starts_with("HTTP/1.1 431 ") && said.contains("urn:corro:problem:head-too-large"),
                "{said}"
            );
        }
    }

    #[test]
    fn nothing_else_is_replaced() {
        for other in [
            "HTTP/1.1 404 Not Found\r\nx-request-id: 1\r\ncontent-length: 9\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nx-request-id: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "{\"name\":\"HTTP/1.1 400 Bad Request\"}\r\n0\r\n\r\n",
            "HTTP/1.1 4\r\n\r\n",
            "\r\n\r\n",
            &BARE[..BARE.len() - 1],
            "",
        ] {
            assert_eq!(refusal(other.as_bytes()), None, "{other:?}");
        }
    }
}
