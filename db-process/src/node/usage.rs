//! What this process uses of its machine.

use std::fs;
use std::io;
use std::path::Path;

use protocol::message::link::Role;
use protocol::message::usage::{CopyUsage, ProcessUsage};

use super::Node;
use crate::store::StoreError;
use crate::worker::CopyHandle;

impl Node {
    /// What it uses now. It reads a folder and asks both databases, which takes milliseconds. What the system
    /// does not say is 0.
    ///
    /// # Errors
    /// If a database fails, now or before.
    pub fn usage(&self) -> Result<ProcessUsage, StoreError> {
        let folder = self.folder();
        let copies = Role::ALL.into_iter().map(|role| of_copy(self.copy(role)));
        Ok(ProcessUsage {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            memory_bytes: process::resident_memory().unwrap_or_default(),
            disk_bytes: size_of(folder).unwrap_or_default(),
            disk_free_bytes: rustix::fs::statvfs(folder).map_or(0, |disk| disk.f_bavail * disk.f_frsize),
            copies: copies.collect::<Result<_, _>>()?,
        })
    }
}

fn of_copy(copy: &CopyHandle) -> Result<CopyUsage, StoreError> {
    let meta = copy.meta()?;
    let database = copy.database_usage()?;
    Ok(CopyUsage {
        users: meta.users,
        op_log_entries: meta.head - meta.trimmed,
        table_files: database.table_files,
        table_bytes: database.table_bytes,
        memtable_bytes: database.memtable_bytes,
        pending_compaction_bytes: database.pending_compaction_bytes,
    })
}

/// What the files of a folder take on disk, and of those in it.
fn size_of(folder: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        // RocksDB may remove a file that was just listed.
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        size +=
            if metadata.is_dir() { size_of(&entry.path()).unwrap_or_default() } else { allocated(&metadata) };
    }
    Ok(size)
}

/// RocksDB reserves more for its log than it holds so far: that counts, and what was never written does not.
fn allocated(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.blocks() * 512
}
