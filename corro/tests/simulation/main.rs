//! A seeded simulation of a whole ring: the gateway's engine and the db-processes' copies, workers, links and
//! replication as they are in production, over a network, disks and a clock that are made up.
//!
//! One seed decides everything: the ring, its load, what goes wrong and when, and the order of whatever
//! happens at once. So a run repeats exactly. `CORRO_SEED=<n>` runs that seed alone and prints what happened
//! last where it fails, with `CORRO_TRACE` all that happened; `CORRO_SEEDS=<count>` and `CORRO_FIRST_SEED`
//! choose how many seeds are run.
//!
//! * [`world`]: the queue of events and the network.
//! * [`gateway`], [`process`], [`worker`], [`link`], [`replication`]: drive the state machines of production,
//!   and carry their commands out without sockets, threads and files.
//! * [`client`], [`lister`]: the callers.
//! * [`config`] and [`faults`]: what a seed stands for, and what goes wrong.
//! * [`check`], [`history`] and [`feed`]: what must be true.
//! * `mutations`: deliberate bugs, each of which is found; built with the feature of that name.
//!
//! What it does not do: it knows no bytes on the wire and no RocksDB; other tests kill real processes.

mod check;
mod client;
mod config;
mod faults;
mod feed;
mod gateway;
mod gateways;
mod history;
mod link;
mod lister;
#[cfg(feature = "mutations")]
mod mutations;
mod process;
mod replication;
mod worker;
mod world;

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use config::{Config, Mode};
use world::World;

/// More than any run needs.
const MOST_STEPS: u64 = 3_000_000;

/// What came of a run that broke no promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Done {
    hash: u64,
    steps: u64,
    asked: u64,
    refused: u64,
    whole: bool,
    /// Microseconds.
    slowest_read: u64,
}

fn run(world: &mut World) -> Done {
    while !world.faults.finished {
        world.advance();
        assert!(world.steps < MOST_STEPS, "it never ends");
    }
    world.check_histories();
    if world.faults.whole {
        world.erase_all();
        world.check_copies();
        world.check_op_logs();
        world.checks.feed.check_end();
        world.check_counts();
    }
    let (asked, refused) = (world.checks.asked, world.checks.refused);
    let (whole, slowest_read) = (world.faults.whole, world.checks.slowest_read);
    Done { hash: world.hash, steps: world.steps, asked, refused, whole, slowest_read }
}

/// Makes a run; an error says which promise was broken.
fn try_run(config: Config) -> Result<Done, String> {
    catch_unwind(|| run(&mut World::new(config, false))).map_err(text_of)
}

fn text_of(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Runs it again, with all that a person needs in order to understand it.
fn explain(seed: u64) -> ! {
    let config = Config::new(seed);
    let mut world = World::new(config.clone(), true);
    let ended = catch_unwind(AssertUnwindSafe(|| run(&mut world))).map_err(text_of);
    println!("{}\n{config:#?}", world.trace_text());
    println!("CORRO_SEED={seed} cargo test --release -p corro --test simulation");
    match ended {
        Ok(done) => panic!("seed {seed} failed before, and does not now: {done:?}"),
        Err(why) => panic!("seed {seed} fails: {why}"),
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// Makes the runs of seeds on all cores. Returns the first seed that failed of those that were run.
fn search(
    seeds: Range<u64>,
    config: impl Fn(u64) -> Config + Sync,
    prepare: impl Fn() + Sync,
    passed: impl Fn(&Done) + Sync,
) -> Option<(u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let failed = std::sync::Mutex::new(None::<(u64, String)>);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                prepare();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match try_run(config(seed)) {
                        Ok(done) => passed(&done),
                        Err(why) => {
                            next.store(seeds.end, Ordering::Relaxed);
                            let mut failed = failed.lock().expect("no thread panics here");
                            if failed.as_ref().is_none_or(|(other, _)| seed < *other) {
                                *failed = Some((seed, why));
                            }
                        }
                    }
                }
            });
        }
    });
    failed.into_inner().expect("no thread panics here")
}

#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = setting("CORRO_SEED") {
        match try_run(Config::new(seed)) {
            Ok(done) => return println!("seed {seed}: {done:?}"),
            Err(_) => explain(seed),
        }
    }
    let first = setting("CORRO_FIRST_SEED").unwrap_or(1);
    let count = setting("CORRO_SEEDS").unwrap_or(1_000);
    let totals = [const { AtomicU64::new(0) }; 4];
    let slowest = AtomicU64::new(0);
    let failed = search(
        first..first + count,
        Config::new,
        || (),
        |done| {
            let values = [done.steps, done.asked, done.refused, u64::from(!done.whole)];
            for (total, value) in totals.iter().zip(values) {
                total.fetch_add(value, Ordering::Relaxed);
            }
            slowest.fetch_max(done.slowest_read, Ordering::Relaxed);
        },
    );
    let [steps, asked, refused, down] = totals.map(AtomicU64::into_inner);
    println!(
        "{count} seeds from {first}: {steps} events, {asked} questions, {refused} refused, \
         {down} ended without a whole ring"
    );
    println!("slowest read where one process fails at a time: {} ms", slowest.into_inner() / 1_000);
    if let Some((seed, _)) = failed {
        explain(seed);
    }
}

/// What a move costs a write: what is in flight is answered and followed, the other copy syncs, and the write
/// is on its way. A round of a copy takes 3 ms here, and keeping a view 5.
#[test]
fn no_write_waits_long_for_a_process_that_leaves_and_comes_back() {
    let slowest = (1..=200).map(|seed| {
        let (mode, kinds) = (Mode::Single, vec![config::Fault::Leave]);
        let even = Config { delay: 500, late: 0, round: 3_000, think: 3_000, ..Config::new(seed) };
        let mut world = World::new(Config { mode, kinds, faults: 5, ..even }, false);
        run(&mut world);
        world.checks.slowest_write
    });
    let slowest = slowest.max().unwrap_or_default();
    println!("slowest write while processes leave and come back: {slowest} µs");
    assert!(slowest <= 25_000, "a write took {slowest} µs");
}

/// A write waits until the leader is given up, and not until its disk goes on, which takes up to 6 seconds
/// here.
#[test]
fn no_write_waits_for_a_disk_that_hangs() {
    let slowest = (1..=200).map(|seed| {
        let (mode, kinds) = (Mode::Single, vec![config::Fault::HungDisk]);
        let mut world = World::new(Config { mode, kinds, faults: 1, ..Config::new(seed) }, false);
        run(&mut world);
        world.checks.slowest_write
    });
    let slowest = slowest.max().unwrap_or_default();
    println!("slowest write while disks hang: {slowest} µs");
    assert!(slowest <= 2_200_000, "a write took {slowest} µs");
}

/// A request that comes when a disk or a link has been slow for a while does not wait for it, however long it
/// stays so.
#[test]
fn no_request_waits_for_a_disk_or_a_link_that_stays_slow() {
    for kind in [config::Fault::SlowDisk, config::Fault::SlowLink] {
        let slowest = (1..=100).map(|seed| {
            let (mode, kinds) = (Mode::Single, vec![kind]);
            let load = Config { clients: 6, think: 150_000, operations: 1_000, ..Config::new(seed) };
            let config = Config { mode, kinds, faults: 1, slow: (20_000, 30_000), ..load };
            let mut world = World::new(config, false);
            run(&mut world);
            world.checks.slowest_later
        });
        let slowest = slowest.max().unwrap_or_default();
        println!("slowest request after ten seconds of a {kind:?}: {slowest} µs");
        assert!(slowest > 0, "there was no request then");
    }
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in 1..30 {
        assert_eq!(try_run(Config::new(seed)), try_run(Config::new(seed)), "seed {seed}");
    }
}

#[test]
fn all_kinds_of_runs_are_among_the_seeds() {
    for mode in [Mode::Calm, Mode::Single, Mode::Chaos, Mode::Harsh] {
        assert!((1..100).any(|seed| Config::new(seed).mode == mode), "{mode:?}");
    }
}
