//! Custom kinds.

use serde_json::{Value, json};

use super::{
    Bench, ClusterHarness,
    bench::{names, text},
};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Defines a kind of the bench's own; returns the path of its objects and the API version.
async fn define(bench: &Bench) -> (String, String) {
    let group = format!("{}.kit.invalid", bench.namespace);
    let spec = json!({"type": "object", "required": ["heat"], "properties": {
        "heat": {"type": "integer", "minimum": 0, "maximum": 1400},
        "mode": {"type": "string", "enum": ["slow", "fast"], "default": "slow"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "plain": {"type": "array", "items": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "zones": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["row", "side"],
            "items": {"type": "object", "required": ["row"], "properties": {
                "row": {"type": "integer"}, "side": {"type": "string", "default": "left"}, "heat": {"type": "integer"}, "note": {"type": "string"}}}},
    }});
    let status = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"metadata": {"name": format!("kilns.{group}")}, "spec": {
        "group": group, "scope": "Namespaced", "names": {"plural": "kilns", "singular": "kiln", "kind": "Kiln", "listKind": "KilnList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}}}]}});
    bench.post(DEFINITIONS, &definition).await.with(201);
    let path = format!("/apis/{group}/v1/namespaces/{}/kilns", bench.namespace);
    bench.until(&path, |answer| answer.code == 200).await;
    (path, format!("{group}/v1"))
}

fn kiln(api: &str, spec: Value) -> Value {
    json!({"apiVersion": api, "kind": "Kiln", "metadata": {"name": "k"}, "spec": spec})
}

/// A structural schema holds.
pub async fn objects_of_a_new_definition_are_checked_pruned_and_filled_in(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (path, api) = define(&bench).await;
    let established =
        bench.get(&format!("{DEFINITIONS}/kilns.{}", api.trim_end_matches("/v1"))).await.with(200);
    let conditions = established["status"]["conditions"].as_array().cloned().unwrap_or_default();
    assert!(conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True"), "{established}");
    let wrong = kiln(&api, json!({"heat": 2000, "mode": "never", "zones": [{"side": "left"}]}));
    let status = bench.post(&path, &wrong).await.refused(422, "Invalid");
    for field in ["spec.heat", "spec.mode", "spec.zones[0].row"] {
        let causes = status["details"]["causes"].as_array().unwrap();
        assert!(causes.iter().any(|cause| cause["field"] == field), "{field} is missing: {status}");
    }
    let wish =
        kiln(&api, json!({"heat": 9, "typo": 1, "free": {"any": [1]}, "zones": [{"row": 1, "typo": 2}]}));
    let made = bench.post(&path, &wish).await.with(201);
    assert_eq!(
        made["spec"],
        json!({"heat": 9, "mode": "slow", "free": {"any": [1]}, "zones": [{"row": 1, "side": "left"}]})
    );
    let list = bench.get(&path).await.with(200);
    assert_eq!((&list["kind"], names(&list)), (&json!("KilnList"), vec!["k".to_owned()]));
    let discovered = bench.get(&format!("/apis/{api}")).await.with(200);
    assert!(
        discovered["resources"].as_array().unwrap().iter().any(|kind| kind["name"] == "kilns/status"),
        "{discovered}"
    );
}

/// As for Kubernetes' own kinds.
pub async fn the_status_of_a_custom_kind_is_written_apart(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (path, api) = define(&bench).await;
    let mut wish = kiln(&api, json!({"heat": 9}));
    wish["status"] = json!({"hot": true});
    let made = bench.post(&path, &wish).await.with(201);
    assert_eq!(made.get("status"), None);
    let told = json!({"spec": {"heat": 5}, "status": {"hot": true}});
    let told = bench.patch(&format!("{path}/k/status"), "merge", &told).await.with(200);
    assert_eq!((&told["spec"]["heat"], &told["status"]["hot"]), (&json!(9), &json!(true)));
    let mut wished = told.clone();
    wished["spec"]["heat"] = 7.into();
    wished["status"]["hot"] = false.into();
    let wished = bench.put(&format!("{path}/k"), &wished).await.with(200);
    assert_eq!((&wished["spec"]["heat"], &wished["status"]["hot"]), (&json!(7), &json!(true)));
    assert_eq!(wished["metadata"]["generation"], 2);
}

/// `x-kubernetes-list-type` and `x-kubernetes-map-type`.
pub async fn lists_of_a_custom_kind_merge_as_its_schema_says(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (path, api) = define(&bench).await;
    let path = format!("{path}/k");
    let alice = json!({"heat": 9, "tags": ["a"], "whole": {"x": "1"}, "zones": [{"row": 1, "heat": 1}, {"row": 1, "side": "right", "heat": 2}]});
    bench.apply(&path, "alice", &kiln(&api, alice)).await.with(201);
    let bob =
        json!({"heat": 9, "tags": ["b"], "zones": [{"row": 1, "side": "left", "note": "bob's"}, {"row": 2}]});
    let both = bench.apply(&path, "bob", &kiln(&api, bob)).await.with(200);
    assert_eq!(both["spec"]["tags"], json!(["a", "b"]));
    let zones = json!([{"row": 1, "side": "left", "heat": 1, "note": "bob's"}, {"row": 1, "side": "right", "heat": 2}, {"row": 2, "side": "left"}]);
    assert_eq!(both["spec"]["zones"], zones);
    let less = json!({"heat": 9, "zones": [{"row": 1, "heat": 1}], "whole": {"y": "2"}});
    let left = bench.apply(&path, "alice", &kiln(&api, less)).await.with(200);
    assert_eq!((&left["spec"]["tags"], &left["spec"]["whole"]), (&json!(["b"]), &json!({"y": "2"})));
    let zones = json!([{"row": 1, "side": "left", "heat": 1, "note": "bob's"}, {"row": 2, "side": "left"}]);
    assert_eq!(left["spec"]["zones"], zones);
    let status = bench
        .apply(&path, "bob", &kiln(&api, json!({"heat": 9, "whole": {"z": "3"}})))
        .await
        .refused(409, "Conflict");
    assert_eq!(status["details"]["causes"][0]["field"], ".spec.whole", "{status}");
    bench.apply(&path, "alice", &kiln(&api, json!({"heat": 9, "plain": ["a"]}))).await.with(200);
    let status = bench.apply(&path, "bob", &kiln(&api, json!({"heat": 9, "plain": ["b"]}))).await;
    assert_eq!(
        text(&status.refused(409, "Conflict"), "/details/causes/0/field"),
        ".spec.plain",
        "a list without a type is one thing"
    );
}

/// Its merge keys are nobody's knowledge.
pub async fn a_custom_kind_takes_no_strategic_patch(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (path, api) = define(&bench).await;
    bench.post(&path, &kiln(&api, json!({"heat": 9}))).await.with(201);
    let patch = json!({"spec": {"heat": 5}});
    bench.patch(&format!("{path}/k"), "strategic-merge", &patch).await.refused(415, "UnsupportedMediaType");
    assert_eq!(bench.patch(&format!("{path}/k"), "merge", &patch).await.with(200)["spec"]["heat"], 5);
}

/// And its objects with it.
pub async fn a_definition_that_goes_takes_its_kind_along(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (path, api) = define(&bench).await;
    bench.post(&path, &kiln(&api, json!({"heat": 9}))).await.with(201);
    let definition = format!("{DEFINITIONS}/kilns.{}", api.trim_end_matches("/v1"));
    let mut again = bench.get(&definition).await.with(200);
    bench.delete(&definition, &json!({})).await.with(200);
    bench.until(&definition, |answer| answer.code == 404).await;
    bench.until(&path, |answer| answer.code == 404).await;
    again["metadata"] = json!({"name": again["metadata"]["name"]});
    bench.post(DEFINITIONS, &again).await.with(201);
    let list = bench.until(&path, |answer| answer.code == 200).await.with(200);
    assert_eq!(names(&list), Vec::<String>::new(), "objects outlived their kind");
}
