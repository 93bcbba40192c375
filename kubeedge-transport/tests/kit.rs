//! The conformance kit over the transports that need no network.

use async_trait::async_trait;
use futures::StreamExt;
use kubeedge_core::{
    conformance::transport::{self as kit, Ability, Harness},
    transport::{
        Credentials, Endpoint, Frame, FrameSink, Lanes, LinkHealth, Transport, TransportError, TransportKind,
        each_link,
    },
};
use kubeedge_transport::{Faults, Faulty, Memory, Way, Wire};

/// Links in memory have one order and no buffer.
fn memory(transport: impl Transport) -> Harness {
    Harness::new(transport, "cloud").without(Ability::Lanes).without(Ability::Batches)
}

fn wire(transport: impl Transport) -> Harness {
    Harness::new(transport, "cloud").without(Ability::Lanes)
}

mod in_memory {
    kubeedge_core::transport_conformance!(super::memory(super::Memory::new()));
}

mod bytes_in_memory {
    kubeedge_core::transport_conformance!(super::wire(super::Wire::new()));
}

mod a_wrapper_without_faults {
    kubeedge_core::transport_conformance!(super::wire(super::Faulty::new(super::Wire::new(), 1)));
}

#[tokio::test]
async fn a_link_breaks_after_the_byte_it_is_told_to_and_the_next_one_holds() {
    let network = Wire::new();
    let (at, who) = (Endpoint::from("cloud"), Credentials::default());
    let mut listener = network.listen(&at, &who).await.unwrap();
    // A frame of 10 bytes from the dialler: 2 of head, 4 of mask.
    for (after, arrives) in [(0, 0), (15, 0), (16, 1), (31, 1), (32, 2), (40, 2)] {
        network.cut_next(Way::Out, after);
        let accept = async { listener.next().await.unwrap().accept().await.unwrap() };
        let (near, mut far) = tokio::join!(network.dial(&at, &who), accept);
        let mut near = near.unwrap();
        let send = async { while near.tx.send(Frame::binary(vec![1; 10])).await.is_ok() {} };
        let receive = async {
            let mut frames = 0;
            while let Some(Ok(_)) = far.rx.next().await {
                frames += 1;
            }
            frames
        };
        let ((), frames) = tokio::join!(send, receive);
        assert_eq!((frames, network.carried(Way::Out)), (arrives, after));
        assert!(near.rx.next().await.is_none_or(|frame| frame.is_err()));
    }
    let accept = async { listener.next().await.unwrap().accept().await.unwrap() };
    let (near, mut far) = tokio::join!(network.dial(&at, &who), accept);
    let mut near = near.unwrap();
    for _ in 0..100 {
        near.tx.send(Frame::text("holds")).await.unwrap();
        assert_eq!(far.rx.next().await.unwrap().unwrap(), Frame::text("holds"));
    }
}

#[tokio::test]
async fn faults_drop_cut_and_hide_as_told() {
    let network = Faulty::new(Memory::new(), 7);
    let (at, who) = (Endpoint::from("cloud"), Credentials::default());
    let mut listener = network.listen(&at, &who).await.unwrap();
    let accept = async { listener.next().await.unwrap().accept().await.unwrap() };
    let (near, _far) = tokio::join!(network.dial(&at, &who), accept);
    let mut near = near.unwrap();
    network.set(Faults { drop: 1.0, ..Faults::default() });
    for _ in 0..100 {
        near.tx.send(Frame::text("lost")).await.unwrap();
    }
    network.set(Faults { cut_after: Some(100), unreachable: true, ..Faults::default() });
    assert_eq!(near.tx.send(Frame::text("cut")).await.unwrap_err().kind(), TransportKind::Closed);
    assert_eq!(network.dial(&at, &who).await.unwrap_err().kind(), TransportKind::Unreachable);
}

#[tokio::test]
async fn fed_frames_wait_for_the_flush_behind_faults() {
    let wire = Wire::new();
    let network = Faulty::new(wire.clone(), 7);
    let (at, who) = (Endpoint::from("cloud"), Credentials::default());
    let mut listener = network.listen(&at, &who).await.unwrap();
    let accept = async { listener.next().await.unwrap().accept().await.unwrap() };
    let (near, mut far) = tokio::join!(network.dial(&at, &who), accept);
    let mut near = near.unwrap();
    for _ in 0..10 {
        near.tx.feed(Frame::text("fed")).await.unwrap();
    }
    assert_eq!(wire.carried(Way::Out), 0, "each frame was pushed out by itself");
    near.tx.flush().await.unwrap();
    for _ in 0..10 {
        assert_eq!(far.rx.next().await.unwrap().unwrap(), Frame::text("fed"));
    }
    network.set(Faults { cut_after: Some(10), ..Faults::default() });
    assert_eq!(near.tx.feed(Frame::text("cut")).await.unwrap_err().kind(), TransportKind::Closed);
}

/// A wrapper that loses one ability of what it wraps.
struct Losing {
    inner: Box<dyn FrameSink>,
    lost: Ability,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl FrameSink for Losing {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.inner.send(frame).await
    }
    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
        if self.lost == Ability::Batches {
            self.inner.send(frame).await
        } else {
            self.inner.feed(frame).await
        }
    }
    async fn flush(&mut self) -> Result<(), TransportError> {
        self.inner.flush().await
    }
    async fn close(&mut self) -> Result<(), TransportError> {
        self.inner.close().await
    }
    fn health(&mut self) -> Option<&mut dyn LinkHealth> {
        if self.lost == Ability::Pings { None } else { self.inner.health() }
    }
    fn lanes(&mut self) -> Option<&mut dyn Lanes> {
        if self.lost == Ability::Lanes { None } else { self.inner.lanes() }
    }
}

fn losing(inner: impl Transport, lost: Ability) -> impl Transport {
    each_link(inner, move |link| link.with_sink(|inner| Losing { inner, lost }))
}

#[tokio::test]
#[should_panic(expected = "the link has no pings")]
async fn a_wrapper_that_loses_pings_fails_the_kit() {
    kit::both_ends_can_what_the_harness_says(wire(losing(Wire::new(), Ability::Pings))).await;
}

#[tokio::test]
#[should_panic(expected = "a frame that was fed went out by itself")]
async fn a_wrapper_that_loses_batches_fails_the_kit() {
    kit::fed_frames_wait_for_the_flush(wire(losing(Wire::new(), Ability::Batches))).await;
}

#[cfg(feature = "quic")]
#[tokio::test]
#[should_panic(expected = "the link has no lanes")]
async fn a_wrapper_that_loses_lanes_fails_the_kit() {
    let certificates = kubeedge_core::conformance::certificates::Certificates::new("edge-1");
    let quic = losing(kubeedge_transport::Quic::default(), Ability::Lanes);
    let harness =
        Harness::new(quic, "127.0.0.1:0").with_credentials(certificates.server, certificates.client);
    kit::both_ends_can_what_the_harness_says(harness).await;
}
