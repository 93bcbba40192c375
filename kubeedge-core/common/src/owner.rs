//! A thread that owns something whose use blocks, such as records on a disk, and does what async callers ask.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use tokio::sync::{mpsc, oneshot};

/// How much work waits for the thread; whoever asks for more waits too.
const WAITING: usize = 256;

type Work<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A handle to the thread. It does one piece of work after the other, in the order in which they were asked
/// for, and ends when the last handle is dropped. A clone is another handle.
pub struct Owner<S> {
    work: mpsc::Sender<Work<S>>,
}

impl<S> Clone for Owner<S> {
    fn clone(&self) -> Self {
        Self { work: self.work.clone() }
    }
}

impl<S> fmt::Debug for Owner<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.work.max_capacity() - self.work.capacity();
        f.debug_struct("Owner").field("waiting", &waiting).finish()
    }
}

/// The thread cannot own what it shall.
#[derive(Debug, thiserror::Error)]
pub enum StartError<E> {
    /// There is no thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// What was to be opened is not.
    #[error(transparent)]
    Open(E),
}

/// The work was not done, or not to its end: it panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work was given up half-way")]
pub struct GivenUp;

impl<S: 'static> Owner<S> {
    /// Starts a thread of this name and has it open what it will own; `open` may block.
    ///
    /// # Errors
    /// What `open` says, or that there is no thread.
    pub async fn start<E: Send + 'static>(
        name: &str,
        open: impl FnOnce() -> Result<S, E> + Send + 'static,
    ) -> Result<Self, StartError<E>> {
        let (work, mut waiting) = mpsc::channel::<Work<S>>(WAITING);
        let (opened, ready) = oneshot::channel();
        let run = move || {
            let mut owned = match open() {
                Ok(owned) => owned,
                Err(error) => return drop(opened.send(Err(error))),
            };
            // Should the opener no longer wait, the queue is closed and the thread ends at once.
            let _ = opened.send(Ok(()));
            while let Some(next) = waiting.blocking_recv() {
                // Work that panics has dropped the way of its answer, by which its caller learns of it.
                let _ = catch_unwind(AssertUnwindSafe(|| next(&mut owned)));
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)?;
        match ready.await {
            Ok(outcome) => outcome.map_err(StartError::Open)?,
            Err(_) => return Err(StartError::Thread(io::Error::other("it ended while it opened"))),
        }
        Ok(Self { work })
    }

    /// Has the thread do this work and returns its outcome. Dropped while it waits, the work is done
    /// nevertheless or never begun.
    ///
    /// # Errors
    /// [`GivenUp`] when the work panicked. What is owned is as the work left it, and further work is done.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, GivenUp> {
        let (answer, wait) = oneshot::channel();
        let work = move |owned: &mut S| {
            // Whoever no longer waits has no use for the answer.
            let _ = answer.send(work(owned));
        };
        self.work.send(Box::new(work)).await.map_err(|_| GivenUp)?;
        wait.await.map_err(|_| GivenUp)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn work_is_done_in_order_in_a_thread_of_its_own() {
        let owner = Owner::start("owner", || Ok::<_, io::Error>(Vec::new())).await.unwrap();
        let push = |number| owner.run(move |all: &mut Vec<u32>| all.push(number));
        let (first, second) = tokio::join!(push(1), push(2));
        assert_eq!((first, second), (Ok(()), Ok(())));
        let seen = owner.run(|all| (all.clone(), thread::current().name().map(str::to_owned))).await;
        assert_eq!(seen, Ok((vec![1, 2], Some("owner".to_owned()))));
    }

    #[tokio::test]
    async fn work_that_panics_fails_alone() {
        let owner = Owner::start("owner", || Ok::<_, io::Error>(7)).await.unwrap();
        assert_eq!(owner.run(|_| panic!("on purpose")).await, Err::<(), _>(GivenUp));
        assert_eq!(owner.run(|owned| *owned).await, Ok(7));
    }

    #[tokio::test]
    async fn what_cannot_be_opened_is_told() {
        let failed = Owner::<()>::start("owner", || Err("no")).await;
        assert!(matches!(failed, Err(StartError::Open("no"))));
    }

    #[tokio::test]
    async fn the_thread_ends_with_its_last_handle() {
        struct Owned(mpsc::Sender<()>);
        impl Drop for Owned {
            fn drop(&mut self) {
                self.0.send(()).unwrap();
            }
        }
        let (ended, end) = mpsc::channel();
        let owner = Owner::start("owner", || Ok::<_, io::Error>(Owned(ended))).await.unwrap();
        let other = owner.clone();
        drop(owner);
        other.run(|_| ()).await.unwrap();
        end.try_recv().unwrap_err();
        drop(other);
        end.recv_timeout(Duration::from_secs(30)).unwrap();
    }
}
