//! An established connection as a link: streams as lanes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use kubeedge_core::{
    failure::Failure,
    transport::{Frame, FrameSink, Lane, Link, Peer, TransportError, TransportKind},
};
use quinn::{
    Connection, ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::io::poll_read_buf;

use super::{DONE, hello, lost};

/// So much is set aside for a frame before its bytes come.
const STEP: usize = 64 << 10;
/// So many bytes that were fed are written out by themselves.
const FED: usize = 64 << 10;
/// Payloads up to this size are copied behind their head instead of travelling as a piece of their own.
const SMALL: usize = 1 << 10;
/// With this a stream is cut off instead of ended.
const CUT: VarInt = VarInt::from_u32(3);

const SENDING: &str = "sending a frame";
const RECEIVING: &str = "receiving a frame";

fn protocol(what: &'static str) -> TransportError {
    Failure::new(TransportKind::Protocol, RECEIVING).because(what)
}

fn closed(doing: &'static str) -> TransportError {
    Failure::new(TransportKind::Closed, doing)
}

fn unread(error: std::io::Error) -> TransportError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ReadError>()) {
        Some(ReadError::ConnectionLost(error)) => lost(RECEIVING, error.clone()),
        _ => closed(RECEIVING).because(error),
    }
}

fn unwritten(error: WriteError) -> TransportError {
    match error {
        WriteError::ConnectionLost(error) => lost(SENDING, error),
        error => closed(SENDING).because(error),
    }
}

/// Reads the frames of one stream. Holds nothing between them.
pub(super) struct Reader {
    stream: RecvStream,
    head: [u8; hello::HEAD],
    /// How much of the head is there.
    got: usize,
    payload: BytesMut,
}

impl Reader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, head: [0; hello::HEAD], got: 0, payload: BytesMut::new() }
    }

    /// The kind and payload of the next frame; `None` at the end of the stream.
    pub(super) async fn next(&mut self, limit: usize) -> Result<Option<(u8, Bytes)>, TransportError> {
        std::future::poll_fn(|cx| self.poll_next(cx, limit)).await
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<(u8, Bytes)>, TransportError>> {
        while let Some(rest) = self.head.get_mut(self.got..).filter(|rest| !rest.is_empty()) {
            match ready!(self.stream.poll_read(cx, rest)).map_err(|error| unread(error.into()))? {
                0 if self.got == 0 => return Poll::Ready(Ok(None)),
                0 => return Poll::Ready(Err(protocol("the stream ended within a frame"))),
                read => self.got += read,
            }
        }
        let [kind, length @ ..] = self.head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > limit {
            let size = format!("{length} of at most {limit} bytes");
            return Poll::Ready(Err(Failure::new(TransportKind::TooLarge, RECEIVING).on(size)));
        }
        while self.payload.len() < length {
            let rest = length - self.payload.len();
            if self.payload.capacity() == self.payload.len() {
                self.payload.reserve(rest.min(STEP.max(self.payload.len())));
            }
            let mut room = (&mut self.payload).limit(rest);
            if ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut room)).map_err(unread)? == 0 {
                return Poll::Ready(Err(protocol("the stream ended within a frame")));
            }
        }
        self.got = 0;
        Poll::Ready(Ok(Some((kind, std::mem::take(&mut self.payload).freeze()))))
    }
}

type Opened = Result<(Lane, Reader), TransportError>;

/// Waits for the peer to open a lane.
fn opening(connection: Connection) -> BoxFuture<'static, Opened> {
    let opened = async move {
        let mut stream = connection.accept_uni().await.map_err(|error| lost(RECEIVING, error))?;
        let mut id = [0];
        stream.read_exact(&mut id).await.map_err(|error| closed(RECEIVING).because(error))?;
        let lane = match id {
            [1] => Lane::Twins,
            [2] => Lane::Bulk,
            _ => return Err(protocol("a stream for a lane that is not known")),
        };
        Ok((lane, Reader::new(stream)))
    };
    opened.boxed()
}

/// The frames of all lanes: what is there of a lane before what is there of those behind it.
struct Frames {
    connection: Connection,
    /// In the order of [`Lane::ALL`]. Control is there until its end.
    lanes: [Option<Reader>; Lane::ALL.len()],
    opening: Option<BoxFuture<'static, Opened>>,
    /// How many lanes the peer may still open.
    unopened: usize,
    max_frame: usize,
    ended: bool,
    over: bool,
}

impl Frames {
    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Result<(), TransportError> {
        while let Some(Poll::Ready(opened)) = self.opening.as_mut().map(|opening| opening.poll_unpin(cx)) {
            self.opening = None;
            match opened {
                Ok((lane, reader)) => {
                    let place = Lane::ALL.iter().zip(&mut self.lanes).find(|(known, _)| **known == lane);
                    match place {
                        Some((_, place @ None)) => *place = Some(reader),
                        _ => return Err(protocol("a second stream for one lane")),
                    }
                    self.unopened = self.unopened.saturating_sub(1);
                    if self.unopened > 0 {
                        self.opening = Some(opening(self.connection.clone()));
                    }
                }
                Err(error) if error.kind() == TransportKind::Protocol => return Err(error),
                // The control stream ends with the connection, and says how.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, TransportError>>> {
        self.poll_opened(cx)?;
        for (lane, place) in Lane::ALL.into_iter().zip(&mut self.lanes) {
            let Some(reader) = place else { continue };
            match reader.poll_next(cx, self.max_frame) {
                Poll::Pending => {}
                Poll::Ready(Ok(Some((hello::TEXT, payload)))) => {
                    return Poll::Ready(Some(Ok(Frame { lane, text: true, payload })));
                }
                Poll::Ready(Ok(Some((hello::BINARY, payload)))) => {
                    return Poll::Ready(Some(Ok(Frame { lane, text: false, payload })));
                }
                Poll::Ready(Ok(Some(_))) => {
                    return Poll::Ready(Some(Err(protocol("a frame of a kind that is not known"))));
                }
                Poll::Ready(Ok(None)) => {
                    *place = None;
                    self.ended |= lane == Lane::Control;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
        // Before it ends control, the peer has seen to it that all of the other lanes is here.
        if self.ended && self.lanes.iter().all(Option::is_none) { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Stream for Frames {
    type Item = Result<Frame, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = ready!(self.poll_frame(cx));
        self.over = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }
}

/// Where the frames of a lane go.
enum Way {
    Unopened,
    /// A stream of its own, with a task that writes into it.
    Own(mpsc::Sender<Frame>),
    /// The control stream, as the peer allows no more.
    Shared,
}

struct Sink {
    connection: Connection,
    control: SendStream,
    /// What was fed to control, and its size.
    fed: (Vec<Bytes>, usize),
    twins: Way,
    bulk: Way,
    writers: JoinSet<Result<(), TransportError>>,
    max_frame: usize,
    closing: bool,
    finished: bool,
}

impl Sink {
    fn check(&self, frame: &Frame) -> Result<(), TransportError> {
        let size = frame.payload.len();
        if size > self.max_frame {
            let size = format!("{size} of at most {} bytes", self.max_frame);
            return Err(Failure::new(TransportKind::TooLarge, SENDING).on(size));
        }
        if self.closing { Err(closed(SENDING)) } else { Ok(()) }
    }

    /// Puts a frame where it belongs; what is for control waits to be pushed.
    async fn put(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.check(&frame)?;
        let (connection, writers) = (&self.connection, &mut self.writers);
        let way = match frame.lane {
            Lane::Control => &mut Way::Shared,
            Lane::Twins => &mut self.twins,
            Lane::Bulk => &mut self.bulk,
        };
        if matches!(way, Way::Unopened) {
            *way = match connection.open_uni().now_or_never() {
                Some(stream) => {
                    let stream = stream.map_err(|error| lost(SENDING, error))?;
                    let (tx, frames) = mpsc::channel(1);
                    writers.spawn(write_lane(stream, frame.lane, frames));
                    Way::Own(tx)
                }
                None => Way::Shared,
            };
        }
        if let Way::Own(tx) = way {
            let gone = tx.send(frame).await.is_err();
            return if gone { Err(self.why_closed()) } else { Ok(()) };
        }
        self.fed.1 += frame.payload.len();
        pieces(frame, &mut self.fed.0);
        Ok(())
    }

    fn why_closed(&self) -> TransportError {
        self.connection.close_reason().map_or_else(|| closed(SENDING), |error| lost(SENDING, error))
    }

    async fn push(&mut self) -> Result<(), TransportError> {
        let (mut fed, _) = std::mem::take(&mut self.fed);
        if fed.is_empty() {
            return Ok(());
        }
        self.control.write_all_chunks(&mut fed).await.map_err(unwritten)
    }

    /// Ends all streams, control last, each when what was sent has arrived.
    async fn end(&mut self) -> Result<(), TransportError> {
        self.push().await?;
        (self.twins, self.bulk) = (Way::Shared, Way::Shared);
        while let Some(written) = self.writers.join_next().await {
            written.map_err(|error| closed("closing a link").because(error))??;
        }
        let _ = self.control.finish();
        self.finished = true;
        arrived(&self.control).await
    }
}

/// A frame as pieces of a stream.
fn pieces(frame: Frame, into: &mut Vec<Bytes>) {
    let kind = if frame.text { hello::TEXT } else { hello::BINARY };
    if frame.payload.len() <= SMALL {
        into.push(hello::framed(kind, &frame.payload));
    } else {
        into.extend([Bytes::copy_from_slice(&hello::head(kind, frame.payload.len())), frame.payload]);
    }
}

/// Writes the frames of one lane until there will be no more, and until all have arrived.
async fn write_lane(
    mut stream: SendStream,
    lane: Lane,
    mut frames: mpsc::Receiver<Frame>,
) -> Result<(), TransportError> {
    let (id, priority) = if lane == Lane::Twins { (1, -1) } else { (2, -2) };
    let _ = stream.set_priority(priority);
    stream.write_all(&[id]).await.map_err(unwritten)?;
    while let Some(frame) = frames.recv().await {
        let mut bytes = Vec::with_capacity(2);
        pieces(frame, &mut bytes);
        stream.write_all_chunks(&mut bytes).await.map_err(unwritten)?;
    }
    let _ = stream.finish();
    arrived(&stream).await
}

/// Waits until the peer has everything of a stream that was finished.
async fn arrived(stream: &SendStream) -> Result<(), TransportError> {
    match stream.stopped().await {
        // A peer that leaves at the end has seen it.
        Ok(None) | Err(StoppedError::ConnectionLost(ConnectionError::ApplicationClosed(_))) => Ok(()),
        Ok(Some(_)) => Err(closed("closing a link")),
        Err(StoppedError::ConnectionLost(error)) => Err(lost("closing a link", error)),
        Err(error) => Err(closed("closing a link").because(error)),
    }
}

#[async_trait]
impl FrameSink for Sink {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.put(frame).await?;
        self.push().await
    }

    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.put(frame).await?;
        if self.fed.1 < FED { Ok(()) } else { self.push().await }
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.push().await
    }

    fn has_room(&self, lane: Lane) -> bool {
        let way = match lane {
            Lane::Control => &Way::Shared,
            Lane::Twins => &self.twins,
            Lane::Bulk => &self.bulk,
        };
        // What is closed takes a frame to say so.
        !matches!(way, Way::Own(tx) if tx.capacity() == 0 && !tx.is_closed())
    }

    async fn more_room(&mut self) {
        let full =
            [(Lane::Twins, &self.twins), (Lane::Bulk, &self.bulk)].into_iter().filter_map(|(lane, way)| {
                let Way::Own(tx) = way else { return None };
                (!self.has_room(lane)).then(|| Box::pin(async { drop(tx.reserve().await) }))
            });
        let full: Vec<_> = full.collect();
        if !full.is_empty() {
            futures::future::select_all(full).await;
        }
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        if std::mem::replace(&mut self.closing, true) {
            return Ok(());
        }
        let ended = self.end().await;
        self.connection.close(DONE, b"");
        ended
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // What ended before its time must not look like an end in order.
        if !self.finished {
            let _ = self.control.reset(CUT);
        }
    }
}

/// Makes a link of a connection whose control stream is open.
pub(super) fn join(connection: Connection, tx: SendStream, rx: Reader, peer: Peer, max_frame: usize) -> Link {
    let sink = Sink {
        connection: connection.clone(),
        control: tx,
        fed: (Vec::new(), 0),
        twins: Way::Unopened,
        bulk: Way::Unopened,
        writers: JoinSet::new(),
        max_frame,
        closing: false,
        finished: false,
    };
    let frames = Frames {
        opening: Some(opening(connection.clone())),
        unopened: Lane::ALL.len() - 1,
        connection,
        lanes: [Some(rx), None, None],
        max_frame,
        ended: false,
        over: false,
    };
    Link { peer, tx: Box::new(sink), rx: frames.boxed() }
}
