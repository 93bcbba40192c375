//! Streams between clients and nodes end with the server that they came through.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderMap, Method};
use kubeedge_apiserver::{EmbeddedCluster, EmbeddedSettings, ServeSettings, Signer};
use kubeedge_core::{
    cluster::Body,
    conformance::cluster::ask,
    failure::Failure,
    kernel::Shutdown,
    message::Millis,
    name::NodeName,
    node_streams::{NodeStreams, StreamError, StreamKind},
    pki::{Authority, Names, Usage},
    tunnel::Duplex,
};
use kubeedge_store::MemoryStore;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A node that takes one stream; its end is the test's.
#[derive(Debug)]
struct OneNode(Mutex<Option<DuplexStream>>);

#[async_trait]
impl NodeStreams for OneNode {
    async fn logs(&self, _: &NodeName, _: String, _: HeaderMap) -> Result<Body, StreamError> {
        Err(Failure::new(StreamKind::Refused, "reading logs"))
    }

    async fn upgrade(
        &self,
        _: &NodeName,
        _: Method,
        _: String,
        _: HeaderMap,
    ) -> Result<Box<dyn Duplex>, StreamError> {
        let stream = self.0.lock().take();
        Ok(Box::new(stream.ok_or_else(|| Failure::new(StreamKind::Busy, "opening a stream"))?))
    }
}

#[tokio::test]
async fn a_command_in_a_container_ends_with_the_server() {
    let now = Millis::now().0 / 1000;
    let authority = Authority::generate("streams", now, 1).unwrap();
    let names = Names { dns: vec!["localhost".to_owned()], ..Names::default() };
    let identity = authority.issue("kube-apiserver", &[], &names, Usage::Server, now, 1).unwrap();
    let settings = EmbeddedSettings::new(Signer::new(b"secret"));
    let cluster = EmbeddedCluster::open(Arc::new(MemoryStore::default()), settings).await.unwrap();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(ask(&cluster, "POST", "/api/v1/namespaces/default/pods", &pod).await.code, 201);
    let (ours, mut node) = tokio::io::duplex(4096);
    cluster.set_streams(Arc::new(OneNode(Mutex::new(Some(ours)))));
    node.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n\r\n")
        .await
        .unwrap();
    let serve = ServeSettings::new(([127, 0, 0, 1], 0).into(), identity);
    let serving = cluster.serve(serve.admin_tokens(vec!["secret".to_owned()])).await.unwrap();
    let (address, shutdown) = (serving.address(), Shutdown::new());
    let running = tokio::spawn(serving.run(shutdown.clone()));

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.certificate().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut client = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    client
        .write_all(
            b"POST /api/v1/namespaces/default/pods/p/exec?command=x HTTP/1.1\r\nHost: localhost\r\n\
            Authorization: Bearer secret\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
        )
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    client.write_all(b"to the node").await.unwrap();
    let mut said = [0; 11];
    node.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"to the node");

    shutdown.request();
    running.await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), node.read(&mut said)).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
}
