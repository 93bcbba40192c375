//! All there is. The lists of the interface lack times, exit codes and log files, which each container's status has.

use std::{collections::HashMap, path::PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use kubeedge_core::{
    message::Millis,
    runtime::{Container, ContainerState, RuntimeKind, RuntimeResult, Sandbox},
};
use parking_lot::Mutex;

use super::{
    by_id,
    client::{CONTAINER_STATUS, Client, LIST_CONTAINERS, LIST_SANDBOXES},
    convert, messages as cri,
};

/// How many statuses are asked for at a time.
const AT_ONCE: usize = 8;
/// How long after its end a container's status may still change: why it ended may be known later than that it did.
const SETTLING: i64 = 5000;

/// What is known of one container, true as long as the list shows it in the same state.
#[derive(Clone, Debug)]
struct Known {
    listed: i32,
    state: ContainerState,
    log_path: PathBuf,
}

/// What is known of the containers, so that a regular look asks only for what changed.
#[derive(Debug, Default)]
pub(crate) struct Statuses(Mutex<HashMap<String, Known>>);

impl Statuses {
    /// All sandboxes and containers.
    pub(crate) async fn list(&self, client: &Client) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)> {
        let sandboxes: cri::ListPodSandboxResponse = client.call(LIST_SANDBOXES, "", cri::Empty {}).await?;
        let listed: cri::ListContainersResponse = client.call(LIST_CONTAINERS, "", cri::Empty {}).await?;
        let containers = listed.containers.into_iter().map(|listed| async move {
            let known = self.known(client, &listed).await?;
            RuntimeResult::Ok(known.map(|known| (listed, known)))
        });
        let containers: Vec<_> = stream::iter(containers).buffered(AT_ONCE).try_collect().await?;
        let containers: Vec<(cri::Container, Known)> = containers.into_iter().flatten().collect();
        self.keep(&containers);
        let containers = containers
            .into_iter()
            .map(|(listed, known)| convert::container(listed, known.state, known.log_path))
            .collect();
        Ok((sandboxes.items.into_iter().map(convert::sandbox).collect(), containers))
    }

    /// What is known of a container now; `None` when it has just been removed.
    async fn known(&self, client: &Client, listed: &cri::Container) -> RuntimeResult<Option<Known>> {
        let before = self.0.lock().get(&listed.id).filter(|known| known.listed == listed.state).cloned();
        if before.is_some() {
            return Ok(before);
        }
        let answer = client.call(CONTAINER_STATUS, &listed.id, by_id(&listed.id)).await;
        let status: cri::ContainerStatusResponse = match answer {
            Err(error) if error.kind() == RuntimeKind::NotFound => return Ok(None),
            other => other?,
        };
        Ok(status.status.map(|status| Known {
            listed: status.state,
            state: convert::state(&status),
            log_path: PathBuf::from(status.log_path),
        }))
    }

    fn keep(&self, containers: &[(cri::Container, Known)]) {
        let now = Millis::now();
        let settled = containers.iter().filter(|(_, known)| settled(&known.state, now));
        *self.0.lock() = settled.map(|(listed, known)| (listed.id.clone(), known.clone())).collect();
    }
}

fn settled(state: &ContainerState, now: Millis) -> bool {
    match state {
        ContainerState::Exited { finished_at, .. } => now.0.saturating_sub(finished_at.0) > SETTLING,
        ContainerState::Created | ContainerState::Running { .. } => true,
        _ => false,
    }
}
