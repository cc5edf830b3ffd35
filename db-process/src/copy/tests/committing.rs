//! What is written when, and what stays after a crash.

use protocol::message::link::Versioned;
use protocol::{Outcome, Version};

use super::{
    SMALL, batch, create, fill, full, group, id, log, name, new_copy, outcomes, position, records, run,
    update,
};
use crate::copy::Copy;
use crate::store::{MemoryStore, Store};

/// All that is staged is one batch: a crash leaves all of it or nothing, and what was answered stays.
#[test]
fn what_was_promised_survives_a_crash_and_the_rest_comes_again() {
    let mut source = new_copy(1);
    run(&mut source, vec![create(10, 1), create(11, 2)]);
    let mut copy = new_copy(2);
    fill(&mut copy, &new_copy(1));
    copy.apply(batch(&source, 0)).expect("entries that join on");
    copy.commit().expect("memory");
    assert_eq!((copy.unsynced(), copy.durable(), records(&copy).len()), (true, 0, 2));

    let crashed = Copy::open(copy.store().clone().crash(0), SMALL).expect("memory");
    assert_eq!((records(&crashed), crashed.meta().position), (vec![], Some(position(1, 0))));

    let answers = run(&mut copy, vec![create(12, 1)]);
    assert_eq!(outcomes(&answers), [Outcome::Exists]);
    assert_eq!((copy.unsynced(), copy.durable()), (false, 2), "a refusal rests on what was replicated");
    let crashed = Copy::open(copy.into_store().crash(0), SMALL).expect("memory");
    assert_eq!((records(&crashed), crashed.durable()), (records(&source), 2));

    let mut copy = crashed;
    copy.write(vec![create(13, 3)]).expect("memory");
    assert_eq!(
        copy.into_store().crash(usize::MAX).meta().expect("memory").head,
        0,
        "staged is not committed"
    );
}

#[test]
fn merged_changes_are_on_disk_and_not_in_the_op_log() {
    let mut copy = new_copy(1);
    run(&mut copy, vec![create(10, 1)]);
    let change = |version, user, change| Versioned { version: Version(version), id: id(user), change };
    let changes = vec![change(5, 1, name("older")), change(11, 1, group(7)), change(12, 2, full(12))];
    copy.merge(changes.clone(), None).expect("memory");
    copy.commit().expect("memory");
    assert!(!copy.unsynced());
    let after = records(&copy);
    copy.merge(changes, None).expect("memory");
    copy.commit().expect("memory");
    assert_eq!(records(&copy), after, "a merge twice is a merge");
    assert_eq!((after[0].1.name.1.as_str(), after[0].1.group.1, after.len()), ("name 10", 7, 2));
    assert_eq!((copy.meta().head, copy.meta().version), (1, Version(12)));
    let answers = run(&mut copy, vec![update(11, 1, group(7)), create(12, 2), update(13, 1, group(8))]);
    assert_eq!(outcomes(&answers), [Outcome::Applied; 3]);
    assert_eq!(copy.meta().head, 2, "only what was not merged before is decided");
}

#[test]
fn the_op_log_is_trimmed_to_what_is_confirmed_and_bounded_anyway() {
    let mut copy = new_copy(1);
    let mut version = 0;
    let mut more = |copy: &mut Copy<MemoryStore>, count: u64| {
        let writes = (0..count).map(|_| {
            version += 1;
            create(version, u128::from(version))
        });
        run(copy, writes.collect());
        copy.meta().trimmed
    };
    assert_eq!(more(&mut copy, 8), 0, "nothing is confirmed");
    copy.confirm(1, None);
    copy.commit().expect("memory");
    assert_eq!(copy.meta().trimmed, 0, "not in steps that small");
    copy.confirm(8, None);
    copy.commit().expect("memory");
    assert_eq!(copy.meta().trimmed, 4, "the last four are the memory");
    copy.confirm(99, None);
    assert_eq!(more(&mut copy, 1), 4, "what is beyond the head cannot be confirmed");
    assert_eq!(more(&mut copy, 7), 8, "all that is confirmed goes when the memory is beyond it");
    assert_eq!(more(&mut copy, 4), 8, "the rest is not confirmed");
    assert_eq!(log(&copy, 8).len(), 12, "as many as the bound allows");
    assert_eq!(more(&mut copy, 1), 10, "past the bound the oldest go, a step at once");
    assert_eq!(more(&mut copy, 40), 49, "or as many as it takes");
    assert_eq!(log(&copy, 49).len(), 12);
}

#[test]
fn a_ring_that_is_formed_makes_its_copies_complete() {
    let mut copy = new_copy(1);
    copy.count_as_complete();
    copy.commit().expect("memory");
    let copy = Copy::open(copy.into_store().crash(0), SMALL).expect("memory");
    assert!(copy.meta().complete);
    assert_eq!(copy.meta().origin, None);
}
