//! Watches.

use serde_json::json;

use super::{
    Bench, ClusterHarness,
    bench::{text, version},
};

/// A list, then a watch from its version: nothing is missed, nothing told twice.
pub async fn a_watch_tells_every_change_after_its_version(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    bench.config_map("before", json!({"kit": "1"})).await;
    let path = bench.core("configmaps");
    let list = bench.get(&path).await.with(200);
    bench.config_map("a", json!({"kit": "1"})).await;
    let query = format!("labelSelector=kit&resourceVersion={}", version(&list));
    let mut watch = bench.watch(&path, &query).await;
    watch.tells(&[("ADDED", "a")]).await;
    let one = bench.core("configmaps/a");
    let patched = bench.patch(&one, "merge", &json!({"data": {"k": "2"}})).await.with(200);
    bench.delete(&one, &json!({})).await.with(200);
    bench.config_map("b", json!({"kit": "1"})).await;
    let changed = watch.tells(&[("MODIFIED", "a")]).await;
    assert_eq!(changed["object"], patched);
    let gone = watch.tells(&[("DELETED", "a")]).await;
    assert_ne!(version(&gone["object"]), version(&patched), "a deletion is a change of its own");
    watch.tells(&[("ADDED", "b")]).await;
    let mut all = bench.watch(&path, "labelSelector=kit").await;
    let mut names = Vec::new();
    for _ in 0..2 {
        let event = all.next().await.unwrap();
        assert_eq!(event["type"], "ADDED", "without a version, what is there comes first");
        names.push(text(&event, "/object/metadata/name"));
    }
    names.sort();
    assert_eq!(names, ["b", "before"]);
}

/// To who watches a selection, changing a label is coming and going.
pub async fn a_watch_tells_what_comes_to_match_and_what_ceases_to(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let made = bench.config_map("a", json!({"colour": "red"})).await;
    let query = format!("labelSelector=colour=green&resourceVersion={}", version(&made));
    let mut watch = bench.watch(&bench.core("configmaps"), &query).await;
    let one = bench.core("configmaps/a");
    for colour in ["green", "red"] {
        let patch = json!({"metadata": {"labels": {"colour": colour}}});
        bench.patch(&one, "merge", &patch).await.with(200);
    }
    watch.tells(&[("ADDED", "a"), ("DELETED", "a")]).await;
    let mut single = bench
        .watch(
            &bench.core("configmaps"),
            &format!("fieldSelector=metadata.name=b&resourceVersion={}", version(&made)),
        )
        .await;
    bench.config_map("other", json!({})).await;
    bench.config_map("b", json!({})).await;
    single.tells(&[("ADDED", "b")]).await;
}

/// `sendInitialEvents`: a watch that brings its own list.
pub async fn a_bookmark_ends_what_was_there_at_first(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    bench.config_map("a", json!({"kit": "1"})).await;
    let query =
        "labelSelector=kit&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = bench.watch(&bench.core("configmaps"), query).await;
    watch.tells(&[("ADDED", "a")]).await;
    let mark = watch.tells(&[("BOOKMARK", "")]).await;
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(!version(&mark["object"]).is_empty());
    bench.config_map("b", json!({"kit": "1"})).await;
    watch.tells(&[("ADDED", "b")]).await;
}

/// Who watches something quiet can go on from a version that is not forgotten yet.
pub async fn a_bookmark_comes_before_a_watch_ends(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let made = bench.config_map("a", json!({"kit": "1"})).await;
    let query = format!(
        "labelSelector=none&allowWatchBookmarks=true&timeoutSeconds=4&resourceVersion={}",
        version(&made)
    );
    let mut watch = bench.watch(&bench.core("configmaps"), &query).await;
    let last = bench.config_map("b", json!({"kit": "1"})).await;
    let mark = watch.tells(&[("BOOKMARK", "")]).await;
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    let mark = version(&mark["object"]);
    let (told, known): (u64, u64) = (mark.parse().unwrap(), version(&last).parse().unwrap());
    assert!(told >= known, "the bookmark {told} is older than what was written before it, {known}");
    while let Some(event) = watch.next().await {
        assert_eq!(event["type"], "BOOKMARK");
    }
    let mut next = bench.watch(&bench.core("configmaps"), &format!("resourceVersion={mark}")).await;
    bench.config_map("c", json!({})).await;
    next.tells(&[("ADDED", "c")]).await;
}

/// 410 as the first event, as Kubernetes tells it: clients list again then, and many never do after an answer
/// of 410.
pub async fn a_version_that_was_forgotten_is_gone(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let made = bench.config_map("a", json!({})).await;
    bench.config_map("b", json!({})).await;
    if !harness.forget().await {
        crate::conformance::skipped("this cluster cannot be made to forget its history");
        return;
    }
    let bench = bench.acting_as(&harness, &crate::cluster::Actor::Ourselves);
    let path = bench.core("configmaps");
    let mut watch = bench.watch(&path, &format!("resourceVersion={}", version(&made))).await;
    let first = watch.next().await.unwrap();
    assert_eq!(watch.code, 200, "{first}");
    let status = &first["object"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")), "{first}");
    let list = bench.get(&path).await.with(200);
    let mut watch = bench.watch(&path, &format!("resourceVersion={}", version(&list))).await;
    bench.config_map("c", json!({})).await;
    watch.tells(&[("ADDED", "c")]).await;
}
