//! What the runtime holds, grouped by pod, and what is kept of a pod's containers beside it.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container as ContainerSpec, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kubeedge_common::fnv::fnv32;
use kubeedge_core::{
    message::Millis,
    runtime::{Container, ContainerState, Sandbox},
};
use serde::Serialize;

/// The label every sandbox and container of a pod carries, as the kubelet sets it.
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
/// The annotation with the hash of the container's specification.
pub(crate) const HASH: &str = "io.kubernetes.container.hash";

/// The sandboxes and containers of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodView {
    /// Sandboxes, oldest first.
    pub sandboxes: Vec<Sandbox>,
    /// Containers, oldest first.
    pub containers: Vec<Container>,
}

/// The views of all pods, by uid.
pub(crate) type Views = HashMap<String, PodView>;

/// Groups what the runtime lists by pod.
pub(crate) fn by_pod(sandboxes: Vec<Sandbox>, containers: Vec<Container>) -> Views {
    let mut views = Views::new();
    let owner: HashMap<_, _> = sandboxes.iter().map(|s| (s.id.clone(), s.uid.clone())).collect();
    for sandbox in sandboxes {
        views.entry(sandbox.uid.clone()).or_default().sandboxes.push(sandbox);
    }
    for container in containers {
        let uid = owner.get(&container.sandbox).or_else(|| container.labels.get(POD_UID));
        if let Some(uid) = uid.filter(|uid| !uid.is_empty()) {
            views.entry(uid.clone()).or_default().containers.push(container);
        }
    }
    for view in views.values_mut() {
        view.sandboxes.sort_by_key(|s| (s.attempt, s.created_at));
        view.containers.sort_by_key(|c| (c.attempt, c.created_at));
    }
    views
}

impl PodView {
    /// The sandbox that counts: the newest.
    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.last()
    }

    /// The newest container of a name, whichever sandbox it is in.
    pub(crate) fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().rev().find(|container| container.name == name)
    }

    /// The newest container of a name in the newest sandbox.
    pub(crate) fn current(&self, name: &str) -> Option<&Container> {
        let sandbox = &self.sandbox()?.id;
        self.containers.iter().rev().find(|c| c.name == name && c.sandbox == *sandbox)
    }

    /// The newest ended container of a name before this one.
    pub(crate) fn previous(&self, of: &Container) -> Option<&Container> {
        let before =
            |c: &&Container| c.name == of.name && c.attempt < of.attempt && c.state.exit_code().is_some();
        self.containers.iter().rev().find(before)
    }

    /// Whether any container runs.
    pub(crate) fn has_running(&self) -> bool {
        self.containers.iter().any(|container| container.state.is_running())
    }

    /// Whether nothing is left that runs or could.
    pub(crate) fn is_stopped(&self) -> bool {
        !self.has_running() && self.sandboxes.iter().all(|sandbox| !sandbox.ready)
    }
}

/// When and how a container ended.
pub(crate) fn exit(container: &Container) -> Option<(Millis, i32)> {
    match &container.state {
        ContainerState::Exited { finished_at, code, .. } => Some((*finished_at, *code)),
        _ => None,
    }
}

/// A restart policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Always,
    OnFailure,
    Never,
}

impl Policy {
    /// The policy of a pod.
    pub(crate) fn of(pod: &Pod) -> Self {
        match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended with this code runs again.
    pub(crate) fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// Whether an init container keeps running beside the others (a sidecar).
pub(crate) fn is_sidecar(container: &ContainerSpec) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The init containers of a pod.
pub(crate) fn init_containers(pod: &Pod) -> impl Iterator<Item = &ContainerSpec> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten())
}

/// The main containers of a pod.
pub(crate) fn main_containers(pod: &Pod) -> impl Iterator<Item = &ContainerSpec> {
    pod.spec.iter().flat_map(|spec| spec.containers.iter())
}

/// The kubelet's hash of what makes a container another container: FNV-1a over Go's print of the JSON of
/// image and name. Equal to Go's, so that an edgecore of either kind adopts the other's containers.
pub(crate) fn container_hash(spec: &ContainerSpec) -> String {
    #[derive(Serialize)]
    struct Identity<'a> {
        image: &'a str,
        name: &'a str,
    }
    let identity = Identity { image: spec.image.as_deref().unwrap_or_default(), name: &spec.name };
    let json = serde_json::to_string(&identity).unwrap_or_default();
    let json = json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let bytes: Vec<_> = json.bytes().map(|byte| byte.to_string()).collect();
    let text = format!("([]uint8)[{}]", bytes.join(" "));
    format!("{:x}", fnv32(text.as_bytes()))
}

/// A moment in Kubernetes' form, to the second.
pub(crate) fn time(at: Millis) -> Time {
    Time(Timestamp::from_second(at.0.div_euclid(1000)).unwrap_or_default())
}

/// What is left of a pause that began at `since`.
pub(crate) fn remaining(since: Millis, pause: Duration, now: Millis) -> Option<Duration> {
    let passed = u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0);
    pause.checked_sub(Duration::from_millis(passed)).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_hash_is_the_one_go_computes() {
        let spec =
            ContainerSpec { name: "web".into(), image: Some("busybox:1.36".into()), ..Default::default() };
        assert_eq!(container_hash(&spec), "d003b3ab");
    }
}
