//! No orphans: a process that ends with its parent.

use std::num::NonZeroU32;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::Command;

/// From now on the kernel sends this process `signal` when its parent ends, however the parent ends.
///
/// `parent` is the process id that the parent gave: where it has ended already, the kernel would send
/// nothing. The kernel goes by the parent's *thread* that started this process, so parents start their
/// children from their main thread.
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

/// A child that ends with this process: another executable of corro, or this one. Start it on the main
/// thread: see [`end_with`].
///
/// # Errors
/// If the system does not say where this executable is.
pub(crate) fn child(executable: Option<&Path>) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("this executable cannot be found")?;
    let mut command = Command::new(executable.unwrap_or(&own));
    command
        .arg(format!("--exit-with-parent={}", std::process::id()))
        .stdin(Stdio::null())
        .process_group(0) // Ctrl-C is for this process, which stops its children in order
        .kill_on_drop(true);
    Ok(command)
}

/// Sends a signal to a process.
///
/// # Errors
/// Where there is no such process, or the system refuses.
pub(crate) fn send_signal(pid: u32, signal: Signal) -> rustix::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.ok_or(rustix::io::Errno::SRCH)?, signal)
}
