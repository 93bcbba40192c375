//! The tunnel, with a cloud played by the test.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use kubeedge_core::{
    kernel::Shutdown,
    transport::{Credentials, Endpoint, Frame, Link, Listener, Transport},
    tunnel::{CLAIM_ADDRESS, CLAIM_NODE, CONNECT_PATH, Connector, FrameKind, GoUrl, TunnelFrame},
};
use kubeedge_edge::stream::{EdgeStream, EdgeStreamSettings, NodeApi};
use kubeedge_transport::Memory;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::node::{Node, WAIT, spawn};

struct Cloud {
    listener: Box<dyn Listener>,
    link: Link,
    shutdown: Shutdown,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

impl Cloud {
    /// A cloud whose edge has dialled.
    async fn start(api: Arc<dyn NodeApi>) -> Self {
        let transport = Memory::new();
        let mut listener =
            transport.listen(&Endpoint::from("cloud:10004"), &Credentials::default()).await.unwrap();
        let mut settings = EdgeStreamSettings::default();
        settings.servers = vec![listener.local()];
        settings.reconnect = Duration::from_millis(1);
        let (known, credentials) = watch::channel(None);
        let shutdown = spawn(
            EdgeStream::new("edge-1".into(), settings, Arc::new(transport), credentials, api)
                .address("10.0.0.7".into()),
        );
        known.send_replace(Some(Arc::new(Credentials::default())));
        let link = Self::admit(&mut listener).await;
        drop(known);
        Self { listener, link, shutdown }
    }

    async fn admit(listener: &mut Box<dyn Listener>) -> Link {
        let incoming = tokio::time::timeout(WAIT, listener.next()).await.expect("the edge dials").unwrap();
        assert_eq!(incoming.peer().claim(CLAIM_NODE), Some("edge-1"));
        assert_eq!(incoming.peer().claim(CLAIM_ADDRESS), Some("10.0.0.7"));
        assert!(incoming.peer().path.ends_with(CONNECT_PATH), "{}", incoming.peer().path);
        incoming.accept().await.unwrap()
    }

    async fn send(&mut self, frame: TunnelFrame) {
        self.link.tx.send(Frame::binary(frame.encode())).await.unwrap();
    }

    async fn open(&mut self, kind: FrameKind, id: u64, target: &str, headers: &[(&str, &str)]) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let header = headers.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
        let url = GoUrl::to_kubelet(path, query);
        let method = matches!(kind, FrameKind::EXEC | FrameKind::ATTACH).then(|| "GET".to_owned());
        let connector = Connector { id, url, header: header.collect(), method };
        self.send(TunnelFrame::open(kind, &connector)).await;
    }

    async fn next(&mut self) -> TunnelFrame {
        let frame = tokio::time::timeout(WAIT, self.link.rx.next()).await.expect("a frame in time");
        TunnelFrame::decode(&frame.unwrap().unwrap().payload).unwrap()
    }

    /// All bytes of a stream up to its end.
    async fn rest(&mut self, id: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let frame = self.next().await;
            match frame.kind {
                FrameKind::DATA if frame.id == id => bytes.extend_from_slice(&frame.data),
                FrameKind::REMOVE if frame.id == id => return bytes,
                _ => {}
            }
        }
    }
}

const LOG: &str = "/containerLogs/default/web/c";

#[tokio::test]
async fn logs_come_through_the_tunnel_and_so_does_why_there_are_none() {
    let node = Node::start().await;
    let mut cloud = Cloud::start(Arc::new(node.bound.clone())).await;
    cloud.open(FrameKind::LOGS, 1, LOG, &[("Accept-Encoding", "gzip")]).await;
    let waiting = r#"container "c" in pod "web" is waiting to start: ContainerCreating"#;
    assert_eq!(cloud.rest(1).await, waiting.as_bytes());
    let container = node.run(0, &["echo", "hello"]).await;
    node.ended(&container).await;
    cloud.open(FrameKind::LOGS, 2, LOG, &[]).await;
    assert_eq!(cloud.rest(2).await, b"hello\n");
    cloud.open(FrameKind::METRICS, 3, "/healthz", &[]).await;
    assert_eq!(cloud.rest(3).await, b"ok");
}

#[tokio::test]
async fn a_reader_that_leaves_ends_its_stream_and_a_lost_tunnel_is_dialled_again() {
    let node = Node::start().await;
    node.run(0, &["echo", "hello", ";", "wait"]).await;
    let mut cloud = Cloud::start(Arc::new(node.bound.clone())).await;
    cloud.open(FrameKind::LOGS, 1, &format!("{LOG}?follow=true"), &[]).await;
    assert_eq!(cloud.next().await, TunnelFrame::data(1, "hello\n"));
    cloud.send(TunnelFrame::remove(1)).await;
    assert_eq!(cloud.next().await, TunnelFrame::remove(1));
    cloud.send(TunnelFrame::new(0, FrameKind::CLOSE, "enough")).await;
    cloud.link = Cloud::admit(&mut cloud.listener).await;
    cloud.open(FrameKind::LOGS, 1, LOG, &[]).await;
    assert_eq!(cloud.rest(1).await, b"hello\n");
}

#[tokio::test]
async fn a_node_without_its_api_says_so_instead_of_nothing() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut cloud = Cloud::start(Arc::new(nobody)).await;
    cloud.open(FrameKind::LOGS, 1, LOG, &[]).await;
    let text = String::from_utf8(cloud.rest(1).await).unwrap();
    assert!(text.starts_with("the node's API cannot be asked: "), "{text}");
    cloud.open(FrameKind::EXEC, 2, "/exec/default/web/c?command=ls", &[]).await;
    let answer = String::from_utf8(cloud.rest(2).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    cloud.send(TunnelFrame::new(3, FrameKind::LOGS, "no json")).await;
    assert!(String::from_utf8(cloud.rest(3).await).unwrap().contains("connector is not readable"));
}

#[tokio::test]
async fn a_command_runs_through_the_tunnel_beside_other_streams() {
    let node = Node::start().await;
    node.run(0, &["echo", "hello", ";", "wait"]).await;
    node.said("hello\n").await;
    let mut cloud = Cloud::start(Arc::new(node.bound.clone())).await;
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-Websocket-Version", "13"),
        ("Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-Websocket-Protocol", "v5.channel.k8s.io"),
        ("Origin", "https://console.example"),
    ];
    let target = "/exec/default/web/c?command=copy&input=1&output=1";
    cloud.open(FrameKind::EXEC, 1, target, &headers).await;
    let mut early = cloud.next().await.data.to_vec();
    assert!(early.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
    let end = early.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let early = early.split_off(end);
    cloud.open(FrameKind::LOGS, 2, LOG, &[]).await;

    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let mut socket = WebSocketStream::from_partially_read(ours, early, Role::Client, None).await;
    let talk = async {
        socket.send(Message::Binary(Bytes::from_static(b"\x00over and out"))).await.unwrap();
        socket.send(Message::Binary(Bytes::from_static(b"\xff\x00"))).await.unwrap();
        let (mut said, mut status) = (Vec::new(), Vec::new());
        while let Some(Ok(message)) = socket.next().await {
            match message.into_data().split_first() {
                Some((1, data)) => said.extend_from_slice(data),
                Some((3, data)) => status.extend_from_slice(data),
                _ => {}
            }
        }
        (said, status)
    };
    let (mut from, mut to) = tokio::io::split(theirs);
    let mut log = Vec::new();
    let carry = async {
        let (mut block, mut open) = (vec![0; 1024], 2);
        while open > 0 {
            tokio::select! {
                Ok(size @ 1..) = from.read(&mut block) => {
                    cloud.send(TunnelFrame::data(1, block[..size].to_vec())).await;
                }
                frame = cloud.next() => match (frame.id, frame.kind) {
                    (1, FrameKind::DATA) => to.write_all(&frame.data).await.unwrap(),
                    (2, FrameKind::DATA) => log.extend_from_slice(&frame.data),
                    (1, FrameKind::REMOVE) => {
                        open -= 1;
                        to.shutdown().await.unwrap();
                    }
                    (2, FrameKind::REMOVE) => open -= 1,
                    _ => {}
                },
            }
        }
    };
    let talked = tokio::time::timeout(WAIT, futures::future::join(talk, carry)).await;
    let ((said, status), ()) = talked.expect("the command ends");
    assert_eq!(said, b"over and out");
    assert_eq!(status, br#"{"metadata":{},"status":"Success"}"#);
    assert_eq!(log, b"hello\n");
}

/// The frames of a session of Go's: a log, then a command over SPDY.
fn captured() -> Vec<(bool, TunnelFrame)> {
    let lines = include_str!("../data/tunnel-frames.jsonl").lines();
    let frames = lines.map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let bytes = BASE64_STANDARD.decode(record["b64"].as_str().unwrap()).unwrap();
        (record["from"] == "cloud", TunnelFrame::decode(&bytes.into()).unwrap())
    });
    frames.collect()
}

fn bytes_of(frames: &[(bool, TunnelFrame)], from_cloud: bool, id: u64) -> Vec<u8> {
    let ours = frames.iter().filter(|(cloud, frame)| *cloud == from_cloud && frame.id == id);
    ours.filter(|(_, frame)| frame.kind == FrameKind::DATA)
        .flat_map(|(_, frame)| frame.data.to_vec())
        .collect()
}

/// A kubelet that answers the first request with a log, then plays Go's part of a command.
async fn kubelet(listener: TcpListener, log: Vec<u8>, command: Vec<u8>, input: usize) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    head(&mut stream).await;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", log.len());
    stream.write_all(&[answer.as_bytes(), &log].concat()).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let asked = head(&mut stream).await;
    let mut heard = vec![0; input];
    stream.read_exact(&mut heard).await.unwrap();
    stream.write_all(&command).await.unwrap();
    (asked, heard)
}

async fn head(stream: &mut tokio::net::TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_session_of_gos_cloud_is_served_byte_by_byte_as_go_did() {
    let frames = captured();
    let (log, command) = (bytes_of(&frames, false, 4), bytes_of(&frames, false, 5));
    let input = bytes_of(&frames, true, 5);
    assert!(!log.is_empty() && !command.is_empty() && !input.is_empty());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let local = tokio::spawn(kubelet(listener, log.clone(), command.clone(), input.len()));
    let mut cloud = Cloud::start(Arc::new(address)).await;
    for id in [4, 5] {
        for (_, frame) in frames.iter().filter(|(cloud, frame)| *cloud && frame.id == id) {
            if frame.kind != FrameKind::REMOVE {
                cloud.send(frame.clone()).await;
            }
        }
        assert_eq!(cloud.rest(id).await, bytes_of(&frames, false, id));
        // Go's cloud says that it is over once more, again and again.
        cloud.send(TunnelFrame::remove(id)).await;
        cloud.send(TunnelFrame::remove(id)).await;
    }
    let (asked, heard) = tokio::time::timeout(WAIT, local).await.unwrap().unwrap();
    assert_eq!(heard, input);
    assert!(asked.starts_with("POST /exec/default/proj/c?command=%2Fbin%2Fsh&command=-c&"), "{asked}");
    for line in ["upgrade: SPDY/3.1\r\n", "x-stream-protocol-version: v4.channel.k8s.io\r\n"] {
        assert!(asked.contains(line), "{asked}");
    }
}
