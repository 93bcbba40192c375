//! The sending side of the control stream, which both halves of a link write into: one its frames, the other
//! its pongs.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use kubeedge_core::transport::TransportError;
use parking_lot::Mutex;
use quinn::SendStream;

use super::{CUT, unwritten};

/// Which half of a link waits for the stream to take more.
#[derive(Clone, Copy, Debug)]
pub(super) enum Half {
    Sending,
    Receiving,
}

/// A stream wakes one waiter: this one wakes both halves.
#[derive(Debug, Default)]
struct Wakers {
    sending: AtomicWaker,
    receiving: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.sending.wake();
        self.receiving.wake();
    }
}

struct State {
    stream: SendStream,
    /// What is still to be written, whole frames but for the first.
    pieces: Vec<Bytes>,
    /// How many bytes were queued since all was written last.
    queued: usize,
    /// Nothing more is written.
    over: bool,
}

/// See the module's text.
#[derive(Clone)]
pub(super) struct Control {
    state: Arc<Mutex<State>>,
    wakers: Arc<Wakers>,
}

impl Control {
    pub(super) fn new(stream: SendStream) -> Self {
        let state = State { stream, pieces: Vec::new(), queued: 0, over: false };
        Self { state: Arc::new(Mutex::new(state)), wakers: Arc::default() }
    }

    /// Puts a frame behind what waits to be written. How many bytes that is by now.
    pub(super) fn queue(&self, frame: impl FnOnce(&mut Vec<Bytes>)) -> usize {
        let mut state = self.state.lock();
        if state.over {
            return 0;
        }
        let before = state.pieces.len();
        frame(&mut state.pieces);
        state.queued += state.pieces.iter().skip(before).map(Bytes::len).sum::<usize>();
        state.queued
    }

    /// Writes what waits. Once it is over there is nothing to do.
    pub(super) fn poll_written(&self, cx: &mut Context<'_>, half: Half) -> Poll<Result<(), TransportError>> {
        let mut state = self.state.lock();
        let State { stream, pieces, queued, over } = &mut *state;
        if *over || pieces.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match half {
            Half::Sending => self.wakers.sending.register(cx.waker()),
            Half::Receiving => self.wakers.receiving.register(cx.waker()),
        }
        let both = Waker::from(self.wakers.clone());
        let mut cx = Context::from_waker(&both);
        while !pieces.is_empty() {
            // Nothing is lost with it before it is done.
            let written = {
                let writing = pin!(stream.write_chunks(pieces));
                ready!(writing.poll(&mut cx)).map_err(unwritten)?
            };
            pieces.drain(..written.chunks);
        }
        // An idle link holds no buffers.
        (*pieces, *queued) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// The same, to be awaited by the sending half. Cancel-safe.
    pub(super) async fn written(&self) -> Result<(), TransportError> {
        std::future::poll_fn(|cx| self.poll_written(cx, Half::Sending)).await
    }

    /// Ends the stream in order, and waits until the peer has all of it.
    pub(super) async fn finish(&self) -> Result<(), TransportError> {
        let stopped = {
            let mut state = self.state.lock();
            state.over = true;
            let _ = state.stream.finish();
            state.stream.stopped()
        };
        super::arrived(stopped).await
    }

    /// Cuts the stream off, unless it has ended: what ends before its time must not look like an end in
    /// order.
    pub(super) fn cut(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.over, true) {
            let _ = state.stream.reset(CUT);
        }
    }
}
