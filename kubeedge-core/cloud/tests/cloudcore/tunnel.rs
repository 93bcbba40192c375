//! Logs and exec through a tunnel.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use kubeedge_cloud::{
    cluster::Clients,
    hub::NodeIdentity,
    stream::{CloudStream, CloudStreamSettings, Tunnels},
};
use kubeedge_core::{
    cluster::Body,
    kernel::{Kernel, Shutdown},
    name::NodeName,
    node_streams::{NodeStreams, StreamKind},
    transport::{Credentials, Endpoint, Frame, Link, Transport, TransportError, TransportKind},
    tunnel::{CLAIM_NODE, Connector, Duplex, FrameKind, TunnelFrame},
};
use kubeedge_transport::Memory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::FakeCluster;

const NODE: NodeName = NodeName::of("edge-1");
const WAIT: Duration = Duration::from_secs(30);

struct Tunnel {
    tunnels: Tunnels,
    network: Memory,
    cluster: FakeCluster,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<()>,
}

impl Tunnel {
    async fn start() -> Self {
        Self::for_nodes(500).await
    }

    async fn for_nodes(node_limit: usize) -> Self {
        let (network, cluster) = (Memory::new(), FakeCluster::new());
        let clients = Arc::new(Clients::new(Arc::new(cluster.clone())));
        let mut settings = CloudStreamSettings::listening(Endpoint::from("tunnel"));
        (settings.identity, settings.node_limit) = (NodeIdentity::Claim, node_limit);
        settings.recorded_as = Some("10.0.0.1".to_owned());
        let stream = CloudStream::new(settings, Arc::new(network.clone()), Credentials::default(), &clients);
        let (tunnels, mut bound, shutdown) = (stream.tunnels(), stream.bound(), Shutdown::new());
        let kernel = Kernel::builder().module(stream).build().unwrap();
        let until = shutdown.clone();
        let running =
            tokio::spawn(async move { kernel.run(async move { until.requested().await }).await.unwrap() });
        bound.wait_for(Option::is_some).await.unwrap();
        Self { tunnels, network, cluster, shutdown, running }
    }

    async fn dial_as(&self, node: &str) -> Result<Link, TransportError> {
        let who = Credentials::default().with_claim(CLAIM_NODE, node);
        self.network.dial(&Endpoint::from("tunnel"), &who).await
    }

    async fn dial(&self) -> Link {
        let link = self.dial_as(NODE.as_str()).await.unwrap();
        while !self.tunnels.has(&NODE) {
            tokio::task::yield_now().await;
        }
        link
    }

    async fn logs(&self) -> Body {
        let path = "/containerLogs/default/web/c?follow=true".to_owned();
        self.tunnels.logs(&NODE, path, HeaderMap::new()).await.unwrap()
    }

    async fn exec(&self) -> Box<dyn Duplex> {
        let path = "/exec/default/web/c?command=sh".to_owned();
        self.tunnels.upgrade(&NODE, Method::POST, path, HeaderMap::new()).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(WAIT, self.running).await.expect("the tunnel ends in time").unwrap();
    }
}

async fn next(link: &mut Link) -> TunnelFrame {
    let frame = tokio::time::timeout(WAIT, link.rx.next()).await.expect("a frame in time");
    TunnelFrame::decode(&frame.unwrap().unwrap().payload).unwrap()
}

async fn send(link: &mut Link, frame: TunnelFrame) {
    link.tx.send(Frame::binary(frame.encode())).await.unwrap();
}

#[tokio::test]
async fn a_log_comes_through_the_tunnel_and_ends_with_the_nodes_end() {
    let tunnel = Tunnel::start().await;
    tunnel.cluster.create("/api/v1/nodes", serde_json::json!({"metadata": {"name": "edge-1"}}));
    let path = "/containerLogs/default/web/c?follow=true".to_owned();
    let early = tunnel.tunnels.logs(&NODE, path.clone(), HeaderMap::new()).await.unwrap_err();
    assert_eq!(early.kind(), StreamKind::NotConnected);
    let mut edge = tunnel.dial().await;
    let node =
        |node: &serde_json::Value| node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10351;
    tunnel.cluster.until("/api/v1/nodes/edge-1", node).await;
    let record = tunnel.cluster.get("/api/v1/namespaces/kubeedge/configmaps/tunnelport").unwrap();
    assert_eq!(
        record["metadata"]["annotations"]["tunnelportrecord.kubeedge.io"],
        r#"{"ipTunnelPort":{"10.0.0.1":10351},"port":{"10351":true}}"#
    );

    let log = tunnel.tunnels.logs(&NODE, path.clone(), HeaderMap::new()).await.unwrap();
    let open = next(&mut edge).await;
    let connector: Connector = serde_json::from_slice(&open.data).unwrap();
    assert_eq!((open.id, open.kind, connector.id), (1, FrameKind::LOGS, 1));
    assert_eq!(connector.url.raw_query, "follow=true");
    send(&mut edge, TunnelFrame::data(1, "hello ")).await;
    send(&mut edge, TunnelFrame::data(1, &b"\xff\xfe"[..])).await;
    send(&mut edge, TunnelFrame::remove(1)).await;
    assert_eq!(log.collect().await.unwrap().to_bytes().as_ref(), b"hello \xff\xfe");

    // A reader that goes away ends the stream on the node; a lost tunnel is no end of a log.
    let dropped = tunnel.tunnels.logs(&NODE, path.clone(), HeaderMap::new()).await.unwrap();
    assert_eq!(next(&mut edge).await.id, 2);
    drop(dropped);
    assert_eq!(next(&mut edge).await, TunnelFrame::remove(2));
    let cut = tunnel.tunnels.logs(&NODE, path, HeaderMap::new()).await.unwrap();
    assert_eq!(next(&mut edge).await.id, 3);
    drop(edge);
    assert!(cut.collect().await.is_err());
    tunnel.stop().await;
}

#[tokio::test]
async fn exec_is_a_connection_in_both_directions() {
    let tunnel = Tunnel::start().await;
    let mut edge = tunnel.dial().await;
    let mut exec = tunnel.exec().await;
    let open = next(&mut edge).await;
    assert_eq!(open.kind, FrameKind::EXEC);
    send(&mut edge, TunnelFrame::data(open.id, "HTTP/1.1 101 Switching Protocols\r\n\r\n")).await;
    exec.write_all(b"echo hi").await.unwrap();
    assert_eq!(next(&mut edge).await, TunnelFrame::data(open.id, "echo hi"));
    exec.shutdown().await.unwrap();
    assert_eq!(next(&mut edge).await, TunnelFrame::remove(open.id));
    let mut answer = String::new();
    exec.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101"));
    tunnel.stop().await;
}

#[tokio::test]
async fn a_newer_tunnel_takes_the_place_of_the_older() {
    let tunnel = Tunnel::start().await;
    let mut first = tunnel.dial().await;
    let mut second = tunnel.dial().await;
    assert!(tokio::time::timeout(WAIT, first.rx.next()).await.unwrap().is_none());
    let log = tunnel.tunnels.logs(&NODE, "/metrics".to_owned(), HeaderMap::new()).await.unwrap();
    assert_eq!(next(&mut second).await.kind, FrameKind::METRICS);
    drop(log);
    tunnel.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_answers_while_it_is_fed_takes_all_its_input() {
    const SIZE: usize = 4 << 20;
    let tunnel = Tunnel::start().await;
    let mut edge = tunnel.dial().await;
    let (mut answers, mut input) = tokio::io::split(tunnel.exec().await);
    let id = next(&mut edge).await.id;
    let node = async {
        for _ in 0..SIZE / 4096 {
            send(&mut edge, TunnelFrame::data(id, vec![b'o'; 4096])).await;
        }
        let mut taken = 0;
        while taken < SIZE {
            taken += next(&mut edge).await.data.len();
        }
    };
    let feed = async { input.write_all(&vec![b'i'; SIZE]).await.unwrap() };
    let read = async { answers.read_exact(&mut vec![0; SIZE]).await.unwrap() };
    let done = tokio::time::timeout(WAIT, async { tokio::join!(node, feed, read) }).await;
    done.expect("both sides wait for each other");
    tunnel.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_does_not_read_for_half_a_minute_loses_its_tunnel() {
    let tunnel = Tunnel::start().await;
    let edge = tunnel.dial().await;
    let mut exec = tunnel.exec().await;
    let feed = async { while exec.write_all(&[b'i'; 4096]).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(35), feed).await.expect("the tunnel is cut");
    drop(edge);
    tunnel.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_logs_that_are_left_at_once_all_end_on_the_node() {
    let tunnel = Tunnel::start().await;
    let mut edge = tunnel.dial().await;
    let mut logs = Vec::new();
    for _ in 0..100 {
        logs.push(tunnel.logs().await);
        assert_eq!(next(&mut edge).await.kind, FrameKind::LOGS);
    }
    drop(logs);
    for id in 1..=100 {
        assert_eq!(next(&mut edge).await, TunnelFrame::remove(id));
    }
    tunnel.stop().await;
}

#[tokio::test]
async fn a_node_whose_tunnel_is_lost_dials_again_though_there_is_no_room_for_others() {
    let tunnel = Tunnel::for_nodes(1).await;
    let mut lost = tunnel.dial().await;
    let other = tunnel.dial_as("edge-2").await.unwrap_err();
    assert_eq!(other.kind(), TransportKind::Refused);
    let mut again = tunnel.dial().await;
    assert!(tokio::time::timeout(WAIT, lost.rx.next()).await.unwrap().is_none());
    let log = tunnel.logs().await;
    assert_eq!(next(&mut again).await.kind, FrameKind::LOGS);
    drop(log);
    tunnel.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_whose_edge_lost_power_ends_with_its_streams() {
    let tunnel = Tunnel::start().await;
    let mut edge = tunnel.dial().await;
    let log = tunnel.logs().await;
    assert_eq!(next(&mut edge).await.kind, FrameKind::LOGS);
    // It answers nothing from here on, and nobody closes its link.
    let ended = tokio::time::timeout(Duration::from_secs(120), log.collect()).await;
    assert!(ended.expect("a dead tunnel is found").is_err());
    drop(edge);
    tunnel.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_log_lasts_while_its_edge_answers_pings() {
    let tunnel = Tunnel::start().await;
    let mut edge = tunnel.dial().await;
    let mut log = tunnel.logs().await;
    assert_eq!(next(&mut edge).await.kind, FrameKind::LOGS);
    let quiet = async { tokio::join!(edge.rx.next(), log.frame()) };
    assert!(tokio::time::timeout(Duration::from_secs(3600), quiet).await.is_err());
    send(&mut edge, TunnelFrame::data(1, "at last")).await;
    assert_eq!(log.frame().await.unwrap().unwrap().into_data().unwrap(), "at last");
    tunnel.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_is_cut_though_its_frames_are_empty() {
    let tunnel = Tunnel::start().await;
    let mut edge = tunnel.dial().await;
    let log = tunnel.logs().await;
    let id = next(&mut edge).await.id;
    for _ in 0..64 << 10 {
        send(&mut edge, TunnelFrame::data(id, "")).await;
    }
    assert_eq!(next(&mut edge).await, TunnelFrame::remove(id));
    assert!(log.collect().await.is_err());
    tunnel.stop().await;
}

#[tokio::test]
async fn a_tunnel_that_ended_is_gone_though_its_port_is_still_to_be_written() {
    let tunnel = Tunnel::start().await;
    // There is no Node of this name to write it to.
    let edge = tunnel.dial().await;
    drop(edge);
    let gone = async {
        while tunnel.tunnels.has(&NODE) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, gone).await.expect("the tunnel is still listed");
    tunnel.stop().await;
}
