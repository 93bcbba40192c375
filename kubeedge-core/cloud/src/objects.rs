//! EdgeController: nodes, pods, ConfigMaps and Secrets.
//!
//! *Down*: what the cluster holds for edge nodes (label `node-role.kubernetes.io/edge`) becomes messages to
//! them: their pods, their Node object, and the ConfigMaps and Secrets their pods refer to. *Up*: what edges
//! ask for becomes requests to the API server, made as the node, and every request Go answers is answered
//! with Go's shapes.
//!
//! Where we differ from Go: a failure always carries a real status (Go sends `{}` for errors that are no API
//! status, which its edge takes for success); a node may write only its own Node, lease and pods, and read
//! only what its pods refer to; references of init and ephemeral containers count; a ConfigMap or Secret that
//! is not in the cache yet is looked up live.

mod access;
mod answer;
mod downstream;
mod locations;
mod nodes;
mod pods;
pub(crate) mod upstream;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::core::ApiResource;
use kubeedge_common::log::Seldom;
use kubeedge_core::{
    bus::{Bus, Envelope, Inbox},
    failure::BoxError,
    kernel::{Module, ModuleContext},
    message::Message,
    name::{Group, ModuleName},
};
use tokio::task::JoinSet;

pub(crate) use self::access::referred_by;
use self::{access::Access, downstream::Downstream, upstream::Upstream};
use crate::{
    cluster::Clients,
    informer::{Informer, Informers, edge_nodes},
    instance::Instance,
};

/// How the controller works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EdgeControllerSettings {
    /// The address of this cloudcore's machine, for the annotation `cloudcore` of the nodes connected to it.
    pub address: String,
    /// Whether a node gets only the ConfigMaps and Secrets its pods refer to, and tokens only for its pods,
    /// as the node authorizer of Kubernetes has it. Off is Go's way: every node may ask for everything.
    pub restrict_nodes: bool,
    /// How many requests of edges are worked on at a time, each a request to the API server; at least 1. See
    /// [`EdgeControllerSettings::requests_of`].
    pub requests: usize,
}

impl EdgeControllerSettings {
    /// How many requests of so many nodes are worked on at a time: what Kubernetes' API server takes by
    /// default, and more where there are many nodes, as all of them may return at once. Go's cloudcore has
    /// more workers than nodes.
    pub fn requests_of(nodes: usize) -> usize {
        (256 + nodes / 50).min(1024)
    }
}

impl Default for EdgeControllerSettings {
    fn default() -> Self {
        Self { address: String::new(), restrict_nodes: true, requests: Self::requests_of(500) }
    }
}

/// The informers the controller lives on.
#[derive(Clone, Debug)]
pub(crate) struct Caches {
    pub(crate) nodes: Arc<Informer>,
    pub(crate) pods: Arc<Informer>,
    pub(crate) config_maps: Arc<Informer>,
    pub(crate) secrets: Arc<Informer>,
}

impl Caches {
    fn new(informers: &Informers) -> Self {
        Self {
            nodes: edge_nodes(informers),
            pods: informers.of(&ApiResource::erase::<Pod>(&())),
            config_maps: informers.of(&ApiResource::erase::<ConfigMap>(&())),
            secrets: informers.of(&ApiResource::erase::<Secret>(&())),
        }
    }
}

/// The EdgeController module; see the module's documentation.
#[derive(Clone, Debug)]
pub struct EdgeController {
    clients: Arc<Clients>,
    caches: Caches,
    settings: EdgeControllerSettings,
    instance: Instance,
}

impl EdgeController {
    /// A controller on these clients and informers. Nodes that register are connected to this instance.
    pub fn new(
        settings: EdgeControllerSettings,
        clients: &Arc<Clients>,
        informers: &Informers,
        instance: &Instance,
    ) -> Self {
        let instance = instance.clone();
        Self { clients: clients.clone(), caches: Caches::new(informers), settings, instance }
    }
}

#[async_trait]
impl Module for EdgeController {
    fn name(&self) -> ModuleName {
        ModuleName::EDGE_CONTROLLER
    }

    fn group(&self) -> Group {
        Group::of("edgecontroller")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let locations = Arc::default();
        let mut downstream = Downstream::new(self.caches.clone(), ctx.bus.clone(), Arc::clone(&locations));
        let access = Access::new(self.caches.pods.clone(), locations, self.settings.restrict_nodes);
        let caches = self.caches.clone();
        let (clients, instance) = (self.clients.clone(), self.instance.clone());
        let complaints = Seldom::default();
        let upstream = Arc::new(Upstream { clients, caches, access, instance, complaints });
        tokio::select! {
            () = ctx.shutdown.requested() => Ok(()),
            result = downstream.run() => Ok(result?),
            () = serve(upstream, self.settings.requests.max(1), &mut ctx.inbox, &ctx.bus) => Ok(()),
        }
    }
}

/// Works on the requests of edges, so many at a time.
async fn serve(upstream: Arc<Upstream>, most: usize, inbox: &mut Inbox, bus: &Bus) {
    let mut working = JoinSet::new();
    loop {
        tokio::select! {
            envelope = inbox.next(), if working.len() < most => {
                let Some(envelope) = envelope else { return };
                working.spawn(work(upstream.clone(), envelope, bus.clone()));
            }
            Some(done) = working.join_next() => {
                if let Err(error) = done {
                    tracing::error!(error = %error, "a request of an edge failed");
                }
            }
        }
    }
}

async fn work(upstream: Arc<Upstream>, envelope: Envelope, bus: Bus) {
    // A request takes several calls at most, each with its own limit.
    let handled = tokio::time::timeout(Duration::from_secs(120), upstream.handle(&envelope.message)).await;
    let mut answers = handled.unwrap_or_default().into_iter();
    let first = answers.next();
    for answer in answers {
        send(&bus, answer).await;
    }
    match first {
        Some(first) if envelope.wants_answer() => envelope.reply_with(first),
        Some(first) => send(&bus, first).await,
        None => {}
    }
}

async fn send(bus: &Bus, message: Message) {
    if let Err(error) = bus.send(&ModuleName::CLOUD_HUB, message).await {
        tracing::warn!(error = %error, "an answer was not sent");
    }
}
