//! Patches of three forms.

use serde_json::{Value, json};

use super::{
    Bench, ClusterHarness,
    bench::{deployment, version},
};

/// RFC 6902.
pub async fn a_json_patch_changes_what_it_names(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    bench.config_map("a", json!({"x/y": "1"})).await;
    let path = bench.core("configmaps/a");
    let patch = json!([
        {"op": "test", "path": "/data/k", "value": "1"},
        {"op": "replace", "path": "/metadata/labels/x~1y", "value": "2"},
        {"op": "add", "path": "/data/n", "value": "3"},
        {"op": "remove", "path": "/data/k"},
    ]);
    let patched = bench.patch(&path, "json", &patch).await.with(200);
    assert_eq!((&patched["data"], &patched["metadata"]["labels"]["x/y"]), (&json!({"n": "3"}), &json!("2")));
    bench.patch(&path, "json", &patch).await.refused(422, "Invalid");
    assert_eq!(version(&bench.get(&path).await.with(200)), version(&patched), "half a patch was applied");
}

/// RFC 7386.
pub async fn a_merge_patch_replaces_lists_and_removes_by_null(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    bench.post(&bench.apps("deployments"), &deployment("d")).await.with(201);
    let path = bench.apps("deployments/d");
    let containers = json!([{"name": "other", "image": "registry.invalid/other:1"}]);
    let patch = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"template": {"spec": {"containers": containers}}}});
    let patched = bench.patch(&path, "merge", &patch).await.with(200);
    let list = patched["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
    assert_eq!((list.len(), &list[0]["name"]), (1, &json!("other")));
    let without = bench.patch(&path, "merge", &json!({"metadata": {"labels": null}})).await.with(200);
    assert_eq!(without["metadata"].get("labels"), None);
}

/// Kubernetes' own form: lists of objects merge by key, with directives.
pub async fn a_strategic_patch_merges_containers_by_name(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let mut wish = deployment("d");
    let containers = json!([
        {"name": "main", "image": "registry.invalid/main:1", "args": ["x"], "env": [{"name": "A", "value": "1"}]},
        {"name": "side", "image": "registry.invalid/side:1"},
    ]);
    wish["spec"]["template"]["spec"]["containers"] = containers;
    bench.post(&bench.apps("deployments"), &wish).await.with(201);
    let path = bench.apps("deployments/d");
    let of = |list: Value| json!({"spec": {"template": {"spec": {"containers": list}}}});
    let patch = of(
        json!([{"name": "main", "image": "registry.invalid/main:2", "args": ["y"], "env": [{"name": "B", "value": "2"}]}]),
    );
    let patched = bench.patch(&path, "strategic-merge", &patch).await.with(200);
    let list = &patched["spec"]["template"]["spec"]["containers"];
    let by = |name: &str| {
        list.as_array().unwrap().iter().find(|item| item["name"] == name).cloned().unwrap_or_default()
    };
    let (main, side) = (by("main"), by("side"));
    assert_eq!((&main["image"], &main["args"]), (&json!("registry.invalid/main:2"), &json!(["y"])));
    assert_eq!(main["env"].as_array().map(Vec::len), Some(2), "{main}");
    assert_eq!(side["image"], "registry.invalid/side:1");
    let gone = of(json!([{"name": "side", "$patch": "delete"}]));
    let patched = bench.patch(&path, "strategic-merge", &gone).await.with(200);
    assert_eq!(patched["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len), Some(1));
}

/// A patch that names a version means that version only.
pub async fn a_patch_of_an_old_version_conflicts(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (made, path) = (bench.config_map("a", json!({})).await, bench.core("configmaps/a"));
    bench.patch(&path, "merge", &json!({"data": {"k": "2"}})).await.with(200);
    let old = json!({"metadata": {"resourceVersion": version(&made)}, "data": {"k": "3"}});
    for form in ["merge", "strategic-merge"] {
        bench.patch(&path, form, &old).await.refused(409, "Conflict");
    }
    assert_eq!(bench.get(&path).await.with(200)["data"]["k"], "2");
}

/// A form nobody knows.
pub async fn a_patch_of_an_unknown_form_is_refused(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    bench.config_map("a", json!({})).await;
    let path = bench.core("configmaps/a");
    bench.patch(&path, "telepathic", &json!({"data": {"k": "2"}})).await.refused(415, "UnsupportedMediaType");
    assert_eq!(bench.get(&path).await.with(200)["data"]["k"], "1");
}
