//! A store in memory: ordinary in all but that nothing outlives the process.
//!
//! For tests, simulations and nodes whose state need not survive. Committed means visible to every handle of
//! the same store: [`MemoryStore::reopened`] is what a restarted process would open.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use kubeedge_core::store::{Batch, Bucket, Change, Entry, Key, MetaStore, Scan, StoreError};
use parking_lot::RwLock;

use crate::check;

type Table = BTreeMap<String, (u64, Bytes)>;

/// A store in memory. The default is empty.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Arc<RwLock<BTreeMap<Bucket, Table>>>,
    closed: AtomicBool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another handle to the same values, open even if this one is closed: the same disk after a restart.
    #[must_use]
    pub fn reopened(&self) -> Self {
        Self { tables: Arc::clone(&self.tables), closed: AtomicBool::new(false) }
    }

    fn open(&self, doing: &'static str) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(check::closed(doing)) } else { Ok(()) }
    }

    fn range(&self, scan: &Scan) -> Vec<Entry> {
        let tables = self.tables.read();
        let Some(table) = tables.get(&scan.bucket) else { return Vec::new() };
        let from = table.range::<str, _>((Bound::Included(scan.prefix.as_str()), Bound::Unbounded));
        let found = from.take_while(|(name, _)| name.starts_with(&scan.prefix));
        found
            .map(|(name, (version, value))| Entry {
                key: Key::new(scan.bucket, name.clone()),
                value: value.clone(),
                version: *version,
            })
            .collect()
    }
}

#[async_trait]
impl MetaStore for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.open(check::READING)?;
        let tables = self.tables.read();
        let found = tables.get(&key.bucket).and_then(|table| table.get(&key.name));
        Ok(found.map(|(version, value)| Entry { key: key.clone(), value: value.clone(), version: *version }))
    }

    /// The values are shared, not copied; the names of the result are held until the stream is dropped.
    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        let found = match self.open(check::SCANNING) {
            Ok(()) => self.range(&scan).into_iter().map(Ok).collect(),
            Err(closed) => vec![Err(closed)],
        };
        stream::iter(found).boxed()
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.open(check::COMMITTING)?;
        check::sizes(&batch)?;
        let mut tables = self.tables.write();
        for change in &batch.0 {
            let key = change.key();
            let found = tables.get(&key.bucket).and_then(|table| table.get(&key.name));
            check::holds(change, found.map(|(version, _)| *version))?;
        }
        for change in batch.0 {
            match change {
                Change::Put { key, value, .. } => {
                    let table = tables.entry(key.bucket).or_default();
                    let version = table.get(&key.name).map_or(0, |(version, _)| *version) + 1;
                    table.insert(key.name, (version, value));
                }
                Change::Delete { key, .. } => {
                    if let Some(table) = tables.get_mut(&key.bucket) {
                        table.remove(&key.name);
                    }
                }
            }
        }
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}
