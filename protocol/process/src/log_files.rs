//! The files of the log, within a bound that no load breaks.
//!
//! `tracing-appender` begins a file a day (UTC), and knows no bound in bytes. So its appender is wrapped:
//! today's file is `<process>.<date>.log`; when it is full it becomes `<process>.<date>.1.log` (then
//! `.2.log`, …) and a new appender begins an empty one. The oldest files go before the whole can exceed its
//! bound. Only files of exactly these names are counted and removed: `db-1` leaves those of `db-10` alone.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Error, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing_appender::rolling::{RollingFileAppender, Rotation};

/// How many days are kept.
const DAYS_KEPT: usize = 14;

/// A file is at most this part of the whole: a flood of lines leaves that much of what came before.
const PARTS: u64 = 8;

/// A writer into the newest file. Each call of [`Write::write`] is a line, as `tracing-appender` hands them
/// over.
#[derive(Debug)]
pub(crate) struct LogFiles {
    process: String,
    folder: PathBuf,
    /// Most bytes of one file.
    file: u64,
    appender: RollingFileAppender,
    /// Bytes that the newest file still has room for.
    room: u64,
    /// Day, since 1970, on which `room` was true: the appender begins a file at the next one.
    day: u64,
}

/// Files in the order of their age: date, number. Today's file has no number yet, and is the newest.
type Name = (String, u64);

impl LogFiles {
    /// Goes on with today's file in that folder, which is made. `most` is what all files take together.
    ///
    /// # Errors
    /// Where the folder cannot be made or written.
    pub(crate) fn open(process: &str, folder: &Path, most: u64) -> io::Result<Self> {
        // Asked for here, as the appender's own message does not name the folder.
        fs::create_dir_all(folder).map_err(|error| {
            Error::new(error.kind(), format!("LOG_DIR: {} cannot be made: {error}", folder.display()))
        })?;
        let appender = appender(process, folder)?;
        let (process, folder) = (process.to_owned(), folder.to_owned());
        let mut files = Self { process, folder, file: most / PARTS, appender, room: 0, day: today() };
        files.make_room()?;
        Ok(files)
    }

    /// Removes the oldest files: behind it the newest one may become full.
    fn make_room(&mut self) -> io::Result<()> {
        let names = self.names()?;
        let dates: BTreeSet<&String> = names.iter().map(|(date, _)| date).collect();
        let first_kept = dates.iter().rev().nth(DAYS_KEPT - 1).map(|date| (*date).clone());
        let mut left = self.file * (PARTS - 1);
        let mut is_newest = true;
        for name in names.iter().rev() {
            let path = self.path(name);
            let size = fs::metadata(&path).map_or(0, |file| file.len());
            if is_newest {
                self.room = self.file.saturating_sub(size);
                is_newest = false;
                continue;
            }
            let fits = left.checked_sub(size).filter(|_| first_kept.as_ref() <= Some(&name.0));
            // Older than one that does not fit is not kept either, however small.
            left = fits.unwrap_or_default();
            if fits.is_none() {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Begins an empty file. Where that fails, the next line tries it again: none goes beyond the bound.
    fn begin_file(&mut self) -> io::Result<()> {
        let names = self.names()?;
        if let Some(full @ (date, u64::MAX)) = names.last() {
            let numbers = names.iter().filter(|name| name.0 == *date).map(|name| name.1);
            let last = numbers.filter(|number| *number < u64::MAX).max().unwrap_or_default();
            fs::rename(self.path(full), self.path(&(date.clone(), last + 1)))?;
        }
        self.appender = appender(&self.process, &self.folder)?;
        self.make_room()
    }

    /// The files that are there, the oldest first.
    fn names(&self) -> io::Result<Vec<Name>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            names.extend(entry?.file_name().to_str().and_then(|name| self.parse(name)));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn parse(&self, name: &str) -> Option<Name> {
        let name = name.strip_prefix(&self.process)?.strip_prefix('.')?.strip_suffix(".log")?;
        let (date, number) = match name.split_once('.') {
            None => (name, u64::MAX),
            Some((date, number)) => (date, number.parse().ok()?),
        };
        let is_date = date.len() == "2026-11-29".len()
            && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        is_date.then(|| (date.to_owned(), number))
    }

    fn path(&self, (date, number): &Name) -> PathBuf {
        let process = &self.process;
        self.folder.join(match number {
            &u64::MAX => format!("{process}.{date}.log"),
            number => format!("{process}.{date}.{number}.log"),
        })
    }
}

impl Write for LogFiles {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let day = today();
        if day != self.day {
            self.appender = appender(&self.process, &self.folder)?;
            self.make_room()?;
            self.day = day;
        }
        if self.room < line.len() as u64 {
            self.begin_file()?;
        }
        let written = self.appender.write(line)?;
        self.room = self.room.saturating_sub(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.appender.flush()
    }
}

fn appender(process: &str, folder: &Path) -> io::Result<RollingFileAppender> {
    RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(process)
        .filename_suffix("log")
        .build(folder)
        .map_err(|error| Error::other(format!("LOG_DIR: {} cannot be written: {error}", folder.display())))
}

/// Days since 1970, as the appender counts them.
fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() / 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files in a folder, with their sizes, in the order of their names.
    fn sizes(folder: &Path) -> Vec<(String, u64)> {
        let size = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
        };
        let mut sizes: Vec<_> = fs::read_dir(folder).unwrap().map(size).collect();
        sizes.sort();
        sizes
    }

    fn total(folder: &Path) -> u64 {
        sizes(folder).iter().map(|(_, size)| size).sum()
    }

    #[test]
    fn a_flood_of_lines_stays_within_the_bound_and_the_oldest_go() {
        const MOST: u64 = 64 << 10;
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("db-10.2020-01-01.log");
        fs::write(&other, vec![b'x'; 10]).unwrap();
        let mut files = LogFiles::open("db-1", folder.path(), MOST).unwrap();
        for line in 0..20_000 {
            if line % 7_000 == 6_999 {
                // The process is started again in the middle of a file.
                files = LogFiles::open("db-1", folder.path(), MOST).unwrap();
            }
            files.write_all(format!("line {line} of a flood that does not end\n").as_bytes()).unwrap();
            if line % 50 == 0 {
                let sizes = sizes(folder.path());
                assert!(total(folder.path()) <= MOST + 10, "{sizes:?}");
                assert!(sizes.iter().all(|(_, size)| *size <= MOST / PARTS), "{sizes:?}");
            }
        }
        assert!(other.exists(), "another process's");
        fs::remove_file(other).unwrap();
        // What is kept is the end, without a gap, and most of what may be.
        let mut names = files.names().unwrap();
        let text: String =
            names.drain(..).map(|name| fs::read_to_string(files.path(&name)).unwrap()).collect();
        let lines: Vec<u32> =
            text.lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
        assert!(lines.windows(2).all(|two| two[0] + 1 == two[1]));
        assert_eq!(lines.last(), Some(&19_999));
        assert!(total(folder.path()) > MOST / 4 * 3, "{:?}", sizes(folder.path()));
    }

    #[test]
    fn old_days_and_what_does_not_fit_go_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for day in 1..=20 {
            fs::write(folder.path().join(format!("db-7.2020-01-{day:02}.log")), "a day").unwrap();
        }
        let mine = ["db-7.log", "db-7.2020-01-01.log.gz", "db-7.2020-01-01.a.log", "db-72020-01-01.log"];
        mine.iter().for_each(|name| fs::write(folder.path().join(name), "of an operator").unwrap());
        drop(LogFiles::open("db-7", folder.path(), 1 << 20).unwrap());
        let left = sizes(folder.path());
        assert_eq!(left.len(), mine.len() + DAYS_KEPT, "{left:?}");
        assert!(mine.iter().all(|name| folder.path().join(name).exists()), "{left:?}");
        assert!(!folder.path().join("db-7.2020-01-07.log").exists(), "{left:?}");

        // Of an earlier program, which knew no bound: a day that does not fit goes with all before it.
        fs::write(folder.path().join("db-7.2020-01-15.log"), vec![b'x'; 1 << 20]).unwrap();
        drop(LogFiles::open("db-7", folder.path(), 1 << 20).unwrap());
        assert_eq!(sizes(folder.path()).len(), mine.len() + 5 + 1, "{:?}", sizes(folder.path()));
    }

    /// An earlier program may have left more in today's file than one file has room for.
    #[test]
    fn a_file_that_is_too_large_is_ended_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = LogFiles::open("gateway", folder.path(), 1 << 20).unwrap();
        let name = files.names().unwrap().pop().unwrap();
        fs::write(files.path(&name), vec![b'x'; 500 << 10]).unwrap();
        files.make_room().unwrap();
        files.write_all(b"a line\n").unwrap();
        let sizes: Vec<u64> = sizes(folder.path()).into_iter().map(|(_, size)| size).collect();
        assert_eq!(sizes, [500 << 10, 7]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = LogFiles::open("db-7", &file.path().join("logs"), 1 << 20).unwrap_err().to_string();
        assert!(error.contains("LOG_DIR") && error.contains(&file.path().display().to_string()), "{error}");
    }
}
