//! The conformance kit over the transports that need no network.

use std::sync::Arc;

use futures::StreamExt;
use kubeedge_core::{
    conformance::transport::Harness,
    transport::{Credentials, Endpoint, Frame, Transport, TransportKind},
};
use kubeedge_transport::{Faults, Faulty, Memory, Way, Wire};

fn harness(transport: impl Transport) -> Harness {
    let (server, client) = (Credentials::default(), Credentials::default());
    Harness { transport: Arc::new(transport), listen: Endpoint::from("cloud"), server, client }
}

mod memory {
    kubeedge_core::transport_conformance!(super::harness(super::Memory::new()));
}

mod a_wrapper_without_faults {
    kubeedge_core::transport_conformance!(super::harness(super::Faulty::new(super::Memory::new(), 1)));
}

mod bytes_in_memory {
    kubeedge_core::transport_conformance!(super::harness(super::Wire::new()));
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
