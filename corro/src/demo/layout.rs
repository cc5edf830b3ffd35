//! Where a demo keeps what it writes, and the size of the ring that is kept there.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::token;

/// Size of a new ring, where none is asked for.
const DEFAULT_SIZE: u16 = 3;

/// The paths below the folder of a demo.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// `.corro`, where no other is asked for.
    pub(crate) folder: PathBuf,
    /// One folder a db-process.
    pub(crate) data: PathBuf,
    /// One folder a process for its daily log, and beside it what it printed.
    pub(crate) logs: PathBuf,
    /// The secret of the ring, for its owner alone; made with the folder.
    pub(crate) secret: PathBuf,
    /// The second terminal's way to the demo.
    pub(crate) socket: PathBuf,
    /// A token of the role admin.
    pub(crate) token: PathBuf,
    /// The header that shows it, for `curl -H @FILE`: a command line can be read by others.
    pub(crate) header: PathBuf,
    lock: PathBuf,
}

impl Layout {
    pub(crate) fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            data: folder.join("data"),
            logs: folder.join("logs"),
            secret: folder.join("secret"),
            socket: folder.join("demo.sock"),
            token: folder.join("token"),
            header: folder.join("auth"),
            lock: folder.join("demo.lock"),
        }
    }

    /// The token of the ring. Where there is none yet, it is made; it stays, so that what uses it continues
    /// to work.
    ///
    /// # Errors
    /// Where it can neither be read nor be written.
    pub(crate) fn make_token(&self) -> anyhow::Result<String> {
        let token = match std::fs::read_to_string(&self.token) {
            Ok(token) if !token.trim().is_empty() => token.trim().to_owned(),
            _ => token::random()?,
        };
        for (path, text) in
            [(&self.token, format!("{token}\n")), (&self.header, format!("authorization: Bearer {token}\n"))]
        {
            let write = || {
                // One that is there may have another mode.
                let _ = std::fs::remove_file(path);
                File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)?
                    .write_all(text.as_bytes())
            };
            write().with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(token)
    }

    /// Where a process prints to.
    pub(crate) fn output_of(&self, process: &str) -> PathBuf {
        self.logs.join(format!("{process}.out"))
    }

    /// The socket by a path that the kernel takes, which is at most 107 bytes long, however long the name of
    /// the folder is. It holds while the file is open.
    pub(crate) fn short_socket(&self) -> std::io::Result<(File, PathBuf)> {
        let folder = File::open(&self.folder)?;
        let name = self.socket.file_name().unwrap_or_default();
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok((folder, path))
    }

    /// Makes the folders and takes them for this demo, until the returned file is dropped.
    ///
    /// The lock is the kernel's: it ends with the process, so its owner may remove a socket that is left
    /// over.
    ///
    /// # Errors
    /// Where another demo runs here.
    pub(crate) fn take(&self) -> anyhow::Result<File> {
        // RocksDB would use another folder.
        let name = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        ensure!(name.to_str().is_some(), "{name:?} is not UTF-8; choose another folder with --folder");
        for folder in [&self.data, &self.logs] {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&self.lock);
        let mut lock = open.with_context(|| format!("{} cannot be opened", self.lock.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner); // only for the message
                bail!(
                    "a demo runs in {} already (process {}); stop it first, or choose another folder with \
                     --folder",
                    self.folder.display(),
                    owner.trim()
                );
            }
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{} cannot be locked", self.lock.display()));
            }
        }
        process::secret::make_file(&self.secret)
            .with_context(|| format!("{} cannot be made", self.secret.display()))?;
        lock.set_len(0)?;
        write!(lock, "{}", std::process::id())?;
        if let Err(error) = std::fs::remove_file(&self.socket) {
            ensure!(
                error.kind() == ErrorKind::NotFound,
                "{} cannot be removed: {error}",
                self.socket.display()
            );
        }
        Ok(lock)
    }

    /// The size of the ring to start: the one that the folder holds, which cannot change, or else the one
    /// asked for.
    ///
    /// # Errors
    /// Where another size is asked for than the folder holds.
    pub(crate) fn ring_size(&self, asked: Option<u16>) -> anyhow::Result<u16> {
        let held = self.held()?;
        match (held, asked) {
            (0, asked) => Ok(asked.unwrap_or(DEFAULT_SIZE)),
            (held, Some(asked)) if asked != held => bail!(
                "{} holds a ring of {held} db-processes, whose size is fixed: leave out --db-processes \
                 (DB_PROCESSES) to start it again, or remove the folder {} and its users to start a ring of \
                 {asked}",
                self.data.display(),
                self.folder.display()
            ),
            (held, _) => Ok(held),
        }
    }

    /// How many db-processes have data here: they are numbered from 0 without a gap.
    fn held(&self) -> anyhow::Result<u16> {
        let mut held = 0;
        for entry in std::fs::read_dir(&self.data).with_context(|| self.data.display().to_string())? {
            let name = entry?.file_name();
            let place = name.to_str().and_then(|name| name.strip_prefix("db-")?.parse::<u16>().ok());
            held = held.max(place.map_or(0, |place| place.saturating_add(1)));
        }
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn one_demo_at_a_time_and_a_left_over_socket_goes() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(&folder.path().join(".corro"));
        std::fs::create_dir_all(&layout.folder).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&layout.socket).unwrap()); // stays as a file
        assert!(layout.socket.exists());
        let lock = layout.take().unwrap();
        assert!(!layout.socket.exists());
        let secret = std::fs::read(&layout.secret).unwrap();

        let refused = layout.take().unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(lock);
        // A process that another test has just started holds every file until it executes its program.
        let deadline = Instant::now() + Duration::from_secs(10);
        while layout.take().is_err() {
            assert!(Instant::now() < deadline, "the lock is still taken");
            std::thread::yield_now();
        }
        assert!(std::fs::read(&layout.secret).unwrap() == secret, "the ring keeps its secret");
    }

    #[test]
    fn a_folder_whose_name_is_no_text_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join(OsStr::from_bytes(b"r\xe9sum\xe9"));
        let refused = Layout::of(&odd).take().unwrap_err().to_string();
        assert!(refused.contains(r"r\xE9sum\xE9") && !odd.exists(), "{refused}");
    }

    #[test]
    fn the_token_is_kept_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        std::fs::write(&layout.header, "old").unwrap();
        let token = layout.make_token().unwrap();
        assert_eq!(layout.make_token().unwrap(), token);
        let header = std::fs::read_to_string(&layout.header).unwrap();
        assert_eq!(header, format!("authorization: Bearer {token}\n"));
        for file in [&layout.token, &layout.header] {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_size_of_a_ring_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        let _lock = layout.take().unwrap();
        assert_eq!(layout.ring_size(None).unwrap(), 3);
        assert_eq!(layout.ring_size(Some(5)).unwrap(), 5);
        for place in 0..5 {
            std::fs::create_dir(layout.data.join(format!("db-{place}"))).unwrap();
        }
        assert_eq!(layout.ring_size(None).unwrap(), 5);
        assert_eq!(layout.ring_size(Some(5)).unwrap(), 5);
        let refused = layout.ring_size(Some(3)).unwrap_err().to_string();
        assert!(refused.contains("ring of 5") && refused.contains("DB_PROCESSES"), "{refused}");
    }
}
