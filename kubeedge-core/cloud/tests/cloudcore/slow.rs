//! Edges over an API server that takes its time.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use kubeedge_cloud::CloudCoreBuilder;
use kubeedge_core::{
    cluster::{Actor, Body, ClusterApi, ClusterError, KubeService},
    name::MessageId,
};
use kubeedge_transport::Adaptive;
use tokio::sync::watch;

use super::*;
use crate::cluster::FakeCluster;

/// A cluster that answers nothing about objects whose path has a part while it is told not to.
#[derive(Clone, Debug)]
struct Slow {
    cluster: FakeCluster,
    part: &'static str,
    held: Arc<watch::Sender<bool>>,
}

#[deny(clippy::missing_trait_methods)]
impl ClusterApi for Slow {
    fn service(&self, _acting_as: &Actor) -> KubeService {
        let this = self.clone();
        KubeService::new(tower::service_fn(move |request| this.clone().serve(request)))
    }
}

impl Slow {
    fn new(part: &'static str) -> Self {
        Self { cluster: FakeCluster::new(), part, held: Arc::new(watch::Sender::new(true)) }
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, ClusterError> {
        if request.uri().path().contains(self.part) {
            self.held.subscribe().wait_for(|held| !held).await.unwrap();
        }
        self.cluster.serve(request).await
    }
}

async fn online(edge: &mut Edge, device: &str) -> MessageId {
    let content = json!({"event_id": "e", "timestamp": 1, "device": {"name": device, "state": "online"}});
    let path = format!("device/default/{device}/state/update");
    edge.tell("twin", "resource", "update", &path, content).await.header.id
}

#[tokio::test]
async fn reports_of_a_device_that_is_deleted_meanwhile_hold_up_nothing_else_of_its_node() {
    let api = Slow::new("/devicestatuses/old");
    let held = api.held.clone();
    let mut three_at_a_time = settings();
    three_at_a_time.hub.per_node.messages = 3;
    let cloud = Cloud::start_over(api.cluster.clone(), Arc::new(api), three_at_a_time).await;
    let mut edge = cloud.edge("edge-1").await;
    cloud.cluster.create(&format!("{DEVICES}/devicemodels"), model());
    for name in ["old-1", "old-2", "new"] {
        cloud.cluster.create(&format!("{DEVICES}/devices"), device(name, "thermo"));
        let pushed = edge.expect_object("insert", &format!("default/device/{name}")).await;
        edge.ack(&pushed).await;
    }
    // The first is being written, the second waits for it, and the device goes.
    online(&mut edge, "old-1").await;
    online(&mut edge, "old-1").await;
    let after = online(&mut edge, "new").await;
    edge.expect("a confirmation", |message| message.header.parent.as_ref() == Some(&after)).await;
    cloud.cluster.delete(&format!("{DEVICES}/devices/old-1"));
    edge.expect_object("delete", "default/device/old-1").await;
    held.send_replace(false);
    edge.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
    // Both places are free again: with two of three taken, a question is still answered.
    held.send_replace(true);
    online(&mut edge, "old-2").await;
    online(&mut edge, "old-2").await;
    let asking = edge.ask("query", "kube-node-lease/lease/edge-1", Value::Null);
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("the node is not heard");
    held.send_replace(false);
    cloud.stop().await;
}

#[tokio::test]
async fn an_edge_of_ours_that_is_not_read_while_the_api_server_hangs_hears_that_the_cloud_is_there() {
    let api = Slow::new("/leases/");
    let held = api.held.clone();
    let mut settings = settings();
    settings.hub.per_node.messages = 1;
    settings.hub.times.keepalive = Duration::from_secs(3);
    let ours = |assembly: CloudCoreBuilder| assembly.codec(Arc::new(Adaptive::default()));
    let cloud = Cloud::assemble(api.cluster.clone(), Arc::new(api), settings, ours).await;
    let mut edge = crate::resync::dial(&cloud).await;
    let lease = edge.tell("edged", "meta", "query", "kube-node-lease/lease/edge-1", Value::Null).await;
    // For longer than it may say nothing itself.
    for _ in 0..4 {
        edge.expect("a word", |message| message.route.operation == "pong").await;
    }
    held.send_replace(false);
    edge.expect("the answer", |message| message.header.parent.as_ref() == Some(&lease.header.id)).await;
    cloud.stop().await;
}
