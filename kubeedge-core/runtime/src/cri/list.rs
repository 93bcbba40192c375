//! All there is. The lists of the interface lack times, exit codes and log files, which each container's
//! status has.

use std::{collections::HashMap, net::IpAddr, path::PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use kubeedge_core::{
    message::Millis,
    runtime::{Container, ContainerState, RuntimeKind, RuntimeResult, Sandbox, SandboxId},
};
use parking_lot::Mutex;

use super::{
    client::{CONTAINER_STATUS, Client, LIST_CONTAINERS, LIST_SANDBOXES, SANDBOX_STATUS},
    convert, messages as cri, status_of,
};

/// How many statuses are asked for at a time.
const AT_ONCE: usize = 8;
/// How long after its end a container's status may still change: why it ended may be known later than that it
/// did.
const SETTLING: i64 = 5000;

/// What is known of one container, true as long as the list shows it in the same state.
#[derive(Clone, Debug)]
struct Known {
    listed: i32,
    state: ContainerState,
    log_path: PathBuf,
}

/// What is known already, so that a regular look asks only for what changed.
#[derive(Debug, Default)]
pub(crate) struct Statuses {
    containers: Mutex<HashMap<String, Known>>,
    addresses: Mutex<HashMap<SandboxId, Vec<IpAddr>>>,
}

impl Statuses {
    /// All sandboxes and containers.
    pub(crate) async fn list(&self, client: &Client) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)> {
        let sandboxes = client.call(LIST_SANDBOXES, "", cri::ListPodSandboxRequest {}).await?;
        let listed = client.call(LIST_CONTAINERS, "", cri::ListContainersRequest {}).await?;
        let sandboxes = sandboxes.items.into_iter().map(|listed| self.sandbox(client, listed));
        let sandboxes: Vec<_> = stream::iter(sandboxes).buffered(AT_ONCE).try_collect().await?;
        let sandboxes: Vec<_> = sandboxes.into_iter().flatten().collect();
        let containers = listed.containers.into_iter().map(|listed| async move {
            let known = self.known(client, &listed).await?;
            RuntimeResult::Ok(known.map(|known| (listed, known)))
        });
        let containers: Vec<_> = stream::iter(containers).buffered(AT_ONCE).try_collect().await?;
        let containers: Vec<(cri::Container, Known)> = containers.into_iter().flatten().collect();
        self.keep(&sandboxes, &containers);
        let containers = containers
            .into_iter()
            .map(|(listed, known)| convert::container(listed, known.state, known.log_path))
            .collect();
        Ok((sandboxes, containers))
    }

    /// A sandbox with its addresses, which stay the same as long as it is ready; `None` when it has just been
    /// removed.
    async fn sandbox(&self, client: &Client, listed: cri::PodSandbox) -> RuntimeResult<Option<Sandbox>> {
        let found = convert::sandbox(listed);
        if !found.ready {
            return Ok(Some(found));
        }
        let before = self.addresses.lock().get(&found.id).cloned();
        if let Some(addresses) = before {
            return Ok(Some(found.addresses(addresses)));
        }
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: found.id.0.clone() };
        match client.call(SANDBOX_STATUS, &found.id.0, request).await {
            Err(error) if error.kind() == RuntimeKind::NotFound => Ok(None),
            answer => Ok(Some(found.addresses(convert::addresses(answer?.status.unwrap_or_default())))),
        }
    }

    /// What is known of a container now; `None` when it has just been removed.
    async fn known(&self, client: &Client, listed: &cri::Container) -> RuntimeResult<Option<Known>> {
        let before =
            self.containers.lock().get(&listed.id).filter(|known| known.listed == listed.state).cloned();
        if before.is_some() {
            return Ok(before);
        }
        let status = match client.call(CONTAINER_STATUS, &listed.id, status_of(&listed.id)).await {
            Err(error) if error.kind() == RuntimeKind::NotFound => return Ok(None),
            answer => answer?,
        };
        Ok(status.status.map(|status| Known {
            listed: status.state,
            state: convert::state(&status),
            log_path: PathBuf::from(status.log_path),
        }))
    }

    fn keep(&self, sandboxes: &[Sandbox], containers: &[(cri::Container, Known)]) {
        let ready = sandboxes.iter().filter(|sandbox| sandbox.ready);
        *self.addresses.lock() = ready.map(|found| (found.id.clone(), found.addresses.clone())).collect();
        let now = Millis::now();
        let settled = containers.iter().filter(|(_, known)| settled(&known.state, now));
        *self.containers.lock() = settled.map(|(listed, known)| (listed.id.clone(), known.clone())).collect();
    }
}

fn settled(state: &ContainerState, now: Millis) -> bool {
    match state {
        ContainerState::Exited { finished_at, .. } => now.0.saturating_sub(finished_at.0) > SETTLING,
        ContainerState::Created | ContainerState::Running { .. } => true,
        _ => false,
    }
}
