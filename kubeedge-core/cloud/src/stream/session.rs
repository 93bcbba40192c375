//! One tunnel: many streams over one link.

mod writer;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use kubeedge_core::{
    cluster::Body,
    failure::{BoxError, Failure},
    transport::{Frame, Link, TransportError},
    tunnel::{Connector, FrameKind, TunnelFrame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::writer::{Outgoing, Place};
use kubeedge_core::node_streams::{StreamError, StreamKind};

/// Bytes read from a client at a time.
pub(super) const CHUNK: usize = 16 * 1024;
/// Bytes of one stream that wait for its consumer.
const WINDOW: usize = 4 << 20;
/// What a frame takes of the window beside its bytes.
const OVERHEAD: usize = 128;
/// How long a consumer may leave a full window before its stream is cut.
const PATIENCE: Duration = Duration::from_secs(10);
/// Streams of one tunnel at a time.
const STREAMS: usize = 1024;

/// What the cloud asks of a tunnel.
#[derive(Debug)]
pub(super) enum Command {
    /// Open a stream that is only read.
    Read { kind: FrameKind, connector: Connector, opened: oneshot::Sender<Result<Body, StreamError>> },
    /// Open a stream in both directions.
    Both {
        kind: FrameKind,
        connector: Connector,
        half: DuplexStream,
        opened: oneshot::Sender<Result<(), StreamError>>,
    },
    /// Bytes for the node.
    Data(u64, Bytes),
    /// The client says no more.
    Remove(u64),
}

/// The way to a tunnel.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) end: CancellationToken,
    pub(super) generation: u64,
}

/// A chunk and its share of the window, or why the stream broke off.
type Chunk = Result<(Bytes, OwnedSemaphorePermit), StreamError>;

struct Stream {
    chunks: mpsc::UnboundedSender<Chunk>,
    window: Arc<Semaphore>,
}

/// What a tunnel is asked, from outside and by its own streams.
struct Orders {
    commands: mpsc::Receiver<Command>,
    inner: mpsc::Receiver<Command>,
    places: Arc<Semaphore>,
}

impl Orders {
    /// The next, once its frame has a place; nothing when nobody can ask any more. Cancel-safe.
    async fn next(&mut self) -> Option<(Command, Place)> {
        let place = self.places.clone().acquire_owned().await.ok()?;
        tokio::select! {
            Some(command) = self.inner.recv() => Some((command, place)),
            command = self.commands.recv() => Some((command?, place)),
        }
    }
}

struct Session {
    out: Outgoing,
    streams: HashMap<u64, Stream>,
    last: u64,
    back: mpsc::Sender<Command>,
    /// Streams whose consumers are gone: at most one word of each, which never has to wait.
    left: mpsc::UnboundedSender<u64>,
    pumps: JoinSet<()>,
}

/// Serves a tunnel until it ends; says why it did. Streams that are open then break off with an error.
pub(super) async fn serve(link: Link, commands: mpsc::Receiver<Command>) -> String {
    let Link { tx, rx, .. } = link;
    let heard = AtomicBool::new(false);
    let rx = rx.inspect(|_| heard.store(true, Ordering::Relaxed));
    let ((back, inner), (left, leaving)) = (mpsc::channel(64), mpsc::unbounded_channel());
    let (streams, pumps) = (HashMap::new(), JoinSet::new());
    let (out, waiting) = Outgoing::new();
    let orders = Orders { commands, inner, places: out.places() };
    let mut session = Session { out, streams, last: 0, back, left, pumps };
    tokio::select! {
        why = session.run(rx, orders, leaving) => why,
        why = writer::write(tx, waiting, &heard) => why,
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for stream in self.streams.values() {
            let _ = stream.chunks.send(Err(closed()));
        }
    }
}

impl Session {
    async fn run(
        &mut self,
        mut rx: impl futures::Stream<Item = Result<Frame, TransportError>> + Unpin,
        mut orders: Orders,
        mut leaving: mpsc::UnboundedReceiver<u64>,
    ) -> String {
        loop {
            let result = tokio::select! {
                frame = rx.next() => match frame {
                    None => return "the edge closed it".to_owned(),
                    Some(Err(error)) => return error.to_string(),
                    Some(Ok(frame)) => match TunnelFrame::decode(&frame.payload) {
                        Ok(frame) => self.take(frame).await,
                        Err(error) => return error.to_string(),
                    },
                },
                order = orders.next() => match order {
                    Some((command, place)) => {
                        self.act(command, place);
                        Ok(())
                    }
                    None => return "nobody holds it any more".to_owned(),
                },
                Some(id) = leaving.recv() => {
                    self.remove(id);
                    Ok(())
                }
                Some(_) = self.pumps.join_next() => Ok(()),
            };
            if let Err(why) = result {
                return why;
            }
        }
    }
}

impl Session {
    fn act(&mut self, command: Command, place: Place) {
        match command {
            Command::Read { kind, connector, opened } => {
                let body = self
                    .open(kind, connector, place)
                    .map(|(id, chunks)| body(chunks, Removal { id, to: self.left.clone() }));
                // An asker that is gone drops the body, which removes the stream.
                let _ = opened.send(body.ok_or_else(busy));
            }
            Command::Both { kind, connector, half, opened } => {
                let Some((id, chunks)) = self.open(kind, connector, place) else {
                    let _ = opened.send(Err(busy()));
                    return;
                };
                let _ = opened.send(Ok(()));
                let (from_client, to_client) = tokio::io::split(half);
                self.pumps.spawn(pump_up(id, from_client, self.back.clone()));
                self.pumps.spawn(pump_down(chunks, to_client));
            }
            Command::Data(id, bytes) => {
                if self.streams.contains_key(&id) {
                    self.out.push(TunnelFrame::data(id, bytes), Some(place));
                }
            }
            Command::Remove(id) => self.remove(id),
        }
    }

    fn open(
        &mut self,
        kind: FrameKind,
        mut connector: Connector,
        place: Place,
    ) -> Option<(u64, mpsc::UnboundedReceiver<Chunk>)> {
        if self.streams.len() >= STREAMS {
            tracing::warn!(streams = STREAMS, "a tunnel carries as many streams as it may");
            return None;
        }
        self.last += 1;
        connector.id = self.last;
        let (chunks, receiver) = mpsc::unbounded_channel();
        self.streams.insert(self.last, Stream { chunks, window: Arc::new(Semaphore::new(WINDOW)) });
        self.out.push(TunnelFrame::open(kind, &connector), Some(place));
        Some((self.last, receiver))
    }

    /// A frame of the edge.
    async fn take(&mut self, frame: TunnelFrame) -> Result<(), String> {
        match frame.kind {
            FrameKind::DATA => {
                let Some(stream) = self.streams.get(&frame.id) else { return Ok(()) };
                let share = u32::try_from((frame.data.len() + OVERHEAD).min(WINDOW)).unwrap_or(u32::MAX);
                let room = tokio::time::timeout(PATIENCE, stream.window.clone().acquire_many_owned(share));
                let delivered = match room.await {
                    Ok(Ok(permit)) => stream.chunks.send(Ok((frame.data, permit))).is_ok(),
                    _ => {
                        tracing::warn!(stream = frame.id, "a consumer does not read, its stream is cut");
                        let _ = stream.chunks.send(Err(closed()));
                        false
                    }
                };
                if !delivered {
                    self.remove(frame.id);
                }
                Ok(())
            }
            FrameKind::REMOVE => {
                self.streams.remove(&frame.id);
                Ok(())
            }
            FrameKind::CLOSE => Err("the edge ended it".to_owned()),
            other => {
                tracing::debug!(kind = other.0, "ignored a frame of a tunnel");
                Ok(())
            }
        }
    }

    fn remove(&mut self, id: u64) {
        if self.streams.remove(&id).is_some() {
            self.out.push(TunnelFrame::remove(id), None);
        }
    }
}

/// Tells the session when the consumer is gone.
struct Removal {
    id: u64,
    to: mpsc::UnboundedSender<u64>,
}

impl Drop for Removal {
    fn drop(&mut self) {
        let _ = self.to.send(self.id);
    }
}

fn body(chunks: mpsc::UnboundedReceiver<Chunk>, removal: Removal) -> Body {
    let state = (chunks, removal);
    let frames = futures::stream::unfold(state, |(mut chunks, removal)| async move {
        let frame = match chunks.recv().await? {
            Ok((bytes, _share)) => Ok(http_body::Frame::data(bytes)),
            Err(error) => Err(Box::new(error) as BoxError),
        };
        Some((frame, (chunks, removal)))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

fn closed() -> StreamError {
    Failure::new(StreamKind::Closed, "reading a stream")
}

fn busy() -> StreamError {
    Failure::new(StreamKind::Busy, "opening a stream")
}

async fn pump_up(id: u64, mut from: ReadHalf<DuplexStream>, to: mpsc::Sender<Command>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let bytes = Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default());
        if to.send(Command::Data(id, bytes)).await.is_err() {
            return;
        }
    }
    let _ = to.send(Command::Remove(id)).await;
}

async fn pump_down(mut chunks: mpsc::UnboundedReceiver<Chunk>, mut to: WriteHalf<DuplexStream>) {
    while let Some(Ok((bytes, _share))) = chunks.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
