//! What each process learns of the ring: the view, its neighbours, and what its copies may do.

use protocol::message::link::{Grant, Ring, RingNotice, Role, ToProcess};
use protocol::mutation::{self, Mutation};
use protocol::placement::{Place, replica_of, replicated_at};

use super::Engine;
use super::partition::has_all_of;
use super::session::Session;

impl Engine {
    /// Sends each process the ring as it looks from its place, where that has changed.
    pub(super) fn notify(&mut self) {
        let Some(ring) = self.ring else { return };
        let notified = |place: &Place| self.may_be_notified(*place, ring);
        let places: Vec<Place> = self.sessions.keys().copied().filter(notified).collect();
        for place in places {
            let peer = |place: Option<Place>| Some(self.sessions.get(&place?)?.peer());
            let notice = RingNotice {
                ring,
                view: self.view.clone(),
                successor: peer(replica_of(place, self.size)),
                predecessor: peer(replicated_at(place, self.size)),
                primary: self.grant(ring, place, Role::Primary),
                replica: self.grant(ring, place, Role::Replica),
            };
            let Some(session) = self.sessions.get_mut(&place) else { continue };
            if session.notice.as_ref() != Some(&notice) {
                session.notice = Some(notice.clone());
                let id = session.id;
                self.send(id, ToProcess::RingNotice(notice));
            }
        }
    }

    /// Whether a process may learn the view. One that has forgotten it learns only what is certain: otherwise
    /// it would count as a witness of it when the next gateway starts.
    fn may_be_notified(&self, place: Place, ring: Ring) -> bool {
        let joined = |session: &Session| session.ring.is_some_and(|theirs| theirs.id == ring.id);
        !ring.formed
            || self.sessions.get(&place).is_some_and(joined)
            || self.partitions.iter().all(|partition| partition.known)
    }

    /// What a copy may do if it is not complete: it is filled from the other one while that leads.
    fn grant(&self, ring: Ring, place: Place, role: Role) -> Grant {
        let Some(number) = self.partition_at(place, role).filter(|_| ring.formed) else {
            return if ring.formed { Grant::Wait } else { Grant::Empty };
        };
        let partition = self.partition(number);
        let other_leads = partition.serves() && partition.leader != role;
        let [copy, other] = [role, role.other()].map(|role| self.report(number, role));
        match copy.filter(|copy| copy.rollback.is_some()) {
            Some(copy) if partition.accepted == Some(copy.incarnation) => Grant::Accept,
            // The other copy first takes over what only this one may have.
            Some(copy) => match other {
                Some(other) if other_leads && has_all_of(&other, &copy) => Grant::Fill,
                _ => Grant::Wait,
            },
            None if other_leads || mutation::is(Mutation::FillFromAny) => Grant::Fill,
            None => Grant::Wait,
        }
    }
}
