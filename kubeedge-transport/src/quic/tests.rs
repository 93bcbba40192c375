use std::{
    net::{IpAddr, UdpSocket},
    sync::Arc,
};

use futures::StreamExt;
use kubeedge_core::{
    conformance::{
        certificates::Certificates,
        transport::{Ability, Harness},
    },
    transport::{Frame, Link},
};

use super::*;

mod pings;

fn site() -> Certificates {
    Certificates::new("edge-1")
}

fn harness(transport: impl Transport) -> Harness {
    let Certificates { server, client, .. } = site();
    Harness::new(transport, "127.0.0.1:0").with_credentials(server, client)
}

mod kit {
    kubeedge_core::transport_conformance!(super::harness(super::Quic::default()));
}

mod kit_with_one_socket_for_all_links {
    fn shared() -> super::Quic {
        super::Quic::new(super::QuicSettings { shared_socket: true, ..super::QuicSettings::default() })
    }
    kubeedge_core::transport_conformance!(super::harness(shared()));
}

/// A peer that allows no stream beside the control stream.
mod kit_with_one_stream_for_all_lanes {
    fn narrow() -> super::Quic {
        super::Quic::new(super::QuicSettings { streams: 1, ..super::QuicSettings::default() })
    }
    kubeedge_core::transport_conformance!(super::harness(narrow()).without(super::Ability::Lanes));
}

async fn listening(quic: &Quic, site: &Certificates) -> (Box<dyn Listener>, Endpoint) {
    let listener = quic.listen(&Endpoint::from("127.0.0.1:0"), &site.server).await.unwrap();
    let to = listener.local();
    (listener, to)
}

async fn pair(quic: &Quic, site: &Certificates) -> (Link, Link, Box<dyn Listener>) {
    let (mut listener, to) = listening(quic, site).await;
    let accept = async { listener.next().await.unwrap().accept().await.unwrap() };
    let (near, far) = tokio::join!(quic.dial(&to, &site.client), accept);
    (near.unwrap(), far, listener)
}

async fn refused_by(server: Credentials, client: Credentials) -> TransportError {
    let quic = Quic::default();
    let mut listener = quic.listen(&Endpoint::from("127.0.0.1:0"), &server).await.unwrap();
    let to = listener.local();
    let serving = tokio::spawn(async move { drop(listener.next().await) });
    let error = quic.dial(&to, &client).await.unwrap_err();
    assert!(!serving.is_finished(), "the listener let the peer in");
    serving.abort();
    error
}

#[tokio::test]
async fn a_peer_without_a_certificate_of_our_authority_is_not_let_in() {
    let ours = site();
    let none = ours.client.clone().with_chain([]);
    assert_eq!(refused_by(ours.server.clone(), none).await.kind(), TransportKind::Untrusted);
    let foreign = site().client.with_roots([ours.authority.certificate().clone()]);
    assert_eq!(refused_by(ours.server, foreign).await.kind(), TransportKind::Untrusted);
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let (ours, other) = (site(), site());
    assert_eq!(refused_by(ours.server, other.client).await.kind(), TransportKind::Untrusted);
}

#[tokio::test]
async fn the_certificate_of_a_peer_is_shown_to_who_decides() {
    let (quic, site) = (Quic::default(), site());
    let (mut listener, to) = listening(&quic, &site).await;
    let check = async {
        let incoming = listener.next().await.unwrap();
        assert_eq!(incoming.peer().certificates, site.client.chain);
        incoming.accept().await.unwrap()
    };
    let (dialled, _accepted) = tokio::join!(quic.dial(&to, &site.client), check);
    assert_eq!(dialled.unwrap().peer.certificates, site.server.chain);
}

#[tokio::test]
async fn an_address_in_use_or_a_wrong_key_is_told_as_misconfiguration() {
    let (quic, site) = (Quic::default(), site());
    let (_listener, to) = listening(&quic, &site).await;
    let error = quic.listen(&to, &site.server).await.err().unwrap();
    assert_eq!(error.kind(), TransportKind::Misconfigured);
    let wrong = site.server.with_key(&b"junk"[..]);
    let error = quic.listen(&Endpoint::from("127.0.0.1:0"), &wrong).await.err().unwrap();
    assert_eq!(error.kind(), TransportKind::Misconfigured);
}

#[tokio::test]
async fn a_socket_nobody_reads_is_unreachable_within_the_time_for_an_answer() {
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dialling = tokio::time::Instant::now();
    let to = Endpoint::from(hole.local_addr().unwrap());
    let error = Quic::default().dial(&to, &site().client).await.unwrap_err();
    assert_eq!(error.kind(), TransportKind::Unreachable);
    assert!(dialling.elapsed() >= QuicSettings::default().answer, "it did not wait");
}

/// A link that this socket dials, and its connection.
async fn dialled(
    quic: &Quic,
    site: &Certificates,
    endpoint: &quinn::Endpoint,
    to: &Endpoint,
) -> (Link, quinn::Connection) {
    let config = quic.client_config(&site.client).unwrap();
    let address = to.authority().parse().unwrap();
    let connection = dial::shake(&quic.settings, endpoint, config, address, to).await.unwrap();
    let hello = hello::say(to, &site.client).unwrap();
    (dial::enter(connection.clone(), to, hello, quic.settings.max_frame).await.unwrap(), connection)
}

#[tokio::test]
async fn one_try_finds_the_largest_datagram() {
    let (quic, site) = (Quic::default(), site());
    let (mut listener, to) = listening(&quic, &site).await;
    let endpoint = dialling_endpoint(([127, 0, 0, 1], 0).into()).unwrap();
    let accept = async { listener.next().await.unwrap().accept().await.unwrap() };
    let ((mut near, connection), mut far) = tokio::join!(dialled(&quic, &site, &endpoint, &to), accept);
    while connection.stats().path.current_mtu < 1452 {
        near.tx.send(Frame::text("there")).await.unwrap();
        far.rx.next().await.unwrap().unwrap();
    }
    assert_eq!(connection.stats().path.sent_plpmtud_probes, 1);
}

#[tokio::test]
async fn a_dialler_whose_address_changes_keeps_its_link() {
    let (quic, site) = (Quic::default(), site());
    let (mut listener, to) = listening(&quic, &site).await;
    let endpoint = dialling_endpoint(([127, 0, 0, 1], 0).into()).unwrap();
    let dial = dialled(&quic, &site, &endpoint, &to);
    let accept = async { listener.next().await.unwrap().accept().await.unwrap() };
    let ((mut near, _), mut far) = tokio::join!(dial, accept);
    let before = endpoint.local_addr().unwrap();
    for round in 0..3 {
        near.tx.send(Frame::text(format!("{round}"))).await.unwrap();
        assert_eq!(far.rx.next().await.unwrap().unwrap(), Frame::text(format!("{round}")));
        far.tx.send(Frame::text("back")).await.unwrap();
        assert_eq!(near.rx.next().await.unwrap().unwrap(), Frame::text("back"));
        endpoint.rebind(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    }
    assert_ne!(endpoint.local_addr().unwrap(), before);
}

#[tokio::test]
async fn control_goes_past_uploads_that_wait_to_be_read() {
    let (quic, site) = (Quic::default(), site());
    let (mut near, mut far, _door) = pair(&quic, &site).await;
    let upload = Frame::binary(vec![1; 1 << 20]).in_lane(Lane::Bulk);
    near.tx.send(upload.clone()).await.unwrap();
    near.tx.send(upload).await.unwrap();
    assert!(
        !near.tx.lanes().unwrap().has_room(Lane::Bulk),
        "two uploads went out, and the window holds a quarter of one"
    );
    near.tx.send(Frame::text("pod")).await.unwrap();
    assert_eq!(far.rx.next().await.unwrap().unwrap(), Frame::text("pod"));
    for _ in 0..2 {
        assert_eq!(far.rx.next().await.unwrap().unwrap().lane, Lane::Bulk);
    }
    near.tx.lanes().unwrap().more_room().await;
    assert!(near.tx.lanes().unwrap().has_room(Lane::Bulk));
}

/// A connection that speaks our protocol as the test tells it.
async fn raw(to: &Endpoint, who: &Credentials, alpn: &[u8]) -> Result<quinn::Connection, ConnectionError> {
    let mut tls = Tls::default().client(who).unwrap();
    tls.alpn_protocols = if alpn.is_empty() { vec![] } else { vec![alpn.to_vec()] };
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let address = to.authority().parse().unwrap();
    let endpoint = dialling_endpoint(address).unwrap();
    endpoint.connect_with(quinn::ClientConfig::new(Arc::new(crypto)), address, "127.0.0.1").unwrap().await
}

#[tokio::test]
async fn who_speaks_another_protocol_over_quic_is_not_let_in() {
    let (quic, site) = (Quic::default(), site());
    let (_listener, to) = listening(&quic, &site).await;
    for alpn in [&b"h3"[..], b""] {
        let error = raw(&to, &site.client, alpn).await.unwrap_err();
        assert_eq!(kind_of(&error), TransportKind::Protocol, "{error}");
    }
}

#[tokio::test]
async fn what_is_no_hello_is_let_go_and_disturbs_no_other() {
    let (quic, site) = (Quic::default(), site());
    let (mut listener, to) = listening(&quic, &site).await;
    let mut wrong = Vec::new();
    for bytes in [&[2, 255, 255, 255, 255][..], &[2, 0, 0, 0, 1, b'x'], &[0, 0, 0, 0, 0], &[2, 0, 0], b""] {
        let connection = raw(&to, &site.client, ALPN).await.unwrap();
        let (mut tx, rx) = connection.open_bi().await.unwrap();
        tx.write_all(bytes).await.unwrap();
        tx.finish().unwrap();
        wrong.push((connection, rx));
    }
    let serve = async { listener.next().await.unwrap().accept().await.unwrap() };
    let (dialled, _accepted) = tokio::join!(quic.dial(&to, &site.client), serve);
    dialled.unwrap();
    for (connection, _rx) in &wrong[..4] {
        assert!(matches!(connection.closed().await, ConnectionError::ApplicationClosed(_)));
    }
}

/// Says hello by hand and is let in.
async fn by_hand(
    listener: &mut Box<dyn Listener>,
    to: &Endpoint,
    site: &Certificates,
) -> (quinn::Connection, quinn::SendStream, Link) {
    let connection = raw(to, &site.client, ALPN).await.unwrap();
    let (mut tx, mut rx) = connection.open_bi().await.unwrap();
    tx.write_all(b"\x02\x00\x00\x00\x01/").await.unwrap();
    let link = listener.next().await.unwrap().accept().await.unwrap();
    let mut welcome = [0; 5];
    rx.read_exact(&mut welcome).await.unwrap();
    assert_eq!(welcome, [3, 0, 0, 0, 0]);
    (connection, tx, link)
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_link_with_an_error_and_no_memory() {
    let (quic, site) = (Quic::default(), site());
    let (mut listener, to) = listening(&quic, &site).await;
    for (bytes, kind) in [
        (&[0, 255, 255, 255, 255][..], TransportKind::TooLarge),
        (&[9, 0, 0, 0, 0], TransportKind::Protocol),
        (&[0, 0, 0, 0, 9, 1], TransportKind::Protocol),
    ] {
        let (_connection, mut tx, mut link) = by_hand(&mut listener, &to, &site).await;
        tx.write_all(bytes).await.unwrap();
        tx.finish().unwrap();
        assert_eq!(link.rx.next().await.unwrap().unwrap_err().kind(), kind, "{bytes:?}");
        assert!(link.rx.next().await.is_none());
    }
    for streams in [&[7][..], &[1, 1]] {
        let (connection, _tx, mut link) = by_hand(&mut listener, &to, &site).await;
        let mut open = Vec::new();
        for id in streams {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(&[*id]).await.unwrap();
            open.push(stream);
        }
        assert_eq!(link.rx.next().await.unwrap().unwrap_err().kind(), TransportKind::Protocol, "{streams:?}");
    }
}

#[tokio::test]
async fn peers_who_say_nothing_give_up_their_places_to_those_who_wait() {
    let quic =
        Quic::new(QuicSettings { handshakes: 2, answer: Duration::from_secs(20), ..QuicSettings::default() });
    let site = site();
    let (mut listener, to) = listening(&quic, &site).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        // The handshake is done, and the hello does not come.
        silent.push(raw(&to, &site.client, ALPN).await.unwrap());
    }
    let serving = tokio::spawn(async move { listener.next().await.unwrap().accept().await.unwrap() });
    let dialled = tokio::time::timeout(Duration::from_secs(20), quic.dial(&to, &site.client)).await;
    dialled.expect("kept out by those who say nothing").unwrap();
    serving.await.unwrap();
    silent[0].closed().await;
}

/// First packets of so many diallers, who will never say more.
async fn first_packets(count: usize, who: &Credentials) -> Vec<Vec<u8>> {
    let hole = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = Endpoint::from(hole.local_addr().unwrap());
    let quic = Quic::new(QuicSettings { answer: Duration::from_secs(60), ..QuicSettings::default() });
    let mut packets = Vec::new();
    for _ in 0..count {
        let mut packet = vec![0; 2048];
        let size = tokio::select! {
            size = hole.recv(&mut packet) => size.unwrap(),
            dialled = quic.dial(&to, who) => panic!("{dialled:?}"),
        };
        packet.truncate(size);
        packets.push(packet);
    }
    packets
}

/// Dials from this address.
async fn dial_from(ip: [u8; 4], quic: &Quic, to: &Endpoint, who: &Credentials) -> Link {
    let from = endpoint(UdpSocket::bind((IpAddr::from(ip), 0)).unwrap(), None).unwrap();
    let (config, address) = (quic.client_config(who).unwrap(), to.authority().parse().unwrap());
    let connection = dial::shake(&quic.settings, &from, config, address, to).await.unwrap();
    let hello = hello::say(to, who).unwrap();
    dial::enter(connection, to, hello, quic.settings.max_frame).await.unwrap()
}

#[tokio::test]
async fn a_flood_of_half_handshakes_from_one_address_keeps_no_other_out() {
    let quic = Quic::new(QuicSettings {
        handshakes: 8,
        handshakes_of_one: 6,
        answer: Duration::from_secs(60),
        ..QuicSettings::default()
    });
    let site = site();
    let (mut listener, to) = listening(&quic, &site).await;
    let flood = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let packets = first_packets(300, &site.client).await;
    let mut silent = Vec::new();
    let mut let_in = Vec::new();
    for some in packets.chunks(60) {
        for packet in some {
            flood.send_to(packet, to.authority()).await.unwrap();
        }
        // Among them one who proves the address and the certificate, and says nothing then.
        let (door, who) = (to.clone(), site.client.clone());
        silent.push(tokio::spawn(async move {
            let _silent = raw(&door, &who, ALPN).await;
            std::future::pending::<()>().await;
        }));
        let serve = async { listener.next().await.unwrap().accept().await.unwrap() };
        let both = futures::future::join(dial_from([127, 0, 0, 2], &quic, &to, &site.client), serve);
        let began = tokio::time::Instant::now();
        let_in
            .push(tokio::time::timeout(Duration::from_secs(20), both).await.expect("kept out by the flood"));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
    for (mut near, mut far) in let_in {
        near.tx.send(Frame::text("in")).await.unwrap();
        assert_eq!(far.rx.next().await.unwrap().unwrap(), Frame::text("in"));
    }
    silent.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_address_that_nobody_proved_takes_half_of_the_places_at_most() {
    let settings = QuicSettings { handshakes: 8, handshakes_of_one: 8, ..QuicSettings::default() };
    let (quic, site) = (Quic::new(QuicSettings { answer: Duration::from_secs(60), ..settings }), site());
    let (mut listener, to) = listening(&quic, &site).await;
    // Every datagram with another address, as if forged.
    for (packet, n) in first_packets(100, &site.client).await.iter().zip(10..) {
        let forged = tokio::net::UdpSocket::bind((IpAddr::from([127, 0, 1, n]), 0)).await.unwrap();
        forged.send_to(packet, to.authority()).await.unwrap();
    }
    let serve = async { listener.next().await.unwrap().accept().await.unwrap() };
    let both = futures::future::join(dial_from([127, 0, 0, 2], &quic, &to, &site.client), serve);
    let began = tokio::time::Instant::now();
    both.await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_link_keeps_a_buffer_for_few_packets_however_much_it_sends() {
    use quinn::Runtime;
    let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let system = quinn::TokioRuntime.wrap_udp_socket(socket()).unwrap().max_transmit_segments();
    let ours = socket::frugal(socket()).unwrap().max_transmit_segments();
    assert!((1..=4).contains(&ours) && ours <= system, "{ours} of {system}");
}

#[tokio::test]
async fn a_peer_that_is_cut_off_is_noticed_by_both() {
    let quic = Quic::new(QuicSettings { idle: Duration::from_millis(500), ..QuicSettings::default() });
    let site = site();
    let (mut near, mut far, _door) = pair(&quic, &site).await;
    // Neither says anything, and no keep-alive is due.
    for link in [&mut near, &mut far] {
        assert_eq!(link.rx.next().await.unwrap().unwrap_err().kind(), TransportKind::Timeout);
    }
}

#[tokio::test]
async fn an_idle_link_is_kept_alive() {
    let settings = QuicSettings {
        idle: Duration::from_secs(2),
        keep_alive: Duration::from_millis(100),
        ..QuicSettings::default()
    };
    let (quic, site) = (Quic::new(settings), site());
    let (mut near, mut far, _door) = pair(&quic, &site).await;
    let silence = tokio::time::timeout(settings.idle * 2, far.rx.next()).await;
    assert!(silence.is_err(), "the link ended: {silence:?}");
    near.tx.send(Frame::text("still here")).await.unwrap();
    assert_eq!(far.rx.next().await.unwrap().unwrap(), Frame::text("still here"));
}
