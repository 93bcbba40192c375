//! Objects: made, read, replaced.

use serde_json::{Value, json};

use super::{
    Bench, ClusterHarness,
    bench::{deployment, names, text, version},
};

/// The life of an object.
pub async fn what_is_created_is_read_listed_and_deleted(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let made = bench.config_map("a", json!({"tier": "front"})).await;
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    let path = bench.core("configmaps/a");
    assert_eq!(bench.get(&path).await.with(200), made);
    let list = bench.get(&bench.core("configmaps")).await.with(200);
    assert_eq!(list["kind"], "ConfigMapList");
    assert!(names(&list).contains(&"a".to_owned()) && !version(&list).is_empty());
    bench.delete(&path, &json!({})).await.with(200);
    bench.get(&path).await.refused(404, "NotFound");
}

/// The second of a name is refused, whatever it says.
pub async fn a_name_that_is_taken_is_refused(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let made = bench.config_map("a", json!({})).await;
    let path = bench.core("configmaps");
    let status = bench.post(&path, &json!({"metadata": {"name": "a"}})).await.refused(409, "AlreadyExists");
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps"}));
    assert_eq!(bench.get(&bench.core("configmaps/a")).await.with(200), made);
}

/// Every verb on an object that is not there names the object.
pub async fn what_is_not_there_is_not_found(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = bench.apps("deployments/none");
    for answer in [
        bench.get(&path).await,
        bench.delete(&path, &json!({})).await,
        bench.patch(&path, "merge", &json!({"metadata": {"labels": {"a": "b"}}})).await,
        bench.get(&bench.apps("deployments/none/scale")).await,
    ] {
        let status = answer.refused(404, "NotFound");
        assert_eq!(status["details"], json!({"name": "none", "group": "apps", "kind": "deployments"}));
        assert_eq!(status["message"], "deployments.apps \"none\" not found");
    }
}

/// Who read before another wrote must read again.
pub async fn an_update_of_an_old_version_conflicts(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (mut old, path) = (bench.config_map("a", json!({})).await, bench.core("configmaps/a"));
    let mut new = old.clone();
    new["data"]["k"] = "2".into();
    let new = bench.put(&path, &new).await.with(200);
    assert_ne!(version(&new), version(&old));
    old["data"]["k"] = "3".into();
    bench.put(&path, &old).await.refused(409, "Conflict");
    assert_eq!(bench.get(&path).await.with(200)["data"]["k"], "2");
    old["metadata"]["resourceVersion"] = Value::Null;
    assert_eq!(bench.put(&path, &old).await.with(200)["data"]["k"], "3", "no version is any version");
}

/// `generateName`.
pub async fn a_name_is_made_from_a_prefix(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let wish = json!({"metadata": {"generateName": "run-"}});
    let mut made = Vec::new();
    for _ in 0..5 {
        let map = bench.post(&bench.core("configmaps"), &wish).await.with(201);
        let name = text(&map, "/metadata/name");
        assert!(name.len() == 9 && name.starts_with("run-") && !made.contains(&name), "{name}");
        assert_eq!(map["metadata"]["generateName"], "run-");
        made.push(name);
    }
    let nameless = bench.post(&bench.core("configmaps"), &json!({"metadata": {}})).await;
    nameless.refused(422, "Invalid");
}

/// uid, times, versions and namespace.
pub async fn what_is_the_servers_no_client_sets(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let wish = json!({"metadata": {"name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "deletionTimestamp": "2001-01-01T00:00:00Z", "generation": 77}});
    let made = bench.post(&bench.core("configmaps"), &wish).await.with(201);
    let meta = &made["metadata"];
    assert_ne!(meta["uid"], "mine");
    assert!(!text(&made, "/metadata/creationTimestamp").starts_with("2001"), "{made}");
    assert_eq!((&meta["namespace"], meta.get("deletionTimestamp")), (&json!(bench.namespace), None));
    let mut other = made.clone();
    other["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
    let path = bench.core("configmaps/a");
    assert_eq!(
        bench.put(&path, &other).await.with(200)["metadata"]["creationTimestamp"],
        meta["creationTimestamp"]
    );
    other["metadata"]["uid"] = "00000000-0000-4000-8000-000000000000".into();
    assert_eq!(bench.put(&path, &other).await.code, 409, "another object of this name");
    let elsewhere = json!({"metadata": {"name": "b", "namespace": "elsewhere"}});
    bench.post(&bench.core("configmaps"), &elsewhere).await.refused(400, "BadRequest");
    let misnamed = json!({"metadata": {"name": "b"}});
    bench.put(&path, &misnamed).await.refused(400, "BadRequest");
}

/// `metadata.generation` is for controllers to see what is new to them.
pub async fn each_change_of_the_specification_counts_a_generation(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let made = bench.post(&bench.apps("deployments"), &deployment("d")).await.with(201);
    assert_eq!(made["metadata"]["generation"], 1);
    let path = bench.apps("deployments/d");
    let labelled = bench.patch(&path, "merge", &json!({"metadata": {"labels": {"a": "b"}}})).await.with(200);
    assert_eq!(labelled["metadata"]["generation"], 1);
    let paused = bench.patch(&path, "merge", &json!({"spec": {"paused": true}})).await.with(200);
    assert_eq!(paused["metadata"]["generation"], 2);
    let told = json!({"status": {"observedGeneration": 2}});
    let told = bench.patch(&format!("{path}/status"), "merge", &told).await;
    assert_eq!(told.with(200)["metadata"]["generation"], 2);
}

/// Nobody is woken for nothing.
pub async fn a_write_that_changes_nothing_makes_no_version(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (made, path) = (bench.config_map("a", json!({"x": "y"})).await, bench.core("configmaps/a"));
    assert_eq!(version(&bench.put(&path, &made).await.with(200)), version(&made));
    let same = json!({"metadata": {"labels": {"x": "y"}}});
    for form in ["merge", "strategic-merge"] {
        assert_eq!(version(&bench.patch(&path, form, &same).await.with(200)), version(&made));
    }
}

/// A name belongs to its namespace.
pub async fn namespaces_are_kept_apart(harness: impl ClusterHarness) {
    let (one, two) = (Bench::of(&harness).await, Bench::of(&harness).await);
    one.config_map("a", json!({"of": "one"})).await;
    two.get(&two.core("configmaps/a")).await.refused(404, "NotFound");
    two.config_map("a", json!({"of": "two"})).await;
    two.delete(&two.core("configmaps/a"), &json!({})).await.with(200);
    assert_eq!(one.get(&one.core("configmaps/a")).await.with(200)["metadata"]["labels"]["of"], "one");
    two.config_map("b", json!({"kit": one.namespace.clone()})).await;
    let all = one.get(&format!("/api/v1/configmaps?labelSelector=kit={}", one.namespace)).await.with(200);
    assert_eq!(names(&all), ["b"], "a list over all namespaces");
}

/// A namespace must be there first.
pub async fn nothing_is_made_in_a_namespace_that_is_not_there(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = format!("/api/v1/namespaces/{}-not/configmaps", bench.namespace);
    let status = bench.post(&path, &json!({"metadata": {"name": "a"}})).await.refused(404, "NotFound");
    assert_eq!(status["details"]["kind"], "namespaces");
    assert_eq!(names(&bench.get(&path).await.with(200)), Vec::<String>::new());
}

/// A kind nobody defined. Some API servers tell of it in plain text.
pub async fn an_unknown_kind_is_not_found(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    for path in ["/apis/nobody.invalid/v1/things", "/api/v1/things", "/apis/apps/v7/deployments", "/nothing"]
    {
        let answer = bench.get(path).await;
        assert_eq!(answer.code, 404, "{path}: {}", answer.body);
        assert!(answer.body.is_null() || answer.body["reason"] == "NotFound", "{path}: {}", answer.body);
    }
}

/// Scope is part of the path.
pub async fn a_kind_of_the_whole_cluster_is_not_found_in_a_namespace(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    assert_eq!(bench.get(&bench.core("nodes")).await.code, 404);
    assert_eq!(bench.post(&bench.core("nodes"), &json!({"metadata": {"name": "n"}})).await.code, 404);
    let homeless = bench.post("/api/v1/configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(homeless.code, 405, "{}", homeless.body);
}

/// Everything that is wrong is told at once, each with its field.
pub async fn an_invalid_object_is_refused_with_every_cause(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let mut wrong = deployment("Wrong_Name");
    wrong["spec"]["template"]["metadata"]["labels"]["app"] = "other".into();
    wrong["spec"]["template"]["spec"]["containers"][0]["name"] = "".into();
    let status = bench.post(&bench.apps("deployments"), &wrong).await.refused(422, "Invalid");
    assert_eq!(
        (&status["details"]["group"], &status["details"]["kind"]),
        (&json!("apps"), &json!("Deployment"))
    );
    let causes: Vec<_> = status["details"]["causes"].as_array().unwrap().iter().collect();
    for field in ["metadata.name", "spec.template.metadata.labels", "spec.template.spec.containers[0].name"] {
        let cause = causes.iter().find(|cause| cause["field"] == field);
        let cause = cause.unwrap_or_else(|| panic!("{field} is missing: {status}"));
        assert!(!text(cause, "/reason").is_empty() && !text(cause, "/message").is_empty(), "{status}");
        assert!(text(&status, "/message").contains(field), "{status}");
    }
    assert_eq!(names(&bench.get(&bench.apps("deployments")).await.with(200)), Vec::<String>::new());
}

/// Broken JSON, lists, other kinds.
pub async fn a_body_that_is_no_object_is_refused(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let headers = [("content-type", "application/json")];
    for body in ["{", "[]", "5", r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}"#] {
        let answer = bench.call("POST", &bench.core("configmaps"), &headers, body.into()).await;
        answer.refused(400, "BadRequest");
    }
}

/// The status is the controllers', the specification the people's.
pub async fn status_and_specification_are_written_apart(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let mut wish = deployment("d");
    wish["status"] = json!({"observedGeneration": 99});
    let made = bench.post(&bench.apps("deployments"), &wish).await.with(201);
    assert_ne!(made["status"]["observedGeneration"], 99, "a status came with a creation");
    let (path, of_status) = (bench.apps("deployments/d"), bench.apps("deployments/d/status"));
    let both = json!({"metadata": {"labels": {"late": "yes"}}, "spec": {"paused": true}, "status": {"unavailableReplicas": 5}});
    let told = bench.patch(&of_status, "merge", &both).await.with(200);
    assert_eq!((&told["status"]["unavailableReplicas"], told["spec"].get("paused")), (&json!(5), None));
    let both = json!({"spec": {"paused": true}, "status": {"unavailableReplicas": 6}});
    let wished = bench.patch(&path, "merge", &both).await.with(200);
    assert_eq!(
        (&wished["status"]["unavailableReplicas"], &wished["spec"]["paused"]),
        (&json!(5), &json!(true))
    );
    assert_eq!(bench.get(&of_status).await.with(200), wished);
}

/// `dryRun=All` goes as far as it can.
pub async fn a_dry_run_answers_as_a_real_one_and_changes_nothing(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (maps, path) = (format!("{}?dryRun=All", bench.core("configmaps")), bench.core("configmaps/a"));
    let dry = format!("{path}?dryRun=All");
    let wish = json!({"metadata": {"name": "a"}, "data": {"k": "2"}});
    assert_eq!(bench.post(&maps, &wish).await.with(201)["data"]["k"], "2");
    assert_eq!(
        bench
            .apply(&dry, "kit", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}))
            .await
            .code,
        201
    );
    bench.get(&path).await.refused(404, "NotFound");
    let made = bench.config_map("a", json!({})).await;
    bench.post(&maps, &wish).await.refused(409, "AlreadyExists");
    assert_eq!(bench.patch(&dry, "merge", &json!({"data": {"k": "2"}})).await.with(200)["data"]["k"], "2");
    bench.delete(&dry, &json!({})).await.with(200);
    bench.delete(&path, &json!({"dryRun": ["All"]})).await.with(200);
    assert_eq!(bench.get(&path).await.with(200), made);
}

/// `fieldValidation`.
pub async fn an_unknown_field_is_warned_of_or_refused_as_asked(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let mut wish = deployment("d");
    wish["spec"]["replica"] = 3.into();
    let path = bench.apps("deployments");
    let status =
        bench.post(&format!("{path}?fieldValidation=Strict"), &wish).await.refused(400, "BadRequest");
    assert!(text(&status, "/message").contains("unknown field \"spec.replica\""), "{status}");
    let silent = bench.post(&format!("{path}?fieldValidation=Ignore&dryRun=All"), &wish).await;
    assert_eq!((silent.code, silent.headers.get("warning")), (201, None));
    let warned = bench.post(&format!("{path}?fieldValidation=Warn"), &wish).await;
    assert!(warned.headers["warning"].to_str().unwrap().contains("spec.replica"), "{:?}", warned.headers);
    assert_eq!(warned.with(201)["spec"].get("replica"), None, "an unknown field was kept");
}
