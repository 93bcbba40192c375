//! The site: store, API, cloudcore, edgecore and PLC, started in this order and stopped in the other.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use kubeedge_apiserver::{LocalCluster, LocalSettings};
use kubeedge_cloud::{
    CloudCore, CloudCoreBuilder, CloudCoreSettings, CloudStatus, cluster::client, stream::CloudStreamSettings,
};
use kubeedge_config::Host;
use kubeedge_core::{
    cluster::{Actor, ClusterApi},
    failure::{BoxError, chain},
    kernel::Shutdown,
    pki::Names,
    runtime::ContainerRuntime,
    store::MetaStore,
    transport::Endpoint,
};
use kubeedge_device::modbus::SimulatedPlc;
use kubeedge_edge::{
    CloudAddress, EdgeCore, EdgeCoreBuilder, EdgeCoreSettings, EdgeStatus, eventbus::MqttMode,
};
use kubeedge_store::{SqliteOptions, SqliteStore};
use kubeedge_transport::{Adaptive, WebSocket};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};

use crate::{Port, SiteError, SiteSettings};

/// How long the site may take to be ready before it says that something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a part of the site ends with: its name, or why it failed.
type Ended = Result<&'static str, SiteError>;

/// What runs, and where.
#[derive(Clone, Debug)]
pub struct Running {
    /// The node.
    pub node: String,
    /// The folder, as an absolute path.
    pub folder: PathBuf,
    /// The kubeconfig of the cluster's administrator.
    pub kubeconfig: PathBuf,
    /// Where the Kubernetes API answers.
    pub api: SocketAddr,
    /// The cloudcore.
    pub cloud: CloudStatus,
    /// The edgecore.
    pub edge: EdgeStatus,
    /// Where the simulated PLC answers, if it was wanted.
    pub plc: Option<SocketAddr>,
}

/// A site; see the crate's text. Dropped, it stops without order.
pub struct Site {
    settings: SiteSettings,
    parts: JoinSet<Ended>,
    /// What is added to the cores.
    edge: Vec<Box<dyn FnOnce(EdgeCoreBuilder) -> EdgeCoreBuilder + Send>>,
    cloud: Vec<Box<dyn FnOnce(CloudCoreBuilder) -> CloudCoreBuilder + Send>>,
    /// In the order of the start: stopped from the last.
    stops: Vec<(Shutdown, AbortHandle)>,
    /// Closed last, so that each is one whole file again.
    stores: Vec<Arc<dyn MetaStore>>,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Site {
    /// A site in its folder, which is made when it is missing. Nothing runs yet.
    pub fn open(mut settings: SiteSettings) -> Result<Self, SiteError> {
        let folder = std::fs::create_dir_all(&settings.folder).and_then(|()| settings.folder.canonicalize());
        settings.folder = folder.map_err(|error| SiteError::Folder(settings.folder.clone(), error))?;
        let (edge, cloud) = (Vec::new(), Vec::new());
        Ok(Self { settings, parts: JoinSet::new(), edge, cloud, stops: Vec::new(), stores: Vec::new() })
    }

    /// Adds something to the edgecore, such as mappers and modules.
    #[must_use]
    pub fn edge(mut self, add: impl FnOnce(EdgeCoreBuilder) -> EdgeCoreBuilder + Send + 'static) -> Self {
        self.edge.push(Box::new(add));
        self
    }

    /// Adds something to the cloudcore, such as modules.
    #[must_use]
    pub fn cloud(mut self, add: impl FnOnce(CloudCoreBuilder) -> CloudCoreBuilder + Send + 'static) -> Self {
        self.cloud.push(Box::new(add));
        self
    }

    /// The folder of the node, where a runtime may keep its own.
    pub fn edge_folder(&self) -> Result<PathBuf, SiteError> {
        let folder = self.settings.folder.join("edge");
        std::fs::create_dir_all(&folder).map_err(|error| SiteError::Folder(folder.clone(), error))?;
        Ok(folder)
    }

    /// Starts everything and waits until the node is ready. Pods run on `runtime`. After an error or when
    /// dropped midway, [`Site::stop`] stops what was started.
    pub async fn start(&mut self, runtime: impl ContainerRuntime) -> Result<Running, SiteError> {
        let api = self.api().await?;
        let kubeconfig = self.settings.folder.join("kubeconfig");
        kubeedge_common::file::replace(&kubeconfig, api.kubeconfig().as_bytes(), 0o600)
            .map_err(|error| SiteError::Part("writing the kubeconfig", error.into()))?;
        let (address, cluster, ca) = (api.address(), api.cluster().clone(), api.ca_pem().to_owned());
        self.spawn("the Kubernetes API", |stop| api.run(stop));
        let cloud = self.start_cloud(cluster.clone(), &ca).await?;
        cluster.set_streams(Arc::new(cloud.tunnels.clone()));
        let plc = if self.settings.plc { Some(self.plc().await?) } else { None };
        let edge = self.start_edge(&cloud, runtime).await?;
        let node = self.settings.node.clone();
        let ready = tokio::time::timeout(PATIENCE, node_ready(&cluster, &node)).await;
        ready
            .map_err(|_| SiteError::Late("the node", PATIENCE))?
            .map_err(|error| SiteError::Part("waiting for the node", error.into()))?;
        let folder = self.settings.folder.clone();
        Ok(Running { node, folder, kubeconfig, api: address, cloud, edge, plc })
    }

    /// Completes when a part has failed or ended by itself; never before [`Site::start`]. Cancel-safe.
    pub async fn failed(&mut self) -> SiteError {
        match self.parts.join_next().await {
            Some(part) => failure(part),
            None => std::future::pending().await,
        }
    }

    /// Stops everything in order, the last started first. Pods are left to their runtime.
    pub async fn stop(mut self) -> Result<(), SiteError> {
        while let Some((stop, part)) = self.stops.pop() {
            stop.request();
            if part.is_finished() {
                continue;
            }
            if let Some(ended) = self.parts.join_next().await
                && !matches!(ended, Ok(Ok(_)))
            {
                tracing::warn!(error = %chain(&failure(ended)), "a part did not stop in order");
            }
        }
        for store in self.stores {
            store.close().await.map_err(|error| SiteError::Part("closing a store", error.into()))?;
        }
        Ok(())
    }

    fn spawn<F, E>(&mut self, name: &'static str, part: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let stop = Shutdown::new();
        let part = part(stop.clone());
        let handle = self.parts.spawn(async move {
            match part.await {
                Ok(()) => Ok(name),
                Err(error) => Err(SiteError::Part(name, error.into())),
            }
        });
        self.stops.push((stop, handle));
    }

    fn ports(&self) -> impl FnOnce(BoxError) -> SiteError + use<> {
        let base = self.settings.port_base;
        move |source| SiteError::Ports { base, source }
    }

    /// Opens a store that lasts as long as the site.
    async fn store(&mut self, file: &Path, what: &'static str) -> Result<Arc<dyn MetaStore>, SiteError> {
        let opened = SqliteStore::open(file, SqliteOptions::default()).await;
        let store: Arc<dyn MetaStore> =
            Arc::new(opened.map_err(|error| SiteError::Part(what, error.into()))?);
        self.stores.push(store.clone());
        Ok(store)
    }

    async fn api(&mut self) -> Result<LocalCluster, SiteError> {
        let file = self.settings.folder.join("cluster.db");
        let store = self.store(&file, "the cluster's objects").await?;
        let names = Names { ips: vec![self.settings.address], ..Names::default() };
        let settings = LocalSettings::at(self.settings.at(Port::Api)?).names(names);
        let opened = LocalCluster::open(store, settings).await;
        opened.map_err(|error| self.ports()(error.into()))
    }

    async fn start_cloud(&mut self, cluster: impl ClusterApi, ca: &str) -> Result<CloudStatus, SiteError> {
        let listen = |port| Ok::<_, SiteError>(Endpoint::from(self.settings.at(port)?));
        let mut settings = CloudCoreSettings::listening(listen(Port::Hub)?);
        settings.hub.cluster_ca = ca.into();
        settings.certs.listen = self.settings.at(Port::Https)?;
        settings.certs.names = vec![self.settings.address.to_string(), "localhost".to_owned()];
        settings.objects.address = self.settings.address.to_string();
        settings.stream = Some(CloudStreamSettings::listening(listen(Port::Tunnel)?));
        let core = CloudCore::assemble(settings, WebSocket::default(), cluster);
        let core = core.codec(Arc::new(Adaptive::default()));
        let core = std::mem::take(&mut self.cloud).into_iter().fold(core, |core, add| add(core));
        let core = core.build().await.map_err(|error| SiteError::Part("cloudcore", error.into()))?;
        let status = core.status();
        self.spawn("cloudcore", |stop| core.run(async move { stop.requested().await }));
        tokio::select! {
            up = tokio::time::timeout(PATIENCE, status.ready()) => {
                up.map_err(|_| self.ports()("nobody listens; see the log".into()))?;
            }
            error = self.failed() => return Err(self.ports()(error.into())),
        }
        Ok(status)
    }

    async fn plc(&mut self) -> Result<SocketAddr, SiteError> {
        let wanted = self.settings.at(Port::Plc)?;
        let plc = SimulatedPlc::listen(wanted).await;
        let plc =
            plc.map_err(|error| self.ports()(format!("the simulated PLC on {wanted}: {error}").into()))?;
        let address = plc.address();
        self.spawn("the simulated PLC", |stop| plc.run(async move { stop.requested().await }));
        Ok(address)
    }

    async fn start_edge(
        &mut self,
        cloud: &CloudStatus,
        runtime: impl ContainerRuntime,
    ) -> Result<EdgeStatus, SiteError> {
        // Edgecore would try again and again until the port is free; whoever starts a site is told now.
        let wanted = self.settings.at(Port::Mqtt)?;
        let free = TcpListener::bind(wanted).await.map(drop);
        free.map_err(|error| self.ports()(format!("the MQTT broker on {wanted}: {error}").into()))?;
        let folder = self.edge_folder()?;
        let store = self.store(&folder.join("edgecore.db"), "what the node keeps").await?;
        let settings = self.edge_settings(&folder, cloud).await?;
        let core = EdgeCore::assemble(settings, WebSocket::default(), store, runtime);
        let core = core.codec(Arc::new(Adaptive::default()));
        let core = std::mem::take(&mut self.edge).into_iter().fold(core, |core, add| add(core));
        let core = core.build().map_err(|error| SiteError::Part("edgecore", error.into()))?;
        let status = core.status();
        self.spawn("edgecore", |stop| core.run(async move { stop.requested().await }));
        tokio::select! {
            up = tokio::time::timeout(PATIENCE, edge_up(status.clone())) => {
                up.map_err(|_| SiteError::Late("edgecore", PATIENCE))?;
            }
            error = self.failed() => return Err(error),
        }
        Ok(status)
    }

    async fn edge_settings(&self, folder: &Path, cloud: &CloudStatus) -> Result<EdgeCoreSettings, SiteError> {
        let gone = SiteError::Ended("cloudcore");
        let mut token = cloud.token.clone();
        let Ok(token) = token.wait_for(|token| !token.is_empty()).await else { return Err(gone) };
        let Some(https) = *cloud.https.borrow() else { return Err(gone) };
        let settings = EdgeCoreSettings::for_node(self.settings.node.as_str()).in_folder(folder);
        let cloud = CloudAddress::new(hub(cloud).authority(), https.to_string(), tunnel(cloud).authority());
        let mut settings = settings.joining(cloud, &token);
        // One machine: a limit would only slow the first apply down.
        settings.hub.qps = 0;
        settings.edged.node_ip = self.settings.address.to_string();
        settings.edged.hostname = Some(Host::detect().name);
        settings.edged.report_events = true;
        settings.server.address = self.settings.at(Port::Kubelet)?;
        settings.edged.server_port = settings.server.address.port();
        settings.eventbus.mode = MqttMode::Internal;
        settings.eventbus.internal = format!("tcp://{}", self.settings.at(Port::Mqtt)?);
        Ok(settings)
    }
}

/// What a part that ended before the site did has to say.
fn failure(part: Result<Ended, tokio::task::JoinError>) -> SiteError {
    match part {
        Ok(Ok(name)) => SiteError::Ended(name),
        Ok(Err(error)) => error,
        Err(panic) => SiteError::Part("a part of the site", panic.into()),
    }
}

/// Where CloudHub listens; empty while it does not.
fn hub(cloud: &CloudStatus) -> Endpoint {
    cloud.hub.borrow().first().cloned().unwrap_or_else(|| Endpoint::from(""))
}

fn tunnel(cloud: &CloudStatus) -> Endpoint {
    let bound = cloud.tunnel.as_ref().and_then(|tunnel| tunnel.borrow().clone());
    bound.unwrap_or_else(|| Endpoint::from(""))
}

impl Running {
    /// Where CloudHub listens.
    pub fn hub(&self) -> Endpoint {
        hub(&self.cloud)
    }

    /// Where edges dial their tunnels.
    pub fn tunnel(&self) -> Endpoint {
        tunnel(&self.cloud)
    }
}

/// Completes when the broker listens and the tunnel stands; or when edgecore has ended, which is told
/// elsewhere.
async fn edge_up(mut status: EdgeStatus) {
    let broker = status.broker.wait_for(Option::is_some).await.is_ok();
    let tunnel = match &mut status.tunnel {
        Some(tunnel) => tunnel.wait_for(|up| *up).await.is_ok(),
        None => true,
    };
    if !(broker && tunnel) {
        std::future::pending::<()>().await;
    }
}

/// Completes when the node is ready.
async fn node_ready(cluster: &dyn ClusterApi, name: &str) -> Result<(), kube::Error> {
    let nodes = kube::Api::<Node>::all(client(cluster, &Actor::Ourselves));
    loop {
        let node = nodes.get_opt(name).await?;
        let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
