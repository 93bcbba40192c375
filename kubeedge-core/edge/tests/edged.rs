//! Edged runs pods on the runtime in memory, in simulated time, with a cluster played by the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::FutureExt;
use kubeedge_core::{
    bus::{Bus, Envelope, Inbox},
    clock::Clock,
    kernel::{Module, ModuleContext, Shutdown},
    message::{Content, Message, Millis},
    name::{Group, ModuleName, Operation},
    runtime::{Container, ContainerRuntime, ContainerSpec, SandboxSpec},
    store::StoreError,
};
use kubeedge_edge::{
    edged::{Edged, EdgedSettings},
    meta::{MetaHandle, ObjectKey},
};
use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
use kubeedge_store::MemoryStore;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// In simulated time, so nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(4000);

/// A change of a store in memory, which is made at once.
fn now(change: impl Future<Output = Result<(), StoreError>>) {
    change.now_or_never().unwrap().unwrap();
}

/// What MetaManager and the cluster behind it hold.
#[derive(Debug, Default)]
struct Held {
    statuses: HashMap<String, Vec<Value>>,
    events: Vec<(String, String)>,
    ended: Vec<String>,
}

#[derive(Clone)]
struct Meta {
    held: Arc<Mutex<Held>>,
    copy: MetaHandle,
    /// Locked by a test while MetaManager is busy with something else.
    free: Arc<tokio::sync::Mutex<()>>,
    news: watch::Sender<u64>,
}

impl Meta {
    async fn run(self, mut inbox: Inbox) {
        while let Some(envelope) = inbox.next().await {
            let _free = self.free.lock().await;
            self.answer(envelope);
            self.news.send_modify(|count| *count += 1);
        }
    }

    fn answer(&self, envelope: Envelope) {
        let mut held = self.held.lock();
        let route = envelope.message.route.clone();
        let resource = route.resource.as_str().to_owned();
        let name = resource.rsplit('/').next().unwrap_or_default().to_owned();
        let content: Value = envelope.message.content.decode().unwrap_or_default();
        match route.operation.as_str() {
            "query" => {
                let refusal = json!({"ErrStatus": {"metadata": {}, "reason": "NotFound", "code": 404}});
                envelope.answer(Content::json(&refusal).unwrap());
            }
            "patch" if resource.contains("/podpatch/") => {
                let patch =
                    content.as_str().map_or(content.clone(), |text| serde_json::from_str(text).unwrap());
                held.statuses.entry(name.clone()).or_default().push(patch["status"].clone());
                let object = json!({"Object": {"metadata": {"name": name}}, "Err": null});
                envelope.answer(Content::json(&object).unwrap());
            }
            "delete" => {
                now(self.copy.delete(&ObjectKey::of_resource(&resource)));
                held.ended.push(name);
                envelope.answer(Content::ok());
            }
            "insert" if resource.contains("/event/") => {
                let text = |field: &str| content[field].as_str().unwrap_or_default().to_owned();
                held.events.push((text("reason"), text("message")));
            }
            _ => {}
        }
    }
}

/// A node: its runtime and its cluster outlive Edged.
struct Node {
    runtime: MemoryRuntime,
    clock: Clock,
    meta: Meta,
    folder: TempDir,
    bus: Bus,
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

impl Node {
    async fn start() -> Self {
        let clock = Clock::simulated(Millis(1_700_000_000_000));
        let images = [("app:1".to_owned(), vec!["wait".to_owned()])].into();
        let runtime = MemoryRuntime::new(MemorySettings { images, clock: clock.clone() });
        let copy = MetaHandle::over(Arc::new(MemoryStore::new()));
        let meta = Meta { held: Arc::default(), copy, free: Arc::default(), news: watch::Sender::new(0) };
        let folder = TempDir::new().unwrap();
        let (bus, shutdown, running) = edged(&runtime, &clock, &meta, &folder);
        Self { runtime, clock, meta, folder, bus, shutdown, running }
    }

    async fn stop_edged(&mut self) {
        self.shutdown.request();
        (&mut self.running).await.unwrap();
    }

    fn start_edged(&mut self) {
        (self.bus, self.shutdown, self.running) = edged(&self.runtime, &self.clock, &self.meta, &self.folder);
    }

    fn hold(&self, key: &str, object: Value) {
        now(self.meta.copy.put(&ObjectKey::of_resource(key), object.to_string().into()));
    }

    async fn tell(&self, operation: Operation, key: &str, object: &Value) {
        let message = Message::new(ModuleName::EDGE_CONTROLLER, operation, key)
            .in_group(Group::RESOURCE)
            .with(Content::json(object).unwrap());
        self.bus.send(&ModuleName::EDGED, message).await.unwrap();
    }

    /// The cloud sends a pod.
    async fn run(&self, pod: &Value) {
        let key = format!("default/pod/{}", pod["metadata"]["name"].as_str().unwrap());
        self.hold(&key, pod.clone());
        self.tell(Operation::UPDATE, &key, pod).await;
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Held) -> bool) {
        let mut news = self.meta.news.subscribe();
        let wait = async {
            loop {
                news.borrow_and_update();
                if is_so(&self.meta.held.lock()) {
                    return;
                }
                news.changed().await.unwrap();
            }
        };
        let done = timeout(PATIENCE, wait).await.is_ok();
        assert!(done, "not within {PATIENCE:?}: {what}; {:#?}", self.meta.held.lock());
    }

    /// Waits for a status that was reported, now or before.
    async fn reported(&self, pod: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
        let fits = |held: &Held| held.statuses.get(pod).is_some_and(|all| all.iter().any(&is_so));
        self.until(&format!("{pod} {what}"), fits).await;
    }

    /// Waits until the newest status is so.
    async fn status(&self, pod: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let newest = |held: &Held| held.statuses.get(pod).and_then(|all| all.last().cloned());
        self.until(&format!("{pod} {what}"), |held| newest(held).is_some_and(|status| is_so(&status))).await;
        newest(&self.meta.held.lock()).unwrap()
    }

    async fn ready(&self, pod: &str) -> Value {
        self.status(pod, "ready", |status| condition(status, "Ready") == "True").await
    }

    async fn containers(&self) -> Vec<Container> {
        let (_, mut containers) = self.runtime.list_all().await.unwrap();
        containers.sort_by_key(|container| container.created_at);
        containers
    }

    /// What a container printed so far.
    fn log(&self, pod: &str, container: &str, attempt: u32) -> String {
        let log = format!("logs/default_{pod}_{pod}-uid/{container}/{attempt}.log");
        std::fs::read_to_string(self.folder.path().join(log)).unwrap_or_default()
    }

    async fn printed(&self, pod: &str, text: &str) {
        let wait = async {
            while !self.log(pod, "app", 0).contains(text) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{text}: {}", self.log(pod, "app", 0)));
    }

    async fn elapsed(&self, work: impl Future<Output = ()>) -> Duration {
        let from = self.clock.now().0;
        work.await;
        Duration::from_millis(u64::try_from(self.clock.now().0 - from).unwrap())
    }
}

fn edged(
    runtime: &MemoryRuntime,
    clock: &Clock,
    meta: &Meta,
    folder: &TempDir,
) -> (Bus, Shutdown, JoinHandle<()>) {
    let modules = [(ModuleName::EDGED, Group::EDGED, 1), (ModuleName::META_MANAGER, Group::META, 1)];
    let (bus, mut inboxes) = Bus::new(modules);
    tokio::spawn(meta.clone().run(inboxes.remove(&ModuleName::META_MANAGER).unwrap()));
    let mut settings = EdgedSettings::default();
    settings.node_ip = "192.0.2.1".into();
    settings.register_node = false;
    settings.report_events = true;
    settings.root = folder.path().join("root");
    settings.logs = folder.path().join("logs");
    let mut module = Edged::new("edge-1".into(), settings, Arc::new(runtime.clone()), meta.copy.clone());
    let shutdown = Shutdown::new();
    let inbox = inboxes.remove(&ModuleName::EDGED).unwrap();
    let mut ctx = ModuleContext::new(bus.clone(), inbox, shutdown.clone()).with_clock(clock.clone());
    let running = tokio::spawn(async move { module.run(&mut ctx).await.unwrap() });
    (bus, shutdown, running)
}

fn container(name: &str, program: &str) -> Value {
    let command: Vec<_> = program.split(' ').collect();
    json!({"name": name, "image": "app:1", "command": command})
}

fn pod(name: &str, containers: Vec<Value>) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-uid"), "labels": {"app": name}},
        "spec": {"nodeName": "edge-1", "containers": containers},
    })
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a str {
    let all = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = all.iter().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

fn waits_for(status: &Value, reason: &str) -> bool {
    status["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_arrives_becomes_running_and_ready() {
    let node = Node::start().await;
    node.run(&pod("web", vec![container("app", "wait")])).await;
    let status = node.ready("web").await;
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert!(status["podIP"].as_str().unwrap().starts_with("10."), "{status}");
    let main = &status["containerStatuses"][0];
    assert_eq!((&main["ready"], &main["restartCount"]), (&json!(true), &json!(0)));
    assert!(main["containerID"].as_str().unwrap().starts_with("memory://"), "{main}");
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_the_other_before_the_main_ones() {
    let node = Node::start().await;
    let mut wanted = pod("web", vec![container("a", "wait"), container("b", "wait")]);
    wanted["spec"]["initContainers"] =
        json!([container("first", "sleep 30"), container("second", "sleep 5")]);
    let took = node
        .elapsed(async {
            node.run(&wanted).await;
            node.ready("web").await;
        })
        .await;
    assert!(took >= Duration::from_secs(35), "{took:?}");
    let order: Vec<_> = node.containers().await.into_iter().map(|container| container.name).collect();
    assert_eq!(order[..2], ["first", "second"]);
    assert_eq!(order.len(), 4);
    node.reported("web", "initialising", |status| waits_for(status, "PodInitializing")).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_keeps_crashing_is_started_again_ever_later() {
    let node = Node::start().await;
    node.run(&pod("web", vec![container("app", "exit 7")])).await;
    let took = node
        .elapsed(async {
            node.status("web", "4 restarts", |s| {
                s["containerStatuses"][0]["restartCount"] == 4 && waits_for(s, "CrashLoopBackOff")
            })
            .await;
        })
        .await;
    // At once, then after 10, 20 and 40 s.
    assert!(took >= Duration::from_secs(70) && took < Duration::from_secs(90), "{took:?}");
    let status = node.meta.held.lock().statuses["web"].last().unwrap().clone();
    assert_eq!(status["phase"], "Running");
    let last = &status["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(7), &json!("Error")));
    let told = node
        .meta
        .held
        .lock()
        .events
        .iter()
        .filter(|(reason, _)| reason == "BackOff")
        .cloned()
        .collect::<Vec<_>>();
    assert!(
        told[0].1.starts_with("Back-off restarting failed container app in pod web_default("),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_restarted_succeeds_or_fails() {
    let node = Node::start().await;
    for (name, policy, program, phase) in [
        ("done", "OnFailure", "exit 0", "Succeeded"),
        ("failed", "Never", "exit 3", "Failed"),
        ("fine", "Never", "sleep 5", "Succeeded"),
    ] {
        let mut wanted = pod(name, vec![container("app", program)]);
        wanted["spec"]["restartPolicy"] = json!(policy);
        node.run(&wanted).await;
        let status = node.status(name, phase, |status| status["phase"] == phase).await;
        assert_eq!(condition(&status, "Ready"), "False");
        assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    }
    let mut wanted = pod("again", vec![container("app", "exit 1")]);
    wanted["spec"]["restartPolicy"] = json!("OnFailure");
    node.run(&wanted).await;
    node.status("again", "restarted", |s| s["containerStatuses"][0]["restartCount"] == 2).await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_is_named_and_tried_ever_later() {
    let node = Node::start().await;
    let mut wanted = pod("web", vec![container("app", "wait")]);
    wanted["spec"]["containers"][0]["image"] = json!("nowhere/app:2");
    node.run(&wanted).await;
    node.reported("web", "ErrImagePull", |status| waits_for(status, "ErrImagePull")).await;
    let status = node.status("web", "ImagePullBackOff", |s| waits_for(s, "ImagePullBackOff")).await;
    assert_eq!(status["phase"], "Pending");
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("nowhere/app:2"), "{message}");
    let pause = ("BackOff".to_owned(), "Back-off pulling image \"nowhere/app:2\"".to_owned());
    assert!(node.meta.held.lock().events.contains(&pause), "kubectl describe does not tell of the pause");
    tokio::time::sleep(Duration::from_secs(100)).await;
    let pulls = node.meta.held.lock().events.iter().filter(|(reason, _)| reason == "Pulling").count();
    assert!(pulls <= 5, "{pulls} pulls in 100 s");
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_the_config_map_of_its_environment() {
    let node = Node::start().await;
    let mut wanted = pod("web", vec![container("app", "env COLOUR ; wait")]);
    wanted["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    node.run(&wanted).await;
    node.status("web", "refused", |status| waits_for(status, "CreateContainerConfigError")).await;
    node.hold(
        "default/configmap/settings",
        json!({"metadata": {"name": "settings"}, "data": {"COLOUR": "blue"}}),
    );
    node.ready("web").await;
    node.printed("web", "stdout F blue").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_the_config_map_of_its_volume() {
    let node = Node::start().await;
    let mut wanted = pod("web", vec![container("app", "read /etc/app/key ; wait")]);
    wanted["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "config", "mountPath": "/etc/app"}]);
    wanted["spec"]["volumes"] = json!([{"name": "config", "configMap": {"name": "settings"}}]);
    node.run(&wanted).await;
    node.until("FailedMount", |held| held.events.iter().any(|(reason, _)| reason == "FailedMount")).await;
    node.hold(
        "default/configmap/settings",
        json!({"metadata": {"name": "settings"}, "data": {"key": "value\n"}}),
    );
    node.ready("web").await;
    node.printed("web", "stdout F value").await;
}

#[tokio::test(start_paused = true)]
async fn environment_comes_from_config_maps_secrets_and_fields() {
    let node = Node::start().await;
    node.hold("default/configmap/settings", json!({"metadata": {"name": "settings"}, "data": {"c": "blue"}}));
    node.hold("default/secret/login", json!({"metadata": {"name": "login"}, "data": {"p": "c2VjcmV0"}}));
    let mut wanted = pod("web", vec![container("app", "env A ; env B ; env C ; env D ; wait")]);
    wanted["spec"]["containers"][0]["env"] = json!([
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "c"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "login", "key": "p"}}},
        {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "D", "value": "$(A) and $(B)"},
    ]);
    node.run(&wanted).await;
    node.ready("web").await;
    node.printed("web", "blue and secret").await;
    let log = node.log("web", "app", 0);
    let said: Vec<_> = log.lines().map(|line| line.splitn(4, ' ').last().unwrap()).collect();
    assert_eq!(said, ["blue", "secret", "web", "blue and secret"]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_may_say_goodbye_and_is_then_given_back() {
    let node = Node::start().await;
    let mut wanted =
        pod("web", vec![container("app", "trap goodbye ; wait"), container("deaf", "ignore ; wait")]);
    node.run(&wanted).await;
    node.ready("web").await;
    wanted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    wanted["metadata"]["deletionGracePeriodSeconds"] = json!(20);
    let took = node
        .elapsed(async {
            node.run(&wanted).await;
            node.until("given back", |held| held.ended == ["web"]).await;
        })
        .await;
    assert!(took >= Duration::from_secs(20) && took < Duration::from_secs(30), "{took:?}");
    let status = node.meta.held.lock().statuses["web"].last().unwrap().clone();
    let codes: Vec<_> =
        (0..2).map(|n| status["containerStatuses"][n]["state"]["terminated"]["exitCode"].clone()).collect();
    assert_eq!(codes, [json!(0), json!(137)], "{status}");
    let gone = async {
        while !node.containers().await.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restarted_edged_leaves_its_containers_running() {
    let mut node = Node::start().await;
    node.run(&pod("web", vec![container("app", "wait")])).await;
    node.ready("web").await;
    let before = node.containers().await;
    node.stop_edged().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    node.meta.held.lock().statuses.clear();
    node.start_edged();
    let status = node.ready("web").await;
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(node.containers().await, before);
}

#[tokio::test(start_paused = true)]
async fn pods_run_once_the_runtime_answers_however_much_was_said_of_them_before() {
    let mut node = Node::start().await;
    node.stop_edged().await;
    node.runtime.be_down(true);
    node.start_edged();
    // MetaManager answers nothing while it waits for room in Edged's mailbox, which holds one message.
    let busy = node.meta.free.lock().await;
    let web = pod("web", vec![container("app", "wait")]);
    for _ in 0..50 {
        timeout(Duration::from_secs(5), node.run(&web)).await.expect("Edged reads its mailbox");
    }
    node.runtime.be_down(false);
    drop(busy);
    node.ready("web").await;
}

#[tokio::test(start_paused = true)]
async fn pods_are_told_of_while_those_of_the_store_are_asked_for() {
    let node = Node::start().await;
    let busy = node.meta.free.lock().await;
    let web = pod("web", vec![container("app", "wait")]);
    for _ in 0..50 {
        timeout(Duration::from_secs(5), node.run(&web)).await.expect("Edged reads its mailbox");
    }
    drop(busy);
    node.ready("web").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_pod_nobody_knows_is_removed() {
    let mut node = Node::start().await;
    node.stop_edged().await;
    let sandbox = SandboxSpec::new("old", "default", "old-uid").log_directory(node.folder.path().join("old"));
    let sandbox = node.runtime.run_sandbox(sandbox).await.unwrap();
    let spec = ContainerSpec::new("app", "app:1");
    let id = node.runtime.create_container(&sandbox, spec).await.unwrap();
    node.runtime.start_container(&id).await.unwrap();
    node.start_edged();
    node.run(&pod("web", vec![container("app", "wait")])).await;
    node.ready("web").await;
    let left = node.containers().await;
    assert!(left.iter().all(|container| container.id != id), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_forced_delete_that_names_only_the_pod_ends_it_though_mailboxes_are_full() {
    let node = Node::start().await;
    for name in ["gone", "stays"] {
        node.run(&pod(name, vec![container("app", "wait")])).await;
        node.ready(name).await;
    }
    now(node.meta.copy.delete(&ObjectKey::known("pod", "default", "gone")));
    // MetaManager answers nothing while it waits for room in Edged's mailbox, which holds one message.
    let busy = node.meta.free.lock().await;
    let unnamed = json!({"metadata": {"name": "gone", "namespace": "default"}});
    node.tell(Operation::DELETE, "default/pod/gone", &unnamed).await;
    let map = json!({"metadata": {"name": "settings"}});
    for _ in 0..50 {
        let told = node.tell(Operation::UPDATE, "default/configmap/settings", &map);
        timeout(Duration::from_secs(5), told).await.expect("Edged reads its mailbox");
    }
    drop(busy);
    let gone = async {
        while node.containers().await.len() > 1 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
    assert!(node.containers().await[0].state.is_running());
}
