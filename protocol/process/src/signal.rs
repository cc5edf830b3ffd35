//! The end of a process, asked for from outside.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGTERM, SIGINT, or SIGHUP (the terminal is closed). Call it inside
/// a tokio runtime, once, and early: from then on those signals no longer end the process by themselves.
pub fn shutdown_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let listen = |kind| signal(kind).expect("inside a runtime, this signal can be listened for");
    let mut terminate = listen(SignalKind::terminate());
    let mut interrupt = listen(SignalKind::interrupt());
    let mut hangup = listen(SignalKind::hangup());
    tokio::spawn({
        let token = token.clone();
        async move {
            let signal = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => "SIGHUP",
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
    async fn a_signal_cancels_the_token_and_the_process_lives_on() {
        for signal in ["TERM", "INT", "HUP"] {
            let token = shutdown_on_signal();
            assert!(!token.is_cancelled());
            let kill = format!("kill -{signal} {}", id());
            let kill = Command::new("sh").args(["-c", &kill]).stdin(Stdio::null()).status();
            assert!(kill.unwrap().success());
            tokio::time::timeout(Duration::from_secs(10), token.cancelled()).await.expect(signal);
        }
    }
}
