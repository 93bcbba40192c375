use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::{FutureExt, future::join_all, stream::BoxStream};
use kubeedge_core::store::{Batch, Entry, MAX_VALUE};
use kubeedge_store::MemoryStore;
use serde_json::json;
use tokio::sync::Semaphore;

use super::*;

/// A store whose commits wait to be let through.
#[derive(Debug)]
struct Gate {
    inner: MemoryStore,
    open: Semaphore,
    commits: AtomicUsize,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MetaStore for Gate {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }
    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        self.inner.scan(scan)
    }
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.open.acquire().await.unwrap().forget();
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.inner.commit(batch).await
    }
    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

async fn gated() -> (Arc<Gate>, EmbeddedStorage) {
    let gate = Gate { inner: MemoryStore::new(), open: Semaphore::new(0), commits: AtomicUsize::new(0) };
    let gate = Arc::new(gate);
    let storage = EmbeddedStorage::open(gate.clone()).await.unwrap();
    (gate, storage)
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        group: String::new(),
        plural: "configmaps".to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

fn put(value: &str) -> Write {
    Write::Put(json!({"metadata": {}, "value": value}))
}

#[tokio::test]
async fn writers_that_wait_together_share_a_commit_and_build_on_each_other() {
    let (gate, storage) = gated().await;
    let key = key("counter");
    let add = |_| {
        let count = |before: Option<&Value>| {
            let count = before.and_then(|before| before["count"].as_u64()).unwrap_or(0);
            Write::Put(json!({"metadata": {}, "count": count + 1}))
        };
        storage.write(&key, Box::new(count))
    };
    let (done, ()) = tokio::join!(join_all((0..50).map(add)), async {
        assert!(storage.read(&key).is_none(), "nobody sees what is not stored");
        gate.open.add_permits(50);
    });
    let versions: Vec<_> = done.into_iter().map(|done| done.unwrap().unwrap()).collect();
    assert_eq!(versions[49]["metadata"]["resourceVersion"], "50");
    assert_eq!(storage.read(&key).unwrap()["count"], 50);
    assert!(gate.commits.load(Ordering::Relaxed) < 10, "{:?}", gate.commits);
    let changes = storage.changes(0, 100).unwrap();
    assert!(
        changes.iter().map(|change| change.version).eq(1..=50),
        "every version is in the history, in order"
    );
    let again = EmbeddedStorage::open(gate).await.unwrap();
    assert_eq!((again.version(), &again.read(&key).unwrap()["count"]), (50, &json!(50)));
}

#[tokio::test]
async fn what_cannot_be_stored_fails_alone_and_with_it_what_was_built_on_it() {
    let (gate, storage) = gated().await;
    let large = "x".repeat(MAX_VALUE + 1);
    let (first, good, bad) = (key("first"), key("good"), key("bad"));
    let built_on = |before: Option<&Value>| {
        assert!(before.is_some(), "decided on what is about to be stored");
        put("small")
    };
    let (opened, alone, too_large, built, kept, beside, ()) = tokio::join!(
        storage.write(&first, Box::new(|_| put("first"))),
        storage.write(&good, Box::new(|_| put("one"))),
        storage.write(&bad, Box::new(|_| put(&large))),
        storage.write(&bad, Box::new(built_on)),
        storage.write(&bad, Box::new(|_| Write::Keep)),
        storage.write(&good, Box::new(|_| put("two"))),
        async { gate.open.add_permits(100) },
    );
    assert!(opened.is_ok() && alone.is_ok() && beside.is_ok());
    assert!(too_large.is_err() && built.is_err() && kept.is_err());
    assert!(storage.read(&bad).is_none());
    assert_eq!(storage.read(&good).unwrap()["value"], "two");
    let anew = storage.write(
        &bad,
        Box::new(|before| {
            assert!(before.is_none());
            put("small")
        }),
    );
    assert_eq!(anew.await.unwrap().unwrap()["value"], "small");
}

#[tokio::test]
async fn whoever_watches_a_quiet_kind_is_neither_woken_nor_outrun_by_others() {
    let (gate, storage) = gated().await;
    gate.open.add_permits(Semaphore::MAX_PERMITS / 2);
    let kind = |plural: &str| Collection {
        group: String::new(),
        plural: plural.to_owned(),
        namespace: String::new(),
    };
    let mut quiet = storage.watch(&kind("secrets"), 0).await.unwrap();
    let mut busy = storage.watch(&kind("configmaps"), 0).await.unwrap();
    let first = key("first");
    for round in 0..5000 {
        storage.write(&first, Box::new(|_| put(&round.to_string()))).await.unwrap();
    }
    assert_eq!(busy.next().await.unwrap_err().kind(), StorageKind::Expired);
    assert!(quiet.next().now_or_never().is_none());
    assert_eq!(quiet.version(), 5000, "nothing of it was missed up to here");
    let secret = ObjectKey { plural: "secrets".to_owned(), ..first };
    storage.write(&secret, Box::new(|_| put("x"))).await.unwrap();
    let versions: Vec<_> = quiet.next().await.unwrap().iter().map(|change| change.version).collect();
    assert_eq!((versions, quiet.version()), (vec![5001], 5001));
}

#[tokio::test]
async fn the_task_that_stores_ends_with_its_storage() {
    let (gate, storage) = gated().await;
    let first = key("first");
    let write = storage.write(&first, Box::new(|_| put("never stored")));
    assert!(write.now_or_never().is_none(), "the store lets nothing through");
    tokio::task::yield_now().await;
    drop(storage);
    for _ in 0..100 {
        if Arc::strong_count(&gate) == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("a task still holds the store");
}
