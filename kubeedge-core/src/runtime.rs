//! The seam to what runs containers: sandboxes and containers, below the level of pods.
//!
//! Restart policy, probes, init containers and volumes are Kubernetes' rules and are written once, in Edged. A
//! runtime starts and stops what it is told and says truthfully what there is.
//!
//! *For implementers*: write [`ContainerRuntime`] and [`Images`]; offer [`Streaming`] and [`Stats`] if you can; run
//! `kubeedge_core::runtime_conformance!` over it. `stop` and `remove` are idempotent: asked for what is already
//! stopped or gone, they succeed.
//!
//! ```
//! use kubeedge_core::runtime::{ContainerRuntime, ContainerSpec, RuntimeKind, RuntimeResult, SandboxSpec};
//!
//! /// Starts a program in a sandbox of its own, on any runtime; its image is pulled when it is not there.
//! async fn launch(runtime: &dyn ContainerRuntime, pod: SandboxSpec, what: ContainerSpec) -> RuntimeResult<()> {
//!     let sandbox = runtime.run_sandbox(pod).await?;
//!     match runtime.create(&sandbox, what.clone()).await {
//!         Err(error) if error.kind() == RuntimeKind::ImageUnavailable => {
//!             runtime.images().pull(&what.image, None).await?;
//!             runtime.start(&runtime.create(&sandbox, what).await?).await
//!         }
//!         made => runtime.start(&made?).await,
//!     }
//! }
//! ```

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;

use crate::{failure::Failure, kinds, message::Millis};

kinds! {
    /// What can go wrong in a container runtime.
    RuntimeKind {
        NotFound => "no such object", GiveUp;
        Exists => "already exists", GiveUp;
        Invalid => "invalid specification", GiveUp;
        ImageUnavailable => "image cannot be had", Retry;
        Unsupported => "runtime cannot do this", GiveUp;
        Timeout => "timed out", Retry;
        Down => "runtime is down", Reconnect;
        Internal => "runtime failed", Retry;
    }
}

/// A runtime could not do what it was asked.
pub type RuntimeError = Failure<RuntimeKind>;
/// The result of a runtime call.
pub type RuntimeResult<T> = Result<T, RuntimeError>;

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident)*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    )* };
}

ids! {
    /// A sandbox, as the runtime names it.
    SandboxId
    /// A container, as the runtime names it.
    ContainerId
    /// An image by tag or digest.
    ImageRef
}

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// What a pod's sandbox shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
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

/// A sandbox there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// When it was made.
    pub created_at: Millis,
    /// Selectors.
    pub labels: Labels,
    /// What was noted.
    pub annotations: Labels,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ContainerState {
    /// Made, not started.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct Event {
    /// The container that changed.
    pub container: ContainerId,
}

/// What a runtime is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What runs containers.
#[async_trait]
pub trait ContainerRuntime: fmt::Debug + Send + Sync + 'static {
    /// What it is and how it is. [`RuntimeKind::Down`] when it does not answer.
    async fn info(&self) -> RuntimeResult<Info>;

    /// Makes and starts a sandbox. The same name, namespace, uid and attempt twice is [`RuntimeKind::Exists`].
    async fn run_sandbox(&self, spec: SandboxSpec) -> RuntimeResult<SandboxId>;

    /// The addresses of a running sandbox; empty with the host's network.
    async fn addresses(&self, id: &SandboxId) -> RuntimeResult<Vec<IpAddr>>;

    /// Stops a sandbox and kills what still runs in it. Idempotent.
    async fn stop_sandbox(&self, id: &SandboxId) -> RuntimeResult<()>;

    /// Removes a sandbox and its containers, stopping them first if need be. Idempotent.
    async fn remove_sandbox(&self, id: &SandboxId) -> RuntimeResult<()>;

    /// Makes a container. Its image must be there ([`RuntimeKind::ImageUnavailable`]). The same name and attempt
    /// twice in a sandbox is [`RuntimeKind::Exists`].
    async fn create(&self, within: &SandboxId, spec: ContainerSpec) -> RuntimeResult<ContainerId>;

    /// Starts a container that was made; a program that cannot be started is [`RuntimeKind::Invalid`] with the
    /// reason.
    async fn start(&self, id: &ContainerId) -> RuntimeResult<()>;

    /// Asks a container to end and kills it after the grace. Returns when it has ended. Idempotent.
    async fn stop(&self, id: &ContainerId, grace: Duration) -> RuntimeResult<()>;

    /// Removes a container, killing it first if need be; its log file stays. Idempotent.
    async fn remove(&self, id: &ContainerId) -> RuntimeResult<()>;

    /// All sandboxes and containers this runtime holds for us: the truth after any restart of either side.
    async fn list(&self) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)>;

    /// Its images.
    fn images(&self) -> &dyn Images;

    /// Hints to look sooner than the next regular look; `None` when the runtime has none.
    fn events(&self) -> Option<BoxStream<'static, Event>> {
        None
    }

    /// Running commands inside containers, where offered.
    fn streaming(&self) -> Option<&dyn Streaming> {
        None
    }

    /// Usage, where offered.
    fn stats(&self) -> Option<&dyn Stats> {
        None
    }
}

/// An image there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// The names it goes by.
    pub names: Vec<String>,
    /// Its size in bytes.
    pub size: u64,
}

/// The user of a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Images of a runtime.
#[async_trait]
pub trait Images: Send + Sync {
    /// The image, if it is here.
    async fn find(&self, image: &ImageRef) -> RuntimeResult<Option<Image>>;
    /// Fetches an image and returns its id. [`RuntimeKind::ImageUnavailable`] with the reason when it cannot be had.
    async fn pull(&self, image: &ImageRef, auth: Option<&RegistryAuth>) -> RuntimeResult<String>;
    /// All images.
    async fn list(&self) -> RuntimeResult<Vec<Image>>;
    /// Removes an image. Idempotent.
    async fn remove(&self, image: &ImageRef) -> RuntimeResult<()>;
}

/// A command to run inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether input will be written.
    pub stdin: bool,
    /// Whether it gets a terminal (stderr then comes with stdout).
    pub tty: bool,
}

/// What a running command says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// On stdout.
    Stdout(Bytes),
    /// On stderr.
    Stderr(Bytes),
}

/// A running command. Dropping it kills the command where the runtime can.
pub struct Exec {
    /// Its input; `None` when none was asked for. Shutting it down ends the input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What it says, until it ends.
    pub output: BoxStream<'static, RuntimeResult<Output>>,
    /// The exit code, once it has ended. To be awaited after or beside the output.
    pub exit: BoxFuture<'static, RuntimeResult<i32>>,
    /// Changes the terminal's size to (columns, rows); without effect where there is none.
    pub resize: tokio::sync::mpsc::Sender<(u16, u16)>,
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec").field("stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// Running commands inside containers.
#[async_trait]
pub trait Streaming: Send + Sync {
    /// Starts a command. [`RuntimeKind::NotFound`] when the container does not run.
    async fn exec(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Exec>;
    /// Joins the main process of a container.
    async fn attach(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Exec>;
}

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<R: ContainerRuntime + ?Sized> ContainerRuntime for Arc<R> {
    async fn info(&self) -> RuntimeResult<Info> {
        (**self).info().await
    }
    async fn run_sandbox(&self, spec: SandboxSpec) -> RuntimeResult<SandboxId> {
        (**self).run_sandbox(spec).await
    }
    async fn addresses(&self, id: &SandboxId) -> RuntimeResult<Vec<IpAddr>> {
        (**self).addresses(id).await
    }
    async fn stop_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        (**self).stop_sandbox(id).await
    }
    async fn remove_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        (**self).remove_sandbox(id).await
    }
    async fn create(&self, within: &SandboxId, spec: ContainerSpec) -> RuntimeResult<ContainerId> {
        (**self).create(within, spec).await
    }
    async fn start(&self, id: &ContainerId) -> RuntimeResult<()> {
        (**self).start(id).await
    }
    async fn stop(&self, id: &ContainerId, grace: Duration) -> RuntimeResult<()> {
        (**self).stop(id, grace).await
    }
    async fn remove(&self, id: &ContainerId) -> RuntimeResult<()> {
        (**self).remove(id).await
    }
    async fn list(&self) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)> {
        (**self).list().await
    }
    fn images(&self) -> &dyn Images {
        (**self).images()
    }
    fn events(&self) -> Option<BoxStream<'static, Event>> {
        (**self).events()
    }
    fn streaming(&self) -> Option<&dyn Streaming> {
        (**self).streaming()
    }
    fn stats(&self) -> Option<&dyn Stats> {
        (**self).stats()
    }
}
