//! Edgecore, put together: from a transport, a store and a container runtime to something that runs.
//!
//! ```no_run
//! # use kubeedge_core::{runtime::ContainerRuntime, store::MetaStore, transport::Transport};
//! # async fn doc(transport: impl Transport, store: impl MetaStore, runtime: impl ContainerRuntime)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use kubeedge_edge::{EdgeCore, EdgeCoreSettings};
//!
//! let settings = EdgeCoreSettings::for_node("edge-1").joining("cloud.example.com", "the token");
//! let edge = EdgeCore::assemble(settings, transport, store, runtime).build()?;
//! edge.run(std::future::pending()).await?;
//! # Ok(()) }
//! ```

mod address;
mod settings;

use std::{fmt, future::Future, net::SocketAddr, sync::Arc};

use kubeedge_core::{
    bus::Bus,
    clock::Clock,
    device::{DeviceManager, DeviceMapper},
    kernel::{Kernel, KernelError, Module},
    name::{ModuleName, NodeName},
    runtime::ContainerRuntime,
    store::MetaStore,
    transport::{Credentials, Transport},
    wire::Codec,
};
use tokio::sync::watch;

pub use self::{address::CloudAddress, settings::EdgeCoreSettings};
use crate::{
    edged::{Edged, server::EdgedServer},
    eventbus::EventBus,
    hub::EdgeHub,
    meta::{MetaHandle, MetaManager},
    stream::EdgeStream,
    twin::DeviceTwin,
};

/// What can be seen of an edgecore from outside. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EdgeStatus {
    /// Whether the link to the cloud is up.
    pub connected: watch::Receiver<bool>,
    /// The node's certificates, once it has them.
    pub credentials: watch::Receiver<Option<Arc<Credentials>>>,
    /// Where the node's own API listens, while it does.
    pub server: watch::Receiver<Option<SocketAddr>>,
    /// Whether the tunnel for logs and commands is up; `None` without [`EdgeCoreSettings::stream`].
    pub tunnel: Option<watch::Receiver<bool>>,
    /// Where the broker inside this process listens; `None` while or where there is none.
    pub broker: watch::Receiver<Option<SocketAddr>>,
}

/// What modules are made from. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EdgeParts {
    /// The name of this node.
    pub node: NodeName,
    /// The time of day that all modules go by.
    pub clock: Clock,
    /// What is seen of the edgecore.
    pub status: EdgeStatus,
    /// MetaManager's copy of the node's objects.
    pub meta: MetaHandle,
    /// Where readings and states of devices are reported to.
    pub devices: Arc<dyn DeviceManager>,
}

/// Makes a module of a vendor's, as often as it fails.
type MakeModule = Box<dyn FnMut(&EdgeParts) -> Box<dyn Module> + Send>;

/// The same with its parts.
type MakeAgain = Box<dyn FnMut() -> Box<dyn Module> + Send>;

/// Collects the parts of an edgecore; see [`EdgeCore::assemble`].
pub struct EdgeCoreBuilder {
    settings: EdgeCoreSettings,
    transport: Arc<dyn Transport>,
    store: Arc<dyn MetaStore>,
    runtime: Arc<dyn ContainerRuntime>,
    codec: Option<Arc<dyn Codec>>,
    tunnel: Option<Arc<dyn Transport>>,
    mappers: Vec<Arc<dyn DeviceMapper>>,
    modules: Vec<MakeModule>,
}

impl fmt::Debug for EdgeCoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeCoreBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl EdgeCoreBuilder {
    /// Dials the tunnel of [`EdgeCoreSettings::stream`] over another transport than the link. CloudStream of
    /// cloudcore listens with WebSocket.
    #[must_use]
    pub fn tunnel_over(mut self, transport: impl Transport) -> Self {
        self.tunnel = Some(Arc::new(transport));
        self
    }

    /// Adds a mapper that runs in this process. The last one of a protocol counts.
    #[must_use]
    pub fn mapper(mut self, mapper: impl DeviceMapper) -> Self {
        self.mappers.push(Arc::new(mapper));
        self
    }

    /// Adds a module. When it fails, a clone of it is started, as [`EdgeCoreSettings::restart`] says.
    #[must_use]
    pub fn module(self, module: impl Module + Clone) -> Self {
        self.module_with(move |_| module.clone())
    }

    /// Adds a module that is made from what an edgecore has, now and again whenever it has failed.
    #[must_use]
    pub fn module_with<M: Module>(mut self, mut make: impl FnMut(&EdgeParts) -> M + Send + 'static) -> Self {
        self.modules.push(Box::new(move |parts| Box::new(make(parts))));
        self
    }

    /// Leaves out one of our modules, by name.
    #[must_use]
    pub fn without(mut self, module: &ModuleName) -> Self {
        self.settings.without.insert(module.clone());
        self
    }

    /// Another codec than Go's JSON; the cloud must speak it too.
    #[must_use]
    pub fn codec(mut self, codec: Arc<dyn Codec>) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Puts everything together. Fails when two modules have one name.
    pub fn build(self) -> Result<EdgeCore, KernelError> {
        let Self { settings, transport, store, runtime, codec, tunnel, mappers, modules } = self;
        let EdgeCoreSettings { node, clock, hub, meta, edged, server, eventbus, stream, without, restart } =
            settings;
        let kernel = Kernel::builder().clock(clock.clone()).seed(hub.seed);
        let mut hub = EdgeHub::new(node.clone(), hub, transport.clone()).store(store.clone());
        if let Some(codec) = codec {
            hub = hub.codec(codec);
        }
        let bus = EventBus::new(node.clone(), eventbus, store.clone());
        let meta = MetaManager::new(meta, store.clone());
        let address = edged.node_ip.clone();
        let edged = Edged::new(node.clone(), edged, runtime.clone(), meta.handle());
        let server = EdgedServer::new(node.clone(), server, runtime, edged.pods());
        let stream = stream.map(|settings| {
            let (transport, api) = (tunnel.unwrap_or(transport), Arc::new(server.bound()));
            EdgeStream::new(node.clone(), settings, transport, hub.credentials(), api).address(address)
        });
        let status = EdgeStatus {
            connected: hub.connected(),
            credentials: hub.credentials(),
            server: server.bound(),
            tunnel: stream.as_ref().map(EdgeStream::connected),
            broker: bus.internal_address(),
        };
        let twin = DeviceTwin::new(node.clone(), store, meta.handle(), mappers);
        let meta = meta.devices(twin.inventory());
        let (handle, devices) = (meta.handle(), twin.manager());
        let parts = EdgeParts { node, clock, status: status.clone(), meta: handle, devices };
        let mut ours = vec![again(hub), again(meta), again(edged), again(server), again(twin), again(bus)];
        ours.extend(stream.map(again));
        ours.retain(|(name, _)| !without.contains(name));
        let theirs = modules.into_iter().map(|mut make| {
            let parts = parts.clone();
            Box::new(move || make(&parts)) as MakeAgain
        });
        let all = ours.into_iter().map(|(_, make)| make).chain(theirs);
        let kernel = all.fold(kernel, |kernel, make| kernel.supervised(restart, make));
        Ok(EdgeCore { kernel: kernel.build()?, status })
    }
}

/// The name of one of our modules, and its clones.
fn again(module: impl Module + Clone) -> (ModuleName, MakeAgain) {
    (module.name(), Box::new(move || Box::new(module.clone())))
}

/// An edgecore ready to run.
#[derive(Debug)]
pub struct EdgeCore {
    kernel: Kernel,
    status: EdgeStatus,
}

impl EdgeCore {
    /// Starts to put an edgecore together: link and tunnel go over `transport`, everything that must outlive
    /// a power cut into `store`, pods onto `runtime`.
    pub fn assemble(
        settings: EdgeCoreSettings,
        transport: impl Transport,
        store: impl MetaStore,
        runtime: impl ContainerRuntime,
    ) -> EdgeCoreBuilder {
        EdgeCoreBuilder {
            settings,
            transport: Arc::new(transport),
            store: Arc::new(store),
            runtime: Arc::new(runtime),
            codec: None,
            tunnel: None,
            mappers: Vec::new(),
            modules: Vec::new(),
        }
    }

    /// What can be seen from outside, also while it runs.
    pub fn status(&self) -> EdgeStatus {
        self.status.clone()
    }

    /// The way to its modules, for code outside of them.
    pub fn bus(&self) -> Bus {
        self.kernel.bus()
    }

    /// Runs until `shutdown` completes, or a module has failed more often than [`EdgeCoreSettings::restart`]
    /// allows.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), KernelError> {
        self.kernel.run(shutdown).await
    }
}

#[cfg(test)]
mod tests;
