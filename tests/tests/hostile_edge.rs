//! A cloud that says senseless things of every kind: edgecore passes over them, and does what else it is
//! told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use kubeedge_core::{
    clock::Clock,
    kernel::Shutdown,
    message::{Content, Message, Millis},
    name::ModuleName,
    runtime::ContainerRuntime,
    store::MetaStore,
    transport::{Credentials, Endpoint, Frame, Link, Transport},
    wire::{Codec, GoJson},
};
use kubeedge_device::{Mapper, simulated::Simulated};
use kubeedge_edge::{EdgeCore, EdgeCoreSettings};
use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
use kubeedge_store::MemoryStore;
use kubeedge_tests::fuzz::{HOSTILE, edited};
use kubeedge_transport::Memory;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, timeout, timeout_at};

/// In simulated time.
const PATIENCE: Duration = Duration::from_secs(600);
const NODE: &str = "edge-1";

/// What a cloud speaks of: source, group, operation, resource.
const WORDS: [(&str, &str, &str, &str); 30] = [
    ("edgecontroller", "resource", "insert", "default/pod/web"),
    ("edgecontroller", "resource", "update", "default/pod/web"),
    ("edgecontroller", "resource", "delete", "default/pod/web"),
    ("edgecontroller", "resource", "response", "default/pod/web"),
    ("edgecontroller", "resource", "update", "default/podlist"),
    ("edgecontroller", "resource", "insert", "default/configmap/app"),
    ("edgecontroller", "resource", "update", "default/configmap/app"),
    ("edgecontroller", "resource", "delete", "default/configmap/app"),
    ("edgecontroller", "resource", "update", "default/secret/app"),
    ("edgecontroller", "resource", "update", "null/node/edge-1"),
    ("edgecontroller", "resource", "delete", "null/node/edge-1"),
    ("edgecontroller", "resource", "response", "default/serviceaccounttoken/default"),
    ("edgecontroller", "resource", "insert", "default/rule/r"),
    ("edgecontroller", "resource", "insert", "default/ruleendpoint/r"),
    ("devicecontroller", "twin", "update", "membership"),
    ("devicecontroller", "twin", "update", "device/default/valve/twin/cloud_updated"),
    ("devicecontroller", "twin", "response", "twin"),
    ("devicecontroller", "resource", "insert", "default/devicemodel/valve"),
    ("devicecontroller", "resource", "update", "default/device/valve"),
    ("devicecontroller", "resource", "delete", "default/device/valve"),
    ("dynamiccontroller", "resource", "update", "default/service/s"),
    ("dynamiccontroller", "resource", "applicationResponse", "ignore/Application/ignore"),
    ("policycontroller", "resource", "insert", "default/serviceaccountaccess/s"),
    ("synccontroller", "resource", "update", "default/pod/web"),
    ("router_eventbus", "user", "publish", "topic"),
    ("router_servicebus", "user", "get", "9000:/x"),
    ("taskmanager", "taskmanager", "upgrade", "x"),
    ("cloudhub", "resource", "createvolume", "default/volume/v"),
    ("edgecontroller", "resource", "explode", "////"),
    ("", "", "", ""),
];

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"a": "b"}, "annotations": {"a": "b"}},
        "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 1, "restartPolicy": "Always", "hostname": "h",
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "c", "configMap": {"name": "app", "optional": true, "items": [{"key": "k", "path": "p", "mode": 420}]}}],
            "containers": [{"name": "c", "image": "app:1", "command": ["wait"], "args": ["$(A)"], "workingDir": "/",
                "env": [{"name": "A", "value": "1"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "L", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
                "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}], "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}],
                "resources": {"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "100m"}},
                "securityContext": {"runAsUser": 0, "capabilities": {"add": ["X"]}}}]}})
}

/// A pod that needs nothing but itself.
fn plain(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "app:1", "command": ["wait"]}]}})
}

fn device() -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": {"name": "valve", "namespace": "default", "uid": "uid-valve"},
        "spec": {"nodeName": NODE, "deviceModelRef": {"name": "valve"}, "protocol": {"protocolName": "simulated", "configData": {"a": 1}},
            "properties": [{"name": "opening", "collectCycle": 1000, "reportCycle": 1000, "reportToCloud": true, "desired": {"value": "10", "metadata": {"timestamp": "1"}},
                "visitors": {"protocolName": "simulated", "configData": {"signal": "memory", "cell": "opening", "value": 0}}}]}})
}

fn model() -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "valve", "namespace": "default"},
        "spec": {"protocol": "simulated", "properties": [{"name": "opening", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100"}]}})
}

fn twin() -> Value {
    json!({"event_id": "e", "timestamp": 1, "twin": {"opening": {"expected": {"value": "5", "metadata": {"timestamp": 1}}, "optional": true,
        "metadata": {"type": "int"}, "expected_version": {"cloud": 1, "edge": 1}}}})
}

/// An edgecore whose cloud the test is.
struct Edge {
    link: Link,
    runtime: MemoryRuntime,
    panics: Arc<AtomicUsize>,
    version: u64,
    stop: Shutdown,
    _folder: TempDir,
}

impl Edge {
    async fn start() -> Self {
        let panics = Arc::new(AtomicUsize::new(0));
        let (count, shown) = (panics.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |info| {
            count.fetch_add(1, Ordering::Relaxed);
            shown(info);
        }));
        let network = Memory::new();
        let mut door = network.listen(&Endpoint::from("cloud"), &Credentials::default()).await.unwrap();
        let images = [("app:1".to_owned(), vec!["wait".to_owned()])].into();
        let clock = Clock::simulated(Millis::now());
        let runtime = MemoryRuntime::new(MemorySettings { images, clock: clock.clone() });
        let folder = TempDir::new().unwrap();
        let mut settings = EdgeCoreSettings::for_node(NODE);
        settings.hub.servers = vec!["cloud".to_owned()];
        settings.hub.qps = 0;
        settings.hub.silence = Duration::from_secs(1_000_000);
        settings.clock = clock;
        settings.edged.root = folder.path().join("root");
        settings.edged.logs = folder.path().join("logs");
        let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
        let core = EdgeCore::assemble(settings, Arc::new(network), store, Arc::new(runtime.clone()))
            .mapper(Mapper::new(Simulated::new()))
            .without(&ModuleName::EVENT_BUS);
        let (core, stop) = (core.build().unwrap(), Shutdown::new());
        let until = stop.clone();
        tokio::spawn(async move { core.run(async move { until.requested().await }).await.unwrap() });
        let link = timeout(PATIENCE, door.next()).await.unwrap().unwrap().accept().await.unwrap();
        // Nobody else is let in, and the door stays.
        tokio::spawn(async move {
            while let Ok(incoming) = door.next().await {
                incoming.refuse("once".to_owned()).await;
            }
        });
        Self { link, runtime, panics, version: 1, stop, _folder: folder }
    }

    async fn say(
        &mut self,
        (source, group, operation, resource): (&str, &str, &str, &str),
        content: Content,
    ) -> Message {
        self.version += 1;
        let message =
            Message::new(source.to_owned().into(), operation.to_owned().into(), resource.to_owned())
                .in_group(group.to_owned().into())
                .with(content)
                .at_version(self.version.to_string());
        let frame = GoJson.encode(&message).unwrap();
        // What the edge says meanwhile is heard, so that neither waits for the other.
        let mut heard = Vec::new();
        {
            let Link { tx, rx, .. } = &mut self.link;
            let mut sending = tx.send(frame);
            loop {
                tokio::select! {
                    sent = &mut sending => break sent.expect("the edge has left"),
                    frame = rx.next() => heard.push(frame.expect("the edge has left").unwrap()),
                }
            }
        }
        for frame in heard {
            self.hear(frame, &message).await;
        }
        message
    }

    /// Answers what the edge asks: registration well, everything else with a hostile value. Whether it is the
    /// answer to `of`.
    async fn hear(&mut self, frame: Frame, of: &Message) -> bool {
        let message = GoJson.decode(frame).unwrap();
        if message.header.parent.as_ref() == Some(&of.header.id) {
            return true;
        }
        if message.is_answer() || message.route.operation == "keepalive" {
            return false;
        }
        let content = match message.route.resource.as_str() {
            "null/node/edge-1" => {
                json!({"Object": message.content.decode::<Value>().unwrap_or_default(), "Err": null})
            }
            _ => serde_json::from_str(HOSTILE[self.version as usize % HOSTILE.len()]).unwrap(),
        };
        let mut answer = message.answer(Content::json(&content).unwrap());
        answer.route.source = ModuleName::EDGE_CONTROLLER;
        self.version += 1;
        // A link that is full of what the edge has not read yet is not waited for.
        let _ = timeout(Duration::from_secs(5), self.link.tx.send(GoJson.encode(&answer).unwrap())).await;
        false
    }

    /// Hears the edge for so long: one that is not heard takes the link for broken.
    async fn listen(&mut self, time: Duration) {
        let (end, nothing) = (Instant::now() + time, Message::new("".into(), "".into(), String::new()));
        while let Ok(frame) = timeout_at(end, self.link.rx.next()).await {
            self.hear(frame.expect("the edge has left").unwrap(), &nothing).await;
        }
    }

    async fn runs(&self, name: &str) -> bool {
        let (sandboxes, containers) = self.runtime.list_all().await.unwrap();
        let ours = sandboxes.iter().find(|sandbox| sandbox.name == name).map(|sandbox| &sandbox.id);
        containers.iter().any(|container| Some(&container.sandbox) == ours && container.state.is_running())
    }

    /// A good pod is stored, confirmed and run.
    async fn works(&mut self, name: &str, after: &str) {
        let content = Content::json(&plain(name)).unwrap();
        let path = format!("default/pod/{name}");
        let told = self.say(("edgecontroller", "resource", "insert", &path), content).await;
        let confirmed = async {
            loop {
                let frame = self.link.rx.next().await.expect("the edge has left").unwrap();
                if self.hear(frame, &told).await {
                    return;
                }
            }
        };
        timeout(PATIENCE, confirmed)
            .await
            .unwrap_or_else(|_| panic!("{name} is not confirmed after {after}"));
        let running = async {
            while !self.runs(name).await {
                // What it asks meanwhile is answered.
                if let Ok(frame) = timeout(Duration::from_secs(1), self.link.rx.next()).await {
                    self.hear(frame.expect("the edge has left").unwrap(), &told).await;
                }
            }
        };
        timeout(PATIENCE, running).await.unwrap_or_else(|_| panic!("{name} does not run after {after}"));
        assert_eq!(self.panics.load(Ordering::Relaxed), 0, "something panicked after {after}");
        let gone =
            self.say(("edgecontroller", "resource", "delete", &path), Content::json(&pod(name)).unwrap());
        gone.await;
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stop.request();
    }
}

#[tokio::test(start_paused = true)]
async fn senseless_contents_of_every_kind_are_passed_over_and_good_ones_done() {
    let mut edge = Edge::start().await;
    edge.works("before", "the start").await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (at, word) in WORDS.into_iter().enumerate() {
        for text in HOSTILE.iter().copied().chain([deep.as_str(), "\"{\"", "\"[]\"", "\"null\""]) {
            edge.say(word, Content::from_json_bytes(text.to_owned()).unwrap()).await;
        }
        edge.works(&format!("good-{at}"), &format!("{word:?}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn objects_with_a_senseless_value_in_any_place_are_passed_over_or_run_and_good_ones_done() {
    let mut edge = Edge::start().await;
    let word = |source, operation, path| (source, "resource", operation, path);
    edge.say(
        word("devicecontroller", "insert", "default/devicemodel/valve"),
        Content::json(&model()).unwrap(),
    )
    .await;
    edge.say(word("devicecontroller", "insert", "default/device/valve"), Content::json(&device()).unwrap())
        .await;
    let seeds = [
        (word("edgecontroller", "insert", "default/pod/web"), pod("web")),
        (word("edgecontroller", "update", "default/pod/web"), pod("web")),
        (word("devicecontroller", "update", "default/device/valve"), device()),
        (word("devicecontroller", "update", "default/devicemodel/valve"), model()),
        (("devicecontroller", "twin", "update", "device/default/valve/twin/cloud_updated"), twin()),
    ];
    for (at, (word, seed)) in seeds.into_iter().enumerate() {
        let seed = seed.to_string();
        for place in 0..90 {
            // Some of the values in each place, others in the next.
            for value in 0..4 {
                let edits = [(0, place, (place + value * 5) % HOSTILE.len() as u32)];
                let Ok(content) = Content::from_json_bytes(edited(seed.as_bytes(), &edits)) else { continue };
                edge.say(word, content).await;
            }
        }
        edge.works(&format!("good-{at}"), &format!("{word:?}")).await;
        // Whatever is pending has time to go wrong.
        edge.listen(Duration::from_secs(60)).await;
    }
    assert_eq!(edge.panics.load(Ordering::Relaxed), 0);
}
