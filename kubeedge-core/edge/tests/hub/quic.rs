//! The hub over QUIC, with a path that can be closed without a word to either end.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kubeedge_core::{
    message::{Content, Message, Millis},
    name::{Group, ModuleName, Operation},
    pki::{Authority, Names, Usage},
    transport::{Credentials, Endpoint, Listener, Transport},
};
use kubeedge_edge::hub::IdentitySource;
use kubeedge_transport::Quic;
use tokio::{net::UdpSocket, task::JoinSet, time::Instant};

use crate::cloud::{Node, PATIENCE, settings};

/// Passes datagrams on between one dialler at a time and a listener, while it is open.
struct Path {
    open: Arc<AtomicBool>,
    front: SocketAddr,
    _passing: JoinSet<()>,
}

impl Path {
    async fn to(listener: SocketAddr) -> Self {
        let (front, back) = (local().await, local().await);
        back.connect(listener).await.unwrap();
        let (open, address) = (Arc::new(AtomicBool::new(true)), front.local_addr().unwrap());
        let mut passing = JoinSet::new();
        passing.spawn(pass(front, back, open.clone()));
        Self { open, front: address, _passing: passing }
    }

    fn set(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }
}

async fn local() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn pass(front: UdpSocket, back: UdpSocket, open: Arc<AtomicBool>) {
    let (mut dialler, mut there, mut here) = (None, [0; 2048], [0; 2048]);
    loop {
        tokio::select! {
            Ok((size, from)) = front.recv_from(&mut there) => {
                dialler = Some(from);
                if open.load(Ordering::SeqCst) {
                    let _ = back.send(&there[..size]).await;
                }
            }
            Ok(size) = back.recv(&mut here) => if let Some(dialler) = dialler
                && open.load(Ordering::SeqCst)
            {
                let _ = front.send_to(&here[..size], dialler).await;
            },
        }
    }
}

/// The listener of a cloud, and the credentials of a node.
async fn site() -> (Box<dyn Listener>, Credentials) {
    let now = Millis::now().0 / 1000 - 60;
    let ca = Authority::kubeedge(now).unwrap();
    let server = Names { ips: vec![[127, 0, 0, 1].into()], dns: Vec::new() };
    let server = ca.issue_server(&server, now).unwrap().credentials();
    let client = ca.issue("system:node:edge-1", &["system:nodes"], &Names::default(), Usage::Client, now, 2);
    let door = Quic::default().listen(&Endpoint::from("127.0.0.1:0"), &server).await.unwrap();
    (door, client.unwrap().credentials())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quic_link_that_went_dead_is_left_within_two_heartbeats_and_nothing_is_lost() {
    let (door, client) = site().await;
    let path = Path::to(door.local().0.parse().unwrap()).await;
    let heartbeat = Duration::from_secs(1);
    let mut settings = settings();
    settings.servers = vec![path.front.to_string()];
    settings.identity = IdentitySource::Fixed(client);
    settings.heartbeat = heartbeat;
    let mut node = Node::with_door(settings, Quic::default(), door);
    let mut cloud = node.cloud().await;
    let reading = tokio::spawn(async move { while cloud.try_next().await.is_some() {} });
    let mut connected = node.hub.connected();
    let left = tokio::time::timeout(heartbeat * 5, connected.wait_for(|up| !up)).await.is_ok();
    assert!(!left, "a quiet link was left");
    path.set(false);
    let broke = Instant::now();
    let upload = Message::new(ModuleName::of("bus"), Operation::UPLOAD, "SYS/dis/upload_records");
    let upload = upload.in_group(Group::RESOURCE).with(Content::text("reading"));
    node.bus.send(&ModuleName::EDGE_HUB, upload.clone()).await.unwrap();
    tokio::time::timeout(PATIENCE, connected.wait_for(|up| !up)).await.unwrap().unwrap();
    // QUIC itself would have waited for half a minute.
    assert!(broke.elapsed() <= heartbeat * 4, "{:?}", broke.elapsed());
    path.set(true);
    let mut cloud = node.cloud().await;
    assert_eq!(cloud.next_message().await.header.id, upload.header.id);
    reading.abort();
}
