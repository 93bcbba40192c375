//! Whether something blocks the executor: a thread of a runtime must come back to its other tasks soon.

// A kit's cases fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs, panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// The longest time a task may keep the thread.
pub const LONGEST: Duration = Duration::from_millis(50);
/// How often the work is tried; a machine that is busy with other things spoils some.
const TRIES: u32 = 5;
/// How often the scheduler is asked how long the thread was ready and did not run.
const LOOK: Duration = Duration::from_millis(2);

/// Does the work on a runtime of one thread, beside a task that only looks at the clock. Panics when that task had to wait for
/// more than [`LONGEST`], each of several times. What the thread had to wait for a processor does not count, where the
/// operating system tells.
///
/// # Panics
/// When the work blocks the thread, or panics itself.
pub async fn is_not_blocked<F: Future<Output = ()>>(work: impl Fn() -> F + Clone + Send + 'static) {
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        let work = work.clone();
        let tried = tokio::task::spawn_blocking(move || longest_pause(work)).await;
        match tried {
            Ok(pause) => shortest = shortest.min(pause),
            Err(error) => panic::resume_unwind(error.into_panic()),
        }
        if shortest <= LONGEST {
            return;
        }
    }
    assert!(
        shortest <= LONGEST,
        "the thread of the runtime was blocked for {shortest:?}, each of {TRIES} times"
    );
}

/// The longest time for which the thread did not come back to a task that is always ready.
fn longest_pause<F: Future<Output = ()>>(work: impl Fn() -> F) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let done = Arc::new(AtomicBool::new(false));
        let is_done = done.clone();
        let watch = tokio::spawn(async move {
            let mut pauses = Pauses::new();
            while !is_done.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
                pauses.end_one();
            }
            pauses.longest
        });
        work().await;
        done.store(true, Ordering::Relaxed);
        watch.await.unwrap()
    })
}

/// The times between the turns of a task.
#[derive(Debug)]
struct Pauses {
    longest: Duration,
    last: Instant,
    /// When the scheduler was asked last, and what it said.
    asked: Instant,
    waited: Duration,
}

impl Pauses {
    fn new() -> Self {
        let now = Instant::now();
        Self { longest: Duration::ZERO, last: now, asked: now, waited: waited_for_a_processor() }
    }

    /// It is the task's turn again.
    fn end_one(&mut self) {
        let now = Instant::now();
        let mut pause = now - self.last;
        if now - self.asked >= LOOK {
            let waited = waited_for_a_processor();
            pause = pause.saturating_sub(waited.saturating_sub(self.waited));
            (self.asked, self.waited) = (now, waited);
        }
        self.longest = self.longest.max(pause);
        self.last = now;
    }
}

/// For how long this thread was ready and did not run, since it began; zero where the operating system does not tell.
fn waited_for_a_processor() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = told.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_waits_blocks_nobody() {
        is_not_blocked(|| tokio::time::sleep(Duration::from_millis(200))).await;
    }

    #[tokio::test]
    #[should_panic(expected = "the thread of the runtime was blocked")]
    async fn a_sleeping_thread_is_found_out() {
        is_not_blocked(|| async { std::thread::sleep(2 * LONGEST) }).await;
    }

    #[tokio::test]
    #[should_panic(expected = "the thread of the runtime was blocked")]
    async fn a_task_behind_the_work_is_found_out() {
        is_not_blocked(|| async {
            let busy = async {
                let begun = Instant::now();
                while begun.elapsed() < 4 * LONGEST {}
            };
            tokio::spawn(busy).await.unwrap();
        })
        .await;
    }
}
