//! `corro import` and `corro export`: users from a file into a ring, and from a ring into a file.
//!
//! An import sends requests to `POST /api/user/bulk`, one after the other. Every row has its id before it is
//! sent: the one that the file gives it, or one that follows from the content of the row (see [`identity`]).
//! So a row that is sent twice meets itself, and that is all that a broken connection, a gateway that is
//! started again or an import that is run again has to rely on: rows without a result are sent once more.
//! Where such a row turns out to exist, it is read and compared, to find out whether this import made it.
//!
//! An export reads pages of the list, from the first id to the last. It is no snapshot: a user that is made
//! or deleted meanwhile may be in it or not.
//!
//! [`records`]: from bytes to records, [`rows`]: from these to rows. [`identity`]: ids for rows without one.
//! [`destination`]: where an export goes. [`mod@import`] and [`mod@export`]: both ways.

mod destination;
mod export;
mod identity;
mod import;
mod records;
mod rows;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use export::{ExportArgs, Pages, export};
pub(crate) use import::{ImportArgs, import};

/// Between two attempts, while there is no gateway or a partition is down.
const PAUSE: Duration = Duration::from_millis(200);

/// How users stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line
    Ndjson,
    /// Comma-separated, with a header: id,name,email,group
    Csv,
}

impl Format {
    /// As it was asked for, or as the name of the file says.
    fn of(chosen: Option<Self>, file: Option<&Path>) -> anyhow::Result<Self> {
        let extension =
            file.and_then(Path::extension).map(|extension| extension.to_string_lossy().to_lowercase());
        match (chosen, extension.as_deref()) {
            (Some(format), _) => Ok(format),
            (None, Some("csv")) => Ok(Self::Csv),
            (None, Some("ndjson" | "jsonl" | "json") | None) => Ok(Self::Ndjson),
            (None, Some(other)) => {
                bail!("nothing is known of files that end in .{other}; say --format ndjson or --format csv")
            }
        }
    }
}

/// Shows on a terminal how many users there were so far, and the share of `length` where that is known.
fn progress(what: &'static str, length: Option<u64>) -> ProgressBar {
    let rest = if length.is_some() { ", {percent} %, {eta} left" } else { "" };
    let style = ProgressStyle::with_template(&format!("{what} {{msg}}{rest}"));
    ProgressBar::new(length.unwrap_or(0)).with_style(style.expect("the template is sound"))
}

fn show(progress: &ProgressBar, users: u64) {
    let rate = users as f64 / progress.elapsed().as_secs_f64().max(0.001);
    progress.set_message(format!("{users} users, {rate:.0} users/s"));
}

/// `-` stands for the standard streams.
fn file(path: &Path) -> Option<PathBuf> {
    (path != Path::new("-")).then(|| path.to_owned())
}

/// Says which file it was.
fn at<T>(result: std::io::Result<T>, path: &Path) -> anyhow::Result<T> {
    result.with_context(|| path.display().to_string())
}
