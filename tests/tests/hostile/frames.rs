//! Frames of a WebSocket that promise what they do not keep, or never end.

use std::io::Write;

use crate::{
    Place,
    raw::{Raw, ended, frame, head, pour, upgraded},
};

const TEXT: u8 = 0x01;
const MORE: u8 = 0x00;
const PING: u8 = 0x89;
const LAST: u8 = 0x80;

fn link(place: &Place, node: &str) -> Raw {
    upgraded(place.cloud.doors()[0], &place.identity(node), &head("/p/n/events", "node_id", node))
}

#[test]
fn a_declared_length_of_gigabytes_ends_its_own_session_before_a_byte_is_held() {
    let Some(mut place) = Place::start() else { return };
    let said = place.cloud.said();
    for length in [1 << 25, 1 << 32, 1 << 62, u64::MAX] {
        let mut raw = link(&place, "raw");
        raw.write_all(&frame(TEXT | LAST, length, b"{")).unwrap();
        assert!(ended(&mut raw), "a frame of {length} bytes was waited for");
        place.bystander_is_served(3);
    }
    // Within the limit, but it never comes: nothing is held for it beyond what came.
    let mut waiting: Vec<_> = (0..8).map(|at| link(&place, &format!("raw-{at}"))).collect();
    for raw in &mut waiting {
        raw.write_all(&frame(TEXT | LAST, 16 << 20, b"{")).unwrap();
    }
    place.bystander_is_served(20);
    place.memory_is_bounded("promises of 16 MiB");
    place.few_lines(&said, 40, "declared lengths");
}

#[test]
fn a_message_of_endless_fragments_is_cut_at_the_limit() {
    let Some(mut place) = Place::start() else { return };
    let mut raw = link(&place, "raw");
    raw.write_all(&frame(TEXT, 1, b"{")).unwrap();
    pour(&mut raw, &frame(MORE, 4096, &[b' '; 4096]), 18 << 20);
    assert!(ended(&mut raw), "fragments went on");
    place.bystander_is_served(3);
    place.memory_is_bounded("endless fragments");
    // Fragments with next to nothing in them cost their sender as much as us.
    for piece in [&b" "[..], b""] {
        let mut raw = link(&place, "raw");
        raw.write_all(&frame(TEXT, 1, b"{")).unwrap();
        pour(&mut raw, &frame(MORE, piece.len() as u64, piece).repeat(1000), 1 << 20);
        place.bystander_is_served(10);
        place.memory_is_bounded("tiny fragments");
    }
}

#[test]
fn a_flood_of_pings_from_a_peer_that_never_reads_holds_nothing_and_nobody() {
    let Some(mut place) = Place::start() else { return };
    let said = place.cloud.said();
    let mut raw = link(&place, "raw");
    raw.sock.set_write_timeout(Some(std::time::Duration::from_secs(3))).unwrap();
    pour(&mut raw, &frame(PING, 125, &[b'x'; 125]).repeat(100), 32 << 20);
    place.bystander_is_served(20);
    place.memory_is_bounded("pings");
    place.few_lines(&said, 20, "pings");
}
