//! What a ring says about itself: whether it is whole, and whether it counts as many users as it lists.

use std::time::Duration;

use anyhow::{bail, ensure};
use gateway::status::{ClusterStatus, PartitionStatus};
use protocol::User;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::client::{Client, Count, Endpoint};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// To list more users would take longer than a cycle.
const MOST_LISTED: u64 = 250_000;

/// How often count and list are compared, and the time between. Others may write to the same ring: what still
/// differs then, differs.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// What a ring waits for; nothing where every partition takes reads and writes and has both its copies up to
/// date, with the primary as leader.
fn waits_for(cluster: &ClusterStatus) -> Option<String> {
    let wants = |partition: &PartitionStatus| {
        let what = partition.waiting_for.as_deref()?;
        Some(format!("partition {}: {what}", partition.partition))
    };
    let all: Vec<String> = cluster.partitions.iter().filter_map(wants).collect();
    match all.is_empty() {
        true if cluster.ready => None,
        true => Some("it is not ready".to_owned()),
        false => Some(all.join("; ")),
    }
}

/// How many users there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    /// What the ring counts. The count is kept beside the records and changed with each of them, so what it
    /// once missed it does not find again.
    pub(crate) counted: u64,
    /// On all pages of its list.
    pub(crate) listed: u64,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<User>,
    next_cursor: Option<String>,
}

/// A ring, by a connection of its own.
pub(crate) struct Ring {
    client: Client,
    /// A ring that is not whole within this time does not become it by itself.
    patience: Duration,
}

impl Ring {
    pub(crate) fn new(endpoint: Endpoint, patience: Duration) -> Self {
        Self { client: Client::new(endpoint), patience }
    }

    async fn look(&mut self) -> anyhow::Result<ClusterStatus> {
        self.client.ask(Method::GET, "/api/cluster").await
    }

    /// The number of db-processes.
    ///
    /// # Errors
    /// Where there is no answer, or it is no ring.
    pub(crate) async fn size(&mut self) -> anyhow::Result<u16> {
        Ok(self.look().await?.size)
    }

    /// Waits until the ring is whole.
    ///
    /// # Errors
    /// Where it does not become whole, with what it waits for.
    pub(crate) async fn until_whole(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.patience;
        loop {
            let waits_for = match self.look().await {
                Ok(cluster) => match waits_for(&cluster) {
                    None => return Ok(()),
                    Some(what) => what,
                },
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                bail!("the ring is not whole after {:?}: {waits_for}", self.patience);
            }
            sleep(INTERVAL).await;
        }
    }

    /// Counts and lists all users; `None` where they are too many to be listed.
    ///
    /// # Errors
    /// Where the ring does not answer, or lists a user twice or out of order.
    pub(crate) async fn census(&mut self) -> anyhow::Result<Option<Census>> {
        let mut looks = 1;
        loop {
            let Count { count: counted } = self.client.ask(Method::GET, "/api/user/count").await?;
            if counted > MOST_LISTED {
                return Ok(None);
            }
            let listed = self.list().await?;
            if counted == listed || looks == LOOKS {
                return Ok(Some(Census { counted, listed }));
            }
            looks += 1;
            sleep(PAUSE).await;
        }
    }

    async fn list(&mut self) -> anyhow::Result<u64> {
        let (mut listed, mut last, mut cursor) = (0, None, String::new());
        loop {
            let page: Page = self.client.ask(Method::GET, &format!("/api/user?limit=1000{cursor}")).await?;
            for User { id, .. } in page.items {
                ensure!(last < Some(id), "{id} is listed twice or out of order");
                last = Some(id);
                listed += 1;
            }
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(listed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_whole_when_it_is_ready_and_waits_for_nothing() {
        let waits_for = |ready: bool, waiting_for: &str| {
            let json = format!(
                r#"{{"size":3,"epoch":1,"ready":{ready},"processes":[],"events":[],
                "served":{{"reads_by_replica":0,"reads_by_primary":0,"reads_hedged":0,"writes":0}},
                "partitions":[{{"partition":1,"role":"primary","reads":true,"writes":true,"both_read":true,
                "unreplicated":0,"unreplicated_millis":0,"link_down":false,"copies":[],
                "waiting_for":{waiting_for}}}]}}"#
            );
            waits_for(&serde_json::from_str(&json).unwrap())
        };
        assert_eq!(waits_for(true, "null"), None);
        assert!(waits_for(false, "null").is_some());
        let waiting = waits_for(false, r#""db-1 has to come back""#).unwrap();
        assert_eq!(waiting, "partition 1: db-1 has to come back");
    }
}
