//! docker-compose as driver.

use std::process::{Output, Stdio};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::super::faults::{Cycle, Fault};

/// The compose project in this folder, whose services are called `gateway`, `db-0`, `db-1`, …
pub(crate) struct Compose {
    /// `docker-compose`, or `docker compose`.
    command: &'static [&'static str],
}

impl Compose {
    /// Finds the command.
    ///
    /// # Errors
    /// Where there is neither of both.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        for command in [["docker-compose"].as_slice(), &["docker", "compose"]] {
            let compose = Self { command };
            if compose.output(&["version"]).await.is_ok_and(|output| output.status.success()) {
                return Ok(compose);
            }
        }
        bail!("neither docker-compose nor docker compose can be run")
    }

    pub(super) async fn begin(&self, cycle: &Cycle) -> anyhow::Result<()> {
        self.run(&[verbs(cycle.fault)?.0, &cycle.process]).await
    }

    pub(super) async fn end(&self, cycle: &Cycle) -> anyhow::Result<()> {
        self.run(&[verbs(cycle.fault)?.1, &cycle.process]).await
    }

    async fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = self.output(arguments).await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.trim_end().lines().last().unwrap_or("it says nothing");
            bail!("{} {}: {last}", self.command.join(" "), arguments.join(" "));
        }
        Ok(())
    }

    async fn output(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let [program, first @ ..] = self.command else { unreachable!("a command has a program") };
        Command::new(program)
            .args(first)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("{} cannot be run", self.command.join(" ")))
    }
}

/// What begins a fault and what ends it.
fn verbs(fault: Fault) -> anyhow::Result<(&'static str, &'static str)> {
    match fault {
        Fault::Stop => Ok(("stop", "start")),
        Fault::Kill | Fault::Gateway => Ok(("kill", "start")),
        Fault::Hang => Ok(("pause", "unpause")),
        Fault::Wipe | Fault::Rollback => {
            bail!("{fault} is not supported with compose, which keeps its volumes")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::DriverKind;
    use super::*;

    #[test]
    fn has_words_for_all_that_it_supports() {
        for fault in DriverKind::Compose.faults() {
            assert!(verbs(*fault).is_ok(), "{fault}");
        }
        assert!(verbs(Fault::Wipe).is_err() && verbs(Fault::Rollback).is_err());
    }

    #[tokio::test]
    async fn a_command_that_fails_is_named_with_its_last_words() {
        let script = "echo first >&2; echo no such service: $1 >&2; exit 1";
        let compose = Compose { command: Box::leak(Box::new(["sh", "-c", script])) };
        let error = compose.run(&["stop", "db-9"]).await.unwrap_err().to_string();
        assert!(error.ends_with("stop db-9: no such service: db-9"), "{error}");
        let missing = Compose { command: &["/no/such/program"] };
        assert!(missing.run(&["stop"]).await.unwrap_err().to_string().contains("cannot be run"));
    }
}
