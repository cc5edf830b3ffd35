//! What a client missed, from the op-logs.
//!
//! An op-log has the writes that were accepted at one copy, and those of a partition are in the op-logs of
//! its two copies, each in the one that led then. A replay takes all of them, of every partition, page by
//! page, and merges them by version; what is in both (an operation that was sent again) is sent once. So it
//! needs one page of each in memory, however much there is to send.
//!
//! It is complete, or it says that it is not. Every answer says above which version the op-log has everything
//! (its *floor*): a replay that began below that is too late, also when the floor rose meanwhile. Where a
//! copy is away, the other one has everything only if it leads (it holds all that was acknowledged) and
//! nothing newer came into it but by its own op-log; otherwise the replay has to wait for the copy that is
//! away.
//!
//! It ends at the version at which the subscription begins, up to which everything is settled. If that is no
//! longer within what the hub keeps, because the client was slow to take it all, it goes on to a newer one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocol::Version;
use protocol::message::link::{Role, Versioned};
use protocol::message::query::ChangesAnswer;
use protocol::placement::Partition;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::engine::FeedStart;
use crate::engine_task::{EngineHandle, Unserved};
use crate::feed::{Batch, FeedEvent};
use crate::http::metrics::DropReason;

/// A client that takes nothing for so long is too slow.
const SLOWEST: Duration = Duration::from_secs(10);

/// What is sent at once.
const BATCH_BYTES: usize = 64 << 10;

/// Up to this number, the hub keeps what was replayed for other subscribers that ask for the same.
const KEEP: usize = 8_192;

/// A piece of a replay.
#[derive(Debug)]
pub(super) enum Piece {
    /// The next changes.
    Changes(Arc<Batch>),
    /// Everything up to here was sent, and the hub has the rest.
    Upto(Version),
    /// It cannot go on.
    End(DropReason),
}

/// Why there is no replay.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoReplay {
    /// Some of it is not kept any more.
    Gone,
    /// It cannot be read now.
    Unserved(Unserved),
}

/// All op-logs of a ring, merged.
pub(super) struct Replay<A> {
    ask: A,
    sources: Vec<Source>,
    /// The first change of each source that has one here, and the number of the source.
    next: BinaryHeap<Reverse<(Version, usize)>>,
    /// Everything up to here was taken out.
    done: Version,
    upto: Version,
}

/// The op-log of one copy.
struct Source {
    partition: Partition,
    role: Role,
    changes: VecDeque<Versioned>,
    /// All that it has up to here was fetched.
    fetched: Version,
    /// Whether there may be more.
    more: bool,
    /// Whether the other copy of the partition leads.
    other_leads: bool,
}

/// What an op-log is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) partition: Partition,
    pub(super) role: Role,
    pub(super) after: Version,
    pub(super) upto: Version,
}

impl<A: AsyncFn(Page) -> Result<ChangesAnswer, Unserved>> Replay<A> {
    /// Asks for the first page of every op-log of changes after one version, up to another. `leads` says
    /// which copy leads each partition and serves it, as of when all up to there was settled.
    ///
    /// # Errors
    /// Where it is known already that the replay is not complete.
    pub(super) async fn begin(
        leads: &[Option<Role>],
        after: Version,
        upto: Version,
        ask: A,
    ) -> Result<Self, NoReplay> {
        let roles = if leads.len() > 1 { &Role::ALL[..] } else { &[Role::Primary] };
        let sources = leads.iter().enumerate().flat_map(|(partition, lead)| {
            roles.iter().map(move |role| Source {
                partition: partition as Partition,
                role: *role,
                changes: VecDeque::new(),
                fetched: after,
                more: true,
                other_leads: *lead == Some(role.other()),
            })
        });
        let sources = sources.collect();
        let mut replay = Self { ask, sources, next: BinaryHeap::new(), done: after, upto };
        for number in 0..replay.sources.len() {
            replay.fetch(number).await?;
        }
        Ok(replay)
    }

    /// The next change.
    ///
    /// # Errors
    /// Where the rest is not known.
    pub(super) async fn next(&mut self) -> Result<Option<Versioned>, NoReplay> {
        while let Some(Reverse((version, number))) = self.next.pop() {
            let taken = self.sources[number].changes.pop_front();
            match self.sources[number].changes.front() {
                Some(change) => self.next.push(Reverse((change.version, number))),
                None => self.fetch(number).await?,
            }
            if version > self.done {
                self.done = version;
                return Ok(taken);
            }
        }
        Ok(None)
    }

    /// The next changes; `None` where there are no more.
    async fn batch(&mut self) -> Result<Option<Batch>, NoReplay> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(change) = self.next().await?
        {
            let event = Arc::new(FeedEvent::change(&change));
            bytes += event.frame.len();
            events.push(event);
        }
        Ok((!events.is_empty()).then(|| Batch::new(events)))
    }

    /// Gets the next page of a source that has run dry.
    async fn fetch(&mut self, number: usize) -> Result<(), NoReplay> {
        let source = &self.sources[number];
        if !source.more {
            return Ok(());
        }
        let Source { partition, role, fetched: after, other_leads, .. } = *source;
        let page = Page { partition, role, after, upto: self.upto };
        let answer = match (self.ask)(page).await {
            Ok(answer) => answer,
            Err(unserved) => {
                // Its place is taken by the other copy, if that has everything since then.
                let other = Page { role: role.other(), ..page };
                let vouched = other_leads
                    && (self.ask)(other)
                        .await
                        .is_ok_and(|other| after >= other.foreign && after >= other.floor);
                self.sources[number].more = false;
                return if vouched { Ok(()) } else { Err(NoReplay::Unserved(unserved)) };
            }
        };
        if after < answer.floor {
            return Err(NoReplay::Gone);
        }
        let source = &mut self.sources[number];
        source.more = answer.more;
        source.changes.extend(answer.changes);
        if let (Some(first), Some(last)) = (source.changes.front(), source.changes.back()) {
            self.next.push(Reverse((first.version, number)));
            source.fetched = last.version;
        }
        Ok(())
    }
}

/// Begins a replay of what came after a version up to where a subscription begins, and sends its pieces as
/// they are taken. The last piece says where the hub goes on, or why there is no more. Then `permit` is
/// dropped.
///
/// # Errors
/// Where it is known already that the replay is not complete.
pub(super) async fn start(
    engine: EngineHandle,
    after: Version,
    start: FeedStart,
    permit: impl Send + 'static,
) -> Result<mpsc::Receiver<Piece>, NoReplay> {
    let asking = engine.clone();
    let ask = async move |page: Page| asking.changes(page.partition, page.role, page.after, page.upto).await;
    let first = Replay::begin(&start.leaders, after, start.from, ask).await?;
    let (pieces, taken) = mpsc::channel(2);
    tokio::spawn(async move {
        let _permit = permit;
        let last = match send(&engine, first, &pieces).await {
            Ok(upto) => Piece::Upto(upto),
            Err(Some(NoReplay::Gone)) => Piece::End(DropReason::GONE),
            Err(Some(NoReplay::Unserved(_))) => Piece::End(DropReason::INTERRUPTED),
            Err(None) => return,
        };
        // A subscriber that is gone needs no answer.
        let _ = pieces.send(last).await;
    });
    Ok(taken)
}

/// Sends all that was missed. Returns up to where.
///
/// # Errors
/// Why there is no more; `None` where the client has gone, or is too slow.
async fn send<A: AsyncFn(Page) -> Result<ChangesAnswer, Unserved>>(
    engine: &EngineHandle,
    mut replay: Replay<A>,
    pieces: &mpsc::Sender<Piece>,
) -> Result<Version, Option<NoReplay>> {
    let after = replay.done;
    // All that was sent, for the hub; `None` once it is too much.
    let mut kept = Some(Vec::new());
    loop {
        while let Some(batch) = replay.batch().await? {
            kept = kept.filter(|kept: &Vec<_>| kept.len() + batch.events.len() <= KEEP);
            if let Some(kept) = &mut kept {
                kept.extend(batch.events.iter().map(Arc::clone));
            }
            let sending = timeout(SLOWEST, pieces.send(Piece::Changes(Arc::new(batch)))).await;
            sending.map_err(|_| None)?.map_err(|_| None)?;
        }
        let upto = replay.upto;
        let hub = engine.feed();
        if let Some(kept) = kept.take() {
            hub.extend_back(after, upto, &kept);
        }
        if hub.reaches(upto) {
            return Ok(upto);
        }
        let start = engine.subscribe().await.map_err(NoReplay::Unserved)?;
        replay = Replay::begin(&start.leaders, upto, start.from, replay.ask).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use protocol::{Change, UserId};

    use super::*;

    /// What the copy at each partition and role has.
    #[derive(Clone, Default)]
    struct Log {
        versions: Vec<u64>,
        floor: u64,
        foreign: u64,
        away: bool,
    }

    type Logs = BTreeMap<(Partition, Role), Log>;

    fn ask(logs: &Logs, page: Page, frame: usize) -> Result<ChangesAnswer, Unserved> {
        let log = &logs[&(page.partition, page.role)];
        if log.away {
            return Err(Unserved::Unavailable { partition: page.partition, waiting_for: "it".to_owned() });
        }
        let wanted = log.versions.iter().filter(|&&version| version > page.after.0 && version <= page.upto.0);
        let change = |version: &u64| Versioned {
            version: Version(*version),
            id: UserId::nil(),
            change: Change::default(),
        };
        let changes: Vec<Versioned> = wanted.clone().take(frame).map(change).collect();
        let more = wanted.count() > changes.len();
        let (floor, foreign) = (Version(log.floor), Version(log.foreign));
        Ok(ChangesAnswer { query: 0, changes, more, floor, foreign })
    }

    async fn replay(logs: &Logs, after: u64, upto: u64, frame: usize) -> Result<Vec<u64>, NoReplay> {
        let partitions = logs.len() / 2;
        let leads = vec![Some(Role::Primary); partitions];
        let ask = async |page: Page| ask(logs, page, frame);
        let mut replay = Replay::begin(&leads, Version(after), Version(upto), ask).await?;
        let mut sent = Vec::new();
        while let Some(change) = replay.next().await? {
            sent.push(change.version.0);
        }
        Ok(sent)
    }

    fn ring() -> Logs {
        let roles = |partition| [(partition, Role::Primary), (partition, Role::Replica)];
        (0..3).flat_map(roles).map(|key| (key, Log::default())).collect()
    }

    #[tokio::test]
    async fn all_op_logs_are_merged_in_order_and_each_change_is_sent_once() {
        let mut logs = ring();
        let mut random = 7_u64;
        for version in 1..=500 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let partition = (random >> 33) as u16 % 3;
            let role = Role::ALL[(random >> 40) as usize % 2];
            logs.get_mut(&(partition, role)).expect("a copy").versions.push(version);
            if version % 10 == 0 {
                // Sent again, and accepted by both.
                logs.get_mut(&(partition, role.other())).expect("a copy").versions.push(version);
            }
        }
        for (after, upto, frame) in [(0, 500, 1), (0, 500, 7), (123, 456, 50), (499, 500, 9), (500, 500, 3)] {
            let sent = replay(&logs, after, upto, frame).await.expect("all is here");
            assert_eq!(sent, (after + 1..=upto).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn what_is_below_a_floor_is_gone() {
        let mut logs = ring();
        logs.get_mut(&(1, Role::Replica)).expect("a copy").floor = 10;
        assert_eq!(replay(&logs, 9, 20, 5).await, Err(NoReplay::Gone));
        assert_eq!(replay(&logs, 10, 20, 5).await, Ok(vec![]));
    }

    #[tokio::test]
    async fn a_floor_that_rises_meanwhile_is_noticed() {
        let mut logs = ring();
        logs.get_mut(&(0, Role::Primary)).expect("a copy").versions = (1..=20).collect();
        let asked = Cell::new(0);
        let ask = async |page: Page| {
            asked.set(asked.get() + 1);
            let answer = ask(&logs, page, 5)?;
            Ok(ChangesAnswer { floor: Version(if asked.get() > 7 { 12 } else { 0 }), ..answer })
        };
        let leads = [Some(Role::Primary); 3];
        let Ok(mut replay) = Replay::begin(&leads, Version(0), Version(20), ask).await else {
            panic!("at first nothing is gone");
        };
        let mut last = 0;
        let end = loop {
            match replay.next().await {
                Ok(Some(change)) => last = change.version.0,
                other => break other,
            }
        };
        assert_eq!((last, end), (9, Err(NoReplay::Gone)));
    }

    #[tokio::test]
    async fn for_a_copy_that_is_away_the_lead_may_answer_if_it_has_everything() {
        let mut logs = ring();
        logs.get_mut(&(1, Role::Replica)).expect("a copy").away = true;
        *logs.get_mut(&(1, Role::Primary)).expect("a copy") =
            Log { versions: vec![11, 15], foreign: 10, ..Log::default() };
        assert_eq!(replay(&logs, 10, 20, 5).await, Ok(vec![11, 15]));
        assert!(
            matches!(replay(&logs, 9, 20, 5).await, Err(NoReplay::Unserved(_))),
            "10 is in the other's op-log"
        );
        // The other one alone is not enough: it does not lead.
        logs.get_mut(&(1, Role::Primary)).expect("a copy").away = true;
        logs.get_mut(&(1, Role::Replica)).expect("a copy").away = false;
        assert!(matches!(replay(&logs, 10, 20, 5).await, Err(NoReplay::Unserved(_))));
    }
}
