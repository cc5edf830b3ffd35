//! A process that registers with the name and the data folder of one that is registered already.
//!
//! Mostly it is the same process, whose earlier connection is dead, and the gateway has not seen its end yet.
//! But it may be another one that has seen the incarnation somewhere. So the earlier connection is asked: if
//! it answers a beat that was sent after the registration, the newcomer is refused; if it ends, or says
//! nothing for [`ANSWERS_WITHIN`], the newcomer registers.
//!
//! What it does not do: it does not tell two processes apart when the first one hangs.

use std::time::Duration;

use protocol::message::link::{Beat, Refusal, Register, ToProcess};
use protocol::placement::Place;

use super::Engine;
use super::event::SessionId;
use super::members::Rejection;

/// A process that is alive answers a beat sooner. A connection that was silent for so long is not asked.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_millis(150);

/// See the module.
#[derive(Debug)]
pub(super) struct Claim {
    session: SessionId,
    host: String,
    register: Box<Register>,
    /// The beat that the other connection has to answer, until then.
    beat: u64,
    until: Duration,
}

impl Engine {
    /// Whether that registration has to wait for what the connection that holds its place says.
    pub(super) fn is_contested(&self, place: Place) -> bool {
        let silent = |heard| self.credible_now().saturating_sub(heard) >= ANSWERS_WITHIN;
        self.sessions.get(&place).is_some_and(|holder| !silent(holder.heard))
    }

    /// Asks the connection that holds the place whether it is alive.
    pub(super) fn contest(&mut self, place: Place, id: SessionId, host: String, register: Box<Register>) {
        if self.claims.get(&place).is_some_and(|claim| claim.session != id) {
            return self.reject(id, host, &register, Refusal::NameTaken.into());
        }
        let Some(holder) = self.sessions.get_mut(&place) else { return };
        self.beat += 1;
        holder.unanswered_beats += 1;
        let message = ToProcess::Beat(Beat { beat: self.beat });
        let (session, beat, until) = (holder.id, self.beat, self.now + ANSWERS_WITHIN);
        self.send(session, message);
        self.claims.insert(place, Claim { session: id, host, register, beat, until });
    }

    /// The connection that holds the place has answered a beat.
    pub(super) fn answered_beat(&mut self, place: Place, beat: u64) {
        if self.claims.get(&place).is_none_or(|claim| beat < claim.beat) {
            return;
        }
        let Some(Claim { session, host, register, .. }) = self.claims.remove(&place) else { return };
        let Some(holder) = self.sessions.get(&place) else { return };
        let rejection = Rejection::name_taken(holder, &register);
        self.reject(session, host, &register, rejection);
    }

    /// Connections that did not say that they are alive are given up.
    pub(super) fn tick_claims(&mut self) {
        let due = |(place, claim): (&Place, &Claim)| (claim.until <= self.now).then_some(*place);
        let due: Vec<Place> = self.claims.iter().filter_map(due).collect();
        for place in due {
            match self.sessions.get(&place).map(|holder| holder.id) {
                Some(holder) => self.evict(holder, "it connected again"),
                None => self.settle_claim(place),
            }
        }
    }

    /// The place is free: whatever waited for it registers.
    pub(super) fn settle_claim(&mut self, place: Place) {
        if let Some(Claim { session, host, register, .. }) = self.claims.remove(&place) {
            self.register(session, host, register);
        }
    }

    /// A connection has ended that may have waited.
    pub(super) fn drop_claim(&mut self, id: SessionId) {
        self.claims.retain(|_, claim| claim.session != id);
    }

    /// The gateway itself stood still for so long: the answer may be among what has arrived meanwhile.
    pub(super) fn extend_claims(&mut self, stall: Duration) {
        let latest = self.now + ANSWERS_WITHIN;
        self.claims.values_mut().for_each(|claim| claim.until = (claim.until + stall).min(latest));
    }
}
