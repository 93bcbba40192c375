//! One listener for all our HTTP services: what is open is bounded in number and time, and ends gracefully.

mod activity;
mod connection;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap, convert::Infallible, fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, service::Service};
use kubeedge_core::{failure::BoxError, kernel::Shutdown};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::{AbortHandle, Id, JoinSet},
    time::Instant,
};

use self::{activity::Activity, connection::Shared};
use crate::lobby::{Lobby, LobbyLimits};

/// Bounds of a service.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// How many connections there may be, in all and of one address, how many more wait, and how long one may
    /// crawl while others wait for its place.
    pub connections: LobbyLimits,
    /// Whether a connection with a request under way never crawls, such as a watch or a command.
    pub spare_busy: bool,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a connection may be without a request: from its start or the last answer to the end of the
    /// next head.
    pub idle: Duration,
    /// How long a connection may be there in all, where it is bounded.
    pub lifetime: Option<Duration>,
    /// How many requests of one HTTP/2 connection may be under way.
    pub streams: u32,
    /// How long requests under way have when the service ends. Commands and the like end at once.
    pub grace: Duration,
}

/// Where a service listens.
pub enum HttpListener {
    /// HTTP/1.1 without TLS.
    Plain(TcpListener),
    /// HTTP/1.1 or HTTP/2 over TLS, as ALPN says.
    #[cfg(feature = "https")]
    Tls(TcpListener, tokio_rustls::TlsAcceptor),
}

impl fmt::Debug for HttpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpListener").field(&self.address()).finish()
    }
}

impl HttpListener {
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(listener) => listener.local_addr().ok(),
            #[cfg(feature = "https")]
            Self::Tls(listener, _) => listener.local_addr().ok(),
        }
    }

    fn split(self) -> (TcpListener, Security) {
        match self {
            Self::Plain(listener) => (listener, Security::None),
            #[cfg(feature = "https")]
            Self::Tls(listener, acceptor) => (listener, Security::Tls(acceptor)),
        }
    }
}

enum Security {
    None,
    #[cfg(feature = "https")]
    Tls(tokio_rustls::TlsAcceptor),
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate that it showed in the TLS handshake, in DER; the acceptor's verifier has passed it.
    pub certificate: Option<Bytes>,
}

/// Takes over connections that change their protocol. Each request that [`serve`] passes on carries one as
/// extension.
#[derive(Clone, Debug)]
pub struct Upgrades(mpsc::Sender<Session>);

/// What goes on on a connection after it has changed its protocol.
struct Session(Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Upgrades {
    /// Runs a session once the answer, `101 Switching Protocols`, is sent. The session is a part of its
    /// connection: it counts against the limits, and is dropped when the service ends. `false` when the
    /// connection has one already.
    pub fn run(&self, session: impl Future<Output = ()> + Send + 'static) -> bool {
        self.0.try_send(Session(Box::pin(session))).is_ok()
    }
}

/// Serves until shutdown, then lets requests under way end, as long as the limits say. `service` makes what
/// answers the requests of one connection. Dropped, it ends all connections at once.
// Boxed for the reason that `read_body` has.
pub fn serve<M, S, B>(
    listener: HttpListener,
    limits: ServeLimits,
    service: M,
    shutdown: &Shutdown,
) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>
where
    M: Fn(&Peer) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Box::pin(serve_until(listener, limits, service, shutdown))
}

async fn serve_until<M, S, B>(listener: HttpListener, limits: ServeLimits, service: M, shutdown: &Shutdown)
where
    M: Fn(&Peer) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (listener, security) = listener.split();
    let idle_again = Arc::new(Notify::new());
    let shared = Arc::new(Shared { security, limits, service, ending: shutdown.clone() });
    let mut lobby = Lobby::new(limits.connections);
    let mut connections = Connections::default();
    loop {
        while let Some((socket, from)) = lobby.admit() {
            let activity = Arc::new(Activity::new(idle_again.clone()));
            let task = connection::run(shared.clone(), socket, from, activity.clone());
            lobby.begin(connections.spawn(task, activity), from);
        }
        let crawling = lobby.overdue_among(|id| connections.still_since(id, limits.spare_busy));
        let when = crawling.map_or_else(Instant::now, |(when, _)| when);
        tokio::select! {
            () = shutdown.requested() => break,
            accepted = listener.accept(), if lobby.has_room() => match accepted {
                // Whoever has to go for it is not told: it has said nothing yet.
                Ok((socket, from)) => drop(lobby.enter(socket, from)),
                Err(error) => {
                    // Out of file descriptors, most likely: give others time to end.
                    tracing::warn!(error = %error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(id) = connections.next_done() => lobby.done(id),
            () = tokio::time::sleep_until(when), if crawling.is_some() => {
                if let Some((_, id)) = crawling {
                    lobby.done(id);
                    connections.abort(id);
                }
            }
            () = idle_again.notified(), if crawling.is_none() && lobby.is_waited_for() => {}
        }
    }
    drop((listener, lobby));
    connections.end_within(limits.grace).await;
}

/// The tasks of connections.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    known: HashMap<Id, (AbortHandle, Arc<Activity>)>,
}

impl Connections {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static, activity: Arc<Activity>) -> Id {
        let handle = self.tasks.spawn(task);
        let id = handle.id();
        self.known.insert(id, (handle, activity));
        id
    }

    /// Since when a connection may be taken to crawl, if it may.
    fn still_since(&self, id: Id, spare_busy: bool) -> Option<Instant> {
        let (_, activity) = self.known.get(&id)?;
        if spare_busy { activity.idle_since() } else { Some(activity.began()) }
    }

    async fn next_done(&mut self) -> Option<Id> {
        let done = self.tasks.join_next_with_id().await?;
        let id = done.map_or_else(|error| error.id(), |(id, ())| id);
        self.known.remove(&id);
        Some(id)
    }

    fn abort(&mut self, id: Id) {
        if let Some((task, _)) = self.known.remove(&id) {
            task.abort();
        }
    }

    async fn end_within(&mut self, grace: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}
