//! The registry of everything that the HTTP side counts as it happens.

use std::sync::Arc;

use prometheus::Registry;
use prometheus::proto::MetricFamily;

use super::requests::{RequestMetrics, RouteMetrics};
use super::subscribers::SubscriberMetrics;

/// Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub(in crate::http) struct Metrics {
    registry: Registry,
    requests: RequestMetrics,
    subscribers: SubscriberMetrics,
}

impl Metrics {
    pub(in crate::http) fn new() -> Self {
        let registry = Registry::new();
        let named_well = "each metric has a valid name of its own";
        let requests = RequestMetrics::register(&registry).expect(named_well);
        let subscribers = SubscriberMetrics::register(&registry).expect(named_well);
        Self { registry, requests, subscribers }
    }

    /// Counts the requests of a route, which is named by its template.
    pub(in crate::http) fn route(&self, route: &'static str) -> Arc<RouteMetrics> {
        self.requests.route(route)
    }

    pub(in crate::http) fn subscribers(&self) -> &SubscriberMetrics {
        &self.subscribers
    }

    /// All metrics that have a value.
    pub(in crate::http) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}
