//! Messages as fast as they are answered.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};

use super::Run;
use crate::{
    cluster::{Cluster, MAPS},
    edge::{Phase, Shared},
    options::Direction,
    process::{self, Usage},
    report::Flood,
};

/// The first round; ConfigMaps are made in round 0, and what changes nothing is told to nobody.
const FIRST: u64 = 1;

impl Run {
    pub(super) async fn flood(&mut self) -> anyhow::Result<()> {
        if self.plan().direction != Direction::Down {
            self.measure_flood(None).await;
            return Ok(());
        }
        let plan = Arc::new(self.plan().clone());
        let Some(kubeconfig) = &plan.kubeconfig else { return Ok(()) };
        let mut cluster = Cluster::new(kubeconfig, plan.clone()).await?;
        cluster.furnish().await?;
        let shared = self.shared.clone();
        let pods = u64::from(plan.nodes);
        let running = self.until(pods, &shared.stats.pods, "pods run").await;
        if running.is_none() {
            self.report.fallen.push(format!("the pods did not run on all {pods} edges"));
        }
        self.warm(&cluster).await;
        self.measure_flood(Some(&cluster)).await;
        cluster.clear().await;
        Ok(())
    }

    /// Lets every edge confirm each ConfigMap once: the cloud's records are made now, and not while it is
    /// measured.
    async fn warm(&mut self, cluster: &Cluster) {
        let shared = self.shared.clone();
        let all = u64::from(shared.plan.nodes) * MAPS as u64;
        let wanted = shared.stats.confirmed.get() + all;
        stream::iter(0..MAPS)
            .for_each_concurrent(MAPS, |map| async move { drop(cluster.change(map, FIRST).await) })
            .await;
        if self.until(wanted, &shared.stats.confirmed, "ConfigMaps confirmed").await.is_none() {
            self.report.fallen.push(format!("{all} ConfigMaps were not confirmed once"));
        }
    }

    async fn measure_flood(&mut self, cluster: Option<&Cluster>) {
        let shared = self.shared.clone();
        let (before, lost) = (Moment::now(&shared), shared.stats.lost.get());
        let seconds = match cluster {
            Some(cluster) => tokio::select! {
                seconds = self.pass("flooding") => seconds,
                () = change(cluster, &shared) => shared.plan.duration,
            },
            None => {
                self.others.send_replace(Phase::Flooding);
                let seconds = self.pass("flooding").await;
                self.others.send_replace(Phase::There);
                seconds
            }
        };
        let flood = before.until_now(&shared, seconds.as_secs_f64());
        self.report.flood = Some(flood);
        if flood.answered == 0 {
            self.report.fallen.push("no message was answered".to_owned());
        }
        let lost = shared.stats.lost.get().saturating_sub(lost);
        if lost > 0 {
            self.report.fallen.push(format!("{lost} sessions were lost in the flood"));
        }
    }
}

/// How long a round of confirmations may take before the ConfigMap is changed all the same.
const ROUND: Duration = Duration::from_secs(10);

/// Changes all ConfigMaps, each again when all edges have confirmed it; ends with the cluster.
async fn change(cluster: &Cluster, shared: &Shared) {
    let one = |map| async move {
        let Some(confirmations) = shared.stats.rounds.of(map) else { return };
        for round in FIRST + 1.. {
            confirmations.begin(shared.plan.nodes);
            if cluster.change(map, round).await.is_err() {
                return;
            }
            let _ = tokio::time::timeout(ROUND, confirmations.complete()).await;
        }
    };
    stream::iter(0..MAPS).map(one).buffer_unordered(MAPS).for_each(|()| async {}).await;
}

/// What was counted and used up to a moment.
struct Moment {
    answered: u64,
    ours: Option<Usage>,
    clouds: Option<Usage>,
}

impl Moment {
    fn now(shared: &Shared) -> Self {
        let answered = match shared.plan.direction {
            Direction::Down => &shared.stats.confirmed,
            Direction::Up | Direction::Lease => &shared.stats.answered,
        };
        let clouds = shared.plan.pid.and_then(process::usage);
        Self { answered: answered.get(), ours: process::usage(std::process::id()), clouds }
    }

    fn until_now(self, shared: &Shared, seconds: f64) -> Flood {
        let now = Self::now(shared);
        let answered = now.answered.saturating_sub(self.answered);
        let each = |before: Option<Usage>, after: Option<Usage>| {
            let (before, after) = before.zip(after)?;
            Some((after.cpu_seconds - before.cpu_seconds) * 1e6 / (answered.max(1) as f64))
        };
        Flood {
            direction: shared.plan.direction,
            message_size: shared.plan.message_size,
            window: shared.plan.window,
            seconds,
            answered,
            per_second: answered as f64 / seconds,
            cloud_cpu_us_per_message: each(self.clouds, now.clouds),
            edgemark_cpu_us_per_message: each(self.ours, now.ours),
        }
    }
}
