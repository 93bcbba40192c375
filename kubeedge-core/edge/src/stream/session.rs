//! One tunnel while it lasts: many streams over one link.

use std::{
    collections::HashMap,
    io, str,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use kubeedge_core::{
    failure::{BoxError, chain},
    transport::{Frame, FrameSink, Link, TransportError},
    tunnel::{Duplex, FrameKind, TunnelFrame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{EdgeStreamSettings, NodeApi, request::Local};

/// Bytes sent in one frame.
const CHUNK: usize = 16 << 10;
/// Frames that wait for a slow link; their senders wait then.
const OUTGOING: usize = 64;
/// Bytes of one stream that wait for the node's API.
const WINDOW: usize = 1 << 20;
/// What a frame takes of the window beside its bytes.
const OVERHEAD: usize = 128;
/// How long a stream may leave its window full before it is cut.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what came before the end of a stream may take to reach the node's API.
const PARTING: Duration = Duration::from_secs(5);
/// How often something is sent when there is nothing to send.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Bytes from the cloud and their share of the window.
type Words = mpsc::UnboundedReceiver<(Bytes, OwnedSemaphorePermit)>;

struct Stream {
    words: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
    window: Arc<Semaphore>,
    /// Tells the stream's task that it is over.
    _end: DropGuard,
}

struct Session<'a> {
    api: &'a Arc<dyn NodeApi>,
    limit: usize,
    streams: HashMap<u64, Stream>,
    tasks: JoinSet<u64>,
    out: mpsc::Sender<TunnelFrame>,
}

/// Serves a tunnel until it ends; says why it did. All its streams end with it.
pub(super) async fn serve(link: Link, api: &Arc<dyn NodeApi>, settings: &EdgeStreamSettings) -> String {
    let Link { tx, rx, .. } = link;
    let (out, outgoing) = mpsc::channel(OUTGOING);
    let (streams, tasks) = (HashMap::new(), JoinSet::new());
    let mut session = Session { api, limit: settings.streams, streams, tasks, out };
    let text = AtomicBool::new(false);
    tokio::select! {
        why = session.read(rx, &text) => why,
        why = write(tx, outgoing, &text, settings.write) => why,
    }
}

/// Sends what streams say.
async fn write(
    mut tx: Box<dyn FrameSink>,
    mut frames: mpsc::Receiver<TunnelFrame>,
    text: &AtomicBool,
    limit: Duration,
) -> String {
    let mut beat = tokio::time::interval_at(Instant::now() + KEEPALIVE, KEEPALIVE);
    loop {
        let first = tokio::select! {
            Some(frame) = frames.recv() => frame,
            _ = beat.tick() => TunnelFrame::remove(0),
        };
        let writing = async {
            tx.feed(framed(&first, text)).await?;
            for _ in 0..OUTGOING {
                let Ok(more) = frames.try_recv() else { break };
                tx.feed(framed(&more, text)).await?;
            }
            tx.flush().await
        };
        match tokio::time::timeout(limit, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return chain(&error),
            Err(_) => return "the cloud does not read".to_owned(),
        }
    }
}

/// A frame as the cloud likes it: text for one that sends text, where that can be.
fn framed(frame: &TunnelFrame, text: &AtomicBool) -> Frame {
    let payload = frame.encode();
    let text = text.load(Ordering::Relaxed) && str::from_utf8(&payload).is_ok();
    if text { Frame::text(payload) } else { Frame::binary(payload) }
}

impl Session<'_> {
    async fn read(
        &mut self,
        mut rx: BoxStream<'static, Result<Frame, TransportError>>,
        text: &AtomicBool,
    ) -> String {
        loop {
            tokio::select! {
                frame = rx.next() => {
                    let frame = match frame {
                        None => return "the cloud closed it".to_owned(),
                        Some(Err(error)) => return chain(&error),
                        Some(Ok(frame)) => frame,
                    };
                    text.store(frame.text, Ordering::Relaxed);
                    match TunnelFrame::decode(&frame.payload) {
                        Ok(frame) if frame.kind == FrameKind::CLOSE => {
                            return format!("the cloud ended it: {}", String::from_utf8_lossy(&frame.data));
                        }
                        Ok(frame) => self.take(frame).await,
                        Err(error) => return error.to_string(),
                    }
                }
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(id) => drop(self.streams.remove(&id)),
                    Err(error) => tracing::error!(error = %error, "a stream of the tunnel failed"),
                },
            }
        }
    }

    async fn take(&mut self, frame: TunnelFrame) {
        match frame.kind {
            kind if kind.opens_a_stream() => self.open(frame).await,
            FrameKind::DATA => self.hand_on(frame).await,
            FrameKind::REMOVE => drop(self.streams.remove(&frame.id)),
            other => tracing::debug!(kind = other.0, "ignored a frame of the tunnel"),
        }
    }

    async fn open(&mut self, frame: TunnelFrame) {
        if self.streams.len() >= self.limit || self.streams.contains_key(&frame.id) {
            tracing::warn!(
                stream = frame.id,
                limit = self.limit,
                "a stream more than there may be is refused"
            );
            let _ = self.out.send(TunnelFrame::remove(frame.id)).await;
            return;
        }
        let (words, heard) = mpsc::unbounded_channel();
        let end = CancellationToken::new();
        let (over, out, api) = (end.clone(), self.out.clone(), self.api.clone());
        let stream = Stream { words, window: Arc::new(Semaphore::new(WINDOW)), _end: end.drop_guard() };
        self.streams.insert(frame.id, stream);
        self.tasks.spawn(async move {
            let id = frame.id;
            let abandoned = async {
                over.cancelled().await;
                tokio::time::sleep(PARTING).await;
            };
            tokio::select! {
                () = carry(frame, heard, &out, &*api) => {}
                () = abandoned => {}
            }
            let _ = out.send(TunnelFrame::remove(id)).await;
            id
        });
    }

    async fn hand_on(&mut self, frame: TunnelFrame) {
        let Some(stream) = self.streams.get(&frame.id) else { return };
        let share = u32::try_from((frame.data.len() + OVERHEAD).min(WINDOW)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(PATIENCE, stream.window.clone().acquire_many_owned(share));
        match room.await {
            // A stream that has just ended wants nothing more.
            Ok(Ok(permit)) => drop(stream.words.send((frame.data, permit))),
            _ => {
                tracing::warn!(stream = frame.id, "a stream does not take its bytes and is cut");
                self.streams.remove(&frame.id);
            }
        }
    }
}

/// Carries one stream from its opening to its end.
async fn carry(open: TunnelFrame, words: Words, out: &mpsc::Sender<TunnelFrame>, api: &dyn NodeApi) {
    let (id, upgrades) = (open.id, matches!(open.kind, FrameKind::EXEC | FrameKind::ATTACH));
    let carried = match (Local::read(&open.data), api.connect().await) {
        (Err(error), _) => Err(error.into()),
        (_, Err(error)) => Err(BoxError::from(error)),
        (Ok(request), Ok(local)) if upgrades => {
            both(id, request, local, words, out).await.map_err(BoxError::from)
        }
        (Ok(request), Ok(local)) => body(id, request.plain(), local, words, out).await,
    };
    let Err(error) = carried else { return };
    let why = format!("the node's API cannot be asked: {}\n", chain(&*error));
    tracing::warn!(stream = id, why, "a stream of the tunnel failed");
    let answer = if upgrades {
        let size = why.len();
        format!(
            "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n{why}"
        )
    } else {
        why
    };
    let _ = out.send(TunnelFrame::data(id, answer)).await;
}

/// Fetches the body of an answer, whatever its status: the status does not travel.
async fn body(
    id: u64,
    request: Local,
    local: Box<dyn Duplex>,
    mut words: Words,
    out: &mpsc::Sender<TunnelFrame>,
) -> Result<(), BoxError> {
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(local)).await?;
    let mut asked = http::Request::new(Empty::<Bytes>::new());
    *asked.uri_mut() = request.target.into();
    *asked.headers_mut() = request.headers;
    let fetch = async {
        let mut body = send.send_request(asked).await?.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(mut data) = frame?.into_data() else { continue };
            while !data.is_empty() {
                let chunk = data.split_to(data.len().min(CHUNK));
                if out.send(TunnelFrame::data(id, chunk)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    let drive = async {
        // Its errors are those of the fetch.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    // What the cloud says to a stream that is only read means nothing; its silence is the end.
    let gone = async { while words.recv().await.is_some() {} };
    tokio::select! {
        fetched = fetch => fetched,
        () = drive => Ok(()),
        () = gone => Ok(()),
    }
}

/// Carries every byte of a connection in both directions. An error is one of the request itself: later ones
/// are the stream's end.
async fn both(
    id: u64,
    request: Local,
    mut local: Box<dyn Duplex>,
    mut words: Words,
    out: &mpsc::Sender<TunnelFrame>,
) -> io::Result<()> {
    local.write_all(&request.head()).await?;
    local.flush().await?;
    let (mut from, mut to) = tokio::io::split(local);
    let up = async {
        let mut block = vec![0; CHUNK];
        while let Ok(size @ 1..) = from.read(&mut block).await {
            let bytes = Bytes::copy_from_slice(block.get(..size).unwrap_or_default());
            if out.send(TunnelFrame::data(id, bytes)).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        while let Some((bytes, _share)) = words.recv().await {
            if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                // The other direction says how this ends.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    Ok(())
}
