//! Connections over loopback, in real time: `127.0.0.1` and `127.0.0.2` are two addresses.

use std::{future, net::IpAddr, time::Duration};

use http_body_util::Full;
use hyper::service::service_fn;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn limits() -> ServeLimits {
    ServeLimits {
        connections: LobbyLimits {
            places: 2,
            of_one: 2,
            waiting: 4,
            undisturbed: Duration::from_millis(100),
        },
        spare_busy: true,
        handshake: Duration::from_secs(10),
        idle: PATIENCE,
        lifetime: None,
        streams: 16,
        grace: Duration::from_secs(10),
    }
}

struct Service {
    address: SocketAddr,
    shutdown: Shutdown,
    /// Lets the answers to `/slow` go.
    go: Arc<Notify>,
    done: JoinHandle<()>,
}

/// Answers `/quick` at once, `/slow` when told to, and makes `/upgrade` an echo.
async fn answer(request: Request<Incoming>, go: Arc<Notify>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::from(request.uri().path().to_owned()));
    match request.uri().path() {
        "/slow" => go.notified().await,
        "/upgrade" => {
            let upgrades = request.extensions().get::<Upgrades>().unwrap().clone();
            let upgrade = hyper::upgrade::on(request);
            let echo = async {
                let stream = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
                let (mut from, mut to) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            };
            assert!(upgrades.run(echo) && !upgrades.run(future::ready(())));
            *response.body_mut() = Full::default();
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(http::header::UPGRADE, http::HeaderValue::from_static("echo"));
        }
        _ => {}
    }
    Ok(response)
}

async fn service(limits: ServeLimits) -> Service {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, go) = (Shutdown::new(), Arc::new(Notify::new()));
    let (ending, slow) = (shutdown.clone(), go.clone());
    let done = tokio::spawn(async move {
        let make = move |_: &Peer| {
            let go = slow.clone();
            service_fn(move |request| answer(request, go.clone()))
        };
        serve(HttpListener::Plain(listener), limits, make, &ending).await;
    });
    Service { address, shutdown, go, done }
}

impl Service {
    async fn connect(&self, from: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::from(from), 0)).unwrap();
        socket.connect(self.address).await.unwrap()
    }
}

const ONE: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 2];

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads until this text has come; `false` when the connection ended first.
async fn comes(stream: &mut TcpStream, text: &str) -> bool {
    let mut heard = Vec::new();
    let mut byte = [0; 1];
    while !String::from_utf8_lossy(&heard).contains(text) {
        match timeout(PATIENCE, stream.read(&mut byte)).await.unwrap() {
            Ok(1) => heard.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// Waits for the end of a connection; what was still said on it.
async fn end(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn a_connection_without_a_request_ends_after_a_while() {
    let service = service(ServeLimits { idle: Duration::from_millis(200), ..limits() }).await;
    let (mut silent, mut busy) = (service.connect(ONE).await, service.connect(ONE).await);
    ask(&mut busy, "/slow").await;
    assert_eq!(end(&mut silent).await, "");
    service.go.notify_one();
    assert!(comes(&mut busy, "/slow").await, "a request under way ended with the silent connection");
    assert_eq!(end(&mut busy).await, "");
}

#[tokio::test]
async fn a_silent_address_makes_room_for_another() {
    let service = service(limits()).await;
    let _silent = [service.connect(ONE).await, service.connect(ONE).await];
    let mut other = service.connect(OTHER).await;
    ask(&mut other, "/quick").await;
    assert!(comes(&mut other, "/quick").await);
}

#[tokio::test]
async fn requests_under_way_keep_their_place_where_they_are_spared() {
    let service = service(limits()).await;
    let (mut one, mut two) = (service.connect(ONE).await, service.connect(ONE).await);
    ask(&mut one, "/slow").await;
    ask(&mut two, "/slow").await;
    let mut other = service.connect(OTHER).await;
    ask(&mut other, "/quick").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    service.go.notify_waiters();
    assert!(comes(&mut one, "/slow").await && comes(&mut two, "/slow").await);
    // Both are idle now, and one of them goes for the other address.
    assert!(comes(&mut other, "/quick").await);
}

#[tokio::test]
async fn requests_that_crawl_make_room_where_they_are_not_spared() {
    let service = service(ServeLimits { spare_busy: false, ..limits() }).await;
    let (mut one, mut two) = (service.connect(ONE).await, service.connect(ONE).await);
    ask(&mut one, "/slow").await;
    ask(&mut two, "/slow").await;
    let mut other = service.connect(OTHER).await;
    ask(&mut other, "/quick").await;
    assert!(comes(&mut other, "/quick").await);
}

#[tokio::test]
async fn a_connection_ends_with_its_lifetime() {
    let service = service(ServeLimits { lifetime: Some(Duration::from_millis(200)), ..limits() }).await;
    let mut busy = service.connect(ONE).await;
    ask(&mut busy, "/slow").await;
    assert_eq!(end(&mut busy).await, "");
}

#[tokio::test]
async fn requests_under_way_outlive_a_shutdown_for_a_grace() {
    let service = service(limits()).await;
    let (mut idle, mut busy) = (service.connect(ONE).await, service.connect(ONE).await);
    ask(&mut idle, "/quick").await;
    assert!(comes(&mut idle, "/quick").await);
    ask(&mut busy, "/slow").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    service.shutdown.request();
    assert_eq!(end(&mut idle).await, "");
    assert!(TcpStream::connect(service.address).await.is_err(), "it still listens");
    service.go.notify_one();
    assert!(comes(&mut busy, "/slow").await);
    timeout(PATIENCE, service.done).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_waits_no_longer_than_its_grace() {
    let service = service(ServeLimits { grace: Duration::from_millis(200), ..limits() }).await;
    let mut busy = service.connect(ONE).await;
    ask(&mut busy, "/slow").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    service.shutdown.request();
    timeout(PATIENCE, service.done).await.unwrap().unwrap();
    assert_eq!(end(&mut busy).await, "");
}

#[tokio::test]
async fn an_upgraded_connection_is_served_until_shutdown() {
    let service = service(ServeLimits { idle: Duration::from_millis(200), ..limits() }).await;
    let mut upgraded = service.connect(ONE).await;
    ask(&mut upgraded, "/upgrade").await;
    assert!(comes(&mut upgraded, "\r\n\r\n").await);
    // Longer than a connection may be idle.
    tokio::time::sleep(Duration::from_millis(500)).await;
    upgraded.write_all(b"hello").await.unwrap();
    assert!(comes(&mut upgraded, "hello").await);
    service.shutdown.request();
    assert_eq!(end(&mut upgraded).await, "");
    timeout(PATIENCE, service.done).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_of_known_length_says_its_length() {
    let service = service(limits()).await;
    let mut client = service.connect(ONE).await;
    ask(&mut client, "/quick").await;
    assert!(comes(&mut client, "content-length: 6\r\n").await);
}
