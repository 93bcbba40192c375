//! Where work is done that blocks its thread, such as reading and writing files: from outside, as the clock
//! is.

use tokio::task::JoinError;

/// Where blocking work is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blocking {
    /// On tokio's threads for such work.
    #[default]
    Threads,
    /// At once, in the thread of whoever asks: in a simulation, where other threads would make no two runs
    /// alike.
    Here,
}

impl Blocking {
    /// Does this work. Fails when it panics, or when the runtime ends first.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await,
            Self::Here => Ok(work()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn blocking_work_is_done_where_it_was_said() {
        let here = thread::current().id();
        let id = || thread::current().id();
        assert_eq!(Blocking::Here.run(id).await.unwrap(), here);
        assert_ne!(Blocking::Threads.run(id).await.unwrap(), here);
    }
}
