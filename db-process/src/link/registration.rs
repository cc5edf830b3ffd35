//! A registered connection: what the gateway knows of this process, and what it has to hear.

use std::mem;
use std::time::Instant;

use protocol::message::link::{
    Applied, CopyReport, CopyReports, Register, Ring, RingNotice, Role, ToGateway,
};
use protocol::mutation::{self, Mutation};
use tracing::info;

use super::event::Command;

/// See the module.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) since: Instant,
    pub(super) heard: Instant,
    pub(super) leaving: bool,
    /// What the gateway knows of the copies.
    reported: CopyReports,
    /// The ring, and the epoch of the view, that it knows to be on disk.
    persisted: (Option<Ring>, u64),
    /// The newest notice that has not been begun: each states all of it, so only that counts.
    notice: Option<RingNotice>,
}

/// A copy is not complete any more: the process has to register anew, with what it has.
pub(super) struct RolledBack;

impl Registration {
    /// The gateway has accepted what was registered.
    pub(super) fn new(register: &Register, now: Instant) -> Self {
        Self {
            since: now,
            heard: now,
            leaving: false,
            reported: register.copies,
            persisted: (register.ring, register.view.epoch),
            notice: None,
        }
    }

    /// Reports what has changed of a copy, if it matters to the gateway.
    pub(super) fn report(
        &mut self,
        role: Role,
        current: CopyReport,
        commands: &mut Vec<Command>,
    ) -> Result<(), RolledBack> {
        let before = mem::replace(self.reported.get_mut(role), current);
        if before.complete && !current.complete {
            return Err(RolledBack);
        }
        if (before.complete, before.incarnation) != (current.complete, current.incarnation) {
            info!(copy = role.as_str(), complete = current.complete, "copy changed");
            commands.push(Command::SendChanges);
        } else if let Some(position) = current.position.filter(|_| before.position != current.position) {
            commands.push(Command::Send(ToGateway::Applied(Applied { role, position })));
        }
        Ok(())
    }

    /// A notice has come.
    pub(super) fn notify(&mut self, notice: RingNotice) {
        if !mutation::is(Mutation::StaleNotice) || self.notice.is_none() {
            self.notice = Some(notice);
        }
    }

    /// The notice to carry out next.
    pub(super) fn take_notice(&mut self) -> Option<RingNotice> {
        self.notice.take()
    }

    /// That is on disk now. It may have come from an earlier connection, and be news on this one all the
    /// same.
    pub(super) fn persisted(&mut self, persisted: (Option<Ring>, u64), commands: &mut Vec<Command>) {
        if mem::replace(&mut self.persisted, persisted) != persisted {
            commands.push(Command::SendChanges);
        }
    }
}
