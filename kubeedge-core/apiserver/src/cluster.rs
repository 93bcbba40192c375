//! The embedded cluster: an [`ApiServer`] over an [`EmbeddedStorage`], with what every cluster has.

use std::sync::Arc;

use kubeedge_core::{
    clock::Clock,
    cluster::{Actor, ClusterApi, KubeService},
    node_streams::NodeStreams,
    store::{MetaStore, StoreError},
};
use serde_json::{Value, json};

use super::{
    admission::{Mode, Part, Validation},
    embedded::EmbeddedStorage,
    kinds::{DEFINITIONS, Kind, NAMESPACES},
    object::Object,
    registry::Registry,
    serve::{ServeError, ServeSettings, Serving},
    server::ApiServer,
    status::{Reason, Refusal},
    tokens::Signer,
};

/// How the embedded cluster is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbeddedSettings {
    /// Signs the tokens of service accounts; its secret must be the same after a restart.
    pub signer: Signer,
    /// CustomResourceDefinitions to have from the start.
    pub definitions: Vec<Value>,
    /// Namespaces to have from the start, beside Kubernetes' own.
    pub namespaces: Vec<String>,
    /// The server's CA certificate in PEM, for the ConfigMap `kube-root-ca.crt` of each namespace.
    pub root_ca_pem: String,
    /// What leases, grace, expiry and stamps are counted with.
    pub clock: Clock,
}

impl EmbeddedSettings {
    /// A cluster with Kubernetes' own kinds and namespaces, no CA, and the time of this machine.
    pub fn new(signer: Signer) -> Self {
        let (definitions, namespaces) = (Vec::new(), Vec::new());
        Self { signer, definitions, namespaces, root_ca_pem: String::new(), clock: Clock::wall() }
    }

    /// Has these CustomResourceDefinitions from the start.
    #[must_use]
    pub fn definitions(mut self, definitions: Vec<Value>) -> Self {
        self.definitions = definitions;
        self
    }

    /// Has these namespaces from the start.
    #[must_use]
    pub fn namespaces(mut self, namespaces: Vec<String>) -> Self {
        self.namespaces = namespaces;
        self
    }

    /// Tells each namespace this CA certificate, in PEM.
    #[must_use]
    pub fn root_ca_pem(mut self, root_ca_pem: String) -> Self {
        self.root_ca_pem = root_ca_pem;
        self
    }

    /// Counts with this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}

/// A cluster in this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EmbeddedCluster {
    server: ApiServer,
    storage: Arc<EmbeddedStorage>,
    root_ca_pem: Arc<str>,
}

/// The namespaces every Kubernetes cluster has.
const FIRST_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl EmbeddedCluster {
    /// Opens the cluster that this store holds; an empty store becomes an empty cluster.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(store: Arc<dyn MetaStore>, settings: EmbeddedSettings) -> Result<Self, StoreError> {
        let storage = Arc::new(EmbeddedStorage::open(store).await?);
        let server = ApiServer::new(storage.clone(), settings.clock).signer(settings.signer);
        let registry = server.registry();
        let names = FIRST_NAMESPACES.into_iter().chain(settings.namespaces.iter().map(String::as_str));
        for name in names {
            let object = json!({"metadata": {"name": name}});
            report(name, create(registry, &NAMESPACES, object).await);
        }
        for definition in settings.definitions {
            define(registry, definition).await;
        }
        Ok(Self { server, storage, root_ca_pem: settings.root_ca_pem.into() })
    }

    /// Makes logs, exec and attach work: through these streams.
    pub fn set_streams(&self, streams: Arc<dyn NodeStreams>) {
        self.server.set_streams(streams);
    }

    /// Starts to listen; requests are answered once [`Serving::run`] runs.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the identity cannot be used.
    pub async fn serve(&self, settings: ServeSettings) -> Result<Serving, ServeError> {
        Serving::bind(&self.server, settings).await
    }

    /// The API over it.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// Where its objects are.
    pub fn storage(&self) -> &Arc<EmbeddedStorage> {
        &self.storage
    }

    /// The CA certificate that each namespace is told.
    pub fn root_ca_pem(&self) -> &str {
        &self.root_ca_pem
    }
}

#[deny(clippy::missing_trait_methods)]
impl ClusterApi for EmbeddedCluster {
    fn service(&self, acting_as: &Actor) -> KubeService {
        self.server.service(acting_as)
    }
}

async fn create(registry: &Registry, kind: &Kind, object: Value) -> Result<(), Refusal> {
    registry.create(kind, "", object, Validation::Ignore, false).await.map(drop)
}

/// Has a definition: one that is there already is renewed.
async fn define(registry: &Registry, definition: Value) {
    let name = definition.name().to_owned();
    let renew = |before: &Value| {
        let mut new = before.clone();
        new.set(&["spec"], definition.copy(&["spec"]));
        Ok(new)
    };
    if registry.change(&DEFINITIONS, "", &name, Mode::ours(Part::Main), renew).await.is_err() {
        report(&name, create(registry, &DEFINITIONS, definition).await);
    }
}

/// What is there already stays as it is.
fn report(name: &str, made: Result<(), Refusal>) {
    match made {
        Err(refusal) if refusal.reason != Reason::AlreadyExists => {
            tracing::error!(name, error = %refusal, "cannot make what every cluster has");
        }
        _ => {}
    }
}

#[cfg(test)]
#[cfg(feature = "controllers")]
mod tests;
