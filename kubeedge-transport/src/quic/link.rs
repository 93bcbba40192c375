//! An established QUIC connection as a link: its sending half, and how both halves are made.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use kubeedge_core::{
    failure::Failure,
    transport::{Frame, FrameSink, Lane, Lanes, Link, LinkHealth, Peer, Pong, TransportError, TransportKind},
};
use quinn::{Connection, SendStream};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    DONE, SENDING, arrived, closed,
    control::Control,
    frames::{Frames, Reader},
    hello::{self, Abilities},
    lost, unwritten,
};
use crate::pings::Pings;

/// So many bytes that were fed are written out by themselves.
const FED: usize = 64 << 10;
/// Payloads up to this size are copied behind their head instead of travelling as a piece of their own.
const SMALL: usize = 1 << 10;

/// Where the frames of a lane go.
enum Way {
    Unopened,
    /// A stream of its own, with a task that writes into it.
    Own(mpsc::Sender<Frame>),
    /// The control stream, as the peer allows no more.
    Shared,
}

impl Way {
    /// The queue of a lane that takes no frame now. What is closed takes one, to say so.
    fn full(&self) -> Option<&mpsc::Sender<Frame>> {
        match self {
            Self::Own(tx) if tx.capacity() == 0 && !tx.is_closed() => Some(tx),
            Self::Own(_) | Self::Shared | Self::Unopened => None,
        }
    }
}

struct Sink {
    connection: Connection,
    control: Control,
    twins: Way,
    bulk: Way,
    writers: JoinSet<Result<(), TransportError>>,
    pings: Pings,
    /// Whether the peer answers them.
    can_ping: bool,
    /// How many frames went into the streams of twins and bulk.
    sent: [u64; 2],
    max_frame: usize,
    closing: bool,
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

    /// Puts a frame where it belongs. How many bytes wait to be pushed into control by now.
    async fn put(&mut self, frame: Frame) -> Result<usize, TransportError> {
        self.check(&frame)?;
        let [twins, bulk] = &mut self.sent;
        let (connection, writers) = (&self.connection, &mut self.writers);
        let (way, sent) = match frame.lane {
            Lane::Control => (&mut Way::Shared, &mut 0),
            Lane::Twins => (&mut self.twins, twins),
            Lane::Bulk => (&mut self.bulk, bulk),
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
            *sent += 1;
            return if gone { Err(self.why_closed()) } else { Ok(0) };
        }
        Ok(self.control.queue(|into| pieces(frame, into)))
    }

    fn why_closed(&self) -> TransportError {
        self.connection.close_reason().map_or_else(|| closed(SENDING), |error| lost(SENDING, error))
    }

    /// Ends all streams, control last, each when what was sent has arrived.
    async fn end(&mut self) -> Result<(), TransportError> {
        self.control.written().await?;
        (self.twins, self.bulk) = (Way::Shared, Way::Shared);
        while let Some(written) = self.writers.join_next().await {
            written.map_err(|error| closed("closing a link").because(error))??;
        }
        self.control.finish().await
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
    arrived(stream.stopped()).await
}

#[async_trait]
impl FrameSink for Sink {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.put(frame).await?;
        self.control.written().await
    }

    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
        if self.put(frame).await? < FED { Ok(()) } else { self.control.written().await }
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.control.written().await
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        if std::mem::replace(&mut self.closing, true) {
            return Ok(());
        }
        let ended = self.end().await;
        self.connection.close(DONE, b"");
        ended
    }

    fn health(&mut self) -> Option<&mut dyn LinkHealth> {
        if self.can_ping { Some(self) } else { None }
    }

    fn lanes(&mut self) -> Option<&mut dyn Lanes> {
        Some(self)
    }
}

#[async_trait]
impl LinkHealth for Sink {
    async fn ping(&mut self) -> Result<Pong, TransportError> {
        if self.closing {
            return Err(closed("sending a ping"));
        }
        let (number, pong) = self.pings.next();
        let ping = hello::ping(number, self.sent);
        self.control.queue(|into| into.push(ping));
        self.control.written().await?;
        Ok(pong)
    }

    fn last_sign(&mut self) -> Option<Instant> {
        self.pings.last_heard()
    }
}

#[async_trait]
impl Lanes for Sink {
    fn has_room(&mut self, lane: Lane) -> bool {
        match lane {
            Lane::Control => true,
            Lane::Twins => self.twins.full().is_none(),
            Lane::Bulk => self.bulk.full().is_none(),
        }
    }

    async fn more_room(&mut self) {
        let full = [&self.twins, &self.bulk].into_iter().filter_map(Way::full);
        let room: Vec<_> = full.map(|tx| Box::pin(async { drop(tx.reserve().await) })).collect();
        if !room.is_empty() {
            futures::future::select_all(room).await;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.control.cut();
    }
}

/// Makes a link of a connection whose control stream is open, with a peer that can so much.
pub(super) fn join(
    connection: Connection,
    tx: SendStream,
    rx: Reader,
    peer: Peer,
    can: Abilities,
    max_frame: usize,
) -> Link {
    let (control, pings) = (Control::new(tx), Pings::default());
    let frames = Frames::new(connection.clone(), rx, control.clone(), pings.clone(), max_frame);
    let sink = Sink {
        connection,
        control,
        twins: Way::Unopened,
        bulk: Way::Unopened,
        writers: JoinSet::new(),
        pings,
        can_ping: can.pings,
        sent: [0; 2],
        max_frame,
        closing: false,
    };
    Link::new(peer, sink, frames.boxed())
}
