//! Commits and reads per second of every store: `cargo bench -p kubeedge-store --all-features`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{sync::Arc, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{TryStreamExt, future::join_all};
use kubeedge_core::store::{Batch, Bucket, Key, MetaStore, Scan};
use kubeedge_store::MemoryStore;
use tokio::runtime::Runtime;

const BUCKET: Bucket = Bucket("bench");
/// About the size of a twin; a pod is ten times that.
const VALUE: [u8; 512] = [7; 512];
const CALLERS: u64 = 1000;

fn key(n: u64) -> Key {
    Key::new(BUCKET, format!("default/pod/{:04}", n % CALLERS))
}

async fn commit(store: &dyn MetaStore, n: u64) {
    store.commit(Batch::new().put(key(n), VALUE.to_vec())).await.unwrap();
}

fn bench(c: &mut Criterion, runtime: &Runtime, name: &str, store: &Arc<dyn MetaStore>) {
    let mut group = c.benchmark_group(name);
    group.measurement_time(Duration::from_secs(3)).sample_size(20);
    group.throughput(Throughput::Elements(1));
    let mut n = 0;
    group.bench_function("commit, one caller", |bench| {
        bench.iter(|| {
            n += 1;
            runtime.block_on(commit(&**store, n));
        });
    });
    group.bench_function("get", |bench| {
        runtime.block_on(commit(&**store, 1));
        bench.iter(|| runtime.block_on(store.get(&key(1))).unwrap());
    });
    group.throughput(Throughput::Elements(CALLERS));
    group.bench_function("commit, 1000 callers", |bench| {
        bench.iter(|| runtime.block_on(join_all((0..CALLERS).map(|n| commit(&**store, n)))));
    });
    group.bench_function("scan 1000", |bench| {
        let scan = || store.scan(Scan::new(BUCKET, "default/pod/")).try_collect::<Vec<_>>();
        bench.iter(|| runtime.block_on(scan()).unwrap());
    });
    group.finish();
    runtime.block_on(store.close()).unwrap();
}

fn stores(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let _place = tempfile::tempdir().unwrap();
    bench(c, &runtime, "memory", &(Arc::new(MemoryStore::new()) as Arc<dyn MetaStore>));
    #[cfg(feature = "sqlite")]
    {
        use kubeedge_store::{SqliteOptions, SqliteStore};
        let open = SqliteStore::open(_place.path().join("a.db"), SqliteOptions::default());
        bench(c, &runtime, "sqlite", &(Arc::new(runtime.block_on(open).unwrap()) as Arc<dyn MetaStore>));
    }
    #[cfg(feature = "redb")]
    {
        use kubeedge_store::{RedbOptions, RedbStore};
        let open = RedbStore::open(_place.path().join("a.redb"), RedbOptions::default());
        bench(c, &runtime, "redb", &(Arc::new(runtime.block_on(open).unwrap()) as Arc<dyn MetaStore>));
    }
}

criterion_group!(benches, stores);
criterion_main!(benches);
