//! What an operator does about an error that ends a db-process: one or two plain sentences after the error.
//!
//! A damaged database is not repaired: it is moved away, and the process begins with an empty one, which is
//! filled from the other copy of the partition while that leads. An empty copy neither leads nor serves, so
//! nothing is lost where the other one does not lead: the partition is refused until an operator decides. The
//! folder of the one database is enough. The other database is sound, and the second copy of another
//! partition. `identity.json` stays: it remembers the view, as a witness for a gateway that starts
//! (`gateway/src/engine/view.rs`).
//!
//! Without `identity.json` nothing says to which process and which ring the databases belong, so the whole
//! folder is emptied. An older `identity.json` must not be restored: the view in it may be out of date, and
//! would count.
//!
//! A disk that is full, read-only or not permitted is not damage, and there nothing is to be removed.

use std::io;
use std::path::PathBuf;

use protocol::InstanceName;
use protocol::message::link::{Ring, Role};
use protocol::placement::{replica_of, replicated_at};
use rocksdb::ErrorKind;

use crate::identity::IdentityError;
use crate::store::{DecodeError, StoreError};

/// What a remedy begins with. `corro demo` recognises it.
pub const WHAT_TO_DO: &str = "What to do:";

/// A process, as far as a remedy names it.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Its name.
    pub name: InstanceName,
    /// Its `DATA_DIR`.
    pub folder: PathBuf,
    /// The ring that the data belong to; `None` where none was joined yet, or that is not known.
    pub ring: Option<Ring>,
}

/// What is behind an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// What is on the disk is not what was written.
    Damage,
    /// What is on the disk has a format that this program does not have.
    Format,
    Full,
    ReadOnly,
    Denied,
    OpenFiles,
    /// The disk neither reads nor writes.
    Disk,
}

/// How the operating system words its refusals. RocksDB hands these texts on, and nothing else of them.
const REFUSALS: [(&str, Cause); 7] = [
    ("No space left on device", Cause::Full),
    ("Disk quota exceeded", Cause::Full),
    ("Read-only file system", Cause::ReadOnly),
    ("Permission denied", Cause::Denied),
    ("Operation not permitted", Cause::Denied),
    ("Too many open files", Cause::OpenFiles),
    ("Input/output error", Cause::Disk),
];

impl Owner {
    /// The error of a copy's database, with what to do about it.
    pub fn of_copy(&self, role: Role, error: StoreError) -> anyhow::Error {
        let remedy = cause_of(&error).map(|cause| self.remedy(cause, |owner| owner.copy_damaged(role)));
        with(anyhow::Error::new(error), remedy)
    }

    /// The error of the folder or of its `identity.json`, with what to do about it.
    pub fn of_folder(&self, error: IdentityError) -> anyhow::Error {
        let cause = match &error {
            IdentityError::Io { error, .. } => refusal(&error.to_string()),
            IdentityError::Damaged { .. } | IdentityError::Unsigned { .. } => Some(Cause::Damage),
            // They say all there is to say.
            IdentityError::InUse { .. } | IdentityError::Anothers { .. } => None,
        };
        let remedy = cause.map(|cause| self.remedy(cause, Self::identity_damaged));
        with(anyhow::Error::new(error), remedy)
    }

    fn remedy(&self, cause: Cause, damaged: impl FnOnce(&Self) -> String) -> String {
        let (name, folder) = (&self.name, self.folder.display());
        match cause {
            Cause::Damage => damaged(self),
            Cause::Format => format!(
                "if a newer program ran on {folder}, start that one again: nothing is damaged. Otherwise {}",
                damaged(self)
            ),
            Cause::Full => format!(
                "nothing is damaged, so remove nothing in {folder}: make room on its disk and start {name} \
                 again, and it goes on from where it was."
            ),
            Cause::ReadOnly => format!(
                "remove nothing in {folder}: its file system is read-only (also where the system has found \
                 its disk failing, which the system's log tells). Make it writable and start {name} again."
            ),
            Cause::Denied => format!(
                "nothing is damaged, so remove nothing: let the user that runs {name} read and write \
                 {folder} and all that is in it, and start {name} again."
            ),
            Cause::OpenFiles => format!(
                "nothing is damaged, so remove nothing in {folder}: allow {name} more open files (`ulimit \
                 -n`) and start it again."
            ),
            Cause::Disk => format!(
                "the disk of {folder} fails, as the system's log tells: start {name} with an empty DATA_DIR \
                 on another disk. {}",
                self.filled_by_others()
            ),
        }
    }

    /// A database is to be moved away.
    fn copy_damaged(&self, role: Role) -> String {
        let (name, folder, kind) = (&self.name, self.folder.display(), role.as_str());
        let database = self.folder.join(kind).display().to_string();
        let Some(ring) = self.ring.filter(|ring| ring.formed) else {
            return format!(
                "{database} is damaged, and {name} belongs to no ring yet, so there are no users in it: \
                 remove this folder and start {name} again."
            );
        };
        // The partition of the copy, and where its other copy is.
        let (partition, other) = match role {
            Role::Primary => (Some(name.place()), replica_of(name.place(), ring.size)),
            Role::Replica => {
                let partition = replicated_at(name.place(), ring.size);
                (partition, partition)
            }
        };
        match (partition, other.map(|other| name.neighbour(other))) {
            (None, _) => {
                format!("{database} is not used in a ring of one: remove this folder and start {name} again.")
            }
            (Some(_), None) => format!(
                "{database} is damaged, and in a ring of one there is no other copy: keep this folder. \
                 Start {name} with an empty DATA_DIR and import what was exported last."
            ),
            (Some(partition), Some(other)) => format!(
                "{database} is damaged, the {kind} copy of partition {partition}: move this folder away, \
                 nothing else in {folder}, and start {name} again. {other} fills the new copy while it leads \
                 partition {partition}, and {SHOWN}; where `lead` there is null, `corro promote {partition}` \
                 lets {other} lead with what it has."
            ),
        }
    }

    /// The whole folder is to be emptied.
    fn identity_damaged(&self) -> String {
        let (name, folder) = (&self.name, self.folder.display());
        format!(
            "nothing else tells whose data these are. If {folder} is not the folder of {name}, set DATA_DIR \
             right. If it is, move all that is in it away, also what is whole, and start {name} again. {}",
            self.filled_by_others()
        )
    }

    /// What comes of an emptied folder.
    fn filled_by_others(&self) -> String {
        let place = self.name.place();
        let before = match (place, self.ring) {
            (_, Some(ring)) => replicated_at(place, ring.size).map(|number| number.to_string()),
            (0, None) => Some("the last one".to_owned()),
            (_, None) => Some((place - 1).to_string()),
        };
        let both = before.map_or_else(|| place.to_string(), |before| format!("{place} and {before}"));
        format!(
            "The other processes fill its new copies while they lead partitions {both}, and {SHOWN}; where \
             `lead` there is null, `corro promote` lets the other process lead with what it has."
        )
    }
}

/// Where an operator sees how far it is.
const SHOWN: &str = "`waiting_for` in the gateway's /api/cluster (and on its ring page) is null when that \
                     is done and the old files may go";

fn with(error: anyhow::Error, remedy: Option<String>) -> anyhow::Error {
    match remedy {
        None => error,
        Some(remedy) => anyhow::anyhow!("{error}. {WHAT_TO_DO} {remedy}"),
    }
}

fn refusal(text: &str) -> Option<Cause> {
    REFUSALS.iter().find(|(refusal, _)| text.contains(refusal)).map(|(_, cause)| *cause)
}

fn cause_of(error: &StoreError) -> Option<Cause> {
    match error {
        StoreError::Open { source, .. } | StoreError::Database(source) => {
            // Also where RocksDB calls it a corruption that a file cannot be opened.
            refusal(source.as_ref()).or_else(|| match source.kind() {
                ErrorKind::Corruption => Some(Cause::Damage),
                ErrorKind::IOError if source.as_ref().contains("No such file") => Some(Cause::Damage),
                _ => None,
            })
        }
        StoreError::Unreadable {
            source: DecodeError::UnknownFormat(_) | DecodeError::UnknownFlags(_),
            ..
        } => Some(Cause::Format),
        StoreError::Unreadable { .. }
        | StoreError::Inconsistent(_)
        | StoreError::Missing { .. }
        | StoreError::LogDamaged { .. }
        | StoreError::Incomplete { .. } => Some(Cause::Damage),
        StoreError::File { kind, .. } => match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Cause::Full),
            io::ErrorKind::ReadOnlyFilesystem => Some(Cause::ReadOnly),
            io::ErrorKind::PermissionDenied => Some(Cause::Denied),
            _ => None,
        },
        StoreError::NoThread(_) | StoreError::Poisoned => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use uuid::Uuid;

    use super::*;
    use crate::identity::DataDir;
    use crate::store::{Batch, BlockCache, Durability, RocksStore, Store};

    type Harm = fn(&Path);

    fn owner(folder: &Path, size: u16) -> Owner {
        let ring = (size > 0).then(|| Ring { id: Uuid::nil(), size, formed: true });
        Owner { name: "db-1".parse().unwrap(), folder: folder.to_owned(), ring }
    }

    /// A database with tables and a log, closed.
    fn database(folder: &Path) {
        let mut store = RocksStore::open(folder, &BlockCache::default()).unwrap();
        let batch = Batch::new(store.meta().unwrap());
        store.commit(&batch, Durability::Synced).unwrap();
        store.flush().unwrap();
        store.commit(&batch, Durability::Synced).unwrap();
    }

    /// The files of a database with that beginning or end.
    fn files(database: &Path, kind: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(database).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(kind) || name.ends_with(kind)
        });
        files.sort();
        assert!(!files.is_empty(), "no {kind}");
        files
    }

    fn opened(folder: &Path) -> Result<(), StoreError> {
        RocksStore::open(folder, &BlockCache::default()).map(drop)
    }

    #[test]
    fn each_kind_of_damage_to_a_database_is_named_with_what_to_do() {
        let harms: [(&str, Harm); 4] = [
            ("missing", |path| fs::remove_file(path).unwrap()),
            ("empty", |path| drop(File::create(path).unwrap())),
            ("half", |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            }),
            ("garbage", |path| fs::write(path, vec![0x5a; 100]).unwrap()),
        ];
        for kind in [".sst", "CURRENT", "MANIFEST"] {
            for (harm, act) in harms {
                // RocksDB takes a manifest that is cut for one that a power cut has torn, and goes back to
                // what it says.
                if (kind, harm) == ("MANIFEST", "half") {
                    continue;
                }
                let folder = tempfile::tempdir().unwrap();
                let primary = folder.path().join("primary");
                database(&primary);
                files(&primary, kind).iter().for_each(|path| act(path));
                let error = opened(&primary).expect_err(&format!("{kind} {harm}"));
                assert_eq!(cause_of(&error), Some(Cause::Damage), "{kind} {harm}: {error:?}");
                let line = format!("{:#}", owner(folder.path(), 3).of_copy(Role::Primary, error));
                assert!(line.contains(WHAT_TO_DO) && !line.contains('\n'), "{line}");
                assert!(line.contains(&format!("{} is damaged", primary.display())), "{line}");
            }
        }
    }

    #[test]
    fn a_database_opens_without_the_files_that_rocksdb_only_writes() {
        let folder = tempfile::tempdir().unwrap();
        database(folder.path());
        files(folder.path(), "OPTIONS").iter().for_each(|path| fs::write(path, "garbage").unwrap());
        files(folder.path(), "IDENTITY").iter().for_each(|path| fs::remove_file(path).unwrap());
        assert_eq!(opened(folder.path()), Ok(()));
        files(folder.path(), "OPTIONS").iter().for_each(|path| fs::remove_file(path).unwrap());
        assert_eq!(opened(folder.path()), Ok(()));
    }

    #[test]
    fn what_is_not_damage_tells_to_remove_nothing() {
        let folder = Path::new("/data/db-1");
        for (number, wanted) in [
            (rustix::io::Errno::NOSPC, "make room on its disk"),
            (rustix::io::Errno::DQUOT, "make room on its disk"),
            (rustix::io::Errno::ROFS, "its file system is read-only"),
            (rustix::io::Errno::ACCESS, "let the user that runs db-1 read and write"),
            (rustix::io::Errno::PERM, "let the user that runs db-1 read and write"),
            (rustix::io::Errno::MFILE, "more open files"),
        ] {
            let system = || io::Error::from(number);
            // As RocksDB words it when it opens a table.
            let text =
                format!("Corruption: IO error: While open a file for random read: /1.sst: {}", system());
            assert_eq!(refusal(&text), refusal(&system().to_string()), "{text}");
            let error = IdentityError::Io { path: folder.join("identity.json"), error: system() };
            let line = format!("{:#}", owner(folder, 3).of_folder(error));
            assert!(line.contains(wanted) && line.contains("remove nothing"), "{line}");
            assert!(!line.contains(" move ") && !line.contains('\n'), "{line}");
        }
        let error = io::Error::from(io::ErrorKind::NotADirectory);
        let other = owner(folder, 3).of_folder(IdentityError::Io { path: folder.into(), error }).to_string();
        assert!(!other.contains(WHAT_TO_DO), "{other}");
    }

    #[test]
    fn what_to_do_depends_on_the_ring() {
        let lines = |size, role| {
            owner(Path::new("/data/db-1"), size)
                .of_copy(role, StoreError::Inconsistent(String::new()))
                .to_string()
        };
        let line = lines(3, Role::Primary);
        assert!(line.contains("the primary copy of partition 1: move this folder away"), "{line}");
        assert!(
            line.contains("db-2 fills the new copy while it leads partition 1")
                && line.contains("`corro promote 1` lets db-2"),
            "{line}"
        );
        let line = lines(3, Role::Replica);
        assert!(line.contains("/data/db-1/replica is damaged, the replica copy of partition 0"), "{line}");
        assert!(line.contains("db-0 fills the new copy while it leads partition 0"), "{line}");
        let line = lines(1, Role::Primary);
        assert!(line.contains("keep this folder") && !line.contains("away"), "{line}");
        let line = lines(0, Role::Primary);
        assert!(line.contains("no users in it: remove this folder"), "{line}");
        let newer =
            StoreError::Unreadable { what: "a record".to_owned(), source: DecodeError::UnknownFormat(9) };
        let line = owner(Path::new("/data/db-1"), 3).of_copy(Role::Primary, newer).to_string();
        assert!(
            line.contains("start that one again: nothing is damaged. Otherwise /data/db-1/primary"),
            "{line}"
        );
        let poisoned =
            owner(Path::new("/data/db-1"), 3).of_copy(Role::Primary, StoreError::Poisoned).to_string();
        assert!(!poisoned.contains(WHAT_TO_DO), "{poisoned}");
    }

    #[test]
    fn without_an_identity_the_whole_folder_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("db-1");
        drop(DataDir::open(&folder, &"db-1".parse().unwrap()).unwrap());
        database(&folder.join("primary"));
        let advice = |place: &str| {
            let name: InstanceName = place.parse().unwrap();
            let error = DataDir::open(&folder, &name).unwrap_err();
            Owner { name, ..owner(&folder, 0) }.of_folder(error).to_string()
        };
        assert!(!advice("db-2").contains(WHAT_TO_DO), "another's folder is named, and that is all");
        for text in ["", "{", "null", "{\"instance\": \"db-1\"}", "\u{0}\u{0}\u{0}"] {
            fs::write(folder.join("identity.json"), text).unwrap();
            let line = advice("db-1");
            assert!(
                line.contains("identity.json is damaged") && line.contains("set DATA_DIR right"),
                "{line}"
            );
            assert!(line.contains("lead partitions 1 and 0"), "{line}");
        }
        fs::remove_file(folder.join("identity.json")).unwrap();
        let line = advice("db-0");
        assert!(
            line.contains("is missing. What to do") && line.contains("partitions 0 and the last one"),
            "{line}"
        );
        // What the line says.
        fs::remove_dir_all(&folder).unwrap();
        DataDir::open(&folder, &"db-1".parse().unwrap()).unwrap();
    }
}
