//! A run: certificates, edges, and what they do together.

mod flood;
mod storm;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use kubeedge_bin::{Unusable, shutdown_signal};
use kubeedge_core::transport::Credentials;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    certificates,
    edge::{Edge, Phase, Shared},
    options::{Mode, Plan},
    process::{self, Usage},
    progress::Progress,
    report::{Connected, Held, Joined, Outcome, Report, Watched},
    stats::Count,
};

/// How often counters are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Does what is planned and reports it.
pub(crate) async fn run(plan: Plan) -> anyhow::Result<Outcome> {
    let (begun, report) = (Instant::now(), plan.report.clone());
    let mut run = Run::new(plan)?;
    let mut interrupted = pin!(shutdown_signal());
    let done = tokio::select! {
        done = run.work() => done.map(|()| false),
        () = &mut interrupted => Ok(true),
    };
    run.progress.clear();
    let was_interrupted = done?;
    let stats = run.stop().await;
    run.report.close(&stats.stats, begun.elapsed(), was_interrupted);
    if let Some(path) = report {
        run.report.write(&path).with_context(|| format!("--report {}", path.display()))?;
    }
    run.report.print()?;
    Ok(run.report.outcome())
}

/// A run under way.
struct Run {
    shared: Arc<Shared>,
    /// Those who stay in a storm; nobody otherwise.
    bystanders: watch::Sender<Phase>,
    others: watch::Sender<Phase>,
    edges: JoinSet<()>,
    progress: Progress,
    before: Option<Usage>,
    report: Report,
}

impl Run {
    fn new(plan: Plan) -> anyhow::Result<Self> {
        let before = plan.pid.and_then(process::usage);
        if let (Some(pid), None) = (plan.pid, before) {
            return Err(Unusable::new(format!("--pid {pid}: there is no such process")).into());
        }
        let report = Report::new(&plan);
        let shared = Arc::new(Shared::new(plan));
        let phase = || watch::Sender::new(Phase::Away);
        let (bystanders, others) = (phase(), phase());
        Ok(Self {
            shared,
            bystanders,
            others,
            edges: JoinSet::new(),
            progress: Progress::new(),
            before,
            report,
        })
    }

    fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    async fn work(&mut self) -> anyhow::Result<()> {
        let credentials = self.join().await?;
        self.spawn(credentials);
        self.connect().await;
        match self.plan().mode {
            Mode::Hold => self.hold().await,
            Mode::Storm => self.storm().await,
            Mode::Flood => self.flood().await?,
        }
        self.watched();
        Ok(())
    }

    async fn join(&mut self) -> anyhow::Result<Vec<Credentials>> {
        let (begun, counts) = (Instant::now(), Arc::default());
        let plan = Arc::new(self.plan().clone());
        let all = certificates::obtain(&plan, &counts, &mut self.progress).await?;
        let seconds = begun.elapsed().as_secs_f64();
        self.report.joined = Some(Joined { seconds, kept: counts.kept.get(), signed: counts.signed.get() });
        Ok(all)
    }

    fn spawn(&mut self, credentials: Vec<Credentials>) {
        for (number, credentials) in (0..self.plan().nodes).zip(credentials) {
            let bystander = self.plan().mode == Mode::Storm && number < self.plan().bystanders;
            let phase = if bystander { &self.bystanders } else { &self.others };
            let edge = Edge {
                node: self.plan().node(number),
                number,
                bystander,
                credentials,
                shared: self.shared.clone(),
                phase: phase.subscribe(),
            };
            self.edges.spawn(edge.run());
        }
    }

    /// All connect; those that do not within the time are told.
    async fn connect(&mut self) {
        self.before = self.plan().pid.and_then(process::usage);
        let begun = Instant::now();
        self.bystanders.send_replace(Phase::There);
        self.others.send_replace(Phase::There);
        let shared = self.shared.clone();
        let all = u64::from(shared.plan.nodes);
        let in_sync = self.until(all, &shared.stats.in_sync, "in sync").await;
        if in_sync.is_none() {
            let there = shared.stats.in_sync.get();
            let within = shared.plan.within;
            self.report
                .fallen
                .push(format!("{} of {all} edges were not in sync within {within:?}", all - there));
        }
        self.report.connected = Some(Connected {
            seconds: begun.elapsed().as_secs_f64(),
            connected: shared.stats.connected.get(),
            in_sync: shared.stats.in_sync.get(),
        });
        self.watched();
    }

    /// Waits until a gauge is at its mark; how long that took, or nothing when the time was up.
    async fn until(&mut self, mark: u64, gauge: &Count, what: &str) -> Option<Duration> {
        let begun = Instant::now();
        while gauge.get() < mark {
            if begun.elapsed() > self.plan().within {
                return None;
            }
            let shared = self.shared.clone();
            self.progress.show(|| {
                let (there, lost) = (shared.stats.connected.get(), shared.stats.lost.get());
                let failed = shared.stats.failed_dials.get();
                format!(
                    "{there} connected, {} of {mark} {what}, {failed} dials failed, {lost} sessions lost",
                    gauge.get()
                )
            });
            tokio::time::sleep(LOOK).await;
        }
        Some(begun.elapsed())
    }

    /// Lets the duration pass; how long that really took.
    async fn pass(&mut self, what: &str) -> Duration {
        let begun = Instant::now();
        let whole = self.plan().duration;
        let shared = self.shared.clone();
        while let Some(left) = whole.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            self.progress.show(|| {
                let (there, lost) = (shared.stats.connected.get(), shared.stats.lost.get());
                let answered = shared.stats.answered.get();
                format!(
                    "{what}: {there} connected, {lost} lost, {answered} answered, {}s left",
                    left.as_secs()
                )
            });
            tokio::time::sleep(left.min(Duration::from_millis(200))).await;
        }
        begun.elapsed()
    }

    async fn hold(&mut self) {
        let shared = self.shared.clone();
        let (lost, traffic) = (shared.stats.lost.get(), shared.stats.traffic.now());
        let seconds = self.pass("holding").await.as_secs_f64();
        let traffic = shared.stats.traffic.now().since(traffic);
        let lost = shared.stats.lost.get().saturating_sub(lost);
        let bytes = (traffic.bytes_up + traffic.bytes_down) as f64;
        let bytes_per_second_per_edge = bytes / seconds / f64::from(shared.plan.nodes);
        self.report.held = Some(Held { seconds, lost, traffic, bytes_per_second_per_edge });
        if lost > 0 {
            self.report.fallen.push(format!("{lost} sessions were lost while they were held"));
        }
    }

    /// Notes what the watched process uses.
    fn watched(&mut self) {
        let Some((pid, before)) = self.plan().pid.zip(self.before) else { return };
        let Some(after) = process::usage(pid) else {
            self.report.fallen.push(format!("process {pid} of --pid has ended"));
            return;
        };
        let grown = after.resident_kb.saturating_sub(before.resident_kb) as f64 * 1024.0;
        let bytes_per_edge = grown / f64::from(self.plan().nodes);
        let connected = self.report.watched.map_or(after, |watched| watched.connected);
        self.report.watched = Some(Watched { pid, before, connected, after, bytes_per_edge });
    }

    /// Ends all edges.
    async fn stop(&mut self) -> Arc<Shared> {
        self.bystanders.send_replace(Phase::Away);
        self.others.send_replace(Phase::Away);
        self.edges.shutdown().await;
        self.shared.clone()
    }
}
