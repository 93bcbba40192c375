//! Sends pod statuses to the cluster: the newest of each pod, again until it was taken.

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kubeedge_core::kernel::Shutdown;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::meta::{Client, ClientError};

/// How soon a status that was not taken is sent again.
const AGAIN: Duration = Duration::from_secs(5);
/// How many patches are under way at once.
const AT_ONCE: usize = 8;

#[derive(Clone, Debug)]
struct Pending {
    namespace: String,
    name: String,
    patch: Value,
    /// Its place in line.
    place: u64,
}

/// The newest status of each pod that was not sent yet, by UID. Those that were refused wait behind all
/// others.
#[derive(Debug, Default)]
struct Line {
    pending: HashMap<String, Pending>,
    places: u64,
}

impl Line {
    /// Takes the newest status, in the place of an older one if there is one.
    fn put(&mut self, uid: String, mut status: Pending) {
        self.places += 1;
        status.place = self.pending.get(&uid).map_or(self.places, |older| older.place);
        self.pending.insert(uid, status);
    }

    /// Takes one back that was refused, unless a newer one is there.
    fn put_back(&mut self, uid: String, status: Pending) {
        if !self.pending.contains_key(&uid) {
            self.put(uid, status);
        }
    }

    fn take(&mut self, busy: &[String]) -> Option<(String, Pending)> {
        let free = self.pending.iter().filter(|(uid, _)| !busy.contains(uid));
        let (uid, _) = free.min_by_key(|(_, status)| status.place)?;
        let uid = uid.clone();
        self.pending.remove_entry(&uid)
    }
}

/// Coalesces and sends pod statuses.
#[derive(Debug)]
pub(crate) struct Reporter {
    client: Client,
    line: Mutex<Line>,
    work: Notify,
}

impl Reporter {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, line: Mutex::default(), work: Notify::new() }
    }

    /// Will send this status; replaces one of the same pod that was not sent yet.
    pub(crate) fn report(&self, pod: &Pod, status: &PodStatus) {
        let meta = &pod.metadata;
        let Some(uid) = meta.uid.clone() else { return };
        let (namespace, name) =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let patch = status_patch(&uid, status);
        self.line.lock().put(uid, Pending { namespace, name, patch, place: 0 });
        self.work.notify_one();
    }

    /// Drops what was not sent of a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.line.lock().pending.remove(uid);
    }

    /// Sends until shutdown.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        let mut under_way = FuturesUnordered::new();
        let mut busy: Vec<String> = Vec::new();
        let mut pause = None;
        loop {
            while under_way.len() < AT_ONCE && pause.is_none() {
                let Some((uid, next)) = self.line.lock().take(&busy) else { break };
                busy.push(uid.clone());
                under_way.push(self.send(uid, next));
            }
            let rest = async {
                match pause {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.work.notified() => {}
                () = rest => pause = None,
                Some((uid, back)) = under_way.next() => {
                    busy.retain(|other| *other != uid);
                    if let Some(back) = back {
                        self.line.lock().put_back(uid, back);
                        pause = Some(tokio::time::Instant::now() + AGAIN);
                    }
                }
            }
        }
    }

    /// Sends one status; gives it back when it must be sent again.
    async fn send(&self, uid: String, status: Pending) -> (String, Option<Pending>) {
        let sent = self.client.patch_pod_status(&status.namespace, &status.name, &status.patch).await;
        let back = match sent {
            Ok(_) => None,
            // The pod is gone, or it is another pod of that name: nobody wants this status.
            Err(error) if error.is_not_found() || error.reason() == Some("Conflict") => None,
            Err(error) => {
                log_failure(&status, &error);
                Some(status)
            }
        };
        (uid, back)
    }
}

fn log_failure(status: &Pending, error: &ClientError) {
    tracing::debug!(namespace = %status.namespace, pod = %status.name, error = %error, "pod status not taken, will send again");
}

/// The strategic merge patch that sets a pod's status, as the kubelet sends it.
pub(crate) fn status_patch(uid: &str, status: &PodStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    let order: Vec<_> = status.conditions.iter().flatten().map(|c| json!({"type": c.type_})).collect();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("$setElementOrder/conditions".to_owned(), order.into());
    }
    json!({"metadata": {"uid": uid}, "status": value})
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kubeedge_core::{
        bus::Bus,
        message::Content,
        name::{Group, ModuleName},
    };

    use kubeedge_store::MemoryStore;

    use super::*;
    use crate::meta::MetaHandle;

    fn status(phase: &str) -> PodStatus {
        PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() }
    }

    #[test]
    fn statuses_that_are_refused_again_and_again_hold_up_no_other() {
        let mut line = Line::default();
        let status =
            |name: &str| Pending { namespace: "a".into(), name: name.into(), patch: Value::Null, place: 0 };
        (0..3 * AT_ONCE).for_each(|pod| line.put(pod.to_string(), status(&pod.to_string())));
        let mut sent = Vec::new();
        for _ in 0..3 {
            let taken: Vec<_> = (0..AT_ONCE).map(|_| line.take(&[]).unwrap()).collect();
            sent.extend(taken.iter().map(|(uid, _)| uid.parse::<usize>().unwrap()));
            // A newer one has the place of the older.
            line.put("23".to_owned(), status("newer"));
            taken.into_iter().for_each(|(uid, status)| line.put_back(uid, status));
        }
        assert!(sent.iter().copied().eq(0..3 * AT_ONCE), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_the_cloud_did_not_take_is_sent_again_and_only_the_newest() {
        let (bus, mut inboxes) = Bus::new([(ModuleName::META_MANAGER, Group::META, 8)]);
        let mut inbox = inboxes.remove(&ModuleName::META_MANAGER).unwrap();
        let copy = MetaHandle::over(Arc::new(MemoryStore::new()));
        let reporter = Arc::new(Reporter::new(Client::new(copy, bus, Duration::from_secs(60))));
        let (running, shutdown) = (reporter.clone(), Shutdown::new());
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { running.run(stop).await });
        let mut pod = Pod::default();
        pod.metadata.uid = Some("u".into());
        pod.metadata.name = Some("web".into());
        reporter.report(&pod, &status("Pending"));
        inbox.next().await.unwrap().fail("connection lost");
        reporter.report(&pod, &status("Running"));
        let again = inbox.next().await.unwrap();
        let patch: Value = again.message.content.decode().unwrap();
        let patch: Value = patch.as_str().map_or(patch.clone(), |text| serde_json::from_str(text).unwrap());
        assert_eq!(patch["status"]["phase"], "Running");
        assert_eq!(patch["metadata"]["uid"], "u");
        again.answer(Content::json(&json!({"Object": {}, "Err": null})).unwrap());
        shutdown.request();
        task.await.unwrap();
        assert!(inbox.try_next().is_none());
    }
}
