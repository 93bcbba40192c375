//! The redb store: the kit, a model, and what disks and processes do to it.
#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "common/crash.rs"]
mod crash;
#[path = "common/killed.rs"]
mod killed;
#[path = "common/model.rs"]
mod model;

use std::{fs, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use kubeedge_core::{
    conformance::store::StoreHarness,
    failure::chain,
    store::{MetaStore, StoreKind},
};
use kubeedge_store::{RedbOptions, RedbStore};
use tempfile::TempDir;

struct Direct(TempDir);

impl Direct {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self) -> PathBuf {
        self.0.path().join("sub/edge.redb")
    }
}

#[async_trait]
impl StoreHarness for Direct {
    type Store = RedbStore;
    async fn open(&self) -> RedbStore {
        RedbStore::open(self.path(), RedbOptions::default()).await.unwrap()
    }
    async fn open_after_crash(&self) -> RedbStore {
        let copy = crash::copy(&self.0.path().join("sub"), &self.0.path().join("crashed"));
        RedbStore::open(copy.join("edge.redb"), RedbOptions::default()).await.unwrap()
    }
}

struct Shared(Direct);

#[async_trait]
impl StoreHarness for Shared {
    type Store = Arc<dyn MetaStore>;
    async fn open(&self) -> Arc<dyn MetaStore> {
        Arc::new(self.0.open().await)
    }
    async fn open_after_crash(&self) -> Arc<dyn MetaStore> {
        Arc::new(self.0.open_after_crash().await)
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
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]
    #[test]
    fn it_behaves_like_a_sorted_map(steps in model::steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(model::run(Direct::new(), steps));
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_untouched() {
    let place = Direct::new();
    fs::create_dir_all(place.path().parent().unwrap()).unwrap();
    let text = "these are not the bytes you are looking for\n".repeat(200);
    fs::write(place.path(), &text).unwrap();
    let error = RedbStore::open(place.path(), RedbOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), StoreKind::Corrupt, "{}", chain(&error));
    assert_eq!(error.subject(), place.path().display().to_string());
    assert_eq!(fs::read_to_string(place.path()).unwrap(), text);
}

#[tokio::test]
async fn a_file_in_use_is_refused_and_free_again_after_a_close() {
    let place = Direct::new();
    let first = place.open().await;
    let error = RedbStore::open(place.path(), RedbOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), StoreKind::Io);
    assert!(chain(&error).contains("another process"), "{}", chain(&error));
    first.close().await.unwrap();
    place.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_it_was_told_is_stored() {
    if let Some(place) = killed::place() {
        let store = RedbStore::open(place, RedbOptions::default()).await.unwrap();
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
