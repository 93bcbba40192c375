//! The accepting side: TLS, the request's head, and then somebody's decision.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kubeedge_core::{
    failure::{BoxError, Failure},
    lobby::{Lobby, LobbyLimits},
    log::{Seldom, shown},
    transport::{Endpoint, Incoming, Link, Listener, Peer, TransportError, TransportKind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, Id, JoinSet},
    time::{Instant, error::Elapsed},
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

/// The longest head of a request.
const MAX_HEAD: usize = 8 << 10;
/// How many peers may wait for a decision.
const WAITING: usize = 64;
/// How long a handshake is left alone while others wait for its place.
const UNDISTURBED: Duration = Duration::from_secs(2);

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
        accepting.spawn(accept(listener, Handshakes::new(tls, settings, config), tx));
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

/// Carries out handshakes and hands on who has passed, as fast as they are taken.
async fn accept(listener: TcpListener, mut handshakes: Handshakes, knocks: mpsc::Sender<Knock>) {
    loop {
        handshakes.begin();
        let overdue = handshakes.lobby.overdue();
        let when = overdue.map_or_else(Instant::now, |(when, _)| when);
        tokio::select! {
            accepted = listener.accept(), if handshakes.lobby.has_room() => match accepted {
                Ok((stream, address)) => handshakes.enter(stream, address),
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(done) = handshakes.tasks.join_next_with_id() => match done {
                Ok((task, shaken)) => handshakes.done(task, shaken),
                // Ended for others, or by a panic.
                Err(error) => handshakes.end(error.id(), "others wait, and nothing came"),
            },
            () = tokio::time::sleep_until(when), if overdue.is_some() => if let Some((_, task)) = overdue {
                handshakes.end(task, "others wait, and nothing came");
            },
            permit = knocks.reserve(), if !handshakes.passed.is_empty() => {
                match (permit, handshakes.passed.pop_front()) {
                    (Ok(permit), Some(knock)) => permit.send(knock),
                    // A listener that has gone wants no more peers.
                    _ => return,
                }
            },
        }
    }
}

type Shaken = Result<Result<Knock, BoxError>, Elapsed>;

/// Handshakes, those who wait for one, and those who have passed and wait to be taken.
struct Handshakes {
    tls: TlsAcceptor,
    settings: WebSocketSettings,
    config: WebSocketConfig,
    lobby: Lobby<TcpStream, Id>,
    tasks: JoinSet<Shaken>,
    running: HashMap<Id, (AbortHandle, SocketAddr)>,
    passed: VecDeque<Knock>,
    failures: Seldom,
}

impl Handshakes {
    fn new(tls: TlsAcceptor, settings: WebSocketSettings, config: WebSocketConfig) -> Self {
        let lobby = Lobby::new(LobbyLimits {
            places: settings.handshakes,
            of_one: settings.handshakes_of_one,
            waiting: settings.handshakes,
            undisturbed: UNDISTURBED,
        });
        let (tasks, running, passed) = (JoinSet::new(), HashMap::new(), VecDeque::new());
        Self { tls, settings, config, lobby, tasks, running, passed, failures: Seldom::default() }
    }

    fn enter(&mut self, stream: TcpStream, address: SocketAddr) {
        if let Some((_, address)) = self.lobby.enter(stream, address) {
            self.failed(address, "too many of its address wait");
        }
    }

    /// Begins as many as may.
    fn begin(&mut self) {
        while self.passed.len() < WAITING
            && let Some((stream, address)) = self.lobby.admit()
        {
            let shaking = knock(stream, address, self.tls.clone(), self.settings.max_frame, self.config);
            let task = self.tasks.spawn(tokio::time::timeout(self.settings.handshake, shaking));
            self.lobby.begin(task.id(), address);
            self.running.insert(task.id(), (task, address));
        }
    }

    fn done(&mut self, task: Id, shaken: Shaken) {
        match shaken {
            Ok(Ok(knock)) => self.passed.push_back(knock),
            Ok(Err(error)) => return self.end(task, &error.to_string()),
            Err(_) => return self.end(task, "it took too long"),
        }
        self.lobby.done(task);
        self.running.remove(&task);
    }

    fn end(&mut self, task: Id, why: &str) {
        self.lobby.done(task);
        if let Some((running, address)) = self.running.remove(&task) {
            running.abort();
            self.failed(address, why);
        }
    }

    /// A line, one a second for each address.
    fn failed(&self, address: SocketAddr, why: &str) {
        if let Some(unsaid) = self.failures.line(&address.ip().to_string()) {
            tracing::info!(%address, error = %shown(why), unsaid, "a peer failed its handshake");
        }
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
