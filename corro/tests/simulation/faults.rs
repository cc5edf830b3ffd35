//! What goes wrong, and when; and whether the ring is whole again afterwards.
//!
//! A disk that returns to an earlier state is found out by what is remembered of it elsewhere. In these runs
//! something always remembers: the file beside the database, which only goes back with it where the whole
//! folder was restored; or the gateway, which then lives until the process has registered again; or the other
//! copy, on its disk, which then comes back in time. Without any of them nothing could tell.

use db_process::copy::rollback;
use db_process::identity::Grant;
use db_process::store::{MemoryStore, Meta, Store};
use db_process::worker::rounds::Marked;
use gateway::election::ElectedEngine;
use protocol::message::link::{FlushPoint, PerRole, Role};
use protocol::placement::{replica_of, replicated_at};
use uuid::Uuid;

use crate::config::{Fault, Mode};
use crate::process::Process;
use crate::world::{Happening, MILLI, SECOND, Time, World};

/// What has gone wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    count: u64,
    pub(crate) last: Time,
    /// A disk was lost, and the ring was not whole since.
    wiped: bool,
    /// Processes that have not the disk any more that they began with.
    lost_disks: Vec<u16>,
    /// Something made a process slow then, and the ring was not whole since.
    pub(crate) slow_since: Option<Time>,
    /// When it was whole again.
    pub(crate) slow_until: Time,
    /// Until then a disk or a link is slow, or a disk hangs.
    slow_for: Time,
    /// The last thing that went wrong was the end of this process.
    lost: Option<u16>,
    /// Disks that went back, while nothing but the gateway or the other copy may know: place, role and
    /// incarnation.
    rolled_back: Vec<(u16, Role, Uuid)>,
    /// The gateway was cut off, and nothing else has gone wrong since.
    pub(crate) cut_off_last: bool,
    /// Requests from before may have waited for that.
    pub(crate) well_since: Time,
    /// Everything that was to happen has happened.
    pub(crate) finished: bool,
    pub(crate) whole: bool,
}

impl World {
    /// Lets something go wrong, if it is time, and looks whether the run is over.
    pub(crate) fn consider_fault(&mut self) {
        let calm = self.gateway.is_whole()
            && !self.gateway.paused
            && !self.is_cut_off()
            && self.gateway.was_ready
            && self.processes.iter().all(Process::is_well)
            && self.now > self.faults.slow_for
            && self.is_connected();
        if calm {
            self.faults.wiped = false;
            self.faults.rolled_back.clear();
            if self.faults.slow_since.take().is_some() {
                self.faults.slow_until = self.now;
            }
        }
        self.forget_found_rollbacks();
        let harsh = self.config.mode == Mode::Harsh;
        let last = self.faults.last.max(self.faults.slow_for + Self::TRUSTED_WITHIN);
        let late = self.now > last + Self::WHOLE_WITHIN;
        let all = self.faults.count >= self.config.faults;
        if all {
            let idle = self.gateway.engine.as_ref().is_none_or(ElectedEngine::is_idle);
            let asked = self.checks.asked >= self.config.operations && self.checks.open.is_empty() && idle;
            if calm && asked && self.is_purged() {
                self.faults.finished = true;
                self.faults.whole = true;
            } else if late && harsh && !calm && self.now > last + 2 * Self::WHOLE_WITHIN {
                assert!(self.checks.open.is_empty() || !asked, "a question is never answered");
                self.faults.finished = true;
            } else {
                assert!(calm || harsh || !late, "the ring is not whole again: {}", self.describe());
                assert!(self.now < last + 90 * SECOND, "it never ends: {:?}", self.checks.open);
            }
        } else if calm && self.now > self.faults.last + MILLI || self.config.mode != Mode::Single {
            if self.gateway.was_ready || self.faults.count > 0 {
                let fault = self.rng.pick(&self.config.kinds.clone());
                let place = self.rng.between(0, u64::from(self.config.size)) as u16;
                self.inject(fault, place, calm);
            }
        } else if let Some(place) = self.faults.lost
            && let Some(fault) = self.lost_again()
        {
            self.inject(fault, place, true);
        } else {
            assert!(!late, "the ring is not whole again: {}", self.describe());
        }
        let pause = match self.config.mode {
            _ if all => 30,
            Mode::Calm | Mode::Single => 60,
            Mode::Chaos | Mode::Harsh => self.rng.pick(&[5, 100, 700, 3_000]),
        };
        self.after(MILLI, pause * MILLI, Happening::Fault);
    }

    /// Whether the network is as all processes take it to be: a break that no process has noticed yet is a
    /// failure that lasts.
    fn is_connected(&self) -> bool {
        let linked = |process: &Process| {
            let connection = process.link.connection.and_then(|id| self.connections.get(&id));
            process.link.is_registered()
                && connection.is_some_and(|connection| connection.gateway_open && !connection.cut)
        };
        let follows = |process: &Process, role: Role| {
            let stream = process.following.get(role).stream.and_then(|id| self.streams.get(&id));
            stream.is_some_and(|stream| stream.follower_open && stream.source_open && !stream.cut)
        };
        self.processes
            .iter()
            .all(|process| linked(process) && Role::ALL.into_iter().all(|role| follows(process, role)))
    }

    fn describe(&self) -> String {
        match &self.gateway.engine {
            Some(engine) => format!("{:#?}", engine.status().partitions),
            None => "the gateway is down".to_owned(),
        }
    }

    /// How the process that was lost last is lost once more, before the ring is whole again: that is still a
    /// single failure.
    fn lost_again(&mut self) -> Option<Fault> {
        let ends = self.config.kinds.iter().copied().filter(|kind| matches!(kind, Fault::Kill | Fault::Wipe));
        let ends: Vec<Fault> = ends.collect();
        (!ends.is_empty() && self.rng.percent(30)).then(|| self.rng.pick(&ends))
    }

    fn inject(&mut self, fault: Fault, place: u16, calm: bool) {
        if !self.is_fair(fault, place, calm) {
            // So that a list of nothing else comes to an end.
            self.faults.count += u64::from(self.rng.percent(10));
            return;
        }
        self.faults.count += 1;
        self.faults.last = self.now;
        let cut_off = fault == Fault::CutOff;
        if std::mem::replace(&mut self.faults.cut_off_last, cut_off) && !cut_off {
            self.faults.well_since = self.now;
        }
        self.faults.lost =
            matches!(fault, Fault::Kill | Fault::Power | Fault::Wipe | Fault::Rollback).then_some(place);
        let down = self.rng.pick(&[20, 100, 600, 2_500]) * MILLI;
        match fault {
            Fault::Kill | Fault::Power | Fault::Wipe => {
                self.end_process(place, fault == Fault::Power);
                if fault == Fault::Wipe {
                    self.faults.wiped = true;
                    self.wipe(place);
                }
                self.after(20 * MILLI, down + 20 * MILLI, Happening::RestartProcess(place));
            }
            Fault::Rollback => self.roll_back(place, down),
            Fault::Pause => {
                let millis = self.rng.between(100, 3_000);
                self.note(|| format!("{place} stands still for {millis} ms"));
                self.process(place).paused = true;
                self.after(millis * MILLI, (millis + 1) * MILLI, Happening::ResumeProcess(place));
            }
            Fault::HungDisk => {
                let millis = self.rng.between(100, 6_000);
                self.note(|| format!("the disk of {place} hangs for {millis} ms"));
                let process = self.process(place);
                process.disk_hangs = true;
                let life = process.life;
                self.after(millis * MILLI, (millis + 1) * MILLI, Happening::ResumeDisk(place, life));
                self.is_slow_for(millis);
            }
            Fault::SlowDisk | Fault::SlowLink => {
                let millis = self.rng.between(self.config.slow.0, self.config.slow.1);
                let until = self.is_slow_for(millis);
                self.note(|| format!("{fault:?} at {place} for {millis} ms"));
                self.faults.slow_since.get_or_insert(self.now);
                let process = self.process(place);
                let disk = fault == Fault::SlowDisk;
                let slow = if disk { &mut process.disk_slow_until } else { &mut process.link_slow_until };
                *slow = until.max(*slow);
            }
            Fault::Cut => {
                let id = self.process(place).link.connection;
                self.note(|| format!("{place} #{id:?} is cut"));
                if let Some(id) = id {
                    self.cut(id, true);
                }
            }
            Fault::CutReplication => {
                let open = |(id, stream): (&u64, &crate::world::Stream)| {
                    (stream.follower_open && !stream.cut).then_some(*id)
                };
                let open: Vec<u64> = self.streams.iter().filter_map(open).collect();
                if !open.is_empty() {
                    let id = self.rng.pick(&open);
                    self.note(|| format!("stream #{id} is cut"));
                    self.cut_stream(id);
                }
            }
            Fault::Leave => self.ask_to_leave(place),
            Fault::Gateway => {
                self.kill_gateway();
                // The clock may be anywhere when it comes back.
                self.gateway.wall = self.rng.between(0, 2_000_000);
                self.after(10 * MILLI, down + 10 * MILLI, Happening::RestartGateway);
            }
            Fault::GatewayPause => {
                let most = if self.config.mode == Mode::Single { 1_500 } else { 3_000 };
                let millis = self.rng.between(60, most);
                self.pause_gateway(millis);
            }
            Fault::CutOff => {
                let (millis, breaks) = (self.rng.between(100, 1_500), self.rng.percent(50));
                self.cut_off(millis, breaks);
            }
        }
    }

    /// How long a process that was slow may not be trusted with the lead.
    const TRUSTED_WITHIN: Time = 70 * SECOND;

    fn is_slow_for(&mut self, millis: u64) -> Time {
        let until = self.now + millis * MILLI;
        // What is under way then arrives late, and what comes behind it on a connection not before.
        self.faults.slow_for = self.faults.slow_for.max(until + SECOND);
        until
    }

    /// Whether the promises still hold if this goes wrong too.
    fn is_fair(&self, fault: Fault, place: u16, calm: bool) -> bool {
        let process = &self.processes[usize::from(place)];
        let harsh = self.config.mode == Mode::Harsh;
        let possible = match fault {
            Fault::Gateway | Fault::GatewayPause => self.gateway.is_up() && !self.gateway.paused,
            Fault::CutOff => !self.is_cut_off(),
            Fault::CutReplication => true,
            // A process whose disk hangs cannot end in order.
            Fault::Leave | Fault::HungDisk | Fault::SlowDisk | Fault::SlowLink => process.is_well(),
            _ => process.up && !process.paused && !process.leaving,
        };
        let fair = match fault {
            // The last process that remembers the ring must not forget it, or a gateway that starts makes a
            // new one.
            Fault::Wipe if harsh => {
                (0..self.config.size).any(|other| other != place && !self.faults.lost_disks.contains(&other))
            }
            // Alone, and covered by the tail.
            Fault::Wipe => calm && self.config.tail_bytes > 1_000,
            // The same; the gateway has to know of what is on the disk.
            Fault::Rollback => {
                self.gateway.is_up()
                    && !self.gateway.paused
                    && (harsh || calm && self.config.tail_bytes > 1_000)
                    && (calm
                        || self.gateway.was_ready
                            && process.link.is_registered()
                            && self.neighbours_are_well(place))
            }
            // With the disk of another, or the tail, something acknowledged would be gone.
            Fault::Gateway | Fault::Power => harsh || !self.faults.wiped,
            _ => true,
        };
        // Nothing that could tell of a disk that went back may be lost, or late, before it has.
        let remembered = match fault {
            _ if self.faults.rolled_back.is_empty() => true,
            Fault::CutReplication => true,
            Fault::Kill => self.faults.rolled_back.iter().any(|(of, ..)| *of == place),
            _ => false,
        };
        possible && fair && remembered
    }

    /// Whether the processes that hold the other copies of those at that place are there.
    fn neighbours_are_well(&self, place: u16) -> bool {
        let size = self.config.size;
        [replica_of(place, size), replicated_at(place, size)].into_iter().flatten().all(|place| {
            let process = &self.processes[usize::from(place)];
            let connection = process.link.connection.and_then(|id| self.connections.get(&id));
            let linked = connection.is_some_and(|connection| connection.gateway_open && !connection.cut);
            process.is_well() && process.link.is_registered() && linked
        })
    }

    /// A process ends, and one of its disks, or both, is as it was earlier when it comes back. In harsh runs
    /// all processes may lose power at that moment, and the gateway may be restarted.
    fn roll_back(&mut self, place: u16, down: Time) {
        let harsh = self.config.mode == Mode::Harsh;
        let (all_lose_power, restored) = (harsh && self.rng.percent(30), self.rng.percent(50));
        let roles: Vec<Role> = match self.rng.next() % 3 {
            0 => vec![Role::Primary],
            1 => vec![Role::Replica],
            _ => Role::ALL.to_vec(),
        };
        // A process that was away for long would not be heard by a gateway that has just started.
        let soon = 100 * MILLI;
        for other in 0..self.config.size {
            if other == place || all_lose_power {
                self.end_process(other, all_lose_power);
            }
            if other == place || all_lose_power {
                self.after(
                    20 * MILLI,
                    if all_lose_power { soon } else { down + 20 * MILLI },
                    Happening::RestartProcess(other),
                );
            }
        }
        self.faults.wiped = true;
        let mut gateway_is_needed = false;
        for role in roles {
            let process = self.process(place);
            let store = process.disks.get(role).clone().expect("a process that is down has both disks");
            let before = store.meta().expect("a store in memory can be read");
            let batches = self.rng.next() as usize % (store.synced() + 1);
            let back = store.roll_back(batches);
            let meta = back.meta().expect("a store in memory can be read");
            self.note(|| format!("the {role:?} of {place} goes back from {before:?} to {meta:?}"));
            let process = self.process(place);
            let marked = process.marks.get_mut(role);
            if restored {
                // The file went back together with the database.
                *marked = marked.map(|Marked { flushed, version }| Marked {
                    flushed: FlushPoint { lsn: flushed.lsn.min(meta.lsn), ..flushed },
                    version: version.min(meta.version),
                });
            }
            let tells = marked.is_some_and(|Marked { flushed, .. }| {
                flushed.incarnation == meta.incarnation && flushed.lsn > meta.lsn
            });
            *process.disks.get_mut(role) = Some(back);
            if !tells && meta.lsn < before.lsn {
                gateway_is_needed |= !self.other_tells(place, role, &meta);
                self.faults.rolled_back.push((place, role, meta.incarnation));
            }
        }
        if harsh && !gateway_is_needed && self.rng.percent(30) {
            self.kill_gateway();
            self.after(10 * MILLI, soon, Happening::RestartGateway);
        }
    }

    /// Whether the other copy has on its disk that this one had more.
    fn other_tells(&self, place: u16, role: Role, now: &Meta) -> bool {
        let other = match role {
            Role::Primary => replica_of(place, self.config.size),
            Role::Replica => replicated_at(place, self.config.size),
        };
        other.is_some_and(|other| {
            let disk = self.processes[usize::from(other)].store(role.other()).clone().crash(0);
            let meta = disk.meta().expect("a store in memory can be read");
            rollback::lost(now, meta.other, meta.position).is_some()
        })
    }

    /// Forgets those that have said what they lost, or were made anew.
    fn forget_found_rollbacks(&mut self) {
        let processes = &self.processes;
        self.faults.rolled_back.retain(|(place, role, incarnation)| {
            let meta =
                processes[usize::from(*place)].store(*role).meta().expect("a store in memory can be read");
            meta.incarnation == *incarnation && meta.rollback.is_none()
        });
    }

    fn wipe(&mut self, place: u16) {
        self.note(|| format!("{place} loses its disk"));
        if !self.faults.lost_disks.contains(&place) {
            self.faults.lost_disks.push(place);
        }
        let [incarnation, primary, replica] = [(); 3].map(|()| self.rng.uuid());
        let process = self.process(place);
        process.incarnation = incarnation;
        process.membership = None;
        process.grant = Grant::default();
        process.disks =
            PerRole { primary: Some(MemoryStore::new(primary)), replica: Some(MemoryStore::new(replica)) };
    }
}
