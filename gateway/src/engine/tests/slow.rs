//! A leader whose disk or link is slow loses the leadership; a ring that is slow as a whole moves nothing.

use super::*;

/// How long a process takes, in milliseconds.
#[derive(Clone, Copy)]
struct Time {
    /// To write something.
    disk: u64,
    /// To get a message and to answer it.
    link: u64,
}

const FAST: Time = Time { disk: 10, link: 0 };

/// A ring in which each partition is written all the time, and the processes take their time.
struct Busy {
    script: Script,
    /// What the processes were sent: when each of them has done it, the place, and the message.
    work: Vec<(Duration, u16, ToProcess)>,
    /// The write to each partition that has no answer, and when it was asked for.
    open: Vec<(RequestId, Duration)>,
    /// How many were answered.
    written: u64,
    /// The longest that a write took since this was last asked.
    slowest: Duration,
    /// When there was a new view.
    views: Vec<Duration>,
    /// What the log says.
    said: Vec<String>,
}

impl Busy {
    fn new() -> Self {
        let mut script = Script::formed(3);
        script.syncs = false;
        let open = (0..3).map(|partition| (script.create(user_of(partition, 3, 0)), script.now)).collect();
        Self {
            script,
            work: Vec::new(),
            open,
            written: 0,
            slowest: Duration::ZERO,
            views: Vec::new(),
            said: Vec::new(),
        }
    }

    /// So many milliseconds pass, in which each process takes the time that is said.
    fn pass(&mut self, millis: u64, time: impl Fn(u16) -> Time) {
        for _ in 0..millis / 10 {
            self.script.now += Duration::from_millis(10);
            self.admit_write(&time);
            self.do_what_is_due();
            self.script.step(Event::Tick);
            self.write_on();
            for event in self.script.reports.drain(..) {
                if let RingEvent::ViewChanged { .. } = event {
                    self.views.push(self.script.now);
                }
                self.said.push(crate::status::words(&event));
            }
        }
    }

    fn admit_write(&mut self, time: impl Fn(u16) -> Time) {
        let is_work = |message: &ToProcess| {
            matches!(message, ToProcess::WriteBatch(_) | ToProcess::MergeBatch(_) | ToProcess::Beat(_))
        };
        for place in 0..3 {
            for message in self.script.take(place, is_work) {
                let Time { disk, link } = time(place);
                let role = role_of(&message);
                // A copy does one thing after the other.
                let queued = self.work.iter().filter(|(_, to, other)| *to == place && role_of(other) == role);
                let free = queued.map(|(done, ..)| *done).max().filter(|_| role.is_some());
                let free = free.unwrap_or_default().max(self.script.now);
                let millis = link + if role.is_some() { disk } else { 0 };
                self.work.push((free + Duration::from_millis(millis), place, message));
            }
        }
    }

    fn do_what_is_due(&mut self) {
        let now = self.script.now;
        let (due, later) = std::mem::take(&mut self.work).into_iter().partition(|(done, ..)| *done <= now);
        self.work = later;
        let mut due: Vec<(Duration, u16, ToProcess)> = due;
        due.sort_by_key(|(done, ..)| *done);
        for (_, place, message) in due {
            if !self.is_there(place) {
                continue;
            }
            match message {
                ToProcess::Beat(_) => self.script.message(place, ToGateway::Alive(Alive { beat: 0 })),
                ToProcess::MergeBatch(MergeBatch { batch, role, .. }) => {
                    self.script.message(place, ToGateway::Merged(Merged { batch, role, lsn: 0 }));
                }
                ToProcess::WriteBatch(batch) => {
                    let role = batch.role;
                    self.script.inbox.push((place, ToProcess::WriteBatch(batch)));
                    self.script.apply_writes(place, role);
                    let head = self.script.processes[usize::from(place)].copies.get(role).head;
                    match role {
                        Role::Primary if self.is_there((place + 1) % 3) => self.script.follow(place, head),
                        Role::Replica if self.is_there((place + 2) % 3) => {
                            self.script.follow_back((place + 2) % 3, head);
                        }
                        _ => {}
                    }
                }
                _ => unreachable!("nothing else was taken"),
            }
        }
    }

    fn write_on(&mut self) {
        for partition in 0..self.open.len() {
            let (request, asked) = self.open[partition];
            let Some(result) = self.script.write_result(request) else { continue };
            assert!(result.is_ok(), "a write failed: {result:?}");
            self.slowest = self.slowest.max(self.script.now - asked);
            self.script.writes.retain(|(answered, _)| *answered != request);
            self.written += 1;
            let id = user_of(partition as u16, 3, 0);
            self.open[partition] = (self.script.create(id), self.script.now);
        }
    }

    fn is_there(&self, place: u16) -> bool {
        self.script.processes[usize::from(place)].session.is_some()
    }

    fn leads(&self) -> [Role; 3] {
        let status = self.script.engine.status();
        [0, 1, 2].map(|partition| status.partitions[partition].role)
    }

    /// Why the copies of partition 1 are slow.
    fn slow(&self) -> Vec<Option<String>> {
        self.script.engine.status().partitions[1].copies.iter().map(|copy| copy.slow.clone()).collect()
    }

    fn views_between(&self, from: u64, to: u64) -> usize {
        let began = self.script.now - Duration::from_secs(to);
        let until = self.script.now - Duration::from_secs(from);
        self.views.iter().filter(|at| (began..until).contains(*at)).count()
    }
}

fn role_of(message: &ToProcess) -> Option<Role> {
    match message {
        ToProcess::WriteBatch(batch) => Some(batch.role),
        ToProcess::MergeBatch(batch) => Some(batch.role),
        _ => None,
    }
}

/// All are fast, but for one.
fn but(slow: u16, time: Time) -> impl Fn(u16) -> Time {
    move |place| if place == slow { time } else { FAST }
}

const HOME: [Role; 3] = [Role::Primary; 3];
const AWAY: [Role; 3] = [Role::Primary, Role::Replica, Role::Primary];

#[test]
fn a_leader_whose_disk_is_slow_loses_the_lead_until_that_has_been_fast_for_a_while() {
    let mut busy = Busy::new();
    busy.pass(1_000, but(1, FAST));
    assert_eq!((busy.leads(), busy.views.len()), (HOME, 0));
    busy.slowest = Duration::ZERO;
    busy.pass(2_500, but(1, Time { disk: 1_900, link: 0 }));
    assert_eq!((busy.leads(), busy.slow()), (HOME, vec![None, None]), "it may be over in a moment");
    busy.pass(2_500, but(1, Time { disk: 1_900, link: 0 }));
    assert_eq!(busy.leads(), AWAY);
    assert!(busy.slowest < Duration::from_millis(2_000), "a write waited for the move: {:?}", busy.slowest);
    assert_eq!(busy.slow(), [Some("its disk is slow".to_owned()), None]);
    let waiting_for = busy.script.engine.status().partitions[1].waiting_for.clone();
    assert_eq!(waiting_for, Some("db-1 has to be fast for a while: its disk is slow".to_owned()));
    busy.slowest = Duration::ZERO;
    busy.pass(60_000, but(1, Time { disk: 1_900, link: 0 }));
    assert_eq!((busy.leads(), busy.views.len()), (AWAY, 2), "one move, and not back");
    assert!(busy.slowest < Duration::from_millis(100), "a write took {:?}", busy.slowest);

    busy.pass(9_000, but(1, FAST));
    assert_eq!(busy.leads(), AWAY);
    busy.pass(4_000, but(1, FAST));
    assert_eq!((busy.leads(), busy.slow()), (HOME, vec![None, None]));
}

/// Whatever is slow is compared with a copy that answers at once, which makes up for what it was slow before.
#[test]
fn a_slow_leader_loses_the_lead_to_a_copy_that_was_slow_for_a_moment_before() {
    let mut busy = Busy::new();
    busy.pass(1_000, |_| FAST);
    // The other copy of partition 1, and the leader of partition 2.
    busy.pass(2_500, but(2, Time { disk: 900, link: 0 }));
    assert_eq!((busy.leads(), busy.slow()), (HOME, vec![None, None]));
    busy.pass(10_000, but(1, Time { disk: 1_900, link: 0 }));
    assert_eq!(busy.leads(), AWAY);
}

#[test]
fn the_view_and_the_log_say_why_a_lead_moved() {
    let mut busy = Busy::new();
    busy.pass(5_000, but(1, Time { disk: 1_900, link: 0 }));
    let said = |what: &str| busy.said.iter().any(|said| said.contains(what));
    for what in [
        "partition 1: db-1 leads, and db-2 answers reads; db-1 is slow: its disk is slow",
        "db-2 for partition 1, since the disk of the leader is slow",
        "partition 1: db-2 leads, and db-1 answers reads; db-1 is slow: its disk is slow",
    ] {
        assert!(said(what), "{what} is not among {:#?}", busy.said);
    }
}

#[test]
fn a_leader_whose_link_is_slow_loses_the_lead_and_is_not_asked_for_what_the_other_copy_may_answer() {
    let mut busy = Busy::new();
    let slow = Time { disk: 10, link: 400 };
    busy.pass(6_000, but(1, slow));
    assert_eq!(busy.leads(), AWAY);
    assert_eq!(busy.slow(), [Some("its link is slow".to_owned()), None]);
    busy.slowest = Duration::ZERO;
    busy.pass(3_000, but(1, slow));
    assert!(busy.slowest < Duration::from_millis(100), "a write took {:?}", busy.slowest);
    busy.script.read(user_of(0, 3, 1));
    busy.script.read(user_of(1, 3, 1));
    assert_eq!(busy.script.asked(), [(0, Role::Primary), (2, Role::Replica)], "db-1 has both as well");
}

#[test]
fn a_ring_that_is_slow_as_a_whole_moves_nothing() {
    let mut busy = Busy::new();
    busy.pass(30_000, |_| Time { disk: 1_900, link: 0 });
    busy.pass(30_000, |_| Time { disk: 10, link: 400 });
    busy.pass(30_000, |place| Time { disk: 200 + 150 * u64::from(place), link: 20 });
    // Nor is anything moved that is slower than the others, and fast enough.
    busy.pass(30_000, but(1, Time { disk: 140, link: 0 }));
    assert_eq!((busy.leads(), busy.views.len()), (HOME, 0));
    assert!(busy.written > 3_000, "{} writes", busy.written);
}

#[test]
fn a_leader_that_is_slow_now_and_then_keeps_the_lead() {
    let mut busy = Busy::new();
    for _ in 0..30 {
        busy.pass(1_000, but(1, Time { disk: 900, link: 0 }));
        busy.pass(3_000, but(1, FAST));
    }
    assert_eq!((busy.leads(), busy.views.len()), (HOME, 0));
}

#[test]
fn a_gateway_that_stands_still_says_nothing_about_the_processes() {
    let mut busy = Busy::new();
    for turn in 0..40 {
        // There is reason to compare them, and one of them has answered already.
        busy.pass(400, |place| Time { disk: if place == 1 { 250 } else { 120 }, link: 0 });
        busy.script.now += Duration::from_secs(4);
        busy.do_what_is_due();
        busy.pass(10 + turn, |_| FAST);
    }
    busy.pass(1_000, |_| FAST);
    assert_eq!((busy.leads(), busy.slow(), busy.views.len()), (HOME, vec![None, None], 0));
}

/// Whenever it leads it is slow, and whenever it does not it is fast.
#[test]
fn a_disk_that_comes_and_goes_moves_the_lead_less_and_less_often() {
    let mut busy = Busy::new();
    let (minutes, moves) = (10, 2);
    for _ in 0..minutes * 600 {
        let leads = busy.leads()[1] == Role::Primary;
        busy.pass(100, but(1, if leads { Time { disk: 1_000, link: 0 } } else { FAST }));
    }
    // Two views a move: one announces it, one says that it is done.
    let first = busy.views_between(60 * (minutes - 1), 60 * minutes);
    assert!(first <= 2 * 5, "{first} views in the first minute");
    for minute in 2..minutes - 1 {
        let later = busy.views_between(60 * minute, 60 * (minute + 1))
            + busy.views_between(60 * (minute - 1), 60 * minute);
        assert!(later <= 2 * 2 * (moves + 1), "{later} views in two minutes");
    }
}

#[test]
fn a_slow_leader_leads_on_where_no_other_would_be_better() {
    // The other copy is away, and back, and slow as well.
    let mut busy = Busy::new();
    busy.open.truncate(2);
    busy.script.kill(2);
    let slow = Time { disk: 1_900, link: 0 };
    busy.pass(10_000, but(1, slow));
    assert_eq!((busy.leads()[1], busy.slow()), (Role::Primary, vec![None, None]));
    busy.script.connect(2);
    busy.script.follow(1, busy.script.processes[1].copies.primary.head);
    busy.pass(10_000, |place| if place == 0 { FAST } else { slow });
    assert_eq!(busy.leads()[1], Role::Primary);
    // It is fast.
    busy.pass(10_000, but(1, slow));
    assert_eq!(busy.leads()[1], Role::Replica);
    // A slow leader is better than none, and no longer than that.
    busy.script.kill(2);
    busy.pass(1_000, but(1, Time { disk: 400, link: 0 }));
    assert_eq!(busy.leads()[1], Role::Primary);
}

#[test]
fn a_primary_that_hangs_while_it_fails_back_delays_writes_only_once() {
    let mut busy = Busy::new();
    busy.pass(100, |_| FAST);
    busy.script.kill(1);
    busy.pass(1_000, |_| FAST);
    let hangs = Time { disk: 2_500, link: 0 };
    busy.script.connect(1);
    busy.script.follow_back(1, busy.script.processes[2].copies.replica.head);
    busy.pass(3_000, but(1, hangs));
    assert_eq!(busy.leads()[1], Role::Replica, "it was given up");
    assert!(busy.slowest > Duration::from_secs(2), "writes were buffered for it");
    busy.script.connect(1);
    (busy.slowest, busy.views) = (Duration::ZERO, Vec::new());
    busy.pass(9_000, but(1, hangs));
    assert_eq!((busy.leads(), busy.slow()), (AWAY, vec![Some("its disk is slow".to_owned()), None]));
    assert!(busy.slowest < Duration::from_millis(100), "a write took {:?}", busy.slowest);
    assert_eq!(busy.views.len(), 0);
    busy.pass(15_000, |_| FAST);
    assert_eq!(busy.leads(), HOME);
}
