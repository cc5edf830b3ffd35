//! What came of requests that were sent to a gateway that is not active.

use prometheus::{Error, IntCounter, IntCounterVec, Registry, register_int_counter_vec_with_registry};

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// The active gateway has answered.
    Answered,
    /// This gateway has become active, and handled it.
    Here,
    /// No gateway was active in time. Nothing was done.
    Unavailable,
    /// Too many requests waited for an active gateway. Nothing was done.
    Full,
    /// The active gateway went away, or gave no answer in time: nobody knows what was done.
    Unknown,
    /// Its body broke off.
    Malformed,
    /// Another gateway took this one for active. Nothing was done.
    NotActive,
    /// This gateway stopped.
    Stopping,
    /// Its caller went away before the answer.
    Abandoned,
}

impl Forwarded {
    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Here => "here",
            Self::Unavailable => "unavailable",
            Self::Full => "full",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
            Self::NotActive => "not_active",
            Self::Stopping => "stopping",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Counts them. What never happened is not shown.
#[derive(Debug, Clone)]
pub(crate) struct ForwardMetrics {
    total: IntCounterVec,
}

impl ForwardMetrics {
    /// # Errors
    /// If a name is not valid, or registered already.
    pub(super) fn register(registry: &Registry) -> Result<Self, Error> {
        let total = register_int_counter_vec_with_registry!(
            "corro_forwarded_requests_total",
            "Requests that came while this gateway was not active, by outcome.",
            &["outcome"],
            registry
        )?;
        Ok(Self { total })
    }

    /// Counts a request, when what is returned is dropped.
    pub(crate) fn begin(&self) -> Counted {
        Counted { metrics: self.clone(), outcome: Forwarded::Abandoned }
    }

    fn counter(&self, outcome: Forwarded) -> IntCounter {
        self.total.with_label_values(&[outcome.label()])
    }
}

/// One request.
#[derive(Debug)]
pub(crate) struct Counted {
    metrics: ForwardMetrics,
    pub(crate) outcome: Forwarded,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.counter(self.outcome).inc();
    }
}
