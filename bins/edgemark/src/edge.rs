//! One hollow edge: connects when it may, and again when it was cut off.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    backoff::Backoff,
    failure::chain,
    name::NodeName,
    transport::{Credentials, Endpoint, Link, Transport, TransportError},
    wire::{Codec, GoJson},
};
use kubeedge_edge::hub::DEFAULT_PROJECT;
use kubeedge_transport::{Quic, QuicSettings, WebSocket};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use crate::{
    options::{Plan, Wire},
    session::{Memory, Session},
    stats::Stats,
};

/// What edges of one group do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No link.
    Away,
    /// A link, and what belongs to it.
    There,
    /// A link, and messages as fast as they are answered.
    Flooding,
}

/// What all edges share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    websocket: WebSocket,
    quic: Quic,
    pub(crate) codec: Arc<dyn Codec>,
    pub(crate) stats: Stats,
    dials: Semaphore,
}

impl Shared {
    pub(crate) fn new(plan: Plan) -> Self {
        let dials = Semaphore::new(plan.concurrency);
        // A socket for each of thousands of links would be a descriptor and buffers for each.
        let quic = Quic::new(QuicSettings { shared_socket: true, ..QuicSettings::default() });
        let (websocket, codec, stats) = (WebSocket::default(), Arc::new(GoJson), Stats::default());
        Self { plan, websocket, quic, codec, stats, dials }
    }

    /// What links the node of this number.
    fn transport(&self, number: u32) -> &dyn Transport {
        match self.plan.wire(number) {
            Wire::Websocket => &self.websocket,
            Wire::Quic => &self.quic,
        }
    }
}

/// One edge.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) node: NodeName,
    pub(crate) number: u32,
    pub(crate) bystander: bool,
    pub(crate) credentials: Credentials,
    pub(crate) shared: Arc<Shared>,
    pub(crate) phase: watch::Receiver<Phase>,
}

impl Edge {
    /// Works until its phase is over for good.
    pub(crate) async fn run(mut self) {
        let mut memory = Memory::default();
        let mut backoff =
            Backoff::new(Duration::from_secs(1), Duration::from_secs(30), u64::from(self.number));
        self.introduce();
        loop {
            if self.phase.wait_for(|phase| *phase != Phase::Away).await.is_err() {
                return;
            }
            match self.dial().await {
                Ok(link) => {
                    backoff.reset();
                    self.serve(link, &mut memory).await;
                }
                Err(error) => {
                    self.shared.stats.failed_dials.up();
                    let why = chain(&error).replace(self.node.as_str(), "NODE");
                    self.shared.stats.reason(why);
                }
            }
            if *self.phase.borrow() != Phase::Away {
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }

    /// Go's headers.
    fn introduce(&mut self) {
        let claims =
            [("node_id", self.node.as_str()), ("project_id", DEFAULT_PROJECT), ("ConnectionUse", "msg")];
        self.credentials.claims = claims.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    }

    async fn dial(&self) -> Result<Link, TransportError> {
        let shared = &self.shared;
        let path = format!("{}/{DEFAULT_PROJECT}/{}/events", shared.plan.server(self.number), self.node);
        // Never closed.
        let _place = shared.dials.acquire().await;
        let begun = Instant::now();
        let link = shared.transport(self.number).dial(&Endpoint::from(path), &self.credentials).await?;
        shared.stats.connecting.record(begun.elapsed());
        shared.stats.connects.up();
        Ok(link)
    }

    /// Serves a link until it breaks, or the edge is to leave.
    async fn serve(&mut self, link: Link, memory: &mut Memory) {
        let stats = &self.shared.stats;
        stats.connected.up();
        let mut session = Session::new(&self.shared, &self.node, self.bystander, memory, link.tx);
        let ended = session.run(link.rx, &mut self.phase).await;
        session.leave();
        stats.connected.down();
        if let Err(end) = ended {
            stats.lost.up();
            stats.reason(format!("lost: {end}"));
        }
    }
}
