//! The identity of the process: the folder of its data, and the file in it that names their owner.
//!
//! ```text
//! DATA_DIR/LOCK            held for as long as the process lives; names the holder
//! DATA_DIR/identity.json   name, incarnation, ring and view, and the gateway's term
//! DATA_DIR/primary/        RocksDB, copy of its own partition
//! DATA_DIR/replica/        RocksDB, copy of its predecessor's partition
//! DATA_DIR/*.mark          how much of each of them was on disk, as far as the process knows
//! DATA_DIR/*.damaged/      the last database that was found damaged and set aside; may be removed
//! ```
//!
//! A folder belongs to one name for ever. Data without the file that names their owner are not used: they
//! might be another's, and then users would appear in two partitions.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use protocol::InstanceName;
use protocol::message::link::{Gateway, Ring, Role, Term, View};
use protocol::placement::{Place, replicated_at};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::warn;
use uuid::Uuid;

/// What `identity.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The owner of the data.
    pub instance: InstanceName,
    /// Made with the folder: tells it from another that the same name had before.
    pub incarnation: Uuid,
    /// The ring that it joined; `None` until then.
    pub membership: Option<Membership>,
    /// Which gateway it takes orders from.
    #[serde(default)]
    pub grant: Grant,
}

/// What a process has granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The highest term that it has granted; 0 where it never granted any.
    pub term: Term,
    /// The gateway that holds it, with a host.
    pub holder: Option<Gateway>,
}

/// What a process persists of its ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Which ring.
    pub ring: Ring,
    /// The newest view of it that the process has received.
    pub view: View,
}

impl Membership {
    /// Whether the leader is changing of the partition of which the process at `place` holds the copy of that
    /// role.
    pub fn moves(&self, place: Place, role: Role) -> bool {
        let partition = match role {
            Role::Primary => Some(place),
            Role::Replica => replicated_at(place, self.ring.size),
        };
        partition
            .and_then(|number| self.view.leaders.get(usize::from(number)))
            .is_some_and(|lead| lead.promoting)
    }
}

/// The folder of a process's data, locked for this process for as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    folder: PathBuf,
    identity: Identity,
    /// The lock goes when the file is closed, also when the process is killed.
    _lock: File,
}

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Another process uses it.
    #[error("DATA_DIR: {name} cannot use {folder}: {holder} is using it", folder = folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// This process.
        name: InstanceName,
        /// The other one, as it says itself.
        holder: String,
    },
    /// It belongs to another name.
    #[error("DATA_DIR: {name} cannot use {folder}: it holds the data of {owner}", folder = folder.display())]
    Anothers {
        /// The folder.
        folder: PathBuf,
        /// This process.
        name: InstanceName,
        /// The name that it belongs to.
        owner: InstanceName,
    },
    /// It holds databases and nothing names their owner.
    #[error(
        "DATA_DIR: {name} cannot use {folder}: it holds users, and identity.json, which says whose they \
         are, is missing",
        folder = folder.display()
    )]
    Unsigned {
        /// The folder.
        folder: PathBuf,
        /// This process.
        name: InstanceName,
    },
    /// `identity.json` cannot be understood.
    #[error("DATA_DIR: {file} is damaged: {error}", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The file system says no.
    #[error("DATA_DIR: {path}: {error}", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
}

impl DataDir {
    /// Opens the folder, or makes it, for the process of that name.
    ///
    /// # Errors
    /// Where another process uses it, it is another's, or it cannot be read or written.
    pub fn open(folder: &Path, name: &InstanceName) -> Result<Self, IdentityError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        // It may have been made with another mask, by an earlier program or an operator. Another owner
        // decides for itself.
        if let Err(error) = fs::set_permissions(folder, Permissions::from_mode(0o700)) {
            warn!(folder = %folder.display(), %error, "others may be able to read the data folder");
        }
        let lock = lock(folder, name)?;
        remove_trash(folder)?;
        let identity = match read(folder)? {
            Some(identity) if identity.instance == *name => identity,
            Some(Identity { instance: owner, .. }) => {
                return Err(IdentityError::Anothers { folder: folder.into(), name: name.clone(), owner });
            }
            None if Role::ALL.iter().any(|role| folder.join(role.as_str()).exists()) => {
                return Err(IdentityError::Unsigned { folder: folder.into(), name: name.clone() });
            }
            None => {
                let new = Identity {
                    instance: name.clone(),
                    incarnation: Uuid::new_v4(),
                    membership: None,
                    grant: Grant::default(),
                };
                write(folder, &new)?;
                new
            }
        };
        Ok(Self { folder: folder.into(), identity, _lock: lock })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The owner of the data.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Persists a ring and a view, on disk when it returns. It blocks: not for a task of the runtime.
    ///
    /// # Errors
    /// If it cannot be written; the old state stands then.
    pub fn persist(&mut self, membership: Membership) -> Result<(), IdentityError> {
        self.replace(Identity { membership: Some(membership), ..self.identity.clone() })
    }

    /// Persists a grant in the same way.
    ///
    /// # Errors
    /// As for [`Self::persist`].
    pub fn persist_grant(&mut self, grant: Grant) -> Result<(), IdentityError> {
        self.replace(Identity { grant, ..self.identity.clone() })
    }

    fn replace(&mut self, identity: Identity) -> Result<(), IdentityError> {
        write(&self.folder, &identity)?;
        self.identity = identity;
        Ok(())
    }

    /// Sets the database of a copy aside, which must be closed. The next time it is opened, it is a new one.
    /// What was set aside before goes.
    ///
    /// # Errors
    /// If the file system does not allow it.
    pub fn set_aside(&self, role: Role) -> Result<(), IdentityError> {
        let (damaged, aside) = (self.copy(role), self.folder.join(format!("{}.damaged", role.as_str())));
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(at(&aside))?;
        }
        fs::rename(&damaged, &aside).map_err(at(&damaged))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(at(&self.folder))
    }

    /// The file beside the database of one of the copies that remembers how much of it was on disk.
    pub fn mark(&self, role: Role) -> PathBuf {
        self.folder.join(format!("{}.mark", role.as_str()))
    }

    /// Folder of one of the copies' database.
    pub fn copy(&self, role: Role) -> PathBuf {
        self.folder.join(role.as_str())
    }
}

/// Removes a folder in which earlier programs kept what RocksDB had removed. It would take up room for ever.
fn remove_trash(folder: &Path) -> Result<(), IdentityError> {
    let trash = folder.join("trash");
    match fs::remove_dir_all(&trash) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&trash)(error)),
        _ => Ok(()),
    }
}

/// Turns an I/O error into one that says where.
fn at(path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |error| IdentityError::Io { path, error }
}

fn lock(folder: &Path, name: &InstanceName) -> Result<File, IdentityError> {
    let path = folder.join("LOCK");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Whatever can be read of it helps; the refusal stands anyway.
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                holder => holder.to_owned(),
            };
            return Err(IdentityError::InUse { folder: folder.into(), name: name.clone(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
    }
    let signed = file.set_len(0).and_then(|()| writeln!(file, "{name} (process {})", std::process::id()));
    signed.map_err(at(&path))?;
    Ok(file)
}

fn read(folder: &Path) -> Result<Option<Identity>, IdentityError> {
    let file = folder.join("identity.json");
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&file)(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| IdentityError::Damaged { file, error })
}

/// Replaces the file in one step: after a power cut, a reader finds the old or the new one, whole.
fn write(folder: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let (file, temporary) = (folder.join("identity.json"), folder.join("identity.json.new"));
    let text = serde_json::to_string_pretty(identity).expect("an identity has nothing that JSON lacks");
    let written = File::create(&temporary).and_then(|mut new| {
        new.write_all(text.as_bytes())?;
        new.sync_all()
    });
    written.map_err(at(&temporary))?;
    fs::rename(&temporary, &file).map_err(at(&file))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> InstanceName {
        text.parse().unwrap()
    }

    #[test]
    fn a_folder_keeps_its_identity_and_its_ring() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data/db-1");
        let mut first = DataDir::open(&folder, &name("db-1")).unwrap();
        assert_eq!(first.identity().membership, None);
        let ring = Ring { id: Uuid::new_v4(), size: 3, formed: true };
        let member = Membership { ring, view: View::first(3) };
        first.persist(member.clone()).unwrap();
        let identity = first.identity().clone();
        drop(first);
        let second = DataDir::open(&folder, &name("db-1")).unwrap();
        assert_eq!(*second.identity(), identity);
        assert_eq!(second.identity().membership, Some(member));
    }

    #[test]
    fn a_folder_that_others_could_read_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        drop(DataDir::open(folder.path(), &name("db-1")).unwrap());
        assert_eq!(folder.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_second_process_is_refused_and_both_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path(), &name("db-1")).unwrap();
        let message = DataDir::open(folder.path(), &name("db-2")).unwrap_err().to_string();
        assert!(message.contains("db-2 cannot use") && message.contains("db-1 (process "), "{message}");
        drop(first);
        DataDir::open(folder.path(), &name("db-1")).unwrap();
    }

    #[test]
    fn anothers_data_are_refused_and_both_are_named() {
        let folder = tempfile::tempdir().unwrap();
        drop(DataDir::open(folder.path(), &name("db-1")).unwrap());
        let message = DataDir::open(folder.path(), &name("db-2")).unwrap_err().to_string();
        assert!(message.contains("db-2 cannot use") && message.contains("the data of db-1"), "{message}");
    }

    #[test]
    fn users_without_an_identity_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("replica")).unwrap();
        let message = DataDir::open(folder.path(), &name("db-1")).unwrap_err().to_string();
        assert!(message.contains("identity.json") && message.contains("db-1"), "{message}");
    }

    #[test]
    fn a_damaged_identity_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("identity.json");
        fs::write(&file, "{").unwrap();
        let message = DataDir::open(folder.path(), &name("db-1")).unwrap_err().to_string();
        assert!(message.contains("identity.json is damaged"), "{message}");
        assert_eq!(fs::read_to_string(file).unwrap(), "{");
    }
}
