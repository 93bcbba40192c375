use std::net::IpAddr;

use futures::StreamExt;
use kubeedge_core::{
    conformance::transport::Harness,
    pki::{Authority, Names, Usage},
    transport::Frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

mod security;

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64 - 60
}

struct Site {
    server: Credentials,
    client: Credentials,
}

fn site() -> (Authority, Site) {
    let ca = Authority::kubeedge(now()).unwrap();
    let names = Names { dns: vec!["localhost".into()], ips: vec![IpAddr::from([127, 0, 0, 1])] };
    let server = ca.issue_server(&names, now()).unwrap().credentials();
    let client =
        ca.issue("system:node:edge-1", &["system:nodes"], &Names::default(), Usage::Client, now(), 2);
    let client = client.unwrap().credentials();
    (ca, Site { server, client })
}

fn harness(transport: Arc<dyn Transport>) -> Harness {
    let (_, Site { server, client }) = site();
    Harness { transport, listen: Endpoint::from("127.0.0.1:0"), server, client }
}

mod kit {
    kubeedge_core::transport_conformance!(super::harness(std::sync::Arc::new(super::WebSocket::default())));
}

async fn refused(client: Credentials) -> TransportError {
    let (_, site) = site();
    refused_by(site.server, client).await
}

async fn refused_by(server: Credentials, client: Credentials) -> TransportError {
    let transport = WebSocket::default();
    let mut listener = transport.listen(&Endpoint::from("127.0.0.1:0"), &server).await.unwrap();
    let to = listener.local();
    let serving = tokio::spawn(async move {
        let _link = listener.next().await.unwrap().accept().await.unwrap();
        std::future::pending::<()>().await;
    });
    // With TLS 1.3 a client learns only from its first read that its certificate was not taken.
    let error = match transport.dial(&to, &client).await {
        Err(error) => error,
        Ok(mut link) => link.rx.next().await.unwrap().unwrap_err(),
    };
    assert!(!serving.is_finished(), "the listener let the peer in");
    serving.abort();
    error
}

#[tokio::test]
async fn a_peer_without_a_certificate_of_our_authority_is_not_let_in() {
    let (ca, ours) = site();
    let none = Credentials { chain: vec![], ..ours.client.clone() };
    assert_eq!(refused_by(ours.server.clone(), none).await.kind(), TransportKind::Untrusted);
    let (_, foreign) = site();
    let foreign = Credentials { roots: vec![ca.certificate().clone()], ..foreign.client };
    assert_eq!(refused_by(ours.server, foreign).await.kind(), TransportKind::Untrusted);
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let (_, other) = site();
    assert_eq!(refused(other.client).await.kind(), TransportKind::Untrusted);
}

#[tokio::test]
async fn the_certificate_of_a_peer_is_shown_to_who_decides() {
    let (_, site) = site();
    let transport = WebSocket::default();
    let mut listener = transport.listen(&Endpoint::from("127.0.0.1:0"), &site.server).await.unwrap();
    let to = listener.local();
    let check = async {
        let incoming = listener.next().await.unwrap();
        assert_eq!(incoming.peer().certificates, site.client.chain);
        incoming.accept().await.unwrap()
    };
    let (dialled, _accepted) = tokio::join!(transport.dial(&to, &site.client), check);
    assert_eq!(dialled.unwrap().peer.certificates, site.server.chain);
}

#[tokio::test]
async fn garbage_slow_and_plain_peers_do_not_disturb_others() {
    let (_, site) = site();
    let settings = WebSocketSettings { handshake: Duration::from_secs(2), ..WebSocketSettings::default() };
    let transport = WebSocket::new(settings);
    let mut listener = transport.listen(&Endpoint::from("127.0.0.1:0"), &site.server).await.unwrap();
    let to = listener.local();
    let mut plain = TcpStream::connect(to.authority()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut silent = TcpStream::connect(to.authority()).await.unwrap();
    let serve = async { listener.next().await.unwrap().accept().await.unwrap() };
    let (dialled, mut accepted) = tokio::join!(transport.dial(&to, &site.client), serve);
    dialled.unwrap().tx.send(Frame::text("hello")).await.unwrap();
    assert_eq!(accepted.rx.next().await.unwrap().unwrap(), Frame::text("hello"));
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest).await;
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap_or(0), 0, "the silent peer is let go");
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_is_answered_and_a_foreign_origin_refused() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nOrigin: https://evil\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n",
            "403",
        ),
    ] {
        let (_, site) = site();
        let transport = WebSocket::default();
        let listener = transport.listen(&Endpoint::from("127.0.0.1:0"), &site.server).await.unwrap();
        let tcp = TcpStream::connect(listener.local().authority()).await.unwrap();
        let connector = TlsConnector::from(Arc::new(tls::Tls::default().client(&site.client).unwrap()));
        let mut stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn an_address_in_use_or_a_wrong_key_is_told_as_misconfiguration() {
    let (_, site) = site();
    let transport = WebSocket::default();
    let listener = transport.listen(&Endpoint::from("127.0.0.1:0"), &site.server).await.unwrap();
    let error = transport.listen(&listener.local(), &site.server).await.err().unwrap();
    assert_eq!(error.kind(), TransportKind::Misconfigured);
    let wrong = Credentials { key: Bytes::from_static(b"junk"), ..site.server };
    let error = transport.listen(&Endpoint::from("127.0.0.1:0"), &wrong).await.err().unwrap();
    assert_eq!(error.kind(), TransportKind::Misconfigured);
}

#[tokio::test]
async fn peers_who_say_nothing_give_up_their_places_to_those_who_wait() {
    let (_, Site { server, client }) = site();
    let transport = WebSocket::new(WebSocketSettings { handshakes: 2, ..WebSocketSettings::default() });
    let mut listener = transport.listen(&Endpoint::from("127.0.0.1:0"), &server).await.unwrap();
    let to = listener.local();
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(to.authority()).await.unwrap());
    }
    let serving = tokio::spawn(async move { listener.next().await.unwrap().accept().await.unwrap() });
    let dialled = tokio::time::timeout(Duration::from_secs(20), transport.dial(&to, &client)).await;
    dialled.expect("kept out by those who say nothing").unwrap();
    serving.await.unwrap();
    assert_eq!(silent[0].read(&mut [0; 8]).await.unwrap_or(0), 0, "the first of them still has its place");
}
