//! All leave at once, and all return.

use std::time::Instant;

use super::Run;
use crate::{edge::Phase, report::Storm};

impl Run {
    pub(super) async fn storm(&mut self) {
        let shared = self.shared.clone();
        let stats = &shared.stats;
        let bystanders = u64::from(shared.plan.bystanders);
        let all = u64::from(shared.plan.nodes);
        let lost = stats.lost.get();
        self.others.send_replace(Phase::Away);
        while stats.connected.get() > bystanders {
            tokio::time::sleep(super::LOOK).await;
        }
        let begun = Instant::now();
        self.others.send_replace(Phase::There);
        let connected = self.until(all, &stats.connected, "connected").await;
        let in_sync = self.until(all, &stats.in_sync, "in sync").await.map(|_| begun.elapsed());
        // The leases of bystanders are looked at for as long as they last.
        let seconds = self.pass("after the storm").await;
        let expired = stats.bystanders_expired.get();
        let lost = stats.lost.get().saturating_sub(lost);
        self.report.storm = Some(Storm {
            edges: all - bystanders,
            bystanders,
            connected_seconds: connected.map(|time| time.as_secs_f64()),
            in_sync_seconds: in_sync.map(|time| time.as_secs_f64()),
            bystanders_expired: expired,
            lost,
        });
        let fallen = &mut self.report.fallen;
        if in_sync.is_none() {
            let left = all.saturating_sub(stats.in_sync.get());
            fallen.push(format!(
                "{left} edges were not in sync again {:.0} s after the storm",
                seconds.as_secs_f64()
            ));
        }
        if expired > 0 {
            fallen.push(format!("{expired} leases of bystanders ran out"));
        }
        if lost > 0 {
            fallen.push(format!("{lost} sessions were lost"));
        }
    }
}
