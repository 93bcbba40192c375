//! The controllers of a small cluster: Deployments and ReplicaSets, the scheduler, node lifecycle, garbage
//! collection, namespaces and service accounts.
//!
//! One task runs them all. It reads the history of changes, marks the objects a change may concern, and lets each
//! controller compare what is with what should be; nothing depends on having seen a particular change. A look every
//! few seconds catches what time alone brings about: leases that run out, tolerations that end, rollouts that are late.
//! It costs what is unfinished, not what is there; only the full look every few minutes reads everything.

mod deployment;
mod expiry;
mod garbage;
mod namespaces;
mod nodes;
mod replicaset;
mod scheduler;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, future, stream};
use kubeedge_core::kernel::Shutdown;
use parking_lot::Mutex;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::edit::{At as _, field, put};

use super::{
    EmbeddedCluster, Server,
    kinds::{Kind, built_in_kind},
    registry::{self, Deletion, Mode, Part, Validation, text},
    status::Refusal,
    storage::{Change, TooOld},
};

/// How often what depends on time is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often what has expired is removed.
const EXPIRY: Duration = Duration::from_secs(60);
/// How often everything is looked at, changed or not.
const EVERYTHING: Duration = Duration::from_secs(300);
/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How many changes are taken at once.
const CHUNK: usize = 256;
/// How many nodes are worked on at once.
const NODES_AT_ONCE: usize = 64;

/// Namespace and name.
type Place = (String, String);

/// Runs all controllers until shutdown.
pub async fn run(cluster: EmbeddedCluster, shutdown: Shutdown) {
    let desk = Desk { server: cluster.server, nodes: Mutex::default() };
    let mut newest = desk.server.storage.subscribe();
    let mut version = desk.server.storage.version();
    let mut dirty = Dirty::default();
    let mut due = Due::at_once();
    loop {
        newest.borrow_and_update();
        match desk.server.storage.since(version, CHUNK) {
            Ok(changes) => {
                if let Some(last) = changes.last() {
                    version = last.version;
                }
                changes.iter().for_each(|change| desk.note(change, &mut dirty));
                if changes.len() == CHUNK {
                    continue;
                }
            }
            Err(TooOld) => {
                version = desk.server.storage.version();
                due = Due::at_once();
            }
        }
        due.mark(&desk, &mut dirty);
        dirty = desk.settle(std::mem::take(&mut dirty)).await;
        let next = if dirty.is_empty() { due.look } else { due.look.min(Instant::now() + RETRY) };
        tokio::select! {
            () = shutdown.requested() => return,
            changed = newest.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// When the next looks are due that no change asks for. They come at their time however many changes there are.
#[derive(Debug)]
struct Due {
    look: Instant,
    expiry: Instant,
    everything: Instant,
}

impl Due {
    fn at_once() -> Self {
        let now = Instant::now();
        Self { look: now, expiry: now, everything: now }
    }

    /// Marks what is due.
    fn mark(&mut self, desk: &Desk, dirty: &mut Dirty) {
        let now = Instant::now();
        if now < self.look {
            return;
        }
        self.look = now + LOOK;
        if now >= self.everything {
            self.everything = now + EVERYTHING;
            *dirty = desk.everything();
        }
        desk.unfinished(dirty);
        if now >= self.expiry {
            self.expiry = now + EXPIRY;
            dirty.expiry = true;
        }
    }
}

/// What must be looked at.
#[derive(Debug, Default)]
struct Dirty {
    deployments: BTreeSet<Place>,
    replica_sets: BTreeSet<Place>,
    namespaces: BTreeSet<String>,
    nodes: BTreeSet<String>,
    pods: bool,
    owners: bool,
    expiry: bool,
}

fn place(object: &Value) -> Place {
    (text(object, "/metadata/namespace").to_owned(), text(object, "/metadata/name").to_owned())
}

/// The controller of an object: the owner that manages it.
fn controller(object: &Value) -> Option<&Value> {
    let owners = object.at("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))
}

impl Dirty {
    fn is_empty(&self) -> bool {
        self.deployments.is_empty()
            && self.replica_sets.is_empty()
            && self.namespaces.is_empty()
            && self.nodes.is_empty()
            && !(self.pods || self.owners || self.expiry)
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
            ("", "nodes") => {
                self.nodes.insert(here.1.clone());
                self.pods = true;
            }
            ("", "namespaces") => drop(self.namespaces.insert(here.1.clone())),
            _ => {}
        }
        let deleting = object.at("/metadata/deletionTimestamp").is_some();
        // Nothing belongs to an event.
        let gone = change.happened == super::storage::Happened::Deleted && change.key.plural != "events";
        self.owners |= gone || deleting;
        if deleting && !here.0.is_empty() {
            self.namespaces.insert(here.0);
        }
    }
}

/// What controllers work with.
#[derive(Debug)]
struct Desk {
    server: Arc<Server>,
    nodes: Mutex<nodes::Ledger>,
}

impl Desk {
    fn note(&self, change: &Change, dirty: &mut Dirty) {
        self.nodes.lock().note(change);
        dirty.note(change);
    }

    fn everything(&self) -> Dirty {
        let places = |group: &str, plural: &str| {
            self.list(group, plural, "").iter().map(|object| place(object)).collect()
        };
        let namespaces = self.names("namespaces");
        let nodes = self.list("", "nodes", "");
        self.nodes.lock().take_stock(&nodes, &self.list(nodes::LEASES.0, nodes::LEASES.1, nodes::LEASES.2));
        Dirty {
            deployments: places("apps", "deployments"),
            replica_sets: places("apps", "replicasets"),
            namespaces,
            nodes: nodes.iter().map(|node| place(node).1).collect(),
            pods: true,
            owners: true,
            expiry: true,
        }
    }

    /// Adds what time alone may change: nodes that are not heard of or drive pods out, and what is not yet as it is wished.
    fn unfinished(&self, dirty: &mut Dirty) {
        dirty.pods = true;
        dirty.nodes.extend(self.nodes.lock().unfinished());
        let waiting = |plural: &str, counts: &str| -> Vec<Place> {
            let all = self.list("apps", plural, "");
            let unfinished = all.iter().filter(|object| {
                let is = |field: &str| integer(object, &format!("/status/{field}"));
                let wished = integer(object, "/spec/replicas");
                is("replicas") != wished || is("availableReplicas") != wished || is(counts) != wished
            });
            unfinished.map(|object| place(object)).collect()
        };
        dirty.deployments.extend(waiting("deployments", "updatedReplicas"));
        dirty.replica_sets.extend(waiting("replicasets", "readyReplicas"));
        let namespaces = self.list("", "namespaces", "");
        let ending =
            namespaces.iter().filter(|namespace| namespace.at("/metadata/deletionTimestamp").is_some());
        dirty.namespaces.extend(ending.map(|namespace| place(namespace).1));
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
        // Many may be lost at once, and each waits for what is written of it.
        let pods = &nodes::PodsOfNodes::default();
        let nodes = stream::iter(dirty.nodes).map(|name| async move {
            let done = nodes::reconcile(self, pods, &name).await;
            told("node", &(String::new(), name.clone()), done).then_some(name)
        });
        again.nodes.extend(
            nodes.buffer_unordered(NODES_AT_ONCE).filter_map(future::ready).collect::<Vec<_>>().await,
        );
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

    /// The names of all objects of a core kind without namespaces.
    fn names(&self, plural: &str) -> BTreeSet<String> {
        self.list("", plural, "").iter().map(|object| place(object).1).collect()
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Value>> {
        self.server.storage.list(group, plural, namespace).0
    }

    fn get(&self, kind: &Kind, at: &Place) -> Option<Arc<Value>> {
        self.server.storage.get(&kind.key(&at.0, &at.1))
    }

    async fn create(&self, kind: &Kind, namespace: &str, object: Value) -> Result<Arc<Value>, Refusal> {
        let made = registry::create(&self.server.storage, kind, namespace, object, Validation::Ignore, false);
        made.await.map(|(object, _)| object)
    }

    async fn change(
        &self,
        kind: &Kind,
        at: &Place,
        part: Part,
        make: impl FnOnce(&Value) -> Value + Send,
    ) -> Result<Arc<Value>, Refusal> {
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

    fn now(&self) -> String {
        self.server.storage.now()
    }

    fn moment(&self) -> OffsetDateTime {
        self.server.storage.moment()
    }

    /// Tells people what a controller did; the same again within its lifetime becomes a count.
    async fn event(&self, about: &Value, component: &str, kind: &str, reason: &str, message: &str) {
        let (namespace, name) = place(about);
        let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
        let events = built_in_kind("", "events");
        // The same again has the same name: nothing is searched for.
        let told = [text(about, "/metadata/uid"), component, reason, message].join("\n");
        let at = (namespace, format!("{name}.{:016x}", digest(&told)));
        let same = self.get(&events, &at);
        let stamp = self.now();
        if same.is_some() {
            let again = |before: &Value| {
                let mut event = before.clone();
                put(&mut event, &["count"], field(before, "/count").as_i64().unwrap_or(1) + 1);
                put(&mut event, &["lastTimestamp"], stamp);
                event
            };
            let _ = self.change(&events, &at, Part::Main, again).await;
            return;
        }
        let event = json!({
            "metadata": {"name": at.1}, "reason": reason, "message": message, "type": kind, "count": 1,
            "firstTimestamp": stamp, "lastTimestamp": stamp, "source": {"component": component}, "reportingComponent": component,
            "involvedObject": {"apiVersion": field(about, "/apiVersion"), "kind": field(about, "/kind"), "name": name, "namespace": field(about, "/metadata/namespace"),
                "uid": field(about, "/metadata/uid"), "resourceVersion": field(about, "/metadata/resourceVersion")},
        });
        if let Err(refusal) = self.create(&events, &at.0, event).await {
            tracing::debug!(error = %refusal.message, "event not written");
        }
    }
}

/// A number that stands for a text (FNV-1a).
fn digest(text: &str) -> u64 {
    let add = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, add)
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
        && pod.at("/metadata/deletionTimestamp").is_none()
}

/// Whether a condition of this type is True.
fn condition_is(object: &Value, kind: &str, status: &str) -> bool {
    let list = object.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    list.into_iter().any(|condition| text(condition, "/type") == kind && text(condition, "/status") == status)
}

fn integer(object: &Value, pointer: &str) -> i64 {
    object.at(pointer).and_then(Value::as_i64).unwrap_or(0)
}
