//! Operations that come again.

use protocol::message::link::{Versioned, Write, WriteAnswer};
use protocol::{Change, Outcome, Version};

use super::{
    SMALL, batch, create, delete, document, fill, group, line, lines, log, name, new_copy, only_if, outcomes,
    run, update,
};
use crate::copy::Copy;
use crate::store::{Snapshot, Store};

#[test]
fn an_operation_that_comes_again_gets_its_first_answer() {
    let mut source = new_copy(1);
    let writes = vec![create(10, 1), update(11, 1, group(2)), update(12, 1, name("n")), delete(13, 1)];
    let first = run(&mut source, writes.clone());
    let head = log(&source, 0);
    assert_eq!(lines(&run(&mut source, writes.clone())), lines(&first));
    assert_eq!(log(&source, 0), head, "nothing was written twice");

    let twice = run(&mut source, vec![create(20, 2), create(20, 2)]);
    assert_eq!(line(&twice[0]), line(&twice[1]), "twice in one batch");

    // The other copy knows them from the op-log: the same users, though not the same sequences.
    let mut follower = new_copy(2);
    fill(&mut follower, &new_copy(1));
    follower.apply(batch(&source, 0)).expect("entries that join on");
    follower.commit().expect("memory");
    let users = |answers: &[WriteAnswer]| -> Vec<_> {
        answers.iter().map(|answer| line(&WriteAnswer { sequence: 0, ..answer.clone() })).collect()
    };
    // Its memory holds four, of five.
    assert_eq!(users(&run(&mut follower, writes[1..].to_vec())), users(&first[1..]));
    assert_eq!(follower.meta().head, 0, "nothing was decided twice");
}

#[test]
fn the_memory_is_read_back_from_the_op_log() {
    let mut copy = new_copy(1);
    let writes = vec![create(10, 1), update(11, 1, group(2)), update(12, 1, name("n")), delete(13, 1)];
    let first = run(&mut copy, writes.clone());
    let mut copy = Copy::open(copy.into_store().crash(0), SMALL).expect("memory");
    let again = run(&mut copy, writes);
    // What later updates overwrote is gone from the disk; what an operation itself set is not.
    let sequences =
        |answers: &[WriteAnswer]| answers.iter().map(|answer| answer.sequence).collect::<Vec<_>>();
    assert_eq!((outcomes(&again), sequences(&again)), (outcomes(&first), sequences(&first)));
    assert_eq!((line(&again[0]), line(&again[3])), (line(&first[0]), line(&first[3])));
    let version_and_group = format!("Applied 2 v11 {}", document(1, "n", "10@example.org", 2));
    assert_eq!(line(&again[1]), version_and_group);
    assert_eq!(copy.meta().head, 4);
}

/// What was accepted elsewhere: it came by replication, from the gateway's tail, or as a full copy.
#[test]
fn what_was_accepted_elsewhere_is_remembered_after_a_restart() {
    let mut source = new_copy(1);
    // The update is overwritten in all that it set, so no record tells of it; decided anew, it would be
    // refused.
    let only_once = only_if(&[10], update(11, 1, group(2)));
    let writes = vec![create(10, 1), only_once.clone(), update(12, 1, group(3))];
    let first = run(&mut source, writes.clone());
    assert_eq!(outcomes(&first), [Outcome::Applied; 3]);

    let mut followed = new_copy(2);
    fill(&mut followed, &new_copy(1));
    followed.apply(batch(&source, 0)).expect("entries that join on");
    let mut handed = new_copy(3);
    let tail = writes.iter().map(|write| Versioned {
        version: write.version,
        id: write.id,
        change: write.operation.change(),
    });
    handed.merge(tail.collect(), None).expect("memory");
    let mut filled = new_copy(4);
    fill(&mut filled, &source);
    for mut copy in [followed, handed, filled] {
        copy.commit().expect("memory");
        let mut copy = Copy::open(copy.into_store().crash(usize::MAX), SMALL).expect("memory");
        let again = run(&mut copy, writes.clone());
        assert_eq!(outcomes(&again), [Outcome::Applied; 3]);
        // What it left is not known any more; the user is shown as it is.
        let document = document(1, "name 10", "10@example.org", 3);
        assert_eq!(line(&again[1]), format!("Applied 0 v12 {document}"));
        assert_eq!(copy.meta().head, 0, "nothing was decided twice");

        // And so does a copy that is filled from it.
        let mut next = new_copy(5);
        fill(&mut next, &copy);
        assert_eq!(outcomes(&run(&mut next, vec![only_once.clone()])), [Outcome::Applied]);
    }
}

#[test]
fn the_memory_on_disk_is_bounded() {
    let mut source = new_copy(1);
    let mut copy = new_copy(2);
    fill(&mut copy, &new_copy(1));
    for version in 1..40 {
        run(&mut source, vec![create(version, u128::from(version))]);
        copy.apply(batch(&source, version - 1)).expect("entries that join on");
        copy.commit().expect("memory");
        let snapshot = copy.store().snapshot().expect("memory");
        let kept: Vec<Version> = snapshot.applied().flat_map(|page| page.expect("memory").1).collect();
        assert!(kept.len() <= SMALL.recent + 1, "{kept:?}");
        let newest = version.saturating_sub(SMALL.recent as u64) + 1..=version;
        assert!(newest.map(Version).all(|version| kept.contains(&version)), "{kept:?}");
    }
    // Numbers go on where they were.
    let mut copy = Copy::open(copy.into_store().crash(usize::MAX), SMALL).expect("memory");
    run(&mut source, vec![create(50, 50)]);
    copy.apply(batch(&source, 39)).expect("entries that join on");
    copy.commit().expect("memory");
    let snapshot = copy.store().snapshot().expect("memory");
    let pages: Vec<u64> = snapshot.applied().map(|page| page.expect("memory").0).collect();
    assert_eq!(pages.last(), Some(&40), "{pages:?}");
}

#[test]
fn a_write_that_omits_its_user_is_answered_without_it_whenever_it_comes() {
    let omitting = |write| Write { omit_user: true, ..write };
    let mut copy = new_copy(1);
    let writes = vec![omitting(create(10, 1)), omitting(update(11, 1, group(2)))];
    assert_eq!(lines(&run(&mut copy, writes.clone())), ["Applied 1", "Applied 2"]);
    assert_eq!(lines(&run(&mut copy, writes.clone())), ["Applied 1", "Applied 2"], "from the memory");
    run(&mut copy, (20..30).map(|version| create(version, u128::from(version))).collect());
    assert_eq!(lines(&run(&mut copy, writes)), ["Applied 12", "Applied 12"], "by the record");
    // The gateway knows the version of what was applied, and of nothing else.
    let user = document(1, "name 10", "10@example.org", 2);
    let touch = omitting(update(40, 1, Change::default()));
    assert_eq!(lines(&run(&mut copy, vec![touch])), [format!("Unchanged 12 v11 {user}")]);
}

/// A memory that is too small for all in flight is not the end: the record still tells of its last writes.
#[test]
fn a_forgotten_operation_is_recognised_by_its_record() {
    let mut copy = new_copy(1);
    run(&mut copy, vec![create(10, 1), update(11, 1, group(2))]);
    run(&mut copy, (20..30).map(|version| create(version, u128::from(version))).collect());
    let answers = run(&mut copy, vec![create(10, 1), update(11, 1, group(2))]);
    let expected = [
        format!("Applied 12 v10 {}", document(1, "name 10", "10@example.org", 10)),
        format!("Applied 12 v11 {}", document(1, "name 10", "10@example.org", 2)),
    ];
    assert_eq!(lines(&answers), expected);
    assert_eq!(copy.meta().head, 12);
}
