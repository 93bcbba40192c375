//! The accepting side: TLS, the request's head, and then somebody's decision.

use std::{net::SocketAddr, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kubeedge_core::{
    failure::{BoxError, Failure},
    transport::{Endpoint, Incoming, Link, Listener, Peer, TransportError, TransportKind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{WebSocketSettings, link};
use crate::places::Places;

/// The longest head of a request.
const MAX_HEAD: usize = 8 << 10;
/// How many peers may wait for a decision.
const WAITING: usize = 64;

type Stream = TlsStream<TcpStream>;

/// A listening socket. Handshakes go on beside each other; dropping it stops them.
pub(super) struct Door {
    local: SocketAddr,
    knocks: mpsc::Receiver<Knock>,
    _accepting: JoinSet<()>,
}

impl Door {
    pub(super) fn new(
        listener: TcpListener,
        local: SocketAddr,
        tls: TlsAcceptor,
        settings: WebSocketSettings,
        config: WebSocketConfig,
    ) -> Self {
        let (tx, knocks) = mpsc::channel(WAITING);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, tls, settings, config, tx));
        Self { local, knocks, _accepting: accepting }
    }
}

#[async_trait]
impl Listener for Door {
    fn local(&self) -> Endpoint {
        self.local.into()
    }

    async fn next(&mut self) -> Result<Box<dyn Incoming>, TransportError> {
        let knock = self.knocks.recv().await;
        let knock = knock
            .ok_or_else(|| Failure::new(TransportKind::Closed, "listening").on(self.local.to_string()))?;
        Ok(Box::new(knock))
    }
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    settings: WebSocketSettings,
    config: WebSocketConfig,
    knocks: mpsc::Sender<Knock>,
) {
    let mut places = Places::new(settings.handshakes);
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(slot) = places.next().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, knocks) = (tls.clone(), knocks.clone());
        let wanted = places.taken();
        handshakes.spawn(async move {
            let shaking = knock(stream, address, tls, settings.max_frame, config);
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(settings.handshake, shaking) => shaken,
                Ok(()) = wanted => Ok(Err("others wait, and nothing came".into())),
            };
            drop(slot);
            match shaken {
                // A listener that has gone wants no more peers.
                Ok(Ok(knock)) => drop(knocks.send(knock).await),
                Ok(Err(error)) => tracing::info!(%address, error = %error, "a peer failed its handshake"),
                Err(_) => tracing::info!(%address, "a peer took too long for its handshake"),
            }
        });
    }
}

/// A peer whose certificate holds and whose request was read.
struct Knock {
    peer: Peer,
    stream: Stream,
    key: String,
    rest: Bytes,
    config: WebSocketConfig,
    max_frame: usize,
}

async fn knock(
    stream: TcpStream,
    address: SocketAddr,
    tls: TlsAcceptor,
    max_frame: usize,
    config: WebSocketConfig,
) -> Result<Knock, BoxError> {
    let _ = stream.set_nodelay(true);
    let mut stream = tls.accept(stream).await?;
    let (head, rest) = read_head(&mut stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
    match parse(&head) {
        Ok(Request { path, claims, key }) => {
            let peer = Peer { address: Some(address), claims, path, certificates };
            Ok(Knock { peer, stream, key, rest, config, max_frame })
        }
        Err((status, why)) => {
            refuse(&mut stream, status, &why).await?;
            Err(why.into())
        }
    }
}

async fn read_head(stream: &mut Stream) -> Result<(String, Bytes), BoxError> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(read.split_to(end + 4).to_vec())?;
            return Ok((head, read.freeze()));
        }
        if read.len() >= MAX_HEAD {
            return Err(format!("the request's head exceeds {MAX_HEAD} bytes").into());
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err("the peer left before its request was complete".into());
        }
    }
}

#[derive(Debug)]
struct Request {
    path: String,
    claims: Vec<(String, String)>,
    key: String,
}

/// Reads an upgrade request; what is wrong with it comes with the status Go's server would answer.
fn parse(head: &str) -> Result<Request, (&'static str, String)> {
    const BAD: &str = "400 Bad Request";
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    if method != "GET" {
        return Err(("405 Method Not Allowed", format!("websocket: request method is {method}, not GET")));
    }
    let claims: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let header =
        |name: &str| claims.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let has =
        |name: &str, word: &str| header(name).to_ascii_lowercase().split(',').any(|part| part.trim() == word);
    if !has("connection", "upgrade") || !has("upgrade", "websocket") {
        return Err((BAD, "websocket: the client is not using the websocket protocol".to_owned()));
    }
    if header("sec-websocket-version") != "13" {
        return Err((
            BAD,
            "websocket: unsupported version: 13 not found in 'Sec-Websocket-Version' header".to_owned(),
        ));
    }
    let key = header("sec-websocket-key").to_owned();
    if key.is_empty() {
        return Err((
            BAD,
            "websocket: not a websocket handshake: 'Sec-WebSocket-Key' header is missing".to_owned(),
        ));
    }
    let origin = header("origin").rsplit("//").next().unwrap_or_default();
    if !origin.is_empty() && origin != header("host") {
        return Err(("403 Forbidden", "websocket: request origin not allowed".to_owned()));
    }
    Ok(Request { path: target.to_owned(), key, claims })
}

async fn refuse(stream: &mut Stream, status: &str, why: &str) -> std::io::Result<()> {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{why}",
        why.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

#[async_trait]
impl Incoming for Knock {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn accept(mut self: Box<Self>) -> Result<Link, TransportError> {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(self.key.as_bytes())
        );
        let closed = |error| Failure::new(TransportKind::Closed, "accepting a link").because(error);
        self.stream.write_all(answer.as_bytes()).await.map_err(closed)?;
        self.stream.flush().await.map_err(closed)?;
        let Self { peer, stream, rest, config, max_frame, .. } = *self;
        let socket =
            WebSocketStream::from_partially_read(stream, rest.to_vec(), Role::Server, Some(config)).await;
        Ok(link::join(socket, peer, max_frame))
    }

    async fn refuse(mut self: Box<Self>, why: String) {
        if let Err(error) = refuse(&mut self.stream, "403 Forbidden", &why).await {
            tracing::debug!(error = %error, "a peer left before it was refused");
        }
    }
}
