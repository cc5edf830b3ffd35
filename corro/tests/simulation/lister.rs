//! Lists and counts: one caller that asks for pages while the others write.
//!
//! A page is as good as a read of every user that it covers: which it shows, and which it does not show
//! although the id is within it. So each page becomes such reads in the histories, and what it must not show
//! or miss is found there.

use std::collections::BTreeMap;

use db_process::store::Store;
use gateway::engine::{Event, RequestId, Unserved};
use protocol::UserId;
use protocol::message::link::{Found, Role};
use protocol::message::query::{Answer, CountQuery, Filter, PageAnswer, PageQuery, Query};
use protocol::placement::{Partition, partition_of, primary_of};

use crate::config::Mode;
use crate::history::{Asked, Op, Reply};
use crate::world::{Happening, MILLI, Time, World};

const SOUND: &str = "a store in memory can be read";

/// Between two pages.
const REST: (Time, Time) = (50 * MILLI, 300 * MILLI);

/// What was asked and has no answer yet.
#[derive(Debug, Default)]
pub(crate) struct Lister {
    pages: BTreeMap<u64, Page>,
    counts: BTreeMap<u64, Partition>,
}

#[derive(Debug)]
struct Page {
    partition: Partition,
    after: Option<UserId>,
    called: u64,
}

impl World {
    /// Asks for a page, or looks again later.
    pub(crate) fn lister_acts(&mut self) {
        if self.checks.asked >= self.config.operations {
            return;
        }
        self.after(REST.0, REST.1, Happening::List);
        let patient = matches!(self.config.mode, Mode::Calm | Mode::Single);
        if !self.gateway.is_up() || patient && !self.gateway.was_ready {
            return;
        }
        let partition = self.rng.between(0, u64::from(self.config.size)) as Partition;
        let after = self
            .rng
            .percent(50)
            .then(|| UserId::from_u128(u128::from(self.rng.between(0, self.config.users))));
        let limit = self.rng.pick(&[1, 2, 100]);
        let request = self.number();
        let called = self.number();
        self.note(|| format!("lister asks {request}: {limit} of partition {partition} after {after:?}"));
        self.lister.pages.insert(request, Page { partition, after, called });
        let page = PageQuery { query: 0, role: Role::Primary, after, limit, filter: Filter::All };
        let query = Query::PageQuery(page);
        let event = Event::Question { request: RequestId(request), partition, query };
        let life = self.gateway.life;
        self.after(1, 100, Happening::Ask(life, Box::new(event)));
    }

    pub(crate) fn question_answered(&mut self, request: u64, result: Result<Answer, Unserved>) {
        self.note(|| format!("answer to {request}: {result:?}"));
        if let Some(partition) = self.lister.counts.remove(&request) {
            let Ok(Answer::CountAnswer(answer)) = result else {
                panic!("a ring that is whole counts: {result:?}")
            };
            let process = &self.processes[usize::from(primary_of(partition))];
            let users = process.store(Role::Primary).meta().expect(SOUND).users;
            assert_eq!(answer.count, users, "the count of partition {partition}");
            return;
        }
        let page = self.lister.pages.remove(&request);
        let Page { partition, after, called } =
            page.unwrap_or_else(|| panic!("question {request} is answered twice, or was never asked"));
        let answer = match result {
            Ok(Answer::PageAnswer(answer)) => answer,
            Ok(other) => panic!("no page: {other:?}"),
            Err(unserved) => {
                let allowed = matches!(self.config.mode, Mode::Chaos | Mode::Harsh);
                return assert!(allowed, "a list fails although there was one failure at most: {unserved}");
            }
        };
        self.mix(request);
        let answered = self.number();
        let PageAnswer { users, more, .. } = answer;
        let last = users.last().filter(|_| more).map(|user| user.0);
        let covers = |id: &UserId| {
            partition_of(id, self.config.size) == partition
                && after.is_none_or(|after| *id > after)
                && last.is_none_or(|last| *id <= last)
        };
        let covered: Vec<UserId> =
            (0..self.config.users).map(|n| UserId::from_u128(n.into())).filter(covers).collect();
        let mut shown: BTreeMap<UserId, Found> =
            users.into_iter().map(|user| (user.0, Found(user.1, user.2))).collect();
        for id in covered {
            let seen = shown.remove(&id).map(|found| self.seen(id, &found));
            let reply = Reply::Seen(seen);
            let op = Op { called, answered, asked: Asked::Read, condition: None, reply };
            self.checks.histories.entry(id).or_default().push(op);
        }
        assert!(shown.is_empty(), "a page shows users that it does not cover: {shown:?}");
    }

    /// What was asked of a gateway that died is never answered.
    pub(crate) fn lister_loses_gateway(&mut self) {
        self.lister.pages.clear();
    }

    /// In the end, when all is quiet: the ring counts what is there.
    pub(crate) fn check_counts(&mut self) {
        for partition in 0..self.config.size {
            let request = self.number();
            self.lister.counts.insert(request, partition);
            let query = Query::CountQuery(CountQuery { query: 0, role: Role::Primary, group: None });
            self.step(Event::Question { request: RequestId(request), partition, query });
        }
        while !self.lister.counts.is_empty() {
            self.advance();
        }
    }
}
