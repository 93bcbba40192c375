//! QUIC against a stack of somebody else's making: aioquic.
#![cfg(feature = "quic")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of a test")]

use std::{
    path::Path,
    process::{Command, Stdio},
};

use futures::StreamExt;
use kubeedge_core::{
    conformance::certificates::Certificates,
    pki::to_pem,
    transport::{Endpoint, Frame, Lane, Transport},
};
use kubeedge_transport::Quic;

fn python() -> Option<String> {
    let candidates = [std::env::var("KUBEEDGE_PEERS_PYTHON").ok(), Some("python3".to_owned())];
    let works = |python: &String| {
        let run = Command::new(python).args(["-c", "import aioquic"]).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    let found = candidates.into_iter().flatten().find(works);
    if found.is_none() {
        println!(
            "SKIPPED: no Python with aioquic found; QUIC is NOT tested against it; tests/run installs it where it may"
        );
    }
    found
}

fn write(folder: &Path, name: &str, label: &str, ders: &[bytes::Bytes]) -> String {
    let pem: String = ders.iter().map(|der| to_pem(label, der)).collect();
    let file = folder.join(name);
    std::fs::write(&file, pem).unwrap();
    file.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_by_another_stack_is_let_in_and_its_lanes_are_heard() {
    let Some(python) = python() else { return };
    // An edge of the first version, and one with pings.
    for can in [None, Some("ping")] {
        meet(&python, can).await;
    }
}

async fn meet(python: &str, can: Option<&str>) {
    let Certificates { server, client, .. } = Certificates::new("edge-1");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, label: &str, ders: &[bytes::Bytes]| write(folder.path(), name, label, ders);
    let mut listener = Quic::default().listen(&Endpoint::from("127.0.0.1:0"), &server).await.unwrap();
    let port = listener.local().0.rsplit(':').next().unwrap().to_owned();
    let mut peer = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/aioquic_edge.py"))
        .arg(port)
        .args([
            file("ca.pem", "CERTIFICATE", &client.roots),
            file("cert.pem", "CERTIFICATE", &client.chain),
            file("key.pem", "EC PRIVATE KEY", std::slice::from_ref(&client.key)),
        ])
        .args(can)
        .spawn()
        .unwrap();
    let incoming = listener.next().await.unwrap();
    assert_eq!(incoming.peer().claim("node_id"), Some("edge-1"));
    assert_eq!(incoming.peer().path, "/project/edge-1/events");
    assert_eq!(incoming.peer().certificates, client.chain);
    let mut link = incoming.accept().await.unwrap();
    let mut heard = [link.rx.next().await.unwrap().unwrap(), link.rx.next().await.unwrap().unwrap()];
    heard.sort_by_key(|frame| frame.payload.len());
    assert_eq!(heard, [Frame::text("from aioquic"), Frame::binary(vec![0; 100_000]).in_lane(Lane::Bulk)]);
    assert_eq!(link.tx.health().is_some(), can.is_some());
    let pong = match link.tx.health() {
        Some(health) => Some(health.ping().await.unwrap()),
        None => None,
    };
    let question = Frame::text("is anybody there?");
    link.tx.send(question.clone()).await.unwrap();
    assert_eq!(link.rx.next().await.unwrap().unwrap(), question);
    if let Some(pong) = pong {
        pong.await.unwrap();
    }
    assert!(link.rx.next().await.is_none());
    drop(link);
    assert!(peer.wait().unwrap().success());
}
