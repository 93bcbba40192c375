//! A cloud in this process, and an edgecore that joins it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kubeedge_apiserver::{EmbeddedCluster, LocalCluster, LocalSettings};
use kubeedge_cloud::{CloudCore, CloudCoreBuilder, CloudCoreSettings, CloudStatus, cluster::client};
use kubeedge_core::{cluster::Actor, kernel::Shutdown, transport::Endpoint};
use kubeedge_store::MemoryStore;
use kubeedge_tests::{Background, PATIENCE};
use kubeedge_transport::WebSocket;
use tempfile::TempDir;

const NODE: &str = "edge-7";

/// A cloud with a cluster of its own; it ends when dropped.
pub(crate) struct Cloud {
    cluster: EmbeddedCluster,
    status: CloudStatus,
    token: String,
    shutdown: Shutdown,
}

impl Cloud {
    /// Starts one with something more in it.
    pub(crate) async fn start(more: impl FnOnce(CloudCoreBuilder) -> CloudCoreBuilder) -> Self {
        let settings = LocalSettings::at(([127, 0, 0, 1], 0).into());
        let local = LocalCluster::open(Arc::new(MemoryStore::default()), settings).await.unwrap();
        let (cluster, shutdown) = (local.cluster().clone(), Shutdown::new());
        let mut settings = CloudCoreSettings::listening(Endpoint::from("127.0.0.1:0"));
        settings.certs.listen = ([127, 0, 0, 1], 0).into();
        settings.certs.names = vec!["127.0.0.1".to_owned()];
        let core = CloudCore::assemble(settings, Arc::new(WebSocket::default()), Arc::new(cluster.clone()));
        let core = more(core).build().await.unwrap();
        let status = core.status();
        tokio::spawn(local.run(shutdown.clone()));
        let stop = shutdown.clone();
        tokio::spawn(core.run(async move { stop.requested().await }));
        status.ready().await;
        let token = status.token.clone().wait_for(|token| !token.is_empty()).await.unwrap().clone();
        Self { cluster, status, token, shutdown }
    }

    /// The node, once it is ready.
    pub(crate) async fn ready_node(&self) -> Node {
        let nodes = Api::<Node>::all(client(&self.cluster, &Actor::Ourselves));
        let found = async {
            loop {
                let node = nodes.get_opt(NODE).await.unwrap();
                let status = node.clone().and_then(|node| node.status?.conditions).unwrap_or_default();
                if status.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
                    return node.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the node is not ready")
    }

    fn edgecore_yaml(&self, event_bus: &str, file: &Path) {
        let hub = self.status.hub.borrow().first().unwrap().authority().to_owned();
        let (https, token) = (self.status.https.borrow().unwrap(), &self.token);
        let yaml = format!(
            "apiVersion: edgecore.config.kubeedge.io/v1alpha2\nkind: EdgeCore\nmodules:\n  edgeHub:\n    \
             httpServer: https://{https}\n    token: {token}\n    websocket: {{server: {hub}}}\n  eventBus: {event_bus}\n  \
             edged:\n    hostnameOverride: {NODE}\n    nodeLabels: {{zone: a}}\n    registerSchedulable: false\n    \
             tailoredKubeletConfig: {{maxPods: 7}}\n"
        );
        std::fs::write(file, yaml).unwrap();
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// An edgecore with the process runtime and a folder of its own.
pub(crate) struct Edge {
    folder: TempDir,
    pub(crate) running: Background,
}

impl Edge {
    /// Starts one that joins; `event_bus` is that section of its configuration.
    pub(crate) fn join(cloud: &Cloud, event_bus: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        cloud.edgecore_yaml(event_bus, &folder.path().join("edgecore.yaml"));
        let running = started(folder.path());
        Self { folder, running }
    }

    /// Where it keeps what it keeps.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Kills it, and starts it again on the same folder.
    pub(crate) fn kill_and_start(&mut self) {
        self.running.kill();
        self.running = started(self.folder.path());
    }
}

fn started(folder: &Path) -> Background {
    let mut command = crate::edgecore();
    command.args(["--runtime", "process", "--data-dir"]).arg(folder.join("data"));
    Background::start(command.arg("--config").arg(folder.join("edgecore.yaml")))
}
