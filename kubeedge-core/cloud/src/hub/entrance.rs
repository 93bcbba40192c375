//! The way in: who may enter, at one door.

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
    admission::{Guest, NodeIdentity, Refusal, identify},
};
use crate::denylist::Denylist;

/// A node that was let in, its link, and its number among all that came to the doors.
pub(super) type Arrival = (Guest, Link, u64);

/// Lets peers in at one door.
pub(super) struct Entrance {
    pub(super) identity: NodeIdentity,
    pub(super) limit: usize,
    pub(super) sessions: Sessions,
    pub(super) denied: Denylist,
    pub(super) arrivals: mpsc::Sender<Arrival>,
    pub(super) came: Arc<AtomicU64>,
    /// Lines about those who are not let in.
    pub(super) refusals: Seldom,
}

/// Peers that may be in the middle of being let in, per door.
const ENTERING: usize = 256;

impl Entrance {
    /// Lets in who comes, until the listener fails.
    pub(super) async fn watch(self, mut listener: Box<dyn Listener>) -> BoxError {
        let mut entering = JoinSet::new();
        let entrance = Arc::new(self);
        loop {
            tokio::select! {
                incoming = listener.next(), if entering.len() < ENTERING => match incoming {
                    Ok(incoming) => {
                        let number = entrance.came.fetch_add(1, Ordering::Relaxed);
                        entering.spawn(entrance.clone().admit(incoming, number));
                    }
                    Err(error) => return error.into(),
                },
                Some(_) = entering.join_next() => {}
            }
        }
    }

    async fn admit(self: Arc<Self>, incoming: Box<dyn Incoming>, number: u64) {
        let admitted = identify(incoming.peer(), self.identity, &self.denied).and_then(|guest| {
            if self.sessions.fits(&guest.node, self.limit) {
                Ok(guest)
            } else {
                Err(Refusal::NoRoom(self.limit))
            }
        });
        let guest = match admitted {
            Ok(guest) => guest,
            Err(refusal) => {
                let address = incoming.peer().address;
                let peer = address.map(|address| address.ip().to_string()).unwrap_or_default();
                if let Some(unsaid) = self.refusals.line(&peer) {
                    let node = shown(incoming.peer().claim("node_id").unwrap_or_default()).to_string();
                    tracing::warn!(peer = ?address, node, why = %shown(&refusal.to_string()), unsaid, "refused a peer");
                }
                let refuse = incoming.refuse(refusal.to_string());
                let _ = tokio::time::timeout(Duration::from_secs(10), refuse).await;
                return;
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), incoming.accept()).await {
            // The hub is gone when nobody takes it.
            Ok(Ok(link)) => drop(self.arrivals.send((guest, link, number)).await),
            Ok(Err(error)) => {
                tracing::warn!(node = %guest.node, error = %error, "a node did not finish to connect")
            }
            Err(_) => tracing::warn!(node = %guest.node, "a node did not finish to connect in time"),
        }
    }
}
