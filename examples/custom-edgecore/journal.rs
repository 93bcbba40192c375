//! A store of the vendor's: a file that is only ever appended to, for flash that wears out.
//!
//! Every commit is one line of JSON, synced before it counts; a line cut short by a power cut did not happen.
//! The whole state is in memory. `tests/journal.rs` runs the kit of all stores over it.
//!
//! This edgecore has one thread for everything, so nothing here waits for the disk on it: commits are written
//! on a thread for blocking work, one after the other, and reads never wait for them.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use kubeedge_core::{
    failure::Failure,
    store::{Batch, Change, Entry, Expect, Key, MAX_VALUE, MetaStore, Scan, StoreError, StoreKind},
};
use serde::{Deserialize, Serialize};

/// One change as it is in the file: bucket, name, and the value or nothing for a delete.
#[derive(Serialize, Deserialize)]
struct Line(String, String, Option<Vec<u8>>);

/// What is stored: version and value by bucket and name.
type Entries = BTreeMap<(String, String), (u64, Bytes)>;

/// The store.
#[derive(Debug)]
pub(crate) struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What is committed; `None` when the store is closed. Locked for moments only.
    entries: Mutex<Option<Entries>>,
    /// The file, until the store is closed; locked from the check of a commit to its end. Locked after
    /// nothing else.
    file: Mutex<Option<File>>,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens the file and reads it through.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut entries = Entries::new();
        let (mut reader, mut good, mut line) = (BufReader::new(&file), 0, Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 {
            let Some(Ok(lines)) = line.strip_suffix(b"\n").map(serde_json::from_slice::<Vec<Line>>) else {
                break;
            };
            lines.into_iter().for_each(|line| apply(&mut entries, line));
            good += line.len() as u64;
            line.clear();
        }
        file.set_len(good)?;
        Ok(Self(Arc::new(Inner { entries: Mutex::new(Some(entries)), file: Mutex::new(Some(file)) })))
    }

    /// Does what may wait for the disk, to its end even if nobody waits for it any longer.
    async fn apart<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|error| Err(Failure::new(StoreKind::Io, doing).because(error)))
    }
}

impl Inner {
    fn with<T>(&self, doing: &'static str, work: impl FnOnce(&mut Entries) -> T) -> Result<T, StoreError> {
        locked(&self.entries).as_mut().map(work).ok_or_else(|| Failure::new(StoreKind::Closed, doing))
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        const DOING: &str = "committing a batch";
        let failed = |error: std::io::Error| Failure::new(StoreKind::Io, DOING).because(error);
        // No other commit comes between the check and the end.
        let mut file = locked(&self.file);
        let file = file.as_mut().ok_or_else(|| Failure::new(StoreKind::Closed, DOING))?;
        self.with(DOING, |entries| batch.0.iter().try_for_each(|change| check(entries, change)))??;
        let lines: Vec<_> = batch.0.into_iter().map(line).collect();
        let mut text = serde_json::to_vec(&lines).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let before = file.metadata().map_err(failed)?.len();
        if let Err(error) = file.write_all(&text).and_then(|()| file.sync_data()) {
            // Half a line must not stand before the next one.
            file.set_len(before).map_err(failed)?;
            return Err(failed(error));
        }
        self.with(DOING, |entries| lines.into_iter().for_each(|line| apply(entries, line)))
    }
}

fn apply(entries: &mut Entries, Line(bucket, name, value): Line) {
    let key = (bucket, name);
    match value {
        Some(value) => {
            let version = entries.get(&key).map_or(0, |(version, _)| *version) + 1;
            entries.insert(key, (version, value.into()));
        }
        None => drop(entries.remove(&key)),
    }
}

fn check(entries: &Entries, change: &Change) -> Result<(), StoreError> {
    let fail = |kind| Err(Failure::new(kind, "committing a batch").on(change.key().to_string()));
    let version = find(entries, change.key()).map(|(version, _)| *version);
    match (change, change.expect()) {
        (Change::Put { value, .. }, _) if value.len() > MAX_VALUE => fail(StoreKind::TooLarge),
        (_, Expect::Absent) if version.is_some() => fail(StoreKind::Conflict),
        (_, Expect::Version(wanted)) if version != Some(wanted) => fail(StoreKind::Conflict),
        _ => Ok(()),
    }
}

fn find<'a>(entries: &'a Entries, key: &Key) -> Option<&'a (u64, Bytes)> {
    entries.get(&(key.bucket.0.to_owned(), key.name.clone()))
}

fn line(change: Change) -> Line {
    match change {
        Change::Put { key, value, .. } => Line(key.bucket.0.to_owned(), key.name, Some(value.to_vec())),
        Change::Delete { key, .. } => Line(key.bucket.0.to_owned(), key.name, None),
    }
}

#[async_trait]
impl MetaStore for Journal {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let entry = |(version, value): (u64, Bytes)| Entry { key: key.clone(), value, version };
        self.0.with("reading a value", |entries| find(entries, key).cloned().map(entry))
    }

    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        let found = self.0.with("scanning a table", |entries| {
            let bucket = scan.bucket.0.to_owned();
            let from = entries.range((bucket.clone(), scan.prefix.clone())..);
            let found = from.take_while(|((b, name), _)| *b == bucket && name.starts_with(&scan.prefix));
            let entry = |((_, name), (version, value)): (&(String, String), &(u64, Bytes))| {
                Ok(Entry {
                    key: Key::new(scan.bucket, name.clone()),
                    value: value.clone(),
                    version: *version,
                })
            };
            found.map(entry).collect::<Vec<_>>()
        });
        stream::iter(found.unwrap_or_else(|error| vec![Err(error)])).boxed()
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.apart("committing a batch", |inner| inner.commit(batch)).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        // After the commits that are under way.
        self.apart("closing a store", |inner| {
            *locked(&inner.file) = None;
            *locked(&inner.entries) = None;
            Ok(())
        })
        .await
    }
}
