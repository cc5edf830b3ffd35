//! No orphans: a process that ends with the one that started it.

use std::num::NonZeroU32;

use anyhow::{Context, ensure};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// From now on the kernel sends this process `signal` when its parent ends, however the parent ends.
///
/// `parent` is the process id that the parent gave: where it is gone already, the kernel would never tell.
/// The kernel goes by the parent's *thread* that started this process, so parents start their children from
/// their main thread.
///
/// # Errors
/// Where the parent has ended already, which means: end now.
pub(crate) fn end_with(parent: NonZeroU32, signal: Signal) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(signal))
        .context("the kernel does not watch over the parent process")?;
    let now = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    ensure!(now.unsigned_abs() == parent.get(), "process {parent}, which started this one, has ended");
    Ok(())
}
