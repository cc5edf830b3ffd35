//! What a write comes to.

use protocol::message::link::{Role, Write};
use protocol::message::query::{ChangesQuery, TombstoneQuery};
use protocol::message::replication::LogEntry;
use protocol::{Change, Fingerprint, Operation, Outcome, Record, Version};

use super::{
    create, delete, document, full, group, id, if_any, lines, log, name, new_copy, only_if, outcomes,
    records, run, update, write,
};
use crate::copy::asking::{changes as changes_of, tombstones};
use crate::copy::audit::audit;
use crate::copy::decide::{Decision, decide};
use crate::copy::report;
use crate::store::Store;

/// What is known of the user, the write, what is decided.
type Row<'a> = (Option<&'a Record>, Write, Decision);

#[test]
fn a_write_is_decided_against_the_record() {
    let live = Record::from_change(Version(10), &full(10));
    let mut edited = live.clone();
    edited.apply(Version(20), &name("newer"));
    let mut dead = edited.clone();
    dead.apply(Version(30), &Operation::Delete.change());
    // Changes of a user whose creation has not come through yet.
    let partial = Record::from_change(Version(10), &name("of an unknown user"));
    let (live, edited, dead, partial) = (Some(&live), Some(&edited), Some(&dead), Some(&partial));

    let make = |version| create(version, 1);
    let edit = |version| update(version, 1, group(1));
    let touch = |version| update(version, 1, Change::default());
    let remove = |version| delete(version, 1);
    let (accept, repeated) = (Decision::Accept, Decision::Repeated);
    let exists = Decision::Answer(Outcome::Exists);
    let absent = Decision::Answer(Outcome::NotFound);
    let stale = Decision::Answer(Outcome::PreconditionFailed);
    let same = Decision::Answer(Outcome::Unchanged);
    let reused = Decision::Answer(Outcome::KeyReused);

    let under_key = |version, key, body| {
        let request = Some(Fingerprint { key, body });
        let operation = Operation::Create(Change { request, ..full(version) });
        Write { operation, ..create(version, 1) }
    };
    let mut keyed = Record::from_change(Version(10), &under_key(10, 1, 1).operation.change());
    keyed.apply(Version(20), &name("newer"));
    let mut keyed_dead = keyed.clone();
    keyed_dead.apply(Version(30), &Operation::Delete.change());
    let (keyed, keyed_dead) = (Some(&keyed), Some(&keyed_dead));

    let rows: Vec<Row<'_>> = vec![
        // Creates.
        (None, make(40), accept),
        (live, make(40), exists),
        (dead, make(40), accept),
        (partial, make(40), accept),
        (None, if_any(make(40)), stale),
        (dead, only_if(&[30], make(40)), stale),
        (live, only_if(&[10], make(40)), exists),
        (live, only_if(&[9], make(40)), stale),
        // Creates with an Idempotency-Key.
        (None, under_key(40, 1, 1), accept),
        (dead, under_key(40, 1, 1), accept),
        (live, under_key(40, 1, 1), exists),
        (keyed, under_key(40, 1, 1), Decision::ShowAsCreated(Version(10))),
        (keyed_dead, under_key(40, 1, 1), Decision::ShowAsCreated(Version(10))),
        (keyed, under_key(40, 1, 2), reused),
        (keyed_dead, under_key(40, 1, 2), reused),
        (keyed, under_key(40, 2, 1), exists),
        (keyed_dead, under_key(40, 2, 1), accept),
        (keyed, make(40), exists),
        (keyed_dead, make(40), accept),
        (keyed, under_key(10, 1, 1), repeated),
        // Updates.
        (live, edit(40), accept),
        (None, edit(40), absent),
        (dead, edit(40), absent),
        (partial, edit(40), absent),
        (edited, only_if(&[20], edit(40)), accept),
        (edited, only_if(&[3, 20], edit(40)), accept),
        (edited, only_if(&[10], edit(40)), stale),
        (edited, only_if(&[], edit(40)), stale),
        (edited, if_any(edit(40)), accept),
        (None, if_any(edit(40)), absent),
        (dead, only_if(&[30], edit(40)), absent),
        // Updates that set nothing.
        (live, touch(40), same),
        (None, touch(40), absent),
        (live, only_if(&[10], touch(40)), same),
        (live, only_if(&[9], touch(40)), stale),
        // Deletes.
        (live, remove(40), accept),
        (None, remove(40), absent),
        (dead, remove(40), absent),
        (edited, only_if(&[20], remove(40)), accept),
        (edited, only_if(&[21], remove(40)), stale),
        (edited, only_if(&[], remove(40)), stale),
        // What the record shows to have been applied before.
        (live, make(10), repeated),
        (edited, make(10), repeated),
        (edited, update(20, 1, name("newer")), repeated),
        (dead, only_if(&[20], remove(30)), repeated),
        // Older than the birth or the death of the user.
        (dead, make(25), exists),
        (live, make(5), exists),
        (live, edit(5), absent),
        (live, remove(5), absent),
        // Older than the newest change only.
        (edited, update(15, 1, name("old")), accept),
        (edited, remove(15), accept),
    ];
    for (record, write, expected) in rows {
        assert_eq!(decide(record, &write), expected, "{write:?} on {record:?}");
    }
}

#[test]
fn answers_carry_the_user_as_the_write_left_it() {
    let mut copy = new_copy(1);
    let answers = run(&mut copy, vec![create(10, 1), update(11, 1, group(-5)), create(12, 1), delete(13, 1)]);
    let first = document(1, "name 10", "10@example.org", 10);
    let second = document(1, "name 10", "10@example.org", -5);
    let expected = [
        format!("Applied 1 v10 {first}"),
        format!("Applied 2 v11 {second}"),
        format!("Exists 2 v11 {second}"),
        "Applied 3".to_owned(),
    ];
    assert_eq!(lines(&answers), expected);
    let answers = run(&mut copy, vec![delete(14, 1), create(15, 1), update(16, 1, Change::default())]);
    let third = document(1, "name 15", "15@example.org", 15);
    let expected =
        ["NotFound 3".to_owned(), format!("Applied 4 v15 {third}"), format!("Unchanged 4 v15 {third}")];
    assert_eq!(lines(&answers), expected);
    let answers = run(&mut copy, vec![only_if(&[11], update(17, 1, group(0))), update(18, 2, group(0))]);
    assert_eq!(lines(&answers), [format!("PreconditionFailed 4 v15 {third}"), "NotFound 4".to_owned()]);
}

#[test]
fn the_op_log_holds_what_was_accepted_and_nothing_else() {
    let mut copy = new_copy(1);
    let writes = vec![create(10, 1), create(11, 1), update(12, 1, group(3)), delete(13, 2), delete(14, 1)];
    run(&mut copy, writes);
    let changes = [(10, full(10)), (12, group(3)), (14, Operation::Delete.change())];
    let expected = (1..).zip(changes).map(|(sequence, (version, change))| LogEntry {
        sequence,
        version: Version(version),
        id: id(1),
        change,
    });
    assert_eq!(log(&copy, 0), expected.collect::<Vec<_>>());
    assert_eq!((report(copy.meta(), 0).head, report(copy.meta(), 0).version), (3, Version(14)));
}

#[test]
fn a_purge_forgets_a_tombstone_and_nothing_else() {
    let purge = |version, user, of| write(version, user, Operation::Purge(Version(of)));
    let mut copy = new_copy(1);
    run(&mut copy, vec![create(10, 1), delete(11, 1), create(12, 2), create(13, 3), delete(14, 3)]);
    let query = |upto| TombstoneQuery { query: 7, role: Role::Primary, after: None, upto: Version(upto) };
    let snapshot = copy.store().snapshot().expect("memory");
    let found = |upto| tombstones(&snapshot, &query(upto)).expect("memory").tombstones;
    assert_eq!(found(14), [(id(1), Version(11)), (id(3), Version(14))]);
    assert_eq!(found(13), [(id(1), Version(11))]);
    assert_eq!(found(10), []);
    drop(snapshot);

    let writes = vec![purge(20, 1, 11), purge(21, 2, 12), create(22, 3), purge(23, 3, 14), purge(24, 9, 5)];
    let answers = run(&mut copy, writes);
    let [applied, refused] = [Outcome::Applied, Outcome::PreconditionFailed];
    // The last one is of a user that only the other copy knows.
    assert_eq!(outcomes(&answers), [applied, refused, applied, refused, applied]);
    assert_eq!(copy.store().get(&id(1)), Ok(None));
    assert_eq!((copy.meta().users, copy.meta().records, copy.meta().version), (2, 2, Version(24)));
    assert_eq!(audit(&copy.store().snapshot().expect("memory")), []);
    assert_eq!(outcomes(&run(&mut copy, vec![purge(20, 1, 11)])), [applied], "from the memory");

    // Purged and made anew in one batch.
    run(&mut copy, vec![delete(30, 2), purge(31, 2, 30), create(32, 2)]);
    assert_eq!(copy.store().get(&id(2)), Ok(Some(Record::from_change(Version(32), &full(32)))));
    run(&mut copy, vec![delete(33, 2), purge(34, 2, 33)]);
    assert_eq!((copy.store().get(&id(2)), copy.meta().records), (Ok(None), 1));
    assert_eq!(audit(&copy.store().snapshot().expect("memory")), []);

    copy.recopy(true);
    run(&mut copy, vec![delete(40, 3)]);
    assert_eq!(outcomes(&run(&mut copy, vec![purge(41, 3, 40)])), [refused], "something older may come");
    copy.recopy(false);
    assert_eq!(outcomes(&run(&mut copy, vec![purge(42, 3, 40)])), [applied]);
    assert_eq!((copy.meta().records, records(&copy).len()), (0, 0));
    let changes = ChangesQuery { query: 1, role: Role::Primary, after: Version(30), upto: Version(99) };
    let listed = changes_of(&copy.store().snapshot().expect("memory"), &changes).expect("memory").changes;
    let versions: Vec<u64> = listed.iter().map(|change| change.version.0).collect();
    assert_eq!(versions, [32, 33, 40], "a purge is no change");
}
