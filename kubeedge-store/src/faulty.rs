//! A store that fails when told to, for tests of what stands on a store.

use async_trait::async_trait;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use kubeedge_core::{
    failure::Failure,
    store::{Batch, Entry, Key, MetaStore, Scan, StoreError, StoreKind},
};
use parking_lot::Mutex;

use crate::check;

/// Which calls fail, counted from 1 since the fault was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The n-th call of get, scan or commit.
    Operation(u64),
    /// The n-th commit.
    Write(u64),
    /// All calls of get, scan and commit from the n-th on.
    From(u64),
    /// All commits from the n-th on; reads work.
    WritesFrom(u64),
}

#[derive(Debug, Default)]
struct Plan {
    fault: Option<(Fault, StoreKind)>,
    operations: u64,
    writes: u64,
}

/// Passes everything to another store, except what is to fail: a failed call never reaches it, so that a
/// failed commit changes nothing, as the contract says.
#[derive(Debug, Default)]
pub struct FaultyStore<S> {
    inner: S,
    plan: Mutex<Plan>,
}

impl<S> FaultyStore<S> {
    /// A wrapper that lets everything pass.
    pub fn new(inner: S) -> Self {
        Self { inner, plan: Mutex::default() }
    }

    /// Sets what fails from now on, and how; counting starts anew.
    pub fn fail(&self, fault: Fault, kind: StoreKind) {
        *self.plan.lock() = Plan { fault: Some((fault, kind)), ..Plan::default() };
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        *self.plan.lock() = Plan::default();
    }

    /// The store behind.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn pass(
        &self,
        writes: bool,
        doing: &'static str,
        subject: impl FnOnce() -> String,
    ) -> Result<(), StoreError> {
        let mut plan = self.plan.lock();
        plan.operations += 1;
        plan.writes += u64::from(writes);
        let Some((fault, kind)) = plan.fault else { return Ok(()) };
        let hit = match fault {
            Fault::Operation(n) => plan.operations == n,
            Fault::Write(n) => writes && plan.writes == n,
            Fault::From(n) => plan.operations >= n,
            Fault::WritesFrom(n) => writes && plan.writes >= n,
        };
        if hit { Err(Failure::new(kind, doing).on(subject()).because("injected fault")) } else { Ok(()) }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: MetaStore> MetaStore for FaultyStore<S> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.pass(false, check::READING, || key.to_string())?;
        self.inner.get(key).await
    }

    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        match self.pass(false, check::SCANNING, || scan.prefix.clone()) {
            Ok(()) => self.inner.scan(scan),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let first = || batch.0.first().map(|change| change.key().to_string()).unwrap_or_default();
        self.pass(true, check::COMMITTING, first)?;
        self.inner.commit(batch).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use kubeedge_core::store::Bucket;

    use super::*;
    use crate::MemoryStore;

    fn key() -> Key {
        Key::new(Bucket("t"), "a")
    }

    async fn put(store: &impl MetaStore) -> Option<StoreKind> {
        store.commit(Batch::new().put(key(), "v")).await.err().map(|error| error.kind())
    }

    #[tokio::test]
    async fn only_the_chosen_write_fails_and_changes_nothing() {
        let store = FaultyStore::new(MemoryStore::new());
        store.fail(Fault::Write(2), StoreKind::Full);
        assert_eq!(put(&store).await, None);
        let before = store.get(&key()).await.unwrap();
        assert_eq!(put(&store).await, Some(StoreKind::Full));
        assert_eq!(store.get(&key()).await.unwrap(), before);
        assert_eq!(put(&store).await, None);
    }

    #[tokio::test]
    async fn from_the_chosen_call_on_everything_fails_until_healed() {
        let store = FaultyStore::new(MemoryStore::new());
        store.fail(Fault::From(2), StoreKind::Io);
        assert_eq!(put(&store).await, None);
        assert_eq!(put(&store).await, Some(StoreKind::Io));
        assert_eq!(store.get(&key()).await.unwrap_err().kind(), StoreKind::Io);
        let scanned = store.scan(Scan::new(Bucket("t"), "")).try_collect::<Vec<_>>().await;
        assert_eq!(scanned.unwrap_err().kind(), StoreKind::Io);
        store.heal();
        assert_eq!(put(&store).await, None);
    }
}
