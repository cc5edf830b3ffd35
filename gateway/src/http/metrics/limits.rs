//! What was refused to one client so that there is enough for others.

use prometheus::{Error, IntCounter, IntCounterVec, Registry, register_int_counter_vec_with_registry};

/// A limit that a client met.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    Rate,
    Subscriptions,
    Replays,
    Bulk,
    Sessions,
    Checks,
    Erasures,
}

impl Limit {
    const ALL: [Self; 7] = [
        Self::Rate,
        Self::Subscriptions,
        Self::Replays,
        Self::Bulk,
        Self::Sessions,
        Self::Checks,
        Self::Erasures,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Subscriptions => "subscriptions",
            Self::Replays => "replays",
            Self::Bulk => "bulk",
            Self::Sessions => "sessions",
            Self::Checks => "checks",
            Self::Erasures => "erasures",
        }
    }
}

/// Counts refusals by limit.
#[derive(Debug, Clone)]
pub(crate) struct LimitMetrics(IntCounterVec);

impl LimitMetrics {
    /// Every label is there from the beginning, with 0.
    ///
    /// # Errors
    /// If a name is not valid, or registered already.
    pub(super) fn register(registry: &Registry) -> Result<Self, Error> {
        let refused = register_int_counter_vec_with_registry!(
            "corro_http_limited_total",
            "Requests that were refused because one client, or another call of the kind, had its share.",
            &["limit"],
            registry
        )?;
        let metrics = Self(refused);
        for limit in Limit::ALL {
            metrics.of(limit);
        }
        Ok(metrics)
    }

    /// The counter of one limit.
    pub(crate) fn of(&self, limit: Limit) -> IntCounter {
        self.0.with_label_values(&[limit.label()])
    }
}
