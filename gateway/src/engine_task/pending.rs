//! The requests that have no answer yet.

use std::sync::Arc;

use protocol::Version;
use protocol::message::link::{Found, WriteAnswer};
use protocol::message::query::Answer;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};

use super::request::{Reply, Written};
use crate::engine::{FeedStart, RequestId, Unserved};

/// Where the answer to a request goes.
pub(super) enum ReplyTo {
    Read(oneshot::Sender<Result<Option<Found>, Unserved>>),
    Write(oneshot::Sender<Written>),
    /// One of many writes, with its ticket.
    OneOfMany(Arc<mpsc::UnboundedSender<Reply>>, u64),
    Question(oneshot::Sender<Result<Answer, Unserved>>),
    Size(oneshot::Sender<Result<u16, Unserved>>),
    Subscribe(oneshot::Sender<Result<FeedStart, Unserved>>),
}

/// By the number of the request. The caller may be gone when the answer comes; that is then dropped.
#[derive(Default)]
pub(super) struct PendingReplies {
    requests: u64,
    waiting: FxHashMap<RequestId, ReplyTo>,
}

impl PendingReplies {
    /// Numbers a request.
    pub(super) fn add(&mut self, reply: ReplyTo) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.waiting.insert(request, reply);
        request
    }

    /// Whether all have their answers.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives all of them up: whoever waits learns that no answer comes ([`Unserved::Stopping`]).
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn read(&mut self, request: RequestId, result: Result<Option<Found>, Unserved>) {
        if let Some(ReplyTo::Read(reply)) = self.waiting.remove(&request) {
            let _ = reply.send(result);
        }
    }

    pub(super) fn write(
        &mut self,
        request: RequestId,
        version: Version,
        result: Result<WriteAnswer, Unserved>,
    ) {
        match self.waiting.remove(&request) {
            Some(ReplyTo::Write(reply)) => drop(reply.send(Written { version, result })),
            Some(ReplyTo::OneOfMany(replies, ticket)) => {
                let _ = replies.send(Reply { ticket, version, result });
            }
            _ => {}
        }
    }

    pub(super) fn question(&mut self, request: RequestId, result: Result<Answer, Unserved>) {
        if let Some(ReplyTo::Question(reply)) = self.waiting.remove(&request) {
            let _ = reply.send(result);
        }
    }

    pub(super) fn size(&mut self, request: RequestId, result: Result<u16, Unserved>) {
        if let Some(ReplyTo::Size(reply)) = self.waiting.remove(&request) {
            let _ = reply.send(result);
        }
    }

    pub(super) fn subscribe(&mut self, request: RequestId, result: Result<FeedStart, Unserved>) {
        if let Some(ReplyTo::Subscribe(reply)) = self.waiting.remove(&request) {
            let _ = reply.send(result);
        }
    }
}
