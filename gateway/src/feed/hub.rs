//! The last changes in memory, and their subscribers.
//!
//! The hub keeps a bounded stretch of the feed, rendered once for all. A subscriber is a version, up to which
//! it has seen everything: it asks for what comes after, and gets all that is there in one [`Batch`], which
//! it shares with subscribers at the same version. One that asks too late, when what comes next has been
//! dropped, fell behind. Publishing never waits for a subscriber.
//!
//! *Waking.* If every change woke every subscriber at once, two thousand of them would keep a core busy with
//! two hundred changes a second, and every change would delay the requests behind it for the time of two
//! thousand socket calls. So the subscriptions are in rows that are woken one after the other, with pauses in
//! between, and a new round begins only when the last is over. With one subscriber a round takes no time;
//! with two thousand it takes about 60 ms, and each gets what has happened meanwhile in one piece. After a
//! quiet time the first change is passed on at once.
//!
//! *Forgetting.* What is out of date, or was erased, is dropped here as well. It is read from the op-logs
//! then, which say no more of it.
//!
//! *Silence.* When the last subscriber has left, changes are kept for another [`LINGER`]: most come back at
//! once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use protocol::Version;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::event::FeedEvent;
use crate::engine::Published;

/// More are refused.
pub const MAX_SUBSCRIBERS: usize = 10_000;

/// So many changes are kept, and so many bytes of them: at a thousand changes a second, a subscriber has a
/// quarter of a minute.
const MAX_EVENTS: usize = 16_384;
const MAX_BYTES: usize = 16 << 20;

/// What one subscriber gets at once.
const MAX_BATCH_BYTES: usize = 64 << 10;

/// See the module.
const LINGER: Duration = Duration::from_secs(30);

/// Rows of subscriptions.
const ROWS: usize = 64;

/// What waking one subscriber may cost in time on average; it makes the length of a round.
const PER_SUBSCRIBER: Duration = Duration::from_micros(30);

/// The runtime has no shorter pauses.
const PAUSE: Duration = Duration::from_millis(1);

/// No round is shorter, however few there are.
const SHORTEST: Duration = Duration::from_millis(5);

/// See the module. Shared by all that publish or subscribe.
#[derive(Debug)]
pub struct Hub {
    stretch: Mutex<Stretch>,
    /// Something was published since the last round.
    news: Notify,
    /// Each carries the number of the round.
    rows: Vec<watch::Sender<u64>>,
}

/// What is kept of the feed.
#[derive(Debug, Default)]
struct Stretch {
    /// All that is newer than this is in `events`; `None` while nothing is published.
    floor: Option<Version>,
    /// Nothing up to here is taken in from op-logs: who reads them may have done so before it was erased.
    forgotten: Version,
    /// In version order.
    events: VecDeque<Arc<FeedEvent>>,
    bytes: usize,
    /// The last batch that was made, with the version after which it begins.
    last: Option<(Version, Arc<Batch>)>,
    subscribers: usize,
    /// Subscriptions ever made; the next one is in the next row.
    entered: usize,
    /// When the last subscriber left; `None` while there are any, and before there were.
    left: Option<Instant>,
}

/// Some consecutive changes; never none.
#[derive(Debug)]
pub struct Batch {
    /// One by one.
    pub events: Vec<Arc<FeedEvent>>,
    /// All of them as a piece of an event stream.
    pub frames: Bytes,
}

impl Batch {
    /// The events, which are at least one.
    pub fn new(events: Vec<Arc<FeedEvent>>) -> Self {
        let frames = match events.as_slice() {
            [only] => only.frame.clone(),
            many => {
                let mut frames = BytesMut::with_capacity(many.iter().map(|event| event.frame.len()).sum());
                many.iter().for_each(|event| frames.extend_from_slice(&event.frame));
                frames.freeze()
            }
        };
        Self { events, frames }
    }

    /// A subscriber that has seen this has seen everything up to this version.
    pub fn end(&self) -> Version {
        self.events.last().map_or(Version::ZERO, |event| event.version)
    }
}

/// What came after a version is not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FellBehind;

impl Default for Hub {
    fn default() -> Self {
        let rows = (0..ROWS).map(|_| watch::Sender::new(0)).collect();
        Self { stretch: Mutex::default(), news: Notify::new(), rows }
    }
}

impl Hub {
    /// Subscribes; `None` where there are [`MAX_SUBSCRIBERS`] already.
    pub fn enter(self: &Arc<Self>) -> Option<Subscription> {
        let mut stretch = self.lock();
        if stretch.subscribers >= MAX_SUBSCRIBERS {
            return None;
        }
        stretch.subscribers += 1;
        stretch.entered += 1;
        stretch.left = None;
        Some(Subscription { hub: Arc::clone(self), woken: self.rows[stretch.entered % ROWS].subscribe() })
    }

    /// How many subscribers there are.
    pub fn subscribers(&self) -> usize {
        self.lock().subscribers
    }

    /// From here on changes are published that are newer than `after`.
    pub fn begin(&self, after: Version) {
        let mut stretch = self.lock();
        stretch.clear();
        stretch.floor = Some(after);
        // The subscriber may have gone meanwhile.
        stretch.left = (stretch.subscribers == 0).then(Instant::now);
    }

    /// Nothing more is published from here: subscribers fall behind, and resume elsewhere.
    pub fn end(&self) {
        self.lock().clear();
        self.news.notify_one();
    }

    /// Whether there has been no subscriber for a while. Then nothing need be published, and nothing is kept.
    pub fn is_abandoned(&self) -> bool {
        let mut stretch = self.lock();
        let abandoned = stretch.floor.is_some() && stretch.left.is_some_and(|left| left.elapsed() > LINGER);
        if abandoned {
            stretch.clear();
        }
        abandoned
    }

    /// Takes in what was published, newer than all before.
    pub fn publish(&self, news: &[Published]) {
        let mut stretch = self.lock();
        if stretch.floor.is_none() {
            return;
        }
        for published in news {
            stretch.push(FeedEvent::new(published));
        }
        drop(stretch);
        self.news.notify_one();
    }

    /// Takes in what was published before: all that is newer than `after`, up to `upto`. What does not fit to
    /// what is kept, or beside it, is left.
    pub fn extend_back(&self, after: Version, upto: Version, events: &[Arc<FeedEvent>]) {
        let mut stretch = self.lock();
        let Some(floor) = stretch.floor.filter(|floor| after < *floor && *floor <= upto) else { return };
        let (kept, after) = (stretch.forgotten, after.max(stretch.forgotten));
        if after >= floor {
            return;
        }
        let older = &events[..events.partition_point(|event| event.version <= floor)];
        let older = &older[older.partition_point(|event| event.version <= kept)..];
        let bytes: usize = older.iter().map(|event| event.frame.len()).sum();
        if stretch.events.len() + older.len() <= MAX_EVENTS && stretch.bytes + bytes <= MAX_BYTES {
            older.iter().rev().for_each(|event| stretch.events.push_front(Arc::clone(event)));
            stretch.bytes += bytes;
            stretch.floor = Some(after);
        }
    }

    /// Drops what was published up to that version.
    pub fn forget(&self, upto: Version) {
        let mut stretch = self.lock();
        stretch.forgotten = stretch.forgotten.max(upto);
        while let Some(oldest) = stretch.events.pop_front_if(|event| event.version <= upto) {
            stretch.bytes -= oldest.frame.len();
            stretch.floor = Some(oldest.version);
        }
        let gone = |(begin, _): &mut (Version, _)| *begin < upto;
        stretch.last.take_if(gone);
    }

    /// Whether all that is newer than `version` is here.
    pub fn reaches(&self, version: Version) -> bool {
        self.lock().floor.is_some_and(|floor| floor <= version)
    }

    /// What comes after `version`; `None` where there is nothing newer.
    ///
    /// # Errors
    /// Where what comes next has been dropped.
    pub fn after(&self, version: Version) -> Result<Option<Arc<Batch>>, FellBehind> {
        self.lock().after(version)
    }

    /// Wakes subscribers until `shutdown`. To be run by one task.
    pub async fn wake(&self, shutdown: CancellationToken) {
        let mut round = 0;
        while shutdown.run_until_cancelled(self.news.notified()).await.is_some() {
            round += 1;
            let began = tokio::time::Instant::now();
            let length = PER_SUBSCRIBER * self.subscribers() as u32;
            // With few subscribers, all rows at once.
            let at_once =
                (ROWS as u128 * PAUSE.as_micros() / length.as_micros().max(1)).clamp(1, ROWS as u128);
            for rows in self.rows.chunks(at_once as usize) {
                let filled = rows.iter().filter(|row| row.receiver_count() > 0);
                filled.for_each(|row| row.send_modify(|last| *last = round));
                if length >= PAUSE {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            tokio::time::sleep_until(began + SHORTEST).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stretch> {
        // What is under the lock is whole after each statement but for its bookkeeping, and no statement
        // panics.
        self.stretch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stretch {
    /// Keeps nothing, but for the subscribers.
    fn clear(&mut self) {
        let (subscribers, entered, forgotten) = (self.subscribers, self.entered, self.forgotten);
        *self = Self { subscribers, entered, forgotten, ..Self::default() };
    }

    fn push(&mut self, event: FeedEvent) {
        let newest = self.events.back().map(|last| last.version).max(self.floor);
        assert!(newest < Some(event.version), "the feed is in version order");
        self.bytes += event.frame.len();
        self.events.push_back(Arc::new(event));
        while let Some(oldest) = self.events.front()
            && (self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES || oldest.version <= self.forgotten)
        {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.frame.len();
            self.floor = Some(oldest.version);
        }
    }

    fn after(&mut self, version: Version) -> Result<Option<Arc<Batch>>, FellBehind> {
        if self.floor.is_none_or(|floor| version < floor) {
            return Err(FellBehind);
        }
        if self.events.back().is_none_or(|newest| newest.version <= version) {
            return Ok(None);
        }
        let complete = |batch: &Batch, newest: &FeedEvent| {
            batch.end() == newest.version || batch.frames.len() >= MAX_BATCH_BYTES
        };
        if let (Some((begin, batch)), Some(newest)) = (&self.last, self.events.back())
            && *begin == version
            && complete(batch, newest)
        {
            return Ok(Some(Arc::clone(batch)));
        }
        let first = self.events.partition_point(|event| event.version <= version);
        let mut bytes = 0;
        let events = self.events.range(first..).take_while(|event| {
            let room = bytes < MAX_BATCH_BYTES;
            bytes += event.frame.len();
            room
        });
        let batch = Arc::new(Batch::new(events.map(Arc::clone).collect()));
        self.last = Some((version, Arc::clone(&batch)));
        Ok(Some(batch))
    }
}

/// One subscriber. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    woken: watch::Receiver<u64>,
}

impl Subscription {
    /// The next changes after `version`; waits until there are some.
    ///
    /// # Errors
    /// Where what comes next has been dropped.
    pub async fn next(&mut self, version: Version) -> Result<Arc<Batch>, FellBehind> {
        loop {
            self.woken.mark_unchanged();
            if let Some(batch) = self.hub.after(version)? {
                return Ok(batch);
            }
            // The hub has the sending ends as long as there is a subscription.
            if self.woken.changed().await.is_err() {
                return Err(FellBehind);
            }
        }
    }

    /// The hub to which it belongs.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut stretch = self.hub.lock();
        stretch.subscribers -= 1;
        if stretch.subscribers == 0 {
            stretch.left = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::UserId;

    use super::*;

    fn news(version: u64) -> Published {
        Published::Unknown { version: Version(version), id: UserId::nil() }
    }

    fn versions(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| event.version.0).collect()
    }

    #[test]
    fn each_gets_what_comes_after_what_it_has_seen() {
        let hub = Hub::default();
        assert!(!hub.reaches(Version(9)), "nothing is published yet");
        hub.begin(Version(10));
        assert_eq!((hub.reaches(Version(9)), hub.reaches(Version(10))), (false, true));
        assert!(hub.after(Version(10)).expect("it is here").is_none());
        hub.publish(&[news(12), news(15)]);
        hub.publish(&[news(20)]);
        let all = hub.after(Version(10)).expect("it is here").expect("news");
        assert_eq!(versions(&all), [12, 15, 20]);
        assert!(
            Arc::ptr_eq(&all, &hub.after(Version(10)).expect("it is here").expect("news")),
            "it is shared"
        );
        let rest = hub.after(Version(14)).expect("it is here").expect("news");
        assert_eq!(versions(&rest), [15, 20]);
        assert_eq!(rest.frames.len(), rest.events.iter().map(|event| event.frame.len()).sum::<usize>());
        hub.publish(&[news(21)]);
        assert_eq!(versions(&hub.after(Version(14)).expect("here").expect("news")), [15, 20, 21]);
        assert!(hub.after(Version(9)).is_err(), "that was before the feed began");
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_late_subscriber_falls_behind() {
        let hub = Hub::default();
        hub.begin(Version(0));
        for version in 1..=MAX_EVENTS as u64 + 5 {
            hub.publish(&[news(version)]);
        }
        assert_eq!(hub.after(Version(4)).err(), Some(FellBehind));
        let mut seen = Version(5);
        let mut count = 0;
        while let Some(batch) = hub.after(seen).expect("the rest is here") {
            assert!(batch.frames.len() < MAX_BATCH_BYTES + 200);
            count += batch.events.len();
            seen = batch.end();
        }
        assert_eq!(count, MAX_EVENTS);
    }

    #[test]
    fn what_was_read_from_op_logs_is_there_for_others() {
        let hub = Hub::default();
        hub.begin(Version(10));
        hub.publish(&[news(12)]);
        let older: Vec<Arc<FeedEvent>> =
            [4, 8, 10, 12].map(|version| Arc::new(FeedEvent::new(&news(version)))).into();
        hub.extend_back(Version(3), Version(9), &older[..2]);
        assert!(!hub.reaches(Version(3)), "it leaves a gap");
        hub.extend_back(Version(3), Version(12), &older);
        let all = hub.after(Version(3)).expect("it is here").expect("news");
        assert_eq!(versions(&all), [4, 8, 10, 12]);
        hub.extend_back(Version(5), Version(12), &older[1..]);
        assert_eq!(versions(&hub.after(Version(4)).expect("here").expect("news")), [8, 10, 12]);
    }

    #[test]
    fn what_is_forgotten_does_not_come_back_and_disturbs_no_subscriber_that_has_seen_it() {
        let hub = Hub::default();
        hub.begin(Version(10));
        hub.publish(&[news(12), news(15), news(20)]);
        hub.after(Version(10)).expect("it is here").expect("news");
        hub.forget(Version(17));
        assert!(hub.after(Version(12)).is_err(), "15 is gone");
        assert_eq!(versions(&hub.after(Version(15)).expect("here").expect("news")), [20]);
        let older: Vec<Arc<FeedEvent>> =
            [4, 12, 15].map(|version| Arc::new(FeedEvent::new(&news(version)))).into();
        hub.extend_back(Version(3), Version(15), &older);
        assert!(!hub.reaches(Version(12)));
        hub.forget(Version(30));
        assert!(hub.after(Version(20)).expect("it has seen all").is_none());
        assert!(hub.after(Version(15)).is_err());
    }

    #[tokio::test]
    async fn a_subscriber_that_waits_is_woken() {
        let hub = Arc::new(Hub::default());
        let end = CancellationToken::new();
        let waking = tokio::spawn({
            let (hub, end) = (Arc::clone(&hub), end.clone());
            async move { hub.wake(end).await }
        });
        let mut subscriptions: Vec<Subscription> = (0..1_000).map(|_| hub.enter().expect("room")).collect();
        hub.begin(Version(0));
        for round in 1..4 {
            let woken = subscriptions.iter_mut().map(|subscription| async {
                let batch = subscription.next(Version(round - 1)).await.expect("it is here");
                assert_eq!(versions(&batch), [round]);
            });
            let all = futures_util::future::join_all(woken);
            let publish = async { hub.publish(&[news(round)]) };
            tokio::join!(all, publish);
        }
        assert_eq!(hub.subscribers(), 1_000);
        drop(subscriptions);
        assert_eq!(hub.subscribers(), 0);
        assert!(!hub.is_abandoned() && hub.reaches(Version(0)), "they may come back");
        end.cancel();
        waking.await.expect("it ends");
    }

    #[test]
    fn subscriptions_are_counted() {
        let hub = Arc::new(Hub::default());
        let subscriptions: Vec<Subscription> = (0..MAX_SUBSCRIBERS).map_while(|_| hub.enter()).collect();
        assert_eq!(subscriptions.len(), MAX_SUBSCRIBERS);
        assert!(hub.enter().is_none());
        drop(subscriptions);
        assert!(hub.enter().is_some());
    }
}
