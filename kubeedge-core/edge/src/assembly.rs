//! Edgecore, put together: from a transport, a store and a container runtime to something that runs.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use kubeedge_core::{runtime::ContainerRuntime, store::MetaStore, transport::Transport};
//! # async fn doc(transport: Arc<dyn Transport>, store: Arc<dyn MetaStore>, runtime: Arc<dyn ContainerRuntime>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use kubeedge_edge::{EdgeCore, EdgeCoreSettings};
//!
//! let settings = EdgeCoreSettings::for_node("edge-1");
//! let edge = EdgeCore::assemble(settings, transport, store, runtime).build()?;
//! edge.run(std::future::pending()).await?;
//! # Ok(()) }
//! ```

use std::{collections::HashSet, fmt, future::Future, net::SocketAddr, path::Path, sync::Arc};

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
    edged::{
        Edged, EdgedSettings,
        server::{EdgedServer, EdgedServerSettings},
    },
    eventbus::{EventBus, EventBusSettings},
    hub::{EdgeHub, EdgeHubSettings, IdentitySource, JoinSettings},
    meta::{MetaManager, MetaManagerSettings},
    stream::{EdgeStream, EdgeStreamSettings},
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
    /// The node's own API, through which logs and commands go.
    pub server: EdgedServerSettings,
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
            server: EdgedServerSettings { node_name: name.to_owned(), ..EdgedServerSettings::default() },
            twin: TwinSettings { node: node.clone() },
            eventbus: EventBusSettings { node, ..EventBusSettings::default() },
            restart: Restart::default(),
        }
    }

    /// Keeps certificates, volumes and logs of pods in this folder instead of in the system's.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.edged.root = folder.join("kubelet");
        self.edged.logs = folder.join("logs");
        self.server.logs = self.edged.logs.clone();
        let certs = folder.join("certs");
        let known = self.join();
        self.hub.identity = IdentitySource::Join(JoinSettings {
            ca_file: certs.join("rootCA.crt"),
            cert_file: certs.join("server.crt"),
            key_file: certs.join("server.key"),
            ..known
        });
        self
    }

    /// How the node joins, as far as it was said.
    fn join(&self) -> JoinSettings {
        match &self.hub.identity {
            IdentitySource::Join(known) => known.clone(),
            IdentitySource::Fixed(_) => JoinSettings::default(),
        }
    }

    /// Connects to CloudHub at `hub` (`host:port`) with a certificate that `token` gets at `https` (`host:port`), as
    /// `keadm join` does.
    #[must_use]
    pub fn joining(mut self, hub: &str, https: &str, token: &str) -> Self {
        self.hub.servers = vec![hub.to_owned()];
        let known = self.join();
        let (https, token) = (https.to_owned(), Some(token.to_owned()));
        self.hub.identity = IdentitySource::Join(JoinSettings { https, token, ..known });
        self
    }
}

/// What can be seen of an edgecore from outside. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EdgeStatus {
    /// Whether the link to the cloud is up.
    pub connected: watch::Receiver<bool>,
    /// The node's certificates, once it has them.
    pub credentials: watch::Receiver<Option<Arc<Credentials>>>,
    /// Where the node's own API listens, while it does.
    pub server: watch::Receiver<Option<SocketAddr>>,
    /// Whether the tunnel for logs and commands is up; `None` without [`EdgeCoreBuilder::tunnel`].
    pub tunnel: Option<watch::Receiver<bool>>,
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
    tunnel: Option<(EdgeStreamSettings, Arc<dyn Transport>)>,
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
    /// Adds EdgeStream: `kubectl logs` and `exec` through a tunnel to the cloud. Node, address and certificates are
    /// those of the other settings.
    #[must_use]
    pub fn tunnel(mut self, settings: EdgeStreamSettings, transport: Arc<dyn Transport>) -> Self {
        self.tunnel = Some((settings, transport));
        self
    }

    /// Another transport for the link to the cloud than [`EdgeCore::assemble`] was given.
    #[must_use]
    pub fn link(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = transport;
        self
    }

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
        let EdgeCoreSettings { hub, meta, edged, server, twin, eventbus, restart } = self.settings;
        let (node, address, clock) = (hub.node.clone(), edged.node_ip.clone(), edged.clock.clone());
        let kernel = Kernel::builder().clock(clock.clone()).seed(hub.seed);
        let mut hub = EdgeHub::new(hub, self.transport).clock(clock.clone()).store(self.store.clone());
        if let Some(codec) = self.codec {
            hub = hub.codec(codec);
        }
        let bus = EventBus::new(eventbus, self.store.clone());
        let meta = MetaManager::new(meta, self.store.clone());
        let edged = Edged::new(edged, self.runtime.clone(), meta.handle());
        let server = EdgedServer::new(server, self.runtime, edged.pods()).clock(clock.clone());
        let stream = self.tunnel.map(|(settings, transport)| {
            let settings = EdgeStreamSettings { node, address, ..settings };
            EdgeStream::new(settings, transport, hub.credentials(), Arc::new(server.bound()))
        });
        let status = EdgeStatus {
            connected: hub.connected(),
            credentials: hub.credentials(),
            server: server.bound(),
            tunnel: stream.as_ref().map(EdgeStream::connected),
            broker: bus.internal_address(),
        };
        let twin = DeviceTwin::new(twin, self.store, meta.handle(), self.mappers);
        let meta = meta.devices(twin.inventory());
        let mut ours = Ours { kernel, restart, without: &self.without };
        ours.add(hub);
        ours.add(meta);
        ours.add(edged);
        ours.add(server);
        ours.add(twin);
        ours.add(bus);
        if let Some(stream) = stream {
            ours.add(stream);
        }
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
        EdgeCoreBuilder {
            settings,
            transport,
            store,
            runtime,
            codec: None,
            tunnel: None,
            mappers: Vec::new(),
            modules: Vec::new(),
            without: HashSet::new(),
        }
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
