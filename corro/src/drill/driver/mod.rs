//! Who carries out the faults: the demo, docker-compose, or the person in front of the terminal.

mod compose;
mod demo;
mod manual;

use std::path::PathBuf;

use clap::ValueEnum;

use super::faults::{Cycle, Fault};
pub(crate) use compose::Compose;
pub(crate) use demo::{DataFolder, DemoRing};
pub(crate) use manual::Manual;

/// What a drill is done with.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverKind {
    /// A demo: one started for the drill, or the one that runs in --folder
    Demo,
    /// docker-compose, or docker compose, in this folder
    Compose,
    /// You: the drill says what to do
    Manual,
}

impl DriverKind {
    /// The faults that it can do.
    pub(crate) fn faults(self) -> &'static [Fault] {
        match self {
            Self::Demo | Self::Manual => {
                &[Fault::Stop, Fault::Kill, Fault::Hang, Fault::Wipe, Fault::Rollback, Fault::Gateway]
            }
            Self::Compose => &[Fault::Stop, Fault::Kill, Fault::Hang, Fault::Gateway],
        }
    }
}

/// Carries out the faults.
pub(crate) enum Driver {
    Demo(Box<DemoRing>),
    Compose(Compose),
    Manual(Manual),
}

impl Driver {
    /// Does what has to be done before a fault, while there is no load.
    pub(crate) async fn prepare(&self, cycle: &Cycle) -> anyhow::Result<()> {
        match self {
            Self::Demo(demo) => demo.prepare(cycle).await,
            Self::Compose(_) | Self::Manual(_) => Ok(()),
        }
    }

    /// Makes the fault happen: the process is down, or hangs, when this returns.
    pub(crate) async fn begin(&self, cycle: &Cycle) -> anyhow::Result<()> {
        match self {
            Self::Demo(demo) => demo.begin(cycle).await,
            Self::Compose(compose) => compose.begin(cycle).await,
            Self::Manual(manual) => manual.begin(cycle).await,
        }
    }

    /// Ends the fault: the process is started again, or goes on.
    pub(crate) async fn end(&self, cycle: &Cycle) -> anyhow::Result<()> {
        match self {
            Self::Demo(demo) => demo.end(cycle).await,
            Self::Compose(compose) => compose.end(cycle).await,
            Self::Manual(manual) => manual.end(cycle).await,
        }
    }

    /// Where the data of the processes are, where they can be looked at.
    pub(crate) fn data(&self) -> Option<&DataFolder> {
        match self {
            Self::Demo(demo) => Some(demo.data()),
            Self::Compose(_) | Self::Manual(_) => None,
        }
    }

    /// Ends what was started for the drill, and removes what it wrote. With `keep` that stays, and where it
    /// is is returned.
    pub(crate) async fn close(self, keep: bool) -> anyhow::Result<Option<PathBuf>> {
        match self {
            Self::Demo(demo) => demo.close(keep).await,
            Self::Compose(_) | Self::Manual(_) => Ok(None),
        }
    }
}
