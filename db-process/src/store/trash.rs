//! Gives the space of files that a database removes back to the file system little by little.
//!
//! To remove a file may take a millisecond for each megabyte of it (ext4 that is mounted with `discard`, as
//! images for clouds are), and whoever wants something synced meanwhile waits until that is over: the writes
//! of every copy on that disk, for tens of milliseconds, whenever a log or a table is dropped. RocksDB has a
//! remedy, which shortens a table in steps before it is removed (`SstFileManager`); it does nothing for logs,
//! and its binding for Rust does not have it. So each file of a database gets a second name here, in a folder
//! beside the databases. What RocksDB removes then is only the first name, which costs nothing; what has no
//! other name left is shortened in steps, and then removed.
//!
//! Files that come and go between two looks are not seen, and removed as ever. Where the file system has no
//! second names, all are.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at the databases.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Somebody who looks at a database from outside may still be reading in what was removed from it.
const GRACE: Duration = Duration::from_secs(5);

/// Bytes that a file is shortened by at once: with [`PAUSE`] some 100 MB/s, more than a database drops in the
/// long run.
const STEP: u64 = 512 << 10;

/// Between two steps.
const PAUSE: Duration = Duration::from_millis(4);

/// With more files than this to be removed the disk may be filling up, and there is no grace and no pause.
const MANY: usize = 64;

/// Watches the databases until it is dropped. What is left then is seen to at the next start.
#[derive(Debug)]
pub struct Trash {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Trash {
    /// Begins to watch the databases in these folders, which need not be there yet, with what is left over in
    /// `folder`. When it returns, all files that are there have their second name.
    ///
    /// # Errors
    /// If the folder cannot be made or read, or there is no thread to be had.
    pub fn start(folder: &Path, databases: Vec<PathBuf>) -> io::Result<Self> {
        let mut keeper = Keeper::new(folder, databases)?;
        keeper.look(Instant::now());
        let (stop, stopped) = channel();
        let watch = move || {
            let mut pause = LOOK_EVERY;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = keeper.step(Instant::now());
            }
        };
        let thread = std::thread::Builder::new().name("trash".to_owned()).spawn(watch)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

struct Keeper {
    folder: PathBuf,
    databases: Vec<PathBuf>,
    /// Files with a second name, which is this number: their inode's, which is theirs as long as they have
    /// any name.
    known: HashSet<u64>,
    /// Files that have no other name, and since when, the oldest first.
    removed: VecDeque<(Instant, u64)>,
    looked: Instant,
    told: bool,
}

impl Keeper {
    fn new(folder: &Path, databases: Vec<PathBuf>) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut known = HashSet::new();
        for left in fs::read_dir(folder)? {
            let left = left?;
            let number = left.file_name().to_str().and_then(|name| name.parse().ok());
            match number.filter(|number| *number == left.ino()) {
                Some(number) => drop(known.insert(number)),
                // The folder was copied from elsewhere: it is another file now.
                None => fs::remove_file(left.path())?,
            }
        }
        let (folder, looked) = (folder.to_owned(), Instant::now());
        Ok(Self { folder, databases, known, removed: VecDeque::new(), looked, told: false })
    }

    /// Does what is to be done now. Returns how long there is nothing to do.
    fn step(&mut self, now: Instant) -> Duration {
        if now >= self.looked + LOOK_EVERY {
            self.look(now);
        }
        let hurry = self.removed.len() > MANY;
        match self.removed.front() {
            Some((since, number)) if hurry || now >= *since + GRACE => {
                if shorten(&self.name(*number)).unwrap_or(true) {
                    self.removed.pop_front();
                }
                if hurry { Duration::ZERO } else { PAUSE }
            }
            _ => LOOK_EVERY,
        }
    }

    /// Gives a second name to each new file, and finds those that have no other.
    fn look(&mut self, now: Instant) {
        self.looked = now;
        let (mut here, mut refused) = (HashSet::new(), None);
        for file in self.databases.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
            let (path, number) = (file.path(), file.ino());
            if path.extension().is_none_or(|kind| kind != "log" && kind != "sst") {
                continue;
            }
            here.insert(number);
            if !self.known.contains(&number) {
                match fs::hard_link(&path, self.name(number)) {
                    Ok(()) => drop(self.known.insert(number)),
                    // It is gone by now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => refused = Some(error),
                }
            }
        }
        if let Some(error) = refused {
            self.tell(&error);
        }
        let gone: Vec<u64> = self.known.difference(&here).copied().collect();
        for number in gone {
            // It may have moved with its folder.
            let names = fs::metadata(self.name(number)).map_or(0, |file| file.nlink());
            if names <= 1 {
                self.known.remove(&number);
                self.removed.push_back((now, number));
            }
        }
    }

    fn name(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    fn tell(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(%error, "files get no second name here: writes may have to wait while one is removed");
        }
    }
}

/// Takes a step off the end of a file. Returns whether that was the last one, and the file is removed.
fn shorten(path: &Path) -> io::Result<bool> {
    let file = File::options().write(true).open(path)?;
    let left = file.metadata()?.len().saturating_sub(STEP);
    file.set_len(left)?;
    if left == 0 {
        fs::remove_file(path)?;
    }
    Ok(left == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder for the trash, and a database with a file of that many bytes.
    fn folders(size: u64) -> (tempfile::TempDir, PathBuf, PathBuf, PathBuf) {
        let all = tempfile::tempdir().unwrap();
        let (trash, database) = (all.path().join("trash"), all.path().join("primary"));
        fs::create_dir(&database).unwrap();
        let file = database.join("000007.log");
        File::create(&file).unwrap().set_len(size).unwrap();
        fs::write(database.join("CURRENT"), "MANIFEST-1").unwrap();
        (all, trash, database, file)
    }

    fn kept(trash: &Path) -> Vec<u64> {
        fs::read_dir(trash).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect()
    }

    #[test]
    fn what_is_removed_is_shortened_in_steps() {
        let (_all, trash, database, file) = folders(2 * STEP + 5);
        let mut keeper = Keeper::new(&trash, vec![database.clone(), database.join("not there yet")]).unwrap();
        let start = Instant::now();
        keeper.look(start);
        assert_eq!(kept(&trash), [2 * STEP + 5], "only logs and tables");
        // Renamed, as RocksDB does where it uses a log again: it stays.
        let file_again = file.with_file_name("000009.log");
        fs::rename(&file, &file_again).unwrap();
        let mut now = start + 2 * GRACE;
        assert_eq!(keeper.step(now), LOOK_EVERY);
        fs::remove_file(&file_again).unwrap();
        now += LOOK_EVERY;
        assert_eq!((keeper.step(now), kept(&trash)), (LOOK_EVERY, vec![2 * STEP + 5]), "there is a grace");
        now += GRACE;
        let mut sizes = Vec::new();
        while !kept(&trash).is_empty() {
            assert_eq!(keeper.step(now), PAUSE);
            sizes.extend(kept(&trash));
        }
        assert_eq!(sizes, [STEP + 5, 5]);
        assert_eq!(keeper.step(now), LOOK_EVERY);
    }

    #[test]
    fn what_is_left_over_is_seen_to_at_the_next_start() {
        let (_all, trash, database, file) = folders(5);
        drop(Trash::start(&trash, vec![database.clone()]).unwrap());
        fs::remove_file(&file).unwrap();
        fs::write(trash.join("8"), "a file of another disk").unwrap();
        let mut keeper = Keeper::new(&trash, vec![database]).unwrap();
        assert_eq!(kept(&trash), [5]);
        let now = Instant::now();
        keeper.look(now);
        keeper.step(now + GRACE);
        assert!(kept(&trash).is_empty());
    }

    #[test]
    fn many_files_are_not_waited_for() {
        let (_all, trash, database, _) = folders(5);
        let names = || (0..=MANY).map(|n| database.join(format!("{n}.sst")));
        names().for_each(|name| fs::write(name, "a table").unwrap());
        let mut keeper = Keeper::new(&trash, vec![database.clone()]).unwrap();
        let now = Instant::now();
        keeper.look(now);
        names().for_each(|name| fs::remove_file(name).unwrap());
        assert_eq!(keeper.step(now + LOOK_EVERY), Duration::ZERO);
        assert_eq!((kept(&trash).len(), keeper.step(now + LOOK_EVERY)), (1 + MANY, LOOK_EVERY));
    }
}
