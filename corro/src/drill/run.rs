//! The drill itself: cycle after cycle, and what is done with what they bring.

use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::census::CensusTaker;
use super::copies::compare;
use super::driver::Driver;
use super::faults::{Cycle, Fault};
use super::progress::Progress;
use super::report::{CycleResult, Gathered, Setup};
use super::ring::RingWatch;
use super::verify::Histories;
use crate::load::Load;
use crate::load::meter::Measurements;
use crate::load::retries::Retries;

/// Load without a fault, before each of them.
const CALM: Duration = Duration::from_millis(500);

/// Load that goes on when the ring is whole again: what comes late belongs to the cycle as well.
const AFTERMATH: Duration = Duration::from_millis(300);

/// A drill at work.
pub(crate) struct Drill<'a> {
    driver: &'a Driver,
    ring: RingWatch,
    census: CensusTaker,
    load: Load,
    retries: Retries,
    progress: Progress,
    calm: Measurements,
    cycles: Vec<CycleResult>,
    histories: Histories,
    /// The fault that has begun and not ended.
    broken: Option<Cycle>,
}

impl<'a> Drill<'a> {
    pub(crate) fn new(
        driver: &'a Driver,
        ring: RingWatch,
        census: CensusTaker,
        load: Load,
        retries: Retries,
        cycles: usize,
    ) -> Self {
        let progress = Progress::new(cycles, matches!(driver, Driver::Manual(_)), load.looker());
        Self {
            driver,
            ring,
            census,
            load,
            retries,
            progress,
            calm: Measurements::default(),
            cycles: Vec::with_capacity(cycles.min(100_000)),
            histories: Histories::default(),
            broken: None,
        }
    }

    /// Goes through the cycles, until one of them cannot be carried through or `shutdown`. Leaves the ring as
    /// it found it.
    pub(crate) async fn run(
        mut self,
        plan: &[Cycle],
        setup: Setup,
        shutdown: &CancellationToken,
    ) -> Gathered {
        let ended_early = tokio::select! {
            outcome = self.all(plan) => outcome.err().map(|error| format!("{error:#}")),
            () = shutdown.cancelled() => Some("interrupted".to_owned()),
        };
        if let Some(cycle) = self.broken.take() {
            // It may have ended after all, or never begun.
            let _ = self.driver.end(&cycle).await;
        }
        self.load.pause().await;
        self.retries.pause().await;
        self.progress.end();
        self.calm.add(&self.load.meter().take());
        self.load.clean_up().await;
        self.retries.clean_up().await;
        let retried = self.retries.retried();
        let meter = self.load.meter();
        Gathered {
            setup,
            ended_early,
            elapsed: meter.elapsed(),
            calm: self.calm,
            cycles: self.cycles,
            histories: self.histories,
            retried,
            failures: meter.failures().to_vec(),
            timeline: meter.timeline().to_vec(),
        }
    }

    async fn all(&mut self, plan: &[Cycle]) -> anyhow::Result<()> {
        for (index, cycle) in plan.iter().enumerate() {
            let number = index + 1;
            self.cycle(number, cycle)
                .await
                .with_context(|| format!("cycle {number}, {} {}", cycle.fault, cycle.process))?;
        }
        Ok(())
    }

    async fn cycle(&mut self, number: usize, cycle: &Cycle) -> anyhow::Result<()> {
        self.progress.doing(number, cycle, "before the fault");
        self.driver.prepare(cycle).await?;
        self.ring.until_whole().await?;
        self.load.start();
        self.retries.start();
        tokio::time::sleep(CALM).await;

        self.progress.doing(number, cycle, "the fault");
        let gateway = cycle.fault == Fault::Gateway;
        let began = {
            let mut meter = self.load.meter();
            self.calm.add(&meter.take());
            meter.gateway_is_down(gateway);
            meter.elapsed()
        };
        self.broken = Some(cycle.clone());
        self.driver.begin(cycle).await?;
        tokio::time::sleep(cycle.fault.lasts()).await;

        self.progress.doing(number, cycle, "on its way back");
        let ended = self.load.meter().elapsed();
        self.driver.end(cycle).await?;
        self.broken = None;
        self.ring.until_whole().await?;
        let whole = self.load.meter().elapsed();
        self.load.meter().gateway_is_down(false);
        tokio::time::sleep(AFTERMATH).await;

        self.load.pause().await;
        self.retries.pause().await;
        self.retries.check().await?;
        let measured = self.load.meter().take();
        self.progress.doing(number, cycle, "comparing and checking");
        let histories = self.load.histories().await;
        let census = self.census.take().await.context("count and list")?;
        let data = self.driver.data().cloned();
        let checked =
            tokio::task::spawn_blocking(move || (data.map(|data| compare(&data)), Histories::of(histories)));
        let (copies, histories) = checked.await.context("the check ended")?;
        self.histories.add(histories);
        let result = CycleResult { cycle: cycle.clone(), began, ended, whole, measured, copies, census };
        self.progress.done(number, &result);
        self.cycles.push(result);
        Ok(())
    }
}
