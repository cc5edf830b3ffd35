//! What can be set about the HTTP side.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::input::token::ApiTokens;

/// What can be set about the HTTP side.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// How long a request may take, from its first handler line to the last: reading the body and waiting for
    /// the ring.
    pub deadline: Duration,
    /// Where set, everything below `/api` requires one of them.
    pub tokens: Option<ApiTokens>,
    /// A stream is never silent for longer, so that no proxy takes its connection for dead.
    pub heartbeat: Duration,
    /// Ends the streams that have no end of their own; other requests are finished.
    pub closing: CancellationToken,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            tokens: None,
            heartbeat: Duration::from_secs(15),
            closing: CancellationToken::new(),
        }
    }
}
