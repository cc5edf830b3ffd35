//! The end of a process, asked for from outside.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGTERM or SIGINT. Call it inside a tokio runtime, once, and early:
/// from then on those signals no longer end the process by themselves.
pub fn shutdown_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let mut terminate =
        signal(SignalKind::terminate()).expect("inside a runtime, SIGTERM can be listened for");
    let mut interrupt =
        signal(SignalKind::interrupt()).expect("inside a runtime, SIGINT can be listened for");
    tokio::spawn({
        let token = token.clone();
        async move {
            let signal = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal, "asked to stop");
            token.cancel();
        }
    });
    token
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio, id};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn sigterm_cancels_the_token_and_the_process_lives_on() {
        let token = shutdown_on_signal();
        assert!(!token.is_cancelled());
        let kill =
            Command::new("sh").args(["-c", &format!("kill -TERM {}", id())]).stdin(Stdio::null()).status();
        assert!(kill.unwrap().success());
        tokio::time::timeout(Duration::from_secs(10), token.cancelled()).await.expect("cancelled by SIGTERM");
    }
}
