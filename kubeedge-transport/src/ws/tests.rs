use futures::StreamExt;
use kubeedge_core::{
    conformance::{
        certificates::Certificates,
        transport::{Ability, Harness},
    },
    transport::Frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

mod security;

fn site() -> Certificates {
    Certificates::new("edge-1")
}

fn harness(transport: impl Transport) -> Harness {
    let Certificates { server, client, .. } = site();
    Harness::new(transport, "127.0.0.1:0").with_credentials(server, client).without(Ability::Lanes)
}

mod kit {
    kubeedge_core::transport_conformance!(super::harness(super::WebSocket::default()));
}

async fn refused(client: Credentials) -> TransportError {
    let site = site();
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
    let ours = site();
    let none = ours.client.clone().with_chain([]);
    assert_eq!(refused_by(ours.server.clone(), none).await.kind(), TransportKind::Untrusted);
    let foreign = site().client.with_roots([ours.authority.certificate().clone()]);
    assert_eq!(refused_by(ours.server, foreign).await.kind(), TransportKind::Untrusted);
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    assert_eq!(refused(site().client).await.kind(), TransportKind::Untrusted);
}

#[tokio::test]
async fn the_certificate_of_a_peer_is_shown_to_who_decides() {
    let site = site();
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
    let site = site();
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
        let site = site();
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
    let site = site();
    let transport = WebSocket::default();
    let listener = transport.listen(&Endpoint::from("127.0.0.1:0"), &site.server).await.unwrap();
    let error = transport.listen(&listener.local(), &site.server).await.err().unwrap();
    assert_eq!(error.kind(), TransportKind::Misconfigured);
    let wrong = site.server.with_key(&b"junk"[..]);
    let error = transport.listen(&Endpoint::from("127.0.0.1:0"), &wrong).await.err().unwrap();
    assert_eq!(error.kind(), TransportKind::Misconfigured);
}

#[tokio::test]
async fn peers_who_say_nothing_give_up_their_places_to_those_who_wait() {
    let Certificates { server, client, .. } = site();
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
