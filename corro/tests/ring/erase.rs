//! What is out of date, or is erased by the operator, is in no file of the ring any more.
//!
//! The files are searched as they are on disk. Tables are compressed, so every value is a random text that
//! does not compress.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use corro::random::Random;
use db_process::copy::erase::has_fields;
use db_process::store::{ReadOnlyStore, Snapshot};
use hyper::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::changes::Listener;
use super::client::Client;
use super::copies::{records, until_equal};
use super::processes::{DEADLINE, Ring};

/// Length of half a text.
const HALF: usize = 16;

/// Names and addresses that are in no other text.
struct Texts(Random);

impl Texts {
    fn next(&mut self) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..2 * HALF).map(|_| char::from(LETTERS[self.0.between(0, LETTERS.len() as u64) as usize])).collect()
    }

    fn user(&mut self) -> [String; 2] {
        [self.next(), self.next()]
    }
}

/// A user, with the values that it had and those that it has.
struct User {
    id: Uuid,
    old: [String; 2],
    new: [String; 2],
}

async fn create(client: &mut Client, texts: &mut Texts) -> User {
    let (id, old, new) = (Uuid::new_v4(), texts.user(), texts.user());
    let user = json!({"id": id, "name": &old[0], "email": format!("{}@example.org", old[1])});
    assert_eq!(client.post(&user).await.status, StatusCode::CREATED);
    let change = json!({"name": &new[0], "email": format!("{}@example.org", new[1])});
    let changed = client.send(Method::PATCH, &format!("/api/user/{id}"), Some(&change)).await;
    assert_eq!(changed.status, StatusCode::OK);
    User { id, old, new }
}

/// All files of the data directories that have one of these texts, by the text.
fn found<'a>(ring: &Ring, texts: &[&'a String]) -> BTreeMap<&'a str, BTreeSet<PathBuf>> {
    // A compressed table may have the halves apart.
    let halves = texts.iter().flat_map(|text| {
        let (first, second) = text.as_bytes().split_at(HALF);
        [(first, text.as_str()), (second, text.as_str())]
    });
    let halves: HashMap<&[u8], &str> = halves.collect();
    let mut files = Vec::new();
    (0..ring.size).for_each(|place| walk(&ring.data_dir(place), &mut files));
    let mut found: BTreeMap<&str, BTreeSet<PathBuf>> = BTreeMap::new();
    for file in files {
        // RocksDB may have removed it meanwhile.
        let Ok(bytes) = fs::read(&file) else { continue };
        for text in bytes.windows(HALF).filter_map(|part| halves.get(part).copied()) {
            found.entry(text).or_default().insert(file.clone());
        }
    }
    found
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), files),
            _ => files.push(entry.path()),
        }
    }
}

/// Both copies of a partition, as what they hold can be read: whether either has any field of these users.
fn holds(ring: &Ring, users: &[Uuid]) -> bool {
    let roles = |place: u16| [(place, "primary"), (place, "replica")];
    (0..ring.size).flat_map(roles).any(|(place, role)| {
        let store = ReadOnlyStore::open(&ring.data_dir(place).join(role)).unwrap();
        let snapshot = store.snapshot().unwrap();
        let logged = snapshot.log(snapshot.meta().trimmed).map(Result::unwrap);
        let in_log = logged.filter(|entry| has_fields(&entry.change)).any(|entry| users.contains(&entry.id));
        in_log || records(ring, place, role).keys().any(|id| users.contains(id))
    })
}

/// Everything that the feed says from the beginning, up to a user that is made now.
async fn feed(ring: &Ring, client: &mut Client) -> String {
    let last = client.post(&json!({"name": "Last", "email": "last@example.org"})).await;
    let listener = Listener::resume(ring.rest_port, Some("0".repeat(16))).await;
    let heard = listener.until(&last.tag.unwrap()).await;
    format!("{heard:?}")
}

fn texts_of(users: &[User], old: bool, new: bool) -> Vec<&String> {
    let old = users.iter().filter(|_| old).flat_map(|user| &user.old);
    old.chain(users.iter().filter(|_| new).flat_map(|user| &user.new)).collect()
}

#[tokio::test]
async fn what_is_out_of_date_leaves_every_file_and_the_feed() {
    let mut ring = Ring::start(3).await;
    ring.kill_gateway();
    ring.purge_after = 1;
    ring.start_gateway();
    ring.until_ready().await;
    let (mut client, mut texts) = (ring.client().await, Texts(Random::new(7)));
    let (mut kept, mut deleted) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        kept.push(create(&mut client, &mut texts).await);
        deleted.push(create(&mut client, &mut texts).await);
    }
    let all: Vec<&String> = [texts_of(&kept, true, true), texts_of(&deleted, true, true)].concat();
    assert_eq!(found(&ring, &all).len(), all.len(), "it is found where it is");
    for user in &deleted {
        let answer = client.send(Method::DELETE, &format!("/api/user/{}", user.id), None).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    let gone: Vec<&String> = [texts_of(&kept, true, false), texts_of(&deleted, true, true)].concat();
    let start = Instant::now();
    loop {
        let left = found(&ring, &gone);
        if left.is_empty() {
            break;
        }
        assert!(start.elapsed() < DEADLINE, "{} are left: {left:?}\n{}", left.len(), ring.logs());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    println!("erased {:?} after the last delete", start.elapsed());
    assert!(!holds(&ring, &deleted.iter().map(|user| user.id).collect::<Vec<_>>()));
    let current = texts_of(&kept, false, true);
    assert_eq!(found(&ring, &current).len(), current.len(), "what is current stays");
    let said = feed(&ring, &mut client).await;
    assert!(!gone.iter().any(|text| said.contains(*text)), "the feed has it: {said}");
    assert!(current.iter().all(|text| said.contains(*text)), "the feed has what is current: {said}");
    for user in &kept {
        let found = client.get(user.id).await.user();
        assert_eq!([found.name, found.email], [user.new[0].clone(), format!("{}@example.org", user.new[1])]);
    }
    until_equal(&ring);
}

/// Runs `corro erase`. Returns whether it did it, and what it said.
fn erase(ring: &Ring, id: Uuid) -> (bool, String) {
    let url = format!("http://127.0.0.1:{}", ring.rest_port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_corro"));
    let output = command.env_clear().args(["erase", &id.to_string(), "--url", &url]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn an_erased_user_is_in_no_file_when_the_command_ends() {
    let mut ring = Ring::start(3).await;
    let (mut client, mut texts) = (ring.client().await, Texts(Random::new(8)));
    let first = json!({"name": "First", "email": "first@example.org"});
    // A live subscriber, so that the gateway has changes in memory.
    let (listener, first) = tokio::join!(Listener::start(ring.rest_port), client.post(&first));
    assert_eq!(first.status, StatusCode::CREATED);
    let mut users = Vec::new();
    for _ in 0..12 {
        users.push(create(&mut client, &mut texts).await);
    }
    drop(listener);
    let (erased, kept) = users.split_at(6);
    // Some are deleted already.
    for user in &erased[..3] {
        let answer = client.send(Method::DELETE, &format!("/api/user/{}", user.id), None).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    for user in erased {
        let (done, said) = erase(&ring, user.id);
        assert!(done, "{said}\n{}", ring.logs());
        let texts = texts_of(std::slice::from_ref(user), true, true);
        assert_eq!(found(&ring, &texts), BTreeMap::new());
        assert_eq!(client.get(user.id).await.status, StatusCode::NOT_FOUND);
    }
    assert!(!holds(&ring, &erased.iter().map(|user| user.id).collect::<Vec<_>>()));
    assert!(erase(&ring, erased[0].id).0, "it may be asked again");
    assert!(erase(&ring, Uuid::new_v4()).0, "and of a user that never was");
    let said = feed(&ring, &mut client).await;
    let (gone, left) = (texts_of(erased, true, true), texts_of(kept, true, true));
    assert!(!gone.iter().any(|text| said.contains(*text)), "the feed has it: {said}");
    assert!(left.iter().all(|text| said.contains(*text)), "and it has the others: {said}");
    // It comes back.
    let user = json!({"id": erased[0].id, "name": "Anew", "email": "anew@example.org"});
    assert_eq!(client.post(&user).await.status, StatusCode::CREATED);
    assert_eq!(client.get(erased[0].id).await.user().name, "Anew");
    until_equal(&ring);
    ring.stop_all();
    assert_eq!(found(&ring, &gone), BTreeMap::new());
}
