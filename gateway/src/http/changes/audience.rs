//! How many listen to the feed, and how many had to be sent away: for `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::subscriber::End;

/// How the feed reaches a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Form {
    EventStream,
    Socket,
}

impl Form {
    pub(in crate::http) const ALL: [Self; 2] = [Self::EventStream, Self::Socket];

    pub(in crate::http) fn name(self) -> &'static str {
        match self {
            Self::EventStream => "event_stream",
            Self::Socket => "socket_io",
        }
    }
}

/// Counts subscribers, of each form.
#[derive(Debug, Default)]
pub(in crate::http) struct Audience([Figures; Form::ALL.len()]);

#[derive(Debug, Default)]
struct Figures {
    listening: AtomicU64,
    /// Sent away by the gateway, by why.
    ended: [AtomicU64; End::ALL.len()],
}

impl Audience {
    /// Those who listen now.
    pub(in crate::http) fn listening(&self, form: Form) -> u64 {
        self.0[form as usize].listening.load(Relaxed)
    }

    /// Those whom the gateway has sent away, with the reasons.
    pub(in crate::http) fn dropped(&self, form: Form) -> impl Iterator<Item = (&'static str, u64)> {
        End::ALL
            .iter()
            .map(move |end| (end.label(), self.0[form as usize].ended[*end as usize].load(Relaxed)))
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    audience: Arc<Audience>,
    form: Form,
}

impl Listener {
    pub(super) fn new(audience: &Arc<Audience>, form: Form) -> Self {
        audience.0[form as usize].listening.fetch_add(1, Relaxed);
        Self { audience: Arc::clone(audience), form }
    }

    /// It is sent away.
    pub(super) fn ended(&self, end: End) {
        self.audience.0[self.form as usize].ended[end as usize].fetch_add(1, Relaxed);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.audience.0[self.form as usize].listening.fetch_sub(1, Relaxed);
    }
}
