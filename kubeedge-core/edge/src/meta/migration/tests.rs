use std::{collections::BTreeMap, sync::Arc};

use kubeedge_core::store::StoreKind;
use kubeedge_store::{Fault, FaultyStore, MemoryStore};

use super::{
    super::{
        handle::MetaHandle,
        objects::{BUCKET, TOKENS},
    },
    *,
};

type Rows = BTreeMap<String, Bytes>;

async fn rows(store: &dyn MetaStore, bucket: Bucket) -> Rows {
    let rows = store.scan(Scan::new(bucket, ""));
    rows.map_ok(|row| (row.key.name, row.value)).try_collect().await.unwrap()
}

/// Rows of every kind, as the layout of old and Go's table have them.
fn old_rows() -> Vec<(String, &'static str)> {
    let mut rows: Vec<_> = (0..20).map(|n| (format!("default/pod/p{n}"), r#"{"metadata":{}}"#)).collect();
    let others = [
        ("null/node/edge-1", "{}"),
        ("default/podpatch/p1", "{}"),
        ("default/device/valve", "{}"),
        ("default/deployment/d", r#"{"apiVersion":"apps/v1"}"#),
        ("default/serviceaccounttoken/app?{\"audiences\":[\"https://a/b\"]}", "kept"),
        ("node/nodeID/namespace/devicemapper/modbus", "{}"),
        ("no-path", "nonsense"),
    ];
    rows.extend(others.map(|(row, value)| (row.to_owned(), value)));
    rows
}

async fn old_store() -> MemoryStore {
    let store = MemoryStore::new();
    for (row, value) in old_rows() {
        store.commit(Batch::new().put(Key::new(BY_RESOURCE, row), value)).await.unwrap();
    }
    store
}

#[tokio::test]
async fn rows_of_old_are_found_under_todays_keys() {
    let store = Arc::new(old_store().await);
    let meta = MetaHandle::over(store.clone());
    for (row, value) in old_rows().into_iter().filter(|(row, _)| !row.contains("token")) {
        let group = if row.contains("deployment") { "apps" } else { &*ObjectKey::of_resource(&row).group };
        let key = ObjectKey { group: group.to_owned(), ..ObjectKey::of_resource(&row) };
        assert_eq!(meta.get(&key).await.unwrap().unwrap().bytes, value, "{row}");
    }
    let tokens = rows(&*store, TOKENS).await;
    assert_eq!(tokens.into_keys().collect::<Vec<_>>(), ["default/app?{\"audiences\":[\"https://a/b\"]}"]);
    assert!(rows(&*store, BY_RESOURCE).await.is_empty());
}

#[tokio::test]
async fn a_migration_cut_off_anywhere_ends_the_same() {
    let whole = old_store().await;
    let count = move_rows(&whole, 4, 1000).await.unwrap();
    assert_eq!(count, old_rows().len());
    let (objects, tokens) = (rows(&whole, BUCKET).await, rows(&whole, TOKENS).await);
    assert_eq!(objects.len() + tokens.len(), count);
    for cut in 1..=7 {
        let store = FaultyStore::new(old_store().await);
        store.fail(Fault::WritesFrom(cut), StoreKind::Io);
        move_rows(&store, 4, 1000).await.unwrap_err();
        let (old, new) = (rows(store.inner(), BY_RESOURCE).await, rows(store.inner(), BUCKET).await);
        let kept = rows(store.inner(), TOKENS).await;
        assert_eq!(old.len() + new.len() + kept.len(), count, "each row stands in one place after {cut}");
        store.heal();
        assert_eq!(move_rows(&store, 4, 1000).await.unwrap(), old.len());
        assert_eq!(rows(store.inner(), BUCKET).await, objects);
        assert_eq!(rows(store.inner(), TOKENS).await, tokens);
        assert!(rows(store.inner(), BY_RESOURCE).await.is_empty());
    }
}

#[tokio::test]
async fn a_store_with_todays_keys_is_not_written_to() {
    let store = FaultyStore::new(old_store().await);
    run(&store).await.unwrap();
    store.fail(Fault::WritesFrom(1), StoreKind::Io);
    run(&store).await.unwrap();
}

#[tokio::test]
async fn a_copy_that_could_not_be_migrated_is_tried_again() {
    let store = Arc::new(FaultyStore::new(old_store().await));
    let meta = MetaHandle::over(store.clone());
    let pod = ObjectKey::known("pod", "default", "p1");
    store.fail(Fault::WritesFrom(1), StoreKind::Full);
    assert_eq!(meta.get(&pod).await.unwrap_err().kind(), StoreKind::Full);
    store.heal();
    assert!(meta.get(&pod).await.unwrap().is_some());
}

#[tokio::test]
async fn rows_are_moved_in_batches_of_bounded_size() {
    let store = FaultyStore::new(MemoryStore::new());
    for n in 0..5 {
        let row = Key::new(BY_RESOURCE, format!("default/configmap/m{n}"));
        store.commit(Batch::new().put(row, vec![b' '; 600])).await.unwrap();
    }
    store.fail(Fault::Write(4), StoreKind::Io);
    move_rows(&store, 100, 1000).await.unwrap_err();
    assert_eq!(rows(store.inner(), BUCKET).await.len(), 3, "one of 600 bytes in each commit");
}
