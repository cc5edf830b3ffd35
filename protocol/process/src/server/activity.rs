//! What one connection does, as its stream, its service and its port see it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::policy::Policy;

/// Of one connection, more bytes of an unfinished request are not counted: a stream of many lines is never
/// finished, and is not kept as a whole.
const MAX_COUNTED: usize = 96 << 10;

/// What a connection waits for.
const CALLER: u8 = 0;
const BODY: u8 = 1;
const NOTHING: u8 = 2;
const MESSAGE: u8 = 3;

/// What all connections of a port share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) policy: Policy,
    /// Counts up: how long a connection waits is a matter of order, and needs no clock.
    turns: AtomicU64,
    /// Bytes of all unfinished requests.
    unfinished: AtomicUsize,
    /// There are too many of these.
    pub(super) crowded: Notify,
}

impl Shared {
    pub(super) fn new(policy: Policy) -> Self {
        let (turns, unfinished) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self { policy, turns, unfinished, crowded: Notify::new() }
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Relaxed)
    }

    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.load(Relaxed)
    }

    fn received(&self, bytes: usize) {
        if self.unfinished.fetch_add(bytes, Relaxed) + bytes > self.policy.unfinished {
            self.crowded.notify_one();
        }
    }

    fn let_go(&self, bytes: usize) {
        if bytes > 0 {
            self.unfinished.fetch_sub(bytes, Relaxed);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Activity {
    /// Tells it from others of its port.
    pub(super) number: u64,
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    /// Whether a byte was written, or a handler ended, since the last look.
    worked: AtomicBool,
    /// Handlers at work; with HTTP/2 there may be several.
    handlers: AtomicUsize,
    /// Requests whose answers have not ended.
    exchanges: AtomicUsize,
    /// Whether it is HTTP/2: bytes of unfinished requests are then counted by each body.
    multiplexed: AtomicBool,
    /// Whether the caller may still be sending when this side closes.
    lingers: AtomicBool,
    /// `CALLER`: for a request. `BODY`: for more of a body. `NOTHING`: a request is being answered.
    /// `MESSAGE`: it is no HTTP any more.
    awaits: AtomicU8,
    /// Since when: turns are counted up, by all connections of a port.
    since: AtomicU64,
    /// Bytes of a request that is not complete.
    unfinished: AtomicUsize,
    admitted: AtomicBool,
    closed: AtomicBool,
    /// Of the task that reads.
    reader: AtomicWaker,
}

impl Activity {
    pub(super) fn new(number: u64, address: SocketAddr, shared: Arc<Shared>) -> Self {
        Self {
            number,
            address,
            worked: AtomicBool::new(false),
            handlers: AtomicUsize::new(0),
            exchanges: AtomicUsize::new(0),
            multiplexed: AtomicBool::new(false),
            lingers: AtomicBool::new(true),
            awaits: AtomicU8::new(CALLER),
            since: AtomicU64::new(shared.turn()),
            unfinished: AtomicUsize::new(0),
            admitted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            shared,
        }
    }

    /// The address by which connections are counted.
    pub(super) fn network(&self) -> IpAddr {
        network(self.address.ip())
    }

    /// Whether nothing has happened since the last look.
    pub(super) fn is_idle(&self) -> bool {
        !self.worked.swap(false, Relaxed) && self.handlers.load(Relaxed) == 0
    }

    pub(super) fn lingers(&self) -> bool {
        self.lingers.load(Relaxed)
    }

    pub(super) fn set_lingers(&self, lingers: bool) {
        self.lingers.store(lingers, Relaxed);
    }

    /// From here on it is HTTP/2.
    pub(super) fn set_multiplexed(&self) {
        self.complete();
        self.multiplexed.store(true, Relaxed);
    }

    pub(super) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Relaxed)
    }

    /// A byte was written.
    pub(super) fn wrote(&self) {
        self.worked.store(true, Relaxed);
    }

    /// So many bytes were read.
    pub(super) fn received(&self, bytes: usize) {
        if self.awaits.load(Relaxed) != MESSAGE && !self.is_multiplexed() {
            self.count(bytes, self.unfinished());
        }
    }

    /// Counts bytes of an unfinished request of which so many are counted. Returns how many were added.
    pub(super) fn count(&self, bytes: usize, before: usize) -> usize {
        let counted = bytes.min(MAX_COUNTED.saturating_sub(before));
        if counted > 0 {
            self.unfinished.fetch_add(counted, Relaxed);
            self.shared.received(counted);
        }
        counted
    }

    /// So many bytes that were counted belong to no unfinished request any more.
    pub(super) fn uncount(&self, bytes: usize) {
        // All of them may have been let go of, where the connection was closed.
        let rest = |counted: usize| Some(counted.saturating_sub(bytes));
        if let Ok(counted) = self.unfinished.fetch_update(Relaxed, Relaxed, rest) {
            self.shared.let_go(counted.min(bytes));
        }
    }

    /// No request is unfinished.
    pub(super) fn complete(&self) {
        self.shared.let_go(self.unfinished.swap(0, Relaxed));
    }

    /// Bytes that are counted.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.load(Relaxed)
    }

    /// More of a body is there, or not yet.
    pub(super) fn awaits_body(&self, awaits: bool) {
        if awaits {
            // What was there last counts: a stream of lines that goes on is none that waits for long.
            if self.awaits.swap(BODY, Relaxed) == NOTHING {
                self.since.store(self.shared.turn(), Relaxed);
            }
        } else {
            self.awaits.store(NOTHING, Relaxed);
        }
    }

    /// From now on.
    fn wait_for(&self, what: u8) {
        self.complete();
        self.since.store(self.shared.turn(), Relaxed);
        self.awaits.store(what, Relaxed);
    }

    /// Where it may be closed: its place in the order. Those that wait for a request come first.
    pub(super) fn waits(&self) -> Option<(u8, u64)> {
        let order = match self.awaits.load(Relaxed) {
            BODY => 1,
            // What a stranger on a port of the ring is answered may be closed, too: it can be a refusal that
            // takes its time.
            NOTHING if self.shared.policy.inner => 2,
            NOTHING => return None,
            _ => 0,
        };
        (!self.is_admitted()).then(|| (order, self.since.load(Relaxed)))
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Relaxed)
    }

    pub(super) fn set_admitted(&self) {
        self.admitted.store(true, Relaxed);
    }

    /// Ends it: what reads it gets an error, and nothing waits for the caller.
    pub(super) fn close(&self) {
        self.closed.store(true, Relaxed);
        self.set_lingers(false);
        self.reader.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Whether it was closed; if not, the task is woken when it is.
    pub(super) fn poll_closed(&self, context: &mut Context<'_>) -> Poll<()> {
        self.reader.register(context.waker());
        if self.is_closed() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// By what callers are counted: a host that has one address of IPv6 has 64 bits of them.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()
        }
        address => address,
    }
}

/// A request, from its head to the end of its answer, when it is dropped. Handlers end by themselves: most
/// have a deadline, a scan of all records may take minutes.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    answered: AtomicBool,
}

impl Exchange {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.awaits.store(NOTHING, Relaxed);
        activity.handlers.fetch_add(1, Relaxed);
        activity.exchanges.fetch_add(1, Relaxed);
        Self { activity: Arc::clone(activity), answered: AtomicBool::new(false) }
    }

    /// The handler has answered; the body of the answer may go on for ever.
    pub(super) fn answered(&self) {
        if !self.answered.swap(true, Relaxed) {
            self.activity.worked.store(true, Relaxed);
            self.activity.handlers.fetch_sub(1, Relaxed);
        }
    }

    /// What follows is another protocol.
    pub(super) fn upgraded(&self) {
        self.activity.wait_for(MESSAGE);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.answered();
        let last = self.activity.exchanges.fetch_sub(1, Relaxed) == 1;
        if last && self.activity.awaits.load(Relaxed) != MESSAGE {
            self.activity.wait_for(CALLER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_by_network() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::1"), "::1");
    }
}
