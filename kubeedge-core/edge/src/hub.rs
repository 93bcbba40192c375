//! EdgeHub: the edge end of the link to the cloud.
//!
//! It gets the node's certificate, keeps one link up, hands what comes from the cloud to the module it is
//! for, and sends what modules leave in its mailbox.
//!
//! | message of the cloud | goes to |
//! |---|---|
//! | answers a request that waits | the asker |
//! | group `resource` or `func` | MetaManager |
//! | group `twin` | DeviceTwin |
//! | group `user`, source `router_eventbus` or `router_servicebus` | EventBus or ServiceBus |
//! | group `taskmanager` | TaskManager |
//! | a vendor's group | the module that takes it ([`routes`](kubeedge_core::routes)); where none does, an error goes back |
//!
//! On the wire it is Go's EdgeHub: the same path and headers, a keepalive at once and then every heartbeat
//! past the message limit, the same events `cloud_connected` and `cloud_disconnected` to the groups twin,
//! meta, bus and taskmanager.
//!
//! Where we differ from Go:
//! - A request made without a link fails at once, and so does one whose link breaks; Go lets it run into its
//!   deadline.
//! - What waits goes out in lanes: control and pods, then twins, then uploads and events. A flood of uploads
//!   costs uploads, never a lease, and half of the burst is kept for control.
//! - Every message is delivered at least once, in order of its resource, or its sender learns that it was
//!   not; see the table below. Go loses what is on its way when a link breaks, and everything when it ends.
//! - A module that does not read its mailbox holds up neither replies nor keepalives. 1024 messages wait for
//!   it here; what comes beyond that is refused, and the cloud sends objects again until they are confirmed.
//! - A frame that is no message is logged and skipped; Go gives up the link.
//! - A link that gives no sign of life for two heartbeats is left; the cloud's end is asked for one with each
//!   of them, by a ping of the transport: a WebSocket's, which Go's end answers without telling anybody, or
//!   QUIC's. Go waits for TCP to give up.
//! - A cloud that takes questions and says nothing is left after [`EdgeHubSettings::silence`]: Go's cloud
//!   keeps the socket of a node it refuses open.
//! - A lost link is dialled again within a second, then after growing pauses with jitter; Go sleeps two
//!   heartbeats first.
//! - The join trusts nobody on faith; see [`JoinSettings`].
//!
//! # What happens to a message for the cloud
//!
//! | message | stored | known to be with the cloud | without a link, or when it breaks |
//! |---|---|---|---|
//! | a request (its sender waits) | no | by its answer | fails, and its sender learns it |
//! | a status: the patch of a pod or node | the newest of each object | by its answer | fails for a sender that waits; is kept and sent on the next link |
//! | an upload, a report of a node task | each, in order | by a sign of life | kept and sent on the next link |
//! | an upload whose sender waits | each, in order | by a sign of life | the same; its sender is told when it is stored or with the cloud |
//! | a twin or state of a device | by DeviceTwin | by its confirmation | DeviceTwin tells the newest of each property on the next link |
//! | an acknowledgement | no | once written | kept; if it is lost the cloud asks for it again |
//! | a vendor's, [`BestEffort`](kubeedge_core::routes::Delivery::BestEffort) | no | not at all; a request by its answer | comes back to its sender |
//! | a vendor's, [`Newest`](kubeedge_core::routes::Delivery::Newest) | the newest of each resource | by its answer | kept; sent again on the next link and after growing pauses |
//! | a vendor's, [`Reliable`](kubeedge_core::routes::Delivery::Reliable) | each, in order | by its answer | the same, of one resource one at a time |
//! | anything else | no | by a sign of life | kept and sent on the next link |
//!
//! A *sign of life* is an answer to something written later on the same link and in the same lane, or a pong
//! to a later ping: a lane keeps the order, so what went before was read, and a pong stands for all lanes.
//! Over a transport that cannot ping, two heartbeats without a break do. What is sent again keeps its id and
//! goes before what came later.
//!
//! *Stored* means in the [`MetaStore`] of [`EdgeHub::store`], many changes in one commit: without a link at
//! once, with one after a second, so that what the cloud has by then costs no write; and when the hub ends. A
//! power cut loses of uploads at most those of the second before it, and none whose sender was told: whoever
//! makes an upload a request to this module ([`Bus::request`]) gets `OK` once it can be lost no more, a tenth
//! of a second later at most if the store takes it, and an error if there is no room. EventBus does so where
//! `mqttSubClientID` is set.
//!
//! Each of control, twins and events may take 1024 messages and 32 MiB, uploads [`EdgeHubSettings::uploads`]
//! and [`EdgeHubSettings::upload_bytes`]. What finds no room is refused: a sender that waits is told,
//! otherwise [`EdgeHub::refused`] counts it and the log says so, once for each row and thousand. Programs
//! whose uploads over MQTT are refused are told on the topic `$hw/events/node/<node>/upload/refused`, once a
//! second at most: how many, and of which topics.

mod connect;
pub(crate) mod dispatch;
mod files;
mod https;
mod identity;
mod join;
mod keeper;
mod outbox;
mod pulse;
mod session;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_core::{
    bus::Bus,
    clock::Clock,
    failure::{BoxError, chain},
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName, NodeName},
    store::MetaStore,
    transport::{Credentials, Transport},
    wire::{Codec, GoJson},
};
use tokio::{
    sync::{OnceCell, watch},
    task::JoinSet,
};

use self::{
    connect::{Announcer, Connector, LinkState},
    dispatch::Backlogs,
    keeper::Keeper,
    outbox::{Bounds, Outbox},
};
pub use self::{
    identity::{IdentitySource, JoinError, JoinSettings},
    join::Joiner,
};

/// KubeEdge's project id, which nothing reads but everybody sends.
pub const DEFAULT_PROJECT: &str = "e632aba927ea4ac2b575ec1603d56f10";

/// How long what waits may take to be stored when the hub ends.
const LAST_COMMITS: Duration = Duration::from_secs(5);

/// How EdgeHub works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EdgeHubSettings {
    /// The project id in path and header.
    pub project: String,
    /// Where cloudcores listen, `host:port` each; at least one. They are tried in turn.
    pub servers: Vec<String>,
    /// How often a keepalive is sent. KubeEdge: 15 s; the cloud gives up after 30 s without one.
    pub heartbeat: Duration,
    /// Messages a second to the cloud, keepalives not counted; 0 for no limit. KubeEdge: 30.
    pub qps: u32,
    /// How many messages may go at once after a rest. KubeEdge: 60.
    pub burst: u32,
    /// How long a dial may take, handshakes included. KubeEdge: 30 s.
    pub handshake: Duration,
    /// How long one frame may take to be written before the link is given up. KubeEdge: 15 s.
    pub write: Duration,
    /// After how long without any word from a cloud that was asked something the link is given up. Ours.
    pub silence: Duration,
    /// The first pause before a lost link is dialled again; it doubles up to two heartbeats. Ours.
    pub reconnect: Duration,
    /// How many uploads may wait for the cloud; further ones are dropped and counted. Ours.
    pub uploads: usize,
    /// How many bytes of content these may have together. Ours.
    pub upload_bytes: usize,
    /// Where certificates come from.
    pub identity: IdentitySource,
    /// Where random numbers start: pauses and the moment of rotation.
    pub seed: u64,
}

impl Default for EdgeHubSettings {
    fn default() -> Self {
        Self {
            project: DEFAULT_PROJECT.to_owned(),
            servers: Vec::new(),
            heartbeat: Duration::from_secs(15),
            qps: 30,
            burst: 60,
            handshake: Duration::from_secs(30),
            write: Duration::from_secs(15),
            silence: Duration::from_secs(90),
            reconnect: Duration::from_secs(1),
            uploads: 8192,
            upload_bytes: 32 << 20,
            identity: IdentitySource::Fixed(Credentials::default()),
            seed: 0,
        }
    }
}

/// EdgeHub cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeHubError {
    /// No cloudcore is named.
    #[error(
        "EdgeHub has no server to dial: set modules.edgeHub.websocket.server (EdgeHubSettings::servers) to host:port of cloudcore"
    )]
    NoServer,
    /// The node has no name.
    #[error(
        "EdgeHub needs the name of its node: set modules.edged.hostnameOverride (EdgeCoreSettings::node)"
    )]
    NoNode,
    /// A setting of time is zero.
    #[error("EdgeHub's {0} must be more than 0 seconds")]
    NoTime(&'static str),
}

/// The module. A clone takes over where the original ended, so that a supervisor can start one after a
/// failure; only one of them may work at a time.
#[derive(Clone, Debug)]
pub struct EdgeHub {
    node: NodeName,
    settings: EdgeHubSettings,
    transport: Arc<dyn Transport>,
    codec: Arc<dyn Codec>,
    store: Option<Arc<dyn MetaStore>>,
    /// What waits for the cloud, once it was read from the store.
    outbox: Arc<OnceCell<Arc<Outbox>>>,
    connected: watch::Sender<bool>,
    credentials: watch::Sender<Option<Arc<Credentials>>>,
    /// Whether one of the clones has worked before, so that modules may believe that the link is up.
    worked: Arc<AtomicBool>,
}

impl EdgeHub {
    /// The hub of this node, which speaks Go's JSON over this transport.
    pub fn new(node: NodeName, settings: EdgeHubSettings, transport: Arc<dyn Transport>) -> Self {
        let (connected, credentials) = (watch::Sender::new(false), watch::Sender::new(None));
        let (outbox, worked) = (Arc::default(), Arc::default());
        let codec = Arc::new(GoJson);
        Self { node, settings, transport, codec, store: None, outbox, connected, credentials, worked }
    }

    /// Keeps what waits for the cloud in this store, so that it outlives the process. Without one it is lost
    /// with it.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn MetaStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Speaks another codec; the cloud must speak it too.
    #[must_use]
    pub fn codec(mut self, codec: Arc<dyn Codec>) -> Self {
        self.codec = codec;
        self
    }

    /// Whether the link is up, now and later.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// The node's certificates once they are there, and anew after each rotation: for others that dial the
    /// cloud, and as the sign that the join token has done its work and can be removed from configuration.
    pub fn credentials(&self) -> watch::Receiver<Option<Arc<Credentials>>> {
        self.credentials.subscribe()
    }

    /// How many messages whose senders did not wait were dropped for want of room, since the start.
    pub fn refused(&self) -> u64 {
        self.outbox.get().map_or(0, |outbox| outbox.refused())
    }

    /// What waits for the cloud; read from the store by the first who asks.
    async fn outbox(&self) -> Result<Arc<Outbox>, BoxError> {
        let EdgeHubSettings { uploads, upload_bytes, .. } = self.settings;
        let load = || async {
            let outbox = Outbox::new(Bounds { uploads, upload_bytes }, self.store.clone());
            outbox.load().await?;
            Ok::<_, BoxError>(Arc::new(outbox))
        };
        self.outbox.get_or_try_init(load).await.cloned()
    }

    fn check(&self) -> Result<(), EdgeHubError> {
        let settings = &self.settings;
        if settings.servers.iter().all(String::is_empty) {
            return Err(EdgeHubError::NoServer);
        }
        if self.node.is_empty() {
            return Err(EdgeHubError::NoNode);
        }
        let times = [
            ("heartbeat", settings.heartbeat),
            ("handshake timeout", settings.handshake),
            ("write deadline", settings.write),
            ("silence", settings.silence),
        ];
        let zero = times.into_iter().find(|(_, time)| time.is_zero());
        zero.map_or(Ok(()), |(name, _)| Err(EdgeHubError::NoTime(name)))
    }

    /// Starts what works beside the link; the returned connector makes the link itself.
    fn assemble(&self, bus: &Bus, clock: &Clock, outbox: &Arc<Outbox>, tasks: &mut JoinSet<()>) -> Connector {
        self.connected.send_replace(false);
        let told = self.worked.swap(true, Ordering::Relaxed);
        let state = watch::Sender::new(LinkState::default());
        for group in [Group::TWIN, Group::META, Group::BUS, Group::TASK_MANAGER] {
            let announcer = Announcer { group, bus: bus.clone(), told };
            tasks.spawn(announcer.run(state.subscribe()));
        }
        tasks.spawn(outbox.clone().tell_refusals(bus.clone(), self.node.clone()));
        tasks.spawn(outbox.clone().tell_undelivered(bus.clone()));
        let (keeper, doubt) = Keeper::new(&self.node, &self.settings, clock, self.credentials.clone());
        tasks.spawn(keeper.run());
        Connector {
            node: self.node.clone(),
            settings: self.settings.clone(),
            transport: self.transport.clone(),
            codec: self.codec.clone(),
            outbox: outbox.clone(),
            backlogs: Backlogs::start(bus, &self.node, outbox, tasks),
            credentials: self.credentials.subscribe(),
            doubt,
            state,
            connected: self.connected.clone(),
        }
    }
}

#[async_trait]
impl Module for EdgeHub {
    fn name(&self) -> ModuleName {
        ModuleName::EDGE_HUB
    }

    fn group(&self) -> Group {
        Group::HUB
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        self.check()?;
        let outbox = self.outbox().await?;
        // Should the one before have been broken off.
        outbox.down();
        // Dropped at the end of this function, which ends the tasks.
        let mut tasks = JoinSet::new();
        let connector = self.assemble(&ctx.bus, &ctx.clock, &outbox, &mut tasks);
        let ended = tokio::select! {
            () = outbox.fill(&mut ctx.inbox) => Ok(()),
            () = outbox.put_away(self.settings.seed) => Ok(()),
            () = connector.run(&ctx.shutdown) => Ok(()),
            Some(ended) = tasks.join_next() => match ended {
                Ok(()) => Err("a part of EdgeHub ended by itself".into()),
                Err(error) => Err(error.into()),
            },
        };
        self.connected.send_replace(false);
        outbox.down();
        while ctx.shutdown.is_requested()
            && let Some(envelope) = ctx.inbox.try_next()
        {
            outbox.put(envelope);
        }
        match tokio::time::timeout(LAST_COMMITS, outbox.put_all_away()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = %chain(&error), "what waits for the cloud could not be stored");
            }
            Err(_) => tracing::error!("what waits for the cloud could not be stored in time"),
        }
        ended
    }
}
