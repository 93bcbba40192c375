//! The accepting side: TLS, the request's head, and then somebody's decision.

use std::{net::SocketAddr, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kubeedge_core::{
    failure::{BoxError, Failure},
    transport::{Incoming, Link, Peer, TransportError, TransportKind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::link;
use crate::handshakes::Arrivals;

/// The longest head of a request.
const MAX_HEAD: usize = 8 << 10;
type Stream = TlsStream<TcpStream>;

/// What comes to a listening socket.
pub(super) struct Sockets {
    pub(super) listener: TcpListener,
    pub(super) tls: TlsAcceptor,
    pub(super) max_frame: usize,
    pub(super) config: WebSocketConfig,
}

impl Arrivals for Sockets {
    type Guest = TcpStream;
    type Knock = Knock;
    // The system keeps them.
    const WAIT_OUTSIDE: bool = true;

    async fn next(&mut self) -> Option<(TcpStream, SocketAddr)> {
        loop {
            match self.listener.accept().await {
                Ok(arrived) => return Some(arrived),
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn shake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Knock, BoxError>> + Send + 'static {
        knock(stream, address, self.tls.clone(), self.max_frame, self.config)
    }
}

/// A peer whose certificate holds and whose request was read.
pub(super) struct Knock {
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
    let certificates: Vec<_> = chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
    match parse(&head) {
        Ok(Request { path, claims, key }) => {
            let peer = Peer::default().with_address(address).with_claims(claims);
            let peer = peer.with_path(path).with_certificates(certificates);
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
pub(crate) struct Request {
    path: String,
    pub(crate) claims: Vec<(String, String)>,
    key: String,
}

/// Reads an upgrade request; what is wrong with it comes with the status Go's server would answer.
pub(crate) fn parse(head: &str) -> Result<Request, (&'static str, String)> {
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
