//! What both kinds of process do alike around their work.
//!
//! - [`mod@settings`]: from flags and environment variables, with one clear line where a value is bad
//! - [`mod@run`]: all of what follows around the work of a process
//! - [`start_log`]: daily files and stdout
//! - [`shutdown_on_signal`]: SIGTERM, SIGHUP and Ctrl-C become a token that is cancelled
//! - [`abort_on_panic`]: a bug ends the process, where it would otherwise end one task and leave a half of it
//!   at work
//! - [`mod@listen`]: opens a port on the addresses that it is to have
//! - [`server`]: serves HTTP on it, to callers that may be hostile
//! - [`Tls`]: its certificate, which is read again when it changes
//! - [`open_files`]: how many connections and files there may be
//! - [`LogThrottle`]: lines that would come again and again
//! - [`mod@handshake`]: how processes of a ring prove themselves to each other
//! - [`mod@secret`]: secrets, and the files that hold them
//! - [`resident_memory`]: how much memory it holds
//! - [`mod@probe`]: asks a process on this machine whether it is well
//!
//! Nothing here knows what the processes do.

mod files;
pub mod handshake;
mod listen;
mod log;
mod log_files;
mod memory;
mod panic;
mod probe;
mod ring_files;
mod run;
pub mod secret;
pub mod server;
mod settings;
mod signal;
mod throttle;
mod tls;

/// The allocator of everything that uses this crate, RocksDB included. A process of this ring allocates small
/// pieces on one thread and frees them on another all the time, which is what jemalloc is good at.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

pub use files::open_files;
pub use listen::{Addresses, Listener, listen};
pub use log::{LogGuard, start_log};
pub use memory::resident_memory;
pub use panic::abort_on_panic;
pub use probe::{probe, probe_at};
pub use ring_files::RingFiles;
pub use run::{keep_files_private, run};
pub use secret::Secret;
pub use settings::{CommonSettings, NodeEnv, complain, explain, settings};
pub use signal::shutdown_on_signal;
pub use throttle::LogThrottle;
pub use tls::{Tls, TlsFiles, certifies, provider, self_trusting};
