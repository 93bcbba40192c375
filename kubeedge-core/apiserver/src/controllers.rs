//! The controllers of a small cluster: Deployments and ReplicaSets, the scheduler, node lifecycle, garbage
//! collection, namespaces and service accounts.
//!
//! One task runs them all. It reads the history of changes, marks the objects a change may concern, and lets
//! each controller compare what is with what should be; nothing depends on having seen a particular change. A
//! look every few seconds catches what time alone brings about: leases that run out, tolerations that end,
//! rollouts that are late. It costs what is unfinished, not what is there; only the full look every few
//! minutes reads everything.

mod deployment;
mod expiry;
mod garbage;
mod namespaces;
mod nodes;
mod replicaset;
mod scheduler;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, future, stream};
use kubeedge_common::fnv::fnv64;
use kubeedge_core::kernel::Shutdown;
use parking_lot::Mutex;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    admission::{Deletion, Mode, Part, Validation},
    cluster::EmbeddedCluster,
    embedded::{EmbeddedStorage, TooOld},
    key::ObjectKey,
    kinds::{DEPLOYMENTS, EVENTS, Kind, LEASES, NAMESPACES, NODES, PODS, REPLICA_SETS},
    object::Object,
    registry::Registry,
    status::{Reason, Refusal},
    storage::{Change, Happened},
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
    let ctx = Context::of(&cluster);
    let mut newest = ctx.storage.subscribe();
    let mut version = ctx.storage.version();
    let mut dirty = Dirty::default();
    let mut due = Due::at_once();
    loop {
        newest.borrow_and_update();
        match ctx.storage.changes(version, CHUNK) {
            Ok(changes) => {
                if let Some(last) = changes.last() {
                    version = last.version;
                }
                changes.iter().for_each(|change| ctx.note(change, &mut dirty));
                if changes.len() == CHUNK {
                    continue;
                }
            }
            Err(TooOld) => {
                version = ctx.storage.version();
                due = Due::at_once();
            }
        }
        due.mark(&ctx, &mut dirty);
        dirty = ctx.settle(std::mem::take(&mut dirty)).await;
        let next = if dirty.is_empty() { due.look } else { due.look.min(Instant::now() + RETRY) };
        tokio::select! {
            () = shutdown.requested() => return,
            changed = newest.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// When the next looks are due that no change asks for. They come at their time however many changes there
/// are.
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
    fn mark(&mut self, ctx: &Context, dirty: &mut Dirty) {
        let now = Instant::now();
        if now < self.look {
            return;
        }
        self.look = now + LOOK;
        if now >= self.everything {
            self.everything = now + EVERYTHING;
            *dirty = ctx.everything();
        }
        ctx.unfinished(dirty);
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
    (object.namespace().to_owned(), object.name().to_owned())
}

impl Dirty {
    fn is_empty(&self) -> bool {
        self.deployments.is_empty()
            && self.replica_sets.is_empty()
            && self.namespaces.is_empty()
            && self.nodes.is_empty()
            && !(self.pods || self.owners || self.expiry)
    }

    /// Marks what a change may concern.
    fn note(&mut self, change: &Change) {
        let (key, object) = (&change.key, &*change.object);
        let here = place(object);
        let owner = object.controller().map(|owner| (here.0.clone(), owner.text(&["name"]).to_owned()));
        if DEPLOYMENTS.has(key) {
            self.deployments.insert(here.clone());
        } else if REPLICA_SETS.has(key) {
            self.replica_sets.insert(here.clone());
            self.deployments.extend(owner);
        } else if PODS.has(key) {
            self.replica_sets.extend(owner);
            self.pods = true;
        } else if NODES.has(key) {
            self.nodes.insert(here.1.clone());
            self.pods = true;
        } else if NAMESPACES.has(key) {
            self.namespaces.insert(here.1.clone());
        }
        let deleting = object.is_deleting();
        // Nothing belongs to an event.
        let gone = change.happened == Happened::Deleted && !EVENTS.has(key);
        self.owners |= gone || deleting;
        if deleting && !here.0.is_empty() {
            self.namespaces.insert(here.0);
        }
    }
}

/// What controllers work with: the objects, read without waiting, and what is known of nodes.
#[derive(Debug)]
struct Context {
    registry: Arc<Registry>,
    storage: Arc<EmbeddedStorage>,
    /// The CA certificate that each namespace is told.
    root_ca_pem: String,
    nodes: Mutex<nodes::Ledger>,
}

impl Context {
    fn of(cluster: &EmbeddedCluster) -> Self {
        Self {
            registry: cluster.server().registry().clone(),
            storage: cluster.storage().clone(),
            root_ca_pem: cluster.root_ca_pem().to_owned(),
            nodes: Mutex::default(),
        }
    }

    fn note(&self, change: &Change, dirty: &mut Dirty) {
        self.nodes.lock().note(change);
        dirty.note(change);
    }

    fn everything(&self) -> Dirty {
        let places = |kind: &Kind| self.list(kind, "").iter().map(|object| place(object)).collect();
        let namespaces = self.list(&NAMESPACES, "").iter().map(|object| object.name().to_owned()).collect();
        let nodes = self.list(&NODES, "");
        self.nodes.lock().take_stock(&nodes, &self.list(&LEASES, nodes::LEASES_IN));
        Dirty {
            deployments: places(&DEPLOYMENTS),
            replica_sets: places(&REPLICA_SETS),
            namespaces,
            nodes: nodes.iter().map(|node| place(node).1).collect(),
            pods: true,
            owners: true,
            expiry: true,
        }
    }

    /// Adds what time alone may change: nodes that are not heard of or drive pods out, and what is not yet as
    /// it is wished.
    fn unfinished(&self, dirty: &mut Dirty) {
        dirty.pods = true;
        dirty.nodes.extend(self.nodes.lock().unfinished());
        let waiting = |kind: &Kind, counts: &str| -> Vec<Place> {
            let all = self.list(kind, "");
            let unfinished = all.iter().filter(|object| {
                let is = |field: &str| object.integer(&["status", field]);
                let wished = object.replicas();
                is("replicas") != wished || is("availableReplicas") != wished || is(counts) != wished
            });
            unfinished.map(|object| place(object)).collect()
        };
        dirty.deployments.extend(waiting(&DEPLOYMENTS, "updatedReplicas"));
        dirty.replica_sets.extend(waiting(&REPLICA_SETS, "readyReplicas"));
        let namespaces = self.list(&NAMESPACES, "");
        let ending = namespaces.iter().filter(|namespace| namespace.is_deleting());
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

    fn list(&self, kind: &Kind, namespace: &str) -> Vec<Arc<Value>> {
        self.storage.read_all(&kind.collection(namespace))
    }

    fn get(&self, kind: &Kind, at: &Place) -> Option<Arc<Value>> {
        self.storage.read(&kind.key(&at.0, &at.1))
    }

    /// The kind of a stored object; `None` where its definition is gone.
    async fn kind_of(&self, key: &ObjectKey, object: &Value) -> Result<Option<Kind>, Refusal> {
        let api = object.api_version();
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        match self.registry.kind(group, version, &key.plural).await {
            Err(refusal) if refusal.reason == Reason::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    async fn create(&self, kind: &Kind, namespace: &str, object: Value) -> Result<Arc<Value>, Refusal> {
        let made = self.registry.create(kind, namespace, object, Validation::Ignore, false);
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
        let done = self.registry.change(kind, &at.0, &at.1, Mode::ours(part), make);
        done.await.map(|(object, _)| object)
    }

    async fn delete(&self, kind: &Kind, object: &Value, grace: Option<i64>) -> Result<(), Refusal> {
        let at = place(object);
        let how = Deletion { grace, uid: Some(object.uid().to_owned()), ..Deletion::default() };
        match self.registry.delete(kind, &at.0, &at.1, &how, false).await {
            Err(refusal) if refusal.reason != Reason::NotFound => Err(refusal),
            _ => Ok(()),
        }
    }

    fn now(&self) -> String {
        self.registry.now()
    }

    fn moment(&self) -> OffsetDateTime {
        self.registry.moment()
    }

    /// Tells people what a controller did; the same again within its lifetime becomes a count.
    async fn event(&self, about: &Value, component: &str, kind: &str, reason: &str, message: &str) {
        let (namespace, name) = place(about);
        let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
        let events = EVENTS;
        // The same again has the same name: nothing is searched for.
        let told = [about.uid(), component, reason, message].join("\n");
        let at = (namespace, format!("{name}.{:016x}", fnv64(told.as_bytes())));
        let same = self.get(&events, &at);
        let stamp = self.now();
        if same.is_some() {
            let again = |before: &Value| {
                let mut event = before.clone();
                event.set(&["count"], before.copy(&["count"]).as_i64().unwrap_or(1) + 1);
                event.set(&["lastTimestamp"], stamp);
                event
            };
            let _ = self.change(&events, &at, Part::Main, again).await;
            return;
        }
        let event = json!({
            "metadata": {"name": at.1}, "reason": reason, "message": message, "type": kind, "count": 1,
            "firstTimestamp": stamp, "lastTimestamp": stamp, "source": {"component": component}, "reportingComponent": component,
            "involvedObject": {"apiVersion": about.copy(&["apiVersion"]), "kind": about.copy(&["kind"]), "name": name, "namespace": about.copy(&["metadata", "namespace"]),
                "uid": about.copy(&["metadata", "uid"]), "resourceVersion": about.copy(&["metadata", "resourceVersion"])},
        });
        if let Err(refusal) = self.create(&events, &at.0, event).await {
            tracing::debug!(error = %refusal, "event not written");
        }
    }
}

/// Logs a failure; whether to try again.
fn told(what: &str, at: &Place, done: Result<(), Refusal>) -> bool {
    match done {
        Ok(()) => false,
        // Somebody was faster: the change they made brings us back.
        Err(refusal) if refusal.reason == Reason::Conflict => true,
        Err(refusal) => {
            tracing::warn!(controller = what, namespace = %at.0, name = %at.1, error = %refusal, "controller failed, trying again");
            true
        }
    }
}
