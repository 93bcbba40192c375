//! The story of pods on a real containerd, told with kubectl: `edgesite --runtime cri`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

#[path = "../../kubeedge-core/runtime/tests/common/containerd.rs"]
mod harness;

use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use harness::{BUSYBOX, Containerd, USER_1000};
use kubeedge_tests::{Background, Site, run, skipped, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// A site whose pods run on a containerd of its own. The site ends first.
struct OnContainerd {
    site: Site,
    containerd: Containerd,
}

impl OnContainerd {
    /// `None`, said loudly, where this machine cannot.
    fn start() -> Option<Self> {
        if skipped(&["kubectl"]) {
            return None;
        }
        let containerd = Containerd::start()?;
        let site = Site::start(&["--runtime", "cri", "--cri-endpoint", &containerd.endpoint()]);
        Some(Self { site, containerd })
    }

    /// Applies a pod whose containers are these, as a flow of YAML; the rest of its specification may follow.
    fn pod(&self, name: &str, spec: &str) {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{{spec}}}}}"
        );
        self.site.apply(&pod).unwrap();
    }

    fn ready(&self, name: &str) {
        self.site.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    }

    fn status(&self, name: &str) -> Value {
        self.site.object("pod", name)["status"].clone()
    }

    /// Runs a script in a pod's first container; what it printed.
    fn script(&self, pod: &str, script: &str) -> String {
        self.site.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Lines of containerd's own list of what runs, with this in them.
    fn tasks(&self, id: &str) -> usize {
        let socket = self.containerd.endpoint().trim_start_matches("unix://").to_owned();
        let listed =
            run(Command::new("ctr").args(["--address", &socket, "--namespace", "k8s.io", "tasks", "list"]));
        String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains(id)).count()
    }
}

/// The id containerd knows a container by.
fn id(status: &Value, container: usize) -> String {
    let id = status["containerStatuses"][container]["containerID"].as_str().unwrap();
    id.strip_prefix("containerd://").unwrap().to_owned()
}

fn ip(status: &Value) -> Ipv4Addr {
    status["podIP"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_pod_gets_an_address_environment_and_volumes_as_on_a_cluster() {
    let Some(on) = OnContainerd::start() else { return };
    let host = on.containerd.folder().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("given"), "from the host").unwrap();
    for object in [
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: words}, data: {greeting: hello, page: '<p>hello</p>'}}",
        "{apiVersion: v1, kind: Secret, metadata: {name: keys}, stringData: {password: 'open sesame'}}",
    ] {
        on.site.apply(object).unwrap();
    }
    let spec = format!(
        r#"initContainers: [{{name: first, image: {BUSYBOX}, command: [sh, -c, "cp /words/page /shared/index.html"],
             volumeMounts: [{{name: words, mountPath: /words}}, {{name: shared, mountPath: /shared}}]}}],
           containers: [
             {{name: web, image: {BUSYBOX}, command: [httpd, -f, -p, "8080", -h, /shared],
              env: [{{name: GREETING, valueFrom: {{configMapKeyRef: {{name: words, key: greeting}}}}}},
                    {{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: keys, key: password}}}}}},
                    {{name: ADDRESS, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}],
              envFrom: [{{configMapRef: {{name: words}}, prefix: W_}}],
              volumeMounts: [{{name: words, mountPath: /words}}, {{name: shared, mountPath: /shared}},
                             {{name: host, mountPath: /host}}, {{name: labels, mountPath: /labels}}]}},
             {{name: other, image: {BUSYBOX}, command: [sh, -c, "while true; do date > /shared/now; sleep 1; done"],
              volumeMounts: [{{name: shared, mountPath: /shared}}]}}],
           volumes: [{{name: words, configMap: {{name: words}}}}, {{name: shared, emptyDir: {{}}}},
                     {{name: host, hostPath: {{path: {}}}}},
                     {{name: labels, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}]"#,
        host.display()
    );
    on.pod("web", &spec);
    on.ready("web");
    let status = on.status("web");
    let address = ip(&status);
    assert_eq!(status["phase"], "Running");
    assert!(address.octets()[0] == 10 && status["hostIP"] != address.to_string(), "{status}");
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    assert!(status["containerStatuses"][0]["imageID"].as_str().unwrap().contains("sha256:"), "{status}");
    let env = on.script("web", "echo $GREETING,$PASSWORD,$W_greeting,$FROM,$ADDRESS,$(hostname)");
    assert_eq!(env.lines().next().unwrap(), format!("hello,open sesame,hello,image,{address},web"));
    let files = on.script("web", "cat /words/greeting /host/given /labels/labels; echo back > /host/taken");
    assert!(files.starts_with("hellofrom the hostapp=\"web\""), "{files}");
    assert_eq!(fs::read_to_string(host.join("taken")).unwrap(), "back\n");
    assert_ne!(on.script("web", "until cat /shared/now; do sleep 0.1; done"), "");

    on.pod("visitor", &format!("containers: [{{name: c, image: {BUSYBOX}, command: [sleep, '1000000']}}]"));
    on.ready("visitor");
    assert_ne!(ip(&on.status("visitor")), address);
    let page = on.script("visitor", &format!("wget -q -O - http://{address}:8080/"));
    assert_eq!(page.trim(), "<p>hello</p>");

    on.site
        .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: words}, data: {greeting: goodbye}}")
        .unwrap();
    until("the new file of a ConfigMap", PATIENCE, || match on.script("web", "cat /words/greeting") {
        new if new.contains("goodbye") => Ok(()),
        old => Err(old),
    });
}

#[test]
fn logs_and_commands_reach_containers() {
    let Some(on) = OnContainerd::start() else { return };
    let talk = "echo one; echo two >&2; n=3; while true; do echo line $n; n=$((n+1)); sleep 0.2; done";
    on.pod("talker", &format!("containers: [{{name: c, image: {BUSYBOX}, command: [sh, -c, '{talk}']}}]"));
    on.ready("talker");
    let logs = on.site.until(&["logs", "talker"], |said| said.contains("line 4"));
    assert!(logs.contains("one\n") && logs.contains("two\n"), "{logs}");
    let mut follow = Background::start(&mut on.site.command(&["logs", "-f", "--tail=1", "talker"]));
    follow.until_said("line 12", PATIENCE);
    let failed = on.site.try_kubectl(&["exec", "talker", "--", "sh", "-c", "echo out; exit 7"]).unwrap_err();
    assert!(failed.contains("out") && failed.contains("exit code 7"), "{failed}");
    let nothing = on.site.try_kubectl(&["exec", "talker", "--", "/no/such/program"]).unwrap_err();
    assert!(nothing.contains("/no/such/program"), "{nothing}");

    let mut copy =
        on.site.command(&["exec", "-i", "talker", "--", "sh", "-c", "cat > /tmp/in; wc -c < /tmp/in"]);
    let mut copy = copy.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let sent = vec![b'x'; 1_000_000];
    copy.stdin.take().unwrap().write_all(&sent).unwrap();
    let counted = copy.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "1000000", "{counted:?}");

    on.site.kubectl(&["delete", "pod", "talker", "--grace-period=1", "--timeout=60s"]);
    assert_eq!(follow.ended(PATIENCE), Some(0), "logs -f goes on though the pod is gone: {}", follow.said());
    on.pod("user", &format!("restartPolicy: Never, containers: [{{name: c, image: {USER_1000}}}]"));
    on.site.until(&["get", "pod", "user"], |said| said.contains("Completed"));
    assert_eq!(on.site.kubectl(&["logs", "user"]), "from the image\n");
}

#[test]
fn a_crashed_container_is_restarted_later_each_time_and_tells_how_it_ended() {
    let Some(on) = OnContainerd::start() else { return };
    let crash = "echo life of $$; cat /proc/uptime; sleep 0.5; exit 3";
    on.pod("fragile", &format!("containers: [{{name: c, image: {BUSYBOX}, command: [sh, -c, '{crash}']}}]"));
    on.site.until(&["get", "pod", "fragile"], |said| said.contains("CrashLoopBackOff"));
    let status = on.status("fragile")["containerStatuses"][0].clone();
    assert_eq!(status["restartCount"], 1, "{status}");
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3, "{status}");
    assert!(status["state"]["waiting"]["message"].as_str().unwrap().contains("back-off 10s"), "{status}");
    let second = on.site.kubectl(&["logs", "fragile"]);
    let restarted = until("the second restart", PATIENCE, || {
        let status = on.status("fragile")["containerStatuses"][0].clone();
        if status["restartCount"] == 2 { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(restarted["lastState"]["terminated"]["reason"], "Error", "{restarted}");
    assert_eq!(on.site.kubectl(&["logs", "--previous", "fragile"]), second);
    on.site.until(&["describe", "pod", "fragile"], |said| {
        said.contains("Back-off restarting failed container c")
    });
    on.site.kubectl(&["delete", "pod", "fragile", "--timeout=60s"]);
}

#[test]
fn a_deleted_pod_has_its_grace_and_leaves_nothing() {
    let Some(on) = OnContainerd::start() else { return };
    let host = on.containerd.folder().join("host");
    fs::create_dir(&host).unwrap();
    let rest = |script: &str| {
        format!(
            "terminationGracePeriodSeconds: 30, containers: [{{name: c, image: {BUSYBOX}, command: [sh, -c, \"{script}\"], \
             volumeMounts: [{{name: host, mountPath: /host}}]}}], volumes: [{{name: host, hostPath: {{path: {}}}}}]",
            host.display()
        )
    };
    on.pod(
        "polite",
        &rest("trap 'sleep 1; echo ended > /host/polite; exit 0' TERM; while true; do sleep 0.1; done"),
    );
    on.pod("deaf", &rest("trap 'echo heard > /host/deaf' TERM; while true; do sleep 0.1; done"));
    on.ready("polite");
    on.ready("deaf");
    let ids = [id(&on.status("polite"), 0), id(&on.status("deaf"), 0)];
    assert_eq!(ids.each_ref().map(|id| on.tasks(id)), [1, 1]);
    let begun = Instant::now();
    on.site.kubectl(&["delete", "pod", "polite", "--timeout=60s"]);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "it was not let go though it had ended: {:?}",
        begun.elapsed()
    );
    assert_eq!(fs::read_to_string(host.join("polite")).unwrap(), "ended\n");
    let begun = Instant::now();
    on.site.kubectl(&["delete", "pod", "deaf", "--grace-period=3", "--timeout=60s"]);
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(fs::read_to_string(host.join("deaf")).unwrap(), "heard\n");
    assert_eq!(ids.each_ref().map(|id| on.tasks(id)), [0, 0]);
    let folder = on.site.data().join("edge/kubelet/pods");
    until("the end of the pods' folders", PATIENCE, || {
        let kept = fs::read_dir(&folder).unwrap().count();
        if kept == 0 { Ok(()) } else { Err(format!("{kept} folders of pods that are gone")) }
    });
}

#[test]
fn an_image_that_cannot_be_had_is_told_and_tried_again_later() {
    let Some(on) = OnContainerd::start() else { return };
    on.pod("foreign", "containers: [{name: c, image: 'localhost:1/no/such:v1'}]");
    on.site.until(&["get", "pod", "foreign"], |said| said.contains("ErrImagePull"));
    on.site.until(&["get", "pod", "foreign"], |said| said.contains("ImagePullBackOff"));
    let told = on.site.until(&["describe", "pod", "foreign"], |said| said.contains("Back-off pulling image"));
    assert!(
        told.contains("Failed to pull image \"localhost:1/no/such:v1\"") && told.contains("refused"),
        "{told}"
    );
    let never = format!("containers: [{{name: c, image: '{BUSYBOX}-not', imagePullPolicy: Never}}]");
    on.pod("never", &never);
    on.site.until(&["get", "pod", "never"], |said| said.contains("ErrImageNeverPull"));
    on.pod("absent", &format!("containers: [{{name: c, image: {BUSYBOX}, command: [/no/such/program]}}]"));
    on.site.until(&["describe", "pod", "absent"], |said| said.contains("/no/such/program"));
    on.site.kubectl(&["delete", "pod", "--all", "--timeout=60s"]);
}

#[test]
fn a_deployment_of_two_runs_and_a_killed_site_takes_its_containers_over() {
    let Some(mut on) = OnContainerd::start() else { return };
    let pod = format!("{{containers: [{{name: c, image: {BUSYBOX}, command: [sleep, '1000000']}}]}}");
    on.site
        .apply(&format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: pair}}, spec: {{replicas: 2, selector: {{matchLabels: \
             {{app: pair}}}}, template: {{metadata: {{labels: {{app: pair}}}}, spec: {pod}}}}}}}"
        ))
        .unwrap();
    on.site.kubectl(&["rollout", "status", "deployment/pair", "--timeout=60s"]);
    let pods = |site: &Site| {
        let path = "jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].containerID} \
                    {.status.containerStatuses[0].restartCount} {.status.phase}{\"\\n\"}{end}";
        site.kubectl(&["get", "pods", "-l", "app=pair", "-o", path])
    };
    let before = pods(&on.site);
    assert_eq!(before.matches("Running").count(), 2, "{before}");
    let addresses: std::collections::BTreeSet<_> =
        before.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(addresses.len(), 2, "{before}");
    on.site.kill();
    on.site.start_again();
    on.site.kubectl(&["rollout", "status", "deployment/pair", "--timeout=60s"]);
    // A status that says otherwise would come with the first look at the runtime.
    let name = before.split(' ').next().unwrap().to_owned();
    assert!(on.script(&name, "echo alive").starts_with("alive"));
    assert_eq!(pods(&on.site), before, "containers were started again");
    on.site.kubectl(&["delete", "deployment", "pair"]);
    on.site.kubectl(&["wait", "--for=delete", "pod", "-l", "app=pair", "--timeout=90s"]);
}

#[test]
fn pods_outlive_a_containerd_that_dies_and_the_node_says_so_meanwhile() {
    let Some(mut on) = OnContainerd::start() else { return };
    on.pod("steady", &format!("containers: [{{name: c, image: {BUSYBOX}, command: [sleep, '1000000']}}]"));
    on.ready("steady");
    let before = on.status("steady");
    on.containerd.crash();
    on.site.until(&["get", "nodes"], |said| said.contains("NotReady"));
    on.site.until(&["describe", "node", "edge-1"], |said| said.contains("container runtime is down"));
    on.pod("patient", &format!("containers: [{{name: c, image: {BUSYBOX}, command: [sleep, '1000000']}}]"));
    on.containerd.run();
    on.site.until(&["get", "nodes"], |said| !said.contains("NotReady"));
    on.ready("patient");
    assert!(on.script("steady", "echo alive").starts_with("alive"));
    let after = on.status("steady");
    assert_eq!(after["containerStatuses"], before["containerStatuses"]);
    assert_eq!(after["podIP"], before["podIP"]);
    on.site.kubectl(&["delete", "pod", "--all", "--grace-period=1", "--timeout=60s"]);
}
