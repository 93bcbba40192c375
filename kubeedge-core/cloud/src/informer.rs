//! What the cluster holds, kept up to date by watches: one informer per kind, shared by all controllers.
//!
//! Objects are kept as the bytes that edges get, with a small head beside them. Subscribers see *changes*,
//! merged per object while they are busy: a slow subscriber costs one entry per object and holds up nobody.
//! `managedFields` are left out of what is kept and sent: Go carries them to the edge, where nothing reads
//! them.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Weak},
};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt,
    core::{ApiResource, DynamicObject, TypeMeta},
    runtime::{WatchStreamExt, watcher},
};
use kubeedge_core::{
    message::{Content, ContentError},
    name::ResourceVersion,
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

/// The label of edge nodes; its value is empty.
pub const EDGE_NODE_LABEL: &str = "node-role.kubernetes.io/edge";

/// Namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// One object of the cluster: its head, and the whole as JSON.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Object {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The unique id.
    pub uid: String,
    /// The resourceVersion.
    pub version: ResourceVersion,
    /// Whether a deletionTimestamp is set.
    pub deleting: bool,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The whole object with `apiVersion` and `kind`, without `managedFields`.
    pub content: Content,
    /// Of metadata (without resourceVersion and generation) and spec.
    print: u64,
    spec_print: u64,
}

impl Object {
    /// Reads the object as a type.
    pub fn view<T: DeserializeOwned>(&self) -> Result<T, ContentError> {
        self.content.decode()
    }

    /// Whether only status, resourceVersion or generation differ from `other`.
    pub fn same_but_status(&self, other: &Self) -> bool {
        self.uid == other.uid && self.print == other.print
    }

    /// Whether the specs are equal.
    pub fn same_spec(&self, other: &Self) -> bool {
        self.spec_print == other.spec_print
    }

    fn new(mut object: DynamicObject, kind: &ApiResource) -> Option<Self> {
        object.metadata.managed_fields = None;
        object.types = Some(TypeMeta { api_version: kind.api_version.clone(), kind: kind.kind.clone() });
        let content = Content::json(&object).ok()?;
        let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
        let version = ResourceVersion::from(object.metadata.resource_version.take().unwrap_or_default());
        object.metadata.generation = None;
        let spec_print = print(object.data.get("spec"));
        Some(Self {
            key,
            uid: object.uid().unwrap_or_default(),
            version,
            deleting: object.metadata.deletion_timestamp.is_some(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            content,
            print: print(Some(&object.metadata)) ^ spec_print.rotate_left(1),
            spec_print,
        })
    }
}

fn print<T: serde::Serialize>(value: Option<&T>) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(&value).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// What became of one object since the subscriber last looked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change {
    /// What the subscriber saw last, of an object that is gone its last form; `None` when it never saw the
    /// object.
    pub old: Option<Arc<Object>>,
    /// What is there now; `None` when the object is gone.
    pub new: Option<Arc<Object>>,
}

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<ObjectKey>,
    changes: HashMap<ObjectKey, Change>,
}

impl Mailbox {
    fn put(&self, key: &ObjectKey, change: Change) {
        let mut waiting = self.waiting.lock();
        if let Some(earlier) = waiting.changes.get_mut(key) {
            let same = |(seen, last): (&Arc<Object>, &Arc<Object>)| seen.uid == last.uid;
            if change.new.is_none() && earlier.old.as_ref().zip(change.old.as_ref()).is_some_and(same) {
                earlier.old = change.old;
            }
            earlier.new = change.new;
        } else {
            waiting.order.push_back(key.clone());
            waiting.changes.insert(key.clone(), change);
        }
        self.wake.notify_one();
    }

    fn take(&self) -> Option<Change> {
        let mut waiting = self.waiting.lock();
        while let Some(key) = waiting.order.pop_front() {
            match waiting.changes.remove(&key) {
                Some(Change { old: None, new: None }) | None => {}
                change => return change,
            }
        }
        None
    }
}

/// The changes of one kind as one subscriber sees them.
#[derive(Debug)]
pub struct Changes(Arc<Mailbox>);

impl Changes {
    /// The next change, oldest first. Cancel-safe.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.0.take() {
                return change;
            }
            self.0.wake.notified().await;
        }
    }
}

/// All objects of one kind.
#[derive(Debug)]
pub struct Informer {
    kind: ApiResource,
    state: Mutex<State>,
    ready: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    objects: HashMap<ObjectKey, Arc<Object>>,
    subscribers: Vec<Weak<Mailbox>>,
}

impl Informer {
    fn new(kind: ApiResource) -> Self {
        Self { kind, state: Mutex::default(), ready: watch::Sender::new(false) }
    }

    /// The kind it watches.
    pub fn kind(&self) -> &ApiResource {
        &self.kind
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.state.lock().objects.get(key).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<Object>> {
        self.state.lock().objects.values().cloned().collect()
    }

    /// Completes once the first list is there. Cancel-safe.
    pub async fn ready(&self) {
        // The sender lives as long as the informer.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Whether the first list is there.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// All objects there are, as changes, and every change from now on.
    pub fn subscribe(&self) -> Changes {
        let mailbox = Arc::new(Mailbox::default());
        let mut state = self.state.lock();
        for (key, object) in &state.objects {
            mailbox.put(key, Change { old: None, new: Some(object.clone()) });
        }
        state.subscribers.push(Arc::downgrade(&mailbox));
        Changes(mailbox)
    }

    fn set(&self, key: ObjectKey, new: Option<Arc<Object>>) {
        let mut state = self.state.lock();
        let old = match &new {
            Some(object) => state.objects.insert(key.clone(), object.clone()),
            None => state.objects.remove(&key),
        };
        let same = |(a, b): (&Arc<Object>, &Arc<Object>)| a.version == b.version && a.uid == b.uid;
        if old.is_none() && new.is_none() || old.as_ref().zip(new.as_ref()).is_some_and(same) {
            return;
        }
        state.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        for subscriber in state.subscribers.iter().filter_map(Weak::upgrade) {
            subscriber.put(&key, Change { old: old.clone(), new: new.clone() });
        }
    }

    fn apply(&self, object: DynamicObject) -> Option<ObjectKey> {
        let object = Arc::new(Object::new(object, &self.kind)?);
        let key = object.key.clone();
        self.set(key.clone(), Some(object));
        Some(key)
    }

    /// The object is gone; subscribers get it as it was at the end.
    fn delete(&self, object: DynamicObject) {
        let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
        if let Some(last) = Object::new(object, &self.kind) {
            let mut state = self.state.lock();
            if let Some(kept) = state.objects.get_mut(&key).filter(|kept| kept.uid == last.uid) {
                *kept = Arc::new(last);
            }
        }
        self.set(key, None);
    }

    async fn run(self: Arc<Self>, client: kube::Client, labels: Option<String>) {
        let api: Api<DynamicObject> = Api::all_with(client, &self.kind);
        let mut config = watcher::Config::default();
        if let Some(labels) = labels {
            config = config.labels(&labels);
        }
        let events = watcher(api, config).default_backoff();
        pin_mut!(events);
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => listed.extend(self.apply(object)),
                Ok(watcher::Event::InitDone) => self.finish_list(&std::mem::take(&mut listed)),
                Ok(watcher::Event::Apply(object)) => drop(self.apply(object)),
                Ok(watcher::Event::Delete(object)) => self.delete(object),
                Err(error) => {
                    tracing::warn!(kind = %self.kind.kind, error = %error, "watch failed, trying again");
                }
            }
        }
    }

    /// Objects that the list did not show are gone.
    fn finish_list(&self, listed: &HashSet<ObjectKey>) {
        let gone: Vec<_> =
            self.state.lock().objects.keys().filter(|key| !listed.contains(key)).cloned().collect();
        for key in gone {
            self.set(key, None);
        }
        self.ready.send_replace(true);
    }
}

type InformerKey = (ApiResource, Option<String>);

/// The informers of one cluster, started when first asked for; dropping this ends them all.
pub struct Informers {
    client: kube::Client,
    known: Mutex<HashMap<InformerKey, Arc<Informer>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.known.lock().keys().map(|(kind, _)| &kind.kind)).finish()
    }
}

impl Informers {
    /// No informers yet, on this client.
    pub fn new(client: kube::Client) -> Self {
        Self { client, known: Mutex::default(), tasks: Mutex::default() }
    }

    /// The informer of a kind, over all namespaces. Must be called within a tokio runtime.
    pub fn of(&self, kind: &ApiResource) -> Arc<Informer> {
        self.labelled(kind, None)
    }

    /// The informer of those objects of a kind that match a label selector.
    pub fn labelled(&self, kind: &ApiResource, labels: Option<&str>) -> Arc<Informer> {
        let key = (kind.clone(), labels.map(str::to_owned));
        let mut known = self.known.lock();
        if let Some(informer) = known.get(&key) {
            return informer.clone();
        }
        let informer = Arc::new(Informer::new(kind.clone()));
        let task = informer.clone().run(self.client.clone(), key.1.clone());
        self.tasks.lock().spawn(task);
        known.insert(key, informer.clone());
        informer
    }
}

/// A kind by its names.
pub fn kind(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// The informer of edge nodes.
pub(crate) fn edge_nodes(informers: &Informers) -> Arc<Informer> {
    informers.labelled(&ApiResource::erase::<Node>(&()), Some(&format!("{EDGE_NODE_LABEL}=")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, version: &str, spec: i32, status: i32) -> DynamicObject {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "default", "uid": "u", "resourceVersion": version,
                "managedFields": [{"manager": "m"}]},
            "spec": {"n": spec}, "status": {"n": status},
        }))
        .unwrap()
    }

    fn informer() -> Informer {
        Informer::new(kind("", "v1", "Pod", "pods"))
    }

    #[tokio::test]
    async fn changes_of_one_object_are_merged_while_the_subscriber_is_busy() {
        let informer = informer();
        let mut changes = informer.subscribe();
        informer.apply(object("a", "1", 1, 1));
        informer.apply(object("a", "2", 1, 1));
        informer.apply(object("b", "3", 1, 1));
        informer.set(ObjectKey::new("default", "b"), None);
        informer.apply(object("c", "4", 1, 1));
        let first = changes.next().await;
        assert!(first.old.is_none());
        assert_eq!(first.new.unwrap().version, "2");
        assert_eq!(changes.next().await.new.unwrap().key.name, "c");
    }

    #[tokio::test]
    async fn an_object_that_is_gone_is_seen_as_it_was_at_the_end() {
        let informer = informer();
        let mut changes = informer.subscribe();
        informer.apply(object("a", "1", 1, 1));
        changes.next().await;
        informer.apply(object("a", "2", 1, 2));
        informer.delete(object("a", "3", 1, 3));
        let change = changes.next().await;
        assert!(change.new.is_none());
        let last: serde_json::Value = change.old.unwrap().view().unwrap();
        assert_eq!((&last["metadata"]["resourceVersion"], &last["status"]["n"]), (&"3".into(), &3.into()));
    }

    #[tokio::test]
    async fn a_late_subscriber_sees_everything_that_is_there() {
        let informer = informer();
        informer.apply(object("a", "1", 1, 1));
        assert_eq!(informer.subscribe().next().await.new.unwrap().key.name, "a");
    }

    #[tokio::test]
    async fn what_a_new_list_does_not_show_is_gone() {
        let informer = informer();
        informer.apply(object("a", "1", 1, 1));
        let mut changes = informer.subscribe();
        changes.next().await;
        assert!(!informer.is_ready());
        informer.finish_list(&HashSet::new());
        informer.ready().await;
        let change = changes.next().await;
        assert!(change.new.is_none() && change.old.is_some());
    }

    #[test]
    fn kept_objects_name_their_kind_and_leave_out_managed_fields() {
        let kept = Object::new(object("a", "1", 1, 1), &kind("", "v1", "Pod", "pods")).unwrap();
        let text = String::from_utf8(kept.content.as_json().to_vec()).unwrap();
        assert!(text.starts_with(r#"{"apiVersion":"v1","kind":"Pod","metadata""#), "{text}");
        assert!(!text.contains("managedFields"), "{text}");
    }

    #[test]
    fn a_change_of_status_alone_is_told_from_one_of_spec() {
        let pod = |version, spec, status| {
            Object::new(object("a", version, spec, status), &kind("", "v1", "Pod", "pods")).unwrap()
        };
        assert!(pod("1", 1, 1).same_but_status(&pod("2", 1, 2)));
        assert!(!pod("1", 1, 1).same_but_status(&pod("2", 2, 1)));
        assert!(!pod("1", 1, 1).same_spec(&pod("2", 2, 1)));
    }
}
