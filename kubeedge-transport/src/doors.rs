//! Endpoints by name inside one process: who listens where, and who is at the door.

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use kubeedge_core::{
    failure::Failure,
    transport::{Credentials, Endpoint, Incoming, Link, Listener, Peer, TransportError, TransportKind},
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// How many may wait at one door.
const WAITING: usize = 16;

/// A network of its own: what one clone listens on, another can dial by the same name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doors(Arc<Mutex<HashMap<String, mpsc::Sender<Knock>>>>);

/// Makes the listener's end of a link once it was let in.
type Enter = Box<dyn FnOnce(Peer) -> Link + Send>;

struct Knock {
    peer: Peer,
    enter: Enter,
    verdict: oneshot::Sender<Result<(), String>>,
}

impl fmt::Debug for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knock").field("peer", &self.peer).finish_non_exhaustive()
    }
}

fn closed(doing: &'static str) -> TransportError {
    Failure::new(TransportKind::Closed, doing)
}

impl Doors {
    /// Asks to be let in; `enter` makes the other end.
    pub(crate) async fn knock(
        &self,
        to: &Endpoint,
        who: &Credentials,
        enter: impl FnOnce(Peer) -> Link + Send + 'static,
    ) -> Result<(), TransportError> {
        let name = to.authority().to_owned();
        let unreachable = || Failure::new(TransportKind::Unreachable, "dialling").on(name.clone());
        let door = self.0.lock().get(&name).cloned().ok_or_else(unreachable)?;
        let (verdict, answer) = oneshot::channel();
        let peer = Peer::default().with_claims(who.claims.clone());
        let peer = peer.with_path(to.path()).with_certificates(who.chain.clone());
        let knock = Knock { peer, enter: Box::new(enter), verdict };
        door.send(knock).await.map_err(|_| unreachable())?;
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(Failure::new(TransportKind::Refused, "dialling").on(why)),
            Err(_) => Err(closed("dialling")),
        }
    }

    pub(crate) fn listen(&self, on: &Endpoint) -> Result<Box<dyn Listener>, TransportError> {
        let (tx, rx) = mpsc::channel(WAITING);
        let name = on.authority().to_owned();
        let mut doors = self.0.lock();
        if doors.get(&name).is_some_and(|door| !door.is_closed()) {
            return Err(
                Failure::new(TransportKind::Misconfigured, "listening").on(format!("{name} is in use"))
            );
        }
        doors.insert(name, tx);
        Ok(Box::new(Door { on: on.clone(), rx }))
    }
}

struct Door {
    on: Endpoint,
    rx: mpsc::Receiver<Knock>,
}

#[async_trait]
impl Listener for Door {
    fn local(&self) -> Endpoint {
        self.on.clone()
    }

    async fn next(&mut self) -> Result<Box<dyn Incoming>, TransportError> {
        let knock = self.rx.recv().await.ok_or_else(|| closed("listening"))?;
        Ok(Box::new(knock))
    }
}

#[async_trait]
impl Incoming for Knock {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn accept(self: Box<Self>) -> Result<Link, TransportError> {
        self.verdict.send(Ok(())).map_err(|_| closed("accepting"))?;
        Ok((self.enter)(self.peer))
    }

    async fn refuse(self: Box<Self>, why: String) {
        // A dialler that has gone does not need the reason.
        let _ = self.verdict.send(Err(why));
    }
}
