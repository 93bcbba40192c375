//! Links inside one process: for tests, simulations, and cloud and edge in one program.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use kubeedge_core::{
    failure::Failure,
    transport::{
        Credentials, Endpoint, Frame, FrameSink, Incoming, Limits, Link, Listener, Peer, Transport,
        TransportError, TransportKind,
    },
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

const MAX_FRAME: usize = 1 << 20;
/// How many frames a link holds before its sender waits.
const DEPTH: usize = 16;

/// A network of its own: what one clone listens on, another can dial by the same name.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    doors: Arc<Mutex<HashMap<String, mpsc::Sender<Knock>>>>,
}

impl Memory {
    /// A new, empty network.
    pub fn new() -> Self {
        Self::default()
    }
}

#[derive(Debug)]
struct Knock {
    peer: Peer,
    tx: mpsc::Sender<Frame>,
    rx: mpsc::Receiver<Frame>,
    verdict: oneshot::Sender<Result<(), String>>,
}

struct Sink {
    tx: Option<mpsc::Sender<Frame>>,
}

fn closed(doing: &'static str) -> TransportError {
    Failure::new(TransportKind::Closed, doing)
}

#[async_trait]
impl FrameSink for Sink {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        if frame.payload.len() > MAX_FRAME {
            let size = format!("{} of at most {MAX_FRAME} bytes", frame.payload.len());
            return Err(Failure::new(TransportKind::TooLarge, "sending a frame").on(size));
        }
        let tx = self.tx.as_ref().ok_or_else(|| closed("sending a frame"))?;
        tx.send(frame).await.map_err(|_| closed("sending a frame"))
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        self.tx = None;
        Ok(())
    }
}

fn link(peer: Peer, tx: mpsc::Sender<Frame>, rx: mpsc::Receiver<Frame>) -> Link {
    let rx = stream::unfold(rx, |mut rx| async { rx.recv().await.map(|frame| (Ok(frame), rx)) });
    Link { peer, tx: Box::new(Sink { tx: Some(tx) }), rx: rx.fuse().boxed() }
}

#[async_trait]
impl Transport for Memory {
    fn scheme(&self) -> &'static str {
        "mem"
    }

    fn limits(&self) -> Limits {
        Limits { max_frame: MAX_FRAME }
    }

    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        let name = to.authority().to_owned();
        let unreachable = || Failure::new(TransportKind::Unreachable, "dialling").on(name.clone());
        let door = self.doors.lock().get(&name).cloned().ok_or_else(unreachable)?;
        let (near_tx, far_rx) = mpsc::channel(DEPTH);
        let (far_tx, near_rx) = mpsc::channel(DEPTH);
        let (verdict, answer) = oneshot::channel();
        let claims =
            who.claims.iter().map(|(key, value)| (key.to_ascii_lowercase(), value.clone())).collect();
        let peer =
            Peer { claims, path: to.path().to_owned(), certificates: who.chain.clone(), address: None };
        let knock = Knock { peer, tx: far_tx, rx: far_rx, verdict };
        door.send(knock).await.map_err(|_| unreachable())?;
        match answer.await {
            Ok(Ok(())) => Ok(link(Peer::default(), near_tx, near_rx)),
            Ok(Err(why)) => Err(Failure::new(TransportKind::Refused, "dialling").on(why)),
            Err(_) => Err(closed("dialling")),
        }
    }

    async fn listen(&self, on: &Endpoint, _: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        let (tx, rx) = mpsc::channel(DEPTH);
        let name = on.authority().to_owned();
        let mut doors = self.doors.lock();
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
        Ok(link(self.peer, self.tx, self.rx))
    }

    async fn refuse(self: Box<Self>, why: String) {
        // A dialler that has gone does not need the reason.
        let _ = self.verdict.send(Err(why));
    }
}
