//! `corro secret`: makes the file for `CLUSTER_SECRET_FILE`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use clap::Args;
use process::{Secret, secret};

use crate::terminal::say;

/// What the command is given.
#[derive(Args, Debug)]
pub(crate) struct SecretArgs {
    /// The file; one that is there already stays as it is
    file: PathBuf,
    /// Writes this secret instead of a new one, also over another; a blank one counts as none
    #[arg(long, env = "CLUSTER_SECRET", hide_env_values = true, value_name = "TEXT")]
    cluster_secret: Option<Given>,
}

/// A secret, or a blank text, as Compose passes a variable on that is not set.
#[derive(Clone, Debug)]
struct Given(Option<Secret>);

impl FromStr for Given {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.parse().ok()))
    }
}

/// Makes the file.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn run(args: SecretArgs) -> anyhow::Result<()> {
    let made = match args.cluster_secret.and_then(|given| given.0) {
        Some(given) => secret::put_file(&args.file, &given),
        None => secret::make_file(&args.file),
    };
    let file = args.file.display();
    let what = if made.with_context(|| format!("{file} cannot be made"))? { "made" } else { "there already" };
    say(&format!("{file}: {what}"));
    Ok(())
}
