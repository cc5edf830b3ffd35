//! The TCP stream of a connection, which is closed so that its last answer arrives.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

/// How long a connection that has closed its side reads on, unless the other side is closed before. The
/// kernel would reset it if bytes came after its end, and an answer that was not read yet would be lost.
const LINGER: Duration = Duration::from_secs(3);

/// So much is read in that time.
const MAX_LINGERED: usize = 32 << 20;

/// What a connection does, as its stream and its service see it.
#[derive(Debug)]
pub(super) struct Activity {
    /// Whether a byte was written, or a handler began or ended, since the last look.
    worked: AtomicBool,
    /// Handlers at work.
    handlers: AtomicUsize,
    /// Whether the caller may still be sending when this side closes.
    lingers: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let (worked, handlers) = (AtomicBool::new(false), AtomicUsize::new(0));
        Arc::new(Self { worked, handlers, lingers: AtomicBool::new(true) })
    }

    /// Whether nothing has happened since the last look.
    pub(super) fn is_idle(&self) -> bool {
        !self.worked.swap(false, Relaxed) && self.handlers.load(Relaxed) == 0
    }

    pub(super) fn set_lingers(&self, lingers: bool) {
        self.lingers.store(lingers, Relaxed);
    }
}

/// A handler at work, until it is dropped. Handlers end by themselves: most have a deadline, a scan of all
/// records may take minutes.
pub(super) struct Handling(pub(super) Arc<Activity>);

impl Handling {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.handlers.fetch_add(1, Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.worked.store(true, Relaxed);
        self.0.handlers.fetch_sub(1, Relaxed);
    }
}

/// See the module.
pub(super) struct Stream {
    tcp: TcpStream,
    activity: Arc<Activity>,
    /// Held here, since a stream may outlive its HTTP as a WebSocket.
    _permit: OwnedSemaphorePermit,
    /// Set when this side is closed: until when it is read on, and how much.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, activity: Arc<Activity>, permit: OwnedSemaphorePermit) -> Self {
        Self { tcp, activity, _permit: permit, lingering: None }
    }

    fn tcp(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().tcp)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.tcp().poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.tcp).poll_write(context, bytes));
        this.activity.worked.store(true, Relaxed);
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.tcp).poll_write_vectored(context, pieces));
        this.activity.worked.store(true, Relaxed);
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
        if !this.activity.lingers.load(Relaxed) {
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
            match ready!(Pin::new(&mut this.tcp).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() && *left > 0 => {
                    *left = left.saturating_sub(buffer.filled().len());
                }
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
