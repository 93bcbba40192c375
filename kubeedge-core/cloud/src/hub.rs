//! CloudHub: the cloud end of the links, one session per node.
//!
//! A peer that names a node, and whose certificate names the same node, gets a session; the newest connection
//! of a node wins. Modules send messages under `node/<node>/…`; the hub decides by KubeEdge's rules whether
//! they are sent once or until the edge has confirmed them, and keeps the confirmations in ObjectSync
//! records.
//!
//! Where we differ from Go: a refused peer is told why and disconnected (Go leaves the socket open and keeps
//! processing what it sends); the certificate must always name the node; a reconnecting node does not count
//! twice against the limit; several objects may be on their way to one edge at once, each confirmed by
//! itself; messages for a node that is away are not piled up: its records are made, and the reconciliation
//! after its return sends the newest versions; what is on the [deny list](crate::denylist) is kept out and
//! cut off. What goes to one edge has one of two priorities: pods and answers before devices, twins and what
//! users send. While an edge has objects to confirm, what becomes ready meanwhile goes out together.
//!
//! No object is lost: it is confirmed by the edge, or has a record that is older than it, which makes the
//! reconciliation send it. The record comes before the first frame; what finds no room, or whose session ends
//! before its record was made, is remembered until it is. A sender that waits learns whether its message was
//! taken for a session or a record.
//!
//! Messages of vendors' groups go to and from vendors' modules ([`routes`](kubeedge_core::routes)): kept in
//! memory for their nodes as [`Delivery`](kubeedge_core::routes::Delivery) says, until the module on the edge
//! has answered. They outlive links, not this process: whoever waits for one then learns that its reply
//! channel is gone.

mod acceptor;
mod admission;
mod claims;
pub(crate) mod corrections;
mod delivery;
mod dispatch;
mod id;
mod modules;
mod pool;
mod rules;
mod session;
mod sessions;
mod shares;
mod upstream;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_common::log::{Seldom, shown};
use kubeedge_core::{
    bus::SendError,
    failure::BoxError,
    kernel::{Module, ModuleContext, Shutdown},
    message::{Content, Message},
    name::{Group, ModuleName, NodeName, Operation},
    transport::{Credentials, Endpoint, Link, Listener, Transport},
    wire::Codec,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

pub(crate) use self::admission::{AdmittedNode, certified};
use self::{
    acceptor::{Accepted, Acceptor},
    claims::Claims,
    dispatch::Dispatcher,
    modules::Modules,
    session::{End, Handle, Shared},
    shares::Shares,
};
pub use self::{
    admission::NodeIdentity,
    sessions::{NodeEvent, NodeEvents, Sessions},
    shares::NodeLimits,
};
use crate::{denylist::Denylist, instance::Instance, records::Records};

/// The hub's clocks.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HubTimes {
    /// How long a session may be without keepalive. KubeEdge: 30 s.
    pub keepalive: Duration,
    /// The pause before an unconfirmed message is sent again. KubeEdge: 5 s.
    pub resend: Duration,
    /// How often a message is sent before others go first. KubeEdge: 5.
    pub sends: u32,
    /// How long one frame may wait for an edge that does not read. KubeEdge has none; 30 s.
    pub write: Duration,
}

impl Default for HubTimes {
    fn default() -> Self {
        let keepalive = Duration::from_secs(30);
        Self { keepalive, resend: Duration::from_secs(5), sends: 5, write: Duration::from_secs(30) }
    }
}

/// How the hub works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CloudHubSettings {
    /// Nodes served at once. KubeEdge: 500.
    pub node_limit: usize,
    /// How nodes prove who they are.
    pub identity: NodeIdentity,
    /// Objects on their way to one edge at a time; 1 is Go's order, one strictly after the other.
    pub window: usize,
    /// What one node may have in work.
    pub per_node: NodeLimits,
    /// Messages of all edges that one module works on or has waiting at a time; whose turn is next goes
    /// round.
    pub in_work: usize,
    /// The clocks.
    pub times: HubTimes,
    /// The PEM text of the cluster's CA, for edges that ask for it.
    pub cluster_ca: Arc<str>,
}

impl Default for CloudHubSettings {
    fn default() -> Self {
        Self {
            node_limit: 500,
            identity: NodeIdentity::default(),
            window: 64,
            per_node: NodeLimits::default(),
            in_work: 512,
            times: HubTimes::default(),
            cluster_ca: Arc::from(""),
        }
    }
}

/// A listener of the hub: a transport, and where it listens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HubListener {
    /// The transport.
    pub transport: Arc<dyn Transport>,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Who the hub is, and whose certificates it takes.
    pub credentials: Credentials,
}

impl HubListener {
    /// A listener of this transport, there.
    pub fn new(transport: Arc<dyn Transport>, endpoint: Endpoint, credentials: Credentials) -> Self {
        Self { transport, endpoint, credentials }
    }
}

/// The CloudHub module; see the module's documentation.
#[derive(Debug)]
pub struct CloudHub {
    settings: CloudHubSettings,
    listeners: Vec<HubListener>,
    codec: Arc<dyn Codec>,
    records: Arc<Records>,
    claims: Arc<Claims>,
    sessions: Sessions,
    denied: Denylist,
    bound: watch::Sender<Vec<Endpoint>>,
}

impl CloudHub {
    /// A hub with these listeners. Clients, informers and records are shared with other modules. The instance
    /// tells this cloudcore from others of the cluster.
    pub fn new(
        settings: CloudHubSettings,
        listeners: Vec<HubListener>,
        codec: Arc<dyn Codec>,
        clients: &Arc<crate::cluster::Clients>,
        informers: &crate::informer::Informers,
        records: &Arc<Records>,
        instance: &Instance,
    ) -> Self {
        let records = records.clone();
        let claims = Arc::new(Claims::new(clients.clone(), informers, instance.clone()));
        let bound = watch::Sender::new(Vec::new());
        let (sessions, denied) = (Sessions::default(), Denylist::default());
        Self { settings, listeners, codec, records, claims, sessions, denied, bound }
    }

    /// Keeps those on this list out, and cuts their links.
    #[must_use]
    pub fn with_denylist(mut self, list: Denylist) -> Self {
        self.denied = list;
        self
    }

    /// The sessions, for status and metrics.
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    /// Where the hub listens, with real ports; empty until it does.
    pub fn bound(&self) -> watch::Receiver<Vec<Endpoint>> {
        self.bound.subscribe()
    }
}

#[async_trait]
impl Module for CloudHub {
    fn name(&self) -> ModuleName {
        ModuleName::CLOUD_HUB
    }

    fn group(&self) -> Group {
        Group::of("cloudhub")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        // Without the records every object would be sent to every edge again, without the list those let in
        // who are on it.
        tokio::select! {
            ((), ()) = async { tokio::join!(self.records.ready(), self.denied.ready()) } => {}
            () = ctx.shutdown.requested() => return Ok(()),
        }
        let mut listeners = Vec::new();
        for spec in &self.listeners {
            listeners.push(spec.transport.listen(&spec.endpoint, &spec.credentials).await?);
        }
        let bound: Vec<_> = listeners.iter().map(|listener| listener.local()).collect();
        tracing::info!(endpoints = ?bound, "CloudHub listens");
        self.bound.send_replace(bound);
        let mut work = Work::new(self, ctx);
        for listener in listeners {
            work.open(listener);
        }
        let result = work.run(ctx).await;
        self.bound.send_replace(Vec::new());
        result
    }
}

/// How long confirmations may still be saved at the end.
const SAVING: Duration = Duration::from_secs(2);

/// A running hub: everything it has started ends with it.
struct Work {
    settings: CloudHubSettings,
    sessions: Sessions,
    denied: Denylist,
    shared: Arc<Shared>,
    accepted: (mpsc::Sender<Accepted>, mpsc::Receiver<Accepted>),
    acceptors: JoinSet<BoxError>,
    served: JoinSet<(NodeName, Arc<Handle>, End)>,
    /// Numbers the connections of all listeners.
    connections: Arc<AtomicU64>,
    /// Lines about nodes that come and go.
    connected_lines: Seldom,
    ended_lines: Seldom,
    /// Runs beside the sessions until the hub ends.
    background: JoinSet<()>,
    claims: Arc<Claims>,
    tasks: JoinSet<()>,
    shutdown: Shutdown,
}

impl Work {
    fn new(hub: &CloudHub, ctx: &ModuleContext) -> Self {
        let shared = Arc::new(Shared {
            codec: hub.codec.clone(),
            bus: ctx.bus.clone(),
            records: hub.records.clone(),
            times: hub.settings.times,
            window: hub.settings.window.max(1),
            shares: Arc::new(Shares::new(&ctx.bus, &upstream::RECEIVERS, hub.settings.in_work)),
            per_node: hub.settings.per_node,
            complaints: Arc::default(),
            modules: Arc::new(Modules::new(
                &ctx.bus,
                &hub.sessions,
                hub.settings.per_node,
                hub.settings.in_work,
            )),
            cluster_ca: hub.settings.cluster_ca.clone(),
        });
        let mut background = JoinSet::new();
        shared.modules.start(&mut background);
        let records = hub.records.clone();
        background.spawn(async move { records.make_remembered().await });
        let records = hub.records.clone();
        background.spawn(async move { records.save_confirmed().await });
        background.spawn(hub.claims.clone().watch(hub.sessions.clone()));
        Self {
            settings: hub.settings.clone(),
            sessions: hub.sessions.clone(),
            denied: hub.denied.clone(),
            shared,
            accepted: mpsc::channel(64),
            acceptors: JoinSet::new(),
            served: JoinSet::new(),
            connections: Arc::default(),
            connected_lines: Seldom::default(),
            ended_lines: Seldom::default(),
            background,
            claims: hub.claims.clone(),
            tasks: JoinSet::new(),
            shutdown: ctx.shutdown.clone(),
        }
    }

    fn open(&mut self, listener: Box<dyn Listener>) {
        let acceptor = Acceptor {
            identity: self.settings.identity,
            limit: self.settings.node_limit,
            sessions: self.sessions.clone(),
            denied: self.denied.clone(),
            accepted: self.accepted.0.clone(),
            connections: self.connections.clone(),
            refusals: Seldom::default(),
        };
        self.acceptors.spawn(acceptor.run(listener));
    }

    async fn run(mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let records = self.shared.records.clone();
        loop {
            let crowded = records.is_crowded();
            tokio::select! {
                () = self.shutdown.requested() => break,
                Some((admitted, link, number)) = self.accepted.1.recv() => self.begin(admitted, link, number),
                Some(ended) = self.served.join_next() => self.ended(ended),
                Some(failed) = self.acceptors.join_next() => {
                    return Err(failed.unwrap_or_else(|panic| panic.into()));
                }
                Some(died) = self.background.join_next() => died?,
                Some(_) = self.tasks.join_next() => {}
                // While too much is remembered for nodes that are away, the mailbox waits, and with it the
                // controllers.
                () = records.room(), if crowded => {}
                envelope = ctx.inbox.next(), if !crowded => match envelope {
                    Some(envelope) => {
                        let (sessions, shared) = (&self.sessions, &*self.shared);
                        Dispatcher { sessions, shared }.take(envelope, &mut ctx.inbox).await;
                    }
                    None => break,
                },
            }
        }
        self.acceptors.shutdown().await;
        self.sessions.end("the cloud is shutting down");
        while let Some(ended) = self.served.join_next().await {
            self.ended(ended);
        }
        // What is not saved is sent once more later, which an edge takes in its stride.
        let _ = tokio::time::timeout(SAVING, self.shared.records.saved()).await;
        Ok(())
    }

    fn begin(&mut self, admitted: AdmittedNode, link: Link, number: u64) {
        let node = admitted.node.clone();
        if self.sessions.is_overtaken(&node, number) {
            tracing::debug!(%node, "an earlier connection of the node was let in too late");
            return;
        }
        if !self.sessions.fits(&node, self.settings.node_limit) {
            if let Some(unsaid) = self.connected_lines.line(node.as_str()) {
                let limit = self.settings.node_limit;
                tracing::warn!(%node, limit, unsaid, "no room for one more node");
            }
            return;
        }
        let codec = self.shared.codec.for_link(&link.peer);
        let ours = codec.as_ref().unwrap_or(&self.shared.codec).is_ours();
        let handle = Arc::new(Handle::new(number, ours, self.shared.records.clone()));
        if let Some(unsaid) = self.connected_lines.line(node.as_str()) {
            let nodes = self.sessions.count() + 1;
            tracing::info!(%node, peer = ?link.peer.address, serial = admitted.serial(), nodes, unsaid, "node connected");
        }
        self.sessions.enter(&node, handle.clone());
        self.shared.modules.connected(&node);
        self.tasks.spawn(self.claims.clone().claim(node.clone(), handle.clone()));
        // SyncController compares everything with an edge of ours, its devices too.
        let compares = ours && self.shared.bus.has(&ModuleName::SYNC_CONTROLLER);
        let announces = if compares { None } else { Some(ModuleName::DEVICE_CONTROLLER) };
        self.tell(&node, Operation::of("connected"), announces);
        let shared = match codec {
            Some(codec) => Arc::new(Shared { codec, ..Shared::clone(&self.shared) }),
            None => self.shared.clone(),
        };
        let denied = self.denied.clone();
        self.served.spawn(async move {
            let mut serving = std::pin::pin!(session::serve(node.clone(), link, handle.clone(), shared));
            let end = tokio::select! {
                end = &mut serving => end,
                why = admitted.denied(&denied) => {
                    tracing::warn!(%node, serial = admitted.serial(), why, "cut a link off");
                    handle.end(why);
                    serving.await
                }
            };
            (node, handle, end)
        });
    }

    fn ended(&mut self, ended: Result<(NodeName, Arc<Handle>, End), tokio::task::JoinError>) {
        match ended {
            Ok((node, handle, end)) => {
                let last = self.sessions.leave(&node, handle.generation);
                self.remember_unrecorded(&handle);
                let broken = matches!(end, End::Malformed(_));
                // An ordinary end must not keep the word on a broken frame back.
                let key = if broken { format!("{node} malformed") } else { node.to_string() };
                if let Some(unsaid) = self.ended_lines.line(&key) {
                    let why = end.to_string();
                    if broken {
                        tracing::warn!(%node, why = %shown(&why), unsaid, "session ended");
                    } else {
                        tracing::info!(%node, why = %shown(&why), unsaid, "session ended");
                    }
                }
                if last {
                    self.shared.modules.disconnected(&node);
                    self.tell(&node, Operation::of("disconnected"), Some(ModuleName::DEVICE_CONTROLLER));
                }
            }
            Err(error) => {
                tracing::error!(error = %error, "a session failed");
                // Its handle is found by nobody being behind it any more.
                for (node, handle) in self.sessions.take_dead() {
                    self.shared.modules.disconnected(&node);
                    self.remember_unrecorded(&handle);
                }
            }
        }
    }

    /// What a session took and did not come to record is remembered, or its node would never get it.
    fn remember_unrecorded(&self, ended: &Handle) {
        let records = &self.shared.records;
        for record in ended.pool.unrecorded(|record| records.is_missing(record)) {
            records.ensure_later(record);
        }
    }

    /// Tells SyncController and another that a node came or went, as soon as they have room.
    fn tell(&mut self, node: &NodeName, operation: Operation, another: Option<ModuleName>) {
        let message = Message::new(ModuleName::CLOUD_HUB, operation, format!("node/{node}"))
            .with(Content::text(node.as_str()));
        let bus = &self.shared.bus;
        for module in another.into_iter().chain([ModuleName::SYNC_CONTROLLER]).filter(|name| bus.has(name)) {
            match bus.try_send(&module, message.clone()) {
                Ok(()) => {}
                Err(SendError::Full(_)) => {
                    let (bus, message) = (bus.clone(), message.clone());
                    self.tasks.spawn(async move { drop(bus.send(&module, message).await) });
                }
                Err(error) => tracing::debug!(error = %error, "a controller was not told of a node"),
            }
        }
    }
}

/// The module that a message of an edge is for, for fuzzers.
#[cfg(feature = "fuzz")]
pub(crate) fn module_of(node: &NodeName, message: Message) -> Option<(ModuleName, Message)> {
    let message = session::intake::authorize(node, message).ok()?;
    match upstream::route(node, message) {
        upstream::Upstream::Module(module, message) => Some((module, message)),
        _ => None,
    }
}

/// Decides how a message to a node travels, for fuzzers.
#[cfg(feature = "fuzz")]
pub(crate) fn travels(node: &NodeName, message: Message) {
    let _ = rules::is_node_gone(&message);
    drop(delivery::Delivery::of(node, message, |_| None));
}
