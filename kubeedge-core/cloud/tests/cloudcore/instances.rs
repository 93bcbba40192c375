//! Several cloudcores on one cluster, in one process: one session per node, whoever serves it.

use kubeedge_core::name::NodeName;
use serde_json::{Value, json};

use crate::{
    confirmed,
    edge::{Cloud, Edge, body, settings},
    pod, record, version,
};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Two cloudcores whose machines have these addresses.
async fn two(addresses: [&str; 2]) -> [Cloud; 2] {
    let with = |address: &str| {
        let mut settings = settings();
        settings.objects.address = address.to_owned();
        settings
    };
    let first = Cloud::start(with(addresses[0])).await;
    let second = Cloud::start_on(first.cluster.clone(), with(addresses[1])).await;
    [first, second]
}

async fn takes_a_pod(cloud: &Cloud, edge: &mut Edge, name: &str) {
    let made = cloud.cluster.create(PODS, pod(name, "n"));
    let path = format!("default/pod/{name}");
    let told = edge.expect(&path, |m| m.route.resource == path.as_str()).await;
    edge.ack(&told).await;
    cloud.cluster.until(&record("n", &made), |sync| confirmed(sync) == version(&made)).await;
}

#[tokio::test]
async fn a_node_that_moves_to_another_cloudcore_leaves_its_old_session_behind() {
    for addresses in [["10.0.0.1", "10.0.0.2"], ["10.0.0.1", "10.0.0.1"]] {
        let [first, second] = two(addresses).await;
        let mut old = first.edge("n").await;
        takes_a_pod(&first, &mut old, "a").await;
        // The first cloudcore does not see that the edge has gone.
        let mut new = second.dial("n").await.unwrap();
        while old.next().await.is_some() {}
        first
            .cluster
            .until("/api/v1/nodes/n", |node| node["metadata"]["annotations"]["cloudcore"] == addresses[1])
            .await;
        takes_a_pod(&second, &mut new, "b").await;
        let mut back = first.dial("n").await.unwrap();
        while new.next().await.is_some() {}
        takes_a_pod(&first, &mut back, "c").await;
        let node = NodeName::of("n");
        assert!(first.status.sessions.has(&node) && !second.status.sessions.has(&node));
        first.stop().await;
        second.stop().await;
    }
}

#[tokio::test]
async fn what_happens_while_a_node_is_with_no_cloudcore_reaches_it_through_any() {
    let [first, second] = two(["10.0.0.1", "10.0.0.2"]).await;
    let mut edge = first.edge("n").await;
    takes_a_pod(&first, &mut edge, "kept").await;
    takes_a_pod(&first, &mut edge, "lost").await;
    drop(edge);
    let cluster = first.stop().await;
    cluster.patch(&format!("{PODS}/kept"), json!({"metadata": {"labels": {"a": "b"}}}));
    cluster.delete(&format!("{PODS}/lost"));
    cluster.create(PODS, pod("new", "n"));
    let mut edge = second.dial("n").await.unwrap();
    let mut seen = std::collections::BTreeMap::new();
    while seen.len() < 3 {
        let told = edge.expect("a pod", |m| m.route.resource.as_str().starts_with("default/pod/")).await;
        edge.ack(&told).await;
        seen.insert(told.route.resource.as_str().to_owned(), told);
    }
    assert_eq!(seen["default/pod/lost"].route.operation, "delete");
    assert_eq!(body(&seen["default/pod/kept"])["metadata"]["labels"], json!({"a": "b"}));
    let lease = edge.ask("query", "kube-node-lease/lease/n", Value::Null).await;
    assert_eq!(body(&lease)["Err"]["ErrStatus"]["reason"], "NotFound");
    second.stop().await;
}
