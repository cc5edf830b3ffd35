//! The drill itself: cycle after cycle.

use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::copies::compare;
use super::driver::Driver;
use super::faults::{Cycle, Fault};
use super::progress::Progress;
use super::report::{CycleResult, Gathered, Report, Setup};
use super::ring::Ring;
use super::verify::Histories;
use crate::client::Endpoint;
use crate::load::retries::Retries;
use crate::load::{Load, LoadSettings};

/// Load without a fault, before each of them.
const CALM: Duration = Duration::from_millis(500);

/// Load that continues when the ring is whole again: what comes late belongs to the cycle as well.
const AFTERMATH: Duration = Duration::from_millis(300);

/// A running drill.
pub(crate) struct Drill<'a> {
    driver: &'a Driver,
    ring: Ring,
    load: Load,
    retries: Retries,
    progress: Progress,
    gathered: Gathered,
    /// The fault that has begun and not ended.
    broken: Option<Cycle>,
}

impl<'a> Drill<'a> {
    /// Of the ring that the endpoint serves; `retrying` connections create with an `Idempotency-Key`.
    pub(crate) fn new(
        driver: &'a Driver,
        ring: Ring,
        endpoint: &Endpoint,
        setup: Setup,
        retrying: usize,
    ) -> Self {
        let load = Load::new(
            endpoint,
            &LoadSettings {
                connections: setup.connections,
                reads: setup.reads_percent,
                users: setup.users,
                seed: setup.seed,
            },
        );
        Self {
            driver,
            ring,
            progress: Progress::new(setup.cycles, matches!(driver, Driver::Manual), load.looker()),
            load,
            retries: Retries::new(endpoint, retrying),
            gathered: Gathered { setup, ..Gathered::default() },
            broken: None,
        }
    }

    /// Goes through the cycles, until one of them cannot be done or `shutdown`. Leaves the ring as it found
    /// it.
    pub(crate) async fn run(mut self, plan: &[Cycle], shutdown: &CancellationToken) -> Report {
        self.gathered.ended_early = tokio::select! {
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
        let mut gathered = self.gathered;
        gathered.calm.add(&self.load.meter().take());
        self.load.clean_up().await;
        self.retries.clean_up().await;
        gathered.checks.retried = self.retries.retried();
        let meter = self.load.meter();
        gathered.elapsed = meter.elapsed();
        gathered.failures = meter.failures().to_vec();
        gathered.timeline = meter.timeline().to_vec();
        gathered.report()
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
        self.progress.step(number, cycle, "before the fault");
        self.driver.prepare(cycle).await?;
        self.ring.until_whole().await?;
        self.load.start();
        self.retries.start();
        tokio::time::sleep(CALM).await;

        self.progress.step(number, cycle, "the fault");
        let began = {
            let mut meter = self.load.meter();
            self.gathered.calm.add(&meter.take());
            meter.gateway_is_down(cycle.fault == Fault::Gateway);
            meter.elapsed()
        };
        self.broken = Some(cycle.clone());
        self.driver.begin(cycle).await?;
        tokio::time::sleep(cycle.fault.lasts()).await;

        self.progress.step(number, cycle, "on its way back");
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
        self.progress.step(number, cycle, "comparing and checking");
        let histories = self.load.histories().await;
        let census = self.ring.census().await.context("count and list")?;
        let data = self.driver.data().cloned();
        let checked =
            tokio::task::spawn_blocking(move || (data.map(|data| compare(&data)), Histories::of(histories)));
        let (copies, histories) = checked.await.context("the check ended")?;
        self.gathered.checks.histories.add(histories);
        let result = CycleResult { cycle: cycle.clone(), began, ended, whole, measured, copies, census };
        self.progress.done(number, self.gathered.add(&result));
        Ok(())
    }
}
