//! The vendor's transport of `custom-transport`, held to the kit of all transports.
#![allow(clippy::unwrap_used)]

#[path = "../custom-transport/metered.rs"]
mod metered;

use std::sync::Arc;

use futures::StreamExt;
use kubeedge_core::{
    conformance::transport::{Ability, Harness},
    transport::{Credentials, Endpoint, Frame, Transport},
};
use kubeedge_transport::Memory;
use metered::{Traffic, metered};

fn harness() -> Harness {
    Harness::new(metered(Memory::new(), Arc::default()), "anywhere")
        .without(Ability::Lanes)
        .without(Ability::Batches)
}

mod kit {
    kubeedge_core::transport_conformance!(super::harness());
}

#[tokio::test]
async fn traffic_is_counted_in_both_directions() {
    let traffic = Arc::<Traffic>::default();
    let transport = metered(Memory::new(), traffic.clone());
    let (here, nobody) = (Endpoint::from("here"), Credentials::default());
    let mut listener = transport.listen(&here, &nobody).await.unwrap();

    let accept = async { listener.next().await.unwrap().accept().await.unwrap() };
    let (near, mut far) = tokio::join!(transport.dial(&here, &nobody), accept);
    near.unwrap().tx.send(Frame::binary(vec![7; 100])).await.unwrap();
    far.rx.next().await.unwrap().unwrap();

    assert_eq!((traffic.sent(), traffic.received()), (100, 100));
}
