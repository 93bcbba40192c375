//! The conformance kit over the transports that need no network.

use std::sync::Arc;

use kubeedge_core::{
    conformance::transport::Harness,
    transport::{Credentials, Endpoint, Frame, Transport, TransportKind},
};
use kubeedge_transport::{Faults, Faulty, Memory};

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
