//! The accepting side: the handshake, the hello, and then somebody's decision.

use std::{net::SocketAddr, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{
    failure::{BoxError, Failure},
    transport::{Endpoint, Incoming, Link, Listener, Peer, TransportError, TransportKind},
};
use quinn::{Connection, SendStream};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    DONE, QuicSettings, WRONG, certificates,
    frames::Reader,
    hello::{self, Abilities},
    link,
};
use crate::places::Places;

/// How many peers may wait for a decision.
const WAITING: usize = 64;
/// How long a refused peer may take to read why.
const FAREWELL: Duration = Duration::from_secs(5);

/// A listening socket. Handshakes go on beside each other; dropping it stops them.
pub(super) struct Door {
    local: SocketAddr,
    endpoint: quinn::Endpoint,
    knocks: mpsc::Receiver<Knock>,
    _accepting: JoinSet<()>,
}

impl Door {
    pub(super) fn open(endpoint: quinn::Endpoint, settings: QuicSettings) -> std::io::Result<Self> {
        let local = endpoint.local_addr()?;
        let (tx, knocks) = mpsc::channel(WAITING);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(endpoint.clone(), settings, tx));
        Ok(Self { local, endpoint, knocks, _accepting: accepting })
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
        self.local.into()
    }

    async fn next(&mut self) -> Result<Box<dyn Incoming>, TransportError> {
        let knock = self.knocks.recv().await;
        let knock = knock
            .ok_or_else(|| Failure::new(TransportKind::Closed, "listening").on(self.local.to_string()))?;
        Ok(Box::new(knock))
    }
}

async fn accept(endpoint: quinn::Endpoint, settings: QuicSettings, knocks: mpsc::Sender<Knock>) {
    let mut places = Places::new(settings.handshakes);
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(slot) = places.next().await else { return };
        let Some(incoming) = endpoint.accept().await else { return };
        let address = incoming.remote_address();
        if places.are_scarce() && !incoming.remote_address_validated() && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%address, error = %error, "a peer's address cannot be proved");
            }
            continue;
        }
        let knocks = knocks.clone();
        let wanted = places.taken();
        handshakes.spawn(async move {
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(settings.handshake, knock(incoming, settings)) => shaken,
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

/// A peer whose certificate holds and whose hello was read.
struct Knock {
    peer: Peer,
    connection: Connection,
    tx: SendStream,
    rx: Reader,
    can: Abilities,
    max_frame: usize,
}

async fn knock(incoming: quinn::Incoming, settings: QuicSettings) -> Result<Knock, BoxError> {
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
            let address = Some(connection.remote_address());
            let peer = Peer { address, claims, path, certificates: certificates(&connection) };
            Ok(Knock { peer, connection, tx, rx, can, max_frame: settings.max_frame })
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
