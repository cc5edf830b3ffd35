//! `corro import` and `corro export`: users from a file into a ring, and out of a ring into a file.
//!
//! An import goes through `POST /api/user/bulk`, in one request as long as nothing breaks. Every row has its
//! id before it is sent: the one that the file gives it, or one that follows from the content of the row (see
//! [`identity`]). So a row that is sent twice meets itself, and that is all that a broken connection, a
//! gateway that is started again or an import that is run again has to rely on: rows without a result are
//! sent once more. Where such a row turns out to exist, it is read and compared, to tell whether it was this
//! import that made it.
//!
//! An export reads pages of the list, from the first id to the last. It is no snapshot: a user that is made
//! or deleted meanwhile may be in it or not.
//!
//! * [`rows`]: from a file to rows. [`identity`]: ids for rows without one.
//! * [`stream`]: one bulk request. [`import`]: as many of them as it takes.
//! * [`export`]: the way out. [`progress`]: the line that is drawn meanwhile.

mod export;
mod identity;
mod import;
mod progress;
mod rows;
mod stream;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::load::client::Endpoint;

pub(crate) use export::{ExportArgs, export};
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
        let extension = file.and_then(Path::extension).and_then(|extension| extension.to_str());
        match (chosen, extension) {
            (Some(format), _) => Ok(format),
            (None, Some("csv")) => Ok(Self::Csv),
            (None, Some("ndjson" | "jsonl" | "json")) => Ok(Self::Ndjson),
            (None, None) => Ok(Self::Ndjson),
            (None, Some(other)) => {
                bail!("nothing is known of files that end in .{other}; say --format ndjson or --format csv")
            }
        }
    }
}

/// Where the gateway is, and how long to wait for it.
#[derive(Args, Debug)]
struct Gateway {
    /// The gateway
    #[arg(long, default_value = "http://localhost:3001", value_name = "URL")]
    url: String,
    /// What the gateway wants to be shown
    #[arg(long, env = "API_TOKEN", hide_env_values = true, value_name = "TEXT")]
    token: Option<String>,
    /// Give up when nothing goes on for so many seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience: u64,
}

impl Gateway {
    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        Endpoint::parse(&self.url, self.token.as_deref())
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}

/// `-` stands for the standard streams.
fn file(path: &Path) -> Option<PathBuf> {
    (path != Path::new("-")).then(|| path.to_owned())
}

/// Says which file it was.
fn at<T>(result: std::io::Result<T>, path: &Path) -> anyhow::Result<T> {
    result.with_context(|| path.display().to_string())
}
