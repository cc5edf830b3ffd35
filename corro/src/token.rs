//! `corro token`: makes tokens of the API.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use gateway::http::{Role, Token};

use crate::terminal::say;

/// `corro token`.
#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    order: Order,
}

#[derive(Subcommand, Debug)]
enum Order {
    /// Make a token: it is printed once, and then the line that stands for it in API_TOKENS_FILE
    New {
        /// What it allows
        #[arg(value_enum)]
        role: Role,
        /// What it is called in the list and in logs [default: the role]
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// Add the line to this file; a new one can be read by its owner alone
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// # Errors
/// Where the name is not allowed, or the file cannot be written.
pub(crate) fn run(TokenArgs { order }: TokenArgs) -> anyhow::Result<()> {
    let Order::New { role, name, file } = order;
    let secret = random()?;
    let token = Token::new(name.as_deref().unwrap_or(role.as_str()), role, &secret);
    let line = token.map_err(|why| anyhow!("--name: {why}"))?.line();
    if let Some(file) = &file {
        add(file, &line).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    say(&format!("token  {secret}"));
    say(&format!("line   {line}"));
    Ok(())
}

/// A new token: 256 random bits, so that no one guesses it.
///
/// # Errors
/// Where the system has no random numbers.
pub(crate) fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random numbers: {error}"))?;
    Ok(format!("corro_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

fn add(file: &Path, line: &str) -> std::io::Result<()> {
    let mut file = File::options().read(true).append(true).create(true).mode(0o600).open(file)?;
    // Its last line may lack an end.
    let mut last = [b'\n'];
    match file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)) {
        Err(error) if error.kind() != ErrorKind::InvalidInput => return Err(error),
        _ => {}
    }
    let between = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{between}{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tokens_are_long_and_each_is_another_one() {
        let tokens = [random().unwrap(), random().unwrap()];
        assert!(tokens[0] != tokens[1] && tokens[0].len() == 49, "{tokens:?}");
    }

    #[test]
    fn a_line_is_added_to_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        add(&file, "one").unwrap();
        add(&file, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "# mine").unwrap();
        add(&file, "three").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\nthree\n");
    }
}
