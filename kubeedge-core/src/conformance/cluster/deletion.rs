//! The end of objects.

use serde_json::json;

use super::{
    Bench, ClusterHarness,
    bench::{names, text, version},
};

/// An object that is being deleted stays until its last finalizer is gone, and takes no new one.
pub async fn a_finalizer_holds_an_object_until_it_is_removed(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let held = json!({"metadata": {"name": "a", "finalizers": ["kit.invalid/one", "kit.invalid/two"]}});
    bench.post(&bench.core("configmaps"), &held).await.with(201);
    let path = bench.core("configmaps/a");
    bench.delete(&path, &json!({})).await.with(200);
    let marked = bench.get(&path).await.with(200);
    assert!(!text(&marked, "/metadata/deletionTimestamp").is_empty(), "{marked}");
    let late = bench
        .patch(&path, "strategic-merge", &json!({"metadata": {"finalizers": ["kit.invalid/late"]}}))
        .await;
    assert_eq!(late.code, 422, "a finalizer was added to what is ending: {}", late.body);
    let one = json!([{"op": "remove", "path": "/metadata/finalizers/0"}]);
    bench.patch(&path, "json", &one).await.with(200);
    let still = bench.get(&path).await.with(200);
    assert_eq!(still["metadata"]["deletionTimestamp"], marked["metadata"]["deletionTimestamp"]);
    bench.patch(&path, "merge", &json!({"metadata": {"finalizers": null}})).await.with(200);
    bench.get(&path).await.refused(404, "NotFound");
}

/// Marked first, gone when the node says so; a shorter time counts, a longer one does not.
pub async fn a_pod_on_a_node_is_given_time_to_end(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let node = format!("{}-node", bench.namespace);
    let (pod, path) = (bench.pod("p", &node).await, bench.core("pods/p"));
    let grace = |seconds: i64| json!({"gracePeriodSeconds": seconds});
    let marked = bench.delete(&path, &grace(100)).await.with(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 100);
    assert!(!text(&marked, "/metadata/deletionTimestamp").is_empty(), "{marked}");
    let sooner = bench.delete(&path, &grace(50)).await.with(200);
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 50);
    let later = bench.delete(&path, &grace(500)).await.with(200);
    assert_eq!(later["metadata"]["deletionGracePeriodSeconds"], 50);
    let end = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}});
    bench.delete(&path, &end).await.with(200);
    bench.get(&path).await.refused(404, "NotFound");
}

/// An edge that comes back must not delete the successor of what it knew.
pub async fn a_precondition_that_does_not_hold_keeps_the_object(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (made, path) = (bench.config_map("a", json!({})).await, bench.core("configmaps/a"));
    let uid = json!({"preconditions": {"uid": "00000000-0000-4000-8000-000000000000"}});
    bench.delete(&path, &uid).await.refused(409, "Conflict");
    let old = json!({"preconditions": {"resourceVersion": version(&made)}});
    bench.patch(&path, "merge", &json!({"data": {"k": "2"}})).await.with(200);
    bench.delete(&path, &old).await.refused(409, "Conflict");
    bench.get(&path).await.with(200);
    bench.delete(&path, &json!({"preconditions": {"uid": made["metadata"]["uid"]}})).await.with(200);
    bench.get(&path).await.refused(404, "NotFound");
}

/// `DELETE` on a collection.
pub async fn a_collection_is_deleted_by_its_labels(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    for (name, colour) in [("a", "red"), ("b", "green"), ("c", "red")] {
        bench.config_map(name, json!({"colour": colour})).await;
    }
    let path = bench.core("configmaps");
    bench.delete(&format!("{path}?labelSelector=colour=red"), &json!({})).await.with(200);
    let left = bench.get(&format!("{path}?labelSelector=colour")).await.with(200);
    assert_eq!(names(&left), ["b"]);
}
