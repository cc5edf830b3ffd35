//! The TCP stream of a connection: it counts what is read, ends where its place is taken, and is closed so
//! that its last answer arrives.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::activity::Activity;
use super::room::Room;

/// How long a connection that has closed its side reads on, unless the other side is closed before. The
/// kernel would reset it if bytes came after its end, and an answer that was not read yet would be lost.
const LINGER: Duration = Duration::from_secs(3);

/// So much is read in that time.
const MAX_LINGERED: usize = 32 << 20;

/// See the module. It may outlive its HTTP as a WebSocket.
pub(super) struct Stream {
    tcp: TcpStream,
    activity: Arc<Activity>,
    room: Arc<Room>,
    /// Set when this side is closed: until when it is read on, and how much.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, activity: Arc<Activity>, room: Arc<Room>) -> Self {
        Self { tcp, activity, room, lingering: None }
    }

    /// Returns when there is something to read, or the connection is to end: until then it needs no buffer.
    pub(super) async fn begun(&self) {
        poll_fn(|context| match self.tcp.poll_read_ready(context) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => self.activity.poll_closed(context),
        })
        .await;
    }

    /// Whether what comes is TLS, where there is a byte to read.
    pub(super) async fn is_tls(&self) -> bool {
        /// The first byte of a handshake; no method of HTTP begins with it.
        const HANDSHAKE: u8 = 22;
        let mut first = [0];
        let peeked = poll_fn(|context| match self.tcp.poll_peek(context, &mut ReadBuf::new(&mut first)) {
            Poll::Ready(peeked) => Poll::Ready(peeked.ok()),
            Poll::Pending => self.activity.poll_closed(context).map(|()| None),
        });
        let peeked = peeked.await;
        peeked != Some(1) || first[0] == HANDSHAKE
    }

    fn tcp(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().tcp)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.room.leave(&self.activity);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let activity = &this.activity;
        if activity.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.tcp).poll_read(context, buffer) {
            Poll::Pending => {
                activity.poll_closed(context).map(|()| Err(io::ErrorKind::ConnectionAborted.into()))
            }
            read => {
                activity.received(buffer.filled().len() - before);
                read
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.tcp).poll_write(context, bytes));
        this.activity.wrote();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.tcp).poll_write_vectored(context, pieces));
        this.activity.wrote();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.tcp).poll_shutdown(context))?;
        }
        if !this.activity.lingers() {
            return Poll::Ready(Ok(()));
        }
        let (end, left) = this.lingering.get_or_insert_with(|| (Box::pin(sleep(LINGER)), MAX_LINGERED));
        // First: a caller that sends without a pause must not hide the end.
        if end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut discarded = [0; 8 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            match Pin::new(&mut this.tcp).poll_read(context, &mut buffer) {
                Poll::Pending => return this.activity.poll_closed(context).map(Ok),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && *left > 0 => {
                    *left = left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
