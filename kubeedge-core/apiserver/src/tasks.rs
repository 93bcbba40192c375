//! Tasks that outlive the call which started them, and end with their owner.

use std::{future::Future, sync::Arc};

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// Tasks of one owner. They are aborted when its last clone is dropped: a task must not hold one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    /// Starts a task.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        // Those that have ended are not kept.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends all, and waits until they are gone.
    pub(crate) async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock());
        tasks.shutdown().await;
    }
}
