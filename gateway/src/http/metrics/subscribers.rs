//! Subscribers of the feed: how many are connected, and how many the gateway disconnected.

use prometheus::{Error, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// How the feed reaches a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Transport {
    EventStream,
    SocketIo,
}

impl Transport {
    const ALL: [Self; 2] = [Self::EventStream, Self::SocketIo];

    fn label(self) -> &'static str {
        match self {
            Self::EventStream => "event_stream",
            Self::SocketIo => "socket_io",
        }
    }
}

/// Why the gateway ends a subscription that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum DropReason {
    /// The client did not take what came in time.
    TooSlow,
    /// What comes next is not stored any more.
    Gone,
    /// What the client missed cannot be read now.
    Interrupted,
}

impl DropReason {
    const ALL: [Self; 3] = [Self::TooSlow, Self::Gone, Self::Interrupted];

    fn label(self) -> &'static str {
        match self {
            Self::TooSlow => "too_slow",
            Self::Gone => "gone",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Counts subscribers by transport.
#[derive(Debug, Clone)]
pub(in crate::http) struct SubscriberMetrics {
    connected: IntGaugeVec,
    dropped: IntCounterVec,
}

impl SubscriberMetrics {
    /// Every label is there from the beginning, with 0.
    ///
    /// # Errors
    /// If a name is not valid, or registered already.
    pub(super) fn register(registry: &Registry) -> Result<Self, Error> {
        let connected = Opts::new("corro_feed_subscribers", "Clients that are subscribed to the feed.");
        let dropped = Opts::new(
            "corro_feed_dropped_total",
            "Subscribers that the gateway disconnected: too slow, or the next changes are gone or cannot be \
             read.",
        );
        let metrics = Self {
            connected: IntGaugeVec::new(connected, &["transport"])?,
            dropped: IntCounterVec::new(dropped, &["transport", "reason"])?,
        };
        for transport in Transport::ALL {
            metrics.connected.with_label_values(&[transport.label()]);
            for reason in DropReason::ALL {
                metrics.dropped.with_label_values(&[transport.label(), reason.label()]);
            }
        }
        registry.register(Box::new(metrics.connected.clone()))?;
        registry.register(Box::new(metrics.dropped.clone()))?;
        Ok(metrics)
    }

    /// Counts one more subscriber, until the guard is dropped.
    pub(in crate::http) fn subscribe(&self, transport: Transport) -> Subscribed {
        let connected = self.connected.with_label_values(&[transport.label()]);
        connected.inc();
        Subscribed { connected, dropped: self.dropped.clone(), transport }
    }
}

/// One subscriber.
#[derive(Debug)]
pub(in crate::http) struct Subscribed {
    connected: IntGauge,
    dropped: IntCounterVec,
    transport: Transport,
}

impl Subscribed {
    /// The gateway disconnects it.
    pub(in crate::http) fn dropped(&self, reason: DropReason) {
        self.dropped.with_label_values(&[self.transport.label(), reason.label()]).inc();
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.connected.dec();
    }
}
