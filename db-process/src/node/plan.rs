//! What a notice of the ring means for this process.

use protocol::message::link::{CopyReports, Grant, Peer, PerRole, Ring, RingNotice, Role};
use thiserror::Error;
use uuid::Uuid;

use crate::identity::Membership;

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Write this to disk.
    pub persist: Option<Membership>,
    /// These copies count as complete as they are.
    pub count_as_complete: Vec<Role>,
    /// These copies were rolled back, and the operator accepts them as they are.
    pub accept: Vec<Role>,
    /// This copy was rolled back, and the other one has all that was only here: it is discarded, and filled
    /// anew.
    pub discard: Option<Role>,
    /// What each copy follows from now on.
    pub follow: PerRole<Source>,
}

/// What a copy follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Source {
    /// Nothing: there is no other copy, or this one is to wait.
    #[default]
    Nothing,
    /// The other copy, at this neighbour.
    Peer(Peer),
    /// The other copy, where it was last known to be. A neighbour that has lost its gateway may well be
    /// there.
    AsBefore,
}

/// A notice that cannot be true.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Contradiction {
    /// It speaks of another ring than the one that these data belong to.
    #[error("the gateway speaks of ring {claimed}, the data belong to ring {kept}")]
    AnotherRing {
        /// Whose data these are.
        kept: Uuid,
        /// In the notice.
        claimed: Uuid,
    },
    /// It speaks of another n, which never changes.
    #[error("the gateway speaks of {claimed} processes, the ring has {kept}")]
    AnotherSize {
        /// n.
        kept: u16,
        /// In the notice.
        claimed: u16,
    },
    /// It takes a copy for complete as it is, in a ring that may have users.
    #[error("the gateway takes an empty {} for complete, and the ring has been formed", .0.as_str())]
    EmptyInFormedRing(Role),
}

/// Decides what `notice` means for a process that has persisted `kept`, and whose copies are in that state.
///
/// # Errors
/// If the notice contradicts what is known. Then nothing of it is to be done.
pub fn plan(
    kept: Option<&Membership>,
    copies: &CopyReports,
    notice: RingNotice,
) -> Result<Plan, Contradiction> {
    let kept_ring = kept.map(|kept| kept.ring);
    let new_ring = ring_to_persist(kept_ring, notice.ring)?;
    let ring = new_ring.or(kept_ring).unwrap_or(notice.ring);
    let formed = ring.formed;
    // A view of a ring that was given up means nothing in the next one.
    let old_view = kept.filter(|kept| kept.ring.id == ring.id).map(|kept| &kept.view);
    let view = match old_view {
        Some(old) if old.epoch >= notice.view.epoch => old.clone(),
        Some(_) | None => notice.view,
    };
    let now = Membership { ring, view };
    let persist = (Some(&now) != kept).then_some(now);
    let PerRole { primary, replica } = PerRole {
        primary: (Role::Primary, notice.primary, notice.successor),
        replica: (Role::Replica, notice.replica, notice.predecessor),
    };
    let mut plan = Plan {
        persist,
        count_as_complete: Vec::new(),
        accept: Vec::new(),
        discard: None,
        follow: PerRole::default(),
    };
    for (role, grant, peer) in [primary, replica] {
        let complete = copies.get(role).complete;
        if copies.get(role).rollback.is_some() {
            match grant {
                Grant::Wait => {}
                Grant::Fill => plan.discard = Some(role),
                Grant::Accept => plan.accept.push(role),
                // The ring is new: nothing that counts can be lost.
                Grant::Empty if !formed => plan.accept.push(role),
                Grant::Empty => return Err(Contradiction::EmptyInFormedRing(role)),
            }
            // It follows the other copy when it has been discarded or accepted.
            continue;
        }
        if !complete && grant == Grant::Empty {
            if formed {
                return Err(Contradiction::EmptyInFormedRing(role));
            }
            plan.count_as_complete.push(role);
        }
        // What a copy that is not complete may do is the gateway's to say: the other copy may have been lost,
        // too.
        if notice.ring.size > 1 && (complete || grant != Grant::Wait) {
            *plan.follow.get_mut(role) = peer.map_or(Source::AsBefore, Source::Peer);
        }
    }
    Ok(plan)
}

/// The ring of the notice, if it is news. A ring that was formed stays so, whatever an older gateway may
/// think; one that was not has no users, and may be given up for another.
fn ring_to_persist(kept: Option<Ring>, claimed: Ring) -> Result<Option<Ring>, Contradiction> {
    match kept {
        Some(kept) if kept.id == claimed.id && kept.size != claimed.size => {
            Err(Contradiction::AnotherSize { kept: kept.size, claimed: claimed.size })
        }
        Some(kept) if kept.id == claimed.id => Ok((claimed.formed && !kept.formed).then_some(claimed)),
        Some(kept) if kept.formed => Err(Contradiction::AnotherRing { kept: kept.id, claimed: claimed.id }),
        Some(_) | None => Ok(Some(claimed)),
    }
}

#[cfg(test)]
mod tests {
    use protocol::Version;
    use protocol::message::link::{CopyReport, View};

    use super::*;

    fn ring(id: u128, formed: bool) -> Ring {
        Ring { id: Uuid::from_u128(id), size: 3, formed }
    }

    fn view(epoch: u64) -> View {
        View { epoch, ..View::first(3) }
    }

    fn member(ring: Ring) -> Membership {
        Membership { ring, view: view(3) }
    }

    fn copies(primary: bool, replica: bool) -> CopyReports {
        let copy = |complete| CopyReport {
            incarnation: Uuid::nil(),
            complete,
            head: 0,
            position: None,
            version: Version::ZERO,
            flushed: 0,
            other: None,
            rollback: None,
        };
        CopyReports { primary: copy(primary), replica: copy(replica) }
    }

    fn peer(name: &str) -> Option<Peer> {
        Some(Peer { instance: name.parse().unwrap(), host: "::1".to_owned(), port: 1 })
    }

    fn source(name: &str) -> Source {
        Source::Peer(peer(name).unwrap())
    }

    /// As db-1 of three gets it.
    fn notice(ring: Ring, primary: Grant, replica: Grant) -> RingNotice {
        RingNotice {
            ring,
            view: view(3),
            successor: peer("db-2"),
            predecessor: peer("db-0"),
            primary,
            replica,
        }
    }

    #[test]
    fn a_new_process_joins_a_new_ring() {
        let plan =
            plan(None, &copies(false, false), notice(ring(1, false), Grant::Empty, Grant::Empty)).unwrap();
        assert_eq!(plan.persist, Some(member(ring(1, false))));
        assert_eq!(plan.count_as_complete, [Role::Primary, Role::Replica]);
        assert_eq!(plan.follow, PerRole { primary: source("db-2"), replica: source("db-0") });
    }

    #[test]
    fn complete_copies_follow_and_are_not_counted_again() {
        let notified = notice(ring(1, true), Grant::Empty, Grant::Wait);
        let plan = plan(Some(&member(ring(1, true))), &copies(true, true), notified).unwrap();
        assert_eq!((plan.persist, plan.count_as_complete), (None, vec![]));
        assert_eq!(plan.follow, PerRole { primary: source("db-2"), replica: source("db-0") });
    }

    #[test]
    fn an_emptied_process_fills_what_it_may() {
        let notified = notice(ring(1, true), Grant::Wait, Grant::Fill);
        let plan = plan(None, &copies(false, false), notified).unwrap();
        assert_eq!((plan.persist, plan.count_as_complete), (Some(member(ring(1, true))), vec![]));
        assert_eq!(plan.follow, PerRole { primary: Source::Nothing, replica: source("db-0") });
    }

    #[test]
    fn nothing_in_a_formed_ring_is_taken_for_complete_because_it_is_empty() {
        for kept in [None, Some(member(ring(1, true)))] {
            let notified = notice(ring(1, true), Grant::Fill, Grant::Empty);
            let error = plan(kept.as_ref(), &copies(false, false), notified).unwrap_err();
            assert_eq!(error, Contradiction::EmptyInFormedRing(Role::Replica));
        }
        // A gateway that has forgotten that the ring was formed is not believed either.
        let notified = notice(ring(1, false), Grant::Empty, Grant::Fill);
        let error = plan(Some(&member(ring(1, true))), &copies(false, false), notified).unwrap_err();
        assert_eq!(error, Contradiction::EmptyInFormedRing(Role::Primary));
    }

    #[test]
    fn a_formed_ring_stays_formed_and_is_never_exchanged() {
        let wait = |ring| notice(ring, Grant::Wait, Grant::Wait);
        let keep = |kept: Option<Ring>, notified| {
            let plan = plan(kept.map(member).as_ref(), &copies(true, true), wait(notified));
            plan.map(|plan| plan.persist.map(|kept| kept.ring))
        };
        assert_eq!(keep(Some(ring(1, false)), ring(1, true)), Ok(Some(ring(1, true))));
        assert_eq!(keep(Some(ring(1, true)), ring(1, false)), Ok(None));
        assert_eq!(keep(Some(ring(1, false)), ring(2, false)), Ok(Some(ring(2, false))));
        let (kept, claimed) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(
            keep(Some(ring(1, true)), ring(2, true)),
            Err(Contradiction::AnotherRing { kept, claimed })
        );
        let larger = Ring { size: 4, ..ring(1, true) };
        let differs = Contradiction::AnotherSize { kept: 3, claimed: 4 };
        assert_eq!(keep(Some(ring(1, false)), larger), Err(differs));
    }

    #[test]
    fn a_neighbour_that_the_gateway_does_not_see_is_followed_where_it_was() {
        let notified = RingNotice { successor: None, ..notice(ring(1, true), Grant::Wait, Grant::Wait) };
        let plan = plan(Some(&member(ring(1, true))), &copies(true, true), notified).unwrap();
        assert_eq!(plan.follow, PerRole { primary: Source::AsBefore, replica: source("db-0") });
    }

    #[test]
    fn the_newest_view_is_kept_and_an_older_one_is_not() {
        let notified =
            |epoch| RingNotice { view: view(epoch), ..notice(ring(1, true), Grant::Wait, Grant::Wait) };
        let keep = |kept: Membership, epoch| {
            plan(Some(&kept), &copies(true, true), notified(epoch))
                .unwrap()
                .persist
                .map(|kept| kept.view.epoch)
        };
        assert_eq!(keep(member(ring(1, true)), 4), Some(4));
        assert_eq!(keep(member(ring(1, true)), 3), None);
        assert_eq!(keep(member(ring(1, true)), 2), None);
        // That of a ring that never was counts for nothing.
        assert_eq!(keep(member(ring(2, false)), 2), Some(2));
    }

    #[test]
    fn a_ring_of_one_follows_no_process() {
        let alone = Ring { size: 1, ..ring(1, true) };
        let plan = plan(Some(&member(alone)), &copies(true, false), notice(alone, Grant::Wait, Grant::Fill))
            .unwrap();
        assert_eq!(plan.follow, PerRole::default());
    }
}
