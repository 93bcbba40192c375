//! The seam to what runs containers: sandboxes and containers, below the level of pods.
//!
//! Restart policy, probes, init containers and volumes are Kubernetes' rules and are written once, in Edged.
//! A runtime starts and stops what it is told and says truthfully what there is.
//!
//! *For implementers*: write [`ContainerRuntime`] and [`Images`]; offer [`Exec`], [`Attach`], [`PortForward`]
//! and [`Stats`] if you can; run `kubeedge_core::runtime_conformance!` over it. Stopping and removing are
//! idempotent: asked for what is already stopped or gone, they succeed. A runtime that wraps another one
//! forwards every method, those with a default too: `#[deny(clippy::missing_trait_methods)]` on each `impl`
//! finds the one that was forgotten.
//!
//! ```
//! use kubeedge_core::runtime::{ContainerRuntime, ContainerSpec, RuntimeKind, RuntimeResult, SandboxSpec};
//!
//! /// Starts a program in a sandbox of its own, on any runtime; its image is pulled when it is not there.
//! async fn launch(runtime: &dyn ContainerRuntime, pod: SandboxSpec, what: ContainerSpec) -> RuntimeResult<()> {
//!     let sandbox = runtime.run_sandbox(pod).await?;
//!     match runtime.create_container(&sandbox, what.clone()).await {
//!         Err(error) if error.kind() == RuntimeKind::ImageUnavailable => {
//!             runtime.images().pull(&what.image, None).await?;
//!             runtime.start_container(&runtime.create_container(&sandbox, what).await?).await
//!         }
//!         made => runtime.start_container(&made?).await,
//!     }
//! }
//!
//! // What grows with Kubernetes is built, not written out.
//! let pod = SandboxSpec::new("web", "default", "7f8c").hostname("web-0").host_network(true);
//! let what = ContainerSpec::new("app", "busybox:1.36").command(["sleep"]).args(["60"]);
//! # assert_eq!((pod.attempt, what.command.len()), (0, 1));
//! ```

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, kinds};

/// Methods that take a struct and give it back with one field set: for text, paths and lists of text of
/// whatever can become them, for the rest as it is.
macro_rules! setters {
    ($type:ident { $($field:ident: $kind:tt $what:ty,)* }) => {
        impl $type { $( setters!(@one $field: $kind $what); )* }
    };
    (@one $field:ident: into $what:ty) => {
        #[doc = concat!("The same with another `", stringify!($field), "`.")]
        #[must_use]
        pub fn $field(mut self, $field: impl Into<$what>) -> Self {
            self.$field = $field.into();
            self
        }
    };
    (@one $field:ident: is $what:ty) => {
        #[doc = concat!("The same with another `", stringify!($field), "`.")]
        #[must_use]
        pub fn $field(mut self, $field: $what) -> Self {
            self.$field = $field;
            self
        }
    };
    (@one $field:ident: words $what:ty) => {
        #[doc = concat!("The same with another `", stringify!($field), "`.")]
        #[must_use]
        pub fn $field(mut self, $field: impl IntoIterator<Item = impl Into<String>>) -> Self {
            self.$field = $field.into_iter().map(Into::into).collect();
            self
        }
    };
}

mod commands;
mod found;
mod images;
mod ports;
mod spec;

pub use commands::{
    Attach, Exec, ExecOutput, ExecSpec, ExecSyncSpec, Input, Output, Resize, Resizes, Streams, TerminalSize,
};
pub use found::{Container, ContainerState, Event, Info, Sandbox, Stats, Usage};
pub use images::{Image, Images, RegistryAuth};
pub use ports::{Connection, PortForward};
pub use spec::{ContainerSpec, Dns, Mount, PortMapping, Resources, SandboxSpec, Security};
pub use tokio::io::{AsyncRead, AsyncWrite};

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
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
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

/// What runs containers.
#[async_trait]
pub trait ContainerRuntime: fmt::Debug + Send + Sync + 'static {
    /// What it is and how it is. [`RuntimeKind::Down`] when it does not answer.
    async fn info(&self) -> RuntimeResult<Info>;

    /// Makes and starts a sandbox. The same name, namespace, uid and attempt twice is
    /// [`RuntimeKind::Exists`].
    async fn run_sandbox(&self, spec: SandboxSpec) -> RuntimeResult<SandboxId>;

    /// Stops a sandbox and kills what still runs in it. Idempotent.
    async fn stop_sandbox(&self, id: &SandboxId) -> RuntimeResult<()>;

    /// Removes a sandbox and its containers, stopping them first if need be. Idempotent.
    async fn remove_sandbox(&self, id: &SandboxId) -> RuntimeResult<()>;

    /// Makes a container. Its image must be there ([`RuntimeKind::ImageUnavailable`]). The same name and
    /// attempt twice in a sandbox is [`RuntimeKind::Exists`].
    async fn create_container(&self, within: &SandboxId, spec: ContainerSpec) -> RuntimeResult<ContainerId>;

    /// Starts a container that was made; a program that cannot be started is [`RuntimeKind::Invalid`] with
    /// the reason.
    async fn start_container(&self, id: &ContainerId) -> RuntimeResult<()>;

    /// Asks a container to end and kills it after the grace. Returns when it has ended. Idempotent.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> RuntimeResult<()>;

    /// Removes a container, killing it first if need be; its log file stays. Idempotent.
    async fn remove_container(&self, id: &ContainerId) -> RuntimeResult<()>;

    /// All sandboxes and containers this runtime holds for us: the truth after any restart of either side.
    async fn list_all(&self) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)>;

    /// Its images.
    fn images(&self) -> &dyn Images;

    /// Hints to look sooner than the next regular look; `None` when the runtime has none.
    fn events(&self) -> Option<BoxStream<'static, Event>> {
        None
    }

    /// Running commands inside containers, where offered. Probes and `kubectl exec` need it.
    fn exec(&self) -> Option<&dyn Exec> {
        None
    }

    /// Joining the main process of a container, where offered. `kubectl attach` needs it.
    fn attach(&self) -> Option<&dyn Attach> {
        None
    }

    /// Connections to ports inside sandboxes, where offered.
    fn port_forward(&self) -> Option<&dyn PortForward> {
        None
    }

    /// Usage, where offered.
    fn stats(&self) -> Option<&dyn Stats> {
        None
    }
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
    async fn stop_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        (**self).stop_sandbox(id).await
    }
    async fn remove_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        (**self).remove_sandbox(id).await
    }
    async fn create_container(&self, within: &SandboxId, spec: ContainerSpec) -> RuntimeResult<ContainerId> {
        (**self).create_container(within, spec).await
    }
    async fn start_container(&self, id: &ContainerId) -> RuntimeResult<()> {
        (**self).start_container(id).await
    }
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> RuntimeResult<()> {
        (**self).stop_container(id, grace).await
    }
    async fn remove_container(&self, id: &ContainerId) -> RuntimeResult<()> {
        (**self).remove_container(id).await
    }
    async fn list_all(&self) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)> {
        (**self).list_all().await
    }
    fn images(&self) -> &dyn Images {
        (**self).images()
    }
    fn events(&self) -> Option<BoxStream<'static, Event>> {
        (**self).events()
    }
    fn exec(&self) -> Option<&dyn Exec> {
        (**self).exec()
    }
    fn attach(&self) -> Option<&dyn Attach> {
        (**self).attach()
    }
    fn port_forward(&self) -> Option<&dyn PortForward> {
        (**self).port_forward()
    }
    fn stats(&self) -> Option<&dyn Stats> {
        (**self).stats()
    }
}
