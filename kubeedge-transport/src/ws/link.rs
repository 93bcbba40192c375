//! An established WebSocket as a link, over any byte stream.

use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    SinkExt, StreamExt, future,
    stream::{self, SplitSink},
};
use kubeedge_core::{
    failure::Failure,
    transport::{Frame, FrameSink, Lanes, Link, LinkHealth, Peer, Pong, TransportError, TransportKind},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, Utf8Bytes, error::ProtocolError},
};

use crate::{pings::Pings, tls};

/// What an error of the WebSocket layer means.
pub(super) fn failure(doing: &'static str, error: Error) -> TransportError {
    let kind = match &error {
        Error::ConnectionClosed | Error::AlreadyClosed => TransportKind::Closed,
        Error::Io(io) => tls::kind_of(io),
        Error::Capacity(_) => TransportKind::TooLarge,
        // Go closes the socket without a word.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::HandshakeIncomplete) => {
            TransportKind::Closed
        }
        _ => TransportKind::Protocol,
    };
    Failure::new(kind, doing).because(error)
}

struct Sink<S> {
    inner: SplitSink<WebSocketStream<S>, Message>,
    pings: Pings,
    max_frame: usize,
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Sink<S> {
    fn message(&self, frame: Frame) -> Result<Message, TransportError> {
        let size = frame.payload.len();
        if size > self.max_frame {
            let size = format!("{size} of at most {} bytes", self.max_frame);
            return Err(Failure::new(TransportKind::TooLarge, "sending a frame").on(size));
        }
        if self.closed {
            return Err(Failure::new(TransportKind::Closed, "sending a frame"));
        }
        if !frame.text {
            return Ok(Message::Binary(frame.payload));
        }
        let text = Utf8Bytes::try_from(frame.payload);
        text.map(Message::Text)
            .map_err(|error| Failure::new(TransportKind::NotText, "sending a frame").because(error))
    }
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> FrameSink for Sink<S> {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        let message = self.message(frame)?;
        self.inner.send(message).await.map_err(|error| failure("sending a frame", error))
    }

    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
        let message = self.message(frame)?;
        self.inner.feed(message).await.map_err(|error| failure("sending a frame", error))
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.inner.flush().await.map_err(|error| failure("sending frames", error))
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        match self.inner.close().await {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(()),
            Err(error) => Err(failure("closing a link", error)),
        }
    }

    fn health(&mut self) -> Option<&mut dyn LinkHealth> {
        Some(self)
    }

    fn lanes(&mut self) -> Option<&mut dyn Lanes> {
        None
    }
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> LinkHealth for Sink<S> {
    async fn ping(&mut self) -> Result<Pong, TransportError> {
        if self.closed {
            return Err(Failure::new(TransportKind::Closed, "sending a ping"));
        }
        let (number, pong) = self.pings.next();
        let ping = Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes()));
        self.inner.send(ping).await.map_err(|error| failure("sending a ping", error))?;
        Ok(pong)
    }

    fn last_sign(&mut self) -> Option<Instant> {
        None
    }
}

/// Makes a link of a WebSocket whose handshake is done, over any stream of bytes: a TLS socket, or a
/// simulated network's. `max_frame` is the largest payload in bytes that is sent; what is received is limited
/// by the socket's own settings.
pub fn join<S>(socket: WebSocketStream<S>, peer: Peer, max_frame: usize) -> Link
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (tx, rx) = socket.split();
    let pings = Pings::default();
    let (answered, mut ending) = (pings.clone(), Some(pings.ending()));
    let frames = rx.filter_map(move |message| {
        future::ready(match message {
            Ok(Message::Text(text)) => Some(Ok(Frame::text(text))),
            Ok(Message::Binary(payload)) => Some(Ok(Frame::binary(payload))),
            Ok(Message::Pong(payload)) => {
                // What is no number of ours answers none of our pings.
                if let Ok(number) = payload.as_ref().try_into().map(u64::from_be_bytes) {
                    answered.answered(number);
                }
                None
            }
            Ok(_) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            Err(error) => Some(Err(failure("receiving a frame", error))),
        })
    });
    // Nothing comes after an error.
    let frames = frames.scan(false, |over, frame| {
        if std::mem::replace(over, frame.is_err()) { future::ready(None) } else { future::ready(Some(frame)) }
    });
    let frames = frames.chain(stream::poll_fn(move |_| {
        drop(ending.take());
        Poll::Ready(None)
    }));
    Link::new(peer, Sink { inner: tx, pings, max_frame, closed: false }, frames.boxed())
}
