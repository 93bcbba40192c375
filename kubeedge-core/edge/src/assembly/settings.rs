//! How an edgecore works.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use kubeedge_core::{
    clock::Clock,
    kernel::Restart,
    name::{ModuleName, NodeName},
    transport::Endpoint,
};

use super::CloudAddress;
use crate::{
    edged::{EdgedSettings, server::EdgedServerSettings},
    eventbus::EventBusSettings,
    hub::{EdgeHubSettings, IdentitySource, JoinSettings},
    meta::MetaManagerSettings,
    stream::EdgeStreamSettings,
};

/// How an edgecore works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EdgeCoreSettings {
    /// The name of this node.
    pub node: NodeName,
    /// The time of day that all modules go by. It must be the container runtime's, as pauses of pods are
    /// counted by it.
    pub clock: Clock,
    /// EdgeHub: the link to the cloud.
    pub hub: EdgeHubSettings,
    /// MetaManager.
    pub meta: MetaManagerSettings,
    /// Edged.
    pub edged: EdgedSettings,
    /// The node's own API, through which logs and commands go.
    pub server: EdgedServerSettings,
    /// EventBus.
    pub eventbus: EventBusSettings,
    /// EdgeStream: `kubectl logs` and `exec` through a tunnel to the cloud; `None` for no tunnel.
    pub stream: Option<EdgeStreamSettings>,
    /// Our modules that are left out, by name.
    pub without: BTreeSet<ModuleName>,
    /// What happens to a module that fails or panics.
    pub restart: Restart,
}

impl EdgeCoreSettings {
    /// KubeEdge's defaults for the node of this name, without a tunnel. Random numbers start from the name,
    /// so that nodes do not dial all at once.
    pub fn for_node(name: impl Into<NodeName>) -> Self {
        let node = name.into();
        let seed = seed(&node);
        Self {
            node,
            clock: Clock::wall(),
            hub: EdgeHubSettings { seed, ..EdgeHubSettings::default() },
            meta: MetaManagerSettings::default(),
            edged: EdgedSettings::default(),
            server: EdgedServerSettings::default(),
            eventbus: EventBusSettings { seed, ..EventBusSettings::default() },
            stream: None,
            without: BTreeSet::new(),
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

    /// Listens on free ports of the loopback address instead of KubeEdge's, for several edgecores on one
    /// machine: [`EdgeStatus`](super::EdgeStatus) tells which the node's own API and the internal MQTT broker
    /// have.
    #[must_use]
    pub fn on_free_ports(mut self) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        self.server.address = free;
        self.edged.server_port = free.port();
        self.eventbus.internal = format!("tcp://{free}");
        self
    }

    /// Joins this cloudcore with a token, as `keadm join` does: the link goes to its hub, with a certificate
    /// that the token gets at its HTTPS service, and the tunnel for logs and commands to its tunnel server.
    #[must_use]
    pub fn joining(mut self, cloud: impl Into<CloudAddress>, token: &str) -> Self {
        let CloudAddress { hub, https, tunnel } = cloud.into();
        self.hub.servers = vec![hub];
        let known = self.join();
        self.hub.identity =
            IdentitySource::Join(JoinSettings { https, token: Some(token.to_owned()), ..known });
        let seed = seed(&self.node);
        let stream =
            self.stream.unwrap_or_else(|| EdgeStreamSettings { seed, ..EdgeStreamSettings::default() });
        self.stream = Some(EdgeStreamSettings { servers: vec![Endpoint::from(tunnel)], ..stream });
        self
    }

    /// How the node joins, as far as it was said.
    fn join(&self) -> JoinSettings {
        match &self.hub.identity {
            IdentitySource::Join(known) => known.clone(),
            IdentitySource::Fixed(_) => JoinSettings::default(),
        }
    }
}

/// Where the random numbers of a node start.
pub(crate) fn seed(node: &NodeName) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    hasher.finish()
}
