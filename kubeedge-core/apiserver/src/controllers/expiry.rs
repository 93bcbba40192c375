//! What ends with time: events after an hour, as kube-apiserver's `--event-ttl` has it, and pods that are
//! over, when there are very many of them.
//!
//! Kubernetes leases events in etcd; a store here has no leases, so they are collected.

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    super::{
        kinds::{EVENTS, PODS},
        object::Object,
        status::Refusal,
    },
    Context,
};

/// How long an event is kept after it was last seen, in seconds.
const EVENT_TTL: i64 = 3600;
/// How many pods that are over are kept: Kubernetes' `--terminated-pod-gc-threshold`, for a cluster of a
/// tenth its size.
const FINISHED_PODS: usize = 1250;
/// How many objects are removed in one go: the others wait for the next look.
const BURST: usize = 1024;

pub(super) async fn reconcile(ctx: &Context) -> Result<(), Refusal> {
    let now = ctx.moment();
    let (events, pods) = (EVENTS, PODS);
    let all = ctx.list(&EVENTS, "");
    for event in all.iter().filter(|event| is_old(event, now)).take(BURST) {
        ctx.delete(&events, event, None).await?;
    }
    let all = ctx.list(&PODS, "");
    let mut finished: Vec<_> = all.iter().filter(|pod| is_finished(pod)).collect();
    finished.sort_by_key(|pod| pod.moment(&["metadata", "creationTimestamp"]));
    let excess = finished.len().saturating_sub(FINISHED_PODS);
    for pod in finished.into_iter().take(excess.min(BURST)) {
        ctx.delete(&pods, pod, Some(0)).await?;
    }
    Ok(())
}

fn is_finished(pod: &Value) -> bool {
    matches!(pod.phase(), "Succeeded" | "Failed")
}

/// Whether an event was last seen too long ago. One without any time is kept: nothing says it is old.
fn is_old(event: &Value, now: OffsetDateTime) -> bool {
    let times: [&[&str]; 4] = [
        &["series", "lastObservedTime"],
        &["lastTimestamp"],
        &["eventTime"],
        &["metadata", "creationTimestamp"],
    ];
    let seen = times.iter().filter_map(|path| event.moment(path)).max();
    seen.is_some_and(|seen| (now - seen).whole_seconds() >= EVENT_TTL)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::times;

    #[test]
    fn an_event_is_old_an_hour_after_it_was_last_seen() {
        let now = times::parse("2026-01-01T02:00:00Z").unwrap();
        let made = |last: &str| json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "lastTimestamp": last});
        assert!(is_old(&made("2026-01-01T01:00:00Z"), now));
        assert!(!is_old(&made("2026-01-01T01:00:01Z"), now));
        assert!(is_old(&json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}), now));
        assert!(!is_old(&json!({}), now));
    }
}
