//! What every [`MetaStore`] must do.
//!
//! ```
//! use std::{path::PathBuf, sync::Arc};
//!
//! use kubeedge_core::{conformance::store::StoreHarness, store::MetaStore};
//! # async fn acme_store(_: PathBuf) -> Arc<dyn MetaStore> { unimplemented!() }
//! # fn empty_folder() -> PathBuf { unimplemented!() }
//!
//! struct Place(PathBuf);
//!
//! #[async_trait::async_trait]
//! impl StoreHarness for Place {
//!     type Store = Arc<dyn MetaStore>;
//!
//!     async fn open(&self) -> Self::Store {
//!         acme_store(self.0.join("store")).await
//!     }
//!
//!     async fn open_after_crash(&self) -> Self::Store {
//!         let copy = self.0.join("copy");
//!         std::fs::copy(self.0.join("store"), &copy).unwrap();
//!         acme_store(copy).await
//!     }
//! }
//!
//! kubeedge_core::meta_store_conformance!(async { Place(empty_folder()) });
//! # fn main() {}
//! ```
//!
//! Each case becomes a test; the crate's dev-dependencies need `tokio` with the features `macros` and
//! `rt-multi-thread`. The harness brings one place to store things in, empty at first, and opens a store on
//! it; opened again after a close, the place holds what was committed. Cases take tens of milliseconds on a
//! disk with a quick fsync.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::task::JoinSet;

use super::executor::is_not_blocked;
use crate::store::{
    Batch, Bucket, Change, Entry, Expect, Key, MAX_VALUE, MetaStore, Scan, StoreError, StoreKind, update,
};

/// The table in which most cases work.
pub const BUCKET: Bucket = Bucket("conformance");
const OTHER: Bucket = Bucket("conformance-2");

/// A place to store things in, and the implementation under test.
#[async_trait]
pub trait StoreHarness: Send + Sync + 'static {
    /// The implementation.
    type Store: MetaStore;

    /// Opens the place: empty at the first call, and as it was left at later ones. Only called again after
    /// the store of the call before was closed and dropped.
    async fn open(&self) -> Self::Store;

    /// Opens the place as a crash at this moment would leave it. The store of the last [`StoreHarness::open`]
    /// is still there, neither closed nor dropped: a store in files is opened on a copy of them. Called once.
    async fn open_after_crash(&self) -> Self::Store;
}

fn key(name: &str) -> Key {
    Key::new(BUCKET, name)
}

fn put(name: &str, value: &'static str, expect: Expect) -> Change {
    Change::Put { key: key(name), value: Bytes::from_static(value.as_bytes()), expect }
}

fn delete(name: &str, expect: Expect) -> Change {
    Change::Delete { key: key(name), expect }
}

#[track_caller]
fn must<T>(result: Result<T, StoreError>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => unexpected(what, &error),
    }
}

#[track_caller]
#[allow(clippy::panic)]
fn unexpected(what: &str, error: &StoreError) -> ! {
    panic!("{what} failed: {error:?}")
}

#[track_caller]
fn refused<T>(result: Result<T, StoreError>, kind: StoreKind) -> Option<StoreError> {
    let error = result.err();
    assert_eq!(error.as_ref().map(StoreError::kind), Some(kind), "an error of this kind was due");
    error
}

async fn set(store: &impl MetaStore, name: &str, value: &'static str) {
    must(store.commit(Batch::new().put(key(name), value)).await, "a put");
}

async fn get(store: &impl MetaStore, name: &str) -> Option<Entry> {
    must(store.get(&key(name)).await, "a get")
}

async fn value(store: &impl MetaStore, name: &str) -> Option<Bytes> {
    get(store, name).await.map(|entry| entry.value)
}

async fn version(store: &impl MetaStore, name: &str) -> u64 {
    get(store, name).await.map_or(0, |entry| entry.version)
}

async fn all(store: &impl MetaStore, prefix: &str) -> Vec<Entry> {
    must(store.scan(Scan::new(BUCKET, prefix)).try_collect().await, "a scan")
}

async fn names(store: &impl MetaStore, prefix: &str) -> Vec<String> {
    all(store, prefix).await.into_iter().map(|entry| entry.key.name).collect()
}

async fn reopen<H: StoreHarness>(harness: &H, store: H::Store) -> H::Store {
    must(store.close().await, "closing");
    drop(store);
    harness.open().await
}

/// A commit that returned is seen by the next read.
pub async fn a_committed_value_is_read_back(harness: impl StoreHarness) {
    let store = harness.open().await;
    set(&store, "default/pod/web", "v").await;
    let entry = get(&store, "default/pod/web").await;
    assert_eq!(entry.as_ref().map(|entry| &entry.key), Some(&key("default/pod/web")));
    assert_eq!(entry.map(|entry| entry.value), Some(Bytes::from_static(b"v")));
}

/// A new store is empty, and says so without an error.
pub async fn nothing_is_found_where_nothing_is(harness: impl StoreHarness) {
    let store = harness.open().await;
    assert_eq!(get(&store, "a").await, None);
    assert!(all(&store, "").await.is_empty());
    must(store.commit(Batch::new()).await, "an empty batch");
}

/// The last condition of a batch counts for the first change.
pub async fn a_batch_with_a_conflict_at_its_end_changes_nothing(harness: impl StoreHarness) {
    let store = harness.open().await;
    set(&store, "old", "1").await;
    let batch = Batch(vec![
        put("new", "2", Expect::Any),
        put("old", "2", Expect::Any),
        delete("old", Expect::Any),
        put("missing", "2", Expect::Version(1)),
    ]);
    refused(store.commit(batch).await, StoreKind::Conflict);
    assert_eq!(value(&store, "new").await, None);
    assert_eq!(value(&store, "old").await.as_deref(), Some(&b"1"[..]));
    let store = reopen(&harness, store).await;
    assert_eq!(names(&store, "").await, ["old"]);
}

/// A conflict says which key it was.
pub async fn a_conflict_names_its_key(harness: impl StoreHarness) {
    let store = harness.open().await;
    set(&store, "there", "1").await;
    let batch = Batch(vec![put("new", "2", Expect::Absent), delete("there", Expect::Absent)]);
    let error = refused(store.commit(batch).await, StoreKind::Conflict);
    assert_eq!(error.map(|error| error.subject().to_owned()), Some(key("there").to_string()));
}

/// Values and versions are there after a restart.
pub async fn what_is_committed_survives_a_restart(harness: impl StoreHarness) {
    let store = harness.open().await;
    set(&store, "a", "1").await;
    set(&store, "a", "2").await;
    set(&store, "b", "1").await;
    must(store.commit(Batch::new().delete(key("b"))).await, "a delete");
    let before = all(&store, "").await;
    let store = reopen(&harness, store).await;
    assert_eq!(all(&store, "").await, before);
    assert_eq!(value(&store, "a").await.as_deref(), Some(&b"2"[..]));
}

/// Order is that of bytes, not of letters or of insertion.
pub async fn names_are_scanned_in_the_order_of_their_bytes(harness: impl StoreHarness) {
    let store = harness.open().await;
    let mut sorted = ["", "A", "B", "Z/1", "a", "a/b", "a0", "aa", "b", "\u{e9}", "\u{ffff}", "\u{1f600}"];
    sorted.sort_unstable_by_key(|name| name.as_bytes());
    let batch = sorted.iter().rev().fold(Batch::new(), |batch, name| batch.put(key(name), *name));
    must(store.commit(batch).await, "a batch");
    assert_eq!(names(&store, "").await, sorted);
}

/// A prefix ends where it ends.
pub async fn a_scan_stays_within_its_prefix(harness: impl StoreHarness) {
    let store = harness.open().await;
    for name in ["default/pod", "default/pod/a", "default/pod/b", "default/podpatch/a", "default/poc/a", "z"]
    {
        set(&store, name, "v").await;
    }
    assert_eq!(names(&store, "default/pod/").await, ["default/pod/a", "default/pod/b"]);
    assert_eq!(names(&store, "default/pod").await.len(), 4);
    assert!(names(&store, "y").await.is_empty());
    assert!(names(&store, "zz").await.is_empty());
}

/// No character has a meaning of its own, the last one of Unicode included.
pub async fn a_prefix_of_any_text_is_taken_literally(harness: impl StoreHarness) {
    let store = harness.open().await;
    let prefixes = ["%", "_", "*", "[a]", "'", "\\", "\u{0}", "\u{7f}", "\u{e9}", "\u{10ffff}", "\u{d7ff}"];
    for prefix in prefixes {
        set(&store, &format!("{prefix}{prefix}x"), "v").await;
        set(&store, &format!("x{prefix}"), "v").await;
    }
    for prefix in prefixes {
        let doubled = format!("{prefix}{prefix}");
        assert_eq!(names(&store, prefix).await, [format!("{doubled}x")], "prefix {prefix:?}");
        assert_eq!(names(&store, &doubled).await, [format!("{doubled}x")], "prefix {doubled:?}");
    }
    assert_eq!(names(&store, "x").await.len(), prefixes.len());
}

/// A commit during a scan is seen whole or not at all.
pub async fn a_scan_shows_one_moment(harness: impl StoreHarness) {
    let store = Arc::new(harness.open().await);
    let round = |n: u32| {
        (0..50).fold(Batch::new(), |batch, i| batch.put(key(&format!("k{i:02}")), n.to_string().into_bytes()))
    };
    must(store.commit(round(0)).await, "the first round");
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for n in 1..40 {
                must(store.commit(round(n)).await, "a round");
            }
        }
    });
    let mut newest = 0;
    while !writer.is_finished() {
        let mut values = Vec::new();
        let mut scan = store.scan(Scan::new(BUCKET, "k"));
        while let Some(entry) = scan.next().await {
            values.push(must(entry, "a scan during commits").value);
            tokio::task::yield_now().await;
        }
        assert_eq!(values.len(), 50);
        assert!(values.windows(2).all(|pair| pair.first() == pair.last()), "two rounds in one scan");
        let seen = values.first().and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        assert!(seen >= Some(newest), "a scan went back in time");
        newest = seen.unwrap_or(newest);
    }
    assert!(writer.await.is_ok());
}

/// Absent and versions are checked, on puts and deletes.
pub async fn conditions_are_kept(harness: impl StoreHarness) {
    let store = harness.open().await;
    must(store.commit(Batch(vec![put("a", "1", Expect::Absent)])).await, "creating");
    let first = version(&store, "a").await;
    refused(store.commit(Batch(vec![put("a", "x", Expect::Absent)])).await, StoreKind::Conflict);
    refused(store.commit(Batch(vec![put("a", "x", Expect::Version(first + 1))])).await, StoreKind::Conflict);
    refused(store.commit(Batch(vec![delete("a", Expect::Version(first + 1))])).await, StoreKind::Conflict);
    refused(store.commit(Batch(vec![delete("none", Expect::Version(1))])).await, StoreKind::Conflict);
    assert_eq!(value(&store, "a").await.as_deref(), Some(&b"1"[..]));
    must(store.commit(Batch(vec![put("a", "2", Expect::Version(first))])).await, "updating");
    let second = version(&store, "a").await;
    must(store.commit(Batch(vec![delete("a", Expect::Version(second))])).await, "deleting");
    must(store.commit(Batch(vec![delete("a", Expect::Absent)])).await, "deleting what must not be there");
    assert_eq!(get(&store, "a").await, None);
}

/// Two reads tell by the version whether there was a put between them.
pub async fn a_version_grows_with_every_put(harness: impl StoreHarness) {
    let store = harness.open().await;
    let mut last = 0;
    for _ in 0..5 {
        set(&store, "a", "the same value").await;
        let now = version(&store, "a").await;
        assert!(now > last, "version {now} after {last}");
        last = now;
    }
    set(&store, "b", "another key").await;
    assert_eq!(version(&store, "a").await, last);
}

/// Deleting may be repeated.
pub async fn deleting_what_is_not_there_is_no_error(harness: impl StoreHarness) {
    let store = harness.open().await;
    set(&store, "a", "1").await;
    for _ in 0..2 {
        must(store.commit(Batch::new().delete(key("a"))).await, "a delete");
        assert_eq!(get(&store, "a").await, None);
    }
}

/// Of many read-modify-writes at once none is lost.
pub async fn racing_updates_all_count(harness: impl StoreHarness) {
    let store = Arc::new(harness.open().await);
    let mut racers = JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        racers.spawn(async move {
            for _ in 0..10 {
                let one_more = |old: Option<u64>| Some(old.unwrap_or(0) + 1);
                must(update(&*store, key("count"), one_more).await, "an update");
            }
        });
    }
    while let Some(ended) = racers.join_next().await {
        assert!(ended.is_ok());
    }
    assert_eq!(value(&*store, "count").await.as_deref(), Some(&b"80"[..]));
}

/// Empty is not absent.
pub async fn an_empty_value_is_a_value(harness: impl StoreHarness) {
    let store = harness.open().await;
    set(&store, "a", "").await;
    let store = reopen(&harness, store).await;
    assert_eq!(value(&store, "a").await, Some(Bytes::new()));
    assert_eq!(names(&store, "").await, ["a"]);
}

/// A value may hold any bytes, up to the limit.
pub async fn a_large_value_is_stored_whole(harness: impl StoreHarness) {
    let store = harness.open().await;
    for len in [1 << 20, MAX_VALUE] {
        let large: Bytes = (0..=u8::MAX).cycle().take(len).collect::<Vec<_>>().into();
        must(store.commit(Batch::new().put(key("large"), large.clone())).await, "a large put");
        assert!(value(&store, "large").await.as_ref() == Some(&large), "{len} bytes came back changed");
    }
}

/// A value beyond the limit takes its whole batch with it.
pub async fn a_value_beyond_the_limit_is_refused_and_nothing_stored(harness: impl StoreHarness) {
    let store = harness.open().await;
    let batch = Batch::new().put(key("small"), "v").put(key("large"), vec![0; MAX_VALUE + 1]);
    let error = refused(store.commit(batch).await, StoreKind::TooLarge);
    assert_eq!(error.map(|error| error.subject().to_owned()), Some(key("large").to_string()));
    assert!(all(&store, "").await.is_empty());
}

/// The same name in two tables is two values.
pub async fn tables_are_separate(harness: impl StoreHarness) {
    let store = harness.open().await;
    let other = Key::new(OTHER, "a");
    must(
        store.commit(Batch::new().put(key("a"), "1").put(other.clone(), "2")).await,
        "one batch, two tables",
    );
    assert_eq!(value(&store, "a").await.as_deref(), Some(&b"1"[..]));
    must(store.commit(Batch::new().delete(key("a"))).await, "a delete");
    let left = must(store.get(&other).await, "a get").map(|entry| entry.value);
    assert_eq!(left.as_deref(), Some(&b"2"[..]));
    assert!(all(&store, "").await.is_empty());
}

/// A batch is a sequence of changes.
pub async fn the_later_change_of_a_key_wins(harness: impl StoreHarness) {
    let store = harness.open().await;
    let batch = Batch::new().put(key("a"), "1").put(key("a"), "2").put(key("b"), "1").delete(key("b"));
    must(store.commit(batch.delete(key("c")).put(key("c"), "1")).await, "a batch");
    assert_eq!(value(&store, "a").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(names(&store, "").await, ["a", "c"]);
}

/// A condition is about the state before the batch, not about its own changes.
pub async fn conditions_see_the_state_before_the_batch(harness: impl StoreHarness) {
    let store = harness.open().await;
    let batch = Batch(vec![put("a", "1", Expect::Absent), put("a", "2", Expect::Absent)]);
    must(store.commit(batch).await, "two puts of an absent key");
    let found = version(&store, "a").await;
    let batch = Batch(vec![delete("a", Expect::Any), put("a", "3", Expect::Version(found))]);
    must(store.commit(batch).await, "a put of a version the batch itself deletes");
    let batch = Batch(vec![delete("a", Expect::Any), put("a", "4", Expect::Absent)]);
    refused(store.commit(batch).await, StoreKind::Conflict);
    assert_eq!(value(&store, "a").await.as_deref(), Some(&b"3"[..]));
}

/// After a close every call fails, and says why.
pub async fn a_closed_store_says_so(harness: impl StoreHarness) {
    let store = harness.open().await;
    set(&store, "a", "1").await;
    must(store.close().await, "closing");
    refused(store.get(&key("a")).await, StoreKind::Closed);
    refused(store.commit(Batch::new().put(key("a"), "2")).await, StoreKind::Closed);
    let scanned: Result<Vec<_>, _> = store.scan(Scan::new(BUCKET, "")).try_collect().await;
    refused(scanned, StoreKind::Closed);
    drop(store);
    let store = harness.open().await;
    assert_eq!(value(&store, "a").await.as_deref(), Some(&b"1"[..]));
}

/// Who closes need not know whether somebody did before.
pub async fn closing_twice_is_no_error(harness: impl StoreHarness) {
    let store = harness.open().await;
    must(store.close().await, "closing");
    must(store.close().await, "closing again");
}

/// Commits that wait for one fsync together are all kept.
pub async fn many_concurrent_commits_are_all_durable(harness: impl StoreHarness) {
    let store = Arc::new(harness.open().await);
    let mut writers = JoinSet::new();
    for n in 0..200 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let name = format!("w{n:03}");
            must(store.commit(Batch::new().put(key(&name), name.clone())).await, "one of many commits");
            assert_eq!(value(&*store, &name).await, Some(name.into()));
        });
    }
    while let Some(ended) = writers.join_next().await {
        assert!(ended.is_ok());
    }
    must(store.close().await, "closing");
    drop(store);
    assert_eq!(names(&harness.open().await, "w").await.len(), 200);
}

/// What was committed is there after a crash: nothing waits for a close.
pub async fn a_commit_survives_a_crash_without_a_close(harness: impl StoreHarness) {
    let store = harness.open().await;
    set(&store, "default/pod/web", "1").await;
    set(&store, "default/pod/web", "2").await;
    must(store.commit(Batch::new().put(key("a"), "v").put(key("b"), "v")).await, "a batch");
    must(store.commit(Batch::new().delete(key("b"))).await, "a delete");
    let crashed = harness.open_after_crash().await;
    assert_eq!(names(&crashed, "").await, ["a", "default/pod/web"]);
    assert_eq!(value(&crashed, "default/pod/web").await, Some("2".into()));
    drop(crashed);
    // Up to here nothing of the first store has been dropped.
    must(store.close().await, "closing");
}

/// Of commits made together, one that conflicts fails alone.
pub async fn a_conflict_fails_no_other_commit(harness: impl StoreHarness) {
    let store = Arc::new(harness.open().await);
    set(&*store, "taken", "1").await;
    let mut writers = JoinSet::new();
    for n in 0..60 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let name = format!("w{n:02}");
            let mine = Change::Put { key: key(&name), value: Bytes::new(), expect: Expect::Absent };
            let good = n % 3 != 0;
            let batch = if good { vec![mine] } else { vec![mine, put("taken", "2", Expect::Absent)] };
            assert_eq!(store.commit(Batch(batch)).await.is_ok(), good);
        });
    }
    while let Some(ended) = writers.join_next().await {
        assert!(ended.is_ok());
    }
    assert_eq!(names(&*store, "w").await.len(), 40);
}

/// A caller that stops waiting leaves no half batch behind.
pub async fn a_commit_nobody_waits_for_happens_whole_or_not_at_all(harness: impl StoreHarness) {
    let store = harness.open().await;
    for n in 0..50 {
        let (a, b) = (format!("{n}/a"), format!("{n}/b"));
        let commit = store.commit(Batch::new().put(key(&a), "v").put(key(&b), "v"));
        let _ = tokio::time::timeout(std::time::Duration::from_micros(n * 7), commit).await;
    }
    let store = reopen(&harness, store).await;
    for n in 0..50 {
        assert_ne!(names(&store, &format!("{n}/")).await.len(), 1, "half of batch {n}");
    }
}

/// What waits for the disk waits elsewhere: a whole core may run on one thread.
pub async fn a_store_does_not_block_the_executor(harness: impl StoreHarness) {
    let store = &harness.open().await;
    is_not_blocked(|| async move {
        for number in 0..4 {
            let value = vec![b'x'; 256 << 10];
            must(store.commit(Batch::new().put(key(&format!("big-{number}")), value)).await, "a put");
            get(store, "big-0").await;
        }
        let all: Vec<_> = must(store.scan(Scan::new(BUCKET, "")).try_collect().await, "a scan");
        assert_eq!(all.len(), 4);
    })
    .await;
    must(store.close().await, "a close");
}

/// Makes tests of all cases; the argument is a future of a [`StoreHarness`], run for each case anew.
#[macro_export]
macro_rules! meta_store_conformance {
    ($make:expr) => {
        $crate::meta_store_conformance!(@cases $make;
            a_committed_value_is_read_back
            nothing_is_found_where_nothing_is
            a_batch_with_a_conflict_at_its_end_changes_nothing
            a_conflict_names_its_key
            what_is_committed_survives_a_restart
            a_commit_survives_a_crash_without_a_close
            names_are_scanned_in_the_order_of_their_bytes
            a_scan_stays_within_its_prefix
            a_prefix_of_any_text_is_taken_literally
            a_scan_shows_one_moment
            conditions_are_kept
            a_version_grows_with_every_put
            deleting_what_is_not_there_is_no_error
            racing_updates_all_count
            an_empty_value_is_a_value
            a_large_value_is_stored_whole
            a_value_beyond_the_limit_is_refused_and_nothing_stored
            tables_are_separate
            the_later_change_of_a_key_wins
            conditions_see_the_state_before_the_batch
            a_closed_store_says_so
            closing_twice_is_no_error
            many_concurrent_commits_are_all_durable
            a_conflict_fails_no_other_commit
            a_commit_nobody_waits_for_happens_whole_or_not_at_all
        );
        #[::tokio::test(flavor = "current_thread")]
        async fn a_store_does_not_block_the_executor() {
            $crate::conformance::store::a_store_does_not_block_the_executor($make.await).await;
        }
    };
    (@cases $make:expr; $($case:ident)*) => { $(
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::store::$case($make.await).await;
        }
    )* };
}
