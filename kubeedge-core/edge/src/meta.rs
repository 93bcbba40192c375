//! MetaManager: the edge's durable copy of what it should run.
//!
//! Everything the cloud sends about objects goes through here: it is stored, passed on to the module that acts on it,
//! and only then acknowledged, so that what the cloud holds for delivered survives a power cut. Questions of the
//! edge's own modules are answered from the copy or by the cloud, as KubeEdge's rules say; without a link, from the
//! copy alone.
//!
//! The copy is a bucket of any [`MetaStore`]: the key is the resource (`default/pod/web`), the value the content as
//! it came, never parsed on the way. Rules by source and operation follow Go's MetaManager, its defects mended: an
//! answer that fails reaches the asker at once, an `ErrStatus` is no ConfigMap, and a token is kept until its
//! successor is there.
//!
//! Beside each object the copy says which version of it the cloud was told is here, in the same commit. A cloud of ours
//! compares that with its records at each connect ([`kubeedge_common::digest`]), so that neither a lost store nor lost
//! records leave the two apart; a Go cloud never asks.

mod client;
mod cloud;
mod compare;
mod rows;
mod tokens;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
pub use client::{ApiStatus, Client, ClientError};
use kubeedge_common::digest;
use kubeedge_core::{
    bus::{Bus, Envelope, SendError},
    failure::BoxError,
    kernel::{Module, ModuleContext},
    message::{Content, Message, resource::ObjectPath},
    name::{Group, ModuleName, Operation, ResourceVersion},
    store::MetaStore,
};
pub use rows::BUCKET;
use tokio::{
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinSet},
};

use self::{cloud::Remote, rows::Rows};

/// How MetaManager is set up.
#[derive(Clone, Debug)]
pub struct MetaManagerSettings {
    /// How long the cloud may take to answer; Go's remoteQueryTimeout.
    pub remote_query_timeout: Duration,
    /// How many questions may wait for the cloud at once; further ones wait for their turn.
    pub remote_queries: usize,
}

impl Default for MetaManagerSettings {
    fn default() -> Self {
        Self { remote_query_timeout: Duration::from_secs(60), remote_queries: 256 }
    }
}

/// The module. A clone takes over where the original ended: it uses the same store and knows whether the link is up,
/// so that a supervisor can start one after a failure.
#[derive(Clone, Debug)]
pub struct MetaManager {
    settings: MetaManagerSettings,
    store: Arc<dyn MetaStore>,
    connected: watch::Sender<bool>,
}

impl MetaManager {
    /// Keeps its copy in this store.
    pub fn new(settings: MetaManagerSettings, store: Arc<dyn MetaStore>) -> Self {
        Self { settings, store, connected: watch::Sender::new(false) }
    }
}

#[async_trait]
impl Module for MetaManager {
    fn name(&self) -> ModuleName {
        ModuleName::META_MANAGER
    }

    fn group(&self) -> Group {
        Group::META
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let rows = Rows::new(self.store.clone());
        let connected = self.connected.clone();
        let remote = Arc::new(Remote {
            bus: ctx.bus.clone(),
            clock: ctx.clock.clone(),
            rows: rows.clone(),
            connected: connected.subscribe(),
            within: self.settings.remote_query_timeout,
            slots: Semaphore::new(self.settings.remote_queries),
        });
        let mut desk =
            Desk { bus: ctx.bus.clone(), rows, remote, connected, errands: JoinSet::new(), comparing: None };
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                Some(_) = desk.errands.join_next() => {}
                envelope = ctx.inbox.next() => match envelope {
                    Some(envelope) => desk.handle(envelope).await,
                    None => return Ok(()),
                },
            }
        }
    }
}

/// Kinds that are asked of the cloud while there is a link; pods and nodes are always answered locally.
const REMOTE_KINDS: [&str; 7] = [
    "configmap",
    "secret",
    "persistentvolume",
    "persistentvolumeclaim",
    "volumeattachment",
    "certificatesigningrequest",
    "serviceaccounttoken",
];

/// Kinds whose copy is good enough when there is one: the cloud sends their changes by itself.
const LOCAL_FIRST: [&str; 2] = ["configmap", "secret"];

/// How many slow things are done at once before further ones are refused.
const MOST_ERRANDS: usize = 2048;
const CROWDED: &str = "too many requests wait for the cloud";
/// How long Edged may take for a volume operation, as in Go.
const VOLUME_TIMEOUT: Duration = Duration::from_secs(60);

struct Desk {
    bus: Bus,
    rows: Rows,
    remote: Arc<Remote>,
    connected: watch::Sender<bool>,
    errands: JoinSet<()>,
    /// The comparison with the cloud that is under way.
    comparing: Option<AbortHandle>,
}

/// Who a message is from, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Edged,
    Devices,
    Policy,
    MetaServer,
    Cloud,
    Other,
}

impl From {
    fn of(message: &Message) -> Self {
        match message.route.source.as_str() {
            "edged" => Self::Edged,
            "devicecontroller" => Self::Devices,
            "policycontroller" => Self::Policy,
            "metamanager" => Self::MetaServer,
            "edgecontroller" | "dynamiccontroller" | "synccontroller" => Self::Cloud,
            _ => Self::Other,
        }
    }
}

impl Desk {
    async fn handle(&mut self, envelope: Envelope) {
        let message = &envelope.message;
        let resource = message.route.resource.clone();
        let kind = ObjectPath::parse(resource.as_str()).map_or("", |path| path.kind);
        let from = From::of(message);
        match message.route.operation.as_str() {
            "connect" => self.link_changed(message),
            "insert" | "update" | "patch" if kind == "event" => self.forward_event(envelope).await,
            "insert" if from == From::Edged => self.remotely(envelope),
            "insert" => self.inserted(message, from, kind).await,
            "update" if from == From::Edged && kind == "lease" => self.remotely(envelope),
            "update" if matches!(from, From::Edged | From::MetaServer) => {
                self.updated_here(envelope, from).await
            }
            "update" => self.updated(message, from, kind).await,
            "patch" => self.patched(envelope),
            "delete" if from == From::Edged && kind == "pod" => self.pod_gone(envelope).await,
            "delete" => self.deleted(message, from, kind).await,
            "query" => self.asked(envelope, kind).await,
            "get" if from == From::Cloud && resource == digest::RESOURCE => self.compared(envelope),
            "createvolume" | "deletevolume" | "controllerpublishvolume" | "controllerunpublishvolume" => {
                self.volume(envelope)
            }
            "response" => self.answered(envelope, from).await,
            operation => {
                tracing::warn!(operation, resource = %resource, "operation not supported, message ignored")
            }
        }
    }

    fn link_changed(&self, message: &Message) {
        if let Some(text) = message.content.as_text() {
            self.connected.send_replace(text == "cloud_connected");
        }
    }

    fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    async fn forward_event(&self, envelope: Envelope) {
        // Without a link, events are dropped as Go drops them: they are hints, and their flood would fill the queue.
        if self.is_connected() {
            self.pass(&ModuleName::EDGE_HUB, envelope.message).await;
        }
    }

    fn remotely(&mut self, envelope: Envelope) {
        let remote = self.remote.clone();
        self.errand(envelope, |envelope| remote.ask(envelope));
    }

    /// Does something slow beside the desk's own work.
    fn errand<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        envelope: Envelope,
        work: impl FnOnce(Envelope) -> F,
    ) {
        while self.errands.try_join_next().is_some() {}
        if self.errands.len() < MOST_ERRANDS {
            self.errands.spawn(work(envelope));
        } else {
            tracing::warn!(resource = %envelope.message.route.resource, "too many questions wait for the cloud, refused");
            envelope.fail(CROWDED);
        }
    }

    /// A volume operation of the cloud: Edged's answer, or why there is none, goes back to it.
    fn volume(&mut self, envelope: Envelope) {
        let (bus, within) = (self.bus.clone(), VOLUME_TIMEOUT);
        self.errand(envelope, |envelope| async move {
            let asked = envelope.message;
            let answer = match bus.request(&ModuleName::EDGED, asked.clone(), within).await {
                Ok(answer) => answer,
                Err(error) => asked.error_answer(error),
            };
            if let Err(error) = bus.send(&ModuleName::EDGE_HUB, answer).await {
                tracing::warn!(error = %error, "answer of a volume operation not sent");
            }
        });
    }

    async fn inserted(&self, message: &Message, from: From, kind: &str) {
        if self.stored(message, true).await {
            self.deliver(message, from, kind).await;
        }
    }

    async fn updated(&self, message: &Message, from: From, kind: &str) {
        let confirms = matches!(from, From::Devices | From::Cloud | From::Policy);
        if !self.stored(message, confirms).await {
            return;
        }
        match from {
            From::Devices => {
                self.acknowledge(message).await;
                self.pass(&ModuleName::TWIN, for_twin(message)).await;
            }
            From::Cloud if kind == "node" => self.acknowledge(message).await,
            From::Cloud | From::Policy => self.deliver(message, from, kind).await,
            _ => {
                tracing::warn!(source = %message.route.source, resource = %message.route.resource, "update of an unknown source stored, not acknowledged")
            }
        }
    }

    /// Passes what was stored or removed on to the module that acts on it, and acknowledges it.
    async fn deliver(&self, message: &Message, from: From, kind: &str) {
        match (from, kind) {
            // Go gives these the twin's route first and acknowledges them with it.
            (From::Devices, _) => {
                let routed = for_twin(message);
                self.acknowledge(&routed).await;
                self.pass(&ModuleName::TWIN, routed).await;
            }
            (From::Policy, _) => self.acknowledge(message).await,
            // What changed while the link was down is sent by the cloud's reconciliation in EdgeController's name. Go
            // hands such devices to Edged, which has no use for them, so that mappers keep the old description.
            (_, "device" | "devicemodel") => {
                self.pass(&ModuleName::TWIN, for_twin(message)).await;
                self.acknowledge(message).await;
            }
            _ => {
                self.pass(&ModuleName::EDGED, message.clone()).await;
                self.acknowledge(message).await;
            }
        }
    }

    /// An update made at the edge: stored, passed on, confirmed to its maker.
    async fn updated_here(&self, envelope: Envelope, from: From) {
        if let Err(error) = self.rows.put(&envelope.message).await {
            return envelope.fail(error);
        }
        let to = if from == From::MetaServer { ModuleName::TWIN } else { ModuleName::EDGE_HUB };
        let message = &envelope.message;
        let passed = if to == ModuleName::TWIN { for_twin(message) } else { message.clone() };
        self.pass(&to, passed).await;
        envelope.answer(Content::ok());
    }

    fn patched(&mut self, envelope: Envelope) {
        let remote = self.remote.clone();
        self.errand(envelope, |envelope| remote.patch(envelope));
    }

    /// Edged has ended a pod. The rows stay until the cloud agrees and sends the deletion.
    async fn pod_gone(&self, envelope: Envelope) {
        if !self.is_connected() {
            return envelope.fail(cloud::LOST);
        }
        if let Err(error) = self.bus.forward(&ModuleName::EDGE_HUB, envelope).await {
            tracing::warn!(error = %error, "cannot reach EdgeHub");
        }
    }

    async fn deleted(&self, message: &Message, from: From, kind: &str) {
        let removed =
            if kind == "pod" { self.rows.remove_pod(message).await } else { self.rows.remove(message).await };
        if let Err(error) = removed {
            return self.complain(message, &error).await;
        }
        self.deliver(message, from, kind).await;
    }

    async fn asked(&mut self, envelope: Envelope, kind: &str) {
        let resource = envelope.message.route.resource.as_str();
        if kind == "serviceaccounttoken" {
            let remote = self.remote.clone();
            return self.errand(envelope, |envelope| remote.token(envelope));
        }
        // A lease that is not renewed means nothing: without a link there is none.
        if kind == "lease" {
            return self.remotely(envelope);
        }
        let local = if LOCAL_FIRST.contains(&kind) { self.rows.one(resource).await } else { Ok(None) };
        match local {
            Ok(Some(row)) => envelope.answer(rows::listed(&[row])),
            Ok(None) if self.is_connected() && (REMOTE_KINDS.contains(&kind) || resource == "k8s/ca.crt") => {
                self.remotely(envelope);
            }
            Ok(None) => match self.rows.list(resource).await {
                Ok(found) => envelope.answer(rows::listed(&found)),
                Err(error) => envelope.fail(error),
            },
            Err(error) => envelope.fail(error),
        }
    }

    async fn answered(&self, envelope: Envelope, from: From) {
        if from != From::Cloud {
            self.pass(&ModuleName::EDGE_HUB, envelope.message).await;
        } else if self.remote.late(&envelope.message).await {
            self.pass(&ModuleName::EDGED, envelope.message).await;
        }
    }

    /// The cloud compares what is here with what it believes is here. A later comparison takes the place of one under way.
    fn compared(&mut self, envelope: Envelope) {
        if let Some(earlier) = self.comparing.take() {
            earlier.abort();
        }
        let (bus, rows, within) = (self.bus.clone(), self.rows.clone(), self.remote.within);
        while self.errands.try_join_next().is_some() {}
        self.comparing = Some(self.errands.spawn(compare::answer(bus, rows, envelope.message, within)));
    }

    /// Stores what a message carries; otherwise tells the cloud, which will send it again. `confirms`: the cloud is going to
    /// be told that it is stored.
    async fn stored(&self, message: &Message, confirms: bool) -> bool {
        // An answer may have brought a later form already: what is on its way from both sides passes each other.
        let object = message.content.clone().into_data();
        let version = message.header.resource_version.as_ref().and_then(ResourceVersion::number);
        let version = version.filter(|_| confirms);
        match self.rows.put_newest(message.route.resource.as_str(), object, version).await {
            Ok(()) => true,
            Err(error) => {
                self.complain(message, &error).await;
                false
            }
        }
    }

    async fn complain(&self, message: &Message, error: &kubeedge_core::store::StoreError) {
        let why = kubeedge_core::failure::chain(error);
        tracing::error!(resource = %message.route.resource, error = %why, "cannot store what the cloud sent");
        let mut answer = message.error_answer(why);
        answer.route.source = ModuleName::META_MANAGER;
        self.pass(&ModuleName::EDGE_HUB, answer).await;
    }

    async fn acknowledge(&self, message: &Message) {
        self.pass(&ModuleName::EDGE_HUB, message.answer(Content::ok())).await;
    }

    async fn pass(&self, to: &ModuleName, message: Message) {
        match self.bus.send(to, message).await {
            Ok(()) => {}
            // A device-only gateway has no Edged, a compute node no DeviceTwin.
            Err(SendError::Unknown(module)) => {
                tracing::debug!(%module, "no such module here, message kept in the store only")
            }
            Err(error) => tracing::warn!(error = %error, "message not passed on"),
        }
    }
}

/// The message with the route DeviceTwin knows MetaManager's objects by.
fn for_twin(message: &Message) -> Message {
    let mut routed = message.clone();
    routed.route.source = ModuleName::of("meta");
    routed.route.group = Group::TWIN;
    routed
}

/// Whether an operation is an error answer.
fn is_error(message: &Message) -> bool {
    message.route.operation == Operation::ERROR
}

#[cfg(test)]
mod tests;
