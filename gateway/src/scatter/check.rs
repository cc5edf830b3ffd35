//! Whether both copies of every partition are what they should be: equal to each other, and each to its own
//! digests.
//!
//! Every copy keeps 256 digests of its records. Two copies can be compared when each has applied the other's
//! op-log just to its end; then equal digests are equal copies. While writes come in that hardly ever holds
//! for two answers, so they are asked for again a few times, and if it still does not hold, the partition's
//! writes are held for the milliseconds that it takes.
//!
//! A scan reads every record, too: then a copy whose disk has changed what was written shows it by itself.

use std::time::Duration;

use futures_util::future::try_join_all;
use protocol::message::link::{Position, Role};
use protocol::message::query::{Damage, DigestAnswer};
use protocol::placement::{Partition, primary_of, replica_of};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use crate::engine::{PAUSE_WITHIN, Repair};
use crate::engine_task::{EngineHandle, OrderRefused, Unserved};
use crate::status::ClusterStatus;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// Whether all copies of all partitions were compared, and are what they should be.
    pub equal: bool,
    /// By number.
    pub partitions: Vec<PartitionCheck>,
}

/// What was found of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartitionCheck {
    /// Which one.
    pub partition: Partition,
    /// In short.
    pub verdict: Verdict,
    /// The buckets in which the copies differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<u8>,
    /// Why it could not be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its copies, as far as they answered.
    pub copies: Vec<CopyCheck>,
}

/// What a partition is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its copies are what they should be.
    Equal,
    /// Its copies hold different records.
    Differs,
    /// A scan found damage in a copy.
    Damaged,
    /// A copy did not answer, or they could not be compared.
    Unknown,
}

/// What was found of one copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopyCheck {
    /// Which of the two: `primary` or `replica`.
    #[schema(value_type = String)]
    pub role: Role,
    /// Name of the process that holds it.
    pub process: String,
    /// Live users in it.
    pub users: u64,
    /// Live users and tombstones.
    pub records: u64,
    /// What a scan found wrong: `count`, `index`, or an object with a `bucket` or with what is `unreadable`.
    #[schema(value_type = Vec<serde_json::Value>)]
    pub damage: Vec<Damage>,
}

/// What has been begun to repair a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Begun {
    /// Nothing is wrong with it.
    Nothing,
    /// The damaged copy is filled anew from the other one.
    Refill,
    /// Both copies take everything from each other.
    Exchange,
}

/// Between two looks at copies that cannot be compared yet.
const GLANCE: Duration = Duration::from_millis(10);

/// Looks at copies that are written to, before the writes are held.
const LOOKS: usize = 10;

/// Compares the copies of every partition; with `scan`, each with what it keeps of itself, too.
///
/// # Errors
/// While the ring is not known. What is wrong with a partition is no error.
pub async fn check(engine: &EngineHandle, scan: bool) -> Result<Check, Unserved> {
    let size = engine.size().await?;
    let checks = (0..size).map(|partition| check_partition(engine, size, partition, scan));
    let partitions = try_join_all(checks).await?;
    Ok(Check { equal: partitions.iter().all(|each| each.verdict == Verdict::Equal), partitions })
}

/// Looks what a partition needs, and begins it.
///
/// # Errors
/// If it cannot be repaired now, or not at all.
pub async fn repair(engine: &EngineHandle, partition: Partition) -> Result<Begun, OrderRefused> {
    let not_now = |why: String| OrderRefused::NotRepairable { partition, why };
    let unserved = |unserved: Unserved| not_now(unserved.to_string());
    let size = engine.size().await.map_err(unserved)?;
    if partition >= size {
        return Err(OrderRefused::NoSuchPartition { partition, size });
    }
    let check = check_partition(engine, size, partition, true).await.map_err(unserved)?;
    let damaged: Vec<&CopyCheck> = check.copies.iter().filter(|copy| !copy.damage.is_empty()).collect();
    let (repair, begun) = match (check.verdict, damaged.as_slice()) {
        (Verdict::Equal, _) => return Ok(Begun::Nothing),
        (Verdict::Differs, _) => (Repair::Exchange, Begun::Exchange),
        (Verdict::Damaged, [one]) if check.copies.len() == 2 => (Repair::Discard(one.role), Begun::Refill),
        (Verdict::Damaged, _) => return Err(not_now("there is no sound copy to fill it from".to_owned())),
        (Verdict::Unknown, _) => {
            return Err(not_now(check.why.unwrap_or_else(|| "its copies could not be compared".to_owned())));
        }
    };
    engine.repair(partition, repair).await.map(|()| begun)
}

async fn check_partition(
    engine: &EngineHandle,
    size: u16,
    partition: Partition,
    scan: bool,
) -> Result<PartitionCheck, Unserved> {
    let status = engine.status().await?;
    let found =
        |verdict, copies| PartitionCheck { partition, verdict, buckets: Vec::new(), why: None, copies };
    let unknown = |why: String| PartitionCheck { why: Some(why), ..found(Verdict::Unknown, Vec::new()) };
    let places = [(Role::Primary, Some(primary_of(partition))), (Role::Replica, replica_of(partition, size))];
    let holders: Vec<(Role, String)> = places
        .into_iter()
        .filter_map(|(role, place)| {
            let process = status.processes.get(usize::from(place?))?;
            Some((role, process.name.clone()))
        })
        .collect();
    let describe = |answers: &[DigestAnswer]| {
        let copies = holders.iter().zip(answers).map(|((role, process), answer)| CopyCheck {
            role: *role,
            process: process.clone(),
            users: answer.users,
            records: answer.records,
            damage: answer.damage.clone(),
        });
        copies.collect::<Vec<_>>()
    };
    let ask =
        |scan| try_join_all(holders.iter().map(move |(role, _)| engine.digests(partition, *role, scan)));
    let answers = match ask(scan).await {
        Ok(answers) => answers,
        Err(Unserved::Stopping) => return Err(Unserved::Stopping),
        Err(unserved) => return Ok(unknown(why(engine, partition, unserved).await)),
    };
    if answers.iter().any(|answer| !answer.damage.is_empty()) {
        return Ok(found(Verdict::Damaged, describe(&answers)));
    }
    if let [_single] = answers.as_slice() {
        return Ok(found(Verdict::Equal, describe(&answers)));
    }
    match comparable(engine, partition, || ask(false)).await {
        Err(Unserved::Stopping) => Err(Unserved::Stopping),
        Err(unserved) => Ok(unknown(why(engine, partition, unserved).await)),
        Ok(None) => Ok(unknown("its copies have not caught up with each other".to_owned())),
        Ok(Some(answers)) => {
            let buckets = differing(&answers);
            let counts = |answer: &DigestAnswer| (answer.users, answer.records);
            let same = buckets.is_empty() && answers.iter().all(|each| counts(each) == counts(&answers[0]));
            let verdict = if same { Verdict::Equal } else { Verdict::Differs };
            Ok(PartitionCheck { buckets, ..found(verdict, describe(&answers)) })
        }
    }
}

/// Why a partition could not be checked: in the words of its status, which names one process where several
/// lack something.
async fn why(engine: &EngineHandle, partition: Partition, unserved: Unserved) -> String {
    let Unserved::Unavailable { waiting_for, .. } = unserved else { return unserved.to_string() };
    let status = engine.status().await.ok();
    let of_partition = |status: ClusterStatus| {
        status.partitions.into_iter().find(|each| each.partition == partition)?.waiting_for
    };
    status.and_then(of_partition).unwrap_or(waiting_for)
}

/// Answers of both copies, each with just what the other has; `None` where they do not come to that.
async fn comparable<A, F>(
    engine: &EngineHandle,
    partition: Partition,
    ask: A,
) -> Result<Option<Vec<DigestAnswer>>, Unserved>
where
    A: Fn() -> F,
    F: Future<Output = Result<Vec<DigestAnswer>, Unserved>>,
{
    for _ in 0..LOOKS {
        let answers = ask().await?;
        if are_level(&answers) {
            return Ok(Some(answers));
        }
        sleep(GLANCE).await;
    }
    engine.pause_writes(partition).await?;
    let deadline = Instant::now() + PAUSE_WITHIN;
    let answers = loop {
        let answers = ask().await;
        let level = answers.as_ref().map_or(true, |answers| are_level(answers));
        if level || Instant::now() >= deadline {
            break answers.map(|answers| level.then_some(answers));
        }
        sleep(GLANCE).await;
    };
    engine.resume_writes(partition).await?;
    answers
}

fn are_level(answers: &[DigestAnswer]) -> bool {
    let [one, other] = answers else { return false };
    has_just(one, other) && has_just(other, one)
}

/// Whether `reader` has applied the op-log of `source` to the end that it had, and no further.
fn has_just(reader: &DigestAnswer, source: &DigestAnswer) -> bool {
    let end = Position { incarnation: source.incarnation, sequence: source.head };
    source.head == 0 || reader.position == Some(end)
}

fn differing(answers: &[DigestAnswer]) -> Vec<u8> {
    let [one, other] = answers else { return Vec::new() };
    let pairs = one.digests.iter().zip(&other.digests);
    (0..=u8::MAX).zip(pairs).filter(|(_, (one, other))| one != other).map(|(bucket, _)| bucket).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn answer(tag: u128, head: u64, position: Option<(u128, u64)>) -> DigestAnswer {
        let position =
            position.map(|(tag, sequence)| Position { incarnation: Uuid::from_u128(tag), sequence });
        DigestAnswer {
            query: 0,
            incarnation: Uuid::from_u128(tag),
            head,
            position,
            users: 0,
            records: 0,
            digests: vec![0; 256],
            damage: vec![],
        }
    }

    #[test]
    fn only_copies_that_have_just_each_others_writes_are_compared() {
        let level = |one, other| are_level(&[one, other]);
        assert!(level(answer(1, 0, None), answer(2, 0, None)), "both empty");
        assert!(level(answer(1, 5, None), answer(2, 0, Some((1, 5)))));
        assert!(level(answer(1, 5, Some((2, 3))), answer(2, 3, Some((1, 5)))));
        assert!(!level(answer(1, 5, None), answer(2, 0, Some((1, 4)))), "behind");
        assert!(!level(answer(1, 5, None), answer(2, 0, Some((1, 6)))), "asked later");
        assert!(!level(answer(1, 5, None), answer(2, 3, Some((1, 5)))), "the other way");
        assert!(!level(answer(1, 5, None), answer(2, 0, Some((3, 5)))), "another op-log");
        assert!(!level(answer(1, 5, None), answer(2, 0, None)));
    }

    #[test]
    fn buckets_that_differ_are_named() {
        let (one, mut other) = (answer(1, 0, None), answer(2, 0, None));
        other.digests[3] = 1;
        other.digests[255] = 1;
        assert_eq!(differing(&[one, other]), [3, 255]);
    }
}
