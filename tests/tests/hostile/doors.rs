//! Peers that do not get through a door, and keep others from nothing.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
};

use kubeedge_core::tunnel::{Connector, FrameKind, TunnelFrame};

use crate::{
    Place,
    bystander::Bystander,
    raw::{Raw, ended, frame, head, pour, tls, upgraded},
};

#[test]
fn those_who_begin_a_handshake_and_go_no_further_keep_nobody_out() {
    let Some(mut place) = Place::start() else { return };
    let said = place.cloud.said();
    let identity = place.identity("raw");
    let doors = place.cloud.doors();
    let mut slow: Vec<TcpStream> = Vec::new();
    let mut heads: Vec<Raw> = Vec::new();
    for door in [doors[0], doors[2]] {
        for at in 0..300 {
            let mut socket = TcpStream::connect(door).unwrap();
            // The beginning of a TLS record that promises 16 KiB, a piece of one, or nothing.
            let _ = socket.write_all([&b"\x16\x03\x01\x40\x00\x01"[..], b"\x16", b""][at % 3]);
            slow.push(socket);
        }
        // Through TLS, and then a request that never ends.
        for _ in 0..20 {
            let mut raw = tls(door, &identity, true);
            if raw.write_all(head("/p/n/events", "node_id", "raw").as_bytes()).is_ok() {
                heads.push(raw);
            }
        }
    }
    place.bystander_is_served(20);
    // A newcomer gets in beside them.
    let identity = place.identity("new");
    place.runtime.block_on(async {
        let mut new = Bystander::dial(doors[0], &identity, "new").await.unwrap();
        new.exchanges(3).await;
    });
    place.memory_is_bounded("slow handshakes");
    place.few_lines(&said, 60, "slow handshakes");
    drop((slow, heads));
}

#[test]
fn heads_that_are_huge_or_no_upgrade_are_refused() {
    let Some(mut place) = Place::start() else { return };
    let said = place.cloud.said();
    let identity = place.identity("raw");
    let [hub, _, tunnel] = place.cloud.doors();
    for door in [hub, tunnel] {
        let mut raw = tls(door, &identity, true);
        raw.write_all(head("/", "node_id", "raw").as_bytes()).unwrap();
        let taken =
            pour(&mut raw, "X-Padding: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(10).as_bytes(), 16 << 20);
        assert!(taken < 16 << 20 && ended(&mut raw), "a head of any length is taken");
        for bad in ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\n\r\n", "\r\n\r\n", "\u{0}\u{0}\r\n\r\n"] {
            let mut raw = tls(door, &identity, true);
            raw.write_all(bad.as_bytes()).unwrap();
            assert!(ended(&mut raw), "{bad:?}");
        }
    }
    place.bystander_is_served(10);
    place.memory_is_bounded("huge heads");
    place.few_lines(&said, 40, "huge heads");
}

fn tunnel(place: &Place, door: SocketAddr) -> Raw {
    let head = head("/v1/kubeedge/connect", "SessionHostNameOverride", "raw");
    upgraded(door, &place.identity("raw"), &head)
}

#[test]
fn frames_of_a_tunnel_that_nobody_asked_for_cost_nothing() {
    let Some(mut place) = Place::start() else { return };
    let (said, door) = (place.cloud.said(), place.cloud.doors()[2]);
    let connector = Connector { id: 1, ..Connector::default() };
    let frames = [
        TunnelFrame::data(7, vec![b'x'; 1000]),
        TunnelFrame::data(u64::MAX, vec![b'x'; 1000]),
        TunnelFrame::remove(9),
        TunnelFrame::open(FrameKind::EXEC, &connector),
        TunnelFrame::new(3, FrameKind(u64::MAX), "null"),
    ];
    let mut raw = tunnel(&place, door);
    for sent in &frames {
        let payload = sent.encode();
        pour(&mut raw, &frame(0x82, payload.len() as u64, &payload).repeat(50), 1 << 20);
    }
    place.bystander_is_served(5);
    // What is no frame ends this tunnel.
    for bad in [&[][..], &[0x80; 12], &[0xff]] {
        let mut raw = tunnel(&place, door);
        raw.write_all(&frame(0x82, bad.len() as u64, bad)).unwrap();
        assert!(ended(&mut raw), "{bad:?}");
    }
    place.bystander_is_served(5);
    place.memory_is_bounded("frames of a tunnel");
    place.few_lines(&said, 40, "frames of a tunnel");
}
