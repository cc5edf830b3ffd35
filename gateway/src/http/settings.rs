//! What can be set about the HTTP side.

use std::time::Duration;

use clap::ValueEnum;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fairness::Rate;
use super::input::site::Sites;
use super::input::token::Access;
use crate::audit::Audit;
use crate::standing::Standing;

/// How the ring was started, so that the page can say how one of its processes is stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Launcher {
    /// `corro demo`.
    Demo,
    /// `docker-compose up`.
    Compose,
    /// Something else, such as systemd or Kubernetes.
    #[default]
    Other,
}

impl Launcher {
    /// What a drill begins with, as HTML.
    pub(crate) fn how_to_stop_a_process(self) -> &'static str {
        match self {
            Self::Demo => {
                "Try it: <code>corro demo kill db-1</code>, then <code>corro demo restart db-1</code>."
            }
            Self::Compose => {
                "Try it: <code>docker-compose stop db-1</code>, then <code>docker-compose start db-1</code>."
            }
            Self::Other => "Try it: stop one of the db-processes, and start it again.",
        }
    }
}

/// What can be set about the HTTP side.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// How long a request may take, from its first handler line to the last: reading the body and waiting for
    /// the ring.
    pub deadline: Duration,
    /// Which requests are admitted; by default none to the API.
    pub access: Access,
    /// The names of the gateway, and which pages of other origins may use it.
    pub sites: Sites,
    /// How many requests a token or an address may begin in a second, if that is bounded.
    pub rate: Option<Rate>,
    /// Where writes and calls of administrators are put on record, if they are.
    pub audit: Audit,
    /// A stream is never silent for longer, so that no proxy takes its connection for dead.
    pub heartbeat: Duration,
    /// How the ring was started.
    pub launcher: Launcher,
    /// Ends the streams that have no end of their own; other requests are finished.
    pub closing: CancellationToken,
    /// Which gateway is active. Where another one is, requests are forwarded to it.
    pub standing: watch::Receiver<Standing>,
    /// How long a request waits while no gateway is active.
    pub standing_wait: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            access: Access::default(),
            sites: Sites::default(),
            rate: None,
            audit: Audit::default(),
            heartbeat: Duration::from_secs(15),
            launcher: Launcher::default(),
            closing: CancellationToken::new(),
            // This one, for ever.
            standing: watch::channel(Standing::Active { term: 0 }).1,
            standing_wait: Duration::from_secs(2),
        }
    }
}
