//! The site: store, API, cloudcore, edgecore and PLC, started in this order and stopped in the other.

use std::{
    future::Future,
    net::SocketAddr,
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kubeedge_bin::shutdown_signal;
use kubeedge_cloud::{
    apiserver::{LocalCluster, LocalSettings},
    cluster::client,
    core::{CloudCore, CloudCoreSettings, CloudStatus},
    stream::CloudStreamSettings,
};
use kubeedge_core::{
    cluster::ClusterApi, kernel::Shutdown, pki::Names, runtime::ContainerRuntime, store::MetaStore,
    transport::Endpoint,
};
use kubeedge_device::{
    Mapper,
    modbus::{Modbus, SimulatedPlc},
    simulated::Simulated,
};
use kubeedge_edge::{
    core::{EdgeCore, EdgeCoreSettings},
    eventbus::MqttMode,
    runtime::{
        cri::{CriRuntime, CriSettings},
        process::{ProcessRuntime, ProcessSettings},
    },
    stream::EdgeStreamSettings,
};
use kubeedge_store::{SqliteOptions, SqliteStore};
use kubeedge_transport::WebSocket;
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};

use crate::{Options, Runtime, table::Running};

/// How long processes of pods have to end, with the site.
const GRACE: Duration = Duration::from_secs(5);
/// How long the site may take to be ready before it says that something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a part of the site ends with.
type Ended = anyhow::Result<&'static str>;

/// Ports in their distance from the first one; KubeEdge's own numbers for a base of 10000.
#[derive(Clone, Copy)]
enum Port {
    Hub = 0,
    Https = 2,
    Tunnel = 4,
    Api = 6,
    Mqtt = 8,
    Kubelet = 10,
    Plc = 12,
}

impl Options {
    fn at(&self, port: Port) -> anyhow::Result<SocketAddr> {
        let number = match self.port_base {
            0 => 0,
            base => base.checked_add(port as u16).context("--port-base is too large; at most 65000")?,
        };
        Ok(SocketAddr::new(self.address, number))
    }
}

/// Runs the site until a signal or until a part of it fails.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let begun = Instant::now();
    let folder = std::fs::create_dir_all(&options.data_dir).and_then(|()| options.data_dir.canonicalize());
    let data = folder.with_context(|| format!("--data-dir {}", options.data_dir.display()))?;
    let (mut site, mut signal) = (Site::default(), pin!(shutdown_signal()));
    let started = tokio::select! {
        started = site.start(&options, &data, begun) => started.map(|()| true),
        () = &mut signal => Ok(false),
    };
    let ended = match started {
        Ok(true) => tokio::select! {
            () = signal => Ok(()),
            Some(part) = site.parts.join_next() => failed(part),
        },
        early => early.map(drop),
    };
    site.stop(&options, ended).await
}

/// What a part that ended before the site did has to say.
fn failed(part: Result<Ended, tokio::task::JoinError>) -> anyhow::Result<()> {
    let name = part??;
    anyhow::bail!("{name} has ended by itself")
}

/// What runs.
#[derive(Default)]
struct Site {
    parts: JoinSet<Ended>,
    /// In the order of the start: stopped from the last.
    stops: Vec<(Shutdown, AbortHandle)>,
    pods: Option<ProcessRuntime>,
    /// Closed last, so that each is one whole file again.
    stores: Vec<Arc<dyn MetaStore>>,
}

impl Site {
    async fn start(&mut self, options: &Options, data: &Path, begun: Instant) -> anyhow::Result<()> {
        let api = self.api(options, data).await?;
        let kubeconfig = data.join("kubeconfig");
        kubeedge_bin::write_secret(&kubeconfig, api.kubeconfig())?;
        let (address, cluster, ca) = (api.address(), api.cluster().clone(), api.ca_pem().to_owned());
        self.spawn(|stop| async move {
            api.run(stop).await.map_err(anyhow::Error::from_boxed)?;
            Ok("the Kubernetes API")
        });
        let cloud = self.cloud(options, Arc::new(cluster.clone()), &ca).await?;
        cluster.set_streams(Arc::new(cloud.tunnels.clone()));
        let plc = if options.demo { Some(self.plc(options).await?) } else { None };
        let edge = self.edge(options, data, &cloud).await?;
        let ready = tokio::time::timeout(PATIENCE, node_ready(&cluster, &options.node)).await;
        ready.with_context(|| {
            format!("node {} is not ready after {PATIENCE:?}; see the log", options.node)
        })??;
        let running = Running {
            node: &options.node,
            runtime: match options.runtime {
                Runtime::Process => "process",
                Runtime::Cri => "cri",
            },
            data,
            kubeconfig: &kubeconfig,
            api: address,
            hub: hub(&cloud).0,
            https: *cloud.https.borrow(),
            tunnel: tunnel(&cloud).0,
            broker: *edge.borrow(),
            plc,
        };
        Ok(running.print(begun.elapsed())?)
    }

    fn spawn<F: Future<Output = Ended> + Send + 'static>(&mut self, part: impl FnOnce(Shutdown) -> F) {
        let stop = Shutdown::new();
        let handle = self.parts.spawn(part(stop.clone()));
        self.stops.push((stop, handle));
    }

    /// Opens a store that lasts as long as the site.
    async fn store(&mut self, file: &Path) -> anyhow::Result<Arc<dyn MetaStore>> {
        let store: Arc<dyn MetaStore> = Arc::new(SqliteStore::open(file, SqliteOptions::default()).await?);
        self.stores.push(store.clone());
        Ok(store)
    }

    async fn api(&mut self, options: &Options, data: &Path) -> anyhow::Result<LocalCluster> {
        let store = self.store(&data.join("cluster.db")).await.context("the cluster's objects")?;
        let names = Names { ips: vec![options.address], ..Names::default() };
        let settings = LocalSettings { address: options.at(Port::Api)?, names };
        LocalCluster::open(store, settings).await.with_context(|| port_hint(options))
    }

    async fn cloud(
        &mut self,
        options: &Options,
        cluster: Arc<dyn ClusterApi>,
        ca: &str,
    ) -> anyhow::Result<CloudStatus> {
        let transport = || Arc::new(WebSocket::default());
        let mut settings =
            CloudCoreSettings { listen: Endpoint::from(options.at(Port::Hub)?), ..Default::default() };
        settings.hub.cluster_ca = ca.into();
        settings.certs.listen = options.at(Port::Https)?;
        settings.certs.names = vec![options.address.to_string(), "localhost".to_owned()];
        settings.objects.address = options.address.to_string();
        let tunnel =
            CloudStreamSettings { listen: Endpoint::from(options.at(Port::Tunnel)?), ..Default::default() };
        let core =
            CloudCore::assemble(settings, transport(), cluster).tunnel(tunnel, transport()).build().await?;
        let status = core.status();
        self.spawn(|stop| async move {
            core.run(async move { stop.requested().await }).await?;
            Ok("cloudcore")
        });
        let up = tokio::time::timeout(PATIENCE, status.ready());
        tokio::select! {
            up = up => up.with_context(|| port_hint(options))?,
            Some(part) = self.parts.join_next() => failed(part).with_context(|| port_hint(options))?,
        }
        Ok(status)
    }

    async fn plc(&mut self, options: &Options) -> anyhow::Result<SocketAddr> {
        let wanted = options.at(Port::Plc)?;
        let plc =
            SimulatedPlc::listen(wanted).await.with_context(|| format!("the simulated PLC on {wanted}"));
        let plc = plc.with_context(|| port_hint(options))?;
        let address = plc.address();
        self.spawn(|stop| async move {
            plc.run(async move { stop.requested().await }).await?;
            Ok("the simulated PLC")
        });
        Ok(address)
    }

    async fn edge(
        &mut self,
        options: &Options,
        data: &Path,
        cloud: &CloudStatus,
    ) -> anyhow::Result<tokio::sync::watch::Receiver<Option<SocketAddr>>> {
        let folder = data.join("edge");
        std::fs::create_dir_all(&folder)?;
        // Edgecore would try again and again until the port is free; whoever starts a site is told now.
        let wanted = options.at(Port::Mqtt)?;
        let free = TcpListener::bind(wanted).await.map(drop);
        let free = free.with_context(|| format!("the MQTT broker on {wanted}"));
        free.with_context(|| port_hint(options))?;
        let store = self.store(&folder.join("edgecore.db")).await.context("what the node keeps")?;
        let runtime = self.runtime(options, &folder).await?;
        let settings = edge_settings(options, &folder, cloud).await?;
        let transport = Arc::new(WebSocket::default());
        let tunnel_to = EdgeStreamSettings { server: tunnel(cloud), ..EdgeStreamSettings::default() };
        let core = EdgeCore::assemble(settings, transport.clone(), store, runtime)
            .tunnel(tunnel_to, transport)
            .mapper(Mapper::new(Modbus::new()))
            .mapper(Mapper::new(Simulated::new()))
            .build()?;
        let mut status = core.status();
        self.spawn(|stop| async move {
            core.run(async move { stop.requested().await }).await?;
            Ok("edgecore")
        });
        let up = async {
            status.broker.wait_for(Option::is_some).await?;
            if let Some(tunnel) = &mut status.tunnel {
                tunnel.wait_for(|up| *up).await?;
            }
            anyhow::Ok(())
        };
        let up = tokio::time::timeout(PATIENCE, up).await;
        up.with_context(|| format!("edgecore is not up after {PATIENCE:?}; see the log"))??;
        Ok(status.broker)
    }

    async fn runtime(
        &mut self,
        options: &Options,
        folder: &Path,
    ) -> anyhow::Result<Arc<dyn ContainerRuntime>> {
        match options.runtime {
            Runtime::Process => {
                let settings =
                    ProcessSettings { root: folder.join("containers"), shim: kubeedge_bin::shim()? };
                let runtime = ProcessRuntime::open(settings).await?;
                self.pods = Some(runtime.clone());
                Ok(Arc::new(runtime))
            }
            Runtime::Cri => {
                let settings =
                    CriSettings { endpoint: options.cri_endpoint.clone(), ..CriSettings::default() };
                Ok(Arc::new(CriRuntime::connect(settings)?))
            }
        }
    }

    /// Stops everything, the last started first.
    async fn stop(mut self, options: &Options, ended: anyhow::Result<()>) -> anyhow::Result<()> {
        while let Some((stop, part)) = self.stops.pop() {
            stop.request();
            if part.is_finished() {
                continue;
            }
            match self.parts.join_next().await {
                Some(Ok(Err(error))) => {
                    tracing::warn!(error = format!("{error:#}"), "a part did not stop in order")
                }
                Some(Err(error)) => tracing::warn!(%error, "a part did not stop in order"),
                _ => {}
            }
        }
        if let Some(pods) = self.pods.filter(|_| !options.keep_pods) {
            pods.stop_all(GRACE).await;
        }
        for store in self.stores {
            store.close().await?;
        }
        ended
    }
}

fn port_hint(options: &Options) -> String {
    format!(
        "starting to listen; if a port is taken, choose others with --port-base (now {})",
        options.port_base
    )
}

fn hub(cloud: &CloudStatus) -> Endpoint {
    cloud.hub.borrow().first().cloned().unwrap_or_else(|| Endpoint::from(""))
}

fn tunnel(cloud: &CloudStatus) -> Endpoint {
    let bound = cloud.tunnel.as_ref().and_then(|tunnel| tunnel.borrow().clone());
    bound.unwrap_or_else(|| Endpoint::from(""))
}

async fn edge_settings(
    options: &Options,
    folder: &Path,
    cloud: &CloudStatus,
) -> anyhow::Result<EdgeCoreSettings> {
    let token = cloud.token.clone().wait_for(|token| !token.is_empty()).await?.clone();
    let https = (*cloud.https.borrow()).context("cloudcore's HTTPS service does not listen")?;
    let mut settings = EdgeCoreSettings::for_node(&options.node).in_folder(folder).joining(
        hub(cloud).authority(),
        &https.to_string(),
        &token,
    );
    // One machine: a limit would only slow the first apply down.
    settings.hub.qps = 0;
    settings.edged.node_ip = options.address.to_string();
    settings.edged.hostname = hostname().unwrap_or_else(|| options.node.clone());
    settings.edged.report_events = true;
    settings.server.address = options.at(Port::Kubelet)?;
    settings.edged.server_port = settings.server.address.port();
    settings.eventbus.mode = MqttMode::Internal;
    settings.eventbus.internal = format!("tcp://{}", options.at(Port::Mqtt)?);
    Ok(settings)
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_lowercase()).filter(|name| !name.is_empty())
}

/// Completes when the node is ready.
async fn node_ready(cluster: &dyn ClusterApi, name: &str) -> anyhow::Result<()> {
    let nodes = kube::Api::<Node>::all(client(cluster, &kubeedge_core::cluster::Actor::Ourselves));
    loop {
        let node = nodes.get_opt(name).await?;
        let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
