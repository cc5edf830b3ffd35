//! Whom this process takes orders from: the rules of grants and promises.
//!
//! It grants a term to a gateway that claims a higher one than all before, if it is bound to no other gateway
//! any more. From then on it takes nothing from the gateway before. The grant is on disk before it is sent.
//! While it hears heartbeats of the holder, and for [`PROMISE`] after the last one, it grants nothing to
//! others. A process that has just started may have heard one a moment before it ended, so its promise begins
//! anew. Where only one gateway is known, nothing binds it. See [`protocol::term`].
//!
//! What it does not do: it sends nothing and writes nothing. [`super::links`] asks it.

use std::time::Instant;

use protocol::message::link::{Claim, Gateway, TermReport};
use protocol::term::{LAST_TERM, PROMISE};

use crate::identity::Grant;

/// What becomes of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// That very grant is on disk already.
    Granted,
    /// It is to be granted, once it is on disk: see [`Terms::persisted`].
    Persist(Grant),
    /// This process is bound to another gateway, or to a higher term.
    Rejected,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Terms {
    /// It knows one gateway only.
    sole: bool,
    grant: Grant,
    /// On its way to the disk.
    persisting: Option<Grant>,
    /// Until then it grants nothing to another gateway.
    promised: Instant,
    /// The holder has given its term up.
    released: bool,
    /// What was told last, but for a link that has just greeted.
    free: bool,
}

impl Terms {
    /// Of a process that starts, with what is on its disk.
    pub fn new(sole: bool, grant: Grant, now: Instant) -> Self {
        Self { sole, grant, persisting: None, promised: now + PROMISE, released: false, free: sole }
    }

    /// What it says of itself.
    pub(super) fn report(&self, now: Instant) -> TermReport {
        let grant = self.persisting.as_ref().unwrap_or(&self.grant);
        TermReport { term: grant.term, holder: grant.holder.clone(), free: self.is_free(now) }
    }

    pub(super) fn is_sole(&self) -> bool {
        self.sole
    }

    /// Whether that gateway holds the term.
    pub(super) fn is_held_by(&self, gateway: &Gateway) -> bool {
        let grant = self.persisting.as_ref().unwrap_or(&self.grant);
        grant.holder.as_ref().is_some_and(|holder| holder.id == gateway.id)
    }

    /// A gateway claims a term.
    pub(super) fn claim(&mut self, now: Instant, claim: &Claim) -> Decision {
        let same_holder = self.grant.holder.as_ref().is_some_and(|holder| holder.id == claim.gateway.id);
        if self.persisting.is_some() || claim.term > LAST_TERM {
            return Decision::Rejected;
        }
        if same_holder && claim.term == self.grant.term && !self.released {
            return Decision::Granted;
        }
        if claim.term <= self.grant.term || !(same_holder || self.is_free(now)) {
            return Decision::Rejected;
        }
        let grant = Grant { term: claim.term, holder: Some(claim.gateway.clone()) };
        self.persisting = Some(grant.clone());
        Decision::Persist(grant)
    }

    /// The grant is on disk: it binds from now on.
    pub(super) fn persisted(&mut self, now: Instant) {
        let Some(grant) = self.persisting.take() else { return };
        self.grant = grant;
        self.promised = now + PROMISE;
        self.released = false;
    }

    /// The holder is alive, and acts or is about to.
    pub(super) fn heartbeat(&mut self, now: Instant) {
        if !self.released {
            self.promised = now + PROMISE;
        }
    }

    /// The holder gives its term up.
    pub(super) fn release(&mut self) {
        self.released = true;
    }

    /// Whether what was told of it is not true any more: then every gateway has to hear of it.
    pub(super) fn has_changed(&mut self, now: Instant) -> bool {
        let free = self.is_free(now);
        std::mem::replace(&mut self.free, free) != free
    }

    /// When that may be so, if nothing else happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.free && self.persisting.is_none()).then_some(self.promised)
    }

    fn is_free(&self, now: Instant) -> bool {
        self.persisting.is_none() && (self.sole || self.released || now >= self.promised)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::message::link::Term;
    use uuid::Uuid;

    use super::*;

    fn claim(term: Term, id: u128) -> Claim {
        let id = Uuid::from_u128(id);
        let gateway = Gateway { id, name: "gateway".to_owned(), host: Some("here".to_owned()), port: 3001 };
        Claim { term, gateway, register: true }
    }

    fn granted(terms: &mut Terms, now: Instant, claim: &Claim) {
        assert!(matches!(terms.claim(now, claim), Decision::Persist(_)), "{claim:?}");
        assert_eq!(terms.claim(now, claim), Decision::Rejected, "it is not on disk yet");
        terms.persisted(now);
    }

    const SHORTLY: Duration = Duration::from_millis(1);

    #[test]
    fn a_process_that_starts_keeps_a_promise_that_it_may_have_made() {
        let now = Instant::now();
        let grant = Grant { term: 4, holder: Some(claim(4, 1).gateway) };
        let mut terms = Terms::new(false, grant, now);
        assert_eq!(terms.claim(now + PROMISE - SHORTLY, &claim(5, 2)), Decision::Rejected);
        assert_eq!(terms.claim(now, &claim(4, 1)), Decision::Granted, "the holder itself comes back at once");
        assert_eq!(terms.deadline(), Some(now + PROMISE));
        assert!(terms.has_changed(now + PROMISE) && !terms.has_changed(now + PROMISE));
        granted(&mut terms, now + PROMISE, &claim(5, 2));
        assert!(terms.is_held_by(&claim(5, 2).gateway) && !terms.is_held_by(&claim(4, 1).gateway));
    }

    #[test]
    fn heartbeats_bind_it_and_a_release_frees_it() {
        let mut now = Instant::now();
        let mut terms = Terms::new(false, Grant::default(), now);
        now += PROMISE;
        granted(&mut terms, now, &claim(1, 1));
        for _ in 0..3 {
            now += PROMISE - SHORTLY;
            assert_eq!(terms.claim(now, &claim(2, 2)), Decision::Rejected);
            terms.heartbeat(now);
        }
        assert_eq!(terms.claim(now, &claim(1, 2)), Decision::Rejected, "one term, two gateways");
        granted(&mut terms, now, &claim(7, 1));
        terms.release();
        assert_eq!(terms.claim(now, &claim(7, 1)), Decision::Rejected, "it has given that up");
        granted(&mut terms, now, &claim(8, 2));
        now += PROMISE;
        assert_eq!(terms.claim(now, &claim(8, 1)), Decision::Rejected);
        assert_eq!(terms.claim(now, &claim(LAST_TERM + 1, 1)), Decision::Rejected);
        granted(&mut terms, now, &claim(LAST_TERM, 1));
    }

    #[test]
    fn one_that_knows_one_gateway_only_waits_for_nothing() {
        let now = Instant::now();
        let mut terms = Terms::new(true, Grant::default(), now);
        assert_eq!(terms.deadline(), None);
        granted(&mut terms, now, &claim(1, 1));
        granted(&mut terms, now, &claim(2, 2));
        assert_eq!(terms.claim(now, &claim(2, 1)), Decision::Rejected);
    }
}
