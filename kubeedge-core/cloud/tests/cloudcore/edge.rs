//! A running cloud, and an edge that speaks Go's JSON to it.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kubeedge_cloud::{
    CloudCore, CloudCoreBuilder, CloudCoreSettings, CloudStatus, hub::NodeIdentity,
    stream::CloudStreamSettings,
};
use kubeedge_core::{
    bus::Bus,
    cluster::ClusterApi,
    kernel::Shutdown,
    message::{Content, Message},
    name::Operation,
    transport::{Credentials, Endpoint, Frame, Link, Transport, TransportError},
    wire::{Codec, GoJson},
};
use kubeedge_transport::Adaptive;
use serde_json::{Value, json};

use crate::{cluster::FakeCluster, network::Network};

const WAIT: Duration = Duration::from_secs(60);

/// A cloudcore over a cluster and a network in memory.
pub(crate) struct Cloud {
    pub(crate) cluster: FakeCluster,
    pub(crate) network: Arc<Network>,
    /// Where tunnels are dialled.
    pub(crate) tunnels: Arc<Network>,
    pub(crate) status: CloudStatus,
    /// The way to the modules.
    pub(crate) bus: Bus,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<()>,
}

pub(crate) fn settings() -> CloudCoreSettings {
    let mut settings = CloudCoreSettings::default();
    settings.hub.identity = NodeIdentity::Claim;
    settings.hub.times.resend = Duration::from_secs(1);
    // An edge of a test says that it is there once, and machines that test are busy.
    settings.hub.times.keepalive = Duration::from_secs(300);
    settings.certs.listen = ([127, 0, 0, 1], 0).into();
    settings.certs.names = vec!["127.0.0.1".to_owned()];
    settings.objects.address = "10.0.0.1".to_owned();
    settings.sync.every = Duration::from_millis(500);
    settings.stream = Some(CloudStreamSettings::default());
    settings
}

impl Cloud {
    pub(crate) async fn start(settings: CloudCoreSettings) -> Self {
        Self::start_on(FakeCluster::new(), settings).await
    }

    pub(crate) async fn start_on(cluster: FakeCluster, settings: CloudCoreSettings) -> Self {
        let api = Arc::new(cluster.clone());
        Self::start_over(cluster, api, settings).await
    }

    /// On a cluster that is reached in a way of its own.
    pub(crate) async fn start_over(
        cluster: FakeCluster,
        api: Arc<dyn ClusterApi>,
        settings: CloudCoreSettings,
    ) -> Self {
        Self::assemble(cluster, api, settings, |assembly| assembly).await
    }

    /// A cloudcore with something more in it.
    pub(crate) async fn start_with(
        settings: CloudCoreSettings,
        more: impl FnOnce(CloudCoreBuilder) -> CloudCoreBuilder,
    ) -> Self {
        let cluster = FakeCluster::new();
        let api = Arc::new(cluster.clone());
        Self::assemble(cluster, api, settings, more).await
    }

    /// The same with something more in it.
    pub(crate) async fn assemble(
        cluster: FakeCluster,
        api: Arc<dyn ClusterApi>,
        settings: CloudCoreSettings,
        more: impl FnOnce(CloudCoreBuilder) -> CloudCoreBuilder,
    ) -> Self {
        let (network, tunnels) = (Arc::<Network>::default(), Arc::<Network>::default());
        let assembly = CloudCore::assemble(settings, network.clone(), api).tunnel_over(tunnels.clone());
        let core = more(assembly).build().await.unwrap();
        let (status, bus, shutdown) = (core.status(), core.bus(), Shutdown::new());
        let until = shutdown.clone();
        let running = tokio::spawn(async move {
            core.run(async move { until.requested().await }).await.unwrap();
        });
        tokio::time::timeout(WAIT, status.ready()).await.expect("the cloud is ready in time");
        Self { cluster, network, tunnels, status, bus, shutdown, running }
    }

    pub(crate) async fn stop(self) -> FakeCluster {
        self.shutdown.request();
        tokio::time::timeout(WAIT, self.running).await.expect("the cloud ends in time").unwrap();
        self.cluster
    }

    pub(crate) async fn dial(&self, node: &str) -> Result<Edge, TransportError> {
        self.dial_with(node, Credentials::default()).await
    }

    pub(crate) async fn dial_with(&self, node: &str, mut who: Credentials) -> Result<Edge, TransportError> {
        who.claims.push(("node_id".to_owned(), node.to_owned()));
        let link = self.network.dial(&Endpoint::from("hub"), &who).await?;
        let mut edge = Edge { link };
        edge.tell("websocket", "resource", "keepalive", "node", json!("ping")).await;
        Ok(edge)
    }

    /// An edge that has connected and registered its node.
    pub(crate) async fn edge(&self, node: &str) -> Edge {
        let mut edge = self.dial(node).await.unwrap();
        edge.register(node).await;
        edge
    }
}

/// The edge's end of a link.
pub(crate) struct Edge {
    pub(crate) link: Link,
}

impl Edge {
    pub(crate) async fn send(&mut self, message: &Message) {
        self.link.tx.send(GoJson.encode(message).unwrap()).await.unwrap();
    }

    pub(crate) async fn raw(&mut self, text: &str) {
        self.link.tx.send(Frame::text(text.to_owned())).await.unwrap();
    }

    pub(crate) async fn tell(
        &mut self,
        source: &str,
        group: &str,
        operation: &str,
        path: &str,
        content: Value,
    ) -> Message {
        let message = Message::new(source.into(), operation.into(), path)
            .in_group(group.into())
            .with(Content::json(&content).unwrap());
        self.send(&message).await;
        message
    }

    /// The next message of the cloud; `None` when it has closed the link.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let frame = tokio::time::timeout(WAIT, self.link.rx.next()).await.expect("a message in time")?;
        Some(Adaptive::default().decode(frame.unwrap()).unwrap())
    }

    /// Waits for a message, passing over others without confirming them.
    pub(crate) async fn expect(&mut self, what: &str, wished: impl Fn(&Message) -> bool) -> Message {
        loop {
            let message = self.next().await.unwrap_or_else(|| panic!("the link closed before {what}"));
            if wished(&message) {
                return message;
            }
        }
    }

    pub(crate) async fn expect_object(&mut self, operation: &str, path: &str) -> Message {
        self.expect(&format!("{operation} {path}"), |message| {
            message.route.operation == operation && message.route.resource == path
        })
        .await
    }

    pub(crate) async fn ask(&mut self, operation: &str, path: &str, content: Value) -> Message {
        let question = self.tell("edged", "meta", operation, path, content).await;
        self.expect(&format!("the answer to {operation} {path}"), |message| {
            message.header.parent.as_ref() == Some(&question.header.id)
        })
        .await
    }

    /// Confirms a message as Go's metamanager does.
    pub(crate) async fn ack(&mut self, message: &Message) {
        let mut ack = message.answer(Content::ok());
        ack.route.operation = Operation::RESPONSE;
        self.send(&ack).await;
    }

    pub(crate) async fn register(&mut self, node: &str) -> Value {
        let path = format!("null/node/{node}");
        let body = json!({"metadata": {"name": node, "labels": {"node-role.kubernetes.io/edge": "", "rack": "7"}},
            "spec": {}, "status": {}});
        let answer = self.ask("insert", &path, body).await;
        assert_eq!(answer.route.operation, "response");
        let answer: Value = answer.content.decode().unwrap();
        assert_eq!(answer["Err"], Value::Null, "{answer}");
        let pushed = self.expect_object("update", &path).await;
        self.ack(&pushed).await;
        answer["Object"].clone()
    }
}

pub(crate) fn body(message: &Message) -> Value {
    message.content.decode().unwrap()
}
