//! What every [`Storage`] must do. A kit calls no API server: it is about objects, versions and watches.
//!
//! A harness makes storages for the cases; `storage_conformance!` makes a test of each case:
//!
//! ```
//! use std::sync::Arc;
//!
//! use kubeedge_apiserver::{EmbeddedStorage, Storage, conformance::StorageHarness};
//! use kubeedge_store::MemoryStore;
//!
//! struct InMemory(Arc<MemoryStore>);
//!
//! #[async_trait::async_trait]
//! impl StorageHarness for InMemory {
//!     async fn open(&self) -> Arc<dyn Storage> {
//!         Arc::new(EmbeddedStorage::open(self.0.clone()).await.unwrap())
//!     }
//! }
//!
//! # #[cfg(test)]
//! kubeedge_apiserver::storage_conformance!(async { InMemory(Arc::default()) });
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! kubeedge_apiserver::conformance::objects_are_put_read_and_deleted(InMemory(Arc::default())).await;
//! # });
//! ```
//!
//! The using crate needs tokio with `macros` and `rt-multi-thread` as a dev-dependency. Each case works on
//! kinds and names of its own, so that a storage may hold other objects too.

// A kit's cases fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{
    key::{Collection, ObjectKey},
    selectors::Selector,
    storage::{Change, Happened, ListQuery, Storage, StorageKind, Watcher, Write},
};

/// The implementation under test.
#[async_trait]
pub trait StorageHarness: Send + Sync + 'static {
    /// Opens the storage; called once more, it finds what was written before, as after a restart.
    async fn open(&self) -> Arc<dyn Storage>;
}

/// Makes tests of all cases; the argument is a future of a [`StorageHarness`], run for each case anew.
#[macro_export]
macro_rules! storage_conformance {
    ($make:expr) => {
        $crate::storage_conformance!(@cases $make;
            objects_are_put_read_and_deleted
            versions_grow_and_stand_in_the_object
            a_write_that_keeps_or_refuses_changes_nothing
            writers_of_one_object_build_on_each_other
            a_list_is_ordered_and_of_one_collection
            a_list_comes_in_pages
            a_list_holds_only_what_matches
            a_watch_tells_each_change_in_order
            a_watch_begins_after_its_version
            a_watch_hears_nothing_of_other_collections
            a_watch_waits_and_may_be_dropped
            a_resting_watch_knows_newer_versions
            objects_and_versions_survive_a_restart
        );
    };
    (@cases $make:expr; $($case:ident)*) => { $(
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::$case($make.await).await;
        }
    )* };
}

const PATIENCE: Duration = Duration::from_secs(10);

fn collection(plural: &str, namespace: &str) -> Collection {
    Collection { group: "kit.kubeedge.io".into(), plural: plural.into(), namespace: namespace.into() }
}

fn key(plural: &str, name: &str) -> ObjectKey {
    collection(plural, "").key("default", name)
}

fn object(key: &ObjectKey, value: impl Into<Value>) -> Value {
    json!({"metadata": {"name": key.name, "namespace": key.namespace}, "value": value.into()})
}

async fn put(storage: &dyn Storage, key: &ObjectKey, value: impl Into<Value>) -> Arc<Value> {
    let object = object(key, value);
    storage.write(key, Box::new(|_| Write::Put(object))).await.unwrap().expect("what was put")
}

async fn delete(storage: &dyn Storage, key: &ObjectKey) -> Arc<Value> {
    storage.write(key, Box::new(|_| Write::Delete)).await.unwrap().expect("what was deleted")
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn names(objects: &[Arc<Value>]) -> Vec<String> {
    let name = |object: &Arc<Value>| {
        format!(
            "{}/{}",
            object["metadata"]["namespace"].as_str().unwrap(),
            object["metadata"]["name"].as_str().unwrap()
        )
    };
    objects.iter().map(name).collect()
}

/// Reads so many changes.
async fn changes(watcher: &mut dyn Watcher, count: usize) -> Vec<Arc<Change>> {
    let mut all = Vec::new();
    while all.len() < count {
        let next = tokio::time::timeout(PATIENCE, watcher.next()).await.expect("a change in time");
        let next = next.expect("changes");
        assert!(!next.is_empty(), "a watcher returns at least one change");
        all.extend(next);
    }
    assert_eq!(all.len(), count, "no more changes than were made");
    all
}

/// A put object is read, replaced and deleted, and gone then.
pub async fn objects_are_put_read_and_deleted(harness: impl StorageHarness) {
    let storage = harness.open().await;
    let key = key("reads", "a");
    assert!(storage.get(&key).await.unwrap().is_none());
    put(&*storage, &key, 1).await;
    assert_eq!(storage.get(&key).await.unwrap().unwrap()["value"], 1);
    put(&*storage, &key, 2).await;
    assert_eq!(storage.get(&key).await.unwrap().unwrap()["value"], 2);
    assert_eq!(delete(&*storage, &key).await["value"], 2);
    assert!(storage.get(&key).await.unwrap().is_none());
    let nothing = storage.write(&key, Box::new(|_| Write::Delete)).await.unwrap();
    assert!(nothing.is_none(), "of what is not there nothing is deleted");
}

/// Each write has a version of its own, which the object says and a list reaches.
pub async fn versions_grow_and_stand_in_the_object(harness: impl StorageHarness) {
    let storage = harness.open().await;
    let (one, two) = (key("versions", "one"), key("versions", "two"));
    let first = put(&*storage, &one, 1).await;
    let second = put(&*storage, &two, 1).await;
    let third = put(&*storage, &one, 2).await;
    assert!(version(&first) < version(&second) && version(&second) < version(&third));
    assert_eq!(version(&storage.get(&one).await.unwrap().unwrap()), version(&third));
    let gone = delete(&*storage, &two).await;
    assert!(version(&gone) > version(&third), "a deletion has a version too");
    let listed = storage.list(&ListQuery::all(collection("versions", ""))).await.unwrap();
    assert!(listed.version >= version(&gone));
}

/// What is decided to stay as it is gets no version, and the decision sees the object.
pub async fn a_write_that_keeps_or_refuses_changes_nothing(harness: impl StorageHarness) {
    let storage = harness.open().await;
    let key = key("kept", "a");
    let before = put(&*storage, &key, 1).await;
    for write in [Write::Keep, Write::Refuse] {
        let mut seen = None;
        let slot = &mut seen;
        let decide = Box::new(|object: Option<&Value>| {
            *slot = object.cloned();
            write
        });
        let answered = storage.write(&key, decide).await.unwrap();
        assert_eq!((answered, seen.as_ref()), (Some(before.clone()), Some(&*before)));
    }
    assert_eq!(storage.get(&key).await.unwrap().unwrap(), before);
}

/// Of many who count up at once, none is lost; those told of a conflict have written nothing.
pub async fn writers_of_one_object_build_on_each_other(harness: impl StorageHarness) {
    const WRITERS: u64 = 50;
    let storage = harness.open().await;
    let key = key("counted", "a");
    let writers = (0..WRITERS).map(|_| {
        let (storage, key) = (storage.clone(), key.clone());
        tokio::spawn(async move {
            loop {
                let decide = |before: Option<&Value>| {
                    let count = before.map_or(0, |before| before["value"].as_u64().unwrap());
                    Write::Put(object(&key, count + 1))
                };
                match storage.write(&key, Box::new(decide)).await {
                    Ok(_) => return,
                    Err(error) => assert_eq!(error.kind(), StorageKind::Conflict, "{error}"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(storage.get(&key).await.unwrap().unwrap()["value"], WRITERS);
}

async fn scattered(storage: &dyn Storage, plural: &str) {
    for (namespace, name) in [("b", "x"), ("a", "y"), ("a", "x"), ("b", "a")] {
        put(storage, &collection(plural, "").key(namespace, name), 1).await;
    }
    put(storage, &collection(&format!("{plural}s"), "").key("a", "other"), 1).await;
}

/// A list holds the objects of its kind and namespace only, in the order of namespace and name.
pub async fn a_list_is_ordered_and_of_one_collection(harness: impl StorageHarness) {
    let storage = harness.open().await;
    scattered(&*storage, "listed").await;
    let all = storage.list(&ListQuery::all(collection("listed", ""))).await.unwrap();
    assert_eq!(names(&all.objects), ["a/x", "a/y", "b/a", "b/x"]);
    assert_eq!(all.remaining, 0);
    let within = storage.list(&ListQuery::all(collection("listed", "b"))).await.unwrap();
    assert_eq!(names(&within.objects), ["b/a", "b/x"]);
    let none = storage.list(&ListQuery::all(collection("unheard-of", ""))).await.unwrap();
    assert!(none.objects.is_empty(), "a kind without objects is an empty list");
}

/// A limit bounds a page, which says how many are behind it; the next page begins there.
pub async fn a_list_comes_in_pages(harness: impl StorageHarness) {
    let storage = harness.open().await;
    scattered(&*storage, "paged").await;
    let query = |limit, after: Option<(&str, &str)>| {
        let after = after.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        ListQuery::all(collection("paged", "")).page(limit, after)
    };
    let first = storage.list(&query(3, None)).await.unwrap();
    assert_eq!((names(&first.objects).len(), first.remaining), (3, 1));
    let last = storage.list(&query(3, Some(("b", "a")))).await.unwrap();
    assert_eq!((names(&last.objects), last.remaining), (vec!["b/x".to_owned()], 0));
    let gone = storage.list(&query(0, Some(("a", "xx")))).await.unwrap();
    assert_eq!(names(&gone.objects), ["a/y", "b/a", "b/x"], "the last one of a page may be gone");
}

/// Objects that do not match are neither listed nor counted.
pub async fn a_list_holds_only_what_matches(harness: impl StorageHarness) {
    let storage = harness.open().await;
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web"), ("d", "web")] {
        let key = key("selected", name);
        let mut object = object(&key, 1);
        object["metadata"]["labels"] = json!({"app": app});
        storage.write(&key, Box::new(|_| Write::Put(object))).await.unwrap();
    }
    let web = Selector::of_labels("app=web").unwrap();
    let query = ListQuery::all(collection("selected", "")).matching(web).page(2, None);
    let listed = storage.list(&query).await.unwrap();
    assert_eq!((names(&listed.objects), listed.remaining), (vec!["default/a".into(), "default/c".into()], 1));
}

/// A watcher is told of each change once, in the order of versions, with the object before and after.
pub async fn a_watch_tells_each_change_in_order(harness: impl StorageHarness) {
    let storage = harness.open().await;
    let (one, two) = (key("watched", "one"), key("watched", "two"));
    let start = storage.list(&ListQuery::all(collection("watched", ""))).await.unwrap().version;
    let mut watcher = storage.watch(&collection("watched", ""), start).await.unwrap();
    put(&*storage, &one, 1).await;
    put(&*storage, &two, 1).await;
    put(&*storage, &one, 2).await;
    let gone = delete(&*storage, &one).await;
    let seen = changes(&mut *watcher, 4).await;
    let happened: Vec<_> = seen.iter().map(|change| (change.key.name.as_str(), change.happened)).collect();
    let expected = [Happened::Added, Happened::Added, Happened::Modified, Happened::Deleted];
    assert_eq!(happened, ["one", "two", "one", "one"].into_iter().zip(expected).collect::<Vec<_>>());
    assert!(seen.is_sorted_by_key(|change| change.version));
    for change in &seen {
        assert_eq!(version(&change.object), change.version);
        let told: Value = serde_json::from_slice(change.text()).unwrap();
        assert_eq!(told, *change.object);
    }
    assert_eq!((&seen[3].object["value"], version(&seen[3].object)), (&json!(2), version(&gone)));
    if let Some(before) = &seen[2].before {
        assert_eq!(before["value"], 1);
    }
    assert!(watcher.version() >= version(&gone));
}

/// A watch tells what came after its version, and nothing before.
pub async fn a_watch_begins_after_its_version(harness: impl StorageHarness) {
    let storage = harness.open().await;
    let key = key("resumed", "a");
    put(&*storage, &key, 1).await;
    let second = put(&*storage, &key, 2).await;
    put(&*storage, &key, 3).await;
    let mut watcher = storage.watch(&collection("resumed", ""), version(&second)).await.unwrap();
    let seen = changes(&mut *watcher, 1).await;
    assert_eq!(seen[0].object["value"], 3);
}

/// A watcher hears of its kind and namespace only.
pub async fn a_watch_hears_nothing_of_other_collections(harness: impl StorageHarness) {
    let storage = harness.open().await;
    let all = collection("heard", "");
    let start = storage.list(&ListQuery::all(all.clone())).await.unwrap().version;
    let mut watcher = storage.watch(&collection("heard", "mine"), start).await.unwrap();
    put(&*storage, &key("unheard", "a"), 1).await;
    put(&*storage, &all.key("theirs", "b"), 1).await;
    put(&*storage, &all.key("mine", "c"), 1).await;
    assert_eq!(changes(&mut *watcher, 1).await[0].key.name, "c");
}

/// A watcher that waits is woken by a change; waiting that is given up loses nothing.
pub async fn a_watch_waits_and_may_be_dropped(harness: impl StorageHarness) {
    let storage = harness.open().await;
    let of = collection("awaited", "");
    let start = storage.list(&ListQuery::all(of.clone())).await.unwrap().version;
    let mut watcher = storage.watch(&of, start).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), watcher.next()).await;
    assert!(early.is_err(), "there was nothing to tell");
    let writer = storage.clone();
    let later = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        put(&*writer, &key("awaited", "a"), 1).await;
    });
    assert_eq!(changes(&mut *watcher, 1).await[0].key.name, "a");
    later.await.unwrap();
}

/// What happens to other kinds moves the version that a bookmark says, so that a watch after it is not too
/// old.
pub async fn a_resting_watch_knows_newer_versions(harness: impl StorageHarness) {
    let storage = harness.open().await;
    let start = put(&*storage, &key("resting", "a"), 1).await;
    let mut watcher = storage.watch(&collection("resting", ""), version(&start)).await.unwrap();
    assert!(watcher.version() >= version(&start));
    let busy = put(&*storage, &key("busy", "b"), 1).await;
    let known = watcher.version();
    assert!(known >= version(&start));
    put(&*storage, &key("resting", "a"), 2).await;
    let mut again = storage.watch(&collection("resting", ""), known).await.unwrap();
    let seen = changes(&mut *again, 1).await;
    assert_eq!(seen[0].object["value"], 2, "nothing is missed or told twice");
    assert!(seen[0].version > version(&busy));
}

/// After a restart everything is there, and a watch from before begins where it ended or is told that it
/// cannot.
pub async fn objects_and_versions_survive_a_restart(harness: impl StorageHarness) {
    let storage = harness.open().await;
    let key = key("restarted", "a");
    let before = put(&*storage, &key, 1).await;
    let last = put(&*storage, &key, 2).await;
    drop(storage);
    let storage = harness.open().await;
    assert_eq!(*storage.get(&key).await.unwrap().unwrap(), *last);
    let mut watcher = storage.watch(&collection("restarted", ""), version(&before)).await.unwrap();
    match tokio::time::timeout(PATIENCE, watcher.next()).await.expect("an answer in time") {
        Ok(seen) => assert_eq!(seen[0].object["value"], 2),
        Err(error) => assert_eq!(error.kind(), StorageKind::Expired),
    }
    let next = put(&*storage, &key, 3).await;
    assert!(version(&next) > version(&last), "versions go on");
}
