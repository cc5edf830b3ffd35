//! Whether the ring counts as many users as it lists.
//!
//! The count is kept beside the records and changed with each of them, so what it once missed it does not
//! find again. The load rests meanwhile, but others may write to the same ring: where count and list differ,
//! both are asked again.

use std::time::Duration;

use anyhow::{Context, ensure};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use uuid::Uuid;

use crate::load::client::{Client, Endpoint};

/// To list more would take longer than a cycle.
const LARGEST: u64 = 250_000;

/// Before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What still differs after so many looks, differs.
const LOOKS: u32 = 10;

/// What a comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    /// What the ring says.
    pub(crate) counted: u64,
    /// On all pages of its list.
    pub(crate) listed: u64,
}

impl Census {
    pub(crate) fn is_right(self) -> bool {
        self.counted == self.listed
    }
}

#[derive(Deserialize)]
struct Count {
    count: u64,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Item>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    id: Uuid,
}

/// Counts and lists through a connection of its own.
pub(crate) struct CensusTaker(Client);

impl CensusTaker {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self(Client::new(endpoint))
    }

    /// Counts and lists all users; `None` where they are too many to be listed.
    ///
    /// # Errors
    /// Where the ring does not answer, or lists a user twice or out of order.
    pub(crate) async fn take(&mut self) -> anyhow::Result<Option<Census>> {
        let mut looks = 1;
        loop {
            let counted = self.count().await?;
            if counted > LARGEST {
                return Ok(None);
            }
            let census = Census { counted, listed: self.list().await? };
            if census.is_right() || looks == LOOKS {
                return Ok(Some(census));
            }
            looks += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn count(&mut self) -> anyhow::Result<u64> {
        let body = self.ask("/api/user/count").await?;
        let Count { count } = serde_json::from_slice(&body).context("a count was expected")?;
        Ok(count)
    }

    async fn list(&mut self) -> anyhow::Result<u64> {
        let (mut listed, mut last, mut cursor) = (0, None, String::new());
        loop {
            let body = self.ask(&format!("/api/user?limit=1000{cursor}")).await?;
            let page: Page = serde_json::from_slice(&body).context("a page of users was expected")?;
            for Item { id } in page.items {
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

    async fn ask(&mut self, path: &str) -> anyhow::Result<Bytes> {
        let answer = self.0.send(Method::GET, path, None).await.with_context(|| path.to_owned())?;
        ensure!(answer.status == StatusCode::OK, "{path}: {}", answer.status);
        Ok(answer.body)
    }
}
