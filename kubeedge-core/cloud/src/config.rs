//! From `cloudcore.yaml` to a cloudcore.
//!
//! ```no_run
//! # use kubeedge_core::transport::Transport;
//! # use kubeedge_config::{self as config, Host, cloud::CloudCoreConfig};
//! # async fn doc(transport: impl Transport) -> Result<(), Box<dyn std::error::Error>> {
//! use kubeedge_cloud::{CloudCore, config::{CloudPlan, cluster}};
//!
//! let path = std::path::Path::new("/etc/kubeedge/config/cloudcore.yaml");
//! let config = config::load::<CloudCoreConfig>(path, &Host::detect())?.config;
//! let mut settings = CloudPlan::new(&config)?.settings;
//! let cluster = cluster(&config).await?;
//! settings.hub.cluster_ca = cluster.ca;
//! let cloud = CloudCore::assemble(settings, transport, cluster.api).build().await?;
//! cloud.run(std::future::pending()).await?;
//! # Ok(()) }
//! ```

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kubeedge_config::{
    Host, PlanError,
    cloud::{CloudCoreConfig, CloudHub, KubeApiConfig},
};
use kubeedge_core::{cluster::ClusterApi, name::ModuleName, pki, transport::Endpoint};

use crate::{
    assembly::CloudCoreSettings,
    certs::{CertSettings, HTTPS},
    hub::{CloudHubSettings, HubTimes},
    kubernetes::KubeCluster,
    objects::EdgeControllerSettings,
    stream::CloudStreamSettings,
};

/// The keys that [`CloudPlan`] and [`cluster`] make use of; a path stands for all below it.
pub const ACTED_ON: &[&str] = &[
    "kubeAPIConfig.kubeConfig",
    "kubeAPIConfig.master",
    "modules.cloudHub.advertiseAddress",
    "modules.cloudHub.authorization.debug",
    "modules.cloudHub.authorization.enable",
    "modules.cloudHub.dnsNames",
    "modules.cloudHub.edgeCertSigningDuration",
    "modules.cloudHub.enable",
    "modules.cloudHub.https.address",
    "modules.cloudHub.https.port",
    "modules.cloudHub.keepaliveInterval",
    "modules.cloudHub.nodeLimit",
    "modules.cloudHub.quic",
    "modules.cloudHub.tlsCAFile",
    "modules.cloudHub.tlsCAKeyFile",
    "modules.cloudHub.tlsCertFile",
    "modules.cloudHub.tlsPrivateKeyFile",
    "modules.cloudHub.tokenRefreshDuration",
    "modules.cloudHub.websocket",
    "modules.cloudHub.writeTimeout",
    "modules.cloudStream.enable",
    "modules.cloudStream.tunnelPort",
    "modules.deviceController.enable",
    "modules.edgeController.enable",
    "modules.syncController.enable",
];

/// The keys that are set to something else than their default and that nothing makes use of yet.
pub fn not_acted_on(config: &CloudCoreConfig, host: &Host) -> Vec<String> {
    kubeedge_config::not_acted_on(config, host, ACTED_ON)
}

/// The door for links over QUIC that a configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicDoor {
    /// Where it listens.
    pub listen: Endpoint,
    /// How many streams one edge may open.
    pub streams: u32,
    /// Whether it is the only one: no edge can connect over WebSocket.
    pub alone: bool,
}

/// What a configuration asks for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CloudPlan {
    /// How cloudcore works.
    pub settings: CloudCoreSettings,
    /// The door for links over QUIC, if it is on. Whoever puts things together makes its transport, and hands
    /// it to [`CloudCoreBuilder::listen`](crate::CloudCoreBuilder::listen). When it is the only one, it is
    /// the first transport, and the tunnel goes over WebSocket all the same
    /// ([`CloudCoreBuilder::tunnel_over`](crate::CloudCoreBuilder::tunnel_over)).
    pub quic: Option<QuicDoor>,
}

impl CloudPlan {
    /// Fails for what the rules of the file allow and ours is not able to: listening on a name for the HTTPS
    /// service.
    pub fn new(config: &CloudCoreConfig) -> Result<Self, PlanError> {
        let modules = &config.modules;
        let hub = &modules.cloud_hub;
        let switches = [
            (hub.enable, ModuleName::CLOUD_HUB),
            (hub.enable, HTTPS),
            (modules.edge_controller.enable, ModuleName::EDGE_CONTROLLER),
            (modules.device_controller.enable, ModuleName::DEVICE_CONTROLLER),
            (modules.sync_controller.enable, ModuleName::SYNC_CONTROLLER),
        ];
        let off = switches.into_iter().filter_map(|(on, module)| (!on).then_some(module));
        let stream = modules.cloud_stream.enable.then(|| CloudStreamSettings {
            listen: endpoint("0.0.0.0", modules.cloud_stream.tunnel_port),
            node_limit: count(hub.node_limit),
            ..CloudStreamSettings::default()
        });
        let quic = hub.quic.enable.then(|| QuicDoor {
            listen: endpoint(&hub.quic.address, hub.quic.port),
            streams: hub.quic.max_incoming_streams,
            alone: !hub.websocket.enable,
        });
        let settings = CloudCoreSettings { stream, without: off.collect(), ..settings(hub)? };
        Ok(Self { settings, quic })
    }

    /// The same on this machine. As in Go, cloudcores of one cluster are told apart by the addresses of their
    /// machines, not by the one they advertise together; `seed` keeps what they do regularly from falling
    /// together.
    #[must_use]
    pub fn on(mut self, host: &Host, seed: u64) -> Self {
        let address = host.address.to_string();
        if let Some(stream) = &mut self.settings.stream {
            stream.recorded_as = Some(address.clone());
        }
        self.settings.objects.address = address;
        self.settings.sync.seed = seed;
        self
    }
}

fn endpoint(address: &str, port: u32) -> Endpoint {
    let open = address.contains(':') && !address.starts_with('[');
    Endpoint::from(if open { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

fn settings(hub: &CloudHub) -> Result<CloudCoreSettings, PlanError> {
    let https = endpoint(&hub.https.address, hub.https.port).0;
    let listen = https.parse::<SocketAddr>().map_err(|_| {
        let what =
            format!("{https} is no address to listen on: address must be an IP address, port up to 65535");
        PlanError::new("modules.cloudHub.https", what)
    })?;
    let names = hub.advertise_address.iter().chain(&hub.dns_names).filter(|name| !name.is_empty());
    let nodes = count(hub.node_limit);
    let requests = EdgeControllerSettings::requests_of(nodes);
    Ok(CloudCoreSettings {
        listen: endpoint(&hub.websocket.address, hub.websocket.port),
        hub: CloudHubSettings {
            node_limit: nodes,
            // As many wait as are worked on, so that there is always a next one.
            in_work: 2 * requests,
            times: HubTimes {
                keepalive: seconds(hub.keepalive_interval),
                write: seconds(hub.write_timeout),
                ..HubTimes::default()
            },
            ..CloudHubSettings::default()
        },
        certs: CertSettings {
            ca_files: files(&hub.tls_ca_file, &hub.tls_ca_key_file),
            server_files: files(&hub.tls_cert_file, &hub.tls_private_key_file),
            names: names.cloned().collect(),
            listen,
            node_certificate_days: hub.edge_cert_signing_duration,
            token_refresh: seconds(hub.token_refresh_duration) * 3600,
        },
        objects: EdgeControllerSettings {
            address: hub.advertise_address.first().cloned().unwrap_or_default(),
            requests,
            ..EdgeControllerSettings::default()
        },
        ..CloudCoreSettings::default()
    })
}

/// A pair of files counts when one of them is there; that the other is not is told when it is read. Without
/// either, certificates come from the secrets, as the default paths stand in every file.
fn files(certificate: &str, key: &str) -> Option<(PathBuf, PathBuf)> {
    let pair = (PathBuf::from(certificate), PathBuf::from(key));
    (pair.0.exists() || pair.1.exists()).then_some(pair)
}

/// A cluster as a configuration names it.
#[derive(Clone, Debug)]
pub struct ConfiguredCluster {
    /// The way to it.
    pub api: Arc<dyn ClusterApi>,
    /// Its CA certificate in PEM, for edges that ask for it; may be empty.
    pub ca: Arc<str>,
}

/// The cluster cannot be reached as the configuration says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The kubeconfig is no good.
    #[error("kubeAPIConfig.kubeConfig: {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// The URL is none.
    #[error("kubeAPIConfig.master: {url:?} is no URL such as https://192.0.2.1:6443: {source}")]
    Master {
        /// What stands there.
        url: String,
        /// What is wrong with it.
        source: http::uri::InvalidUri,
    },
    /// No cluster is named, and this is no pod.
    #[error(
        "no cluster: set kubeAPIConfig.kubeConfig to the full path of a kubeconfig, or run in a pod of the cluster ({0})"
    )]
    NotInCluster(Box<kube::config::InClusterError>),
    /// The kubeconfig wants TLS without verification, which does not exist here.
    #[error(
        "the kubeconfig says insecure-skip-tls-verify; name the API server's CA in certificate-authority instead"
    )]
    Unverified,
    /// No client can be made of it.
    #[error("preparing the client of the API server: {0}")]
    Client(Box<kube::Error>),
}

/// Prepares the way to the cluster: as the kubeconfig says, or the service account of the pod. Nothing is
/// asked of the API server yet. Must be called within a tokio runtime.
pub async fn cluster(config: &CloudCoreConfig) -> Result<ConfiguredCluster, ClusterError> {
    let kube = kube_config(&config.kube_api_config).await?;
    if kube.accept_invalid_certs {
        return Err(ClusterError::Unverified);
    }
    let ca = ca_pem(&kube);
    let api = KubeCluster::new(kube).map_err(|error| ClusterError::Client(Box::new(error)))?;
    let authorization = &config.modules.cloud_hub.authorization;
    let api = api.impersonating(authorization.enable && !authorization.debug);
    Ok(ConfiguredCluster { api: Arc::new(api), ca })
}

async fn kube_config(api: &KubeApiConfig) -> Result<kube::Config, ClusterError> {
    let path = &api.kube_config;
    let master = || {
        api.master
            .parse::<http::Uri>()
            .map_err(|source| ClusterError::Master { url: api.master.clone(), source })
    };
    let mut config = if !path.is_empty() {
        let bad = |source| ClusterError::Kubeconfig { path: path.clone(), source: Box::new(source) };
        let file = Kubeconfig::read_from(path).map_err(bad)?;
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(bad)?
    } else if !api.master.is_empty() {
        kube::Config::new(master()?)
    } else {
        kube::Config::incluster().map_err(|error| ClusterError::NotInCluster(Box::new(error)))?
    };
    if !api.master.is_empty() {
        config.cluster_url = master()?;
    }
    Ok(config)
}

fn ca_pem(kube: &kube::Config) -> Arc<str> {
    let certificates = kube.root_cert.iter().flatten();
    let pem: String = certificates.map(|der| pki::to_pem("CERTIFICATE", der)).collect();
    if !pem.is_empty() {
        return pem.into();
    }
    let file = kube.root_cert_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
    file.unwrap_or_default().into()
}

#[cfg(test)]
mod tests;
