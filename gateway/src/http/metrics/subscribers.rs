//! Subscribers of the feed: how many are connected, and how many the gateway disconnected.

use prometheus::{
    Error, IntCounterVec, IntGauge, IntGaugeVec, Registry, register_int_counter_vec_with_registry,
    register_int_gauge_vec_with_registry,
};

/// How the feed reaches a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    EventStream,
    SocketIo,
}

impl Transport {
    fn label(self) -> &'static str {
        match self {
            Self::EventStream => "event_stream",
            Self::SocketIo => "socket_io",
        }
    }
}

/// Why the gateway ends a subscription that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DropReason {
    label: &'static str,
    /// Name of the last event.
    pub(crate) event: &'static str,
    /// What the last event says.
    pub(crate) text: &'static str,
}

impl DropReason {
    /// The client did not take what came in time.
    pub(crate) const TOO_SLOW: Self =
        Self { label: "too_slow", event: "dropped", text: "too slow: resume after the last id" };
    /// What comes next is not stored any more.
    pub(crate) const GONE: Self = Self {
        label: "gone",
        event: "gone",
        text: "the changes after the last id are not kept any more: read the users again",
    };
    /// What the client missed cannot be read now.
    pub(crate) const INTERRUPTED: Self = Self {
        label: "interrupted",
        event: "dropped",
        text: "a db-process is away that has what comes next: resume after the last id",
    };
}

/// Counts subscribers by transport.
#[derive(Debug, Clone)]
pub(crate) struct SubscriberMetrics {
    connected: IntGaugeVec,
    dropped: IntCounterVec,
}

impl SubscriberMetrics {
    /// Every label is there from the beginning, with 0.
    ///
    /// # Errors
    /// If a name is not valid, or registered already.
    pub(super) fn register(registry: &Registry) -> Result<Self, Error> {
        let connected = register_int_gauge_vec_with_registry!(
            "corro_feed_subscribers",
            "Clients that are subscribed to the feed.",
            &["transport"],
            registry
        )?;
        let dropped = register_int_counter_vec_with_registry!(
            "corro_feed_dropped_total",
            "Subscribers that the gateway disconnected: too slow, or the next changes are gone or cannot be \
             read.",
            &["transport", "reason"],
            registry
        )?;
        for transport in [Transport::EventStream, Transport::SocketIo] {
            connected.with_label_values(&[transport.label()]);
            for reason in [DropReason::TOO_SLOW, DropReason::GONE, DropReason::INTERRUPTED] {
                dropped.with_label_values(&[transport.label(), reason.label]);
            }
        }
        Ok(Self { connected, dropped })
    }

    /// Counts one more subscriber, until the guard is dropped.
    pub(crate) fn subscribe(&self, transport: Transport) -> Subscribed {
        let connected = self.connected.with_label_values(&[transport.label()]);
        connected.inc();
        Subscribed { connected, dropped: self.dropped.clone(), transport }
    }
}

/// One subscriber.
#[derive(Debug)]
pub(crate) struct Subscribed {
    connected: IntGauge,
    dropped: IntCounterVec,
    transport: Transport,
}

impl Subscribed {
    /// The gateway disconnects it.
    pub(crate) fn dropped(&self, reason: DropReason) {
        self.dropped.with_label_values(&[self.transport.label(), reason.label]).inc();
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.connected.dec();
    }
}
