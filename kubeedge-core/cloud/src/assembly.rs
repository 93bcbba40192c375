//! Cloudcore, put together: from a transport and a cluster to something that runs.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use kubeedge_core::{cluster::ClusterApi, transport::Transport};
//! # async fn doc(transport: Arc<dyn Transport>, cluster: Arc<dyn ClusterApi>) -> Result<(), Box<dyn std::error::Error>> {
//! use kubeedge_cloud::{CloudCore, CloudCoreSettings};
//!
//! let cloud = CloudCore::assemble(CloudCoreSettings::default(), transport, cluster).build().await?;
//! let status = cloud.status();
//! println!("join with {}", *status.token.borrow());
//! cloud.run(std::future::pending()).await?;
//! # Ok(()) }
//! ```

use std::{collections::HashSet, fmt, future::Future, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use kubeedge_core::{
    clock::Clock,
    cluster::ClusterApi,
    kernel::{Kernel, KernelError, Module},
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
    /// What cloudcore stamps with.
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
            clock: Clock::wall(),
        }
    }
}

/// What modules are made from.
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
    /// The nodes that are connected.
    pub sessions: Sessions,
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
    /// The way to the kubelet APIs of nodes; empty without [`CloudCoreBuilder::tunnel`].
    pub tunnels: Tunnels,
    /// Where tunnels are dialled, once they can be; `None` without [`CloudCoreBuilder::tunnel`].
    pub tunnel: Option<watch::Receiver<Option<Endpoint>>>,
}

impl CloudStatus {
    /// Completes when edges can join, connect and dial their tunnels. Never without the hub or the HTTPS module.
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

type MakeModule = Box<dyn FnOnce(&CloudParts) -> Box<dyn Module> + Send>;

/// Collects the parts of a cloudcore; see [`CloudCore::assemble`].
pub struct CloudCoreBuilder {
    settings: CloudCoreSettings,
    doors: Vec<(Arc<dyn Transport>, Endpoint)>,
    cluster: Arc<dyn ClusterApi>,
    codec: Arc<dyn Codec>,
    tunnel: Option<(CloudStreamSettings, Arc<dyn Transport>)>,
    modules: Vec<MakeModule>,
    without: HashSet<ModuleName>,
}

impl fmt::Debug for CloudCoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudCoreBuilder")
            .field("settings", &self.settings)
            .field("doors", &self.doors)
            .field("without", &self.without)
            .finish_non_exhaustive()
    }
}

impl CloudCoreBuilder {
    /// A second way in, beside the first transport.
    #[must_use]
    pub fn door(mut self, transport: Arc<dyn Transport>, listen: Endpoint) -> Self {
        self.doors.push((transport, listen));
        self
    }

    /// The only way in, instead of the first transport.
    #[must_use]
    pub fn only_door(mut self, transport: Arc<dyn Transport>, listen: Endpoint) -> Self {
        self.doors = vec![(transport, listen)];
        self
    }

    /// Another codec than Go's JSON.
    #[must_use]
    pub fn codec(mut self, codec: Arc<dyn Codec>) -> Self {
        self.codec = codec;
        self
    }

    /// Adds CloudStream: logs, exec, attach and metrics of nodes through [`CloudStatus::tunnels`].
    #[must_use]
    pub fn tunnel(mut self, settings: CloudStreamSettings, transport: Arc<dyn Transport>) -> Self {
        self.tunnel = Some((settings, transport));
        self
    }

    /// Adds a module.
    #[must_use]
    pub fn module(self, module: impl Module) -> Self {
        self.module_with(move |_| module)
    }

    /// Adds a module that is made from the same clients and informers as ours.
    #[must_use]
    pub fn module_with<M: Module>(mut self, make: impl FnOnce(&CloudParts) -> M + Send + 'static) -> Self {
        self.modules.push(Box::new(move |parts| Box::new(make(parts))));
        self
    }

    /// Leaves out one of our modules, by name.
    #[must_use]
    pub fn without(mut self, module: &ModuleName) -> Self {
        self.without.insert(module.clone());
        self
    }

    /// Finds or makes the certificates and puts everything together. Must be called within a tokio runtime.
    pub async fn build(self) -> Result<CloudCore, CoreError> {
        let clients = Arc::new(Clients::new(self.cluster).with_clock(self.settings.clock.clone()));
        let informers = Arc::new(Informers::new(clients.kube().clone()));
        let identity = Identity::prepare(&self.settings.certs, &clients).await?;
        let CloudCoreSettings { listen: _, hub, certs, objects, sync, clock } = self.settings;
        let doors = self.doors.into_iter().map(|(transport, endpoint)| {
            let credentials = identity.credentials();
            HubListener::new(transport, endpoint, credentials)
        });
        let denylist = DenylistKeeper::new(&clients, &informers);
        let instance = Instance::new(&objects.address);
        let records = Arc::new(Records::new(clients.clone(), &informers));
        let hub = CloudHub::new(hub, doors.collect(), self.codec, &clients, &informers, &records, &instance);
        let hub = hub.with_denylist(denylist.list());
        let certs = CertService::new(certs, identity.clone(), &clients).await?.with_denylist(denylist.list());
        let stream = self.tunnel.map(|(settings, transport)| {
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
        let parts = CloudParts { clients, informers, identity, records, sessions: hub.sessions() };
        let (clients, informers) = (&parts.clients, &parts.informers);
        let mut modules: Vec<Box<dyn Module>> = vec![
            Box::new(denylist),
            Box::new(hub),
            Box::new(EdgeController::new(objects, clients, informers, &instance)),
            Box::new(DeviceController::new(clients, informers)),
            Box::new(SyncController::new(sync, clients, informers, &parts.records, parts.sessions.clone())),
            Box::new(certs),
        ];
        modules.extend(stream.map(|stream| Box::new(stream) as Box<dyn Module>));
        modules.retain(|module| !self.without.contains(&module.name()));
        modules.extend(self.modules.into_iter().map(|make| make(&parts)));
        let kernel =
            modules.into_iter().fold(Kernel::builder().clock(clock), |kernel, module| kernel.boxed(module));
        Ok(CloudCore { kernel: kernel.build()?, status, parts })
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
        transport: Arc<dyn Transport>,
        cluster: Arc<dyn ClusterApi>,
    ) -> CloudCoreBuilder {
        let doors = vec![(transport, settings.listen.clone())];
        let (modules, without) = (Vec::new(), HashSet::new());
        let codec = Arc::new(GoJson);
        CloudCoreBuilder { settings, doors, cluster, codec, tunnel: None, modules, without }
    }

    /// What can be seen from outside, also while it runs.
    pub fn status(&self) -> CloudStatus {
        self.status.clone()
    }

    /// Clients, informers and certificates.
    pub fn parts(&self) -> &CloudParts {
        &self.parts
    }

    /// Runs until `shutdown` completes or a module fails for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), KernelError> {
        // Watches go on until the last module has ended.
        let _parts = self.parts;
        self.kernel.run(shutdown).await
    }
}
