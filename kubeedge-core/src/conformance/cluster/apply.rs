//! Server-side apply.

use serde_json::{Value, json};

use super::{
    Bench, ClusterHarness,
    bench::{deployment, text, version},
};

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn managers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["managedFields"].as_array().unwrap();
    list.iter().map(|entry| text(entry, "/manager")).collect()
}

/// Create or change, whichever is due.
pub async fn applying_makes_what_is_not_there(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = bench.core("configmaps/a");
    let made = bench.apply(&path, "alice", &map(json!({"k": "1"}))).await.with(201);
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["operation"]), (&json!("alice"), &json!("Apply")));
    assert_eq!(entry["fieldsV1"]["f:data"]["f:k"], json!({}), "{entry}");
    assert_eq!(bench.apply(&path, "alice", &map(json!({"k": "2"}))).await.with(200)["data"]["k"], "2");
}

/// A field has one owner unless both want it alike.
pub async fn applying_a_field_of_another_conflicts_unless_forced(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = bench.core("configmaps/a");
    bench.apply(&path, "alice", &map(json!({"k": "1", "same": "s"}))).await.with(201);
    let bobs = map(json!({"k": "2", "same": "s", "own": "o"}));
    let status = bench.apply(&path, "bob", &bobs).await.refused(409, "Conflict");
    let causes = &status["details"]["causes"];
    assert_eq!(
        (causes.as_array().map(Vec::len), &causes[0]["field"]),
        (Some(1), &json!(".data.k")),
        "{status}"
    );
    assert_eq!(causes[0]["reason"], "FieldManagerConflict");
    assert!(text(&causes[0], "/message").contains("alice"), "{status}");
    let forced = bench.apply(&format!("{path}?force=true"), "bob", &bobs).await.with(200);
    assert_eq!((&forced["data"]["k"], managers(&forced).len()), (&json!("2"), 2));
    let status = bench.apply(&path, "alice", &map(json!({"k": "1"}))).await.refused(409, "Conflict");
    assert!(text(&status, "/message").contains("bob"), "{status}");
    let mut edited = forced.clone();
    edited["data"]["k"] = "3".into();
    bench.put(&format!("{path}?fieldManager=editor"), &edited).await.with(200);
    let status = bench.apply(&path, "bob", &bobs).await.refused(409, "Conflict");
    assert!(text(&status, "/message").contains("editor"), "an update took the field: {status}");
}

/// What its last owner leaves out goes.
pub async fn a_field_no_longer_applied_is_removed(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = bench.core("configmaps/a");
    bench.apply(&path, "alice", &map(json!({"k": "1", "both": "b"}))).await.with(201);
    bench.apply(&path, "bob", &map(json!({"both": "b", "own": "o"}))).await.with(200);
    let left = bench.apply(&path, "alice", &map(json!({}))).await.with(200);
    assert_eq!(left["data"], json!({"both": "b", "own": "o"}));
}

/// Nobody owns what is not there.
pub async fn a_field_that_somebody_removed_conflicts_no_more(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = bench.core("configmaps/a");
    bench.apply(&path, "alice", &map(json!({"k": "1", "other": "1"}))).await.with(201);
    bench.patch(&path, "merge", &json!({"data": {"k": null}})).await.with(200);
    let taken = bench.apply(&path, "bob", &map(json!({"k": "2"}))).await.with(200);
    assert_eq!(taken["data"], json!({"k": "2", "other": "1"}));
}

/// DNS listens on 53 twice. The protocol is TCP where it is left out.
pub async fn ports_of_one_number_are_told_apart_by_their_protocol(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = bench.apps("deployments/d");
    let with_ports = |ports: Value| {
        let mut object = deployment("d");
        object["spec"]["template"]["spec"]["containers"][0]["ports"] = ports;
        object
    };
    let tcp = with_ports(json!([{"containerPort": 53, "name": "tcp"}]));
    bench.apply(&path, "alice", &tcp).await.with(201);
    let udp = with_ports(json!([{"containerPort": 53, "protocol": "UDP", "name": "udp"}]));
    let both = bench.apply(&path, "bob", &udp).await.with(200);
    let ports = &both["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(
        ports,
        &json!([{"containerPort": 53, "protocol": "TCP", "name": "tcp"}, {"containerPort": 53, "protocol": "UDP", "name": "udp"}])
    );
    let one = bench.apply(&path, "alice", &with_ports(json!([]))).await.with(200);
    let ports = &one["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(ports, &json!([{"containerPort": 53, "protocol": "UDP", "name": "udp"}]));
    let renamed = with_ports(json!([{"containerPort": 53, "protocol": "UDP", "name": "dns"}]));
    let status = bench.apply(&path, "alice", &renamed).await.refused(409, "Conflict");
    assert!(text(&status, "/details/causes/0/field").ends_with(".name"), "{status}");
}

/// Some maps are one thing: half of a selector would select something else.
pub async fn a_selector_is_applied_as_a_whole(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = bench.core("services/s");
    let service = |selector: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"clusterIP": "None", "selector": selector, "ports": [{"port": 53, "protocol": "UDP"}]}})
    };
    bench.apply(&path, "alice", &service(json!({"app": "a", "tier": "front"}))).await.with(201);
    let changed = bench.apply(&path, "alice", &service(json!({"app": "b"}))).await.with(200);
    assert_eq!(changed["spec"]["selector"], json!({"app": "b"}));
    let status =
        bench.apply(&path, "bob", &service(json!({"app": "b", "more": "x"}))).await.refused(409, "Conflict");
    assert_eq!(status["details"]["causes"][0]["field"], ".spec.selector", "{status}");
}

/// GitOps applies everything every minute.
pub async fn applying_the_same_again_makes_no_version(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = bench.apps("deployments/d");
    let made = bench.apply(&path, "alice", &deployment("d")).await.with(201);
    let again = bench.apply(&path, "alice", &deployment("d")).await.with(200);
    assert_eq!(version(&again), version(&made));
}

/// Without a name there is no owner.
pub async fn applying_needs_a_manager(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let body = map(json!({"k": "1"})).to_string();
    let headers = [("content-type", "application/apply-patch+yaml")];
    let answer = bench.call("PATCH", &bench.core("configmaps/a"), &headers, body.into()).await;
    assert!(matches!(answer.code, 400 | 422), "{}", answer.body);
    let mut managed = map(json!({"k": "1"}));
    managed["metadata"]["managedFields"] = json!([{"manager": "forged"}]);
    bench.apply(&bench.core("configmaps/a"), "alice", &managed).await.refused(400, "BadRequest");
}
