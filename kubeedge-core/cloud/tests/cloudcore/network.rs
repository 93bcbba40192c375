//! Links in memory: dialling hands both ends to the listener of the one endpoint there is.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures::StreamExt;
use kubeedge_core::{
    failure::Failure,
    transport::{
        Credentials, Endpoint, Frame, FrameSink, Incoming, Lanes, Limits, Link, LinkHealth, Listener, Peer,
        Transport, TransportError, TransportKind,
    },
};
use tokio::sync::{mpsc, oneshot};

type Frames = mpsc::Sender<Frame>;
type Answer = oneshot::Sender<Result<(), String>>;
type Pushes = Arc<AtomicUsize>;
/// How many frames a link holds: from an edge as many small ones as a socket does, to an edge few, so that
/// one that does not read is soon noticed.
const FROM_EDGE: usize = 1024;
const TO_EDGE: usize = 16;

type Knock = (Peer, Frames, mpsc::Receiver<Frame>, Pushes, Answer);

#[derive(Debug, Default)]
pub(crate) struct Network {
    door: Mutex<Option<mpsc::Sender<Knock>>>,
    /// How often those who were let in were pushed what had been fed to their links.
    pub(crate) pushes: Pushes,
}

struct Sink(Option<Frames>, Pushes);

#[async_trait]
impl FrameSink for Sink {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        let closed = || Failure::new(TransportKind::Closed, "sending");
        let sender = self.0.as_ref().ok_or_else(closed)?;
        sender.send(frame).await.map_err(|_| closed())
    }
    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.send(frame).await
    }
    async fn flush(&mut self) -> Result<(), TransportError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    async fn close(&mut self) -> Result<(), TransportError> {
        self.0 = None;
        Ok(())
    }
    fn health(&mut self) -> Option<&mut dyn LinkHealth> {
        None
    }
    fn lanes(&mut self) -> Option<&mut dyn Lanes> {
        None
    }
}

fn link(peer: Peer, tx: Frames, rx: mpsc::Receiver<Frame>, pushes: Pushes) -> Link {
    let frames = futures::stream::unfold(rx, |mut rx| async move { Some((Ok(rx.recv().await?), rx)) });
    Link::new(peer, Sink(Some(tx), pushes), frames.boxed())
}

struct Door(mpsc::Receiver<Knock>);
struct Guest(Knock);

#[async_trait]
impl Listener for Door {
    fn local(&self) -> Endpoint {
        Endpoint::from("hub")
    }
    async fn next(&mut self) -> Result<Box<dyn Incoming>, TransportError> {
        match self.0.recv().await {
            Some(knock) => Ok(Box::new(Guest(knock))),
            None => Err(Failure::new(TransportKind::Closed, "listening")),
        }
    }
}

#[async_trait]
impl Incoming for Guest {
    fn peer(&self) -> &Peer {
        &self.0.0
    }
    async fn accept(self: Box<Self>) -> Result<Link, TransportError> {
        let (peer, tx, rx, pushes, answer) = self.0;
        let _ = answer.send(Ok(()));
        Ok(link(peer, tx, rx, pushes))
    }
    async fn refuse(self: Box<Self>, why: String) {
        let _ = self.0.4.send(Err(why));
    }
}

#[async_trait]
impl Transport for Network {
    fn scheme(&self) -> &'static str {
        "test"
    }
    fn limits(&self) -> Limits {
        Limits::new(32 << 20)
    }
    async fn dial(&self, _to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        let unreachable = || Failure::new(TransportKind::Unreachable, "dialling");
        let door = self.door.lock().unwrap().clone().ok_or_else(unreachable)?;
        let ((to_cloud, from_edge), (to_edge, from_cloud)) =
            (mpsc::channel(FROM_EDGE), mpsc::channel(TO_EDGE));
        let (answer, answered) = oneshot::channel();
        let peer = Peer::default().with_claims(who.claims.clone()).with_certificates(who.chain.clone());
        door.send((peer, to_edge, from_edge, self.pushes.clone(), answer))
            .await
            .map_err(|_| unreachable())?;
        match answered.await {
            Ok(Ok(())) => Ok(link(Peer::default(), to_cloud, from_cloud, Pushes::default())),
            Ok(Err(why)) => Err(Failure::new(TransportKind::Refused, "dialling").because(why)),
            Err(_) => Err(unreachable()),
        }
    }
    async fn listen(&self, _on: &Endpoint, _who: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        let (sender, receiver) = mpsc::channel(16);
        *self.door.lock().unwrap() = Some(sender);
        Ok(Box::new(Door(receiver)))
    }
}
