//! Accepts connections of one listener: identifies peers, and admits or refuses them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kubeedge_common::log::{Seldom, shown};
use kubeedge_core::{
    failure::BoxError,
    transport::{Incoming, Link, Listener},
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Sessions,
    admission::{AdmittedNode, NodeIdentity, Refusal, identify},
};
use crate::denylist::Denylist;

/// An admitted node, its link, and the number of its connection among those of all listeners.
pub(super) type Accepted = (AdmittedNode, Link, u64);

/// Accepts the connections of one listener.
pub(super) struct Acceptor {
    pub(super) identity: NodeIdentity,
    pub(super) limit: usize,
    pub(super) sessions: Sessions,
    pub(super) denied: Denylist,
    pub(super) accepted: mpsc::Sender<Accepted>,
    pub(super) connections: Arc<AtomicU64>,
    /// Lines about peers that are refused.
    pub(super) refusals: Seldom,
}

/// Pending connections of one listener: peers that are being admitted.
const MAX_PENDING: usize = 256;

impl Acceptor {
    /// Accepts connections until the listener fails.
    pub(super) async fn run(self, mut listener: Box<dyn Listener>) -> BoxError {
        let mut pending = JoinSet::new();
        let acceptor = Arc::new(self);
        loop {
            tokio::select! {
                incoming = listener.next(), if pending.len() < MAX_PENDING => match incoming {
                    Ok(incoming) => {
                        let number = acceptor.connections.fetch_add(1, Ordering::Relaxed);
                        pending.spawn(acceptor.clone().admit(incoming, number));
                    }
                    Err(error) => return error.into(),
                },
                Some(_) = pending.join_next() => {}
            }
        }
    }

    async fn admit(self: Arc<Self>, incoming: Box<dyn Incoming>, number: u64) {
        let fits = |admitted: AdmittedNode| match self.sessions.fits(&admitted.node, self.limit) {
            true => Ok(admitted),
            false => Err(Refusal::NoRoom(self.limit)),
        };
        let admitted = match identify(incoming.peer(), self.identity, &self.denied).and_then(fits) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse(incoming, &refusal).await,
        };
        match tokio::time::timeout(Duration::from_secs(30), incoming.accept()).await {
            // The hub is gone when nobody takes it.
            Ok(Ok(link)) => drop(self.accepted.send((admitted, link, number)).await),
            Ok(Err(error)) => {
                tracing::warn!(node = %admitted.node, error = %error, "a node did not finish to connect")
            }
            Err(_) => tracing::warn!(node = %admitted.node, "a node did not finish to connect in time"),
        }
    }

    async fn refuse(&self, incoming: Box<dyn Incoming>, refusal: &Refusal) {
        let address = incoming.peer().address;
        let peer = address.map(|address| address.ip().to_string()).unwrap_or_default();
        if let Some(unsaid) = self.refusals.line(&peer) {
            let node = shown(incoming.peer().claim("node_id").unwrap_or_default()).to_string();
            tracing::warn!(peer = ?address, node, why = %shown(&refusal.to_string()), unsaid, "refused a peer");
        }
        let refuse = incoming.refuse(refusal.to_string());
        let _ = tokio::time::timeout(Duration::from_secs(10), refuse).await;
    }
}
