//! Whether something blocks the executor that it runs on.

// A kit's cases fail by panicking, as tests do.
#![allow(clippy::expect_used, clippy::panic)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Handle, RuntimeFlavor};

/// How long nothing may keep the executor from its other tasks.
const LIMIT: Duration = Duration::from_millis(50);
/// How often the executor and a thread beside it look at the time.
const TICK: Duration = Duration::from_millis(5);
/// How often the work is tried: a machine that is busy with something else is late for every one of its
/// threads, but hardly ever this often for one thread alone.
const TRIES: u32 = 5;

/// The longest time somebody was late, in nanoseconds.
#[derive(Debug, Default)]
struct Worst(AtomicU64);

impl Worst {
    fn note(&self, since: Instant) {
        let late = since.elapsed().saturating_sub(TICK);
        self.0.fetch_max(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// Does the work, some times over, on an executor of one thread and fails when each time it kept a task
/// beside it waiting for more than 50 ms. A plain thread that ticks as well tells how late the machine itself
/// was.
///
/// # Panics
/// When the executor was blocked, and when the executor has more than one thread.
pub async fn is_not_blocked<F: Future<Output = ()>>(mut work: impl FnMut() -> F) {
    let flavor = Handle::current().runtime_flavor();
    assert_eq!(flavor, RuntimeFlavor::CurrentThread, "needs #[tokio::test(flavor = \"current_thread\")]");
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let (executor, machine) = lateness(work()).await;
        if executor <= LIMIT + machine {
            return;
        }
        seen.push((executor, machine));
    }
    panic!("the executor was blocked; how late it was each time, and how late a thread beside it: {seen:?}");
}

/// How late this executor was while it did the work, and how late a thread beside it.
async fn lateness(work: impl Future<Output = ()>) -> (Duration, Duration) {
    let (executor, machine, over) =
        (Arc::<Worst>::default(), Arc::<Worst>::default(), Arc::<AtomicBool>::default());
    let plain = {
        let (machine, over) = (machine.clone(), over.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let before = Instant::now();
                thread::sleep(TICK);
                machine.note(before);
            }
        })
    };
    let ticking = {
        let executor = executor.clone();
        tokio::spawn(async move {
            loop {
                let before = Instant::now();
                tokio::time::sleep(TICK).await;
                executor.note(before);
            }
        })
    };
    // The task beside begins to wait before the work begins.
    tokio::task::yield_now().await;
    work.await;
    // And is woken once more after it.
    tokio::time::sleep(3 * TICK).await;
    ticking.abort();
    over.store(true, Ordering::Relaxed);
    plain.join().expect("a thread that ticks does not panic");
    (executor.get(), machine.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_waits_does_not_block() {
        is_not_blocked(|| tokio::time::sleep(Duration::from_millis(200))).await;
    }

    #[tokio::test]
    #[should_panic(expected = "the executor was blocked")]
    async fn work_that_sleeps_in_its_thread_blocks() {
        is_not_blocked(|| async { thread::sleep(Duration::from_millis(400)) }).await;
    }
}
