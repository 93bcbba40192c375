//! `cloudcore.yaml`: `cloudcore.config.kubeedge.io/v1alpha1`, kind `CloudCore`.
//!
//! Where we differ from Go: what follows from `nodeLimit` (`kubeAPIConfig.qps` and `burst`, the counts of
//! workers and buffers) is not written over the file's values; `--minconfig` prints the modules as enabled as
//! they are by default.

mod check;
mod controllers;
mod hub;

pub use self::{
    controllers::{
        DeviceController, DeviceControllerBuffer, DeviceControllerLoad, EdgeController, EdgeControllerBuffer,
        EdgeControllerLoad, TaskManager, TaskManagerBuffer, TaskManagerLoad,
    },
    hub::{
        Authorization, AuthorizationMode, CloudHub, CloudHubHttps, CloudHubQuic, CloudHubUnixSocket,
        CloudHubWebSocket, ModeSwitch,
    },
};
use super::{Checks, ConfigFile, FeatureGates, Host, gates, section::section};

section! {
    /// The whole file.
    CloudCoreConfig {
        /// Always `cloudcore.config.kubeedge.io/v1alpha1`.
        api_version: String = Self::API_VERSION.to_owned(),
        /// Always `CloudCore`.
        kind: String = Self::KIND.to_owned(),
        /// What all modules share.
        common_config: CommonConfig = CommonConfig::default(),
        /// How the Kubernetes API is reached.
        #[serde(rename = "kubeAPIConfig")]
        kube_api_config: KubeApiConfig = KubeApiConfig::default(),
        /// The modules.
        modules: Modules = Modules::default(),
    }
    optional {
        /// Feature gates by name.
        feature_gates: FeatureGates,
    }
}

section! {
    /// What all modules share.
    CommonConfig {
        /// The port of the tunnel for `kubectl logs` as nodes tell it; Go negotiates one per cloudcore.
        tunnel_port: u32 = 10350,
        /// Health and metrics.
        monitor_server: MonitorServer = MonitorServer::default(),
    }
}

section! {
    /// Health and metrics over HTTP.
    MonitorServer {
        /// IP address and port to listen on.
        bind_address: String = "127.0.0.1:9091".to_owned(),
    }
    optional {
        /// Whether profiles can be taken.
        enable_profiling: bool,
    }
}

section! {
    /// How the Kubernetes API is reached.
    KubeApiConfig {
        /// The API server's URL; over the kubeconfig's. Empty: not told here.
        master: String = String::new(),
        /// Full path of a kubeconfig; empty, with no master: the service account of the pod.
        kube_config: String = String::new(),
        /// The encoding Go asks for; ours is JSON.
        content_type: String = "application/vnd.kubernetes.protobuf".to_owned(),
        /// Requests a second; Go forces five times nodeLimit.
        qps: u32 = 2500,
        /// Requests at once; Go forces ten times nodeLimit.
        burst: u32 = 5000,
    }
}

section! {
    /// The modules of cloudcore.
    Modules {
        /// The links to edges.
        cloud_hub: CloudHub = CloudHub::default(),
        /// Pods, nodes, ConfigMaps and the like.
        edge_controller: EdgeController = EdgeController::default(),
        /// Devices.
        device_controller: DeviceController = DeviceController::default(),
        /// Node jobs: upgrades, images pulled before.
        task_manager: TaskManager = TaskManager::default(),
        /// Brings edges up to date that missed something.
        sync_controller: SyncController = SyncController::default(),
        /// The cluster's API for programs at the edge.
        dynamic_controller: DynamicController = DynamicController::default(),
        /// Logs, exec and metrics of edge nodes.
        cloud_stream: CloudStream = CloudStream::default(),
        /// User data between cloud and edge by rules.
        router: Router = Router::default(),
        /// Rules of the packet filter that lead to the tunnel.
        iptables_manager: IptablesManager = IptablesManager::default(),
    }
}

section! {
    /// Brings edges up to date that missed something.
    SyncController {
        /// Whether it runs.
        enable: bool = true,
    }
}

section! {
    /// The cluster's API for programs at the edge.
    DynamicController {
        /// Whether it runs.
        enable: bool = false,
    }
}

section! {
    /// Logs, exec and metrics of edge nodes.
    CloudStream {
        /// Whether it runs.
        enable: bool = false,
        /// The CA that edges' tunnels are verified with.
        #[serde(rename = "tlsTunnelCAFile")]
        tls_tunnel_ca_file: String = "/etc/kubeedge/ca/rootCA.crt".to_owned(),
        /// The certificate shown to edges' tunnels.
        tls_tunnel_cert_file: String = "/etc/kubeedge/certs/server.crt".to_owned(),
        /// Its key.
        tls_tunnel_private_key_file: String = "/etc/kubeedge/certs/server.key".to_owned(),
        /// Where edges dial their tunnels.
        tunnel_port: u32 = 10004,
        /// The CA that the API server is verified with.
        #[serde(rename = "tlsStreamCAFile")]
        tls_stream_ca_file: String = "/etc/kubeedge/ca/streamCA.crt".to_owned(),
        /// The certificate shown to the API server.
        tls_stream_cert_file: String = "/etc/kubeedge/certs/stream.crt".to_owned(),
        /// Its key.
        tls_stream_private_key_file: String = "/etc/kubeedge/certs/stream.key".to_owned(),
        /// Where the API server asks for logs and the like.
        stream_port: u32 = 10003,
    }
}

section! {
    /// User data between cloud and edge by rules.
    Router {
        /// Whether it runs.
        enable: bool = false,
        /// The address it listens on.
        address: String = "0.0.0.0".to_owned(),
        /// The port it listens on.
        port: u32 = 9443,
        /// How long an edge may take to answer, in seconds.
        rest_timeout: u32 = 60,
    }
}

section! {
    /// Rules of the packet filter that lead to the tunnel.
    IptablesManager {
        /// Whether they are kept up.
        enable: bool = true,
        /// `internal`: by cloudcore; `external`: by a program of its own on each node.
        mode: String = "internal".to_owned(),
    }
}

impl ConfigFile for CloudCoreConfig {
    const KIND: &'static str = "CloudCore";
    const API_VERSION: &'static str = "cloudcore.config.kubeedge.io/v1alpha1";
    const MINIMAL: &'static [&'static str] = &[
        "apiVersion",
        "kind",
        "kubeAPIConfig.kubeConfig",
        "modules.cloudHub.advertiseAddress",
        "modules.cloudHub.enable",
        "modules.cloudHub.https",
        "modules.cloudHub.nodeLimit",
        "modules.cloudHub.tlsCAFile",
        "modules.cloudHub.tlsCAKeyFile",
        "modules.cloudHub.tlsCertFile",
        "modules.cloudHub.tlsPrivateKeyFile",
        "modules.cloudHub.unixsocket",
        "modules.cloudHub.websocket",
        "modules.iptablesManager",
        "modules.router",
    ];

    fn complete(&mut self, host: &Host) {
        (self.api_version, self.kind) = (Self::API_VERSION.to_owned(), Self::KIND.to_owned());
        let addresses = &mut self.modules.cloud_hub.advertise_address;
        if addresses.is_empty() {
            addresses.push(host.address.to_string());
        }
    }

    fn check(&self, checks: &mut Checks) {
        gates::check(self.feature_gates.as_ref(), checks);
        check::check(self, checks);
    }
}
