//! The receiving half of a link: the frames of all lanes, and the answers to pings.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, Stream, future::BoxFuture};
use kubeedge_core::{
    failure::Failure,
    transport::{Frame, Lane, TransportError, TransportKind},
};
use quinn::{Connection, ReadError, RecvStream};
use tokio_util::io::poll_read_buf;

use super::{
    answers::{Answers, Asked},
    closed,
    control::Control,
    hello, lost,
};
use crate::pings::{Ending, Pings};

/// So much is set aside for a frame before its bytes come.
const STEP: usize = 64 << 10;
/// So many records that are no frames are read at one go.
const AT_A_GO: usize = 64;

const RECEIVING: &str = "receiving a frame";

fn protocol(what: &'static str) -> TransportError {
    Failure::new(TransportKind::Protocol, RECEIVING).because(what)
}

fn unread(error: std::io::Error) -> TransportError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ReadError>()) {
        Some(ReadError::ConnectionLost(error)) => lost(RECEIVING, error.clone()),
        _ => closed(RECEIVING).because(error),
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
pub(super) struct Frames {
    connection: Connection,
    /// In the order of [`Lane::ALL`]. Control is there until its end.
    lanes: [Option<Reader>; Lane::ALL.len()],
    opening: Option<BoxFuture<'static, Opened>>,
    /// How many lanes the peer may still open.
    unopened: usize,
    answers: Answers,
    pings: Pings,
    /// Our own pings are not answered any more once this is gone.
    ending: Option<Ending>,
    max_frame: usize,
    ended: bool,
}

impl Frames {
    pub(super) fn new(
        connection: Connection,
        rx: Reader,
        control: Control,
        pings: Pings,
        max_frame: usize,
    ) -> Self {
        Self {
            opening: Some(opening(connection.clone())),
            unopened: Lane::ALL.len() - 1,
            connection,
            lanes: [Some(rx), None, None],
            answers: Answers::new(control),
            ending: Some(pings.ending()),
            pings,
            max_frame,
            ended: false,
        }
    }

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
        // Whoever asks for a frame has taken the one before it.
        self.answers.poll_given(cx);
        for (lane, place) in Lane::ALL.into_iter().zip(&mut self.lanes) {
            let mut records = 0;
            while let Some(reader) = place {
                match reader.poll_next(cx, self.max_frame)? {
                    Poll::Pending => break,
                    Poll::Ready(Some((kind @ (hello::TEXT | hello::BINARY), payload))) => {
                        self.answers.give(lane);
                        let frame =
                            if kind == hello::TEXT { Frame::text(payload) } else { Frame::binary(payload) };
                        return Poll::Ready(Some(Ok(frame.in_lane(lane))));
                    }
                    Poll::Ready(Some((kind, payload))) => {
                        note(lane, kind, &payload, &mut self.answers, &self.pings)?;
                        records += 1;
                    }
                    Poll::Ready(None) => {
                        *place = None;
                        self.ended |= lane == Lane::Control;
                    }
                }
                if records == AT_A_GO {
                    // Whoever pings without end holds up no other task.
                    cx.waker().wake_by_ref();
                    break;
                }
            }
        }
        self.answers.poll_given(cx);
        // Before it ends control, the peer has seen to it that all of the other lanes is here.
        let is_over = |this: &Self| this.ended && this.lanes.iter().all(Option::is_none);
        if !is_over(self) {
            return Poll::Pending;
        }
        // Here, which is not to say that it was when this turn began.
        self.poll_opened(cx)?;
        if is_over(self) {
            return Poll::Ready(None);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Takes in what is no frame.
fn note(
    lane: Lane,
    kind: u8,
    payload: &[u8],
    answers: &mut Answers,
    pings: &Pings,
) -> Result<(), TransportError> {
    let wrong = || protocol("a ping or a pong of another form");
    match kind {
        hello::PING if lane == Lane::Control => answers.asked(Asked::of(payload).ok_or_else(wrong)?),
        hello::PONG if lane == Lane::Control => pings.answered(hello::number(payload).ok_or_else(wrong)?),
        hello::HEARD if lane == Lane::Control => pings.heard(),
        _ => return Err(protocol("a frame of a kind that is not known")),
    }
    Ok(())
}

impl Stream for Frames {
    type Item = Result<Frame, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ending.is_none() {
            return Poll::Ready(None);
        }
        let frame = ready!(self.poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.ending = None;
        }
        Poll::Ready(frame)
    }
}
