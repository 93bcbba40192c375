//! CloudStream: logs, exec, attach and metrics of edge nodes, through the tunnels their edges hold open.
//!
//! An edge dials [`CONNECT_PATH`] and keeps the tunnel; whoever wants something of a node's kubelet API asks
//! through [`NodeStreams`], which is all that an API server needs to know. Many streams share one tunnel, a
//! newer tunnel of a node takes the place of the older one, and a consumer that does not read has its stream
//! cut after a while, so that the other streams of the node go on. A tunnel whose edge neither sends anything
//! nor answers pings for a minute ends.
//!
//! Where we differ from Go: the certificate must name the node; frames to the edge are binary, which a Go
//! edge takes (Go sends arbitrary bytes as text). *Not Go-compatible yet*: a Go edge sends its frames as
//! text, and those with bytes that are no UTF-8 are refused by transports whose WebSocket library insists on
//! UTF-8; such an edge's tunnel works for text (logs, metrics) and breaks on binary streams. A request's HTTP
//! status does not travel through the tunnel, as in Go: a log that is not there is an empty log.

mod ports;
mod session;

use std::{collections::HashMap, future, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderMap, Method};
use kubeedge_common::log::{Seldom, shown};
use kubeedge_core::{
    cluster::Body,
    failure::{BoxError, Failure},
    kernel::{Fatal, Module, ModuleContext, Shutdown},
    name::{Group, ModuleName, NodeName, is_node_name},
    node_streams::{NodeStreams, StreamError, StreamKind},
    transport::{Credentials, Endpoint, Incoming, Link, Listener, Peer, Transport},
    tunnel::{CLAIM_NODE, CONNECT_PATH, Connector, Duplex, FrameKind, GoUrl},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use self::session::{Command, Handle};
use crate::{
    cluster::{Clients, api_path},
    denylist::Denylist,
    hub::{AdmittedNode, NodeIdentity, certified},
};

/// The tunnels there are; the [`NodeStreams`] of the nodes connected to this cloudcore. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tunnels(Arc<Mutex<HashMap<NodeName, Handle>>>);

impl Tunnels {
    /// Whether the node has a tunnel.
    pub fn has(&self, node: &NodeName) -> bool {
        self.0.lock().contains_key(node)
    }

    /// Whether one more tunnel of this node fits: its newer one takes the place of the older.
    fn fits(&self, node: &NodeName, limit: usize) -> bool {
        let tunnels = self.0.lock();
        tunnels.len() < limit || tunnels.contains_key(node)
    }

    fn enter(&self, node: &NodeName, handle: Handle) {
        if let Some(earlier) = self.0.lock().insert(node.clone(), handle) {
            earlier.end.cancel();
        }
    }

    fn leave(&self, node: &NodeName, generation: u64) {
        let mut tunnels = self.0.lock();
        if tunnels.get(node).is_some_and(|handle| handle.generation == generation) {
            tunnels.remove(node);
        }
    }

    async fn tell(&self, node: &NodeName, command: Command) -> Result<(), StreamError> {
        let handle = self.0.lock().get(node).cloned();
        let missing = || Failure::new(StreamKind::NotConnected, "opening a stream").on(node.as_str());
        handle.ok_or_else(missing)?.commands.send(command).await.map_err(|_| missing())
    }
}

#[async_trait]
impl NodeStreams for Tunnels {
    async fn logs(
        &self,
        node: &NodeName,
        path_and_query: String,
        headers: HeaderMap,
    ) -> Result<Body, StreamError> {
        let metrics = ["/stats", "/metrics"].iter().any(|prefix| path_and_query.starts_with(prefix));
        let kind = if metrics { FrameKind::METRICS } else { FrameKind::LOGS };
        let connector = connector(&path_and_query, &headers, None)?;
        let (opened, stream) = oneshot::channel();
        self.tell(node, Command::Read { kind, connector, opened }).await?;
        stream.await.map_err(|_| Failure::new(StreamKind::Closed, "opening a stream").on(node.as_str()))?
    }

    async fn upgrade(
        &self,
        node: &NodeName,
        method: Method,
        path_and_query: String,
        headers: HeaderMap,
    ) -> Result<Box<dyn Duplex>, StreamError> {
        let attach = path_and_query.starts_with("/attach");
        let kind = if attach { FrameKind::ATTACH } else { FrameKind::EXEC };
        let connector = connector(&path_and_query, &headers, Some(&method))?;
        let (ours, half) = tokio::io::duplex(session::CHUNK * 4);
        let (opened, done) = oneshot::channel();
        self.tell(node, Command::Both { kind, connector, half, opened }).await?;
        done.await.map_err(|_| Failure::new(StreamKind::Closed, "opening a stream").on(node.as_str()))??;
        Ok(Box::new(ours))
    }
}

fn connector(target: &str, headers: &HeaderMap, method: Option<&Method>) -> Result<Connector, StreamError> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
    let path = decoded.map_err(|error| {
        Failure::new(StreamKind::Refused, "reading the path of a request").on(path).because(error)
    })?;
    let mut connector = Connector { url: GoUrl::to_kubelet(&path, query), ..Connector::default() };
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        connector.header.entry(canonical(name.as_str())).or_default().push(value);
    }
    connector.method = method.map(|method| method.as_str().to_owned());
    Ok(connector)
}

/// A header's name as Go spells it: `x-stream-protocol-version` becomes `X-Stream-Protocol-Version`.
fn canonical(name: &str) -> String {
    let mut start = true;
    let spell = |c: char| {
        let spelt = if start { c.to_ascii_uppercase() } else { c };
        start = c == '-';
        spelt
    };
    name.chars().map(spell).collect()
}

/// How CloudStream works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CloudStreamSettings {
    /// Where tunnels are dialled. KubeEdge: `0.0.0.0:10004`.
    pub listen: Endpoint,
    /// How nodes prove who they are.
    pub identity: NodeIdentity,
    /// Tunnels served at once.
    pub node_limit: usize,
    /// The address of this cloudcore's machine, where several serve one cluster: under it a port is recorded,
    /// which the API server finds in the status of this cloudcore's nodes.
    pub recorded_as: Option<String>,
}

impl CloudStreamSettings {
    /// KubeEdge's settings, but for where tunnels are dialled.
    pub fn listening(listen: Endpoint) -> Self {
        Self { listen, ..Self::default() }
    }
}

impl Default for CloudStreamSettings {
    fn default() -> Self {
        Self {
            listen: Endpoint::from("0.0.0.0:10004"),
            identity: NodeIdentity::default(),
            node_limit: 500,
            recorded_as: None,
        }
    }
}

/// The CloudStream module; see the module's documentation.
#[derive(Clone, Debug)]
pub struct CloudStream {
    settings: CloudStreamSettings,
    transport: Arc<dyn Transport>,
    credentials: Credentials,
    clients: Arc<Clients>,
    tunnels: Tunnels,
    denied: Denylist,
    bound: watch::Sender<Option<Endpoint>>,
}

/// The name of the CloudStream module.
pub const CLOUD_STREAM: ModuleName = ModuleName::of("cloudStream");

impl CloudStream {
    /// A tunnel server on this transport, with the hub's credentials.
    pub fn new(
        settings: CloudStreamSettings,
        transport: Arc<dyn Transport>,
        credentials: Credentials,
        clients: &Arc<Clients>,
    ) -> Self {
        let (tunnels, denied, bound) = (Tunnels::default(), Denylist::default(), watch::Sender::new(None));
        Self { settings, transport, credentials, clients: clients.clone(), tunnels, denied, bound }
    }

    /// Keeps those on this list out, and cuts their tunnels.
    #[must_use]
    pub fn with_denylist(mut self, list: Denylist) -> Self {
        self.denied = list;
        self
    }

    /// The tunnels, for whoever asks something of nodes.
    pub fn tunnels(&self) -> Tunnels {
        self.tunnels.clone()
    }

    /// Where tunnels are dialled, once they can be.
    pub fn bound(&self) -> watch::Receiver<Option<Endpoint>> {
        self.bound.subscribe()
    }
}

#[async_trait]
impl Module for CloudStream {
    fn name(&self) -> ModuleName {
        CLOUD_STREAM
    }

    fn group(&self) -> Group {
        Group::of("cloudStream")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        tokio::select! {
            () = self.denied.ready() => {}
            () = ctx.shutdown.requested() => return Ok(()),
        }
        // Should the one before have been broken off.
        self.ended();
        let listener = self.transport.listen(&self.settings.listen, &self.credentials).await;
        let listener = listener.map_err(Fatal::new)?;
        let local = listener.local();
        let port = self.port(&ctx.shutdown).await;
        tracing::info!(endpoint = %local, ?port, "CloudStream listens");
        self.bound.send_replace(Some(local));
        let result = tokio::select! {
            () = ctx.shutdown.requested() => Ok(()),
            error = self.serve(listener, port) => Err(error),
        };
        self.ended();
        result
    }
}

/// Tunnels that may be in the middle of being let in.
const ENTERING: usize = 64;

impl CloudStream {
    /// Nobody listens and no tunnel is up.
    fn ended(&self) {
        self.bound.send_replace(None);
        self.tunnels.0.lock().clear();
    }

    /// The port by which the API server knows this cloudcore. Without one tunnels work all the same.
    async fn port(&self, shutdown: &Shutdown) -> Option<u16> {
        let address = self.settings.recorded_as.as_deref().filter(|address| !address.is_empty())?;
        let port = tokio::select! {
            port = ports::negotiate(self.clients.ours(), address) => port,
            () = shutdown.requested() => return None,
        };
        port.inspect_err(
            |status| tracing::warn!(error = %status, "no tunnel port is recorded for this cloudcore"),
        )
        .ok()
    }

    async fn serve(&self, mut listener: Box<dyn Listener>, port: Option<u16>) -> BoxError {
        let (mut entering, mut served) = (JoinSet::new(), JoinSet::new());
        let (mut generation, refusals) = (0, Arc::new(Seldom::default()));
        loop {
            tokio::select! {
                incoming = listener.next(), if entering.len() < ENTERING => match incoming {
                    Ok(incoming) => {
                        let admitted = self.admitted(incoming.peer());
                        entering.spawn(admit(incoming, admitted, refusals.clone()));
                    }
                    Err(error) => return error.into(),
                },
                Some(entered) = entering.join_next() => if let Ok(Some((admitted, link))) = entered {
                    generation += 1;
                    served.spawn(self.tunnel(admitted, link, generation, port));
                },
                Some(ended) = served.join_next() => if let Err(error) = ended {
                    tracing::error!(error = %error, "a tunnel failed");
                },
            }
        }
    }

    /// Who the peer is, if there is room for its tunnel.
    fn admitted(&self, peer: &Peer) -> Result<AdmittedNode, String> {
        let admitted = identify(peer, self.settings.identity, &self.denied)?;
        let fits = self.tunnels.fits(&admitted.node, self.settings.node_limit);
        fits.then_some(admitted).ok_or_else(|| "this cloud holds as many tunnels as it may".to_owned())
    }

    fn tunnel(
        &self,
        admitted: AdmittedNode,
        link: Link,
        generation: u64,
        port: Option<u16>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (commands, receiver) = mpsc::channel(64);
        let handle = Handle { commands, end: Default::default(), generation };
        let (tunnels, clients) = (self.tunnels.clone(), self.clients.clone());
        let denied = self.denied.clone();
        Box::pin(async move {
            let node = admitted.node.clone();
            tracing::info!(%node, peer = ?link.peer.address, serial = admitted.serial(), "tunnel connected");
            tunnels.enter(&node, handle.clone());
            let end = handle.end.clone();
            drop(handle);
            let announced = async {
                announce(&clients, &node, port).await;
                future::pending().await
            };
            let why = tokio::select! {
                why = session::serve(link, receiver) => why,
                why = announced => why,
                () = end.cancelled() => "the node has dialled a newer tunnel".to_owned(),
                why = admitted.denied(&denied) => {
                    tracing::warn!(%node, serial = admitted.serial(), why, "cut a tunnel off");
                    why.to_owned()
                }
            };
            tunnels.leave(&node, generation);
            tracing::info!(%node, why, "tunnel ended");
        })
    }
}

/// Writes the port into the Node's status, so that the API server finds the way; six attempts in two minutes.
async fn announce(clients: &Clients, node: &NodeName, port: Option<u16>) {
    let Some(port) = port else { return };
    let patch = json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let path = api_path("/api/v1", &["nodes", node.as_str(), "status"]);
    for attempt in 0..6_u32 {
        match clients.ours().merge(&path, &patch).await {
            Ok(_) => return,
            Err(status) => tracing::warn!(%node, attempt, error = %status, "a node's port was not written"),
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
}

async fn admit(
    incoming: Box<dyn Incoming>,
    admitted: Result<AdmittedNode, String>,
    refusals: Arc<Seldom>,
) -> Option<(AdmittedNode, Link)> {
    match admitted {
        Ok(admitted) => match tokio::time::timeout(Duration::from_secs(30), incoming.accept()).await {
            Ok(Ok(link)) => Some((admitted, link)),
            Ok(Err(error)) => {
                tracing::warn!(node = %admitted.node, error = %error, "a tunnel did not finish to connect");
                None
            }
            Err(_) => None,
        },
        Err(why) => {
            let address = incoming.peer().address;
            let peer = address.map(|address| address.ip().to_string()).unwrap_or_default();
            if let Some(unsaid) = refusals.line(&peer) {
                tracing::warn!(peer = ?address, why = %shown(&why), unsaid, "refused a tunnel");
            }
            let _ = tokio::time::timeout(Duration::from_secs(10), incoming.refuse(why)).await;
            None
        }
    }
}

fn identify(peer: &Peer, identity: NodeIdentity, list: &Denylist) -> Result<AdmittedNode, String> {
    // Memory transports know no paths.
    let path = peer.path.split('?').next().unwrap_or_default().trim_end_matches('/');
    if !matches!(path, "" | CONNECT_PATH) {
        return Err(format!("tunnels are dialled at {CONNECT_PATH}, not at {path:?}"));
    }
    let node = peer.claim(CLAIM_NODE).unwrap_or_default();
    if !is_node_name(node) || node.parse::<IpAddr>().is_ok() {
        return Err(format!("the header {CLAIM_NODE} names no node"));
    }
    certified(peer, node.into(), identity, list).map_err(|refusal| refusal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_becomes_the_connector_go_would_send() {
        let mut headers = HeaderMap::new();
        headers.insert("x-stream-protocol-version", "v4.channel.k8s.io".parse().unwrap());
        let connector =
            connector("/exec/default/web/c?command=ls%20-l&tty=1", &headers, Some(&Method::POST)).unwrap();
        assert_eq!(connector.url, GoUrl::to_kubelet("/exec/default/web/c", "command=ls%20-l&tty=1"));
        assert_eq!(connector.header["X-Stream-Protocol-Version"], ["v4.channel.k8s.io"]);
        assert_eq!(connector.method.as_deref(), Some("POST"));
    }

    #[test]
    fn a_tunnel_must_name_its_node_and_show_its_certificate() {
        let peer = |node: &str, path: &str| {
            Peer::default().with_claims([(CLAIM_NODE.to_owned(), node.to_owned())]).with_path(path)
        };
        let identify = |peer: &Peer, identity| {
            identify(peer, identity, &Denylist::default()).map(|admitted| admitted.node)
        };
        assert_eq!(identify(&peer("n", CONNECT_PATH), NodeIdentity::Claim).unwrap(), "n");
        assert!(identify(&peer("n", "/other"), NodeIdentity::Claim).is_err());
        assert!(identify(&peer("", CONNECT_PATH), NodeIdentity::Claim).is_err());
        assert!(identify(&peer("10.0.0.1", CONNECT_PATH), NodeIdentity::Claim).is_err());
        let refused = identify(&peer("n", CONNECT_PATH), NodeIdentity::Certificate).unwrap_err();
        assert_eq!(refused, "no client certificate provided");
    }
}
