//! The copy as other modules of the process use it.

use futures::{FutureExt, StreamExt, stream::BoxStream};
use kubeedge_core::store::{Batch, Entry, Key, Scan};

use super::*;

fn pod_key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::known("pod", namespace, name)
}

fn at(version: u32) -> Bytes {
    let object = json!({"metadata": {"name": "web", "uid": "u", "resourceVersion": version.to_string()}});
    object.to_string().into()
}

fn memory() -> MetaHandle {
    MetaHandle::over(Arc::new(MemoryStore::new()))
}

/// The event that is there already, as its kind, name and version.
fn heard(watch: &mut Watch) -> Option<(&'static str, String, String)> {
    let event = watch.next().now_or_never()?.unwrap();
    let (what, object) = match event {
        MetaEvent::Added(object) => ("added", object),
        MetaEvent::Modified(object) => ("modified", object),
        MetaEvent::Deleted(object) => ("deleted", object),
        MetaEvent::Lagged => return Some(("lagged", String::new(), String::new())),
    };
    Some((what, object.key.name.clone(), object.version().as_str().to_owned()))
}

#[tokio::test]
async fn a_list_holds_one_kind_or_one_namespace_of_it() {
    let meta = memory();
    for key in
        [pod_key("a", "x"), pod_key("b", "y"), pod_key("ab", "z"), ObjectKey::known("podpatch", "a", "x")]
    {
        meta.put(&key, at(1)).await.unwrap();
    }
    let names = |list: Vec<Object>| list.into_iter().map(|object| object.key.name).collect::<Vec<_>>();
    assert_eq!(names(meta.list(&Selector::known("pod")).await.unwrap()), ["x", "z", "y"]);
    assert_eq!(names(meta.list(&Selector::known("pod").in_namespace("a")).await.unwrap()), ["x"]);
    assert!(meta.list(&Selector::new("apps", "pod")).await.unwrap().is_empty());
}

#[tokio::test]
async fn bytes_of_an_object_are_shared_not_copied() {
    let meta = memory();
    let object = at(1);
    meta.put(&pod_key("a", "x"), object.clone()).await.unwrap();
    let read = meta.get(&pod_key("a", "x")).await.unwrap().unwrap().bytes;
    assert_eq!(read.as_ptr(), object.as_ptr());
}

#[tokio::test]
async fn watchers_hear_what_happens_to_their_objects_in_order() {
    let meta = memory();
    let (mut all, mut one) =
        (meta.watch(Selector::known("pod")), meta.watch(Selector::known("pod").in_namespace("b")));
    meta.put(&pod_key("a", "x"), at(1)).await.unwrap();
    meta.put(&pod_key("a", "x"), at(3)).await.unwrap();
    // An earlier form and the same form change nothing.
    meta.put(&pod_key("a", "x"), at(2)).await.unwrap();
    meta.put(&pod_key("a", "x"), at(3)).await.unwrap();
    meta.put(&ObjectKey::known("secret", "b", "s"), at(1)).await.unwrap();
    meta.put(&pod_key("b", "y"), at(4)).await.unwrap();
    meta.delete(&pod_key("a", "x")).await.unwrap();
    meta.delete(&pod_key("a", "x")).await.unwrap();
    let all: Vec<_> = std::iter::from_fn(|| heard(&mut all)).collect();
    let told = |what, name: &str, version: &str| (what, name.to_owned(), version.to_owned());
    let (added, modified) = (told("added", "x", "1"), told("modified", "x", "3"));
    assert_eq!(all, [added, modified, told("added", "y", "4"), told("deleted", "x", "3")]);
    assert_eq!(heard(&mut one), Some(told("added", "y", "4")));
    assert_eq!(heard(&mut one), None);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_told_that_it_lagged() {
    let meta = memory();
    let mut watch = meta.watch(Selector::known("pod"));
    for version in 1..=2000 {
        meta.put(&pod_key("a", "x"), at(version)).await.unwrap();
    }
    assert_eq!(heard(&mut watch).unwrap().0, "lagged");
    assert_eq!(heard(&mut watch), None, "what was lost is told once");
    meta.put(&pod_key("a", "x"), at(2001)).await.unwrap();
    assert_eq!(heard(&mut watch).unwrap().2, "2001");
}

#[tokio::test]
async fn what_waits_for_a_watcher_is_bounded_in_bytes() {
    let meta = memory();
    let mut watch = meta.watch(Selector::known("pod"));
    let large = |n: usize| Bytes::from(format!("{n}{}", " ".repeat(3 << 20)));
    for n in 0..2 {
        meta.put(&pod_key("a", &n.to_string()), large(n)).await.unwrap();
    }
    assert_eq!(heard(&mut watch).unwrap().0, "added");
    for n in 2..5 {
        meta.put(&pod_key("a", &n.to_string()), large(n)).await.unwrap();
    }
    assert_eq!(heard(&mut watch).unwrap().0, "lagged");
}

/// A store whose commits happen and then never return.
#[derive(Debug)]
struct Stuck(MemoryStore);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MetaStore for Stuck {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.0.get(key).await
    }
    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        self.0.scan(scan)
    }
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.commit(batch).await?;
        std::future::pending().await
    }
    async fn close(&self) -> Result<(), StoreError> {
        self.0.close().await
    }
}

#[tokio::test]
async fn a_commit_whose_end_nobody_awaits_counts_as_lost() {
    let meta = MetaHandle::over(Arc::new(Stuck(MemoryStore::new())));
    let mut watch = meta.watch(Selector::known("pod"));
    assert!(meta.put(&pod_key("a", "x"), at(1)).now_or_never().is_none());
    assert_eq!(heard(&mut watch).unwrap().0, "lagged");
    assert_eq!(meta.list(&Selector::known("pod")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_watch_ends_with_the_last_handle() {
    let meta = memory();
    let mut changes = meta.watch(Selector::known("pod")).into_stream();
    meta.put(&pod_key("a", "x"), at(1)).await.unwrap();
    drop(meta);
    assert!(matches!(changes.next().await, Some(MetaEvent::Added(_))));
    assert_eq!(changes.next().await, None);
}

#[tokio::test]
async fn what_the_cloud_sends_is_heard_of_after_it_is_stored() {
    let mut rig = rig();
    let mut watch = rig.handle.watch(Selector::known("pod"));
    for (operation, what) in [(Operation::INSERT, "added"), (Operation::DELETE, "deleted")] {
        rig.tell(from_cloud(ModuleName::EDGE_CONTROLLER, operation, "default/pod/web", &pod("u1"))).await;
        rig.hub.next().await.unwrap();
        assert_eq!(heard(&mut watch).unwrap().0, what);
    }
}

#[tokio::test]
async fn objects_of_dynamic_controller_stand_in_their_own_group() {
    let mut rig = rig();
    let object = json!({"apiVersion": "serving.knative.dev/v1", "metadata": {"name": "s", "uid": "u"}});
    let from = ModuleName::DYNAMIC_CONTROLLER;
    rig.tell(from_cloud(from.clone(), Operation::INSERT, "default/service/s", &object)).await;
    rig.hub.next().await.unwrap();
    let key = ObjectKey::new("serving.knative.dev", "service", "default", "s");
    assert!(rig.handle.get(&key).await.unwrap().is_some());
    rig.tell(from_cloud(from, Operation::DELETE, "default/service/s", &object)).await;
    rig.hub.next().await.unwrap();
    assert_eq!(rig.handle.get(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_question_on_the_bus_is_answered_with_plain_json() {
    let mut rig = rig();
    rig.tell(from_cloud(ModuleName::EDGE_CONTROLLER, Operation::INSERT, "default/pod/web", &pod("u1"))).await;
    rig.hub.next().await.unwrap();
    for (resource, answer) in [
        ("default/pod", json!([pod("u1")])),
        ("default/pod/web", pod("u1")),
        ("default/secret/s", client::not_found("default/secret/s")),
    ] {
        let question = Message::new(ModuleName::of("acme"), Operation::QUERY, resource);
        let within = Duration::from_secs(60);
        let said = rig.bus.request(&ModuleName::META_MANAGER, question, within).await.unwrap();
        assert_eq!(said.content.decode::<Value>().unwrap(), answer, "{resource}");
    }
}
