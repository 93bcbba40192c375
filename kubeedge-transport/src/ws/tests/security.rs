//! Which certificates, versions, suites and key exchanges are taken.

use kubeedge_core::{
    clock::Clock,
    message::Millis,
    pki::{Authority, Names, Usage},
};
use rustls::{
    CipherSuite, ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
    SupportedProtocolVersion,
    crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    version::{TLS12, TLS13},
};
use tokio_rustls::client::TlsStream;

use super::*;

const DAY: i64 = 86_400;

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64 - 60
}

/// What a server makes of a client's certificate.
async fn refused_at(server: &Credentials, client: Credentials, clock: Clock) -> TransportKind {
    let transport = WebSocket::default().with_clock(clock);
    let mut listener = transport.listen(&Endpoint::from("127.0.0.1:0"), server).await.unwrap();
    let to = listener.local();
    let serving = tokio::spawn(async move { drop(listener.next().await) });
    // The client has the right time whatever the server's clock says.
    let error = match WebSocket::default().dial(&to, &client).await {
        Err(error) => error,
        Ok(mut link) => link.rx.next().await.unwrap().unwrap_err(),
    };
    assert!(!serving.is_finished(), "the listener let the peer in");
    serving.abort();
    error.kind()
}

#[tokio::test]
async fn certificates_that_expired_are_for_servers_or_come_from_elsewhere_open_no_link() {
    let Certificates { authority: ca, server, client, .. } = site();
    let issue = |authority: &Authority, usage, begin| {
        let name = "system:node:edge-1";
        let made = authority.issue(name, &["system:nodes"], &Names::default(), usage, begin, 2).unwrap();
        made.credentials().with_roots([ca.certificate().clone()])
    };
    let foreign = Authority::kubeedge(now()).unwrap();
    let mut chained = issue(&foreign, Usage::Client, now());
    chained.chain.push(foreign.certificate().clone());
    let later = Clock::simulated(Millis((now() + 3 * DAY) * 1000));
    for (what, client, clock) in [
        ("expired", issue(&ca, Usage::Client, now() - 3 * DAY), Clock::wall()),
        ("expired by the server's clock", client, later),
        ("not valid yet", issue(&ca, Usage::Client, now() + DAY), Clock::wall()),
        ("of a server", issue(&ca, Usage::Server, now()), Clock::wall()),
        ("the server's own", server.clone(), Clock::wall()),
        ("of a foreign authority", issue(&foreign, Usage::Client, now()), Clock::wall()),
        ("of a foreign authority that is shown too", chained, Clock::wall()),
    ] {
        assert_eq!(refused_at(&server, client, clock).await, TransportKind::Untrusted, "{what}");
    }
}

/// A TLS client that speaks these versions and suites alone.
fn client(
    site: &Certificates,
    versions: &[&'static SupportedProtocolVersion],
    keep: impl Fn(CipherSuite) -> bool,
) -> Arc<ClientConfig> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| keep(suite.suite()));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(site.client.roots[0].to_vec())).unwrap();
    let chain = vec![CertificateDer::from(site.client.chain[0].to_vec())];
    let key = PrivateKeyDer::try_from(site.client.key.to_vec()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

async fn connect(to: &Endpoint, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(to.authority()).await.unwrap();
    TlsConnector::from(config.clone()).connect("localhost".try_into().unwrap(), tcp).await
}

#[tokio::test]
async fn tls_1_3_is_spoken_and_1_2_only_with_the_suites_gos_cloudcore_takes() {
    let site = site();
    let listener = WebSocket::default().listen(&Endpoint::from("127.0.0.1:0"), &site.server).await.unwrap();
    let to = listener.local();
    let stream = connect(&to, &client(&site, &[&TLS13, &TLS12], |_| true)).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    for suite in [
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ] {
        let stream = connect(&to, &client(&site, &[&TLS12], |known| known == suite)).await.unwrap();
        let spoken = stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite());
        assert_eq!(spoken, Some(suite));
    }
    let rsa = |suite| format!("{suite:?}").contains("_RSA_");
    connect(&to, &client(&site, &[&TLS12], rsa)).await.unwrap_err();
}

#[tokio::test]
async fn a_certificate_is_verified_anew_with_every_connection() {
    let site = site();
    let listener = WebSocket::default().listen(&Endpoint::from("127.0.0.1:0"), &site.server).await.unwrap();
    let to = listener.local();
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let config = client(&site, versions, |_| true);
        for _ in 0..2 {
            let mut stream = connect(&to, &config).await.unwrap();
            // An answer comes after all that a server says of sessions.
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
            assert_ne!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        }
    }
}

/// Takes the place of a hybrid key exchange: what is offered can be seen, nothing can be agreed on.
#[derive(Debug)]
struct Hybrid;

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

impl ActiveKeyExchange for Hybrid {
    fn complete(self: Box<Self>, _peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        Err(rustls::Error::General("nothing is agreed on here".to_owned()))
    }

    fn pub_key(&self) -> &[u8] {
        &[7; 1216]
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

/// The groups for key exchange in the first flight of a dialler.
async fn offered(transport: WebSocket) -> Vec<u16> {
    let site = site();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Endpoint::from(listener.local_addr().unwrap());
    let dialling = tokio::spawn(async move { drop(transport.dial(&to, &site.client).await) });
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut head = [0; 5];
    socket.read_exact(&mut head).await.unwrap();
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    socket.read_exact(&mut hello).await.unwrap();
    dialling.abort();
    let number = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    // Type and length, version, random; then session, suites, compression.
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + number(at);
    at += 1 + usize::from(hello[at]);
    at += 2;
    while number(at) != 10 {
        at += 4 + number(at + 2);
    }
    let groups = &hello[at + 6..at + 4 + number(at + 2)];
    groups.chunks(2).map(|group| u16::from_be_bytes([group[0], group[1]])).collect()
}

#[tokio::test]
async fn a_key_exchange_that_withstands_quantum_computers_is_offered_where_the_provider_has_it() {
    let hybrid = u16::from(NamedGroup::X25519MLKEM768);
    assert_eq!(hybrid, 0x11ec);
    let mut provider = ring::default_provider();
    provider.kx_groups.insert(0, &Hybrid);
    let groups = offered(WebSocket::default().with_provider(provider)).await;
    assert_eq!(groups[0], hybrid, "{groups:?}");
    assert!(groups.contains(&u16::from(NamedGroup::X25519)), "{groups:?}");
    let groups = offered(WebSocket::default()).await;
    assert!(!groups.contains(&hybrid), "ring has none: {groups:?}");
}
