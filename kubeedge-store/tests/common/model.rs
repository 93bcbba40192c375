//! A store compared with a sorted map, over random commits, scans and restarts.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use kubeedge_core::{
    conformance::store::StoreHarness,
    store::{Batch, Bucket, Change, Expect, Key, MetaStore, Scan},
};
use proptest::prelude::*;

const BUCKET: Bucket = Bucket("model");

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Commit(Vec<(String, Option<Vec<u8>>, u8)>),
    Scan(String),
    Restart,
}

/// Steps over so few names that they meet.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = "[ab/\u{e9}]{0,3}";
    let change = (name, proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)), 0..6u8);
    let step = prop_oneof![
        6 => proptest::collection::vec(change, 0..5).prop_map(Step::Commit),
        3 => name.prop_map(Step::Scan),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

type Model = BTreeMap<String, (Vec<u8>, u64)>;

/// Mostly unconditional; otherwise absent, the present version, or one that never was.
fn expect(model: &Model, name: &str, choice: u8) -> (Expect, bool) {
    let found = model.get(name).map(|(_, version)| *version);
    match choice {
        0 => (Expect::Absent, found.is_none()),
        1 => (Expect::Version(found.unwrap_or(1)), found.is_some()),
        2 => (Expect::Version(u64::from(u32::MAX)), false),
        _ => (Expect::Any, true),
    }
}

pub(crate) async fn run(harness: impl StoreHarness, steps: Vec<Step>) {
    let mut store = harness.open().await;
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Commit(changes) => commit(&store, &mut model, changes).await,
            Step::Scan(prefix) => compare(&store, &mut model, &prefix).await,
            Step::Restart => {
                store.close().await.unwrap();
                drop(store);
                store = harness.open().await;
            }
        }
    }
    compare(&store, &mut model, "").await;
    store.close().await.unwrap();
}

async fn commit(store: &impl MetaStore, model: &mut Model, changes: Vec<(String, Option<Vec<u8>>, u8)>) {
    compare(store, model, "").await;
    let (mut batch, mut holds) = (Batch::new(), true);
    for (name, value, choice) in &changes {
        let (expect, held) = expect(model, name, *choice);
        holds &= held;
        let key = Key::new(BUCKET, name.clone());
        batch.0.push(match value {
            Some(value) => Change::Put { key, value: value.clone().into(), expect },
            None => Change::Delete { key, expect },
        });
    }
    assert_eq!(store.commit(batch).await.is_ok(), holds);
    if holds {
        for (name, value, _) in changes {
            match value {
                Some(value) => model.insert(name, (value, 0)),
                None => model.remove(&name),
            };
        }
    }
}

/// The values must be the same; the versions are the store's own and are taken over.
async fn compare(store: &impl MetaStore, model: &mut Model, prefix: &str) {
    let found: Vec<_> = store.scan(Scan::new(BUCKET, prefix)).try_collect().await.unwrap();
    let wanted: Vec<_> = model.iter_mut().filter(|(name, _)| name.starts_with(prefix)).collect();
    assert_eq!(found.len(), wanted.len());
    for (found, (name, (value, version))) in found.iter().zip(wanted) {
        assert_eq!((&found.key.name, &found.value[..]), (name, &value[..]));
        *version = found.version;
        assert_eq!(store.get(&found.key).await.unwrap().as_ref(), Some(found));
    }
}
