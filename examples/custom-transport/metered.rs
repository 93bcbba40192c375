//! A transport around any other that counts what crosses it, for whoever pays by the byte.
//!
//! A wrapper must forward every method of the seam: one that is forgotten takes an ability from the link,
//! such as its pings. The lint `clippy::missing_trait_methods` keeps it, and so does the conformance kit (see
//! `examples/tests/transport.rs`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use futures::StreamExt;
use kubeedge_core::transport::{Frame, FrameSink, Lanes, LinkHealth, Transport, TransportError, each_link};

/// Bytes of messages since the start. TLS, WebSocket and TCP add theirs.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Bytes that went out.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that came in.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// The transport, with the traffic of all its links counted.
pub(crate) fn metered(transport: impl Transport, traffic: Arc<Traffic>) -> impl Transport {
    each_link(transport, move |link| {
        let (out, back) = (traffic.clone(), traffic.clone());

        link.with_sink(|sink| Metered { sink, traffic: out }).with_frames(|frames| {
            let counted = frames.inspect(move |frame| {
                if let Ok(frame) = frame {
                    back.received.fetch_add(frame.payload.len() as u64, Ordering::Relaxed);
                }
            });
            counted.boxed()
        })
    })
}

/// The sending half of a link.
struct Metered {
    sink: Box<dyn FrameSink>,
    traffic: Arc<Traffic>,
}

impl Metered {
    fn count(&self, frame: &Frame) {
        self.traffic.sent.fetch_add(frame.payload.len() as u64, Ordering::Relaxed);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl FrameSink for Metered {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.count(&frame);
        self.sink.send(frame).await
    }

    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.count(&frame);
        self.sink.feed(frame).await
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.sink.flush().await
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        self.sink.close().await
    }

    fn health(&mut self) -> Option<&mut dyn LinkHealth> {
        self.sink.health()
    }

    fn lanes(&mut self) -> Option<&mut dyn Lanes> {
        self.sink.lanes()
    }
}
