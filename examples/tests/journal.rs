//! The vendor's store of `custom-edgecore`, held to the kit of all stores.
#![allow(clippy::unwrap_used)]

#[path = "../custom-edgecore/journal.rs"]
mod journal;

use async_trait::async_trait;
use kubeedge_core::conformance::store::StoreHarness;
use tempfile::TempDir;

struct Place(TempDir);

#[async_trait]
impl StoreHarness for Place {
    type Store = journal::Journal;

    async fn open(&self) -> Self::Store {
        journal::Journal::open(&self.0.path().join("journal")).unwrap()
    }

    async fn open_after_crash(&self) -> Self::Store {
        let copy = self.0.path().join("copy");
        std::fs::copy(self.0.path().join("journal"), &copy).unwrap();
        journal::Journal::open(&copy).unwrap()
    }
}

kubeedge_core::meta_store_conformance!(async { Place(TempDir::new().unwrap()) });

#[tokio::test]
async fn a_line_that_a_power_cut_left_half_written_did_not_happen() {
    use kubeedge_core::store::{Batch, Bucket, Key, MetaStore};
    let place = Place(TempDir::new().unwrap());
    let key = |name: &str| Key::new(Bucket("b"), name);
    let store = place.open().await;
    store.commit(Batch::new().put(key("a"), "1")).await.unwrap();
    drop(store);
    let file = place.0.path().join("journal");
    let mut text = std::fs::read(&file).unwrap();
    text.extend_from_slice(b"[[\"b\",\"c\",[4");
    std::fs::write(&file, text).unwrap();
    let store = place.open().await;
    assert!(store.get(&key("a")).await.unwrap().is_some());
    assert!(store.get(&key("c")).await.unwrap().is_none());
    store.commit(Batch::new().put(key("c"), "2")).await.unwrap();
    drop(store);
    assert!(place.open().await.get(&key("c")).await.unwrap().is_some());
}
