//! The SQLite store: the kit, a model, and what disks and processes do to it.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "common/crash.rs"]
mod crash;
#[path = "common/killed.rs"]
mod killed;
#[path = "common/model.rs"]
mod model;

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::TryStreamExt;
use kubeedge_core::{
    conformance::store::StoreHarness,
    failure::chain,
    store::{Batch, Bucket, Key, MetaStore, Scan, StoreKind},
};
use kubeedge_store::{FaultyStore, SqliteOptions, SqliteStore};
use tempfile::TempDir;

const BUCKET: Bucket = Bucket("t");

struct Direct(TempDir);

impl Direct {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self) -> PathBuf {
        self.0.path().join("sub/edge.db")
    }
}

#[async_trait]
impl StoreHarness for Direct {
    type Store = SqliteStore;
    async fn open(&self) -> SqliteStore {
        SqliteStore::open(self.path(), SqliteOptions::default()).await.unwrap()
    }
    async fn open_after_crash(&self) -> SqliteStore {
        let copy = crash::copy(&self.0.path().join("sub"), &self.0.path().join("crashed"));
        SqliteStore::open(copy.join("edge.db"), SqliteOptions::default()).await.unwrap()
    }
}

struct Shared(Direct);

#[async_trait]
impl StoreHarness for Shared {
    type Store = Arc<dyn MetaStore>;
    async fn open(&self) -> Arc<dyn MetaStore> {
        Arc::new(FaultyStore::new(self.0.open().await))
    }
    async fn open_after_crash(&self) -> Arc<dyn MetaStore> {
        Arc::new(FaultyStore::new(self.0.open_after_crash().await))
    }
}

mod direct {
    use super::*;
    kubeedge_core::meta_store_conformance!(async { Direct::new() });
}

mod shared {
    use super::*;
    kubeedge_core::meta_store_conformance!(async { Shared(Direct::new()) });
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn it_behaves_like_a_sorted_map(steps in model::steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(model::run(Direct::new(), steps));
    }
}

fn key(name: &str) -> Key {
    Key::new(BUCKET, name)
}

#[tokio::test]
async fn a_full_store_says_so_keeps_what_it_has_and_still_deletes() {
    let place = Direct::new();
    let options = SqliteOptions { max_bytes: Some(256 << 10), ..SqliteOptions::default() };
    let store = SqliteStore::open(place.path(), options).await.unwrap();
    store.commit(Batch::new().put(key("kept"), "v")).await.unwrap();
    let mut stored = 0;
    let error = loop {
        match store.commit(Batch::new().put(key(&format!("n{stored}")), vec![0; 20_000])).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "never full");
    };
    assert_eq!(error.kind(), StoreKind::Full);
    assert!(chain(&error).contains("free space"), "{}", chain(&error));
    assert_eq!(store.get(&key(&format!("n{stored}"))).await.unwrap(), None);
    assert!(store.get(&key("kept")).await.unwrap().is_some());
    store.commit(Batch::new().delete(key("n0"))).await.unwrap();
    store.commit(Batch::new().put(key("small"), "fits again")).await.unwrap();
}

#[tokio::test]
async fn a_batch_too_large_for_the_disk_fails_no_other_of_its_group() {
    let place = Direct::new();
    let options = SqliteOptions { max_bytes: Some(256 << 10), ..SqliteOptions::default() };
    let store = SqliteStore::open(place.path(), options).await.unwrap();
    let commits = (0..20).map(|n| {
        let len = if n == 10 { 1 << 20 } else { 10 };
        store.commit(Batch::new().put(key(&n.to_string()), vec![0; len]))
    });
    let outcomes = futures::future::join_all(commits).await;
    let failed: Vec<_> = outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_err()).collect();
    assert!(matches!(failed[..], [(10, Err(error))] if error.kind() == StoreKind::Full), "{failed:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_untouched() {
    let place = Direct::new();
    fs::create_dir_all(place.path().parent().unwrap()).unwrap();
    let text = "these are not the bytes you are looking for\n".repeat(200);
    fs::write(place.path(), &text).unwrap();
    let error = SqliteStore::open(place.path(), SqliteOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), StoreKind::Corrupt);
    assert_eq!(error.subject(), place.path().display().to_string());
    assert!(chain(&error).contains("Restore it from a backup"), "{}", chain(&error));
    assert_eq!(fs::read_to_string(place.path()).unwrap(), text);
}

#[tokio::test]
async fn damage_inside_the_file_is_found_when_it_is_opened() {
    let place = Direct::new();
    let store = place.open().await;
    for n in 0..200 {
        store.commit(Batch::new().put(key(&format!("k{n:03}")), vec![1; 500])).await.unwrap();
    }
    store.close().await.unwrap();
    let mut bytes = fs::read(place.path()).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8192].fill(0xa5);
    fs::write(place.path(), bytes).unwrap();
    let error = SqliteStore::open(place.path(), SqliteOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), StoreKind::Corrupt, "{}", chain(&error));
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused() {
    let place = Direct::new();
    place.open().await.close().await.unwrap();
    let database = rusqlite::Connection::open(place.path()).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let error = SqliteStore::open(place.path(), SqliteOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), StoreKind::Corrupt);
    assert!(chain(&error).contains("upgrade"), "{}", chain(&error));
}

#[tokio::test]
async fn a_file_of_a_go_edgecore_is_taken_over_once() {
    let place = Direct::new();
    fs::create_dir_all(place.path().parent().unwrap()).unwrap();
    let database = rusqlite::Connection::open(place.path()).unwrap();
    let go = "CREATE TABLE `meta` (`key` text,`type` text,`value` text,PRIMARY KEY (`key`));
        INSERT INTO meta VALUES('default/pod/web', 'pod', '{\"metadata\":{\"name\":\"web\"}}');
        INSERT INTO meta VALUES('\"default\"/\"app\"/[]string(nil)', 'serviceaccounttoken', '{}');";
    database.execute_batch(go).unwrap();
    let options = SqliteOptions { adopt: Some(BUCKET), ..SqliteOptions::default() };
    for deleted in [false, true] {
        let store = SqliteStore::open(place.path(), options).await.unwrap();
        let pod = store.get(&key("default/pod/web")).await.unwrap();
        assert_eq!(pod.is_none(), deleted, "what was deleted since stays deleted");
        if let Some(pod) = pod {
            assert_eq!(&pod.value[..], br#"{"metadata":{"name":"web"}}"#);
            let all: Vec<_> = store.scan(Scan::new(BUCKET, "")).try_collect().await.unwrap();
            assert_eq!(all.len(), 1, "tokens are asked for anew");
        }
        store.commit(Batch::new().delete(key("default/pod/web"))).await.unwrap();
        store.close().await.unwrap();
    }
    let kept: i64 = database.query_row("SELECT count(*) FROM meta", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 2, "the table of Go stays for a way back");
}

#[tokio::test]
async fn a_file_in_use_is_refused_and_free_again_after_a_close() {
    let place = Direct::new();
    let first = place.open().await;
    let hasty = SqliteOptions { lock_wait: Duration::from_millis(50), ..SqliteOptions::default() };
    let error = SqliteStore::open(place.path(), hasty).await.unwrap_err();
    assert_eq!(error.kind(), StoreKind::Io);
    assert!(chain(&error).contains("another process"), "{}", chain(&error));
    first.close().await.unwrap();
    SqliteStore::open(place.path(), hasty).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_it_was_told_is_stored() {
    if let Some(place) = killed::place() {
        let store = SqliteStore::open(place, SqliteOptions::default()).await.unwrap();
        return killed::write(Arc::new(store)).await;
    }
    let place = Direct::new();
    for _ in 0..3 {
        let child = killed::spawn("a_killed_process_loses_nothing_it_was_told_is_stored", &place.path());
        let acknowledged = tokio::task::spawn_blocking(move || killed::kill(child)).await.unwrap();
        let store = place.open().await;
        killed::inspect(&store, &acknowledged).await;
        store.close().await.unwrap();
    }
}
