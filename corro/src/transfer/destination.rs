//! Where an export goes.
//!
//! A file is written beside its place, and gets its name when it is complete: no reader finds a half of it,
//! and an export that fails leaves the file that was there. What is no file (a device, a pipe) is written as
//! it comes. A link is followed, and stays.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::NamedTempFile;

use super::at;

/// Of a new file: users are not for all to read.
const MODE: u32 = 0o600;

pub(super) enum Destination {
    /// Written as it comes.
    Stream(Box<dyn Write>),
    /// With the place where it belongs. Dropped unfinished, it is removed.
    File(NamedTempFile, PathBuf),
}

impl Destination {
    /// # Errors
    /// Where nothing can be written there.
    pub(super) fn of(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stream(Box::new(stdout()))) };
        let in_place = || create(path).map(|file| Self::Stream(Box::new(file)));
        let found = match fs::metadata(path) {
            Ok(found) => Some(found),
            // A link to a file that is to be made.
            Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => return in_place(),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return at(Err(error), path),
        };
        if found.as_ref().is_some_and(fs::Metadata::is_dir)
            || path.as_os_str().as_encoded_bytes().ends_with(b"/")
        {
            bail!("{} is a directory; --output names a file", path.display());
        }
        match found {
            // The streams of this process among them.
            Some(found) if !found.is_file() || path.starts_with("/dev") => in_place(),
            Some(found) => {
                // A folder that takes no new file may hold one that can be written.
                File::options()
                    .write(true)
                    .open(path)
                    .and_then(|_| beside(path.canonicalize()?, Some(found.permissions())))
                    .or_else(|_| in_place())
            }
            None => at(beside(path.to_owned(), None), path),
        }
    }

    /// # Errors
    /// Where it cannot get its place. Then it is removed.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Stream(mut stream) => Ok(stream.flush()?),
            Self::File(file, path) => {
                at(file.as_file().sync_all(), &path)?;
                let Err(refused) = file.persist(&path) else { return Ok(()) };
                // Where something is mounted in its place, that is written.
                let copied = refused.file.reopen().and_then(|mut complete| {
                    io::copy(&mut complete, &mut File::options().write(true).truncate(true).open(&path)?)
                });
                copied.map(drop).with_context(|| format!("{}: {}", path.display(), refused.error))
            }
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.write(bytes),
            Self::File(file, _) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.flush(),
            Self::File(file, _) => file.flush(),
        }
    }
}

/// Opens a file for writing from its beginning; a new one can be read by its owner alone.
pub(super) fn create(path: &Path) -> anyhow::Result<File> {
    at(File::options().write(true).create(true).truncate(true).mode(MODE).open(path), path)
}

/// A new file beside that place, with the mode of the one that is there.
fn beside(path: PathBuf, permissions: Option<Permissions>) -> io::Result<Destination> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".corro-export-").tempfile_in(folder)?; // of mode 0600
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    Ok(Destination::File(file, path))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Writes there; returns what is found there then.
    fn written(path: &Path) -> String {
        let mut destination = Destination::of(Some(path)).unwrap();
        destination.write_all(b"new").unwrap();
        destination.finish().unwrap();
        fs::read_to_string(path).unwrap()
    }

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_new_or_keeps_its_mode_and_a_link_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!((written(&at("new")).as_str(), mode(&at("new"))), ("new", 0o600));
        fs::write(at("old"), "old and longer").unwrap();
        fs::set_permissions(at("old"), Permissions::from_mode(0o640)).unwrap();
        symlink("old", at("link")).unwrap();
        assert_eq!((written(&at("link")).as_str(), mode(&at("old"))), ("new", 0o640));
        assert!(at("link").is_symlink());
        symlink("made", at("dangling")).unwrap();
        assert_eq!((written(&at("dangling")).as_str(), mode(&at("made"))), ("new", 0o600));
        assert_eq!(names(folder.path()), 5, "nothing else is left");
    }

    #[test]
    fn what_is_not_finished_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        fs::write(&path, "old").unwrap();
        let mut destination = Destination::of(Some(&path)).unwrap();
        destination.write_all(b"half").unwrap();
        drop(destination);
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(folder.path())), ("old", 1));
    }

    #[test]
    fn a_device_and_a_pipe_are_written_in_place() {
        let mut destination = Destination::of(Some(Path::new("/dev/null"))).unwrap();
        assert!(matches!(destination, Destination::Stream(_)) && destination.write_all(b"new").is_ok());
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
            .unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        let mut destination = Destination::of(Some(&pipe)).unwrap();
        destination.write_all(b"new").unwrap();
        destination.finish().unwrap();
        assert_eq!((reader.join().unwrap().as_str(), names(folder.path())), ("new", 1));
    }

    #[test]
    fn a_directory_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("none/")] {
            assert!(Destination::of(Some(&path)).is_err_and(|error| error.to_string().contains("directory")));
        }
        assert!(Destination::of(Some(&folder.path().join("none/file"))).is_err());
        assert_eq!(names(folder.path()), 0);
    }
}
