//! Who may do what, as far as the seam knows: ourselves everything, a node only what is its own.

use serde_json::json;

use super::{Bench, ClusterHarness};
use crate::{cluster::Actor, conformance::skipped};

/// A node looks after itself.
pub async fn a_node_writes_its_own_status_and_no_others(harness: impl ClusterHarness) {
    if !harness.restricts_nodes() {
        skipped("this cluster does not restrict nodes");
        return;
    }
    let bench = Bench::of(&harness).await;
    let (own, other) = (format!("{}-own", bench.namespace), format!("{}-other", bench.namespace));
    let node = bench.acting_as(&harness, &Actor::Node(own.as_str().into()));
    node.post("/api/v1/nodes", &json!({"metadata": {"name": own}})).await.with(201);
    bench.post("/api/v1/nodes", &json!({"metadata": {"name": other}})).await.with(201);
    let status = json!({"status": {"nodeInfo": {"osImage": "kit"}}});
    node.patch(&format!("/api/v1/nodes/{own}/status"), "merge", &status).await.with(200);
    let refused = node.patch(&format!("/api/v1/nodes/{other}/status"), "merge", &status).await;
    let refused = refused.refused(403, "Forbidden");
    let who = format!("system:node:{own}");
    assert!(refused["message"].as_str().unwrap().contains(&who), "{refused}");
    let lease = json!({"metadata": {"name": own}, "spec": {"holderIdentity": own}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    node.post(leases, &lease).await.with(201);
    node.patch(&format!("{leases}/{own}"), "merge", &json!({"spec": {"leaseDurationSeconds": 40}}))
        .await
        .with(200);
    for name in [own, other] {
        bench.delete(&format!("/api/v1/nodes/{name}"), &json!({})).await.with(200);
    }
}

/// A stolen node certificate must not be the key to the cluster.
pub async fn a_node_does_not_write_what_people_write(harness: impl ClusterHarness) {
    if !harness.restricts_nodes() {
        skipped("this cluster does not restrict nodes");
        return;
    }
    let bench = Bench::of(&harness).await;
    let node = bench.acting_as(&harness, &Actor::Node("kit-node".into()));
    let made = bench.config_map("a", json!({})).await;
    let path = bench.core("configmaps/a");
    node.put(&path, &made).await.refused(403, "Forbidden");
    node.delete(&path, &json!({})).await.refused(403, "Forbidden");
    node.patch(&path, "merge", &json!({"data": {"k": "2"}})).await.refused(403, "Forbidden");
    node.post(&bench.core("secrets"), &json!({"metadata": {"name": "s"}})).await.refused(403, "Forbidden");
    node.post(&bench.apps("deployments"), &super::bench::deployment("d")).await.refused(403, "Forbidden");
    node.delete(&bench.core("configmaps"), &json!({})).await.refused(403, "Forbidden");
    assert_eq!(bench.get(&path).await.with(200), made);
}
