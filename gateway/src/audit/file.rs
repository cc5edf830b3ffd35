//! The file, within a bound in bytes.
//!
//! A file that is full becomes `FILE.1`, that one `FILE.2`, and so on; the last one goes. Unlike the log, an
//! audit log does not go by days: what is kept does not depend on how old it is.
//!
//! What is no regular file, such as a pipe or stdout, is written as it is.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Error, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file is at most this part of the whole.
const PARTS: u64 = 8;

/// Read and written by the owner alone.
const MODE: u32 = 0o600;

/// See the module.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    /// Most bytes of one file; `None` for what is no regular file.
    most: Option<u64>,
    /// Bytes in it.
    length: u64,
    /// It ends within a line.
    torn: bool,
}

impl AuditFile {
    /// Goes on at the end of that file, which is made. `most` is what all files take together.
    ///
    /// # Errors
    /// Where it cannot be made or written.
    pub(super) fn open(path: &Path, most: u64) -> io::Result<Self> {
        let file = append(path)?;
        let about = file.metadata()?;
        let most = about.is_file().then_some(most / PARTS);
        if most.is_some() {
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        let length = about.len();
        let torn = most.is_some() && length > 0 && last_byte(path)? != b'\n';
        Ok(Self { path: path.to_owned(), file, most, length, torn })
    }

    /// Writes whole lines. Where that fails, none of them counts as written.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = lines.len() as u64;
        if self.most.is_some_and(|most| self.length > 0 && self.length + length > most) {
            self.begin_file()?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            (self.torn, self.length) = (false, self.length + 1);
        }
        let written = self.file.write_all(lines);
        match written {
            Ok(()) => self.length += length,
            // A part of it may be there: it is taken back, or at least ends the line.
            Err(_) if self.most.is_some() => self.torn = self.file.set_len(self.length).is_err(),
            Err(_) => self.torn = true,
        }
        written
    }

    /// Begins an empty file. Where that fails, it is tried again with the next lines: none goes beyond the
    /// bound.
    fn begin_file(&mut self) -> io::Result<()> {
        // First of all, so that there is a file in any case.
        let new = self.named("new");
        let file = append(&new)?;
        for number in (1..PARTS - 1).rev() {
            if let Err(error) = fs::rename(self.named(number), self.named(number + 1))
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
        }
        fs::rename(&self.path, self.named(1))?;
        fs::rename(new, &self.path)?;
        (self.file, self.length, self.torn) = (file, 0, false);
        Ok(())
    }

    /// `FILE.1`, for example.
    fn named(&self, suffix: impl std::fmt::Display) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{suffix}"));
        name.into()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path).map_err(|error| {
        Error::new(error.kind(), format!("AUDIT_LOG: {} cannot be written: {error}", path.display()))
    })
}

fn last_byte(path: &Path) -> io::Result<u8> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<(String, u64, u32)> {
        let about = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.expect("an entry");
            let about = entry.metadata().expect("of a file");
            let name = entry.file_name().into_string().expect("text");
            (name, about.len(), about.permissions().mode() & 0o777)
        };
        let mut files: Vec<_> = fs::read_dir(folder).expect("a folder").map(about).collect();
        files.sort();
        files
    }

    #[test]
    fn files_are_private_and_stay_within_the_bound_and_the_oldest_go() {
        const MOST: u64 = 16 << 10;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        fs::write(&path, "an older line\n").expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("its mode");
        let mut file = AuditFile::open(&path, MOST).expect("a file");
        for line in 0..5_000 {
            if line % 1_700 == 1_699 {
                file = AuditFile::open(&path, MOST).expect("started again");
            }
            file.write(format!("line {line}\n").as_bytes()).expect("room");
        }
        let files = files(folder.path());
        assert_eq!(files.len() as u64, PARTS, "{files:?}");
        assert!(files.iter().all(|(_, size, mode)| *size <= MOST / PARTS && *mode == MODE), "{files:?}");
        assert!(files.iter().map(|(_, size, _)| size).sum::<u64>() > MOST / 4 * 3, "{files:?}");
        let names = files.iter().rev().map(|(name, ..)| name);
        let text: String =
            names.map(|name| fs::read_to_string(folder.path().join(name)).expect("text")).collect();
        let lines: Vec<u32> = text.lines().map(|line| line[5..].parse().expect("a number")).collect();
        assert!(lines.windows(2).all(|two| two[0] + 1 == two[1]), "without a gap");
        assert_eq!(lines.last(), Some(&4_999));
    }

    #[test]
    fn a_line_that_was_torn_harms_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        fs::write(&path, "a whole line\na part").expect("a file");
        let mut file = AuditFile::open(&path, 1 << 20).expect("a file");
        file.write(b"another\n").expect("room");
        assert_eq!(fs::read_to_string(&path).expect("text"), "a whole line\na part\nanother\n");
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut file = AuditFile::open(Path::new("/dev/full"), 1 << 20).expect("a device");
        for _ in 0..2 {
            let error = file.write(b"a line\n").expect_err("it is full");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
        let error = AuditFile::open(Path::new("/no/such/folder/audit.log"), 1).expect_err("no folder");
        assert!(error.to_string().contains("AUDIT_LOG: /no/such/folder/audit.log"), "{error}");
    }

    /// `AUDIT_TEST_DIR` is a file system of a megabyte, which has nothing else in it.
    #[test]
    #[ignore = "it needs a small file system: mount -t tmpfs -o size=1m tmpfs DIR"]
    fn a_disk_that_is_full_for_a_while_loses_only_what_it_said_it_would() {
        let folder = PathBuf::from(std::env::var_os("AUDIT_TEST_DIR").expect("AUDIT_TEST_DIR"));
        let (path, ballast) = (folder.join("audit.log"), folder.join("ballast"));
        let mut file = AuditFile::open(&path, 64 << 20).expect("a file");
        let mut kept = String::new();
        for round in 0..3 {
            // Until nothing is left but the rest of the last page of the file.
            fs::write(&ballast, vec![b'x'; 2 << 20]).expect_err("more than there is room for");
            let mut lost = 0;
            for number in 0..2_000 {
                let line = format!("line {round} {number}\n");
                match file.write(line.as_bytes()) {
                    Ok(()) => kept += &line,
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                        lost += 1;
                    }
                }
            }
            fs::remove_file(&ballast).expect("it was there");
            file.write(b"again\n").expect("room");
            kept += "again\n";
            println!("{lost} lines were not written");
            assert!(lost > 0);
        }
        assert!(fs::read_to_string(&path).expect("text") == kept, "all that was written, and no more");
    }
}
