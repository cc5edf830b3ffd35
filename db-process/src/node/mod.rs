//! What this process is in its ring: its two copies, its identity, and what the last notice of the ring asks
//! for.
//!
//! * [`mod@plan`]: decides what a notice means, as a pure function.
//! * `usage`: what it uses of its machine.
//! * [`Node`]: carries it out, and is where the links find the copies.
//!
//! It opens no connection itself: the followers watch [`Node::peer`].

pub mod plan;
mod usage;

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use protocol::InstanceName;
use protocol::message::REVISION;
use protocol::message::link::{
    CopiesChanged, CopyReports, Following, Peer, PerRole, Register, ReplicationAddress, Ring, RingNotice,
    Role, View,
};
use protocol::message::query::{Renew, Renewal};
use thiserror::Error;
use tokio::sync::watch;
use uuid::Uuid;

use crate::background::lock;
use crate::identity::{DataDir, Grant, IdentityError, Membership};
use crate::worker::{CopyHandle, Job};
use plan::{Contradiction, Plan, Source, plan};

/// See the module.
pub struct Node {
    name: InstanceName,
    incarnation: Uuid,
    folder: PathBuf,
    copies: PerRole<CopyHandle>,
    /// As it is on disk.
    membership: Mutex<Option<Membership>>,
    /// Whether the leader of each copy's partition is being changed.
    moving: PerRole<watch::Sender<bool>>,
    /// The neighbour that each copy is to follow.
    peers: PerRole<watch::Sender<Option<Peer>>>,
    /// Which copies follow the one that they are to follow.
    following: watch::Sender<Following>,
    registered: AtomicBool,
    /// Whether each copy is to take everything from the other one once more.
    recopy: PerRole<watch::Sender<bool>>,
    /// The copy that is to be set aside.
    discard: watch::Sender<Option<Role>>,
    /// Last, so that the folder is unlocked when the databases are closed.
    data: Mutex<DataDir>,
}

/// Why a notice could not be followed.
#[derive(Debug, Error)]
pub enum NoticeError {
    /// It cannot be true.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The ring could not be persisted.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Node {
    /// Of a folder and the copies in it.
    pub fn new(data: DataDir, copies: PerRole<CopyHandle>) -> Self {
        let identity = data.identity();
        let moves = |role| {
            identity.membership.as_ref().is_some_and(|kept| kept.moves(identity.instance.place(), role))
        };
        Self {
            moving: PerRole::both(|role| watch::Sender::new(moves(role))),
            name: identity.instance.clone(),
            incarnation: identity.incarnation,
            folder: data.folder().to_owned(),
            copies,
            membership: Mutex::new(identity.membership.clone()),
            peers: PerRole::both(|_| watch::Sender::new(None)),
            following: watch::Sender::default(),
            registered: AtomicBool::new(false),
            recopy: PerRole::both(|_| watch::Sender::new(false)),
            discard: watch::Sender::new(None),
            data: Mutex::new(data),
        }
    }

    /// Its name.
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// Of its data folder.
    pub fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    /// Its data directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One of its copies.
    pub fn copy(&self, role: Role) -> &CopyHandle {
        self.copies.get(role)
    }

    /// The ring that it belongs to, as it is on disk.
    pub fn ring(&self) -> Option<Ring> {
        lock(&self.membership).as_ref().map(|kept| kept.ring)
    }

    /// The newest view of it that is on disk; the first one before it joined any.
    pub fn view(&self) -> View {
        lock(&self.membership).as_ref().map(|kept| kept.view.clone()).unwrap_or_default()
    }

    /// Whether the leader of a copy's partition is being changed.
    pub fn moving(&self, role: Role) -> watch::Receiver<bool> {
        self.moving.get(role).subscribe()
    }

    /// The neighbour that a copy is to follow.
    pub fn peer(&self, role: Role) -> watch::Receiver<Option<Peer>> {
        self.peers.get(role).subscribe()
    }

    /// Which copies follow the other copy of their partition.
    pub fn following(&self) -> watch::Receiver<Following> {
        self.following.subscribe()
    }

    /// A copy follows from now on, or no longer.
    pub fn set_following(&self, role: Role, follows: bool) {
        self.following
            .send_if_modified(|following| mem::replace(following.get_mut(role), follows) != follows);
    }

    /// Whether a copy is to take everything from the other one once more.
    pub fn recopy(&self, role: Role) -> watch::Receiver<bool> {
        self.recopy.get(role).subscribe()
    }

    /// A copy has taken everything from the other one once more.
    pub fn recopied(&self, role: Role) {
        self.recopy.get(role).send_replace(false);
        self.copy(role).send(Job::Recopy(false));
    }

    /// The copy that is to be set aside, where there is one.
    pub fn discard(&self) -> watch::Receiver<Option<Role>> {
        self.discard.subscribe()
    }

    /// Takes note that a copy is to be made good. One that was made anew since is not meant.
    pub fn renew(&self, renew: Renew) {
        let Renew { role, incarnation, how } = renew;
        if self.copy(role).report().incarnation != incarnation {
            return;
        }
        match how {
            Renewal::Recopy => {
                tracing::warn!(
                    copy = role.as_str(),
                    "it differs from the other copy: everything is copied once more"
                );
                self.copy(role).send(Job::Recopy(true));
                self.recopy.get(role).send_replace(true);
            }
            Renewal::Discard => {
                tracing::warn!(copy = role.as_str(), "it is damaged: it is set aside, and filled anew");
                self.discard.send_replace(Some(role));
            }
        }
    }

    /// State of both copies.
    pub fn reports(&self) -> CopyReports {
        CopyReports { primary: self.copies.primary.report(), replica: self.copies.replica.report() }
    }

    /// With what it registers at a gateway.
    pub fn registration(&self, replication: ReplicationAddress) -> Register {
        Register {
            revision: REVISION,
            instance: self.name.clone(),
            incarnation: self.incarnation,
            ring: self.ring(),
            view: self.view(),
            replication,
            copies: self.reports(),
        }
    }

    /// What is sent to the gateway when something of the registration has changed.
    pub fn changes(&self) -> CopiesChanged {
        CopiesChanged { ring: self.ring(), epoch: self.view().epoch, copies: self.reports() }
    }

    /// Carries out a notice; one at a time. Returns the ring and the epoch of the view that are on disk then.
    ///
    /// # Errors
    /// If the notice cannot be true; nothing has changed then. Or if the ring cannot be persisted.
    pub async fn take(self: &Arc<Self>, notice: RingNotice) -> Result<(Option<Ring>, u64), NoticeError> {
        let Plan { persist, count_as_complete, accept, discard, follow } =
            plan(lock(&self.membership).as_ref(), &self.reports(), notice)?;
        // First of all: a copy that counts as complete without its ring would be complete in any ring.
        if let Some(membership) = persist {
            let Membership { ring, view } = &membership;
            let (size, formed, epoch) = (ring.size, ring.formed, view.epoch);
            tracing::info!(ring = %ring.id, size, formed, epoch, "ring kept");
            self.persist(membership).await?;
        }
        for role in count_as_complete {
            tracing::info!(copy = role.as_str(), "counts as complete: the ring is new");
            self.copy(role).send(Job::CountAsComplete);
        }
        for role in accept {
            tracing::warn!(copy = role.as_str(), "it was rolled back, and the operator accepts it as it is");
            self.copy(role).send(Job::AcceptRollback(Uuid::new_v4()));
        }
        if discard.is_some() {
            self.discard.send_if_modified(|now| {
                if let (None, Some(role)) = (*now, discard) {
                    tracing::warn!(
                        copy = role.as_str(),
                        "it was rolled back: it is set aside, and filled anew"
                    );
                }
                mem::replace(now, now.or(discard)) != *now
            });
        }
        for (role, source) in follow.into_pairs() {
            let peer = match source {
                Source::AsBefore => continue,
                Source::Nothing => None,
                Source::Peer(peer) => Some(peer),
            };
            self.peers.get(role).send_if_modified(|now| {
                let changed = *now != peer;
                *now = peer;
                changed
            });
        }
        Ok((self.ring(), self.view().epoch))
    }

    async fn persist(self: &Arc<Self>, membership: Membership) -> Result<(), IdentityError> {
        let node = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || {
            let mut data = lock(&node.data);
            data.persist(membership.clone())?;
            for role in Role::ALL {
                let moves = membership.moves(node.name.place(), role);
                node.moving.get(role).send_if_modified(|moved| mem::replace(moved, moves) != moves);
            }
            *lock(&node.membership) = Some(membership);
            Ok(())
        });
        kept.await.expect("writing a file does not panic")
    }

    /// What it has granted to gateways, as it is on disk.
    pub fn grant(&self) -> Grant {
        lock(&self.data).identity().grant.clone()
    }

    /// Persists a grant; it is on disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn persist_grant(self: &Arc<Self>, grant: Grant) -> Result<(), IdentityError> {
        let node = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || lock(&node.data).persist_grant(grant));
        kept.await.expect("writing a file does not panic")
    }

    /// Remembers whether a gateway counts on it now.
    pub fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }

    /// Whether it does its part of the ring: registered, and all its copies are complete.
    pub fn is_ready(&self) -> bool {
        let copies = self.reports();
        let replica = |ring: Ring| ring.size == 1 || copies.replica.complete;
        self.registered.load(Ordering::Relaxed) && copies.primary.complete && self.ring().is_some_and(replica)
    }
}
