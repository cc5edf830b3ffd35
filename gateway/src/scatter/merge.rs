//! One list in id order from the lists of all partitions.
//!
//! Users are spread over the partitions by a hash, so of the next `limit` users about `limit / n` are in
//! each. Each partition is asked for so many and a little more: then a page nearly always takes one question
//! to each. Where that was too little, because a partition's part ran dry before the page was full, that
//! partition is asked for more; so a page is always full while there are users.

use std::collections::VecDeque;

use protocol::UserId;
use protocol::message::query::{Listed, MAX_PAGE};
use protocol::placement::Partition;

/// See the module.
#[derive(Debug)]
pub(super) struct Merge {
    limit: usize,
    /// By partition.
    sources: Vec<Source>,
    /// In id order; complete up to the last one.
    users: Vec<Listed>,
}

/// What is known of one partition.
#[derive(Debug)]
struct Source {
    /// Users that were received and are not merged yet.
    ahead: VecDeque<Listed>,
    /// Where to go on asking.
    after: Option<UserId>,
    /// Whether there are users beyond those received.
    more: bool,
}

/// A partition that has to be asked before the list can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) partition: Partition,
    pub(super) after: Option<UserId>,
    pub(super) limit: u32,
}

impl Merge {
    /// A list of at most `limit` users beyond `after`, from `size` partitions of which nothing is known yet.
    pub(super) fn new(size: u16, after: Option<UserId>, limit: usize) -> Self {
        let source = || Source { ahead: VecDeque::new(), after, more: true };
        Self { limit, sources: (0..size).map(|_| source()).collect(), users: Vec::new() }
    }

    /// Merges as far as what is known reaches. Returns what to ask for so that it can go on: nothing when the
    /// list is full or there is no more.
    pub(super) fn advance(&mut self) -> Vec<Want> {
        while self.users.len() < self.limit {
            if self.sources.iter().any(Source::is_dry) {
                return self.wants();
            }
            let heads = self.sources.iter_mut().filter(|source| !source.ahead.is_empty());
            let Some(first) = heads.min_by_key(|source| source.ahead.front().map(|user| user.0)) else {
                break;
            };
            self.users.extend(first.ahead.pop_front());
        }
        Vec::new()
    }

    fn wants(&self) -> Vec<Want> {
        let limit = share(self.limit - self.users.len(), self.sources.len());
        let numbered = (0..).zip(&self.sources).filter(|(_, source)| source.is_dry());
        numbered.map(|(partition, source)| Want { partition, after: source.after, limit }).collect()
    }

    /// Takes what a partition answered to a [`Want`]: users in id order beyond those that it gave before.
    pub(super) fn take(&mut self, partition: Partition, users: Vec<Listed>, more: bool) {
        let source = &mut self.sources[usize::from(partition)];
        source.after = users.last().map(|user| user.0).or(source.after);
        source.more = more;
        source.ahead.extend(users);
    }

    /// The list, and whether there are users beyond it.
    pub(super) fn finish(self) -> (Vec<Listed>, bool) {
        let more = self.sources.iter().any(|source| source.more || !source.ahead.is_empty());
        (self.users, more)
    }
}

impl Source {
    fn is_dry(&self) -> bool {
        self.ahead.is_empty() && self.more
    }
}

/// How many of the next `limit` users to ask of each of `size` partitions: their mean and three standard
/// deviations, and a few for short pages.
fn share(limit: usize, size: usize) -> u32 {
    let mean = limit.div_ceil(size);
    let slack = if size > 1 { 3 * mean.isqrt() + 8 } else { 0 };
    (mean + slack).min(limit).min(MAX_PAGE as usize) as u32
}

#[cfg(test)]
mod tests {
    use protocol::Version;
    use protocol::placement::partition_of;
    use serde_json::value::RawValue;

    use super::*;

    /// A seeded run repeats.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    fn listed(id: UserId) -> Listed {
        Listed(id, Version(1), RawValue::from_string("{}".to_owned()).expect("valid JSON"))
    }

    /// Answers as a partition does; now and then with less than was asked, as if the frame were full.
    fn page(users: &[UserId], want: Want, random: &mut Random) -> (Vec<Listed>, bool) {
        let begin = users.partition_point(|id| want.after.is_some_and(|after| *id <= after));
        let mut count = (users.len() - begin).min(want.limit as usize);
        if count > 1 && random.below(4) == 0 {
            count = 1 + random.below(count as u64) as usize;
        }
        let end = begin + count;
        (users[begin..end].iter().copied().map(listed).collect(), end < users.len())
    }

    #[test]
    fn pages_put_together_are_the_sorted_whole() {
        for seed in 1..=300 {
            let mut random = Random(seed);
            let size = 1 + random.below(7) as u16;
            let mut all: Vec<UserId> = (0..random.below(400))
                .map(|_| UserId::from_u128(u128::from(random.below(u64::MAX)) << random.below(64)))
                .collect();
            all.sort_unstable();
            all.dedup();
            let mut partitions = vec![Vec::new(); usize::from(size)];
            // Not always evenly: the merge may not rely on the hash.
            let skewed = random.below(3) == 0;
            for id in &all {
                let partition = if skewed { 0 } else { partition_of(id, size) };
                partitions[usize::from(partition)].push(*id);
            }
            let limit = 1 + random.below(60) as usize;
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let mut merge = Merge::new(size, after, limit);
                loop {
                    let wants = merge.advance();
                    if wants.is_empty() {
                        break;
                    }
                    for want in wants {
                        let (users, more) = page(&partitions[usize::from(want.partition)], want, &mut random);
                        merge.take(want.partition, users, more);
                    }
                }
                let (users, more) = merge.finish();
                seen.extend(users.iter().map(|user| user.0));
                assert_eq!(more, seen.len() < all.len(), "seed {seed}");
                assert!(!more || users.len() == limit, "seed {seed}: a page is full while there are more");
                after = users.last().map(|user| user.0);
                if !more {
                    break;
                }
            }
            assert_eq!(seen, all, "seed {seed}");
        }
    }

    /// Two questions to a partition are worth a look: they make a page twice as slow.
    #[test]
    fn a_page_of_evenly_spread_users_takes_one_question_to_each_partition() {
        let mut random = Random(7);
        let mut again = 0;
        for _ in 0..200 {
            let mut all: Vec<UserId> =
                (0..2_000).map(|_| UserId::from_u128(u128::from(random.below(u64::MAX)) << 64)).collect();
            all.sort_unstable();
            let mut merge = Merge::new(3, None, 1_000);
            for want in merge.advance() {
                assert!(want.limit < 400, "no more than is needed: {}", want.limit);
                let own = all.iter().filter(|id| partition_of(id, 3) == want.partition);
                let users = own.take(want.limit as usize).copied().map(listed).collect();
                merge.take(want.partition, users, true);
            }
            again += usize::from(!merge.advance().is_empty());
        }
        assert!(again <= 2, "{again} of 200");
    }
}
