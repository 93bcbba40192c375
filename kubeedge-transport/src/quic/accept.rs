//! The accepting side: the handshake, the hello, and then somebody's decision.

use std::{net::SocketAddr, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{
    failure::{BoxError, Failure},
    transport::{Endpoint, Incoming, Link, Listener, Peer, TransportError, TransportKind},
};
use quinn::{Connection, SendStream};

use super::{
    DONE, QuicSettings, WRONG, certificates,
    frames::Reader,
    hello::{self, Abilities},
    link,
};
use crate::handshakes::{self, Arrivals, DoorLimits};

/// How long a refused peer may take to read why.
const FAREWELL: Duration = Duration::from_secs(5);

/// A listening socket.
pub(super) struct Door {
    inner: handshakes::Door<Knock>,
    endpoint: quinn::Endpoint,
}

impl Door {
    pub(super) fn open(endpoint: quinn::Endpoint, settings: QuicSettings) -> std::io::Result<Self> {
        let arrivals = Sockets { endpoint: endpoint.clone(), max_frame: settings.max_frame };
        let QuicSettings { handshake, handshakes, handshakes_of_one: of_one, .. } = settings;
        let limits = DoorLimits { handshake, handshakes, of_one };
        let inner = handshakes::Door::open(endpoint.local_addr()?, arrivals, limits);
        Ok(Self { inner, endpoint })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // The socket serves the links there are, and nobody new.
        self.endpoint.set_server_config(None);
    }
}

#[async_trait]
impl Listener for Door {
    fn local(&self) -> Endpoint {
        self.inner.local()
    }

    async fn next(&mut self) -> Result<Box<dyn Incoming>, TransportError> {
        self.inner.next().await
    }
}

/// What comes to a listening socket.
struct Sockets {
    endpoint: quinn::Endpoint,
    max_frame: usize,
}

impl Arrivals for Sockets {
    type Guest = quinn::Incoming;
    type Knock = Knock;
    // One socket is there for all: who is not looked at stands before the others.
    const WAIT_OUTSIDE: bool = false;

    async fn next(&mut self) -> Option<(quinn::Incoming, SocketAddr)> {
        let incoming = self.endpoint.accept().await?;
        let address = incoming.remote_address();
        Some((incoming, address))
    }

    /// Anybody can write any address on a datagram. When there is much to do, an address counts only when it
    /// is proved.
    fn receive(&self, incoming: quinn::Incoming, busy: bool) -> Option<quinn::Incoming> {
        if !busy || incoming.remote_address_validated() || !incoming.may_retry() {
            return Some(incoming);
        }
        let address = incoming.remote_address();
        if let Err(error) = incoming.retry() {
            tracing::debug!(%address, error = %error, "a peer's address cannot be proved");
        }
        None
    }

    /// Without a word: an honest dialler asks again by itself.
    fn forget(incoming: quinn::Incoming) {
        incoming.ignore();
    }

    fn shake(
        &self,
        incoming: quinn::Incoming,
        _: SocketAddr,
    ) -> impl Future<Output = Result<Knock, BoxError>> + Send + 'static {
        knock(incoming, self.max_frame)
    }
}

/// A peer whose certificate holds and whose hello was read.
struct Knock {
    peer: Peer,
    connection: Connection,
    tx: SendStream,
    rx: Reader,
    can: Abilities,
    max_frame: usize,
}

async fn knock(incoming: quinn::Incoming, max_frame: usize) -> Result<Knock, BoxError> {
    let connection = incoming.accept()?.await?;
    let (tx, rx) = connection.accept_bi().await?;
    let mut rx = Reader::new(rx);
    let said = match rx.next(hello::MAX_HELLO).await? {
        Some((hello::HELLO, said)) => hello::parse(&said),
        Some(_) => Err("the first frame is no hello"),
        None => Err("the peer left before its hello"),
    };
    match said {
        Ok(hello::Hello { path, claims, can }) => {
            let peer = Peer::default().with_address(connection.remote_address()).with_claims(claims);
            let peer = peer.with_path(path).with_certificates(certificates(&connection));
            Ok(Knock { peer, connection, tx, rx, can, max_frame })
        }
        Err(why) => {
            connection.close(WRONG, why.as_bytes());
            Err(why.into())
        }
    }
}

#[async_trait]
impl Incoming for Knock {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn accept(mut self: Box<Self>) -> Result<Link, TransportError> {
        let welcome = self.tx.write_chunk(self.can.welcome()).await;
        welcome.map_err(|e| Failure::new(TransportKind::Closed, "accepting a link").because(e))?;
        let Self { peer, connection, tx, rx, can, max_frame } = *self;
        Ok(link::join(connection, tx, rx, peer, can, max_frame))
    }

    async fn refuse(mut self: Box<Self>, why: String) {
        let told = async {
            self.tx.write_chunk(hello::refusal(&why)).await?;
            let _ = self.tx.finish();
            // The dialler closes when it has read why.
            let _ = tokio::time::timeout(FAREWELL, self.connection.closed()).await;
            Ok::<_, quinn::WriteError>(())
        };
        if let Err(error) = told.await {
            tracing::debug!(error = %error, "a peer left before it was refused");
        }
        self.connection.close(DONE, b"");
    }
}
