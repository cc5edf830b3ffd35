//! The registry of everything that the HTTP side counts as it happens.

use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, Registry};

use super::forwarded::ForwardMetrics;
use super::limits::LimitMetrics;
use super::requests::RequestMetrics;
use super::subscribers::SubscriberMetrics;

/// Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: RequestMetrics,
    pub(crate) subscribers: SubscriberMetrics,
    pub(crate) limits: LimitMetrics,
    pub(crate) forwarded: ForwardMetrics,
}

impl Metrics {
    /// With what the audit log counts, where there is one.
    pub(crate) fn new(lost: Option<IntCounter>) -> Self {
        let registry = Registry::new();
        let named_well = "each metric has a valid name of its own";
        let requests = RequestMetrics::register(&registry).expect(named_well);
        let subscribers = SubscriberMetrics::register(&registry).expect(named_well);
        let limits = LimitMetrics::register(&registry).expect(named_well);
        let forwarded = ForwardMetrics::register(&registry).expect(named_well);
        if let Some(lost) = lost {
            registry.register(Box::new(lost)).expect(named_well);
        }
        Self { registry, requests, subscribers, limits, forwarded }
    }

    /// All metrics that have a value.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}
