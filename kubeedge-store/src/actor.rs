//! The threads between async callers and a blocking database: one that writes, with group commit, and one
//! that reads.
//!
//! The writer takes what waits in its queue, makes one transaction of it, and answers all callers after the
//! one fsync. When the transaction fails, each batch is tried alone, so that nobody fails for another's sake.

use std::{fmt, thread};

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use kubeedge_core::{
    failure::Failure,
    store::{Batch, Change, Entry, Key, Scan, StoreError, StoreKind},
};
use tokio::sync::{mpsc, oneshot};

use crate::check;

/// How many batches become one transaction at most; the queues in front of both threads are as deep.
const GROUP: usize = 256;
/// From how many bytes on a transaction takes no further batch.
const GROUP_BYTES: usize = 8 << 20;

/// The side of a database that writes. Owned by one thread.
pub(crate) trait WriteSide: Send + 'static {
    /// Applies batches in one durable transaction: the outcome of each (only [`StoreKind::Conflict`] fails a
    /// batch alone), or the error that undid them all.
    fn write(&mut self, group: &[&Batch]) -> Result<Vec<Result<(), StoreError>>, StoreError>;
}

/// The side of a database that reads. Owned by one thread.
pub(crate) trait ReadSide: Send + 'static {
    fn get(&mut self, key: &Key) -> Result<Option<Entry>, StoreError>;
    fn scan(&mut self, scan: &Scan) -> Result<Vec<Entry>, StoreError>;
}

/// Makes a [`MetaStore`](kubeedge_core::store::MetaStore) of a type whose only field is [`Actors`].
macro_rules! store {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl kubeedge_core::store::MetaStore for $store {
            async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
                self.0.get(key).await
            }
            fn scan(&self, scan: Scan) -> futures::stream::BoxStream<'static, Result<Entry, StoreError>> {
                self.0.scan(scan)
            }
            async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
                self.0.commit(batch).await
            }
            async fn close(&self) -> Result<(), StoreError> {
                self.0.close().await;
                Ok(())
            }
        }
    };
}
pub(crate) use store;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

enum Write {
    Commit(Batch, Answer<()>),
    Close,
}

enum Read {
    Get(Key, Answer<Option<Entry>>),
    Scan(Scan, Answer<Vec<Entry>>),
    Close,
}

/// Both threads; they end, and the database is let go of, on [`Actors::close`] or when this is dropped.
pub(crate) struct Actors {
    writer: mpsc::Sender<Write>,
    reader: mpsc::Sender<Read>,
}

impl fmt::Debug for Actors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.writer.max_capacity() - self.writer.capacity();
        f.debug_struct("Actors").field("waiting_commits", &waiting).finish()
    }
}

impl Actors {
    /// Opens a database on the thread that will write to it; `open` may block.
    pub(crate) async fn start<W: WriteSide, R: ReadSide>(
        open: impl FnOnce() -> Result<(W, R), StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        const DOING: &str = "starting a store's thread";
        let failed = |error| Failure::new(StoreKind::Io, DOING).because(error);
        let (writer, writes) = mpsc::channel(GROUP);
        let (reader, reads) = mpsc::channel(GROUP);
        let (opened, ready) = oneshot::channel();
        let run = move || {
            let (write, read) = match open() {
                Ok(sides) => sides,
                Err(error) => return drop(opened.send(Err(error))),
            };
            let reading =
                thread::Builder::new().name("store-read".to_owned()).spawn(|| read_all(read, reads));
            // Should the opener no longer wait, both queues are closed and the threads end at once.
            let _ = opened.send(reading.map(drop).map_err(failed));
            write_all(write, writes);
        };
        thread::Builder::new().name("store-write".to_owned()).spawn(run).map_err(failed)?;
        ready.await.unwrap_or_else(|_| Err(check::closed(DOING)))?;
        Ok(Self { writer, reader })
    }

    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let (answer, wait) = oneshot::channel();
        // When the thread is gone, so is the question, and with it the answer.
        let _ = self.reader.send(Read::Get(key.clone(), answer)).await;
        answered(wait, check::READING).await
    }

    pub(crate) fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        let reader = self.reader.clone();
        let all = async move {
            let (answer, wait) = oneshot::channel();
            let _ = reader.send(Read::Scan(scan, answer)).await;
            // While the stream is read it must not keep a closed store's thread alive.
            drop(reader);
            answered(wait, check::SCANNING).await
        };
        stream::once(all).map_ok(|entries| stream::iter(entries).map(Ok)).try_flatten().boxed()
    }

    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        check::sizes(&batch)?;
        let (answer, wait) = oneshot::channel();
        let _ = self.writer.send(Write::Commit(batch, answer)).await;
        answered(wait, check::COMMITTING).await
    }

    /// Ends both threads after the work that was queued before; returns when the database has been let go of.
    pub(crate) async fn close(&self) {
        // A thread that is gone already has closed its queue.
        let _ = self.reader.send(Read::Close).await;
        self.reader.closed().await;
        let _ = self.writer.send(Write::Close).await;
        self.writer.closed().await;
    }
}

async fn answered<T>(
    wait: oneshot::Receiver<Result<T, StoreError>>,
    doing: &'static str,
) -> Result<T, StoreError> {
    wait.await.unwrap_or_else(|_| Err(check::closed(doing)))
}

fn read_all(mut side: impl ReadSide, mut reads: mpsc::Receiver<Read>) {
    while let Some(read) = reads.blocking_recv() {
        // Who no longer waits has no use for the answer.
        match read {
            Read::Get(key, answer) => drop(answer.send(side.get(&key))),
            Read::Scan(scan, answer) => drop(answer.send(side.scan(&scan))),
            Read::Close => break,
        }
    }
    drop(side);
}

fn write_all(mut side: impl WriteSide, mut writes: mpsc::Receiver<Write>) {
    let mut group = Vec::new();
    while let Some(first) = writes.blocking_recv() {
        let closing = gather(first, &mut writes, &mut group);
        settle(&mut side, &mut group);
        if closing {
            break;
        }
    }
    // In this order: a queue seen closed means a database let go of.
    drop(side);
    drop(writes);
}

/// Takes what waits, up to the limits of a group; says whether the store is to close after it.
fn gather(first: Write, writes: &mut mpsc::Receiver<Write>, group: &mut Vec<(Batch, Answer<()>)>) -> bool {
    let (mut next, mut bytes) = (Some(first), 0);
    while let Some(write) = next {
        let Write::Commit(batch, answer) = write else { return true };
        bytes += batch.0.iter().map(weight).sum::<usize>();
        group.push((batch, answer));
        let room = group.len() < GROUP && bytes < GROUP_BYTES;
        next = if room { writes.try_recv().ok() } else { None };
    }
    false
}

fn weight(change: &Change) -> usize {
    match change {
        Change::Put { value, .. } => value.len(),
        Change::Delete { .. } => 0,
    }
}

/// Writes a group and answers everybody in it.
fn settle(side: &mut impl WriteSide, group: &mut Vec<(Batch, Answer<()>)>) {
    if group.is_empty() {
        return;
    }
    let batches: Vec<_> = group.iter().map(|(batch, _)| batch).collect();
    match side.write(&batches) {
        Ok(outcomes) => {
            for ((_, answer), outcome) in group.drain(..).zip(outcomes) {
                let _ = answer.send(outcome);
            }
        }
        Err(error) => {
            tracing::error!(error = ?error, batches = group.len(), "commit failed");
            let mut shared = (group.len() == 1).then_some(error);
            for (batch, answer) in group.drain(..) {
                let outcome = shared.take().map_or_else(|| alone(side, &batch), Err);
                let _ = answer.send(outcome);
            }
        }
    }
}

fn alone(side: &mut impl WriteSide, batch: &Batch) -> Result<(), StoreError> {
    let outcome = side.write(&[batch])?.pop();
    outcome.unwrap_or_else(|| Err(check::closed(check::COMMITTING)))
}
