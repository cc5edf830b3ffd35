//! Data that cannot be used: the process says what to do, that is done, and the ring is whole again. No
//! request fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use db_process::remedy::WHAT_TO_DO;
use serde_json::Value;

use super::copies::until_equal;
use super::damage::turn_a_bit;
use super::lists::{count, create};
use super::load::Load;
use super::losses::promote;
use super::processes::Ring;

/// Does something to a file.
type Harm = fn(&Path);

/// What a process that has ended said last.
fn last_words(ring: &Ring, place: u16) -> String {
    ring.output_of(place).lines().last().unwrap_or_default().to_owned()
}

/// Waits until a process ends by itself, with the exit code of a failure. Returns what it says is to be done.
async fn advice(ring: &mut Ring, place: u16) -> String {
    let status = ring.until_exited(place).await;
    let said = last_words(ring, place);
    assert_eq!(status.code(), Some(1), "{said}");
    let (_, advice) =
        said.split_once(WHAT_TO_DO).unwrap_or_else(|| panic!("it does not say what to do: {said}"));
    advice.to_owned()
}

fn all_connected(cluster: &Value) -> bool {
    cluster["processes"].as_array().unwrap().iter().all(|process| process["connected"] == true)
}

fn move_away(path: &Path) {
    fs::rename(path, path.with_extension("old")).unwrap();
}

/// The files of a database whose names begin or end so.
fn files(database: &Path, kind: &str) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(kind) || name.ends_with(kind)
    };
    let paths = fs::read_dir(database).unwrap().map(|file| file.unwrap().path());
    let files: Vec<_> = paths.filter(named).collect();
    assert!(!files.is_empty(), "{} has no {kind}", database.display());
    files
}

fn cut_in_half(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

/// A process is killed and a file of it damaged. It refuses to start, twice; then what it says is done.
#[tokio::test]
async fn a_damaged_database_is_moved_away_as_the_process_says_and_filled_anew_under_load() {
    let garble: Harm = |path| fs::write(path, "no such thing").unwrap();
    let harms: [(&str, u16, &str, Harm); 5] = [
        ("primary", 1, ".sst", cut_in_half),
        ("primary", 1, "CURRENT", |path| fs::remove_file(path).unwrap()),
        ("replica", 0, ".sst", |path| fs::remove_file(path).unwrap()),
        ("primary", 1, "MANIFEST", garble),
        ("replica", 0, "CURRENT", garble),
    ];
    let mut ring = Ring::start(3).await;
    let load = Load::start(ring.rest_port, 16, 1_000).await;
    // Its databases have tables from now on.
    ring.stop(1);
    ring.start_process(1);
    ring.until_ready().await;
    for (copy, partition, kind, harm) in harms {
        load.until_more(500, 500).await;
        ring.kill(1);
        let database = ring.data_dir(1).join(copy);
        files(&database, kind).iter().for_each(|file| harm(file));
        for _ in 0..2 {
            ring.start_process(1);
            let advice = advice(&mut ring, 1).await;
            let wanted =
                format!("{} is damaged, the {copy} copy of partition {partition}: move", database.display());
            assert!(advice.contains(&wanted), "{kind} of {copy}: {advice}");
        }
        load.until_more(500, 500).await;
        move_away(&database);
        ring.start_process(1);
        ring.until_ready().await;
        fs::remove_dir_all(database.with_extension("old")).unwrap();
    }
    load.until_more(500, 500).await;
    let seen = load.finish().await;
    seen.assert_nothing_failed(&ring);
    assert_eq!(until_equal(&ring).0, seen.users);
}

#[tokio::test]
async fn without_its_identity_the_whole_folder_is_emptied_as_the_process_says() {
    let harms: [Harm; 3] = [
        |path| fs::write(path, "{").unwrap(),
        |path| fs::remove_file(path).unwrap(),
        |path| drop(File::create(path).unwrap()),
    ];
    let mut ring = Ring::start(3).await;
    let load = Load::start(ring.rest_port, 16, 1_000).await;
    for harm in harms {
        load.until_more(500, 500).await;
        ring.kill(1);
        let folder = ring.data_dir(1);
        harm(&folder.join("identity.json"));
        ring.start_process(1);
        let advice = advice(&mut ring, 1).await;
        assert!(advice.contains("is not the folder of db-1, set DATA_DIR right"), "{advice}");
        assert!(advice.contains("while they lead partitions 1 and 0"), "{advice}");
        load.until_more(500, 500).await;
        move_away(&folder);
        ring.start_process(1);
        ring.until_ready().await;
        fs::remove_dir_all(folder.with_extension("old")).unwrap();
    }
    load.until_more(500, 500).await;
    let seen = load.finish().await;
    seen.assert_nothing_failed(&ring);
    assert_eq!(until_equal(&ring).0, seen.users);
}

/// A block that cannot be read is not noticed before a read comes upon it.
#[tokio::test]
async fn damage_that_is_met_while_the_process_runs_ends_it_with_the_same_advice() {
    let mut ring = Ring::start(3).await;
    let ids = create(ring.rest_port, 3_000).await;
    ring.until_ready().await;
    ring.stop(1);
    let database = ring.data_dir(1).join("replica");
    turn_a_bit(&database);
    ring.start_process(1);
    ring.until_ready().await;
    let mut client = ring.client().await;
    for id in &ids {
        assert_eq!(client.get(*id).await.status, hyper::StatusCode::OK, "{}", ring.logs());
    }
    let advice = advice(&mut ring, 1).await;
    assert!(
        advice.contains(&format!("{} is damaged, the replica copy of partition 0", database.display())),
        "{advice}"
    );
    move_away(&database);
    ring.start_process(1);
    ring.until_ready().await;
    assert_eq!(until_equal(&ring).0, 3_000);
    assert_eq!(count(&mut client, "").await, 3_000);
}

/// All were stopped, so no other copy leads in the place of the copy that is damaged.
#[tokio::test]
async fn where_no_other_copy_leads_the_operator_promotes_it_as_the_process_says() {
    for size in [2, 3] {
        let mut ring = Ring::start(size).await;
        create(ring.rest_port, 300).await;
        ring.until_ready().await;
        ring.until("both copies have everything", |cluster| {
            let partitions = cluster["partitions"].as_array().unwrap();
            all_connected(cluster) && partitions.iter().all(|partition| partition["unreplicated"] == 0)
        })
        .await;
        ring.stop_all();
        let database = ring.data_dir(1).join("primary");
        files(&database, "CURRENT").iter().for_each(|file| cut_in_half(file));
        ring.start_gateway();
        (0..size).for_each(|place| ring.start_process(place));
        let advice = advice(&mut ring, 1).await;
        assert!(advice.contains("`corro promote 1` lets"), "{advice}");
        move_away(&database);
        ring.start_process(1);
        // Of all: the other copy of the partition is promoted, and its process may come later than this one.
        ring.until("partition 1 waits for an operator", |cluster| {
            all_connected(cluster) && cluster["partitions"][1]["lead"].is_null()
        })
        .await;
        let (done, said) = promote(&ring, 1, &["--yes"]);
        assert!(done, "{said}");
        ring.until_ready().await;
        assert_eq!(until_equal(&ring).0, 300);
        assert_eq!(count(&mut ring.client().await, "").await, 300);
    }
}
