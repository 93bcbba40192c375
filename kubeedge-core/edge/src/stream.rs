//! EdgeStream: the edge end of the tunnel that brings logs, commands and metrics of this node to the cloud.
//!
//! It dials the cloud with the node's certificate and keeps the tunnel; the cloud opens streams in it, each a
//! request to the node's own API ([`NodeApi`]). Of logs and metrics the body goes back, of commands every
//! byte of the connection in both directions, the answer's head included.
//!
//! Where we differ from Go:
//! - The cloud's certificate is verified; Go's edge trusts any.
//! - A node's API that cannot be reached is told: as the text of a log, as a 502 to a command; Go says
//!   nothing.
//! - A consumer of one stream that does not read holds up the others for seconds only, then its stream ends.
//! - Instead of a ping every 5 s a frame for no stream goes out every 15 s, which both kinds of cloud ignore.
//! - `Origin` is taken off requests: who the caller is was the API server's to ask.
//!
//! Frames go out as text when the cloud's came as text, which a Go cloud insists on. *Not Go-compatible yet*:
//! bytes that are no UTF-8 go out as binary all the same, as WebSocket libraries insist, and end the tunnel
//! of a Go cloud.

pub(crate) mod request;
mod session;

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{
    backoff::Backoff,
    failure::{BoxError, chain},
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName, NodeName},
    transport::{Credentials, Endpoint, Link, Transport},
    tunnel::{CLAIM_ADDRESS, CLAIM_NODE, CONNECT_PATH, Duplex},
};
use tokio::{net::TcpStream, sync::watch, time::Instant};

/// The way to the node's own API.
#[async_trait]
pub trait NodeApi: fmt::Debug + Send + Sync + 'static {
    /// A new connection, ready for one HTTP/1.1 request.
    async fn connect(&self) -> io::Result<Box<dyn Duplex>>;
}

/// A server at a fixed address, such as Go's `127.0.0.1:10350`.
#[async_trait]
impl NodeApi for SocketAddr {
    async fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        let stream = TcpStream::connect(self).await?;
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }
}

/// A server that listens where it says, while it does; see [`crate::edged::server::EdgedServer::bound`].
#[async_trait]
impl NodeApi for watch::Receiver<Option<SocketAddr>> {
    async fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        let address = *self.borrow();
        let down = || io::Error::new(io::ErrorKind::NotConnected, "the node's API does not listen");
        address.ok_or_else(down)?.connect().await
    }
}

/// How EdgeStream works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EdgeStreamSettings {
    /// Where cloudcores' tunnel servers listen: `host:port` each; KubeEdge's port is 10004. They are tried in
    /// turn.
    pub servers: Vec<Endpoint>,
    /// How long a dial may take, handshakes included. KubeEdge: 30 s.
    pub handshake: Duration,
    /// How long a frame may take to be written before the tunnel is given up. KubeEdge: 15 s.
    pub write: Duration,
    /// The first pause before a lost tunnel is dialled again; it doubles up to 30 s. KubeEdge: always 2 s.
    pub reconnect: Duration,
    /// Streams at once; the cloud's further ones are ended at once.
    pub streams: usize,
    /// Where random numbers start.
    pub seed: u64,
}

impl Default for EdgeStreamSettings {
    fn default() -> Self {
        Self {
            servers: vec![Endpoint::from("127.0.0.1:10004")],
            handshake: Duration::from_secs(30),
            write: Duration::from_secs(15),
            reconnect: Duration::from_secs(2),
            streams: 256,
            seed: 0,
        }
    }
}

/// The longest pause before a dial.
const LONGEST: Duration = Duration::from_secs(30);

/// The module.
#[derive(Clone, Debug)]
pub struct EdgeStream {
    node: NodeName,
    address: String,
    settings: EdgeStreamSettings,
    transport: Arc<dyn Transport>,
    credentials: watch::Receiver<Option<Arc<Credentials>>>,
    api: Arc<dyn NodeApi>,
    connected: watch::Sender<bool>,
}

impl EdgeStream {
    /// Dials for this node over this transport once there are credentials, and serves requests from the
    /// node's API.
    pub fn new(
        node: NodeName,
        settings: EdgeStreamSettings,
        transport: Arc<dyn Transport>,
        credentials: watch::Receiver<Option<Arc<Credentials>>>,
        api: Arc<dyn NodeApi>,
    ) -> Self {
        let (address, connected) = (String::new(), watch::Sender::new(false));
        Self { node, address, settings, transport, credentials, api, connected }
    }

    /// Tells the cloud this internal address of the node.
    #[must_use]
    pub fn address(mut self, address: String) -> Self {
        self.address = address;
        self
    }

    /// Whether the tunnel is up, now and later.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// Keeps a tunnel up; never ends but with the credentials' source.
    async fn keep(&mut self) {
        let mut backoff = Backoff::new(self.settings.reconnect, LONGEST, self.settings.seed);
        let mut turn = 0;
        loop {
            let Some(who) = self.who().await else { return std::future::pending().await };
            let servers = &self.settings.servers;
            let Some(server) = servers.get(turn % servers.len().max(1)).cloned() else {
                tracing::warn!(
                    "no tunnel server is named: set modules.edgeStream.server (EdgeStreamSettings::servers)"
                );
                return std::future::pending().await;
            };
            let started = Instant::now();
            match self.dial(&server, &who).await {
                Ok(link) => {
                    tracing::info!(%server, "tunnel connected");
                    self.connected.send_replace(true);
                    let why = session::serve(link, &self.api, &self.settings).await;
                    self.connected.send_replace(false);
                    tracing::info!(%server, why, "tunnel ended");
                    if started.elapsed() > LONGEST {
                        backoff.reset();
                    }
                }
                Err(why) => {
                    turn += 1;
                    tracing::warn!(%server, why, "tunnel not connected");
                }
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// The credentials with what a tunnel claims, once there are any; `None` when there never will be.
    async fn who(&mut self) -> Option<Credentials> {
        let known = self.credentials.wait_for(Option::is_some).await.ok()?.clone()?;
        let mut who = Credentials::clone(&known);
        who.claims = vec![
            (CLAIM_NODE.to_owned(), self.node.as_str().to_owned()),
            (CLAIM_ADDRESS.to_owned(), self.address.clone()),
        ];
        Some(who)
    }

    async fn dial(&self, server: &Endpoint, who: &Credentials) -> Result<Link, String> {
        let to = match server.path() {
            "/" => Endpoint::from(format!("{}{CONNECT_PATH}", server.authority())),
            _ => server.clone(),
        };
        let dialled = tokio::time::timeout(self.settings.handshake, self.transport.dial(&to, who)).await;
        dialled.map_err(|_| "the cloud did not answer in time".to_owned())?.map_err(|error| chain(&error))
    }
}

#[async_trait]
impl Module for EdgeStream {
    fn name(&self) -> ModuleName {
        ModuleName::EDGE_STREAM
    }

    fn group(&self) -> Group {
        Group::of("edgestream")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        tokio::select! {
            () = ctx.shutdown.requested() => {}
            () = self.keep() => {}
        }
        self.connected.send_replace(false);
        Ok(())
    }
}
