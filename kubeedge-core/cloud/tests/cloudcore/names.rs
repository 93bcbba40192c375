//! The certificate names the node, and only that node: at the hub, in what it says, at the tunnel.

use kubeedge_core::{
    failure::chain,
    pki::{Authority, Identity},
    transport::{Credentials, Endpoint, Transport},
    tunnel::CLAIM_NODE,
};
use serde_json::{Value, json};

use crate::{
    edge::{Cloud, settings},
    join::{authority, node, now},
};

/// A cloud that wants certificates.
pub(crate) async fn strict() -> (Cloud, Authority) {
    let mut settings = settings();
    settings.hub.identity = Default::default();
    let cloud = Cloud::start(settings).await;
    let ca = authority(&cloud.cluster);
    (cloud, ca)
}

pub(crate) fn shown(identity: &Identity) -> Credentials {
    identity.credentials()
}

/// Dials the tunnel as this node; the refusal if there is one.
pub(crate) async fn dial_tunnel(
    cloud: &Cloud,
    node: &str,
    mut who: Credentials,
) -> Result<kubeedge_core::transport::Link, String> {
    who.claims.push((CLAIM_NODE.to_owned(), node.to_owned()));
    let dialled = cloud.tunnels.dial(&Endpoint::from("tunnel"), &who).await;
    dialled.map_err(|error| chain(&error))
}

#[tokio::test]
async fn hub_and_tunnel_are_open_to_the_one_certificate_that_names_the_node() {
    let (cloud, ca) = strict().await;
    let (ours, other) = (shown(&node(&ca, "edge-1", now())), shown(&node(&ca, "edge-2", now())));
    let mut chained = ours.clone();
    chained.chain.push(ca.certificate().clone());
    let server = shown(&ca.issue_server(&Default::default(), now()).unwrap());
    for (what, who, why) in [
        ("none", Credentials::default(), "no client certificate provided"),
        ("of another node", other, "names \"system:node:edge-2\", not \"system:node:edge-1\""),
        ("of cloudcore", server, "names \"KubeEdge\""),
        ("with a chain", chained, "intermediate certificates are not supported"),
    ] {
        let refused = cloud.dial_with("edge-1", who.clone()).await.map(drop).unwrap_err();
        assert!(chain(&refused).contains(why), "{what}: {refused:?}");
        let refused = dial_tunnel(&cloud, "edge-1", who).await.map(drop).unwrap_err();
        assert!(refused.contains(why), "{what}: {refused}");
    }
    let _edge = cloud.dial_with("edge-1", ours.clone()).await.unwrap();
    let _tunnel = dial_tunnel(&cloud, "edge-1", ours).await.unwrap();
    cloud.stop().await;
}

#[tokio::test]
async fn a_node_asks_for_and_writes_nothing_in_the_name_of_another() {
    let (cloud, ca) = strict().await;
    let mut other = cloud.dial_with("edge-2", shown(&node(&ca, "edge-2", now()))).await.unwrap();
    other.register("edge-2").await;
    let mut edge = cloud.dial_with("edge-1", shown(&node(&ca, "edge-1", now()))).await.unwrap();
    edge.register("edge-1").await;
    let before = cloud.cluster.get("/api/v1/nodes/edge-2").unwrap();
    let lease = json!({"metadata": {"name": "edge-2", "namespace": "kube-node-lease"}, "spec": {}});
    let label = json!({"metadata": {"labels": {"stolen": "yes"}}});
    for (operation, path, content) in [
        ("insert", "null/node/edge-2", label.clone()),
        ("query", "null/node/edge-2", Value::Null),
        ("patch", "default/nodepatch/edge-2", json!({"status": {"phase": "Stolen"}})),
        ("insert", "kube-node-lease/lease/edge-2", lease.clone()),
        ("update", "kube-node-lease/lease/edge-2", lease.clone()),
        ("query", "kube-node-lease/lease/edge-2", Value::Null),
    ] {
        let answer = edge.ask(operation, path, content).await;
        let text = String::from_utf8_lossy(answer.content.as_json()).into_owned();
        assert!(text.contains("is not of node"), "{operation} {path}: {text}");
    }
    // Not answered, and not done.
    let twins = json!({"event_id": "", "timestamp": 0, "twin": {}});
    for (source, group, operation, path, content) in [
        ("edged", "meta", "update", "null/node/edge-2", label.clone()),
        ("edged", "meta", "update", "node/edge-2/null/node/edge-2", label),
        ("twin", "resource", "update", "node/edge-2/device/default/d/twin/edge_updated", twins),
        ("websocket", "hub", "upgrade", "task/t/node/edge-2", json!({})),
    ] {
        edge.tell(source, group, operation, path, content).await;
    }
    let own = edge.ask("query", "null/node/edge-1", Value::Null).await;
    assert_eq!(crate::edge::body(&own)["metadata"]["name"], "edge-1");
    let after = cloud.cluster.get("/api/v1/nodes/edge-2").unwrap();
    assert_eq!(before["metadata"]["labels"], after["metadata"]["labels"]);
    assert_eq!(before["status"], after["status"]);
    cloud.stop().await;
}
