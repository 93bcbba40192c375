//! Making the link, again and again, and telling modules of it.

use std::sync::Arc;

use kubeedge_core::{
    backoff::Backoff,
    bus::Bus,
    failure::{Failure, chain},
    kernel::Shutdown,
    message::{Content, Message},
    name::{Group, ModuleName, NodeName, Operation},
    transport::{Credentials, Endpoint, Link, Transport, TransportError, TransportKind},
    wire::Codec,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    EdgeHubSettings,
    dispatch::Backlogs,
    outbox::Outbox,
    session::{End, Session},
};

/// The link as modules are told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkState {
    up: bool,
    /// Counts links, so that a quick reconnect is not overlooked.
    link: u64,
}

/// Tells one group of modules. A group that does not read holds up nobody else.
pub(super) struct Announcer {
    pub(super) group: Group,
    pub(super) bus: Bus,
    /// Whether the group was last told that the link is up.
    pub(super) told: bool,
}

impl Announcer {
    pub(super) async fn run(mut self, mut state: watch::Receiver<LinkState>) {
        let mut last = LinkState::default();
        loop {
            let now = *state.borrow_and_update();
            if self.told && (!now.up || now.link != last.link) {
                self.tell("cloud_disconnected").await;
            }
            if now.up && now.link != last.link {
                self.tell("cloud_connected").await;
            }
            (self.told, last) = (now.up, now);
            if state.changed().await.is_err() {
                // Nobody is left to tell of changes; the hub is ending and takes this task with it.
                return std::future::pending().await;
            }
        }
    }

    async fn tell(&self, text: &str) {
        let event = Message::new(ModuleName::of("edgehub"), Operation::CONNECT, "node/connection")
            .in_group(self.group.clone())
            .with(Content::text(text));
        for error in self.bus.publish(&self.group, event).await {
            tracing::debug!(%error, "a module was not told of the link");
        }
    }
}

/// Makes and keeps the link.
pub(super) struct Connector {
    pub(super) node: NodeName,
    pub(super) settings: EdgeHubSettings,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) codec: Arc<dyn Codec>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) backlogs: Backlogs,
    pub(super) credentials: watch::Receiver<Option<Arc<Credentials>>>,
    /// Asks for a look at the certificates after a peer refused them.
    pub(super) doubt: Arc<Notify>,
    pub(super) state: watch::Sender<LinkState>,
    pub(super) connected: watch::Sender<bool>,
}

impl Connector {
    /// Works until the shutdown.
    pub(super) async fn run(mut self, shutdown: &Shutdown) {
        let heartbeat = self.settings.heartbeat;
        let mut backoff = Backoff::new(self.settings.reconnect, heartbeat * 2, self.settings.seed);
        let (mut said, mut turn) = (String::new(), 0);
        loop {
            let credentials = tokio::select! {
                () = shutdown.requested() => return,
                credentials = self.ready() => credentials,
            };
            let dialled = tokio::select! {
                () = shutdown.requested() => return,
                dialled = self.dial(turn, &credentials) => dialled,
            };
            match dialled {
                Ok(link) => {
                    said.clear();
                    let began = Instant::now();
                    let end = self.serve(link, shutdown).await;
                    match end {
                        End::Shutdown => return,
                        End::Renewed => continue,
                        _ if began.elapsed() > heartbeat * 2 => backoff.reset(),
                        _ => {}
                    }
                }
                Err(error) => {
                    turn += 1;
                    self.failed(&error, &mut said);
                }
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(backoff.next_pause()) => {}
            }
        }
    }

    /// Waits for certificates.
    async fn ready(&mut self) -> Arc<Credentials> {
        loop {
            if let Some(found) = self.credentials.borrow_and_update().clone() {
                return found;
            }
            if self.credentials.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn dial(&self, turn: usize, credentials: &Credentials) -> Result<Link, TransportError> {
        let settings = &self.settings;
        let servers: Vec<_> = settings.servers.iter().filter(|server| !server.is_empty()).collect();
        let server = servers.get(turn % servers.len().max(1)).copied().cloned().unwrap_or_default();
        let node = self.node.as_str();
        let to = Endpoint::from(format!("{server}/{}/{node}/events", settings.project));
        let mut who = credentials.clone();
        // Headers go out as written here; Go reads them without case.
        let claims = [("node_id", node), ("project_id", &settings.project), ("ConnectionUse", "msg")];
        let claims = claims.into_iter().chain(self.codec.offer());
        who.claims = claims.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let dialled = tokio::time::timeout(settings.handshake, self.transport.dial(&to, &who)).await;
        dialled.map_err(|_| Failure::new(TransportKind::Timeout, "dialling").on(to.0))?
    }

    /// Says why there is no link, once for each reason.
    fn failed(&self, error: &TransportError, said: &mut String) {
        let why = chain(error);
        if *said != why {
            let hint = match error.kind() {
                TransportKind::Untrusted => {
                    "cloudcore and this node do not trust each other: if cloudcore was installed anew, or this node is to join another one, set modules.edgeHub.token to its output of keadm gettoken"
                }
                TransportKind::Unreachable | TransportKind::Timeout => {
                    "is cloudcore running, and is its address right and open to this node?"
                }
                _ => "trying again",
            };
            tracing::warn!(error = %why, hint, "no link to the cloud");
            *said = why;
        }
        if error.kind() == TransportKind::Untrusted {
            self.doubt.notify_one();
        }
    }

    /// Serves a link, from telling everybody that it is up to telling everybody that it is down.
    async fn serve(&mut self, link: Link, shutdown: &Shutdown) -> End {
        let peer = link.peer.address.map(|address| address.to_string()).unwrap_or_default();
        tracing::info!(peer, "connected to the cloud");
        self.outbox.up();
        self.connected.send_replace(true);
        self.state.send_modify(|state| (state.up, state.link) = (true, state.link + 1));
        let Self { settings, codec, outbox, backlogs, credentials, .. } = &mut *self;
        let codec = &codec.for_link(&link.peer).unwrap_or_else(|| codec.clone());
        let session = Session { settings, codec, outbox, backlogs };
        let end = tokio::select! {
            end = session.run(link) => end,
            Ok(()) = credentials.changed() => End::Renewed,
            () = shutdown.requested() => End::Shutdown,
        };
        self.connected.send_replace(false);
        self.outbox.down();
        self.state.send_modify(|state| state.up = false);
        match &end {
            End::Shutdown | End::Renewed => tracing::info!(why = %end, "disconnected from the cloud"),
            _ => tracing::warn!(why = %end, "disconnected from the cloud"),
        }
        end
    }
}
