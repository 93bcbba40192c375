//! Commits and reads per second of every store: `cargo bench -p kubeedge-store --all-features`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use divan::{Bencher, counter::ItemsCount};
use futures::{TryStreamExt, future::join_all};
use kubeedge_core::store::{Batch, Bucket, Key, MetaStore, Scan};
use kubeedge_store::MemoryStore;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const BUCKET: Bucket = Bucket("bench");
/// About the size of a twin; a pod is ten times that.
const VALUE: [u8; 512] = [7; 512];
const CALLERS: u64 = 1000;
const STORES: &[&str] = &[
    "memory",
    #[cfg(feature = "sqlite")]
    "sqlite",
    #[cfg(feature = "redb")]
    "redb",
];

fn main() {
    divan::main();
}

fn key(n: u64) -> Key {
    Key::new(BUCKET, format!("default/pod/{:04}", n % CALLERS))
}

/// A store that is made for one benchmark, and what runs it.
struct Opened {
    runtime: Runtime,
    store: Arc<dyn MetaStore>,
    _folder: TempDir,
}

impl Opened {
    fn new(kind: &str) -> Self {
        let (runtime, folder) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
        let store = runtime.block_on(open(kind, &folder));
        Self { runtime, store, _folder: folder }
    }

    fn commit(&self, n: u64) {
        self.runtime.block_on(commit(&*self.store, n));
    }

    fn commit_all(&self) {
        self.runtime.block_on(join_all((0..CALLERS).map(|n| commit(&*self.store, n))));
    }
}

async fn open(kind: &str, folder: &TempDir) -> Arc<dyn MetaStore> {
    match kind {
        "memory" => Arc::new(MemoryStore::new()),
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            use kubeedge_store::{SqliteOptions, SqliteStore};
            Arc::new(SqliteStore::open(folder.path().join("a.db"), SqliteOptions::default()).await.unwrap())
        }
        #[cfg(feature = "redb")]
        "redb" => {
            use kubeedge_store::{RedbOptions, RedbStore};
            Arc::new(RedbStore::open(folder.path().join("a.redb"), RedbOptions::default()).await.unwrap())
        }
        other => panic!("no store {other} in {}", folder.path().display()),
    }
}

async fn commit(store: &dyn MetaStore, n: u64) {
    store.commit(Batch::new().put(key(n), VALUE.to_vec())).await.unwrap();
}

#[divan::bench(args = STORES)]
fn commit_of_one_caller(bencher: Bencher<'_, '_>, kind: &str) {
    let opened = Opened::new(kind);
    let mut n = 0;
    bencher.counter(ItemsCount::new(1u64)).bench_local(|| {
        n += 1;
        opened.commit(n);
    });
}

#[divan::bench(args = STORES, sample_count = 20)]
fn commit_of_1000_callers(bencher: Bencher<'_, '_>, kind: &str) {
    let opened = Opened::new(kind);
    bencher.counter(ItemsCount::new(CALLERS)).bench_local(|| opened.commit_all());
}

#[divan::bench(args = STORES)]
fn get(bencher: Bencher<'_, '_>, kind: &str) {
    let opened = Opened::new(kind);
    opened.commit(1);
    bencher
        .counter(ItemsCount::new(1u64))
        .bench_local(|| opened.runtime.block_on(opened.store.get(&key(1))).unwrap());
}

#[divan::bench(args = STORES)]
fn scan_of_1000(bencher: Bencher<'_, '_>, kind: &str) {
    let opened = Opened::new(kind);
    opened.commit_all();
    let scan = || opened.store.scan(Scan::new(BUCKET, "default/pod/")).try_collect::<Vec<_>>();
    bencher.counter(ItemsCount::new(CALLERS)).bench_local(|| opened.runtime.block_on(scan()).unwrap());
}
