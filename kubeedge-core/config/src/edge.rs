//! `edgecore.yaml`: `edgecore.config.kubeedge.io/v1alpha2`, kind `EdgeCore`.
//!
//! Where we differ from Go: keys that are empty where Go takes the default from the host (`hostnameOverride`,
//! the three `server` addresses of EdgeHub) have that default; `--minconfig` prints the modules as enabled as
//! they are by default.

mod check;
mod edged;
mod hub;
mod kubelet;
mod services;

pub use self::{
    edged::Edged,
    hub::{EdgeHub, EdgeHubQuic, EdgeHubWebSocket, EdgeStream},
    kubelet::{
        CrashLoopBackOff, Logging, MemoryReservation, MemorySwap, ShutdownGracePeriod, TailoredKubeletConfig,
        Taint,
    },
    services::{DbTest, DeviceTwin, EventBus, EventBusTls, MetaManager, MetaServer, ServiceBus, TaskManager},
};
use super::{Checks, ConfigFile, FeatureGates, Host, gates, section::section};

section! {
    /// The whole file.
    EdgeCoreConfig {
        /// Always `edgecore.config.kubeedge.io/v1alpha2`.
        api_version: String = Self::API_VERSION.to_owned(),
        /// Always `EdgeCore`.
        kind: String = Self::KIND.to_owned(),
        /// What is kept on this node.
        database: Database = Database::default(),
        /// The modules.
        modules: Modules = Modules::default(),
    }
    optional {
        /// Feature gates by name.
        feature_gates: FeatureGates,
        /// The version that wrote the file last.
        edgecore_version: String,
    }
}

section! {
    /// What is kept on this node.
    Database {
        /// Go does not look at it: always SQLite.
        driver_name: String = "sqlite3".to_owned(),
        /// Go does not look at it.
        alias_name: String = "default".to_owned(),
        /// The file.
        data_source: String = "/var/lib/kubeedge/edgecore.db".to_owned(),
    }
}

section! {
    /// The modules of edgecore.
    Modules {
        /// Runs the pods of this node.
        edged: Edged = Edged::default(),
        /// The link to the cloud.
        edge_hub: EdgeHub = EdgeHub::default(),
        /// MQTT.
        event_bus: EventBus = EventBus::default(),
        /// This node's copy of what the cluster says.
        meta_manager: MetaManager = MetaManager::default(),
        /// HTTP from the cloud to programs on this node.
        service_bus: ServiceBus = ServiceBus::default(),
        /// Devices.
        device_twin: DeviceTwin = DeviceTwin::default(),
        /// A test of Go's.
        db_test: DbTest = DbTest::default(),
        /// Logs, exec and metrics for the cloud.
        edge_stream: EdgeStream = EdgeStream::default(),
        /// Node jobs: upgrades, images pulled before.
        task_manager: TaskManager = TaskManager::default(),
    }
}

impl ConfigFile for EdgeCoreConfig {
    const KIND: &'static str = "EdgeCore";
    const API_VERSION: &'static str = "edgecore.config.kubeedge.io/v1alpha2";
    const MINIMAL: &'static [&'static str] = &[
        "apiVersion",
        "kind",
        "database.dataSource",
        "modules.deviceTwin",
        "modules.edged.enable",
        "modules.edged.hostnameOverride",
        "modules.edged.podSandboxImage",
        "modules.edged.rootDirectory",
        "modules.edged.tailoredKubeletConfig.cgroupDriver",
        "modules.edged.tailoredKubeletConfig.clusterDNS",
        "modules.edged.tailoredKubeletConfig.clusterDomain",
        "modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint",
        "modules.edgeHub.enable",
        "modules.edgeHub.heartbeat",
        "modules.edgeHub.httpServer",
        "modules.edgeHub.tlsCaFile",
        "modules.edgeHub.tlsCertFile",
        "modules.edgeHub.tlsPrivateKeyFile",
        "modules.edgeHub.token",
        "modules.edgeHub.websocket",
        "modules.eventBus.enable",
        "modules.eventBus.mqttMode",
        "modules.eventBus.mqttServerExternal",
        "modules.eventBus.mqttServerInternal",
    ];

    fn complete(&mut self, host: &Host) {
        (self.api_version, self.kind) = (Self::API_VERSION.to_owned(), Self::KIND.to_owned());
        let fill = |text: &mut String, default: String| {
            if text.is_empty() {
                *text = default;
            }
        };
        let modules = &mut self.modules;
        fill(&mut modules.edged.hostname_override, host.name.clone());
        fill(&mut modules.edge_hub.websocket.server, host.endpoint(10000));
        fill(&mut modules.edge_hub.quic.server, host.endpoint(10001));
        fill(&mut modules.edge_hub.http_server, format!("https://{}", host.endpoint(10002)));
    }

    fn check(&self, checks: &mut Checks) {
        gates::check(self.feature_gates.as_ref(), checks);
        check::check(self, checks);
    }
}
