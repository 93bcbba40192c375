//! Edged, the edge's kubelet: runs the pods it is told of.
//!
//! Pods come from MetaManager, at start from its store and then as the cloud sends them; statuses, leases and
//! events go back the same way. One worker per pod plans its next step from what the runtime holds (`plan`),
//! so a restart of edgecore finds its pods running and leaves them so, with or without a cloud.
//!
//! Done here as the kubelet does: sandboxes, init containers and sidecars, restart policy with back-off, pull
//! policy and pull secrets, environment and volumes from ConfigMaps, Secrets, fields and tokens, graceful
//! deletion, status with conditions, events, node registration, node status, lease. Not acted on yet: probes,
//! lifecycle hooks, ephemeral containers, static pods, CSI volumes, eviction, activeDeadlineSeconds.

mod book;
mod env;
mod events;
mod node;
mod observer;
pub(crate) mod plan;
mod reporter;
pub mod server;
pub(crate) mod spec;
mod start;
pub(crate) mod status;
pub(crate) mod view;
mod volumes;
mod worker;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Taint};
use kubeedge_common::blocking::Blocking;
use kubeedge_core::{
    bus::{Envelope, Inbox},
    clock::Clock,
    failure::{BoxError, chain},
    kernel::{Module, ModuleContext, Shutdown},
    message::{Message, resource::ObjectPath},
    name::{Group, ModuleName, NodeName, Operation},
    runtime::{ContainerRuntime, Info},
};
use tokio::{sync::watch, task::JoinSet};

pub use self::book::PodBook;
use self::{
    env::PodFacts,
    events::Recorder,
    node::{Heart, Machine},
    observer::Observer,
    reporter::Reporter,
    worker::{Shared, Wish, Worker},
};
use crate::meta::{Client, ClientError, MetaHandle};

/// How Edged is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EdgedSettings {
    /// The node's host name, for its label and address; `None` for the node's name.
    pub hostname: Option<String>,
    /// The node's address.
    pub node_ip: String,
    /// Labels to register the node with.
    pub node_labels: BTreeMap<String, String>,
    /// Annotations to register the node with.
    pub node_annotations: BTreeMap<String, String>,
    /// Taints to register the node with.
    pub node_taints: Vec<Taint>,
    /// Whether to register the node.
    pub register_node: bool,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// The folder for volumes and the like; KubeEdge: `/var/lib/kubelet`.
    pub root: PathBuf,
    /// The folder for logs; Kubernetes: `/var/log/pods`.
    pub logs: PathBuf,
    /// Name servers for pods with `dnsPolicy: ClusterFirst`; empty for the host's.
    pub cluster_dns: Vec<String>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// Whether events are sent to the cluster.
    pub report_events: bool,
    /// The port of the local HTTP API, as the node object tells it.
    pub server_port: u16,
    /// The version the node object tells.
    pub version: String,
    /// How long one request to the cloud may take; KubeEdge: 60 s.
    pub request_timeout: Duration,
    /// Where files of pods are read and written.
    pub files: Blocking,
}

impl Default for EdgedSettings {
    fn default() -> Self {
        Self {
            hostname: None,
            node_ip: "127.0.0.1".to_owned(),
            node_labels: BTreeMap::new(),
            node_annotations: BTreeMap::new(),
            node_taints: Vec::new(),
            register_node: true,
            max_pods: 110,
            root: "/var/lib/kubelet".into(),
            logs: "/var/log/pods".into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            report_events: false,
            server_port: 10350,
            version: concat!("v1.32.10-kubeedge-v", env!("CARGO_PKG_VERSION")).to_owned(),
            request_timeout: Duration::from_secs(60),
            files: Blocking::Threads,
        }
    }
}

/// The module. A clone takes over where the original ended.
#[derive(Clone, Debug)]
pub struct Edged {
    node: NodeName,
    settings: EdgedSettings,
    runtime: Arc<dyn ContainerRuntime>,
    meta: MetaHandle,
    pods: PodBook,
}

impl Edged {
    /// Runs the pods of this node, as MetaManager's copy has them, on this runtime. Their pauses are counted
    /// by the clock of the module's context, which must be the runtime's.
    pub fn new(
        node: NodeName,
        settings: EdgedSettings,
        runtime: Arc<dyn ContainerRuntime>,
        meta: MetaHandle,
    ) -> Self {
        Self { node, settings, runtime, meta, pods: PodBook::default() }
    }

    /// Keeps its pods in this book, which is another module's too or outlives this one.
    #[must_use]
    pub fn book(mut self, pods: PodBook) -> Self {
        self.pods = pods;
        self
    }

    /// The pods with their status, for the node's own API.
    pub fn pods(&self) -> PodBook {
        self.pods.clone()
    }
}

#[async_trait]
impl Module for Edged {
    fn name(&self) -> ModuleName {
        ModuleName::EDGED
    }

    fn group(&self) -> Group {
        Group::EDGED
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let client = Client::new(self.meta.clone(), ctx.bus.clone(), self.settings.request_timeout);
        let root = self.settings.root.clone();
        let machine = self.settings.files.run(move || Machine::read(&root)).await?;
        let ready = self.runtime_ready(&ctx.shutdown);
        let Some(info) = heedless(ready, &mut ctx.inbox).await else { return Ok(()) };
        let shared = Arc::new(self.shared(client, &ctx.clock, &info, &machine));
        let mut tasks = JoinSet::new();
        self.spawn_helpers(&shared, machine, &ctx.shutdown, &mut tasks);
        let ended = Pods::new(shared, ctx.shutdown.clone()).run(ctx).await;
        while tasks.join_next().await.is_some() {}
        ended
    }
}

impl Edged {
    /// Waits until the runtime answers and was looked at once; `None` when shutdown comes first.
    async fn runtime_ready(&self, shutdown: &Shutdown) -> Option<Info> {
        let mut told = false;
        loop {
            match self.runtime.info().await {
                Ok(info) => return Some(info),
                Err(error) if !told => {
                    told = true;
                    tracing::error!(error = %chain(&error), "container runtime does not answer, waiting for it");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = shutdown.requested() => return None,
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
            }
        }
    }

    fn shared(&self, client: Client, clock: &Clock, info: &Info, machine: &Machine) -> Shared {
        let settings = self.settings.clone();
        let facts = PodFacts {
            node_name: self.node.to_string(),
            host_ip: settings.node_ip.clone(),
            pod_ips: Vec::new(),
            allocatable: machine.capacity(),
        };
        Shared {
            node: self.node.clone(),
            clock: clock.clone(),
            runtime: self.runtime.clone(),
            runtime_name: info.name.clone(),
            observer: Observer::new(self.runtime.clone()),
            recorder: Recorder::new(client.clone(), &self.node, clock, settings.report_events),
            reporter: Reporter::new(client.clone()),
            pods: self.pods.clone(),
            references: watch::Sender::new(0),
            client,
            facts,
            settings,
        }
    }

    fn spawn_helpers(
        &self,
        shared: &Arc<Shared>,
        machine: Machine,
        shutdown: &Shutdown,
        tasks: &mut JoinSet<()>,
    ) {
        let (observing, stop) = (shared.clone(), shutdown.clone());
        tasks.spawn(async move { observing.observer.run(stop).await });
        let (reporting, stop) = (shared.clone(), shutdown.clone());
        tasks.spawn(async move { reporting.reporter.run(stop).await });
        if !self.settings.register_node {
            return;
        }
        let (beating, stop) = (shared.clone(), shutdown.clone());
        tasks.spawn(async move {
            let Shared { node, clock, settings, client, runtime, .. } = &*beating;
            let heart = Heart { node, clock, settings, client, runtime: &**runtime, machine: &machine };
            heart.run(stop).await;
        });
    }
}

/// Does something that messages are of no use to: those that come meanwhile are dropped. What they tell of is
/// in the store, which is read afterwards, and MetaManager must not wait for room in the mailbox.
async fn heedless<T>(work: impl Future<Output = T>, inbox: &mut Inbox) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(_) = inbox.next() => {}
        }
    }
}

/// The pods of this node and their workers.
struct Pods {
    shared: Arc<Shared>,
    shutdown: Shutdown,
    wishes: HashMap<String, watch::Sender<Wish>>,
    workers: JoinSet<Option<String>>,
    /// Counts what was heard of pods, so that a list is known to be older than that.
    heard: u64,
    listing: JoinSet<Listed>,
}

/// The pods of the store, and what had been heard of pods when they were asked for.
struct Listed {
    heard: u64,
    pods: Result<Vec<Pod>, ClientError>,
}

impl Pods {
    fn new(shared: Arc<Shared>, shutdown: Shutdown) -> Self {
        Self {
            shared,
            shutdown,
            wishes: HashMap::new(),
            workers: JoinSet::new(),
            heard: 0,
            listing: JoinSet::new(),
        }
    }

    async fn run(mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        tokio::select! {
            () = ctx.shutdown.requested() => return Ok(()),
            () = heedless(self.looked_at(), &mut ctx.inbox) => {}
        }
        self.list(Duration::ZERO);
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => break,
                envelope = ctx.inbox.next() => match envelope {
                    Some(envelope) => self.handle(envelope).await,
                    None => break,
                },
                Some(ended) = self.workers.join_next() => match ended {
                    Ok(Some(uid)) => {
                        self.wishes.remove(&uid);
                        self.shared.pods.strike(&uid);
                    }
                    Ok(None) => {}
                    Err(error) => self.revive(&error),
                },
                Some(Ok(listed)) = self.listing.join_next() => self.listed(listed).await,
            }
        }
        self.listing.shutdown().await;
        while self.workers.join_next().await.is_some() {}
        Ok(())
    }

    /// Waits until the runtime has told what runs.
    async fn looked_at(&self) {
        while let Err(error) = self.shared.observer.refresh().await {
            tracing::warn!(error = %chain(&error), "cannot look at the runtime yet");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// These are all the pods there are: others end, and what belongs to none is removed.
    async fn set(&mut self, pods: Vec<Pod>) {
        let ours = pods.into_iter().filter(|pod| self.is_ours(pod));
        let ours: HashMap<_, _> = ours.filter_map(|pod| Some((pod.metadata.uid.clone()?, pod))).collect();
        for (uid, wish) in &self.wishes {
            if !ours.contains_key(uid) {
                wish.send_modify(|wish| wish.removed = true);
            }
        }
        let known: HashSet<_> = ours.keys().chain(self.wishes.keys()).cloned().collect();
        for (uid, view) in self.shared.observer.views().iter().filter(|(uid, _)| !known.contains(*uid)) {
            tracing::info!(pod = %uid, "removing what is left of a pod nobody knows");
            for sandbox in &view.sandboxes {
                if let Err(error) = self.shared.runtime.remove_sandbox(&sandbox.id).await {
                    tracing::warn!(sandbox = %sandbox.id, error = %chain(&error), "cannot remove a sandbox");
                }
            }
        }
        for (_, pod) in ours {
            self.wish(pod);
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        node == Some(self.shared.node.as_str())
    }

    fn wish(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            tracing::warn!(
                pod = pod.metadata.name.as_deref().unwrap_or_default(),
                "a pod without uid is ignored"
            );
            return;
        };
        self.shared.pods.wish(&pod);
        let wish = Wish { pod: Arc::new(pod), removed: false };
        match self.wishes.get(&uid) {
            // A removal is not taken back by an update that was under way.
            Some(known) => drop(known.send_if_modified(|old| {
                let changes = !old.removed && old.pod != wish.pod;
                if changes {
                    *old = wish;
                }
                changes
            })),
            None => self.employ(uid, wish),
        }
    }

    fn employ(&mut self, uid: String, wish: Wish) {
        let (sender, wishes) = watch::channel(wish);
        let worker = Worker::new(self.shared.clone(), uid.clone(), wishes);
        self.wishes.insert(uid, sender);
        self.workers.spawn(worker.run(self.shutdown.clone()));
    }

    /// A worker panicked: the pods without one get a new one.
    fn revive(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(error = %error, "the worker of a pod failed and is replaced");
        let orphans: Vec<_> = self.wishes.iter().filter(|(_, wish)| wish.receiver_count() == 0).collect();
        let orphans: Vec<_> =
            orphans.into_iter().map(|(uid, wish)| (uid.clone(), wish.borrow().clone())).collect();
        for (uid, wish) in orphans {
            self.employ(uid, wish);
        }
    }

    async fn handle(&mut self, envelope: Envelope) {
        let message = &envelope.message;
        let kind = ObjectPath::parse(message.route.resource.as_str()).map(|path| path.kind.to_owned());
        match kind.as_deref() {
            Some("pod") => self.pod_message(message),
            Some("configmap" | "secret") => self.shared.references.send_modify(|count| *count += 1),
            _ => tracing::debug!(resource = %message.route.resource, "message not for pods, ignored"),
        }
    }

    fn pod_message(&mut self, message: &Message) {
        if message.route.operation == Operation::RESPONSE {
            return;
        }
        self.heard += 1;
        let pod: Pod = match message.content.decode() {
            Ok(pod) => pod,
            Err(error) => {
                tracing::error!(resource = %message.route.resource, error = %error, "a pod that cannot be read is ignored");
                return;
            }
        };
        match message.route.operation.as_str() {
            "insert" | "update" if self.is_ours(&pod) => self.wish(pod),
            "delete" => self.removed(&pod),
            _ => {}
        }
    }

    fn removed(&mut self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().filter(|uid| !uid.is_empty());
        if let Some(known) = uid.and_then(|uid| self.wishes.get(uid)) {
            known.send_modify(|wish| wish.removed = true);
            return;
        }
        // A forced delete names the pod only: what the store has is the truth.
        if self.listing.is_empty() {
            self.list(Duration::ZERO);
        }
    }

    /// Reads the pods of the store, beside the mailbox: MetaManager may be waiting for room in it.
    fn list(&mut self, pause: Duration) {
        let (client, heard) = (self.shared.client.clone(), self.heard);
        self.listing.spawn(async move {
            tokio::time::sleep(pause).await;
            Listed { heard, pods: client.pods().await }
        });
    }

    async fn listed(&mut self, listed: Listed) {
        match listed.pods {
            Ok(pods) if listed.heard == self.heard => {
                tracing::info!(pods = pods.len(), "pods read from the store");
                self.set(pods).await;
            }
            // Something came meanwhile: this list may lack a new pod or hold a removed one.
            Ok(_) => self.list(Duration::ZERO),
            Err(error) => {
                tracing::warn!(error = %error, "cannot read the pods of this node, will ask again");
                self.list(Duration::from_secs(1));
            }
        }
    }
}
