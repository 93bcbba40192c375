//! The cloud's end of a link, and a node with EdgeHub and mailboxes in place of its other modules.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::StreamExt;
use kubeedge_core::{
    bus::{Bus, Inbox},
    failure::BoxError,
    kernel::{Module, ModuleContext, Shutdown},
    message::Message,
    name::{Group, ModuleName, Operation},
    routes::{Routes, RoutingTable},
    store::MetaStore,
    transport::{Credentials, Endpoint, Link, Listener, Peer, Transport},
    wire::{Codec, GoJson},
};
use kubeedge_edge::hub::{EdgeHub, EdgeHubSettings};
use tokio::task::JoinHandle;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn settings() -> EdgeHubSettings {
    let mut settings = EdgeHubSettings::default();
    settings.servers = vec!["cloud".to_owned()];
    settings
}

/// The cloud's end of one link.
pub(crate) struct CloudEnd {
    pub(crate) peer: Peer,
    pub(crate) link: Link,
}

impl CloudEnd {
    pub(crate) async fn try_next(&mut self) -> Option<Message> {
        let frame = tokio::time::timeout(PATIENCE, self.link.rx.next()).await.unwrap();
        frame.and_then(Result::ok).map(|frame| GoJson.decode(frame).unwrap())
    }

    pub(crate) async fn next(&mut self) -> Message {
        self.try_next().await.expect("the edge closed the link")
    }

    /// The next message that is no keepalive.
    pub(crate) async fn next_message(&mut self) -> Message {
        loop {
            let message = self.next().await;
            if message.route.operation != Operation::KEEPALIVE {
                return message;
            }
        }
    }

    pub(crate) async fn say(&mut self, message: Message) {
        self.link.tx.send(GoJson.encode(&message).unwrap()).await.unwrap();
    }
}

/// A vendor's module, which takes the group `acme`.
pub(crate) const ACME: ModuleName = ModuleName::of("acme");

fn modules() -> [(ModuleName, Group, usize); 7] {
    [
        (ModuleName::EDGE_HUB, Group::HUB, 1024),
        (ModuleName::META_MANAGER, Group::META, 4),
        (ModuleName::TWIN, Group::TWIN, 4),
        (ModuleName::EVENT_BUS, Group::BUS, 4),
        (ModuleName::SERVICE_BUS, Group::BUS, 4),
        (ModuleName::TASK_MANAGER, Group::TASK_MANAGER, 4),
        (ACME, Group::USER, 4),
    ]
}

/// A node whose other modules are mailboxes.
pub(crate) struct Node {
    pub(crate) bus: Bus,
    pub(crate) hub: EdgeHub,
    inboxes: HashMap<ModuleName, Inbox>,
    transport: Arc<dyn Transport>,
    door: Option<Box<dyn Listener>>,
    shutdown: Shutdown,
    running: JoinHandle<ModuleContext>,
}

impl Node {
    /// A node and a cloud that listens as `cloud`.
    pub(crate) async fn start(settings: EdgeHubSettings, transport: impl Transport) -> Self {
        let door = transport.listen(&Endpoint::from("cloud"), &Credentials::default()).await.unwrap();
        Self::with_door(settings, transport, door)
    }

    /// A node and a cloud that listens already.
    pub(crate) fn with_door(
        settings: EdgeHubSettings,
        transport: impl Transport,
        door: Box<dyn Listener>,
    ) -> Self {
        let transport: Arc<dyn Transport> = Arc::new(transport);
        Self::run(EdgeHub::new("edge-1".into(), settings, transport.clone()), transport, door)
    }

    /// A node whose hub keeps what waits in a store, and a cloud that listens.
    pub(crate) async fn over(
        store: Arc<dyn MetaStore>,
        settings: EdgeHubSettings,
        transport: impl Transport,
    ) -> Self {
        let door = transport.listen(&Endpoint::from("cloud"), &Credentials::default()).await.unwrap();
        let transport: Arc<dyn Transport> = Arc::new(transport);
        Self::run(EdgeHub::new("edge-1".into(), settings, transport.clone()).store(store), transport, door)
    }

    fn run(hub: EdgeHub, transport: Arc<dyn Transport>, door: Box<dyn Listener>) -> Self {
        let (bus, mut inboxes) = Bus::new(modules());
        let routes = RoutingTable::new([(ACME, Routes::new().group(Group::of("acme")))]).unwrap();
        let bus = bus.with_routes(routes);
        let inbox = inboxes.remove(&ModuleName::EDGE_HUB).unwrap();
        let shutdown = Shutdown::new();
        let ctx = ModuleContext::new(bus.clone(), inbox, shutdown.clone());
        let running = tokio::spawn(run(hub.clone(), ctx));
        Self { bus, hub, inboxes, transport, door: Some(door), shutdown, running }
    }

    /// The cloud's end of the next link, which may have broken already.
    pub(crate) async fn accept(&mut self) -> CloudEnd {
        let door = self.door.as_mut().unwrap();
        let incoming = tokio::time::timeout(PATIENCE, door.next()).await.expect("nobody dialled").unwrap();
        let peer = incoming.peer().clone();
        CloudEnd { peer, link: incoming.accept().await.unwrap() }
    }

    /// The cloud's end of the next link, when the node knows of it.
    pub(crate) async fn cloud(&mut self) -> CloudEnd {
        let end = self.accept().await;
        let mut up = self.hub.connected();
        tokio::time::timeout(PATIENCE, up.wait_for(|up| *up)).await.unwrap().unwrap();
        end
    }

    pub(crate) fn close_door(&mut self) {
        self.door = None;
    }

    pub(crate) async fn open_door(&mut self, name: &str) {
        self.door =
            Some(self.transport.listen(&Endpoint::from(name), &Credentials::default()).await.unwrap());
    }

    /// The next message in a module's mailbox.
    pub(crate) async fn received(&mut self, module: &ModuleName) -> Message {
        let inbox = self.inboxes.get_mut(module).unwrap();
        let next = tokio::time::timeout(PATIENCE, inbox.next()).await;
        next.unwrap_or_else(|_| panic!("nothing came for {module}")).unwrap().message
    }

    /// Ends the hub in order.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(PATIENCE, self.running).await.expect("the hub does not end").unwrap();
    }

    /// The mailbox of a module, for whoever plays it.
    pub(crate) fn inbox(&mut self, module: &ModuleName) -> Inbox {
        self.inboxes.remove(module).unwrap()
    }

    /// Breaks the hub off and starts a clone with the same mailbox, as a supervisor does.
    pub(crate) async fn restart(&mut self) {
        self.shutdown.request();
        let stopped = std::mem::replace(&mut self.running, tokio::spawn(std::future::pending()));
        let mut ctx = tokio::time::timeout(PATIENCE, stopped).await.expect("the hub does not end").unwrap();
        self.shutdown = Shutdown::new();
        ctx.shutdown = self.shutdown.clone();
        self.running = tokio::spawn(run(self.hub.clone(), ctx));
    }
}

async fn run(mut hub: EdgeHub, mut ctx: ModuleContext) -> ModuleContext {
    hub.run(&mut ctx).await.unwrap();
    ctx
}

pub(crate) async fn start_error(
    node: &str,
    settings: EdgeHubSettings,
    transport: Arc<dyn Transport>,
) -> BoxError {
    let (bus, mut inboxes) = Bus::new(modules());
    let inbox = inboxes.remove(&ModuleName::EDGE_HUB).unwrap();
    let mut ctx = ModuleContext::new(bus, inbox, Shutdown::new());
    EdgeHub::new(node.into(), settings, transport).run(&mut ctx).await.unwrap_err()
}
