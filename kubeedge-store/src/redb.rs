//! A store in a redb file: pure Rust, copy-on-write B-trees, `Durability::Immediate`, one writing and one
//! reading thread.
//!
//! redb locks the file itself: one process at a time. Its file keeps some free room, so it is larger than
//! SQLite's for the same content, and it writes whole pages; prefer SQLite on small flash.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use kubeedge_core::{
    failure::Failure,
    store::{Batch, Bucket, Change, Entry, Expect, Key, Scan, StoreError, StoreKind},
};
use parking_lot::RwLock;
use redb::{Database, DatabaseError, Durability, Error, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{
    actor::{self, Actors, ReadSide, WriteSide},
    check,
};

const OPENING: &str = "opening a redb store";
/// Bucket and name to version and value; ordered by the bytes of both, in this order.
const TABLE: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("entry");

/// How a [`RedbStore`] is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedbOptions {
    /// How much memory the page cache may take, in bytes. redb's own default is 1 GiB; ours is 4 MiB.
    pub cache_bytes: usize,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self { cache_bytes: 4 << 20 }
    }
}

/// A store in a redb file.
#[derive(Debug)]
pub struct RedbStore(Actors);

impl RedbStore {
    /// Opens a file, creating it and its directory when they are not there.
    ///
    /// [`StoreKind::Corrupt`]: the file is damaged, is no redb database or has a format this version does not
    /// read; it is left as it is. [`StoreKind::Io`]: the file cannot be opened, or another process has it.
    pub async fn open(path: impl Into<PathBuf>, options: RedbOptions) -> Result<Self, StoreError> {
        let path = path.into();
        Actors::start(move || open(&path, options)).await.map(Self)
    }
}

actor::store!(RedbStore);

type Opener = dyn Fn() -> Result<Database, DatabaseError> + Send + Sync;

/// The database, closed when both sides have dropped it.
///
/// After a failed write redb refuses all further work. So that a disk that was full for a while needs no
/// restart, the file is opened anew before the next call; redb's repair takes it back to the last commit.
#[derive(Clone)]
struct Side {
    database: Arc<RwLock<Option<Database>>>,
    opener: Arc<Opener>,
    path: Arc<Path>,
}

fn open(path: &Path, options: RedbOptions) -> Result<(Side, Side), StoreError> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|error| failed(path, OPENING, error.into()))?;
    }
    let place = path.to_owned();
    let opener = move || Database::builder().set_cache_size(options.cache_bytes).create(&place);
    let side = Side { database: Arc::default(), opener: Arc::new(opener), path: path.into() };
    // Readers of a new file must find the table.
    side.run(OPENING, |database| transaction(database, &[]).map(drop))?;
    Ok((side.clone(), side))
}

impl Side {
    /// Does something with the database, opening it where it is not open.
    fn run<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Database) -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        if self.database.read().is_none() {
            let mut database = self.database.write();
            if database.is_none() {
                *database = Some((self.opener)().map_err(|error| failed(&self.path, doing, error.into()))?);
            }
        }
        let outcome = match &*self.database.read() {
            Some(database) => work(database),
            None => Err(Error::PreviousIo),
        };
        outcome.map_err(|error| {
            if matches!(error, Error::Io(_) | Error::PreviousIo) {
                *self.database.write() = None;
            }
            failed(&self.path, doing, error)
        })
    }
}

fn transaction(database: &Database, group: &[&Batch]) -> Result<Vec<Result<(), StoreError>>, Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let outcomes = {
        let mut table = transaction.open_table(TABLE)?;
        group.iter().map(|batch| apply(&mut table, batch)).collect::<Result<_, _>>()?
    };
    transaction.commit()?;
    Ok(outcomes)
}

fn one(database: &Database, key: &Key) -> Result<Option<Entry>, Error> {
    let table = database.begin_read()?.open_table(TABLE)?;
    let found = table.get((key.bucket.0, key.name.as_str()))?;
    Ok(found.map(|row| entry(key.bucket, &key.name, row.value())))
}

fn range(database: &Database, scan: &Scan) -> Result<Vec<Entry>, Error> {
    let table = database.begin_read()?.open_table(TABLE)?;
    let mut found = Vec::new();
    for row in table.range((scan.bucket.0, scan.prefix.as_str())..)? {
        let (key, value) = row?;
        let (bucket, name) = key.value();
        if bucket != scan.bucket.0 || !name.starts_with(&scan.prefix) {
            break;
        }
        found.push(entry(scan.bucket, name, value.value()));
    }
    Ok(found)
}

fn entry(bucket: Bucket, name: &str, (version, value): (u64, &[u8])) -> Entry {
    Entry { key: Key::new(bucket, name), value: Bytes::copy_from_slice(value), version }
}

impl WriteSide for Side {
    fn write(&mut self, group: &[&Batch]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.run(check::COMMITTING, |database| transaction(database, group))
    }
}

impl ReadSide for Side {
    fn get(&mut self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.run(check::READING, |database| one(database, key))
    }
    fn scan(&mut self, scan: &Scan) -> Result<Vec<Entry>, StoreError> {
        self.run(check::SCANNING, |database| range(database, scan))
    }
}

type Table<'a> = redb::Table<'a, (&'static str, &'static str), (u64, &'static [u8])>;

/// Checks all conditions, then makes all changes; a conflict leaves the table as it was.
fn apply(table: &mut Table<'_>, batch: &Batch) -> Result<Result<(), StoreError>, Error> {
    for change in batch.0.iter().filter(|change| change.expect() != Expect::Any) {
        let found = version(table, change.key())?;
        if let Err(conflict) = check::holds(change, found) {
            return Ok(Err(conflict));
        }
    }
    for change in &batch.0 {
        let key = change.key();
        let place = (key.bucket.0, key.name.as_str());
        match change {
            Change::Put { value, .. } => {
                let version = version(table, key)?.unwrap_or(0) + 1;
                table.insert(place, (version, value.as_ref()))?;
            }
            Change::Delete { .. } => {
                table.remove(place)?;
            }
        }
    }
    Ok(Ok(()))
}

fn version(table: &Table<'_>, key: &Key) -> Result<Option<u64>, Error> {
    let found = table.get((key.bucket.0, key.name.as_str()))?;
    Ok(found.map(|row| row.value().0))
}

const RECOVERY: &str = "the file was left as it is. Restore it from a backup. Starting with an empty file makes the \
    node forget its pods until the cloud sends them again";

fn failed(path: &Path, doing: &'static str, error: Error) -> StoreError {
    let (kind, help) = match &error {
        Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
            (StoreKind::Full, Some("free space on the disk"))
        }
        Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            (StoreKind::Corrupt, Some(RECOVERY))
        }
        Error::Corrupted(_) | Error::RepairAborted | Error::UpgradeRequired(_) => {
            (StoreKind::Corrupt, Some(RECOVERY))
        }
        Error::ValueTooLarge(_) => (StoreKind::TooLarge, None),
        Error::DatabaseAlreadyOpen => {
            (StoreKind::Io, Some("another process has it open; stop that one first"))
        }
        _ => (StoreKind::Io, None),
    };
    let because = help.map_or_else(|| error.to_string(), |help| format!("{error}; {help}"));
    Failure::new(kind, doing).on(path.display().to_string()).because(because)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use kubeedge_core::store::MetaStore;
    use parking_lot::Mutex;
    use redb::StorageBackend;

    use super::*;

    /// A disk that outlives the database on it and can be full.
    #[derive(Clone, Debug, Default)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        full: Arc<AtomicBool>,
    }

    impl Disk {
        fn room(&self) -> io::Result<()> {
            let full = self.full.load(Ordering::Relaxed);
            if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().len() as u64)
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let offset = offset as usize;
            out.copy_from_slice(&self.bytes.lock()[offset..offset + out.len()]);
            Ok(())
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.room()?;
            self.bytes.lock().resize(len as usize, 0);
            Ok(())
        }
        fn sync_data(&self) -> io::Result<()> {
            self.room()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.room()?;
            let offset = offset as usize;
            self.bytes.lock()[offset..offset + data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_disk_that_was_full_for_a_while_needs_no_restart() {
        let disk = Disk::default();
        let under = disk.clone();
        let opener = move || Database::builder().create_with_backend(under.clone());
        let side =
            Side { database: Arc::default(), opener: Arc::new(opener), path: Path::new("disk").into() };
        let store = RedbStore(Actors::start(move || Ok((side.clone(), side))).await.unwrap());
        let key = |name: &str| Key::new(Bucket("t"), name);
        let put = |name: &str| Batch::new().put(key(name), "v");
        store.commit(put("kept")).await.unwrap();
        disk.full.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            assert_eq!(store.commit(put("lost")).await.unwrap_err().kind(), StoreKind::Full);
        }
        disk.full.store(false, Ordering::Relaxed);
        store.commit(put("new")).await.unwrap();
        assert!(store.get(&key("kept")).await.unwrap().is_some());
        assert!(store.get(&key("new")).await.unwrap().is_some());
        assert_eq!(store.get(&key("lost")).await.unwrap(), None);
    }
}
