//! WebSocket over bytes in memory that break where they are told to.

use std::{
    io::{Error, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures::task::AtomicWaker;
use kubeedge_core::transport::{
    Credentials, Endpoint, Limits, Link, Listener, Peer, Transport, TransportError,
};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::{WebSocket, WebSocketSettings, link};
use crate::doors::Doors;

/// How many bytes a link holds each way before its writer waits.
const DEPTH: usize = 64 << 10;

/// A direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the dialler to the listener.
    Out,
    /// From the listener to the dialler.
    Back,
}

impl Way {
    fn of<T>(self, both: &mut [T; 2]) -> &mut T {
        let [out, back] = both;
        match self {
            Self::Out => out,
            Self::Back => back,
        }
    }
}

/// A network of its own, for tests of what stands on a link: the frames are WebSocket's, without TLS and
/// without the upgrade, and a link can be broken after any byte. What was carried the cut way before it is
/// still read; what was under way the other way is lost, as when TCP resets a connection.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    doors: Doors,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    cut: Option<(Way, u64)>,
    last: Option<Arc<Line>>,
}

impl Wire {
    /// A new, empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next link that is made breaks when so many bytes have gone this way. Those after it hold.
    pub fn cut_next(&self, way: Way, after: u64) {
        self.state.lock().cut = Some((way, after));
    }

    /// Whether the next link is to be cut.
    pub fn will_cut(&self) -> bool {
        self.state.lock().cut.is_some()
    }

    /// How many bytes the link made last has carried this way.
    pub fn carried(&self, way: Way) -> u64 {
        let last = self.state.lock().last.clone();
        last.map_or(0, |line| *way.of(&mut line.traffic.lock().carried))
    }

    async fn join(end: End, role: Role) -> impl FnOnce(Peer) -> Link {
        let websocket = WebSocket::new(WebSocketSettings::default());
        let max_frame = websocket.limits().max_frame;
        let socket = WebSocketStream::from_raw_socket(end, role, Some(websocket.config())).await;
        move |peer| link::join(socket, peer, max_frame)
    }
}

#[derive(Debug, Default)]
struct Traffic {
    carried: [u64; 2],
    cut: Option<(Way, u64)>,
    /// The way that was cut.
    broken: Option<Way>,
}

/// What both ends of a link share.
#[derive(Debug, Default)]
struct Line {
    traffic: Mutex<Traffic>,
    /// Readers and writers of both ends.
    wakers: [AtomicWaker; 4],
}

impl Line {
    /// How many of these bytes may go; none when the link is broken.
    fn allow(&self, way: Way, wanted: usize) -> Option<usize> {
        let mut traffic = self.traffic.lock();
        if traffic.broken.is_some() {
            return None;
        }
        let cut = traffic.cut;
        match cut {
            Some((cut, after)) if cut == way => {
                let left = after.saturating_sub(*way.of(&mut traffic.carried));
                Some(wanted.min(usize::try_from(left).unwrap_or(usize::MAX)))
            }
            _ => Some(wanted),
        }
    }

    /// Notes what went, and breaks the link where it is to be broken.
    fn went(&self, way: Way, bytes: usize) {
        let mut traffic = self.traffic.lock();
        let carried = way.of(&mut traffic.carried);
        *carried += bytes as u64;
        let carried = *carried;
        if traffic.cut.is_some_and(|(cut, after)| cut == way && carried >= after) {
            traffic.broken = Some(way);
            drop(traffic);
            self.wakers.iter().for_each(AtomicWaker::wake);
        }
    }
}

/// One end of a link's bytes.
#[derive(Debug)]
struct End {
    inner: DuplexStream,
    line: Arc<Line>,
    /// The way this end writes.
    way: Way,
}

impl End {
    fn register(&self, cx: &Context<'_>, writes: bool) {
        let [out_reads, out_writes, back_reads, back_writes] = &self.line.wakers;
        let waker = match (self.way, writes) {
            (Way::Out, false) => out_reads,
            (Way::Out, true) => out_writes,
            (Way::Back, false) => back_reads,
            (Way::Back, true) => back_writes,
        };
        waker.register(cx.waker());
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.register(cx, false);
        let broken = self.line.traffic.lock().broken;
        let reset = || Poll::Ready(Err(Error::from(ErrorKind::ConnectionReset)));
        if broken == Some(self.way) {
            return reset();
        }
        match Pin::new(&mut self.inner).poll_read(cx, into) {
            Poll::Pending if broken.is_some() => reset(),
            read => read,
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.register(cx, true);
        let (way, line) = (self.way, self.line.clone());
        let Some(allowed) = line.allow(way, bytes.len()) else {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        };
        let part = bytes.get(..allowed).unwrap_or_default();
        if part.is_empty() && !bytes.is_empty() {
            line.went(way, 0);
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, part);
        if let Poll::Ready(Ok(written)) = &written {
            line.went(way, *written);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Transport for Wire {
    fn scheme(&self) -> &'static str {
        "wire"
    }

    fn limits(&self) -> Limits {
        WebSocket::default().limits()
    }

    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        let line = Arc::<Line>::default();
        let (near, far) = tokio::io::duplex(DEPTH);
        let near = End { inner: near, line: line.clone(), way: Way::Out };
        let far = End { inner: far, line: line.clone(), way: Way::Back };
        let far = Self::join(far, Role::Server).await;
        line.traffic.lock().cut = self.state.lock().cut;
        self.doors.knock(to, who, far).await?;
        *self.state.lock() = State { cut: None, last: Some(line) };
        Ok(Self::join(near, Role::Client).await(Peer::default()))
    }

    async fn listen(&self, on: &Endpoint, _: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        self.doors.listen(on)
    }
}
