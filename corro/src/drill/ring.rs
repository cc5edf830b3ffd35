//! What a ring says about itself at `/api/cluster`.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use crate::load::client::{Client, Endpoint};

/// A ring that is not whole by then does not become it by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(10);

/// The part of `/api/cluster` that a drill goes by.
#[derive(Deserialize, Debug)]
struct Cluster {
    size: u16,
    ready: bool,
    partitions: Vec<Partition>,
}

#[derive(Deserialize, Debug)]
struct Partition {
    partition: u16,
    waiting_for: Option<String>,
}

impl Cluster {
    /// What it waits for; nothing where every partition takes reads and writes and has both its copies up to
    /// date, the primary in the lead.
    fn waits_for(&self) -> Option<String> {
        let wants = |partition: &Partition| {
            let what = partition.waiting_for.as_deref()?;
            Some(format!("partition {}: {what}", partition.partition))
        };
        let all: Vec<String> = self.partitions.iter().filter_map(wants).collect();
        match all.is_empty() {
            true if self.ready => None,
            true => Some("it is not ready".to_owned()),
            false => Some(all.join("; ")),
        }
    }
}

/// Watches a ring through a connection of its own.
pub(crate) struct RingWatch(Client);

impl RingWatch {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self(Client::new(endpoint))
    }

    /// The number of db-processes.
    ///
    /// # Errors
    /// Where nobody answers there, or it is no ring.
    pub(crate) async fn size(&mut self) -> anyhow::Result<u16> {
        Ok(self.look().await?.size)
    }

    /// Waits until the ring is whole.
    ///
    /// # Errors
    /// Where it does not become whole, with what it waits for.
    pub(crate) async fn until_whole(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let waits_for = match self.look().await {
                Ok(cluster) => match cluster.waits_for() {
                    None => return Ok(()),
                    Some(what) => what,
                },
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                bail!("the ring is not whole after {PATIENCE:?}: {waits_for}");
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn look(&mut self) -> anyhow::Result<Cluster> {
        let answer = self.0.send(Method::GET, "/api/cluster", None).await?;
        ensure!(answer.status == StatusCode::OK, "/api/cluster answers {}", answer.status);
        serde_json::from_slice(&answer.body).context("/api/cluster says nothing that is understood")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_whole_when_it_is_ready_and_waits_for_nobody() {
        let waits_for = |json: &str| serde_json::from_str::<Cluster>(json).unwrap().waits_for();
        let partition =
            |waiting_for: &str| format!(r#"{{"partition":1,"waiting_for":{waiting_for},"reads":true}}"#);
        let cluster = |ready: bool, waiting_for: &str| {
            format!(r#"{{"size":3,"ready":{ready},"partitions":[{}]}}"#, partition(waiting_for))
        };
        assert_eq!(waits_for(&cluster(true, "null")), None);
        assert!(waits_for(&cluster(false, "null")).is_some());
        let waiting = waits_for(&cluster(true, r#""db-1 has to come back""#)).unwrap();
        assert_eq!(waiting, "partition 1: db-1 has to come back");
    }
}
