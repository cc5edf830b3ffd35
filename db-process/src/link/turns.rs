//! Questions about a whole copy, which are answered a few at a time. More would take the processors from
//! reads and writes, and finish no sooner.

use std::collections::VecDeque;

use protocol::message::query::{DigestQuery, Query};

use super::event::{Command, SessionId, Work};

/// This many questions are answered at once.
const QUESTIONS: usize = 2;

/// The same for scans, and for erasing, which take so long that nothing else should wait for them.
const SCANS: usize = 1;

/// Questions, and scans, that wait for their turn.
#[derive(Debug)]
pub(super) struct Turns {
    questions: Turn,
    scans: Turn,
}

#[derive(Debug)]
struct Turn {
    free: usize,
    waiting: VecDeque<Query>,
}

impl Turns {
    pub(super) fn new() -> Self {
        let turn = |free| Turn { free, waiting: VecDeque::new() };
        Self { questions: turn(QUESTIONS), scans: turn(SCANS) }
    }

    pub(super) fn ask(&mut self, session: SessionId, query: Query, commands: &mut Vec<Command>) {
        let scans =
            matches!(query, Query::DigestQuery(DigestQuery { scan: true, .. }) | Query::EraseQuery(_));
        let work = if scans { Work::Scan } else { Work::Question };
        self.turn(work).waiting.push_back(query);
        self.next(session, work, commands);
    }

    /// One of them has its answer.
    pub(super) fn done(&mut self, session: SessionId, work: Work, commands: &mut Vec<Command>) {
        self.turn(work).free += 1;
        self.next(session, work, commands);
    }

    /// Those that wait are forgotten.
    pub(super) fn clear(&mut self) {
        self.questions.waiting.clear();
        self.scans.waiting.clear();
    }

    fn turn(&mut self, work: Work) -> &mut Turn {
        if work == Work::Scan { &mut self.scans } else { &mut self.questions }
    }

    fn next(&mut self, session: SessionId, work: Work, commands: &mut Vec<Command>) {
        let turn = self.turn(work);
        if turn.free > 0
            && let Some(query) = turn.waiting.pop_front()
        {
            turn.free -= 1;
            commands.push(Command::Ask(session, work, query));
        }
    }
}
