//! The vendor's codec of `custom-codec`: both ends agree on it, and a Go peer never notices.
#![allow(clippy::unwrap_used)]

#[path = "../custom-codec/numbered.rs"]
mod numbered;

use kubeedge_core::{
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    transport::Peer,
    wire::{Codec, GoJson},
};
use numbered::Numbered;

fn message(resource: &str) -> Message {
    Message::new(ModuleName::of("acme"), Operation::UPDATE, resource)
        .in_group(Group::of("acme"))
        .with(Content::text("23.5"))
}

/// What the cloud says to an edge that has made this offer.
fn codec_for(offer: Option<(&str, &str)>) -> std::sync::Arc<dyn Codec> {
    let claims = offer.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Numbered::default().for_link(&Peer::default().with_claims(claims)).unwrap()
}

#[test]
fn peers_that_offer_the_codec_get_numbered_frames() {
    let (cloud, edge) = (codec_for(Numbered::default().offer()), Numbered::default());
    let first = cloud.encode(&message("boiler")).unwrap();
    assert_ne!(first.payload, GoJson.encode(&message("boiler")).unwrap().payload);
    assert_eq!(edge.decode(first).unwrap().route.resource, "boiler");
    assert_eq!(edge.missing(), 0);
}

#[test]
fn a_gap_in_the_numbers_is_counted() {
    let (cloud, edge) = (codec_for(Numbered::default().offer()), Numbered::default());
    let frames: Vec<_> = (0..4).map(|_| cloud.encode(&message("boiler")).unwrap()).collect();
    for frame in [frames.first(), frames.last()].into_iter().flatten() {
        edge.decode(frame.clone()).unwrap();
    }
    assert_eq!(edge.missing(), 2);
}

#[test]
fn a_peer_without_the_offer_gets_gos_json() {
    let message = message("boiler");
    let frame = codec_for(None).encode(&message).unwrap();
    assert_eq!(frame.payload, GoJson.encode(&message).unwrap().payload);
}
