//! The controllers of a small cluster: Deployments and ReplicaSets, the scheduler, node lifecycle, garbage
//! collection, namespaces and service accounts.
//!
//! One task runs them all. It reads the history of changes, marks the objects a change may concern, and lets each
//! controller compare what is with what should be; nothing depends on having seen a particular change. A full look
//! every few seconds catches what time alone brings about: leases that run out, tolerations that end.

mod deployment;
mod expiry;
mod garbage;
mod namespaces;
mod nodes;
mod replicaset;
mod scheduler;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kubeedge_core::kernel::Shutdown;
use serde_json::{Value, json};

use crate::apiserver::edit::{field, put};

use super::{
    EmbeddedCluster, Server,
    kinds::{Kind, built_in_kind},
    registry::{self, Deletion, Mode, Part, Validation, now, text},
    status::Refusal,
    storage::{Change, TooOld},
};

/// How often everything is looked at, changed or not.
const RESYNC: Duration = Duration::from_secs(5);
/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How many changes are taken at once.
const CHUNK: usize = 256;

/// Namespace and name.
type Place = (String, String);

/// Runs all controllers until shutdown.
pub async fn run(cluster: EmbeddedCluster, shutdown: Shutdown) {
    let desk = Desk { server: cluster.server };
    let mut newest = desk.server.storage.subscribe();
    let mut version = desk.server.storage.version();
    let mut dirty = Dirty::default();
    let mut all = true;
    loop {
        newest.borrow_and_update();
        match desk.server.storage.since(version, CHUNK) {
            Ok(changes) => {
                if let Some(last) = changes.last() {
                    version = last.version;
                }
                changes.iter().for_each(|change| dirty.note(change));
                if changes.len() == CHUNK {
                    continue;
                }
            }
            Err(TooOld) => {
                version = desk.server.storage.version();
                all = true;
            }
        }
        if all {
            dirty = desk.everything();
        }
        dirty = desk.settle(std::mem::take(&mut dirty)).await;
        let pause = if dirty.is_empty() { RESYNC } else { RETRY };
        let resync = dirty.is_empty();
        all = false;
        tokio::select! {
            () = shutdown.requested() => return,
            changed = newest.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => all = resync,
        }
    }
}

/// What must be looked at.
#[derive(Debug, Default)]
struct Dirty {
    deployments: BTreeSet<Place>,
    replica_sets: BTreeSet<Place>,
    namespaces: BTreeSet<String>,
    pods: bool,
    nodes: bool,
    owners: bool,
    expiry: bool,
}

fn place(object: &Value) -> Place {
    (text(object, "/metadata/namespace").to_owned(), text(object, "/metadata/name").to_owned())
}

/// The controller of an object: the owner that manages it.
fn controller(object: &Value) -> Option<&Value> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))
}

impl Dirty {
    fn is_empty(&self) -> bool {
        self.deployments.is_empty()
            && self.replica_sets.is_empty()
            && self.namespaces.is_empty()
            && !(self.pods || self.nodes || self.owners || self.expiry)
    }

    fn note(&mut self, change: &Change) {
        let object = &*change.object;
        let here = place(object);
        let owner = controller(object).map(|owner| (here.0.clone(), text(owner, "/name").to_owned()));
        match (change.key.group.as_str(), change.key.plural.as_str()) {
            ("apps", "deployments") => drop(self.deployments.insert(here.clone())),
            ("apps", "replicasets") => {
                self.replica_sets.insert(here.clone());
                self.deployments.extend(owner);
            }
            ("", "pods") => {
                self.replica_sets.extend(owner);
                self.pods = true;
            }
            ("", "nodes") => (self.pods, self.nodes) = (true, true),
            ("", "namespaces") => drop(self.namespaces.insert(here.1.clone())),
            ("coordination.k8s.io", "leases") => self.nodes = true,
            _ => {}
        }
        let deleting = object.pointer("/metadata/deletionTimestamp").is_some();
        self.owners |= change.happened == super::storage::Happened::Deleted || deleting;
        if deleting && !here.0.is_empty() {
            self.namespaces.insert(here.0);
        }
    }
}

/// What controllers work with.
#[derive(Debug)]
struct Desk {
    server: Arc<Server>,
}

impl Desk {
    fn everything(&self) -> Dirty {
        let places = |group: &str, plural: &str| {
            self.list(group, plural, "").iter().map(|object| place(object)).collect()
        };
        let namespaces = self.list("", "namespaces", "").iter().map(|object| place(object).1).collect();
        Dirty {
            deployments: places("apps", "deployments"),
            replica_sets: places("apps", "replicasets"),
            namespaces,
            pods: true,
            nodes: true,
            owners: true,
            expiry: true,
        }
    }

    /// Looks at all that is dirty; returns what must be looked at again.
    async fn settle(&self, dirty: Dirty) -> Dirty {
        let mut again = Dirty::default();
        for at in dirty.deployments {
            if told("deployment", &at, deployment::reconcile(self, &at).await) {
                again.deployments.insert(at);
            }
        }
        for at in dirty.replica_sets {
            if told("replicaset", &at, replicaset::reconcile(self, &at).await) {
                again.replica_sets.insert(at);
            }
        }
        if dirty.nodes {
            again.nodes = told("nodes", &Place::default(), nodes::reconcile(self).await);
        }
        if dirty.pods {
            again.pods = told("scheduler", &Place::default(), scheduler::reconcile(self).await);
        }
        if dirty.owners {
            again.owners = told("garbage", &Place::default(), garbage::reconcile(self).await);
        }
        if dirty.expiry {
            again.expiry = told("expiry", &Place::default(), expiry::reconcile(self).await);
        }
        for name in dirty.namespaces {
            if told("namespace", &(String::new(), name.clone()), namespaces::reconcile(self, &name).await) {
                again.namespaces.insert(name);
            }
        }
        again
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Value>> {
        self.server.storage.list(group, plural, namespace).0
    }

    fn get(&self, kind: &Kind, at: &Place) -> Option<Arc<Value>> {
        self.server.storage.get(&kind.key(&at.0, &at.1))
    }

    async fn create(&self, kind: &Kind, namespace: &str, object: Value) -> Result<Value, Refusal> {
        let made = registry::create(&self.server.storage, kind, namespace, object, Validation::Ignore, false);
        made.await.map(|(object, _)| object)
    }

    async fn change(
        &self,
        kind: &Kind,
        at: &Place,
        part: Part,
        make: impl FnOnce(&Value) -> Value + Send,
    ) -> Result<Value, Refusal> {
        let make = |before: &Value| Ok(make(before));
        let done = registry::change(
            &self.server.storage,
            kind,
            &at.0,
            &at.1,
            Mode { part, validation: Validation::Ignore, dry_run: false },
            make,
        );
        done.await.map(|(object, _)| object)
    }

    async fn delete(&self, kind: &Kind, object: &Value, grace: Option<i64>) -> Result<(), Refusal> {
        let at = place(object);
        let how =
            Deletion { grace, uid: Some(text(object, "/metadata/uid").to_owned()), ..Deletion::default() };
        match registry::delete(&self.server.storage, kind, &at.0, &at.1, &how, false).await {
            Err(refusal) if refusal.code != http::StatusCode::NOT_FOUND => Err(refusal),
            _ => Ok(()),
        }
    }

    /// Tells people what a controller did; the same again within its lifetime becomes a count.
    async fn event(&self, about: &Value, component: &str, kind: &str, reason: &str, message: &str) {
        let (namespace, name) = place(about);
        let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
        let events = built_in_kind("", "events");
        let same = self.list("", "events", &namespace).into_iter().find(|event| {
            text(event, "/involvedObject/uid") == text(about, "/metadata/uid")
                && text(event, "/reason") == reason
                && text(event, "/message") == message
        });
        let stamp = now();
        if let Some(same) = same {
            let again = |before: &Value| {
                let mut event = before.clone();
                put(&mut event, &["count"], field(before, "/count").as_i64().unwrap_or(1) + 1);
                put(&mut event, &["lastTimestamp"], stamp);
                event
            };
            let _ = self.change(&events, &place(&same), Part::Main, again).await;
            return;
        }
        let event = json!({
            "metadata": {"generateName": format!("{name}.")}, "reason": reason, "message": message, "type": kind, "count": 1,
            "firstTimestamp": stamp, "lastTimestamp": stamp, "source": {"component": component}, "reportingComponent": component,
            "involvedObject": {"apiVersion": field(about, "/apiVersion"), "kind": field(about, "/kind"), "name": name, "namespace": field(about, "/metadata/namespace"),
                "uid": field(about, "/metadata/uid"), "resourceVersion": field(about, "/metadata/resourceVersion")},
        });
        if let Err(refusal) = self.create(&events, &namespace, event).await {
            tracing::debug!(error = %refusal.message, "event not written");
        }
    }
}

/// Logs a failure; whether to try again.
fn told(what: &str, at: &Place, done: Result<(), Refusal>) -> bool {
    match done {
        Ok(()) => false,
        // Somebody was faster: the change they made brings us back.
        Err(refusal) if refusal.reason == "Conflict" => true,
        Err(refusal) => {
            tracing::warn!(controller = what, namespace = %at.0, name = %at.1, error = %refusal.message, "controller failed, trying again");
            true
        }
    }
}

/// Whether a pod counts as one that runs or will.
fn is_active(pod: &Value) -> bool {
    !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
        && pod.pointer("/metadata/deletionTimestamp").is_none()
}

/// Whether a condition of this type is True.
fn condition_is(object: &Value, kind: &str, status: &str) -> bool {
    let list = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    list.into_iter().any(|condition| text(condition, "/type") == kind && text(condition, "/status") == status)
}

fn integer(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}
