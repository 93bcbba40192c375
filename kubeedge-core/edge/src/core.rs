//! Edgecore, put together: from a transport, a store and a container runtime to something that runs.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use kubeedge_core::{runtime::ContainerRuntime, store::MetaStore, transport::Transport};
//! # async fn doc(transport: Arc<dyn Transport>, store: Arc<dyn MetaStore>, runtime: Arc<dyn ContainerRuntime>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use kubeedge_edge::core::{EdgeCore, EdgeCoreSettings};
//!
//! let settings = EdgeCoreSettings::for_node("edge-1");
//! let edge = EdgeCore::assemble(settings, transport, store, runtime).build()?;
//! edge.run(std::future::pending()).await?;
//! # Ok(()) }
//! ```

use std::{collections::HashSet, fmt, future::Future, net::SocketAddr, sync::Arc};

use kubeedge_core::{
    device::DeviceMapper,
    kernel::{Kernel, KernelBuilder, KernelError, Module, Restart},
    name::{ModuleName, NodeName},
    runtime::ContainerRuntime,
    store::MetaStore,
    transport::{Credentials, Transport},
    wire::Codec,
};
use tokio::sync::watch;

use crate::{
    edged::{Edged, EdgedSettings},
    eventbus::{EventBus, EventBusSettings},
    hub::{EdgeHub, EdgeHubSettings},
    meta::{MetaManager, MetaManagerSettings},
    twin::{DeviceTwin, TwinSettings},
};

/// How an edgecore works.
#[derive(Clone, Debug)]
pub struct EdgeCoreSettings {
    /// EdgeHub: the link to the cloud.
    pub hub: EdgeHubSettings,
    /// MetaManager.
    pub meta: MetaManagerSettings,
    /// Edged.
    pub edged: EdgedSettings,
    /// DeviceTwin.
    pub twin: TwinSettings,
    /// EventBus.
    pub eventbus: EventBusSettings,
    /// What happens to a module that fails or panics.
    pub restart: Restart,
}

impl EdgeCoreSettings {
    /// KubeEdge's defaults for the node of this name.
    pub fn for_node(name: &str) -> Self {
        let node = NodeName::from(name);
        Self {
            hub: EdgeHubSettings { node: node.clone(), ..EdgeHubSettings::default() },
            meta: MetaManagerSettings::default(),
            edged: EdgedSettings {
                node_name: name.to_owned(),
                hostname: name.to_owned(),
                ..EdgedSettings::default()
            },
            twin: TwinSettings { node: node.clone() },
            eventbus: EventBusSettings { node, ..EventBusSettings::default() },
            restart: Restart::default(),
        }
    }
}

/// What can be seen of an edgecore from outside. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EdgeStatus {
    /// Whether the link to the cloud is up.
    pub connected: watch::Receiver<bool>,
    /// The node's certificates, once it has them.
    pub credentials: watch::Receiver<Option<Arc<Credentials>>>,
    /// Where the broker inside this process listens; `None` while or where there is none.
    pub broker: watch::Receiver<Option<SocketAddr>>,
}

/// Collects the parts of an edgecore; see [`EdgeCore::assemble`].
pub struct EdgeCoreBuilder {
    settings: EdgeCoreSettings,
    transport: Arc<dyn Transport>,
    store: Arc<dyn MetaStore>,
    runtime: Arc<dyn ContainerRuntime>,
    codec: Option<Arc<dyn Codec>>,
    mappers: Vec<Arc<dyn DeviceMapper>>,
    modules: Vec<Box<dyn Module>>,
    without: HashSet<ModuleName>,
}

impl fmt::Debug for EdgeCoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeCoreBuilder")
            .field("settings", &self.settings)
            .field("without", &self.without)
            .finish_non_exhaustive()
    }
}

impl EdgeCoreBuilder {
    /// Adds a mapper that runs in this process. The last one of a protocol counts.
    #[must_use]
    pub fn mapper(mut self, mapper: impl DeviceMapper) -> Self {
        self.mappers.push(Arc::new(mapper));
        self
    }

    /// Adds a module; its failure ends the whole.
    #[must_use]
    pub fn module(mut self, module: impl Module) -> Self {
        self.modules.push(Box::new(module));
        self
    }

    /// Leaves out one of our modules, by name.
    #[must_use]
    pub fn without(mut self, module: &ModuleName) -> Self {
        self.without.insert(module.clone());
        self
    }

    /// Another codec than Go's JSON; the cloud must speak it too.
    #[must_use]
    pub fn codec(mut self, codec: Arc<dyn Codec>) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Puts everything together.
    pub fn build(self) -> Result<EdgeCore, KernelError> {
        let EdgeCoreSettings { hub, meta, edged, twin, eventbus, restart } = self.settings;
        let mut hub = EdgeHub::new(hub, self.transport);
        if let Some(codec) = self.codec {
            hub = hub.codec(codec);
        }
        let bus = EventBus::new(eventbus, self.store.clone());
        let status = EdgeStatus {
            connected: hub.connected(),
            credentials: hub.credentials(),
            broker: bus.internal_address(),
        };
        let twin = DeviceTwin::new(twin, self.store.clone(), self.mappers);
        let mut ours = Ours { kernel: Kernel::builder(), restart, without: &self.without };
        ours.add(hub);
        ours.add(MetaManager::new(meta, self.store));
        ours.add(Edged::new(edged, self.runtime));
        ours.add(twin);
        ours.add(bus);
        let kernel = self.modules.into_iter().fold(ours.kernel, KernelBuilder::boxed);
        Ok(EdgeCore { kernel: kernel.build()?, status })
    }
}

/// Our modules: each is started anew when it fails.
struct Ours<'a> {
    kernel: KernelBuilder,
    restart: Restart,
    without: &'a HashSet<ModuleName>,
}

impl Ours<'_> {
    fn add(&mut self, module: impl Module + Clone) {
        if !self.without.contains(&module.name()) {
            let kernel = std::mem::take(&mut self.kernel);
            self.kernel = kernel.supervised(self.restart, move || module.clone());
        }
    }
}

/// An edgecore ready to run.
#[derive(Debug)]
pub struct EdgeCore {
    kernel: Kernel,
    status: EdgeStatus,
}

impl EdgeCore {
    /// Starts to put an edgecore together: the link goes over `transport`, everything that must outlive a power cut
    /// into `store`, pods onto `runtime`.
    pub fn assemble(
        settings: EdgeCoreSettings,
        transport: Arc<dyn Transport>,
        store: Arc<dyn MetaStore>,
        runtime: Arc<dyn ContainerRuntime>,
    ) -> EdgeCoreBuilder {
        let (mappers, modules, without) = (Vec::new(), Vec::new(), HashSet::new());
        EdgeCoreBuilder { settings, transport, store, runtime, codec: None, mappers, modules, without }
    }

    /// What can be seen from outside, also while it runs.
    pub fn status(&self) -> EdgeStatus {
        self.status.clone()
    }

    /// Runs until `shutdown` completes or a module of a vendor fails for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), KernelError> {
        self.kernel.run(shutdown).await
    }
}
