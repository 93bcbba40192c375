//! EdgeHub: the edge end of the link to the cloud.
//!
//! It gets the node's certificate, keeps one link up, hands what comes from the cloud to the module it is for, and sends what
//! modules leave in its mailbox.
//!
//! | message of the cloud | goes to |
//! |---|---|
//! | answers a request that waits | the asker |
//! | group `resource` or `func` | MetaManager |
//! | group `twin` | DeviceTwin |
//! | group `user`, source `router_eventbus` or `router_servicebus` | EventBus or ServiceBus |
//! | group `taskmanager` | TaskManager |
//!
//! On the wire it is Go's EdgeHub: the same path and headers, a keepalive at once and then every heartbeat past the message
//! limit, the same events `cloud_connected` and `cloud_disconnected` to the groups twin, meta, bus and taskmanager.
//!
//! Where we differ from Go:
//! - A request made without a link fails at once, and so does one whose link breaks; Go lets it run into its deadline.
//! - What waits goes out in lanes: control and pods, then twins, then uploads and events. A flood of uploads costs uploads,
//!   never a lease. A message whose writing failed is sent again on the next link; Go loses it.
//! - A module that does not read its mailbox holds up neither replies nor keepalives. 1024 messages wait for it here; what
//!   comes beyond that is refused, and the cloud sends objects again until they are confirmed.
//! - A frame that is no message is logged and skipped; Go gives up the link.
//! - A cloud that takes questions and says nothing is left after [`EdgeHubSettings::silence`]: Go's cloud keeps the
//!   socket of a node it refuses open.
//! - A lost link is dialled again after a second, then after growing pauses; Go sleeps two heartbeats first.
//! - The join trusts nobody on faith; see [`JoinSettings`].

mod connect;
pub(crate) mod dispatch;
mod files;
mod https;
mod identity;
mod join;
mod keeper;
mod outbox;
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
    failure::BoxError,
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName, NodeName},
    transport::{Credentials, Transport},
    wire::{Codec, GoJson},
};
use tokio::{sync::watch, task::JoinSet};

use self::{
    connect::{Announcer, Connector, LinkState},
    dispatch::Backlogs,
    keeper::Keeper,
    outbox::Outbox,
};
pub use self::{
    identity::{IdentitySource, JoinError, JoinSettings},
    join::Joiner,
};

/// KubeEdge's project id, which nothing reads but everybody sends.
pub const DEFAULT_PROJECT: &str = "e632aba927ea4ac2b575ec1603d56f10";

/// How EdgeHub works.
#[derive(Clone, Debug)]
pub struct EdgeHubSettings {
    /// This node.
    pub node: NodeName,
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
    /// Where certificates come from.
    pub identity: IdentitySource,
    /// Where random numbers start: pauses and the moment of rotation.
    pub seed: u64,
}

impl Default for EdgeHubSettings {
    fn default() -> Self {
        Self {
            node: NodeName::default(),
            project: DEFAULT_PROJECT.to_owned(),
            servers: Vec::new(),
            heartbeat: Duration::from_secs(15),
            qps: 30,
            burst: 60,
            handshake: Duration::from_secs(30),
            write: Duration::from_secs(15),
            silence: Duration::from_secs(90),
            reconnect: Duration::from_secs(1),
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
    #[error("EdgeHub has no server to dial: set modules.edgeHub.websocket.server to host:port of cloudcore")]
    NoServer,
    /// The node has no name.
    #[error("EdgeHub needs the name of its node: set modules.edged.hostnameOverride")]
    NoNode,
    /// A setting of time is zero.
    #[error("EdgeHub's {0} must be more than 0 seconds")]
    NoTime(&'static str),
}

/// The module. A clone takes over where the original ended, so that a supervisor can start one after a failure; only one of
/// them may work at a time.
#[derive(Clone, Debug)]
pub struct EdgeHub {
    settings: EdgeHubSettings,
    transport: Arc<dyn Transport>,
    codec: Arc<dyn Codec>,
    clock: Clock,
    connected: watch::Sender<bool>,
    credentials: watch::Sender<Option<Arc<Credentials>>>,
    /// Whether one of the clones has worked before, so that modules may believe that the link is up.
    worked: Arc<AtomicBool>,
}

impl EdgeHub {
    /// A hub that speaks Go's JSON over this transport.
    pub fn new(settings: EdgeHubSettings, transport: Arc<dyn Transport>) -> Self {
        let (connected, credentials) = (watch::Sender::new(false), watch::Sender::new(None));
        let (codec, clock, worked) = (Arc::new(GoJson), Clock::wall(), Arc::default());
        Self { settings, transport, codec, clock, connected, credentials, worked }
    }

    /// Speaks another codec; the cloud must speak it too.
    #[must_use]
    pub fn codec(mut self, codec: Arc<dyn Codec>) -> Self {
        self.codec = codec;
        self
    }

    /// Tells by this clock whether certificates hold and are due.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Whether the link is up, now and later.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// The node's certificates once they are there, and anew after each rotation: for others that dial the cloud, and as
    /// the sign that the join token has done its work and can be removed from configuration.
    pub fn credentials(&self) -> watch::Receiver<Option<Arc<Credentials>>> {
        self.credentials.subscribe()
    }

    fn check(&self) -> Result<(), EdgeHubError> {
        let settings = &self.settings;
        if settings.servers.iter().all(String::is_empty) {
            return Err(EdgeHubError::NoServer);
        }
        if settings.node.is_empty() {
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
    fn assemble(&self, bus: &Bus, outbox: &Arc<Outbox>, tasks: &mut JoinSet<()>) -> Connector {
        self.connected.send_replace(false);
        let told = self.worked.swap(true, Ordering::Relaxed);
        let state = watch::Sender::new(LinkState::default());
        for group in [Group::TWIN, Group::META, Group::BUS, Group::TASK_MANAGER] {
            let announcer = Announcer { group, bus: bus.clone(), told };
            tasks.spawn(announcer.run(state.subscribe()));
        }
        let (keeper, doubt) = Keeper::new(&self.settings, &self.clock, self.credentials.clone());
        tasks.spawn(keeper.run());
        Connector {
            settings: self.settings.clone(),
            transport: self.transport.clone(),
            codec: self.codec.clone(),
            outbox: outbox.clone(),
            backlogs: Backlogs::start(bus, tasks),
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

    async fn start(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        self.check()?;
        let outbox = Arc::new(Outbox::new());
        // Dropped at the end of this function, which ends the tasks.
        let mut tasks = JoinSet::new();
        let connector = self.assemble(&ctx.bus, &outbox, &mut tasks);
        let ended = tokio::select! {
            () = outbox.fill(&mut ctx.inbox) => Ok(()),
            () = connector.run(&ctx.shutdown) => Ok(()),
            Some(ended) = tasks.join_next() => match ended {
                Ok(()) => Err("a part of EdgeHub ended by itself".into()),
                Err(error) => Err(error.into()),
            },
        };
        self.connected.send_replace(false);
        outbox.down();
        ended
    }
}
