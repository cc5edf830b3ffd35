//! What one gateway publishes: every acknowledged write, once, in version order, and nothing else.

use std::collections::BTreeMap;

use gateway::engine::Published;
use protocol::Version;
use protocol::message::link::Versioned;

/// What is expected of the feed of one gateway.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    /// Whether there is a subscriber, or one has asked to be.
    pub(crate) asked: bool,
    /// From here on everything has to be published.
    after: Option<Version>,
    /// The last that was published.
    last: Version,
    /// Acknowledged and not published yet.
    due: BTreeMap<Version, Versioned>,
}

impl Feed {
    pub(crate) fn begin(&mut self, after: Version) {
        self.after = Some(after);
        self.last = after;
    }

    pub(crate) fn acknowledge(&mut self, change: Versioned) {
        if self.after.is_some_and(|after| change.version > after) {
            let version = change.version;
            assert!(self.due.insert(version, change).is_none(), "{version} is acknowledged twice");
        }
    }

    pub(crate) fn publish(&mut self, published: Published) {
        let version = published.version();
        assert!(version > self.last, "{version} is published after {}", self.last);
        self.last = version;
        let acknowledged = self.due.remove(&version);
        match published {
            Published::Change(change) => {
                assert_eq!(Some(change), acknowledged, "what is published was acknowledged");
            }
            Published::Unknown { .. } => assert_eq!(None, acknowledged, "an acknowledged write is known"),
        }
        // Order: nothing older may still be on its way.
        if let Some((older, _)) = self.due.range(..version).next() {
            panic!("{version} is published before {older}, which was acknowledged");
        }
    }

    /// All is quiet.
    pub(crate) fn check_end(&self) {
        assert!(self.due.is_empty(), "acknowledged and never published: {:?}", self.due);
    }
}
