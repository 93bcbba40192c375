//! Pings: what they prove, with whom, and what they cost. The kit has more.

use futures::FutureExt;

use super::*;

/// Lets a raw dialler in that says so much, and checks the welcome.
async fn entered(
    listener: &mut Box<dyn Listener>,
    to: &Endpoint,
    site: &Certificates,
    can: &str,
) -> (quinn::Connection, quinn::SendStream, quinn::RecvStream, Link) {
    let connection = raw(to, &site.client, ALPN).await.unwrap();
    let (mut tx, mut rx) = connection.open_bi().await.unwrap();
    let said = if can.is_empty() { "/".to_owned() } else { format!("/\ntransport-can: {can}") };
    tx.write_chunk(hello::framed(hello::HELLO, said.as_bytes())).await.unwrap();
    let link = listener.next().await.unwrap().accept().await.unwrap();
    assert_eq!(link.peer.claims, [], "what is the transport's own is no claim");
    let welcome = if can.is_empty() { "" } else { "ping" };
    assert_eq!(record(&mut rx).await, (hello::WELCOME, welcome.as_bytes().to_vec()));
    (connection, tx, rx, link)
}

async fn record(rx: &mut quinn::RecvStream) -> (u8, Vec<u8>) {
    let mut head = [0; hello::HEAD];
    rx.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes(head[1..].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    rx.read_exact(&mut payload).await.unwrap();
    (head[0], payload)
}

fn answer(kind: u8, number: u64) -> (u8, Vec<u8>) {
    (kind, number.to_be_bytes().to_vec())
}

#[tokio::test]
async fn both_sides_have_pings_whatever_the_settings() {
    for settings in [
        QuicSettings::default(),
        QuicSettings { shared_socket: true, ..QuicSettings::default() },
        QuicSettings { streams: 1, ..QuicSettings::default() },
    ] {
        let (mut near, mut far, _door) = pair(&Quic::new(settings), &site()).await;
        let pongs =
            [near.tx.health().unwrap().ping().await.unwrap(), far.tx.health().unwrap().ping().await.unwrap()];
        let answered = futures::future::try_join_all(pongs);
        tokio::select! {
            answered = answered => drop(answered.unwrap()),
            frame = near.rx.next() => panic!("{frame:?}"),
            frame = far.rx.next() => panic!("{frame:?}"),
        }
    }
}

#[tokio::test]
async fn a_ping_proves_that_the_frames_of_every_lane_were_taken() {
    let (quic, site) = (Quic::default(), site());
    let (mut near, mut far, _door) = pair(&quic, &site).await;
    let upload = Frame::binary(vec![1; 1 << 20]).in_lane(Lane::Bulk);
    near.tx.send(upload).await.unwrap();
    near.tx.send(Frame::text("twin").in_lane(Lane::Twins)).await.unwrap();
    let mut pong = near.tx.health().unwrap().ping().await.unwrap();
    let reading = tokio::spawn(async move { near.rx.next().await });
    let mut taken = Vec::new();
    while taken.len() < 2 {
        assert!(pong.as_mut().now_or_never().is_none(), "answered after {taken:?}");
        taken.push(far.rx.next().await.unwrap().unwrap().lane);
    }
    // The second is taken when the next is asked for.
    tokio::select! {
        answered = &mut pong => answered.unwrap(),
        frame = far.rx.next() => panic!("{frame:?}"),
    }
    reading.abort();
}

#[tokio::test]
async fn whoever_has_a_ping_and_waits_for_frames_before_it_says_so() {
    let (quic, site) = (Quic::default(), site());
    let (mut listener, to) = listening(&quic, &site).await;
    let (connection, mut tx, mut rx, mut link) = entered(&mut listener, &to, &site, "ping").await;
    let reading = tokio::spawn(async move {
        let upload = link.rx.next().await.unwrap().unwrap();
        (upload, link.rx.next().await)
    });
    tx.write_chunk(hello::ping(1, [0, 1])).await.unwrap();
    assert_eq!(record(&mut rx).await, answer(hello::HEARD, 1));
    let mut bulk = connection.open_uni().await.unwrap();
    bulk.write_all(&[2]).await.unwrap();
    bulk.write_chunk(hello::framed(hello::BINARY, b"upload")).await.unwrap();
    assert_eq!(record(&mut rx).await, answer(hello::PONG, 1));
    reading.abort();
}

#[tokio::test]
async fn word_that_a_ping_is_there_is_a_sign_of_life_and_no_pong() {
    let (quic, site) = (Quic::default(), site());
    let (mut listener, to) = listening(&quic, &site).await;
    let (_connection, mut tx, mut rx, mut link) = entered(&mut listener, &to, &site, "ping").await;
    let mut pong = link.tx.health().unwrap().ping().await.unwrap();
    assert_eq!((record(&mut rx).await.0, link.tx.health().unwrap().last_sign()), (hello::PING, None));
    tx.write_chunk(hello::answer(hello::HEARD, 1)).await.unwrap();
    tx.write_chunk(hello::framed(hello::TEXT, b"behind it")).await.unwrap();
    assert_eq!(link.rx.next().await.unwrap().unwrap(), Frame::text("behind it"));
    assert!(link.tx.health().unwrap().last_sign().is_some());
    assert!(pong.as_mut().now_or_never().is_none());
    tx.write_chunk(hello::answer(hello::PONG, 1)).await.unwrap();
    tokio::select! {
        answered = pong => answered.unwrap(),
        frame = link.rx.next() => panic!("{frame:?}"),
    }
}

#[tokio::test]
async fn an_older_dialler_is_asked_for_no_pong() {
    let (quic, site) = (Quic::default(), site());
    let (mut listener, to) = listening(&quic, &site).await;
    let (_connection, mut tx, mut rx, mut link) = entered(&mut listener, &to, &site, "").await;
    assert!(link.tx.health().is_none());
    link.tx.send(Frame::text("to an older one")).await.unwrap();
    assert_eq!(record(&mut rx).await, (hello::TEXT, b"to an older one".to_vec()));
    tx.write_chunk(hello::framed(hello::TEXT, b"from an older one")).await.unwrap();
    assert_eq!(link.rx.next().await.unwrap().unwrap(), Frame::text("from an older one"));
}

#[tokio::test]
async fn an_older_listener_lets_us_in_and_is_asked_for_no_pong() {
    let (quic, site) = (Quic::default(), site());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = endpoint(socket, Some(quic.server_config(&site.server).unwrap())).unwrap();
    let to = Endpoint::from(server.local_addr().unwrap());
    let serve = async {
        let connection = server.accept().await.unwrap().await.unwrap();
        let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
        let (kind, said) = record(&mut rx).await;
        assert_eq!((kind, said.starts_with(b"/")), (hello::HELLO, true));
        // As the first version had it.
        tx.write_all(&[3, 0, 0, 0, 0]).await.unwrap();
        (connection, tx, rx)
    };
    let (near, (_connection, _tx, mut rx)) = tokio::join!(quic.dial(&to, &site.client), serve);
    let mut near = near.unwrap();
    assert!(near.tx.health().is_none());
    near.tx.send(Frame::text("hello")).await.unwrap();
    assert_eq!(record(&mut rx).await, (hello::TEXT, b"hello".to_vec()));
}

#[tokio::test]
async fn pings_without_end_are_answered_by_few_pongs_and_hold_up_no_frame() {
    let (quic, site) = (Quic::default(), site());
    let (mut listener, to) = listening(&quic, &site).await;
    let (_connection, mut tx, mut rx, mut link) = entered(&mut listener, &to, &site, "ping").await;
    // Half of them wait for a frame that never comes. Nothing reads the answers meanwhile.
    let pings: Vec<u8> = (1..=100_000).flat_map(|n| hello::ping(n, [0, n % 2])).collect();
    let flood = async {
        tx.write_all(&pings).await.unwrap();
        tx.write_chunk(hello::framed(hello::TEXT, b"pod")).await.unwrap();
    };
    let ((), frame) = tokio::join!(flood, link.rx.next());
    assert_eq!(frame.unwrap().unwrap(), Frame::text("pod"));
    link.tx.send(Frame::text("the end")).await.unwrap();
    let mut answers = 0;
    while record(&mut rx).await.0 != hello::TEXT {
        answers += 1;
    }
    assert!(answers < 50_000, "{answers} answers");
}

#[tokio::test]
async fn a_ping_of_another_form_ends_the_link() {
    let (quic, site) = (Quic::default(), site());
    let (mut listener, to) = listening(&quic, &site).await;
    for wrong in [
        hello::framed(hello::PING, b""),
        hello::framed(hello::PING, &[0; 25]),
        hello::framed(hello::PONG, &[0; 7]),
        hello::framed(hello::HELLO, b"/"),
    ] {
        let (_connection, mut tx, _rx, mut link) = entered(&mut listener, &to, &site, "ping").await;
        tx.write_chunk(wrong.clone()).await.unwrap();
        assert_eq!(link.rx.next().await.unwrap().unwrap_err().kind(), TransportKind::Protocol, "{wrong:?}");
    }
}
