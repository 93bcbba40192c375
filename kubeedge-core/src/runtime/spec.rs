//! What sandboxes and containers shall be.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ImageRef, Labels};

/// What a pod's sandbox shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SandboxSpec {
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's uid.
    pub uid: String,
    /// Counts the sandboxes of this pod from 0; name, namespace, uid and attempt together are one of a kind.
    pub attempt: u32,
    /// The host name inside.
    pub hostname: String,
    /// The folder under which the logs of all containers go.
    pub log_directory: PathBuf,
    /// Selectors, kept by the runtime.
    pub labels: Labels,
    /// Notes, kept by the runtime.
    pub annotations: Labels,
    /// Whether to share the host's network.
    pub host_network: bool,
    /// Whether to share the host's process ids.
    pub host_pid: bool,
    /// Whether to share the host's IPC.
    pub host_ipc: bool,
    /// Ports of the host to forward.
    pub ports: Vec<PortMapping>,
    /// Name resolution; `None` for the runtime's default.
    pub dns: Option<Dns>,
    /// The cgroup under which the sandbox goes; empty for the runtime's default.
    pub cgroup_parent: String,
}

/// A port of the host forwarded into a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`; empty for `TCP`.
    pub protocol: String,
    /// The port inside.
    pub container_port: u16,
    /// The port of the host.
    pub host_port: u16,
    /// The address of the host to bind; empty for all.
    pub host_ip: String,
}

/// Name resolution inside a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// What a container shall be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContainerSpec {
    /// The container's name in the pod.
    pub name: String,
    /// Counts the restarts of this container from 0.
    pub attempt: u32,
    /// The image.
    pub image: ImageRef,
    /// The program; empty for the image's own.
    pub command: Vec<String>,
    /// Its arguments; empty for the image's own.
    pub args: Vec<String>,
    /// The folder it starts in; empty for the image's own.
    pub working_dir: String,
    /// Its environment, in order; later ones win.
    pub env: Vec<(String, String)>,
    /// Folders and files of the host seen inside.
    pub mounts: Vec<Mount>,
    /// The log file, relative to the sandbox's folder; CRI's line format.
    pub log_path: PathBuf,
    /// Selectors, kept by the runtime.
    pub labels: Labels,
    /// Notes, kept by the runtime.
    pub annotations: Labels,
    /// Whether stdin stays open for `attach`.
    pub stdin: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: Resources,
    /// Identity and privileges.
    pub security: Security,
}

/// A folder or file of the host seen inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// Where it is on the host.
    pub host_path: PathBuf,
    /// Where it is seen inside.
    pub container_path: PathBuf,
    /// Whether writing is refused.
    pub readonly: bool,
}

/// Limits of a container; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resources {
    /// Relative weight among containers (1024 per requested CPU, at least 2).
    pub cpu_shares: u64,
    /// CPU time in microseconds per period.
    pub cpu_quota: i64,
    /// The period in microseconds.
    pub cpu_period: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// How soon the kernel kills it when memory is short, -1000 to 1000.
    pub oom_score_adj: i32,
}

/// Identity and privileges of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Security {
    /// Numeric user; `None` for the image's own.
    pub run_as_user: Option<i64>,
    /// Numeric group; `None` for the image's own.
    pub run_as_group: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// All privileges of the host.
    pub privileged: bool,
    /// Whether the root file system refuses writing.
    pub readonly_rootfs: bool,
    /// Whether set-uid programs gain nothing.
    pub no_new_privileges: bool,
    /// Capabilities to add.
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop.
    pub drop_capabilities: Vec<String>,
}

impl SandboxSpec {
    /// A first sandbox of this pod, with a network and process ids of its own.
    pub fn new(name: impl Into<String>, namespace: impl Into<String>, uid: impl Into<String>) -> Self {
        Self { name: name.into(), namespace: namespace.into(), uid: uid.into(), ..Self::default() }
    }
}

setters! { SandboxSpec {
    name: into String,
    namespace: into String,
    uid: into String,
    attempt: is u32,
    hostname: into String,
    log_directory: into PathBuf,
    labels: is Labels,
    annotations: is Labels,
    host_network: is bool,
    host_pid: is bool,
    host_ipc: is bool,
    ports: is Vec<PortMapping>,
    dns: is Option<Dns>,
    cgroup_parent: into String,
} }

impl PortMapping {
    /// This TCP port of the host, at all its addresses, forwarded to that port inside.
    pub fn new(host_port: u16, container_port: u16) -> Self {
        Self { host_port, container_port, ..Self::default() }
    }
}

setters! { PortMapping {
    protocol: into String,
    host_ip: into String,
} }

setters! { Dns {
    servers: words Vec<String>,
    searches: words Vec<String>,
    options: words Vec<String>,
} }

impl ContainerSpec {
    /// The first run of a container of this name and image, without mounts, limits or privileges.
    pub fn new(name: impl Into<String>, image: impl Into<ImageRef>) -> Self {
        Self { name: name.into(), image: image.into(), ..Self::default() }
    }
}

setters! { ContainerSpec {
    name: into String,
    attempt: is u32,
    image: into ImageRef,
    command: words Vec<String>,
    args: words Vec<String>,
    working_dir: into String,
    env: is Vec<(String, String)>,
    mounts: is Vec<Mount>,
    log_path: into PathBuf,
    labels: is Labels,
    annotations: is Labels,
    stdin: is bool,
    tty: is bool,
    resources: is Resources,
    security: is Security,
} }

impl Mount {
    /// A folder or file of the host, seen there inside; it may be written.
    pub fn new(host_path: impl Into<PathBuf>, container_path: impl Into<PathBuf>) -> Self {
        Self { host_path: host_path.into(), container_path: container_path.into(), readonly: false }
    }
}

setters! { Mount {
    readonly: is bool,
} }

setters! { Resources {
    cpu_shares: is u64,
    cpu_quota: is i64,
    cpu_period: is u64,
    memory_bytes: is u64,
    oom_score_adj: is i32,
} }

setters! { Security {
    run_as_user: is Option<i64>,
    run_as_group: is Option<i64>,
    supplemental_groups: is Vec<i64>,
    privileged: is bool,
    readonly_rootfs: is bool,
    no_new_privileges: is bool,
    add_capabilities: words Vec<String>,
    drop_capabilities: words Vec<String>,
} }
