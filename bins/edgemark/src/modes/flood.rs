//! Messages as fast as they are answered.

use super::Run;
use crate::{edge::Phase, process, report::Flood};

impl Run {
    pub(super) async fn flood(&mut self) {
        let shared = self.shared.clone();
        let stats = &shared.stats;
        let ours = || process::usage(std::process::id());
        let clouds = || shared.plan.pid.and_then(process::usage);
        let (answered, lost) = (stats.answered.get(), stats.lost.get());
        let before = (ours(), clouds());
        self.others.send_replace(Phase::Flooding);
        let seconds = self.pass("flooding").await.as_secs_f64();
        let after = (ours(), clouds());
        let answered = stats.answered.get().saturating_sub(answered);
        self.others.send_replace(Phase::There);
        let each = |before: Option<process::Usage>, after: Option<process::Usage>| {
            let (before, after) = before.zip(after)?;
            Some((after.cpu_seconds - before.cpu_seconds) * 1e6 / (answered.max(1) as f64))
        };
        self.report.flood = Some(Flood {
            direction: shared.plan.direction,
            message_size: shared.plan.message_size,
            window: shared.plan.window,
            seconds,
            answered,
            per_second: answered as f64 / seconds,
            cloud_cpu_us_per_message: each(before.1, after.1),
            edgemark_cpu_us_per_message: each(before.0, after.0),
        });
        let lost = stats.lost.get().saturating_sub(lost);
        if answered == 0 {
            self.report.fallen.push("no message was answered".to_owned());
        }
        if lost > 0 {
            self.report.fallen.push(format!("{lost} sessions were lost in the flood"));
        }
    }
}
