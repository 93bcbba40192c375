//! Cloudcore, put together: from a transport and a cluster to something that runs.
//!
//! ```no_run
//! # use kubeedge_core::{cluster::ClusterApi, transport::Transport};
//! # async fn doc(transport: impl Transport, cluster: impl ClusterApi) -> Result<(), Box<dyn std::error::Error>> {
//! use kubeedge_cloud::{CloudCore, CloudCoreSettings};
//!
//! let cloud = CloudCore::assemble(CloudCoreSettings::default(), transport, cluster).build().await?;
//! let status = cloud.status();
//! println!("join with {}", *status.token.borrow());
//! cloud.run(std::future::pending()).await?;
//! # Ok(()) }
//! ```
//!
//! Modules are started anew when they fail, as [`CloudCoreSettings::restart`] says, except CloudHub: its
//! failure ends the whole. What edges have confirmed and is being saved is in its memory and in that of the
//! controllers beside it; a process that starts anew reads all of it from the records, and loses nothing. A
//! server that cannot listen at its address ends the whole too.

use std::{collections::BTreeSet, fmt, future::Future, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use kubeedge_core::{
    bus::Bus,
    clock::Clock,
    cluster::ClusterApi,
    kernel::{Kernel, KernelBuilder, KernelError, Module, Restart},
    name::ModuleName,
    transport::{Endpoint, Transport},
    wire::{Codec, GoJson},
};
use tokio::sync::watch;

use crate::{
    certs::{CertService, CertSettings, Identity, PrepareError},
    cluster::Clients,
    denylist::DenylistKeeper,
    devices::DeviceController,
    hub::{CloudHub, CloudHubSettings, HubListener, Sessions},
    informer::Informers,
    instance::Instance,
    objects::{EdgeController, EdgeControllerSettings},
    records::Records,
    stream::{CloudStream, CloudStreamSettings, Tunnels},
    sync::{SyncController, SyncSettings},
};

/// How a cloudcore works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CloudCoreSettings {
    /// Where edges connect to. KubeEdge: `0.0.0.0:10000`.
    pub listen: Endpoint,
    /// The hub.
    pub hub: CloudHubSettings,
    /// Certificates, token and the HTTPS service.
    pub certs: CertSettings,
    /// EdgeController.
    pub objects: EdgeControllerSettings,
    /// SyncController.
    pub sync: SyncSettings,
    /// CloudStream: logs, exec, attach and metrics of nodes through [`CloudStatus::tunnels`]; `None` for
    /// none.
    pub stream: Option<CloudStreamSettings>,
    /// Our modules that are left out, by name.
    pub without: BTreeSet<ModuleName>,
    /// What happens to a module that fails or panics; see the module's text.
    pub restart: Restart,
    /// The time of day that all modules go by.
    pub clock: Clock,
}

impl CloudCoreSettings {
    /// KubeEdge's settings, but for where edges connect to.
    pub fn listening(listen: Endpoint) -> Self {
        Self { listen, ..Self::default() }
    }
}

impl Default for CloudCoreSettings {
    fn default() -> Self {
        Self {
            listen: Endpoint::from("0.0.0.0:10000"),
            hub: CloudHubSettings::default(),
            certs: CertSettings::default(),
            objects: EdgeControllerSettings::default(),
            sync: SyncSettings::default(),
            stream: None,
            without: BTreeSet::new(),
            restart: Restart::default(),
            clock: Clock::wall(),
        }
    }
}

/// What modules are made from. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CloudParts {
    /// Clients on the cluster.
    pub clients: Arc<Clients>,
    /// The informers all modules share.
    pub informers: Arc<Informers>,
    /// CA and server certificate.
    pub identity: Identity,
    /// The records of deliveries.
    pub records: Arc<Records>,
    /// The nodes that are connected, and those that come and go ([`Sessions::subscribe`]).
    pub sessions: Sessions,
    /// The time of day that all modules go by.
    pub clock: Clock,
    /// What is seen of the cloudcore.
    pub status: CloudStatus,
}

/// What can be seen of a cloudcore from outside. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CloudStatus {
    /// Where edges connect to, with real ports; empty while the hub does not listen.
    pub hub: watch::Receiver<Vec<Endpoint>>,
    /// Where edges join, once it listens; `None` for ever without the HTTPS module.
    pub https: watch::Receiver<Option<SocketAddr>>,
    /// The join token.
    pub token: watch::Receiver<String>,
    /// The nodes that are connected.
    pub sessions: Sessions,
    /// The CA certificate in DER.
    pub ca: Bytes,
    /// The way to the kubelet APIs of nodes; empty without [`CloudCoreSettings::stream`].
    pub tunnels: Tunnels,
    /// Where tunnels are dialled, once they can be; `None` without [`CloudCoreSettings::stream`].
    pub tunnel: Option<watch::Receiver<Option<Endpoint>>>,
}

impl CloudStatus {
    /// Completes when edges can join, connect and dial their tunnels. Never without the hub or the HTTPS
    /// module.
    pub async fn ready(&self) {
        let (mut hub, mut https, tunnel) = (self.hub.clone(), self.https.clone(), self.tunnel.clone());
        // An error means that the module is gone, and with it any readiness.
        let up = async {
            let _ = hub.wait_for(|bound| !bound.is_empty()).await?;
            let _ = https.wait_for(Option::is_some).await?;
            if let Some(mut tunnel) = tunnel {
                let _ = tunnel.wait_for(Option::is_some).await?;
            }
            Ok::<_, watch::error::RecvError>(())
        };
        if up.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether edges can join, connect and dial their tunnels now.
    pub fn is_ready(&self) -> bool {
        let tunnel = self.tunnel.as_ref().is_none_or(|tunnel| tunnel.borrow().is_some());
        tunnel && !self.hub.borrow().is_empty() && self.https.borrow().is_some()
    }
}

/// Why no cloudcore came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// Certificates or token could not be had.
    #[error("preparing certificates: {0}")]
    Certificates(#[from] PrepareError),
    /// The modules do not go together.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Makes a module of a vendor's, as often as it fails.
type MakeModule = Box<dyn FnMut(&CloudParts) -> Box<dyn Module> + Send>;

/// Collects the parts of a cloudcore; see [`CloudCore::assemble`].
pub struct CloudCoreBuilder {
    settings: CloudCoreSettings,
    transport: Arc<dyn Transport>,
    more: Vec<(Arc<dyn Transport>, Endpoint)>,
    cluster: Arc<dyn ClusterApi>,
    codec: Arc<dyn Codec>,
    tunnel: Option<Arc<dyn Transport>>,
    modules: Vec<MakeModule>,
}

impl fmt::Debug for CloudCoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudCoreBuilder")
            .field("settings", &self.settings)
            .field("more", &self.more)
            .finish_non_exhaustive()
    }
}

impl CloudCoreBuilder {
    /// Listens for links over a further transport too.
    #[must_use]
    pub fn listen(mut self, transport: impl Transport, at: Endpoint) -> Self {
        self.more.push((Arc::new(transport), at));
        self
    }

    /// Listens for the tunnels of [`CloudCoreSettings::stream`] over another transport than for links. Edges
    /// dial them over WebSocket.
    #[must_use]
    pub fn tunnel_over(mut self, transport: impl Transport) -> Self {
        self.tunnel = Some(Arc::new(transport));
        self
    }

    /// Adds a module. When it fails, a clone of it is started, as [`CloudCoreSettings::restart`] says.
    #[must_use]
    pub fn module(self, module: impl Module + Clone) -> Self {
        self.module_with(move |_| module.clone())
    }

    /// Adds a module that is made from the same clients and informers as ours, now and again whenever it has
    /// failed.
    #[must_use]
    pub fn module_with<M: Module>(mut self, mut make: impl FnMut(&CloudParts) -> M + Send + 'static) -> Self {
        self.modules.push(Box::new(move |parts| Box::new(make(parts))));
        self
    }

    /// Leaves out one of our modules, by name.
    #[must_use]
    pub fn without(mut self, module: &ModuleName) -> Self {
        self.settings.without.insert(module.clone());
        self
    }

    /// Another codec than Go's JSON.
    #[must_use]
    pub fn codec(mut self, codec: Arc<dyn Codec>) -> Self {
        self.codec = codec;
        self
    }

    /// Finds or makes the certificates and puts everything together. Must be called within a tokio runtime.
    pub async fn build(self) -> Result<CloudCore, CoreError> {
        let Self { settings, transport, more, cluster, codec, tunnel, modules } = self;
        let CloudCoreSettings { listen, hub, certs, objects, sync, stream, without, restart, clock } =
            settings;
        let clients = Arc::new(Clients::new(cluster).with_clock(clock.clone()));
        let informers = Arc::new(Informers::new(clients.kube().clone()));
        let identity = Identity::prepare(&certs, &clients).await?;
        let listeners = std::iter::once((transport.clone(), listen)).chain(more);
        let doors = listeners.map(|(transport, endpoint)| {
            let credentials = identity.credentials();
            HubListener::new(transport, endpoint, credentials)
        });
        let denylist = DenylistKeeper::new(&clients, &informers);
        let instance = Instance::new(&objects.address);
        let records = Arc::new(Records::new(clients.clone(), &informers));
        let hub = CloudHub::new(hub, doors.collect(), codec, &clients, &informers, &records, &instance);
        let hub = hub.with_denylist(denylist.list());
        let certs = CertService::new(certs, identity.clone(), &clients).await?.with_denylist(denylist.list());
        let stream = stream.map(|settings| {
            let transport = tunnel.unwrap_or(transport);
            let stream = CloudStream::new(settings, transport, identity.credentials(), &clients);
            stream.with_denylist(denylist.list())
        });
        let status = CloudStatus {
            tunnels: stream.as_ref().map(CloudStream::tunnels).unwrap_or_default(),
            tunnel: stream.as_ref().map(CloudStream::bound),
            hub: hub.bound(),
            https: certs.bound(),
            token: certs.token(),
            sessions: hub.sessions(),
            ca: identity.authority.certificate().clone(),
        };
        let (sessions, told) = (hub.sessions(), status.clone());
        let parts = CloudParts { clients, informers, identity, records, sessions, clock, status: told };
        let mut kernel = Kernel::builder().clock(parts.clock.clone()).seed(sync.seed);
        if !without.contains(&hub.name()) {
            kernel = kernel.module(hub);
        }
        let supervised = Supervised { restart, without, parts: parts.clone() };
        let controller = EdgeController::new(objects, &parts.clients, &parts.informers, &instance);
        let kernel = supervised.ours(kernel, move |_| denylist.clone());
        let kernel = supervised.ours(kernel, move |_| controller.clone());
        let kernel = supervised.ours(kernel, |p| DeviceController::new(&p.clients, &p.informers));
        let kernel = supervised.ours(kernel, move |p| {
            SyncController::new(sync, &p.clients, &p.informers, &p.records, p.sessions.clone())
        });
        let kernel = supervised.ours(kernel, move |_| certs.clone());
        let kernel = match stream {
            Some(stream) => supervised.ours(kernel, move |_| stream.clone()),
            None => kernel,
        };
        let kernel = modules.into_iter().fold(kernel, |kernel, make| supervised.theirs(kernel, make));
        Ok(CloudCore { kernel: kernel.build()?, status, parts })
    }
}

/// How modules are started anew.
struct Supervised {
    restart: Restart,
    without: BTreeSet<ModuleName>,
    parts: CloudParts,
}

impl Supervised {
    /// Adds one of our modules, unless it is left out.
    fn ours<M: Module>(
        &self,
        kernel: KernelBuilder,
        make: impl FnMut(&CloudParts) -> M + Send + 'static,
    ) -> KernelBuilder {
        let (mut make, parts) = (make, self.parts.clone());
        let left_out = self.without.contains(&make(&parts).name());
        if left_out { kernel } else { kernel.supervised(self.restart, move || make(&parts)) }
    }

    /// Adds a module of a vendor's.
    fn theirs(&self, kernel: KernelBuilder, mut make: MakeModule) -> KernelBuilder {
        let parts = self.parts.clone();
        kernel.supervised(self.restart, move || make(&parts))
    }
}

/// A cloudcore ready to run.
#[derive(Debug)]
pub struct CloudCore {
    kernel: Kernel,
    status: CloudStatus,
    parts: CloudParts,
}

impl CloudCore {
    /// Starts to put a cloudcore together. `transport` listens where the settings say.
    pub fn assemble(
        settings: CloudCoreSettings,
        transport: impl Transport,
        cluster: impl ClusterApi,
    ) -> CloudCoreBuilder {
        CloudCoreBuilder {
            settings,
            transport: Arc::new(transport),
            more: Vec::new(),
            cluster: Arc::new(cluster),
            codec: Arc::new(GoJson),
            tunnel: None,
            modules: Vec::new(),
        }
    }

    /// What can be seen from outside, also while it runs.
    pub fn status(&self) -> CloudStatus {
        self.status.clone()
    }

    /// Clients, informers and certificates.
    pub fn parts(&self) -> &CloudParts {
        &self.parts
    }

    /// The way to its modules, for code outside of them.
    pub fn bus(&self) -> Bus {
        self.kernel.bus()
    }

    /// Runs until `shutdown` completes or a module fails for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), KernelError> {
        // Watches go on until the last module has ended.
        let _parts = self.parts;
        self.kernel.run(shutdown).await
    }
}
