//! Events about pods and the node, for `kubectl describe`. Repeated ones become a count.

use std::collections::VecDeque;

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kubeedge_core::{clock::Clock, message::Millis, name::NodeName};
use parking_lot::Mutex;
use serde_json::json;

use super::view::time;
use crate::meta::Client;

/// How many different events are remembered for counting.
const REMEMBERED: usize = 256;

/// Reports events to the cluster, unless told not to.
#[derive(Debug)]
pub(crate) struct Recorder {
    client: Client,
    node: String,
    enabled: bool,
    clock: Clock,
    seen: Mutex<VecDeque<Event>>,
}

impl Recorder {
    pub(crate) fn new(client: Client, node: &NodeName, clock: &Clock, enabled: bool) -> Self {
        let (node, clock) = (node.to_string(), clock.clone());
        Self { client, node, enabled, clock, seen: Mutex::default() }
    }

    /// Something ordinary happened to a pod.
    pub(crate) async fn normal(&self, pod: &Pod, reason: &str, message: String) {
        self.record(pod, "Normal", reason, message).await;
    }

    /// Something went wrong with a pod.
    pub(crate) async fn warning(&self, pod: &Pod, reason: &str, message: String) {
        tracing::warn!(
            pod = pod.metadata.name.as_deref().unwrap_or_default(),
            namespace = pod.metadata.namespace.as_deref().unwrap_or_default(),
            reason,
            message,
            "pod warning"
        );
        self.record(pod, "Warning", reason, message).await;
    }

    async fn record(&self, pod: &Pod, kind: &str, reason: &str, message: String) {
        if !self.enabled {
            return;
        }
        let (event, again) = self.remember(pod, kind, reason, message);
        let sent = if again {
            let patch = json!({"count": event.count, "lastTimestamp": event.last_timestamp});
            self.client.event_again(&event, &patch).await
        } else {
            self.client.event(&event).await
        };
        if let Err(error) = sent {
            tracing::debug!(error = %error, "event not reported");
        }
    }

    /// The event to report, and whether it was reported before.
    fn remember(&self, pod: &Pod, kind: &str, reason: &str, message: String) -> (Event, bool) {
        let now = self.clock.now();
        let mut seen = self.seen.lock();
        let known = seen.iter_mut().find(|event| {
            event.involved_object.uid == pod.metadata.uid
                && event.reason.as_deref() == Some(reason)
                && event.message.as_deref() == Some(&message)
        });
        if let Some(event) = known {
            event.count = event.count.map(|count| count.saturating_add(1));
            event.last_timestamp = Some(time(now));
            return (event.clone(), true);
        }
        let event = self.first(pod, kind, reason, message, now);
        if seen.len() == REMEMBERED {
            seen.pop_front();
        }
        seen.push_back(event.clone());
        (event, false)
    }

    fn first(&self, pod: &Pod, kind: &str, reason: &str, message: String, now: Millis) -> Event {
        let meta = &pod.metadata;
        let name = meta.name.clone().unwrap_or_default();
        // As client-go names events: the object and a number that differs from event to event.
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let unique = unique.get(..16).unwrap_or_default().to_owned();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{unique}")),
                namespace: meta.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
                ..ObjectReference::default()
            },
            reason: Some(reason.to_owned()),
            message: Some(message),
            type_: Some(kind.to_owned()),
            count: Some(1),
            first_timestamp: Some(time(now)),
            last_timestamp: Some(time(now)),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use kubeedge_core::{
        bus::Bus,
        name::{Group, ModuleName, Operation},
    };
    use kubeedge_store::MemoryStore;
    use serde_json::Value;

    use super::*;
    use crate::meta::MetaHandle;

    #[tokio::test]
    async fn an_event_that_happens_again_is_counted_not_repeated() {
        let (bus, mut inboxes) = Bus::new([(ModuleName::META_MANAGER, Group::META, 8)]);
        let mut inbox = inboxes.remove(&ModuleName::META_MANAGER).unwrap();
        let copy = MetaHandle::over(Arc::new(MemoryStore::new()));
        let client = Client::new(copy, bus, Duration::from_secs(1));
        let recorder = Recorder::new(client, &"edge-1".into(), &Clock::wall(), true);
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        pod.metadata.namespace = Some("default".into());
        for _ in 0..2 {
            recorder.warning(&pod, "BackOff", "waiting".into()).await;
        }
        let first = inbox.try_next().unwrap().message;
        assert_eq!(first.route.operation, Operation::INSERT);
        let second = inbox.try_next().unwrap().message;
        assert_eq!(
            (second.route.operation, &second.route.resource),
            (Operation::PATCH, &first.route.resource)
        );
        let content: Value = second.content.decode().unwrap();
        assert_eq!(content["event"]["count"], 2);
        assert!(content["patchData"].as_str().unwrap().contains("\"count\":2"));
    }
}
