//! A store in an SQLite file: WAL, `synchronous=FULL`, one writing and one reading thread.
//!
//! One file belongs to one process at a time: a lock on `<file>.lock` keeps a second one out, whatever it
//! would do. Go's edgecore keeps its tables in the same kind of file with a rollback journal and
//! `synchronous=FULL`; ours is one table `entry(bucket, name, version, value)` and can be looked into with
//! `sqlite3` while edgecore runs. A file Go's edgecore left behind can be taken over
//! ([`SqliteOptions::adopt`]); its tables stay in the file as they were.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kubeedge_core::{
    failure::{BoxError, Failure},
    store::{Batch, Bucket, Change, Entry, Key, Scan, StoreError, StoreKind},
};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, params};

use crate::{
    actor::{self, Actors, ReadSide, WriteSide},
    check,
};

/// The layout of the file this code reads and writes, kept in `user_version`.
const LAYOUT: i64 = 1;
/// The page cache of each connection, in SQLite's notation: 512 KiB. Edges are small and the system caches
/// the file too.
const CACHE: i64 = -512;
const OPENING: &str = "opening an SQLite store";
const TABLE: &str = "CREATE TABLE IF NOT EXISTS entry(
    bucket TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY(bucket, name)) STRICT";
const ADOPT: &str = "INSERT OR IGNORE INTO entry(bucket, name, version, value)
    SELECT ?1, key, 1, CAST(value AS BLOB) FROM meta
    WHERE key IS NOT NULL AND value IS NOT NULL AND coalesce(type, '') <> 'serviceaccounttoken'";
const VERSION_OF: &str = "SELECT version FROM entry WHERE bucket = ?1 AND name = ?2";
const PUT: &str = "INSERT INTO entry(bucket, name, version, value) VALUES(?1, ?2, 1, ?3)
    ON CONFLICT(bucket, name) DO UPDATE SET version = version + 1, value = excluded.value";
const DELETE: &str = "DELETE FROM entry WHERE bucket = ?1 AND name = ?2";
const GET: &str = "SELECT name, version, value FROM entry WHERE bucket = ?1 AND name = ?2";
const SCAN: &str = "SELECT name, version, value FROM entry WHERE bucket = ?1 AND name >= ?2 ORDER BY name";

/// How an [`SqliteStore`] is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The largest the file may grow, in bytes, rounded to pages of 4 KiB; beyond it commits fail with
    /// [`StoreKind::Full`]. `None`: as large as the disk lets it.
    pub max_bytes: Option<u64>,
    /// How long to wait for another process to let go of the file. Default: 5 s.
    pub lock_wait: Duration,
    /// Into which bucket to copy the rows of Go's table `meta` (key to value: pods, ConfigMaps, devices, …)
    /// when the file is opened by this code for the first time, so that an upgraded node knows its pods
    /// before it reaches the cloud. Service account tokens are left out: they are asked for anew. Default:
    /// none.
    pub adopt: Option<Bucket>,
    /// Whether to read the whole file once when opening, so that damage is found before it is acted on. Takes
    /// about a millisecond per MiB. Default: yes.
    pub check: bool,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { max_bytes: None, lock_wait: Duration::from_secs(5), adopt: None, check: true }
    }
}

/// A store in an SQLite file.
#[derive(Debug)]
pub struct SqliteStore(Actors);

impl SqliteStore {
    /// Opens a file, creating it and its directory when they are not there.
    ///
    /// [`StoreKind::Corrupt`]: the file is damaged, is no SQLite database or was written by a later version;
    /// it is left untouched. [`StoreKind::Io`]: the file cannot be opened, or another process has it.
    pub async fn open(path: impl Into<PathBuf>, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = path.into();
        Actors::start(move || open(&path, options)).await.map(Self)
    }
}

actor::store!(SqliteStore);

/// The file, and the lock that says it is ours until both connections are closed.
#[derive(Clone)]
struct Place {
    path: Arc<Path>,
    _lock: Arc<File>,
}

impl Place {
    fn failed(&self, doing: &'static str, error: rusqlite::Error) -> StoreError {
        failed(&self.path, doing, error)
    }
}

// A connection is declared before its place, so that it is closed before the lock is released.
struct Writer {
    connection: Connection,
    place: Place,
}

struct Reader {
    connection: Connection,
    place: Place,
}

fn open(path: &Path, options: SqliteOptions) -> Result<(Writer, Reader), StoreError> {
    let io = |error: std::io::Error| {
        Failure::new(StoreKind::Io, OPENING).on(path.display().to_string()).because(error)
    };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(io)?;
    }
    let place = Place { path: path.into(), _lock: Arc::new(lock(path, options.lock_wait)?) };
    let connection = Connection::open(path).map_err(|error| place.failed(OPENING, error))?;
    let writer = Writer { connection, place: place.clone() };
    writer.prepare(options)?;
    // The file itself must survive a power cut, not only what is in it.
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| place.failed(OPENING, error))?;
    connection.pragma_update(None, "cache_size", CACHE).map_err(|error| place.failed(OPENING, error))?;
    Ok((writer, Reader { connection, place }))
}

/// Takes the lock that keeps other processes out, waiting a while for one that is about to end.
fn lock(path: &Path, wait: Duration) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed =
        |error: BoxError| Failure::new(StoreKind::Io, OPENING).on(path.display().to_string()).because(error);
    let file = File::options().create(true).append(true).open(&name).map_err(|error| failed(error.into()))?;
    let until = Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error.into())),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(failed("another process has it open; stop that one first".into()));
            }
        }
    }
}

impl Writer {
    fn prepare(&self, options: SqliteOptions) -> Result<(), StoreError> {
        let database = &self.connection;
        let layout = (|| {
            database.busy_timeout(options.lock_wait)?;
            database.pragma_update(None, "journal_mode", "WAL")?;
            database.pragma_update(None, "synchronous", "FULL")?;
            database.pragma_update(None, "journal_size_limit", 4 << 20)?;
            database.pragma_update(None, "cache_size", CACHE)?;
            if let Some(bytes) = options.max_bytes {
                let size: i64 = database.pragma_query_value(None, "page_size", |row| row.get(0))?;
                let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / size.max(1);
                database.pragma_update(None, "max_page_count", pages.max(1))?;
            }
            database.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        })();
        let layout = layout.map_err(|error| self.place.failed(OPENING, error))?;
        if layout > LAYOUT {
            let why = format!("its layout is {layout}, this version knows {LAYOUT}: upgrade edgecore");
            return Err(self.corrupt(why));
        }
        if options.check {
            self.check()?;
        }
        let laid = if layout == 0 { self.lay_out(options.adopt) } else { Ok(()) };
        laid.and_then(|()| database.prepare(GET).map(drop)).map_err(|error| self.place.failed(OPENING, error))
    }

    /// Makes the table and takes over what Go left, together or not at all.
    fn lay_out(&self, adopt: Option<Bucket>) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute_batch(TABLE)?;
        if let Some(bucket) = adopt.filter(|_| transaction.table_exists(None, "meta").unwrap_or(false)) {
            let rows = transaction.execute(ADOPT, params![bucket.0])?;
            tracing::info!(rows, file = %self.place.path.display(), "took over the rows of a Go edgecore");
        }
        transaction.pragma_update(None, "user_version", LAYOUT)?;
        transaction.commit()
    }

    fn check(&self) -> Result<(), StoreError> {
        let checked = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match checked.map_err(|error| self.place.failed(OPENING, error))? {
            fine if fine == "ok" => Ok(()),
            // A line each for where and what.
            damage => Err(self.corrupt(format!("{}; {RECOVERY}", damage.replace('\n', " ")))),
        }
    }

    fn corrupt(&self, why: String) -> StoreError {
        Failure::new(StoreKind::Corrupt, OPENING).on(self.place.path.display().to_string()).because(why)
    }

    fn transaction(&mut self, group: &[&Batch]) -> rusqlite::Result<Vec<Result<(), StoreError>>> {
        let transaction = self.connection.transaction()?;
        let outcomes = group.iter().map(|batch| apply(&transaction, batch)).collect::<Result<_, _>>()?;
        transaction.commit()?;
        Ok(outcomes)
    }
}

impl WriteSide for Writer {
    fn write(&mut self, group: &[&Batch]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.transaction(group).map_err(|error| self.place.failed(check::COMMITTING, error))
    }
}

/// Checks all conditions, then makes all changes; a conflict leaves the transaction as it was.
fn apply(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<Result<(), StoreError>> {
    let mut version_of = transaction.prepare_cached(VERSION_OF)?;
    for change in &batch.0 {
        if change.expect() == Default::default() {
            continue;
        }
        let key = change.key();
        let found = version_of.query_row(params![key.bucket.0, key.name], version).optional()?;
        if let Err(conflict) = check::holds(change, found) {
            return Ok(Err(conflict));
        }
    }
    for change in &batch.0 {
        match change {
            Change::Put { key, value, .. } => {
                transaction.prepare_cached(PUT)?.execute(params![key.bucket.0, key.name, value.as_ref()])?
            }
            Change::Delete { key, .. } => {
                transaction.prepare_cached(DELETE)?.execute(params![key.bucket.0, key.name])?
            }
        };
    }
    Ok(Ok(()))
}

fn version(row: &Row<'_>) -> rusqlite::Result<u64> {
    row.get::<_, i64>(0).map(i64::cast_unsigned)
}

fn entry(bucket: Bucket, row: &Row<'_>) -> rusqlite::Result<Entry> {
    let name: String = row.get(0)?;
    let value = Bytes::copy_from_slice(row.get_ref(2)?.as_blob()?);
    Ok(Entry { key: Key::new(bucket, name), value, version: row.get::<_, i64>(1)?.cast_unsigned() })
}

impl Reader {
    fn range(&self, scan: &Scan) -> rusqlite::Result<Vec<Entry>> {
        let mut found = Vec::new();
        let mut statement = self.connection.prepare_cached(SCAN)?;
        let mut rows = statement.query(params![scan.bucket.0, scan.prefix])?;
        while let Some(row) = rows.next()? {
            if !row.get_ref(0)?.as_str()?.starts_with(&scan.prefix) {
                break;
            }
            found.push(entry(scan.bucket, row)?);
        }
        Ok(found)
    }
}

impl ReadSide for Reader {
    fn get(&mut self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let read = || {
            let mut statement = self.connection.prepare_cached(GET)?;
            statement.query_row(params![key.bucket.0, key.name], |row| entry(key.bucket, row)).optional()
        };
        read().map_err(|error| self.place.failed(check::READING, error))
    }

    fn scan(&mut self, scan: &Scan) -> Result<Vec<Entry>, StoreError> {
        self.range(scan).map_err(|error| self.place.failed(check::SCANNING, error))
    }
}

const RECOVERY: &str = "the file was left as it is. Restore it from a backup, or save what is readable with \
    `sqlite3 FILE .recover`. An empty file in its place loses what this one held: a node's pods come again from the cloud, a cluster's objects do not";

fn failed(path: &Path, doing: &'static str, error: rusqlite::Error) -> StoreError {
    let (kind, help) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            (StoreKind::Full, Some("free space on the disk, or allow a larger file"))
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (StoreKind::Corrupt, Some(RECOVERY)),
        Some(ErrorCode::TooBig) => (StoreKind::TooLarge, None),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (StoreKind::Io, Some("another process has it open; stop that one first"))
        }
        Some(_) => (StoreKind::Io, None),
        // A column of the wrong type: somebody else wrote to the table.
        None => (StoreKind::Corrupt, Some(RECOVERY)),
    };
    let because = help.map_or_else(|| error.to_string(), |help| format!("{error}; {help}"));
    Failure::new(kind, doing).on(path.display().to_string()).because(because)
}
