//! `API_TOKENS_FILE`: its tokens, and what happens when it changes.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::http::{Access, Token};

/// A file that holds more is another one.
const LONGEST: u64 = 1 << 20;

/// Between two looks at it.
const INTERVAL: Duration = Duration::from_secs(1);

/// The tokens of the file.
///
/// # Errors
/// One line that names the variable and the file. It does not show tokens.
pub(crate) fn read(path: &Path) -> Result<Vec<Token>, String> {
    let named = |reason: String| format!("API_TOKENS_FILE (--api-tokens-file): {}: {reason}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| named(error.to_string()))?;
    file.take(LONGEST).read_to_string(&mut text).map_err(|error| named(error.to_string()))?;
    Token::of_file(&text).map_err(|bad| named(bad.to_string()))
}

/// Lets the tokens of the file count beside the `others`, as they are from now on. While it cannot be read,
/// the tokens that it had stay valid.
pub(crate) async fn watch(path: PathBuf, others: Vec<Token>, access: Access, shutdown: CancellationToken) {
    let mut last = None;
    loop {
        let path = path.clone();
        // The disk may hang.
        let Ok(now) = spawn_blocking(move || read(&path)).await else { return };
        if last.as_ref() != Some(&now) {
            match &now {
                Ok(tokens) => {
                    access.replace([&others[..], tokens].concat());
                    if last.is_some() {
                        info!("the tokens are other ones; {}", access.summary());
                    }
                }
                Err(line) => warn!("{line}; the tokens that were read before stay valid"),
            }
            last = Some(now);
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::http::Role;

    #[tokio::test]
    async fn what_is_written_counts_a_moment_later_and_nonsense_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens");
        let token = |secret| Token::new("name", Role::Read, secret).expect("a token");
        let (access, shutdown) = (Access::default(), CancellationToken::new());
        std::fs::write(&path, token("one").line()).expect("a file");
        let others = vec![token("zero")];
        let watching = tokio::spawn(watch(path.clone(), others, access.clone(), shutdown.clone()));
        let knows = |secret| access.admit_token(Some(secret), Role::Read).is_ok();
        let until = async |condition: &dyn Fn() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while !condition() {
                assert!(Instant::now() < deadline, "it is not read again");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        until(&|| knows("one")).await;
        assert!(knows("zero") && !knows("two"));
        std::fs::write(&path, "nonsense").expect("a file");
        tokio::time::sleep(INTERVAL * 2).await;
        assert!(knows("one"));
        std::fs::write(&path, token("two").line()).expect("a file");
        until(&|| knows("two")).await;
        assert!(knows("zero") && !knows("one"));
        shutdown.cancel();
        watching.await.expect("it ends");
    }
}
