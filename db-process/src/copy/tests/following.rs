//! Following the other copy, and being followed.

use std::ops::{ControlFlow, Range};

use protocol::message::link::{Position, Role};
use protocol::message::replication::{CopyChunk, Follow, LogBatch, LogEntry};
use protocol::message::{MAX_FRAME_BYTES, REVISION};
use protocol::{Operation, Version};

use super::{
    SMALL, batch, create, delete, fill, full, group, id, new_copy, position, records, run, update, write,
};
use crate::copy::follow::{FAR_BATCH, full_copy, log_to_head, start_for};
use crate::copy::{Copy, FollowError, FollowStart, Gap, Limits};
use crate::store::{MemoryStore, Meta, Origin, Store};

fn follow(incarnation: u128, position: Option<Position>) -> Follow {
    Follow {
        revision: REVISION,
        ring: id(0),
        instance: "db-1".parse().expect("a name"),
        role: Role::Primary,
        incarnation: id(incarnation),
        position,
        flushed: 0,
        other: None,
    }
}

#[test]
fn replicated_entries_are_applied_once_and_in_order() {
    let mut source = new_copy(1);
    run(&mut source, vec![create(10, 1), update(11, 1, group(2)), create(12, 2), delete(13, 2)]);
    let mut copy = new_copy(2);
    let all = batch(&source, 0);
    let gap = |sequence, position| Err(FollowError::Gap(Gap { incarnation: id(1), sequence, position }));
    assert_eq!(copy.apply(all.clone()), gap(1, None), "a copy without a position has to be copied in full");
    fill(&mut copy, &new_copy(1));
    let part = |range: Range<usize>| LogBatch { entries: all.entries[range].to_vec(), ..all.clone() };
    assert_eq!(copy.apply(part(0..2)), Ok(()));
    assert_eq!(copy.apply(part(0..2)), Ok(()), "entries that come twice are skipped");
    assert_eq!(copy.apply(part(3..4)), gap(4, Some(position(1, 2))));
    assert_eq!(copy.apply(part(1..4)), Ok(()));
    let another = LogBatch {
        incarnation: id(9),
        lsn: 1,
        entries: vec![LogEntry { sequence: 5, ..all.entries[0].clone() }],
    };
    assert!(matches!(copy.apply(another), Err(FollowError::Gap(_))), "another op-log");
    copy.commit().expect("memory");
    assert_eq!((records(&copy), copy.meta().position), (records(&source), Some(position(1, 4))));
    assert_eq!((copy.meta().head, copy.meta().version), (0, Version(13)), "its own op-log has none of it");
}

#[test]
fn an_op_log_is_cut_into_full_frames_up_to_its_head() {
    let limits = Limits { log: 2_000, ..SMALL };
    let mut copy = Copy::open(MemoryStore::new(id(1)), limits).expect("an empty store");
    let count = 2 * FAR_BATCH as u64 + 10;
    run(&mut copy, (1..=count).map(|version| create(version, u128::from(version))).collect());
    copy.confirm(4, None);
    copy.commit().expect("memory");
    let frames = |after, take: usize| {
        let mut frames = Vec::new();
        let snapshot = copy.store().snapshot().expect("memory");
        let read = log_to_head(&snapshot, after, |entries| {
            frames.push(entries.into_iter().map(|entry| entry.sequence).collect::<Vec<_>>());
            if frames.len() < take { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        read.expect("memory");
        frames
    };
    let all = frames(4, usize::MAX);
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [FAR_BATCH; 2], "six more do not fill a frame");
    assert!(all.concat().into_iter().eq(5..=count - 6), "without gaps");
    assert_eq!(frames(4, 1), all[..1], "the receiver is gone");
    assert_eq!(frames(count, usize::MAX), [[0; 0]; 0], "at the head there is nothing");
    assert_eq!(frames(3, usize::MAX), [[0; 0]; 0], "it does not reach back that far");
}

#[test]
fn a_follower_starts_where_it_is_if_the_op_log_reaches_back() {
    let mut copy = new_copy(1);
    run(&mut copy, (1..=9).map(|version| create(version, u128::from(version))).collect());
    copy.confirm(4, None);
    copy.commit().expect("memory");
    assert_eq!(copy.meta().trimmed, 4);
    let start = |position| start_for(copy.meta(), &follow(2, position));
    assert_eq!(start(None), FollowStart::FullCopy);
    assert_eq!(start(Some(position(1, 3))), FollowStart::FullCopy);
    assert_eq!(start(Some(position(1, 4))), FollowStart::Log { after: 4 });
    assert_eq!(start(Some(position(1, 9))), FollowStart::Log { after: 9 });
    assert_eq!(start(Some(position(1, 10))), FollowStart::FullCopy, "beyond the head");
    assert_eq!(start(Some(position(3, 5))), FollowStart::FullCopy, "of another op-log");
}

/// A copy that was emptied is filled from the other one, and that one need not be filled in return.
#[test]
fn the_source_of_a_full_copy_follows_it_without_one() {
    let mut old = new_copy(1);
    old.count_as_complete();
    run(&mut old, (1..=6).map(|version| create(version, u128::from(version))).collect());
    let mut new = new_copy(2);
    assert!(!new.meta().complete);
    fill(&mut new, &old);
    assert_eq!(records(&new), records(&old));
    assert_eq!((new.meta().complete, new.meta().position), (true, Some(position(1, 6))));
    assert_eq!(new.meta().origin, Some(Origin { source: id(1), head: 0 }));

    let adopt = FollowStart::Adopt { end: position(2, 0) };
    assert_eq!(start_for(new.meta(), &follow(1, None)), adopt);
    assert_eq!(start_for(new.meta(), &follow(1, Some(position(7, 3)))), adopt, "it followed the lost one");
    assert_eq!(start_for(new.meta(), &follow(3, None)), FollowStart::FullCopy, "no third copy may");

    run(&mut new, vec![update(20, 1, group(9))]);
    old.merge_chunk(CopyChunk { end: Some(position(2, 0)), ..CopyChunk::default() }).expect("memory");
    old.apply(batch(&new, 0)).expect("entries that join on");
    old.commit().expect("memory");
    assert_eq!(records(&new), records(&old));
    assert_eq!(old.meta().origin, None, "it was complete all along");
    fill(&mut new, &old);
    assert_eq!(new.meta().origin, Some(Origin { source: id(1), head: 0 }), "the first content counts");
}

#[test]
fn a_full_copy_merges_and_comes_in_frames() {
    let mut source = new_copy(1);
    let mut large = full(1);
    large.name = Some("n".repeat(MAX_FRAME_BYTES / 100));
    for version in 1..=12_u64 {
        run(&mut source, vec![write(version, u128::from(version), Operation::Create(large.clone()))]);
    }
    run(&mut source, vec![delete(20, 3)]);
    let mut target = new_copy(2);
    run(&mut target, vec![create(30, 3), create(31, 99)]);
    let chunks = fill(&mut target, &source);
    assert!((3..=12).contains(&chunks), "{chunks} chunks");
    assert_eq!(records(&target).len(), 13, "what was there stays");
    let record = |copy: &Copy<MemoryStore>, user| copy.store().get(&id(user)).expect("memory");
    assert_eq!(record(&target, 12), record(&source, 12));
    assert!(record(&target, 3).is_some_and(|record| record.is_alive()), "the newer register counts");
    let (before, state) = (records(&target), *target.meta());
    fill(&mut target, &source);
    let after = Meta { lsn: state.lsn, ..*target.meta() };
    assert_eq!((records(&target), after), (before, state), "a second full copy changes nothing");

    let mut received = 0;
    full_copy(&source.store().snapshot().expect("memory"), 4, |_| {
        received += 1;
        ControlFlow::Break(())
    })
    .expect("memory");
    assert_eq!(received, 1, "it ends when the receiver is gone");
}
