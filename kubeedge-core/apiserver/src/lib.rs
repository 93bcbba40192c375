//! A Kubernetes API server over any store, for one machine or a small site.
//!
//! [`EmbeddedCluster`] is a [`ClusterApi`] like any other: in process it costs a function call, and
//! [`EmbeddedCluster::serve`] opens it to kubectl and client-go over TLS. Objects live in a [`MetaStore`] and survive
//! a restart; the controllers that make Deployments run, place pods and collect garbage are in [`controllers`].
//!
//! Served: the kinds a small cluster needs and any CustomResourceDefinition; discovery and OpenAPI v3; get, list,
//! watch with bookmarks and 410, create, update, delete with grace and finalizers; JSON, merge and strategic merge
//! patches and server-side apply with field managers; status, scale, binding, eviction, token, log, exec and attach;
//! label and field selectors; tables; impersonation by administrators; protobuf bodies of what kubectl itself sends,
//! answered in JSON. Not yet: all other protobuf (told with 415), port forwarding, admission webhooks, RBAC (whoever has
//! a certificate or token of this server may do everything, a node only what is its own).

mod admission;
mod apply;
pub mod controllers;
mod definitions;
mod discovery;
mod fields;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod http;
mod jsonpath;
mod kinds;
mod kubelet;
mod layout;
mod local;
mod object;
mod openapi;
mod patch;
mod protobuf;
mod registry;
mod schema;
mod selectors;
mod serve;
mod status;
mod storage;
mod table;
mod times;
mod tokens;
mod user;
mod watch;

use std::sync::Arc;

use ::http::{Request, Response};
use kubeedge_core::{
    clock::Clock,
    cluster::{Actor, Body, ClusterApi, KubeService},
    store::{MetaStore, StoreError},
};
use parking_lot::RwLock;
use serde_json::{Value, json};

pub use local::{LocalCluster, LocalError, LocalSettings};
pub use serve::{ServeError, ServeSettings, Serving, kubeconfig};
pub use tokens::Signer;
use tower::{service_fn, util::BoxCloneSyncService};

use self::{
    admission::{Mode, Part, Validation},
    kinds::{DEFINITIONS, NAMESPACES},
    object::Object,
    status::Refusal,
    storage::Storage,
    user::User,
};
use kubeedge_core::node_streams::NodeStreams;

/// How the embedded cluster is set up.
#[derive(Clone, Debug)]
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

#[derive(Debug)]
struct Server {
    storage: Storage,
    settings: EmbeddedSettings,
    streams: RwLock<Option<Arc<dyn NodeStreams>>>,
}

/// A cluster in this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EmbeddedCluster {
    server: Arc<Server>,
}

/// The namespaces every Kubernetes cluster has.
const FIRST_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl EmbeddedCluster {
    /// Opens the cluster that this store holds; an empty store becomes an empty cluster.
    pub async fn open(store: Arc<dyn MetaStore>, settings: EmbeddedSettings) -> Result<Self, StoreError> {
        let storage = Storage::open(store, settings.clock.clone()).await?;
        let server = Arc::new(Server { storage, settings, streams: RwLock::default() });
        let cluster = Self { server };
        cluster.furnish().await;
        Ok(cluster)
    }

    /// Makes logs, exec and attach work: through these streams.
    pub fn set_streams(&self, streams: Arc<dyn NodeStreams>) {
        *self.server.streams.write() = Some(streams);
    }

    /// What every cluster has from the start. What is there already stays as it is, but definitions are renewed.
    async fn furnish(&self) {
        let server = &self.server;
        let kind = NAMESPACES;
        let wanted =
            FIRST_NAMESPACES.iter().copied().chain(server.settings.namespaces.iter().map(String::as_str));
        for name in wanted {
            let object = json!({"metadata": {"name": name}});
            let made = registry::create(&server.storage, &kind, "", object, Validation::Ignore, false).await;
            report(name, made.map(drop));
        }
        let kind = DEFINITIONS;
        for definition in &server.settings.definitions {
            let name = definition.name();
            let wanted = definition.clone();
            let renew = |before: &Value| {
                let mut new = before.clone();
                new.set(&["spec"], wanted.copy(&["spec"]));
                Ok(new)
            };
            let done =
                registry::change(&server.storage, &kind, "", name, Mode::ours(Part::Main), renew).await;
            if done.is_err() {
                let made = registry::create(
                    &server.storage,
                    &kind,
                    "",
                    definition.clone(),
                    Validation::Ignore,
                    false,
                )
                .await;
                report(name, made.map(drop));
            }
        }
    }

    pub(crate) fn service_for(&self, user: User) -> KubeService {
        let server = self.server.clone();
        BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
            let (server, user) = (server.clone(), user.clone());
            async move { Ok::<Response<Body>, _>(server.respond(user, request).await) }
        }))
    }
}

fn report(name: &str, made: Result<(), Refusal>) {
    match made {
        Err(refusal) if refusal.reason != "AlreadyExists" => {
            tracing::error!(name, error = %refusal.message, "cannot make what every cluster has");
        }
        _ => {}
    }
}

impl ClusterApi for EmbeddedCluster {
    fn service(&self, acting_as: &Actor) -> KubeService {
        self.service_for(match acting_as {
            Actor::Ourselves => User::ourselves(),
            Actor::Node(name) => User::of_node(name.as_str()),
        })
    }
}

#[cfg(test)]
mod tests;
