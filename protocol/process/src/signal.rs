//! The end of a process, asked for from outside.

use std::future::pending;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

const SIGHUP: u32 = 1;

/// A token that is cancelled at the first SIGTERM, SIGINT, or SIGHUP (the terminal is closed). Call it inside
/// a tokio runtime, once, and early: from then on those signals no longer end the process by themselves. A
/// process that was started to ignore SIGHUP, as nohup(1) does, goes on to ignore it.
pub fn shutdown_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let listen = |kind| signal(kind).expect("inside a runtime, this signal can be listened for");
    let mut terminate = listen(SignalKind::terminate());
    let mut interrupt = listen(SignalKind::interrupt());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut hangup = (!ignores(&status, SIGHUP)).then(|| listen(SignalKind::hangup()));
    tokio::spawn({
        let token = token.clone();
        async move {
            let signal = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = received(&mut hangup) => "SIGHUP",
            };
            tracing::info!(signal, "asked to stop");
            token.cancel();
        }
    });
    token
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => pending().await,
    }
}

/// Whether a process ignores a signal, as its status says (proc(5), `SigIgn`).
fn ignores(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio, id};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_process_under_nohup_ignores_sighup() {
        let status = |command: &str| {
            let command = format!("{command} cat /proc/self/status 2>&1");
            let output = Command::new("sh").args(["-c", &command]).stdin(Stdio::null()).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        assert!(ignores(&status("trap '' HUP; exec"), SIGHUP));
        assert!(!ignores(&status("trap '' TERM; exec"), SIGHUP));
        assert!(!ignores("", SIGHUP));
    }

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
