//! What a runtime tells of itself and of what it holds.

use std::{net::IpAddr, path::PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ContainerId, ContainerSpec, ImageRef, Labels, RuntimeResult, SandboxId, SandboxSpec};
use crate::message::Millis;

/// A sandbox there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// Whose it is.
    pub name: String,
    /// Whose it is.
    pub namespace: String,
    /// Whose it is.
    pub uid: String,
    /// Which of this pod's.
    pub attempt: u32,
    /// Whether containers can run in it.
    pub ready: bool,
    /// Its addresses, while it is ready; empty with the host's network.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// When it was made.
    pub created_at: Millis,
    /// Selectors.
    pub labels: Labels,
    /// What was noted.
    pub annotations: Labels,
}

/// Where a container is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ContainerState {
    /// Made, not started.
    #[default]
    Created,
    /// Running.
    Running {
        /// Since when.
        started_at: Millis,
    },
    /// Ended.
    Exited {
        /// When it started.
        started_at: Millis,
        /// When it ended.
        finished_at: Millis,
        /// The exit code; 128 + n for a signal n.
        code: i32,
        /// A word: `Completed`, `Error`, `OOMKilled`.
        reason: String,
        /// A sentence, where there is one.
        message: String,
    },
    /// The runtime does not know.
    Unknown,
}

impl ContainerState {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
    /// The exit code, once it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        if let Self::Exited { code, .. } = self { Some(*code) } else { None }
    }
}

/// A container there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// The sandbox it is in.
    pub sandbox: SandboxId,
    /// Its name in the pod.
    pub name: String,
    /// Which restart of this container.
    pub attempt: u32,
    /// The image as it was asked for.
    pub image: ImageRef,
    /// The image as it was found: an id or digest.
    pub image_id: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Millis,
    /// The log file.
    pub log_path: PathBuf,
    /// Selectors.
    pub labels: Labels,
    /// Notes.
    pub annotations: Labels,
}

/// A hint that something changed; the truth is in the lists.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The container that changed.
    pub container: ContainerId,
}

/// What a runtime is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Info {
    /// Its name: `containerd`, `process`. Also the scheme of container ids in pod status.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it can run containers now.
    pub ready: bool,
    /// Whether pods with a network of their own can run now.
    pub network_ready: bool,
    /// Why not, where one of the two is false.
    pub message: String,
}

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// CPU time since its start, in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory that cannot be reclaimed, in bytes.
    pub memory_working_set: u64,
}

/// Usage of containers.
#[async_trait]
pub trait Stats: Send + Sync {
    /// What a container uses.
    async fn usage(&self, id: &ContainerId) -> RuntimeResult<Usage>;
}

impl Sandbox {
    /// A ready sandbox of this specification, without addresses.
    pub fn new(id: SandboxId, spec: &SandboxSpec, created_at: Millis) -> Self {
        Self {
            id,
            name: spec.name.clone(),
            namespace: spec.namespace.clone(),
            uid: spec.uid.clone(),
            attempt: spec.attempt,
            ready: true,
            addresses: Vec::new(),
            created_at,
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
        }
    }
}

setters! { Sandbox {
    id: into SandboxId,
    name: into String,
    namespace: into String,
    uid: into String,
    attempt: is u32,
    ready: is bool,
    addresses: is Vec<IpAddr>,
    created_at: is Millis,
    labels: is Labels,
    annotations: is Labels,
} }

impl Container {
    /// A container of this specification that was made and not started.
    pub fn new(id: ContainerId, sandbox: SandboxId, spec: &ContainerSpec, created_at: Millis) -> Self {
        Self {
            id,
            sandbox,
            name: spec.name.clone(),
            attempt: spec.attempt,
            image: spec.image.clone(),
            image_id: String::new(),
            state: ContainerState::Created,
            created_at,
            log_path: PathBuf::new(),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
        }
    }
}

setters! { Container {
    id: into ContainerId,
    sandbox: into SandboxId,
    name: into String,
    attempt: is u32,
    image: into ImageRef,
    image_id: into String,
    state: is ContainerState,
    created_at: is Millis,
    log_path: into PathBuf,
    labels: is Labels,
    annotations: is Labels,
} }

impl Event {
    /// This container changed.
    pub fn new(container: ContainerId) -> Self {
        Self { container }
    }
}

impl Info {
    /// A runtime of this name and version that is ready in every way.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            ready: true,
            network_ready: true,
            message: String::new(),
        }
    }
}

setters! { Info {
    ready: is bool,
    network_ready: is bool,
    message: into String,
} }

setters! { Usage {
    cpu_nanos: is u64,
    memory_working_set: is u64,
} }
