//! A disk that takes its time, fails when told to, and keeps exactly what it said is stored when its host
//! dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use kubeedge_core::{
    failure::Failure,
    store::{Batch, Bucket, Change, Entry, Key, MetaStore, Scan, StoreError, StoreKind},
};
use kubeedge_store::MemoryStore;
use parking_lot::Mutex;
use serde_json::Value;

use crate::{dice::Dice, plan::Planted, trace::Trace};

/// MetaManager's objects.
pub(crate) const META: Bucket = kubeedge_edge::meta::BUCKET;

/// What outlives its host. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    host: String,
    memory: Arc<MemoryStore>,
    dice: Dice,
    trace: Trace,
    planted: Option<Planted>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The newest version of each object, by row and uid.
    newest: BTreeMap<(String, String), u64>,
    /// Pods whose deletion was stored.
    gone: BTreeMap<String, String>,
    /// What takes back the newest commits, for a disk that lies.
    undo: Vec<Vec<(Key, Option<Bytes>)>>,
    /// All rows of all tables.
    rows: BTreeSet<Key>,
    /// Those of a backup.
    backup: BTreeMap<Key, Bytes>,
    commits: u64,
}

impl Disk {
    pub(crate) fn new(host: &str, dice: Dice, trace: Trace, planted: Option<Planted>) -> Self {
        let (memory, seen) = (Arc::default(), Arc::default());
        Self { host: host.to_owned(), memory, dice, trace, planted, seen }
    }

    /// The host died: what was said to be stored is there, unless the disk lied.
    pub(crate) fn crashed(&self) {
        let undo = std::mem::take(&mut self.seen.lock().undo);
        for old in undo.into_iter().rev().flatten() {
            let batch = match old {
                (key, Some(value)) => Batch::new().put(key, value),
                (key, None) => Batch::new().delete(key),
            };
            let _ = self.memory.commit(batch).now_or_never();
        }
    }

    /// Remembers everything as it is.
    pub(crate) fn back_up(&self) {
        let keys = self.seen.lock().rows.clone();
        let value = |key: &Key| self.memory.get(key).now_or_never()?.ok()?.map(|entry| entry.value);
        let rows = keys.into_iter().filter_map(|key| Some((key.clone(), value(&key)?)));
        let rows = rows.collect();
        self.seen.lock().backup = rows;
    }

    /// Everything is again as in the backup; without one there is nothing. Its host is not running.
    pub(crate) fn restore(&self) {
        let mut seen = self.seen.lock();
        let now = std::mem::take(&mut seen.rows).into_iter();
        let batch = now.fold(Batch::new(), Batch::delete);
        let old = std::mem::take(&mut seen.backup);
        seen.rows = old.keys().cloned().collect();
        // What it held later is not there any more, and may come once more.
        let versions = old.iter().filter(|(key, _)| key.bucket == META);
        seen.newest = versions
            .filter_map(|(key, value)| {
                version(value).map(|(uid, version)| ((key.name.clone(), uid), version))
            })
            .collect();
        for batch in [batch, old.into_iter().fold(Batch::new(), |batch, (key, value)| batch.put(key, value))]
        {
            let _ = self.memory.commit(batch).now_or_never();
        }
    }

    /// All rows of a table.
    pub(crate) fn rows(&self, bucket: Bucket) -> BTreeMap<String, Bytes> {
        let rows = self.memory.scan(Scan::new(bucket, "")).try_collect::<Vec<_>>().now_or_never();
        let rows = rows.and_then(Result::ok).unwrap_or_default();
        rows.into_iter().map(|entry| (entry.key.name, entry.value)).collect()
    }

    /// How many rows there are, of all tables.
    pub(crate) fn size(&self) -> usize {
        self.seen.lock().rows.len()
    }

    async fn pass(&self, doing: &'static str) -> Result<(), StoreError> {
        tokio::time::sleep(self.dice.disk_pause()).await;
        if self.dice.disk_fails() {
            self.trace.note(&self.host, format!("{doing} fails"));
            return Err(Failure::new(StoreKind::Io, doing).because("the disk fails"));
        }
        Ok(())
    }

    /// What this batch would remove of MetaManager's objects, by row.
    fn removed_by(&self, batch: &Batch) -> BTreeMap<String, Bytes> {
        let deletes = batch.0.iter().filter(|change| matches!(change, Change::Delete { .. }));
        let old = deletes.filter_map(|change| {
            let found = self.memory.get(change.key()).now_or_never()?.ok()??;
            (found.key.bucket == META).then_some((found.key.name, found.value))
        });
        old.collect()
    }

    fn watch(&self, batch: &Batch, gone: &BTreeMap<String, Bytes>) {
        for change in &batch.0 {
            let key = change.key();
            match change {
                Change::Put { .. } => drop(self.seen.lock().rows.insert(key.clone())),
                Change::Delete { .. } => drop(self.seen.lock().rows.remove(key)),
            }
            if key.bucket != META || self.host == "api" {
                continue;
            }
            match change {
                Change::Put { value, .. } => self.put(&key.name, value),
                Change::Delete { .. } => self.deleted(&key.name, gone.get(&key.name)),
            }
        }
    }

    fn put(&self, row: &str, value: &[u8]) {
        let Some((uid, version)) = version(value) else { return };
        let mut seen = self.seen.lock();
        let back = seen.gone.get(&uid).is_some_and(|gone| gone == row);
        let newest = seen.newest.entry((row.to_owned(), uid.clone())).or_insert(0);
        let before = *newest;
        *newest = before.max(version);
        drop(seen);
        self.trace.note(&self.host, format!("stores {row} v{version}"));
        if version < before {
            let what = format!("{} stores {row} (uid {uid}) at version {version} after {before}", self.host);
            self.trace.broken(crate::checks::ORDER, what);
        }
        if back {
            let what = format!("{} stores {row} (uid {uid}) again after its deletion", self.host);
            self.trace.broken(crate::checks::ORDER, what);
        }
    }

    fn deleted(&self, row: &str, old: Option<&Bytes>) {
        let Some(old) = old else { return };
        self.trace.note(&self.host, format!("removes {row}"));
        let object: Value = serde_json::from_slice(old).unwrap_or_default();
        if row.contains("/pod/")
            && let Some(uid) = object["metadata"]["uid"].as_str()
        {
            self.seen.lock().gone.insert(uid.to_owned(), row.to_owned());
        }
    }

    /// What takes this batch back, for a disk that says too early that it stored something.
    fn remember(&self, batch: &Batch) {
        let old = batch.0.iter().map(|change| {
            let key = change.key().clone();
            let found = self.memory.get(&key).now_or_never().and_then(Result::ok).flatten();
            (key, found.map(|entry| entry.value))
        });
        let old: Vec<_> = old.collect();
        let mut seen = self.seen.lock();
        seen.undo.push(old);
        let excess = seen.undo.len().saturating_sub(40);
        seen.undo.drain(..excess);
    }
}

/// The uid of an object, and its version.
fn version(object: &[u8]) -> Option<(String, u64)> {
    let object: Value = serde_json::from_slice(object).ok()?;
    let meta = object.get("metadata")?;
    let (uid, version) = (meta.get("uid")?.as_str()?, meta.get("resourceVersion")?.as_str()?);
    Some((uid.to_owned(), version.parse().unwrap_or(0)))
}

#[async_trait]
impl MetaStore for Disk {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.pass("reading").await?;
        self.memory.get(key).await
    }

    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        let disk = self.clone();
        let rows = async move {
            match disk.pass("scanning").await {
                Ok(()) => disk.memory.scan(scan),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        stream::once(rows).flatten().boxed()
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.pass("committing").await?;
        if self.planted == Some(Planted::LyingDisk) && self.host != "api" {
            self.remember(&batch);
        }
        let mut batch = batch;
        if self.planted == Some(Planted::Hoard) && self.host != "api" {
            let mut seen = self.seen.lock();
            for _ in 0..5 {
                seen.commits += 1;
                batch = batch.put(Key::new(Bucket("hoard"), seen.commits.to_string()), "kept for ever");
            }
        }
        let gone = self.removed_by(&batch);
        // What a conflict stops has not happened.
        self.memory.commit(batch.clone()).await?;
        self.watch(&batch, &gone);
        // Whoever dies here is not told that it is stored, and it is.
        tokio::time::sleep(self.dice.disk_pause()).await;
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
