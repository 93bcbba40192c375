//! Looks at the runtime regularly and tells workers when something changed.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kubeedge_core::{
    failure::chain,
    kernel::Shutdown,
    runtime::{ContainerRuntime, RuntimeError},
};
use tokio::sync::{Mutex, watch};

use super::view::{PodView, Views, by_pod};

/// How often to look when nothing hints at a change; the kubelet's relist period.
const PERIOD: Duration = Duration::from_secs(1);

/// The newest view of what the runtime holds.
#[derive(Debug)]
pub(crate) struct Observer {
    runtime: Arc<dyn ContainerRuntime>,
    views: watch::Sender<Arc<Views>>,
    looking: Mutex<()>,
}

impl Observer {
    pub(crate) fn new(runtime: Arc<dyn ContainerRuntime>) -> Self {
        Self { runtime, views: watch::Sender::default(), looking: Mutex::default() }
    }

    /// Told at every change of any pod.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Views>> {
        self.views.subscribe()
    }

    /// All pods as seen last.
    pub(crate) fn views(&self) -> Arc<Views> {
        self.views.borrow().clone()
    }

    /// One pod as seen last.
    pub(crate) fn view(&self, uid: &str) -> PodView {
        self.views.borrow().get(uid).cloned().unwrap_or_default()
    }

    /// Looks now; what was done before the call is in the view after it.
    pub(crate) async fn refresh(&self) -> Result<(), RuntimeError> {
        let _one_at_a_time = self.looking.lock().await;
        let (sandboxes, containers) = self.runtime.list_all().await?;
        let new = by_pod(sandboxes, containers);
        self.views.send_if_modified(|old| {
            let changed = **old != new;
            if changed {
                *old = Arc::new(new);
            }
            changed
        });
        Ok(())
    }

    /// Looks every second, and at once when the runtime hints at a change.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        let mut hints = self.runtime.events();
        let mut healthy = true;
        loop {
            let hint = async {
                match hints.as_mut() {
                    Some(stream) => stream.next().await.is_some(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(PERIOD) => {}
                more = hint => if !more { hints = None },
            }
            match self.refresh().await {
                Ok(()) if !healthy => {
                    healthy = true;
                    tracing::info!("container runtime answers again");
                }
                Err(error) if healthy => {
                    healthy = false;
                    tracing::error!(error = %chain(&error), "container runtime does not answer");
                }
                _ => {}
            }
        }
    }
}
