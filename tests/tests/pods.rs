//! Story 1 and 2: a site from nothing, and pods by kubectl as on any cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt;

use kubeedge_tests::{Background, PATIENCE, Site, skipped, until};

/// A word of a JSON path of every object, in order.
fn words(site: &Site, args: &[&str], path: &str) -> Vec<String> {
    let path = format!("jsonpath={{range .items[*]}}{{{path}}}{{\"\\n\"}}{{end}}");
    let text = site.kubectl(&[args, &["-o", &path]].concat());
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_site_starts_from_nothing_says_what_runs_and_keeps_everything_over_a_restart() {
    if skipped(&["kubectl"]) {
        return;
    }
    let mut site = Site::start(&["--demo", "--node", "gateway-7"]);
    for row in [
        "node",
        "kubeconfig",
        "data",
        "Kubernetes API",
        "CloudHub",
        "join",
        "tunnel",
        "MQTT broker",
        "simulated PLC",
    ] {
        assert!(site.table().contains(row), "{row} is missing in\n{}", site.table());
    }
    let mode = std::fs::metadata(site.kubeconfig()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "the kubeconfig is readable by others");
    let nodes = site.kubectl(&["get", "nodes"]);
    assert!(nodes.contains("gateway-7") && nodes.contains(" Ready "), "{nodes}");
    site.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: '1'}}").unwrap();
    let (uid, version) = {
        let kept = site.object("configmap", "kept");
        (kept["metadata"]["uid"].clone(), kept["metadata"]["resourceVersion"].clone())
    };
    let node = site.object("node", "gateway-7")["metadata"]["uid"].clone();
    assert_eq!(site.stop(), Some(0));
    site.start_again();
    let kept = site.object("configmap", "kept");
    assert_eq!((&kept["metadata"]["uid"], &kept["metadata"]["resourceVersion"]), (&uid, &version));
    assert_eq!(site.object("node", "gateway-7")["metadata"]["uid"], node, "the node registered anew");
}

#[test]
fn the_quickstart_comes_to_life_and_kubectl_behaves_as_on_a_cluster() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&["--demo"]);
    let folder = site.quickstart().display().to_string();
    let first = site.kubectl(&["apply", "-f", &folder]);
    assert!(
        first.contains("pod/greeter created") && first.contains("deployment.apps/worker created"),
        "{first}"
    );
    site.kubectl(&["wait", "--for=condition=Ready", "pod/greeter", "--timeout=60s"]);
    site.kubectl(&["wait", "--for=condition=Available", "deployment/worker", "--timeout=60s"]);
    let again = site.kubectl(&["apply", "-f", &folder]);
    assert!(!again.contains("created"), "{again}");
    assert!(
        again.contains("pod/greeter unchanged") && again.contains("deployment.apps/worker unchanged"),
        "{again}"
    );

    let pods = site.kubectl(&["get", "pods", "-o", "wide"]);
    assert_eq!(pods.matches("1/1").count(), 3, "{pods}");
    assert!(pods.lines().next().unwrap().starts_with("NAME") && pods.contains("edge-1"), "{pods}");
    let described = site.kubectl(&["describe", "pod", "greeter"]);
    for part in ["Started container", "Ready:", "ConfigMap", "Normal"] {
        assert!(described.contains(part), "{part} is missing in\n{described}");
    }
    let document = site.kubectl(&["get", "pod", "greeter", "-o", "yaml"]);
    assert!(
        document.contains("phase: Running") && document.contains("containerID: process://"),
        "{document}"
    );
    scale_label_edit(&site);
    restart_and_delete(&site);
}

fn scale_label_edit(site: &Site) {
    site.kubectl(&["scale", "deployment", "worker", "--replicas=3"]);
    site.kubectl(&["rollout", "status", "deployment/worker", "--timeout=60s"]);
    assert_eq!(words(site, &["get", "pods", "-l", "app=worker"], ".status.phase"), ["Running"; 3]);
    site.kubectl(&["label", "pod", "greeter", "tier=front"]);
    assert_eq!(words(site, &["get", "pods", "-l", "tier=front"], ".metadata.name"), ["greeter"]);
    let before = words(site, &["get", "replicasets"], ".metadata.name");
    let mut edit = site.command(&["edit", "deployment", "worker"]);
    edit.env("EDITOR", "sed -i s/terminationGracePeriodSeconds:.*/terminationGracePeriodSeconds:\\ 1/");
    let edited = kubeedge_tests::run(&mut edit);
    assert!(String::from_utf8_lossy(&edited.stdout).contains("edited"), "{edited:?}");
    site.kubectl(&["rollout", "status", "deployment/worker", "--timeout=60s"]);
    assert_eq!(words(site, &["get", "replicasets"], ".metadata.name").len(), before.len() + 1);
}

fn restart_and_delete(site: &Site) {
    let watch = Background::start(&mut site.command(&["get", "pods", "-w"]));
    watch.until_said("greeter", PATIENCE);
    site.kubectl(&["delete", "pod", "greeter", "--timeout=60s"]);
    watch.until_said("Terminating", PATIENCE);
    assert!(site.try_kubectl(&["get", "pod", "greeter"]).unwrap_err().contains("NotFound"));
    let victim = words(site, &["get", "pods", "-l", "app=worker"], ".metadata.name")[0].clone();
    site.kubectl(&["delete", "pod", &victim]);
    site.until(&["get", "deployment", "worker"], |said| said.contains("3/3"));
    site.kubectl(&["delete", "deployment", "worker"]);
    site.kubectl(&["wait", "--for=delete", "pod", "-l", "app=worker", "--timeout=60s"]);
    let empty = site.until(&["get", "pods"], |said| said.contains("No resources found"));
    assert!(empty.contains("default namespace"), "{empty}");
}

#[test]
fn what_cannot_run_says_why_on_the_pods_event() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let pod = |name: &str, container: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, {container}}}]}}}}"
        )
    };
    site.apply(&pod("foreign", "image: nginx")).unwrap();
    site.until(&["get", "pod", "foreign"], |said| {
        said.contains("ErrImagePull") || said.contains("ImagePullBackOff")
    });
    site.until(&["describe", "pod", "foreign"], |said| {
        said.contains("--runtime cri") && said.contains("nginx")
    });
    site.apply(&pod("absent", "image: localhost/host, command: [/no/such/program]")).unwrap();
    site.until(&["describe", "pod", "absent"], |said| said.contains("/no/such/program: No such file"));
    let map = "image: localhost/host, command: [sleep, '100'], envFrom: [{configMapRef: {name: later}}]";
    site.apply(&pod("early", map)).unwrap();
    site.until(&["describe", "pod", "early"], |said| said.contains("\"later\" not found"));
    site.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: later}, data: {A: '1'}}").unwrap();
    site.kubectl(&["wait", "--for=condition=Ready", "pod/early", "--timeout=90s"]);
    let refused = site.apply(&pod("wrong", "image: localhost/host, comand: [sh]")).unwrap_err();
    assert!(refused.contains("comand"), "{refused}");
}

#[test]
fn pods_outlive_a_killed_site_and_are_taken_over_not_started_again() {
    if skipped(&["kubectl"]) {
        return;
    }
    let mut site = Site::start(&[]);
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: steady}, spec: {containers: [{name: c, image: localhost/host, command: [sh, -c, 'echo started; exec sleep 444444']}]}}";
    site.apply(pod).unwrap();
    site.kubectl(&["wait", "--for=condition=Ready", "pod/steady", "--timeout=60s"]);
    let id = |site: &Site| site.object("pod", "steady")["status"]["containerStatuses"][0].clone();
    let before = id(&site);
    site.kill();
    site.start_again();
    site.until(&["get", "pod", "steady"], |said| said.contains("1/1"));
    let after = id(&site);
    assert_eq!(
        (&before["containerID"], &before["restartCount"]),
        (&after["containerID"], &after["restartCount"])
    );
    assert_eq!(site.stop(), Some(0));
    let left = until("the end of the pod's processes", PATIENCE, || {
        let listed = kubeedge_tests::sh("pgrep -f 'sleep 44444[4]' || true", site.folder(), &[]);
        if listed.trim().is_empty() { Ok(listed) } else { Err(listed) }
    });
    assert_eq!(left, "");
}

#[test]
fn logs_and_commands_of_pods_come_through_the_tunnel() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let pod = r#"{apiVersion: v1, kind: Pod, metadata: {name: talker}, spec: {containers: [{name: talker, image: localhost/host,
        env: [{name: COLOUR, value: blue}],
        command: [sh, -c, "echo one; echo two >&2; n=3; while true; do echo line $n; n=$((n+1)); sleep 0.2; done"]}]}}"#;
    site.apply(pod).unwrap();
    site.kubectl(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"]);
    let logs = site.until(&["logs", "talker"], |said| said.contains("line 3"));
    assert!(logs.contains("one\n") && logs.contains("two\n"), "{logs}");
    assert_eq!(site.kubectl(&["logs", "talker", "--tail=1"]).lines().count(), 1);
    let follow = Background::start(&mut site.command(&["logs", "-f", "talker"]));
    let last: u32 = logs.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).max().unwrap();
    follow.until_said(&format!("line {}", last + 5), PATIENCE);
    let said = site.kubectl(&["exec", "talker", "--", "sh", "-c", "echo $COLOUR; pwd"]);
    assert!(said.starts_with("blue\n"), "{said}");
    let failed = site.try_kubectl(&["exec", "talker", "--", "sh", "-c", "exit 3"]).unwrap_err();
    assert!(failed.contains("exit code 3"), "{failed}");
    let missing = site.try_kubectl(&["logs", "talker", "-c", "nobody"]).unwrap_err();
    assert!(missing.contains("nobody"), "{missing}");
}
