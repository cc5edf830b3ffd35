//! A person as driver.

use std::io::Write as _;

use anyhow::{Context, ensure};

use super::super::faults::{Cycle, Fault};

/// Says what to do, and waits for Enter.
pub(crate) struct Manual;

impl Manual {
    pub(super) async fn begin(&self, cycle: &Cycle) -> anyhow::Result<()> {
        ask(&words(cycle).0).await
    }

    pub(super) async fn end(&self, cycle: &Cycle) -> anyhow::Result<()> {
        ask(&words(cycle).1).await
    }
}

/// What a person has to do to begin a fault and to end it.
fn words(Cycle { fault, process }: &Cycle) -> (String, String) {
    let start = format!("Start {process} again");
    match fault {
        Fault::Stop => (format!("Stop {process} (SIGTERM)"), start),
        Fault::Kill | Fault::Gateway => (format!("Kill {process} (SIGKILL)"), start),
        Fault::Hang => {
            (format!("Make {process} hang (SIGSTOP)"), format!("After 3 s let {process} go on (SIGCONT)"))
        }
        Fault::Wipe => (format!("Kill {process} (SIGKILL) and remove its data folder"), start),
        Fault::Rollback => {
            (format!("Kill {process} (SIGKILL) and replace its data folder by an older copy of it"), start)
        }
    }
}

async fn ask(what: &str) -> anyhow::Result<()> {
    let _ = write!(std::io::stdout(), "\n{what}, then press Enter: ");
    let _ = std::io::stdout().flush();
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let length = read.await?.context("nothing can be read from the terminal")?;
    ensure!(length > 0, "the terminal is closed, so nobody presses Enter");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_whom_and_what() {
        let cycle = |fault| Cycle { fault, process: "db-1".to_owned() };
        assert_eq!(words(&cycle(Fault::Stop)).0, "Stop db-1 (SIGTERM)");
        assert!(words(&cycle(Fault::Wipe)).0.contains("remove its data folder"));
        assert_eq!(words(&cycle(Fault::Kill)).1, "Start db-1 again");
    }
}
