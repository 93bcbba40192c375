//! Links inside one process: for tests, simulations, and cloud and edge in one program.

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, stream};
use kubeedge_core::{
    failure::Failure,
    transport::{
        Credentials, Endpoint, Frame, FrameSink, Lanes, Limits, Link, LinkHealth, Listener, Peer, Pong,
        Transport, TransportError, TransportKind,
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::doors::Doors;

const MAX_FRAME: usize = 1 << 20;
/// How many frames a link holds before its sender waits.
const DEPTH: usize = 16;

/// A network of its own: what one clone listens on, another can dial by the same name.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    doors: Doors,
}

impl Memory {
    /// A new, empty network.
    pub fn new() -> Self {
        Self::default()
    }
}

/// What travels.
#[derive(Debug)]
enum Item {
    Frame(Frame),
    /// Answered by whoever takes it out.
    Ping(oneshot::Sender<()>),
}

struct Sink {
    tx: Option<mpsc::Sender<Item>>,
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
        tx.send(Item::Frame(frame)).await.map_err(|_| closed("sending a frame"))
    }

    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.send(frame).await
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        Ok(())
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        self.tx = None;
        Ok(())
    }

    fn health(&mut self) -> Option<&mut dyn LinkHealth> {
        Some(self)
    }

    fn lanes(&mut self) -> Option<&mut dyn Lanes> {
        None
    }
}

#[async_trait]
impl LinkHealth for Sink {
    async fn ping(&mut self) -> Result<Pong, TransportError> {
        let tx = self.tx.as_ref().ok_or_else(|| closed("sending a ping"))?;
        let (answer, pong) = oneshot::channel();
        tx.send(Item::Ping(answer)).await.map_err(|_| closed("sending a ping"))?;
        Ok(async { pong.await.map_err(|_| closed("waiting for a pong")) }.boxed())
    }

    fn last_sign(&mut self) -> Option<Instant> {
        None
    }
}

fn link(peer: Peer, tx: mpsc::Sender<Item>, rx: mpsc::Receiver<Item>) -> Link {
    let rx = stream::unfold(rx, |mut rx| async {
        loop {
            match rx.recv().await? {
                Item::Frame(frame) => return Some((Ok(frame), rx)),
                // Who no longer waits does not need the answer.
                Item::Ping(answer) => drop(answer.send(())),
            }
        }
    });
    Link::new(peer, Sink { tx: Some(tx) }, rx.fuse().boxed())
}

#[async_trait]
impl Transport for Memory {
    fn scheme(&self) -> &'static str {
        "mem"
    }

    fn limits(&self) -> Limits {
        Limits::new(MAX_FRAME)
    }

    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        let (near_tx, far_rx) = mpsc::channel(DEPTH);
        let (far_tx, near_rx) = mpsc::channel(DEPTH);
        self.doors.knock(to, who, move |peer| link(peer, far_tx, far_rx)).await?;
        Ok(link(Peer::default(), near_tx, near_rx))
    }

    async fn listen(&self, on: &Endpoint, _: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        self.doors.listen(on)
    }
}
