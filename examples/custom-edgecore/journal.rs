//! A store of the vendor's: a file that is only ever appended to, for flash that wears out.
//!
//! Every commit is one line of JSON, synced before it counts; a line cut short by a power cut did not happen. The
//! whole state is in memory. `tests/journal.rs` runs the kit of all stores over it.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    sync::{Mutex, PoisonError},
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

#[derive(Debug)]
struct State {
    entries: BTreeMap<(String, String), (u64, Bytes)>,
    file: Option<File>,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Journal(Mutex<State>);

impl Journal {
    /// Opens the file and reads it through.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut state = State { entries: BTreeMap::new(), file: None };
        let (mut reader, mut good, mut line) = (BufReader::new(&file), 0, Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 {
            let Some(Ok(lines)) = line.strip_suffix(b"\n").map(serde_json::from_slice::<Vec<Line>>) else {
                break;
            };
            lines.into_iter().for_each(|line| state.apply(line));
            good += line.len() as u64;
            line.clear();
        }
        file.set_len(good)?;
        file.flush()?;
        state.file = Some(file);
        Ok(Self(Mutex::new(state)))
    }

    fn with<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.file.is_none() {
            return Err(Failure::new(StoreKind::Closed, doing));
        }
        work(&mut state)
    }
}

impl State {
    fn find(&self, key: &Key) -> Option<&(u64, Bytes)> {
        self.entries.get(&(key.bucket.0.to_owned(), key.name.clone()))
    }

    fn apply(&mut self, Line(bucket, name, value): Line) {
        let key = (bucket, name);
        match value {
            Some(value) => {
                let version = self.entries.get(&key).map_or(0, |(version, _)| *version) + 1;
                self.entries.insert(key, (version, value.into()));
            }
            None => drop(self.entries.remove(&key)),
        }
    }

    fn check(&self, change: &Change) -> Result<(), StoreError> {
        let fail = |kind| Err(Failure::new(kind, "committing a batch").on(change.key().to_string()));
        let version = self.find(change.key()).map(|(version, _)| *version);
        match (change, change.expect()) {
            (Change::Put { value, .. }, _) if value.len() > MAX_VALUE => fail(StoreKind::TooLarge),
            (_, Expect::Absent) if version.is_some() => fail(StoreKind::Conflict),
            (_, Expect::Version(wanted)) if version != Some(wanted) => fail(StoreKind::Conflict),
            _ => Ok(()),
        }
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| Failure::new(StoreKind::Io, "committing a batch").because(error);
        batch.0.iter().try_for_each(|change| self.check(change))?;
        let lines: Vec<_> = batch.0.into_iter().map(line).collect();
        let mut text = serde_json::to_vec(&lines).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        if let Some(file) = &mut self.file {
            let before = file.metadata().map_err(failed)?.len();
            if let Err(error) = file.write_all(&text).and_then(|()| file.sync_data()) {
                // Half a line must not stand before the next one.
                file.set_len(before).map_err(failed)?;
                return Err(failed(error));
            }
        }
        lines.into_iter().for_each(|line| self.apply(line));
        Ok(())
    }
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
        self.with("reading a value", |state| {
            let found = state.find(key).cloned();
            Ok(found.map(|(version, value)| Entry { key: key.clone(), value, version }))
        })
    }

    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        let found = self.with("scanning a table", |state| {
            let bucket = scan.bucket.0.to_owned();
            let from = state.entries.range((bucket.clone(), scan.prefix.clone())..);
            let found = from.take_while(|((b, name), _)| *b == bucket && name.starts_with(&scan.prefix));
            let entry = |((_, name), (version, value)): (&(String, String), &(u64, Bytes))| {
                Ok(Entry {
                    key: Key::new(scan.bucket, name.clone()),
                    value: value.clone(),
                    version: *version,
                })
            };
            Ok(found.map(entry).collect::<Vec<_>>())
        });
        stream::iter(found.unwrap_or_else(|error| vec![Err(error)])).boxed()
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.with("committing a batch", |state| state.commit(batch))
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).file = None;
        Ok(())
    }
}
