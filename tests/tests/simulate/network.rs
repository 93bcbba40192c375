//! Links over turmoil's TCP: a hello with path and claims, a verdict, then real WebSocket frames, as the
//! products' transport makes them.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use kubeedge_core::{
    failure::Failure,
    message::{Content, Message},
    name::Operation,
    transport::{
        Credentials, Endpoint, Frame, FrameSink, Incoming, Lanes, Limits, Link, LinkHealth, Listener, Peer,
        Pong, Transport, TransportError, TransportKind,
    },
    wire::{Codec, CodecError, GoJson},
};
use kubeedge_transport::websocket_link;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
use turmoil::net::{TcpListener, TcpStream};

use crate::{plan::Planted, trace::Trace};

const MAX_FRAME: usize = 16 << 20;
const HANDSHAKE: Duration = Duration::from_secs(5);
const MAX_HELLO: usize = 16 << 10;
/// What the trace says of a ping.
pub(crate) const PINGED: &str = "-> ping";

/// Go's JSON, between peers that may know each other for ours: what is said can be read in the trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ours(pub(crate) bool);

const OURS: &str = "simulated-as-ours";

impl Codec for Ours {
    fn encode(&self, message: &Message) -> Result<Frame, CodecError> {
        GoJson.encode(message)
    }

    fn decode(&self, frame: Frame) -> Result<Message, CodecError> {
        GoJson.decode(frame)
    }

    fn offer(&self) -> Option<(&'static str, &'static str)> {
        self.0.then_some((OURS, "yes"))
    }

    fn is_ours(&self) -> bool {
        self.0
    }

    fn for_link(&self, peer: &Peer) -> Option<Arc<dyn Codec>> {
        Some(Arc::new(Self(peer.claim(OURS).is_some())))
    }
}

/// Held by every link, and once by its transport.
#[derive(Debug, Default)]
struct Live(Arc<()>);

/// The transport of one host.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    pub(crate) host: String,
    pub(crate) trace: Trace,
    planted: Option<Planted>,
    live: Arc<Live>,
}

fn failed(kind: TransportKind, doing: &'static str) -> impl FnOnce(io::Error) -> TransportError {
    move |error| Failure::new(kind, doing).because(error)
}

async fn say(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    stream.write_all(&[&length.to_be_bytes(), text.as_bytes()].concat()).await
}

async fn hear(stream: &mut TcpStream) -> io::Result<String> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > MAX_HELLO {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await?;
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[async_trait]
impl Transport for Net {
    fn scheme(&self) -> &'static str {
        "sim"
    }

    fn limits(&self) -> Limits {
        Limits::new(MAX_FRAME)
    }

    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        let late = |_| Failure::new(TransportKind::Timeout, "dialling").on(to.0.clone());
        timeout(HANDSHAKE, self.dial_now(to, who)).await.map_err(late)?
    }

    async fn listen(&self, on: &Endpoint, _: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        let listener = TcpListener::bind(on.authority()).await;
        let listener = listener.map_err(failed(TransportKind::Misconfigured, "listening"))?;
        Ok(Box::new(Door { listener, on: on.clone(), net: self.clone() }))
    }
}

impl Net {
    pub(crate) fn new(host: &str, trace: Trace, planted: Option<Planted>) -> Self {
        Self { host: host.to_owned(), trace, planted, live: Arc::default() }
    }

    /// How many links somebody holds.
    pub(crate) fn links(&self) -> usize {
        Arc::strong_count(&self.live.0) - 1
    }

    async fn dial_now(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        let stream = TcpStream::connect(to.authority()).await;
        let mut stream = stream.map_err(failed(TransportKind::Unreachable, "dialling"))?;
        let hello = serde_json::json!({"path": to.path(), "claims": who.claims}).to_string();
        say(&mut stream, &hello).await.map_err(failed(TransportKind::Closed, "dialling"))?;
        let verdict = hear(&mut stream).await.map_err(failed(TransportKind::Closed, "dialling"))?;
        if verdict != "welcome" {
            return Err(Failure::new(TransportKind::Refused, "dialling").on(verdict));
        }
        let peer = Peer::default().with_address(stream.peer_addr().ok()).with_path(to.path());
        Ok(self.join(stream, peer, Role::Client).await)
    }

    async fn join(&self, stream: TcpStream, peer: Peer, role: Role) -> Link {
        let socket = WebSocketStream::from_raw_socket(stream, role, None).await;
        let link = websocket_link(socket, peer, MAX_FRAME);
        let forged = Forged::default();
        let link = link.with_frames(|frames| self.watched(frames, forged.clone()));
        link.with_sink(|inner| Noted { inner, net: self.clone(), forged, _link: self.live.0.clone() })
    }

    /// Notes what arrives, and does to it what a planted fault does.
    fn watched(
        &self,
        frames: BoxStream<'static, Result<Frame, TransportError>>,
        forged: Forged,
    ) -> BoxStream<'static, Result<Frame, TransportError>> {
        let (net, mut seen, mut before) = (self.clone(), 0_u32, BTreeMap::<String, Frame>::new());
        let frames = frames.flat_map(move |frame| {
            let mut out = vec![frame];
            let first = out.first().and_then(|frame| frame.as_ref().ok()).cloned();
            if let Some(frame) = first {
                net.note("<-", &frame);
                match (net.planted, net.pod_in(&frame)) {
                    (Some(Planted::LostFrame), Some(message)) => {
                        seen += 1;
                        if seen.is_multiple_of(3) {
                            forged.lock().push(message.answer(Content::ok()));
                            out.clear();
                        }
                    }
                    (Some(Planted::Swapped), Some(message)) => {
                        let resource = message.route.resource.as_str().to_owned();
                        out.extend(before.insert(resource, frame).map(Ok));
                    }
                    _ => {}
                }
            }
            futures::stream::iter(out)
        });
        frames.boxed()
    }

    /// The message, if an edge gets a pod with it.
    fn pod_in(&self, frame: &Frame) -> Option<Message> {
        let message = GoJson.decode(frame.clone()).ok().filter(|_| self.host != "cloud")?;
        let is_new = [Operation::INSERT, Operation::UPDATE].contains(&message.route.operation);
        (is_new && message.route.resource.as_str().contains("/pod/")).then_some(message)
    }

    fn note(&self, way: &str, frame: &Frame) {
        let message: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
        let (route, header) = (&message["route"], &message["header"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.trace.note(
            &self.host,
            format!(
                "{way} {} {} {} v{} {} bytes",
                text(&route["source"]),
                text(&route["operation"]),
                text(&route["resource"]),
                text(&header["resourceversion"]),
                frame.payload.len()
            ),
        );
    }
}

/// Confirmations nobody gave, to be sent with what is sent next.
type Forged = Arc<Mutex<Vec<Message>>>;

/// Notes what is sent.
struct Noted {
    inner: Box<dyn FrameSink>,
    net: Net,
    forged: Forged,
    _link: Arc<()>,
}

impl Noted {
    async fn forge(&mut self) -> Result<(), TransportError> {
        let forged = std::mem::take(&mut *self.forged.lock());
        for message in forged {
            if let Ok(frame) = GoJson.encode(&message) {
                self.inner.send(frame).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl FrameSink for Noted {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.forge().await?;
        self.net.note("->", &frame);
        self.inner.send(frame).await
    }

    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.forge().await?;
        self.net.note("->", &frame);
        self.inner.feed(frame).await
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.inner.flush().await
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        self.inner.close().await
    }

    fn health(&mut self) -> Option<&mut dyn LinkHealth> {
        self.inner.health()?;
        Some(self)
    }

    fn lanes(&mut self) -> Option<&mut dyn Lanes> {
        self.inner.lanes()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LinkHealth for Noted {
    async fn ping(&mut self) -> Result<Pong, TransportError> {
        self.net.trace.note(&self.net.host, PINGED);
        let health = self.inner.health();
        health.ok_or_else(|| Failure::new(TransportKind::Closed, "sending a ping"))?.ping().await
    }

    fn last_sign(&mut self) -> Option<Instant> {
        self.inner.health()?.last_sign()
    }
}

struct Door {
    listener: TcpListener,
    on: Endpoint,
    net: Net,
}

#[async_trait]
impl Listener for Door {
    fn local(&self) -> Endpoint {
        self.on.clone()
    }

    async fn next(&mut self) -> Result<Box<dyn Incoming>, TransportError> {
        loop {
            let accepted = self.listener.accept().await;
            let (mut stream, address) = accepted.map_err(failed(TransportKind::Closed, "listening"))?;
            // One peer after the other: in the simulation a hello is there at once or never.
            let Ok(Ok(hello)) = timeout(Duration::from_millis(500), hear(&mut stream)).await else {
                continue;
            };
            let hello: Value = serde_json::from_str(&hello).unwrap_or_default();
            let claims: Vec<_> = serde_json::from_value(hello["claims"].clone()).unwrap_or_default();
            let path = hello["path"].as_str().unwrap_or_default();
            let peer = Peer::default().with_address(address).with_claims(claims).with_path(path);
            return Ok(Box::new(Knock { stream, peer, net: self.net.clone() }));
        }
    }
}

struct Knock {
    stream: TcpStream,
    peer: Peer,
    net: Net,
}

#[async_trait]
impl Incoming for Knock {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn accept(mut self: Box<Self>) -> Result<Link, TransportError> {
        say(&mut self.stream, "welcome").await.map_err(failed(TransportKind::Closed, "accepting"))?;
        let Self { stream, peer, net } = *self;
        Ok(net.join(stream, peer, Role::Server).await)
    }

    async fn refuse(mut self: Box<Self>, why: String) {
        let _ = say(&mut self.stream, &why).await;
    }
}
