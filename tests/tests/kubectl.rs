//! kubectl's commands on a site: each does what its users know, or says clearly that it cannot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use kubeedge_tests::{Site, old_kubectl, skipped};

const WEB: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, selector: {matchLabels: {app: web}},
  template: {metadata: {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: localhost/host, command: [sleep, '100000'], env: [{name: STEP, value: one}]}]}}}}";

fn site() -> Option<Site> {
    (!skipped(&["kubectl"])).then(|| Site::start(&[]))
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// kubectl on these words.
fn k(site: &Site, line: &str) -> String {
    site.kubectl(&words(line))
}

#[test]
fn kubectl_makes_things_by_its_own_commands() {
    let Some(site) = site() else { return };
    for line in [
        "create namespace shop",
        "create configmap settings --from-literal=colour=blue",
        "create secret generic login --from-literal=password=geheim",
        "create serviceaccount robot",
        "create deployment web --image=localhost/host --replicas=2 --port=80 -- sleep 100000",
        "create job once --image=localhost/host -- true",
        "create quota small --hard=pods=5,cpu=1",
        "create role reader --verb=get,list --resource=pods",
        "create rolebinding readers --role=reader --serviceaccount=default:robot",
        "create clusterrole all --verb=* --resource=*.*",
        "create service clusterip web --tcp=80:8080",
        "create poddisruptionbudget web --selector=app=web --min-available=1",
        "create priorityclass high --value=1000",
        "run single --image=localhost/host -- sleep 100000",
        "expose deployment web --name=web2 --port=80",
    ] {
        assert!(k(&site, line).contains(" created") || line.starts_with("expose"), "{line}");
    }
    assert_eq!(site.object("configmap", "settings")["data"]["colour"], "blue");
    assert_eq!(site.object("secret", "login")["data"]["password"], "Z2VoZWlt");
    let web = site.object("deployment", "web");
    let container = &web["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&web["spec"]["replicas"], &container["ports"][0]["containerPort"]), (&2.into(), &80.into()));
    assert_eq!(web["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    assert_eq!(site.object("quota", "small")["spec"]["hard"]["cpu"], "1");
    assert_eq!(site.object("service", "web")["spec"]["ports"][0]["targetPort"], 8080);
    assert_eq!(site.object("rolebinding", "readers")["subjects"][0]["name"], "robot");
    assert!(k(&site, "create token robot").trim().split('.').count() == 3);
    assert_eq!(k(&site, "auth can-i create pods").trim(), "yes");
    assert!(k(&site, "auth whoami").contains("kubernetes-admin"));
    let twice = site.try_kubectl(&words("create namespace shop")).unwrap_err();
    assert!(twice.contains("AlreadyExists"), "{twice}");
    let node = site.try_kubectl(&words("create configmap x --as=system:node:n --as-group=system:nodes"));
    assert!(node.unwrap_err().contains("forbidden"), "--as is not acted on");
    k(&site, "delete namespace shop --timeout=60s");
}

#[test]
fn rollouts_have_a_history_and_are_undone_and_restarted() {
    let Some(site) = site() else { return };
    site.apply(WEB).unwrap();
    let rolled = |revision: &str| {
        site.until(&["rollout", "history", "deployment/web"], |said| {
            said.lines().any(|line| line.starts_with(revision))
        });
        k(&site, "rollout status deployment/web --timeout=60s");
    };
    let step = || {
        site.object("deployment", "web")["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
            .clone()
    };
    rolled("1");
    site.apply(&WEB.replace("value: one", "value: two")).unwrap();
    rolled("2");
    let shown = k(&site, "rollout history deployment/web --revision=1");
    assert!(shown.contains("STEP:") && shown.contains("one"), "{shown}");
    k(&site, "rollout undo deployment/web");
    rolled("3");
    assert_eq!(step(), "one");
    k(&site, "rollout restart deployment/web");
    rolled("4");
    k(&site, "rollout pause deployment/web");
    k(&site, "set env deployment/web STEP=three");
    k(&site, "rollout resume deployment/web");
    rolled("5");
    assert_eq!(step(), "three");
    k(&site, "annotate deployment web note=late");
    assert_eq!(site.object("deployment", "web")["metadata"]["annotations"]["note"], "late");
    k(&site, "delete deployment web --cascade=foreground --timeout=60s");
    assert!(k(&site, "get replicasets").contains("No resources found"));
}

#[test]
fn a_node_is_cordoned_tainted_drained_and_uncordoned() {
    let Some(site) = site() else { return };
    site.apply(WEB).unwrap();
    k(&site, "wait --for=condition=Available deployment/web --timeout=60s");
    k(&site, "cordon edge-1");
    assert!(k(&site, "get nodes").contains("SchedulingDisabled"));
    let before = k(&site, "get pods -o name");
    k(&site, "drain edge-1 --ignore-daemonsets --timeout=60s");
    let after = site.until(&["get", "pods"], |said| said.matches("Pending").count() == 2);
    assert!(before.lines().all(|pod| !after.contains(pod.trim_start_matches("pod/"))), "{before}\n{after}");
    k(&site, "taint nodes edge-1 busy=yes:NoSchedule");
    k(&site, "uncordon edge-1");
    site.until(&["describe", "pods"], |said| said.contains("untolerated taint"));
    k(&site, "taint nodes edge-1 busy-");
    k(&site, "wait --for=condition=Available deployment/web --timeout=60s");
}

#[test]
fn two_managers_share_an_object_by_server_side_apply() {
    let Some(site) = site() else { return };
    let file = site.folder().join("web.yaml");
    std::fs::write(&file, format!("---\n{WEB}")).unwrap();
    let apply = |manager: &str, more: &[&str]| {
        let file = file.display().to_string();
        let manager = format!("--field-manager={manager}");
        site.try_kubectl(&[&["apply", "--server-side", "-f", &file, &manager], more].concat())
    };
    assert!(apply("one", &[]).unwrap().contains("serverside-applied"));
    assert!(apply("two", &[]).unwrap().contains("serverside-applied"));
    std::fs::write(&file, format!("---\n{}", WEB.replace("value: one", "value: two"))).unwrap();
    let refused = apply("two", &[]).unwrap_err();
    assert!(
        refused.contains("conflict with \"one\"") && refused.contains("containers[name=\"c\"]"),
        "{refused}"
    );
    assert!(apply("two", &["--force-conflicts"]).is_ok());
    // Two looks at a rollout that goes on differ in its status.
    let file = file.display().to_string();
    site.until(&["diff", "--server-side", "--field-manager=two", "-f", &file], str::is_empty);
    let owners = k(&site, "get deployment web -o yaml --show-managed-fields");
    assert!(owners.contains("manager: two") && owners.contains("k:{\"name\":\"c\"}"), "{owners}");
}

#[test]
fn objects_are_shown_in_every_form_and_what_is_not_there_says_so() {
    let Some(site) = site() else { return };
    for (name, order) in [("b", "1"), ("a", "2")] {
        let map = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, labels: {{kit: x}}, annotations: {{order: '{order}'}}}}}}"
        );
        site.apply(&map).unwrap();
    }
    let sorted = k(
        &site,
        "get configmaps -l kit=x --sort-by=.metadata.annotations.order -o custom-columns=N:.metadata.name --no-headers",
    );
    assert_eq!(words(&sorted), ["b", "a"]);
    assert_eq!(k(&site, "get configmap a -o jsonpath={.metadata.labels.kit}"), "x");
    assert!(k(&site, "get configmap a -o yaml").contains("order: \"2\""));
    assert!(k(&site, "explain pod.spec.containers.image").contains("FIELD: image <string>"));
    assert!(k(&site, "explain device.spec").contains("deviceModelRef"));
    assert!(k(&site, "api-versions").contains("devices.kubeedge.io/v1beta1"));
    assert!(k(&site, "api-resources").contains("customresourcedefinitions"));
    assert!(k(&site, "events -A").contains("LAST SEEN") || k(&site, "events -A").contains("No events"));
    let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: c}, spec: {accessModes: [ReadWriteOnce], storageClassName: slow, resources: {requests: {storage: 1Gi}}}}";
    site.apply(claim).unwrap();
    let table = k(&site, "get pvc");
    assert_eq!(
        words(table.lines().next().unwrap())[..4],
        ["NAME", "STATUS", "VOLUME", "CAPACITY"],
        "{table}"
    );
    assert!(k(&site, "get pv,storageclass,csr").contains("No resources found"));
    for (line, why) in [
        ("top pods", "Metrics API not available"),
        ("get nothings", "doesn't have a resource type"),
        ("get pod missing", "NotFound"),
        ("get pods --field-selector=spec.nodename=x", "field label not supported"),
    ] {
        let said = site.try_kubectl(&words(line)).unwrap_err();
        assert!(said.contains(why), "{line}: {said}");
    }
    site.apply("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: localhost/host, command: [sleep, '100000']}]}}").unwrap();
    k(&site, "wait --for=condition=Ready pod/p --timeout=60s");
    let refused = site.try_kubectl(&words("port-forward pod/p 0:80")).unwrap_err();
    assert!(refused.contains("portforward is not served"), "{refused}");
}

/// The controllers' looks cost what is unfinished, not what is there.
#[test]
fn an_idle_site_with_many_objects_hardly_uses_the_processor() {
    let Some(site) = site() else { return };
    let file = site.folder().join("many.json");
    let mut items: Vec<_> = (0..500)
        .map(|n| serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{n}")}, "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "none"}]}}))
        .collect();
    items.extend((0..2000).map(|n| serde_json::json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("e{n}")}, "reason": "Kit",
        "lastTimestamp": "2100-01-01T00:00:00Z", "involvedObject": {"kind": "Pod", "name": "p1", "namespace": "default"}})));
    std::fs::write(
        &file,
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string(),
    )
    .unwrap();
    k(&site, &format!("create --validate=false -f {}", file.display()));
    let (before, start) = (site.processor_time(), Instant::now());
    while start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_secs(1));
    }
    let used = site.processor_time() - before;
    // A debug build on a busy machine: a full look each five seconds takes several times as much.
    assert!(used < Duration::from_millis(800), "{used:?} in 20 s");
}

#[test]
fn debians_kubectl_1_20_works_as_the_readme_says() {
    let (Some(program), Some(site)) = (old_kubectl(), site()) else { return };
    let old = site.by(&program);
    let k = |line: &str| old.kubectl(&words(line));
    assert!(k("version").contains("v1.20"));
    assert!(k("get nodes").contains(" Ready "));
    let file = site.folder().join("web.yaml");
    std::fs::write(&file, format!("---\n{WEB}")).unwrap();
    let apply = format!("apply --validate=false -f {}", file.display());
    assert!(k(&apply).contains("created"));
    k("rollout status deployment/web --timeout=60s");
    assert!(k(&apply).contains("unchanged"));
    k("scale deployment web --replicas=1");
    k("label deployment web tier=front");
    old.until(&["get", "deployment", "web"], |said| said.contains("1/1"));
    k("run loud --image=localhost/host --restart=Never --command -- echo hello");
    old.until(&["logs", "loud"], |said| said == "hello\n");
    assert!(k("describe pod loud").contains("localhost/host"));
    assert!(k("get pods -o yaml").contains("kind: Pod"));
    k("delete deployment web");
    old.until(&["get", "pods", "-l", "app=web"], |said| said.contains("No resources found"));
    k("delete pod loud");
}
