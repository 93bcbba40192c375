//! From `edgecore.yaml` to an edgecore.
//!
//! ```no_run
//! # use kubeedge_core::{runtime::ContainerRuntime, store::MetaStore, transport::Transport};
//! # use kubeedge_config::{self as config, Host, edge::EdgeCoreConfig};
//! # async fn doc(transport: impl Transport, store: impl MetaStore, runtime: impl ContainerRuntime)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use kubeedge_edge::{EdgeCore, config::EdgePlan};
//!
//! let (host, path) = (Host::detect(), std::path::Path::new("/etc/kubeedge/config/edgecore.yaml"));
//! let config = config::load::<EdgeCoreConfig>(path, &host)?.config;
//! let plan = EdgePlan::new(&config, &host)?;
//! let edge = EdgeCore::assemble(plan.settings, transport, store, runtime).build()?;
//! edge.run(std::future::pending()).await?;
//! # Ok(()) }
//! ```

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::Taint;
use kubeedge_config::{
    Host, PlanError,
    edge::{self, EdgeCoreConfig},
};
use kubeedge_core::{name::ModuleName, transport::Endpoint};

use crate::{
    assembly::EdgeCoreSettings,
    edged::{
        EdgedSettings,
        server::{EDGED_SERVER, EdgedServerSettings},
    },
    eventbus::{EventBusSettings, MqttMode},
    hub::{EdgeHubSettings, IdentitySource, JoinSettings},
    meta::MetaManagerSettings,
    stream::EdgeStreamSettings,
};

/// Where `keadm join` leaves the join token.
pub const BOOTSTRAP_FILE: &str = "/etc/kubeedge/bootstrap-edgecore.conf";

/// The keys that [`EdgePlan`] makes use of; a path stands for all below it.
pub const ACTED_ON: &[&str] = &[
    "database.dataSource",
    "modules.deviceTwin.enable",
    "modules.edgeHub.enable",
    "modules.edgeHub.heartbeat",
    "modules.edgeHub.httpServer",
    "modules.edgeHub.messageBurst",
    "modules.edgeHub.messageQPS",
    "modules.edgeHub.projectID",
    "modules.edgeHub.quic.enable",
    "modules.edgeHub.quic.handshakeTimeout",
    "modules.edgeHub.quic.server",
    "modules.edgeHub.quic.writeDeadline",
    "modules.edgeHub.rotateCertificates",
    "modules.edgeHub.tlsCaFile",
    "modules.edgeHub.tlsCertFile",
    "modules.edgeHub.tlsPrivateKeyFile",
    "modules.edgeHub.token",
    "modules.edgeHub.uploadQueueBytes",
    "modules.edgeHub.uploadQueueSize",
    "modules.edgeHub.websocket.enable",
    "modules.edgeHub.websocket.handshakeTimeout",
    "modules.edgeHub.websocket.server",
    "modules.edgeHub.websocket.writeDeadline",
    "modules.edgeStream.enable",
    "modules.edgeStream.handshakeTimeout",
    "modules.edgeStream.server",
    "modules.edgeStream.writeDeadline",
    "modules.edged.enable",
    "modules.edged.hostnameOverride",
    "modules.edged.nodeIP",
    "modules.edged.nodeLabels",
    "modules.edged.registerSchedulable",
    "modules.edged.reportEvent",
    "modules.edged.rootDirectory",
    "modules.edged.tailoredKubeletConfig.clusterDNS",
    "modules.edged.tailoredKubeletConfig.clusterDomain",
    "modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint",
    "modules.edged.tailoredKubeletConfig.imageServiceEndpoint",
    "modules.edged.tailoredKubeletConfig.maxPods",
    "modules.edged.tailoredKubeletConfig.podLogsDir",
    "modules.edged.tailoredKubeletConfig.readOnlyPort",
    "modules.edged.tailoredKubeletConfig.registerNode",
    "modules.edged.tailoredKubeletConfig.registerWithTaints",
    "modules.edged.tailoredKubeletConfig.runtimeRequestTimeout",
    "modules.eventBus.enable",
    "modules.eventBus.eventBusTLS.enable",
    "modules.eventBus.mqttMode",
    "modules.eventBus.mqttPassword",
    "modules.eventBus.mqttPubClientID",
    "modules.eventBus.mqttQOS",
    "modules.eventBus.mqttRetain",
    "modules.eventBus.mqttServerExternal",
    "modules.eventBus.mqttServerInternal",
    "modules.eventBus.mqttSessionQueueSize",
    "modules.eventBus.mqttSubClientID",
    "modules.eventBus.mqttUsername",
    "modules.metaManager.enable",
    "modules.metaManager.remoteQueryTimeout",
];

/// The keys that are set to something else than their default and that nothing makes use of yet.
pub fn not_acted_on(config: &EdgeCoreConfig, host: &Host) -> Vec<String> {
    kubeedge_config::not_acted_on(config, host, ACTED_ON)
}

/// The container runtime that a configuration names: one that speaks CRI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEndpoint {
    /// The socket, as `unix:///path`.
    pub runtime: String,
    /// The socket of the image service; `None` for the same.
    pub images: Option<String>,
    /// How long it may take to answer.
    pub timeout: Duration,
}

/// The link over QUIC that a configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicLink {
    /// Where cloudcore listens for it, `host:port`.
    pub server: String,
    /// How long its handshakes may take.
    pub handshake: Duration,
    /// Whether the link falls back to WebSocket, at the hub's servers. Otherwise those are the one above.
    pub falls_back: bool,
}

/// What a configuration asks for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EdgePlan {
    /// How edgecore works.
    pub settings: EdgeCoreSettings,
    /// The link over QUIC, if it is on. Whoever puts things together makes its transport; the tunnel goes
    /// over WebSocket all the same ([`EdgeCoreBuilder::tunnel_over`](crate::EdgeCoreBuilder::tunnel_over)).
    pub quic: Option<QuicLink>,
    /// The container runtime.
    pub runtime: RuntimeEndpoint,
    /// The file of the store.
    pub database: PathBuf,
}

impl EdgePlan {
    /// Fails for what the rules of the file allow and ours is not able to: MQTT over TLS.
    pub fn new(config: &EdgeCoreConfig, host: &Host) -> Result<Self, PlanError> {
        let modules = &config.modules;
        refuse(modules)?;
        let kubelet = &modules.edged.tailored_kubelet_config;
        let images = &kubelet.image_service_endpoint;
        let other_images = !images.is_empty() && *images != kubelet.container_runtime_endpoint;
        Ok(Self {
            settings: settings(modules, host),
            quic: quic(&modules.edge_hub),
            runtime: RuntimeEndpoint {
                runtime: kubelet.container_runtime_endpoint.clone(),
                images: other_images.then(|| images.clone()),
                timeout: kubelet.runtime_request_timeout.0,
            },
            database: PathBuf::from(&config.database.data_source),
        })
    }

    /// Takes the join token from a file such as [`BOOTSTRAP_FILE`], over the configuration's, now or when it
    /// will be there.
    pub fn bootstrap(&mut self, file: &Path) {
        if let IdentitySource::Join(join) = &mut self.settings.hub.identity {
            join.token_file = Some(file.to_owned());
        }
    }

    /// Keeps everything in one folder, whatever paths the configuration names: store, certificates, volumes
    /// and logs.
    pub fn keep_in(&mut self, folder: &Path) {
        self.database = folder.join("edgecore.db");
        self.settings = self.settings.clone().in_folder(folder);
    }
}

fn refuse(modules: &edge::Modules) -> Result<(), PlanError> {
    if modules.event_bus.enable && modules.event_bus.event_bus_tls.enable {
        let what =
            "is true, and MQTT over TLS is not spoken yet: set it to false, with a broker on this host";
        return Err(PlanError::new("modules.eventBus.eventBusTLS.enable", what));
    }
    Ok(())
}

/// How edgecore works, from the defaults of its node.
fn settings(modules: &edge::Modules, host: &Host) -> EdgeCoreSettings {
    let defaults = EdgeCoreSettings::for_node(modules.edged.hostname_override.as_str());
    let seed = defaults.hub.seed;
    let edged = edged(&modules.edged, defaults.edged, host);
    EdgeCoreSettings {
        hub: hub(&modules.edge_hub, defaults.hub),
        meta: MetaManagerSettings {
            remote_query_timeout: seconds(modules.meta_manager.remote_query_timeout),
            ..defaults.meta
        },
        server: EdgedServerSettings {
            address: SocketAddr::from(([127, 0, 0, 1], edged.server_port)),
            logs: edged.logs.clone(),
            ..defaults.server
        },
        edged,
        stream: modules.edge_stream.enable.then(|| stream(&modules.edge_stream, seed)),
        eventbus: event_bus(&modules.event_bus, defaults.eventbus),
        without: off(modules).collect(),
        ..defaults
    }
}

/// The modules that are off.
fn off(modules: &edge::Modules) -> impl Iterator<Item = ModuleName> {
    let switches = [
        (modules.edge_hub.enable, ModuleName::EDGE_HUB),
        (modules.meta_manager.enable, ModuleName::META_MANAGER),
        (modules.edged.enable, ModuleName::EDGED),
        (modules.edged.enable, EDGED_SERVER),
        (modules.device_twin.enable, ModuleName::TWIN),
        (modules.event_bus.enable, ModuleName::EVENT_BUS),
    ];
    switches.into_iter().filter_map(|(on, module)| (!on).then_some(module))
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

fn quic(hub: &edge::EdgeHub) -> Option<QuicLink> {
    let quic = &hub.quic;
    quic.enable.then(|| QuicLink {
        server: quic.server.clone(),
        handshake: seconds(quic.handshake_timeout),
        falls_back: hub.websocket.enable,
    })
}

/// One server, or several with commas between them, which Go does not know: each is tried in turn.
fn listed(servers: &str) -> Vec<String> {
    servers.split(',').map(|server| server.trim().to_owned()).filter(|server| !server.is_empty()).collect()
}

fn hub(hub: &edge::EdgeHub, defaults: EdgeHubSettings) -> EdgeHubSettings {
    let (websocket, quic) = (&hub.websocket, &hub.quic);
    let (server, handshake, write) = match (websocket.enable, quic.enable) {
        (false, true) => (&quic.server, quic.handshake_timeout, quic.write_deadline),
        // One dial may try both.
        (true, true) => (
            &websocket.server,
            websocket.handshake_timeout.saturating_add(quic.handshake_timeout),
            websocket.write_deadline.max(quic.write_deadline),
        ),
        (_, false) => (&websocket.server, websocket.handshake_timeout, websocket.write_deadline),
    };
    // More than this machine can count is as good as no bound.
    let bound = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    EdgeHubSettings {
        uploads: hub.upload_queue_size.map_or(defaults.uploads, |number| bound(number.into())),
        upload_bytes: hub.upload_queue_bytes.map_or(defaults.upload_bytes, bound),
        project: hub.project_id.clone(),
        servers: listed(server),
        heartbeat: seconds(hub.heartbeat),
        qps: hub.message_qps,
        burst: hub.message_burst,
        handshake: seconds(handshake),
        write: seconds(write),
        identity: IdentitySource::Join(JoinSettings {
            https: hub.http_server.clone(),
            token: Some(hub.token.trim().to_owned()).filter(|token| !token.is_empty()),
            token_file: None,
            ca_file: PathBuf::from(&hub.tls_ca_file),
            cert_file: PathBuf::from(&hub.tls_cert_file),
            key_file: PathBuf::from(&hub.tls_private_key_file),
            rotate: hub.rotate_certificates,
        }),
        ..defaults
    }
}

fn stream(stream: &edge::EdgeStream, seed: u64) -> EdgeStreamSettings {
    EdgeStreamSettings {
        seed,
        servers: listed(&stream.server).into_iter().map(Endpoint::from).collect(),
        handshake: seconds(stream.handshake_timeout),
        write: seconds(stream.write_deadline),
        ..EdgeStreamSettings::default()
    }
}

fn edged(edged: &edge::Edged, defaults: EdgedSettings, host: &Host) -> EdgedSettings {
    let kubelet = &edged.tailored_kubelet_config;
    let address = edged.node_ip.clone().filter(|address| !address.is_empty());
    EdgedSettings {
        node_ip: address.unwrap_or_else(|| host.address.to_string()),
        node_labels: edged.node_labels.clone().unwrap_or_default(),
        node_taints: taints(edged),
        register_node: kubelet.register_node,
        max_pods: kubelet.max_pods,
        root: PathBuf::from(&edged.root_directory),
        logs: PathBuf::from(&kubelet.pod_logs_dir),
        cluster_dns: kubelet.cluster_dns.clone().unwrap_or_default(),
        cluster_domain: kubelet.cluster_domain.clone(),
        report_events: edged.report_event,
        // Rules keep it within 16 bits.
        server_port: u16::try_from(kubelet.read_only_port).unwrap_or(0),
        ..defaults
    }
}

/// A node that is not schedulable is so by the taint that Kubernetes' own node controller gives it.
fn taints(edged: &edge::Edged) -> Vec<Taint> {
    let configured = edged.tailored_kubelet_config.register_with_taints.iter().flatten();
    let taint = |key: &str, value: Option<String>, effect: &str| Taint {
        key: key.to_owned(),
        value,
        effect: effect.to_owned(),
        time_added: None,
    };
    let mut taints: Vec<_> = configured
        .map(|configured| taint(&configured.key, configured.value.clone(), &configured.effect))
        .collect();
    if !edged.register_schedulable {
        taints.push(taint("node.kubernetes.io/unschedulable", None, "NoSchedule"));
    }
    taints
}

fn event_bus(bus: &edge::EventBus, defaults: EventBusSettings) -> EventBusSettings {
    EventBusSettings {
        mode: match bus.mqtt_mode {
            0 => MqttMode::Internal,
            1 => MqttMode::Both,
            _ => MqttMode::External,
        },
        external: bus.mqtt_server_external.clone(),
        internal: bus.mqtt_server_internal.clone(),
        sub_client_id: bus.mqtt_sub_client_id.clone(),
        pub_client_id: bus.mqtt_pub_client_id.clone(),
        username: bus.mqtt_username.clone(),
        password: bus.mqtt_password.clone(),
        internal_qos: bus.mqtt_qos,
        internal_retain: bus.mqtt_retain,
        session_queue: usize::try_from(bus.mqtt_session_queue_size).unwrap_or(usize::MAX),
        ..defaults
    }
}

#[cfg(test)]
mod tests;
