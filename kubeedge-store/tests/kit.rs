//! The kit itself: stores with one flaw each must not pass it.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use kubeedge_core::{
    conformance::store::{self as kit, StoreHarness},
    store::{Batch, Change, Entry, Expect, Key, MetaStore, Scan, StoreError},
};
use kubeedge_store::MemoryStore;
use parking_lot::Mutex;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    /// Applies the changes of a batch one by one.
    Piecemeal,
    /// Takes every change for unconditional.
    Credulous,
    /// Scans backwards.
    Unordered,
    /// Scans what has a letter of the prefix.
    Sloppy,
    /// Says stored of some batches and stores nothing.
    Forgetful,
    /// Works on after a close.
    NeverClosed,
    /// Accepts whatever size.
    Limitless,
    /// Does not find what was put only once.
    Stale,
    /// Waits for the disk in the caller's thread.
    Blocking,
    /// Keeps everything in memory until it is closed.
    AtClose,
}

struct Flawed {
    inner: MemoryStore,
    flaw: Flaw,
    /// The place, and what is written to it at a close.
    late: Option<(MemoryStore, Mutex<Vec<Batch>>)>,
}

impl Flawed {
    fn new(place: &MemoryStore, flaw: Flaw) -> Self {
        Self { inner: place.reopened(), flaw, late: None }
    }

    /// A copy of the place, on which it works until it is closed.
    async fn late(place: &MemoryStore) -> Self {
        let inner = MemoryStore::new();
        let all: Vec<Entry> = place.scan(Scan::new(kit::BUCKET, "")).try_collect().await.unwrap();
        for entry in all {
            // The copy has the version of the original.
            for _ in 0..entry.version {
                inner.commit(Batch::new().put(entry.key.clone(), entry.value.clone())).await.unwrap();
            }
        }
        Self { inner, flaw: Flaw::AtClose, late: Some((place.reopened(), Mutex::default())) }
    }
}

impl std::fmt::Debug for Flawed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.flaw)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MetaStore for Flawed {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let found = self.inner.get(key).await?;
        Ok(found.filter(|entry| self.flaw != Flaw::Stale || entry.version > 1))
    }

    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        match self.flaw {
            Flaw::Unordered => {
                let all = self.inner.scan(scan).try_collect::<Vec<_>>();
                let backwards = |all: Vec<Entry>| stream::iter(all.into_iter().rev().map(Ok));
                stream::once(all).map_ok(backwards).try_flatten().boxed()
            }
            Flaw::Sloppy => {
                let prefix: String = scan.prefix.chars().take(1).collect();
                self.inner.scan(Scan::new(scan.bucket, prefix))
            }
            _ => self.inner.scan(scan),
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        match self.flaw {
            Flaw::Piecemeal => {
                for change in batch.0 {
                    self.inner.commit(Batch(vec![change])).await?;
                }
                Ok(())
            }
            Flaw::Credulous => {
                let trusting = batch.0.into_iter().map(|change| match change {
                    Change::Put { key, value, .. } => Change::Put { key, value, expect: Expect::Any },
                    Change::Delete { key, .. } => Change::Delete { key, expect: Expect::Any },
                });
                self.inner.commit(Batch(trusting.collect())).await
            }
            Flaw::Limitless => match self.inner.commit(batch).await {
                Err(error) if error.to_string().contains("too large") => Ok(()),
                done => done,
            },
            Flaw::Blocking => {
                std::thread::sleep(std::time::Duration::from_millis(300));
                self.inner.commit(batch).await
            }
            Flaw::AtClose => {
                self.inner.commit(batch.clone()).await?;
                self.late.iter().for_each(|(_, batches)| batches.lock().push(batch.clone()));
                Ok(())
            }
            Flaw::Forgetful if batch.0.iter().any(|change| change.key().name.ends_with('7')) => Ok(()),
            _ => self.inner.commit(batch).await,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        if let Some((place, batches)) = &self.late {
            let batches = std::mem::take(&mut *batches.lock());
            for batch in batches {
                place.commit(batch).await?;
            }
        }
        if self.flaw == Flaw::NeverClosed { Ok(()) } else { self.inner.close().await }
    }
}

struct Harness(MemoryStore, Flaw);

#[async_trait]
impl StoreHarness for Harness {
    type Store = Flawed;
    async fn open(&self) -> Flawed {
        match self.1 {
            Flaw::AtClose => Flawed::late(&self.0).await,
            flaw => Flawed::new(&self.0, flaw),
        }
    }
    async fn open_after_crash(&self) -> Flawed {
        self.open().await
    }
}

fn flawed(flaw: Flaw) -> Harness {
    Harness(MemoryStore::new(), flaw)
}

macro_rules! caught {
    ($($name:ident: $flaw:ident by $case:ident;)*) => { $(
        #[tokio::test]
        #[should_panic]
        async fn $name() {
            kit::$case(flawed(Flaw::$flaw)).await;
        }
    )* };
}

caught! {
    a_batch_that_happens_by_half_is_caught: Piecemeal by a_batch_with_a_conflict_at_its_end_changes_nothing;
    conditions_on_own_changes_are_caught: Piecemeal by conditions_see_the_state_before_the_batch;
    ignored_conditions_are_caught: Credulous by conditions_are_kept;
    a_wrong_order_is_caught: Unordered by names_are_scanned_in_the_order_of_their_bytes;
    a_prefix_taken_loosely_is_caught: Sloppy by a_scan_stays_within_its_prefix;
    a_forgotten_commit_is_caught: Forgetful by many_concurrent_commits_are_all_durable;
    a_store_that_never_closes_is_caught: NeverClosed by a_closed_store_says_so;
    a_missing_limit_is_caught: Limitless by a_value_beyond_the_limit_is_refused_and_nothing_stored;
    waiting_in_the_callers_thread_is_caught: Blocking by a_store_does_not_block_the_executor;
    a_store_that_writes_at_its_close_is_caught: AtClose by a_commit_survives_a_crash_without_a_close;
    a_stale_read_is_caught: Stale by a_committed_value_is_read_back;
}

/// All that a restart shows is good: only a crash finds this store out.
#[tokio::test]
async fn a_store_that_writes_at_its_close_survives_restarts() {
    kit::what_is_committed_survives_a_restart(flawed(Flaw::AtClose)).await;
    kit::many_concurrent_commits_are_all_durable(flawed(Flaw::AtClose)).await;
}
