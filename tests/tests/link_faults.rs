//! Cloudcore, an embedded cluster and edgecore in one process, over a link that breaks at every k-th frame or
//! loses some: in the end both sides agree, nothing is lost and nothing was run twice. Time is simulated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kubeedge_apiserver::{EmbeddedCluster, LocalCluster, LocalSettings};
use kubeedge_cloud::{CloudCore, CloudCoreSettings, hub::NodeIdentity};
use kubeedge_core::{
    clock::Clock,
    conformance::cluster::ask,
    kernel::Shutdown,
    message::Millis,
    name::ModuleName,
    runtime::ContainerRuntime,
    store::MetaStore,
    transport::{Endpoint, Transport},
    wire::{Codec, GoJson},
};
use kubeedge_device::{Mapper, simulated::Simulated};
use kubeedge_edge::{EdgeCore, EdgeCoreSettings};
use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
use kubeedge_store::MemoryStore;
use kubeedge_tests::Overheard;
use kubeedge_transport::{Adaptive, Faults, Faulty, Memory, Way, Wire};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::Instant};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default";
const SYNCS: &str = "/apis/reliablesyncs.kubeedge.io/v1alpha1/namespaces/default/objectsyncs";
/// In simulated time.
const PATIENCE: Duration = Duration::from_secs(600);

fn wall() -> Millis {
    Millis(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// Cloud and edge, and the link between them.
struct World {
    cluster: EmbeddedCluster,
    link: Faulty<Arc<dyn Transport>>,
    codec: Arc<dyn Codec>,
    runtime: MemoryRuntime,
    clock: Clock,
    store: Arc<MemoryStore>,
    folder: TempDir,
    stop: Shutdown,
    edge: Option<(Shutdown, JoinHandle<()>)>,
}

impl World {
    async fn start(seed: u64) -> Self {
        Self::start_with(seed, Arc::new(GoJson)).await
    }

    async fn start_with(seed: u64, codec: Arc<dyn Codec>) -> Self {
        Self::over(Arc::new(Memory::new()), seed, codec).await
    }

    async fn over(network: Arc<dyn Transport>, seed: u64, codec: Arc<dyn Codec>) -> Self {
        let clock = Clock::simulated(wall());
        let images = [("app:1".to_owned(), vec!["wait".to_owned()])].into();
        let runtime = MemoryRuntime::new(MemorySettings { images, clock: clock.clone() });
        let local = LocalSettings::at(([127, 0, 0, 1], 0).into()).clock(clock.clone());
        let local = LocalCluster::open(Arc::new(MemoryStore::new()), local).await.unwrap();
        let (cluster, stop) = (local.cluster().clone(), Shutdown::new());
        tokio::spawn(local.run(stop.clone()));
        let link = Faulty::new(network, seed);
        cloud(&cluster, &link, codec.clone(), &stop).await;
        let (store, folder) = (Arc::new(MemoryStore::new()), TempDir::new().unwrap());
        let mut world = Self { cluster, link, codec, runtime, clock, store, folder, stop, edge: None };
        world.start_edge();
        world
    }

    fn start_edge(&mut self) {
        let mut settings = EdgeCoreSettings::for_node("edge-1");
        settings.hub.servers = vec!["cloud".to_owned()];
        settings.hub.qps = 0;
        settings.edged.root = self.folder.path().join("root");
        settings.edged.logs = self.folder.path().join("logs");
        settings.clock = self.clock.clone();
        let store: Arc<dyn MetaStore> = self.store.clone();
        let core =
            EdgeCore::assemble(settings, Arc::new(self.link.clone()), store, Arc::new(self.runtime.clone()))
                .mapper(Mapper::new(Simulated::new()))
                .codec(self.codec.clone())
                .without(&ModuleName::EVENT_BUS);
        let (core, stop) = (core.build().unwrap(), Shutdown::new());
        let until = stop.clone();
        let running =
            tokio::spawn(async move { core.run(async move { until.requested().await }).await.unwrap() });
        self.edge = Some((stop, running));
    }

    /// Ends edgecore in order; containers run on.
    async fn stop_edge(&mut self) {
        let (stop, running) = self.edge.take().unwrap();
        stop.request();
        running.await.unwrap();
    }

    async fn create(&self, path: &str, object: Value) -> Value {
        ask(&self.cluster, "POST", path, &object).await.with(201)
    }

    async fn patch(&self, path: &str, patch: Value) -> Value {
        ask(&self.cluster, "PATCH", path, &patch).await.with(200)
    }

    async fn delete(&self, path: &str) {
        let said = ask(&self.cluster, "DELETE", path, &Value::Null).await;
        assert!(said.code == 200 || said.code == 202, "{}", said.body);
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let said = ask(&self.cluster, "GET", path, &Value::Null).await;
        (said.code == 200).then_some(said.body)
    }

    async fn list(&self, path: &str) -> BTreeMap<String, Value> {
        let list = self.get(path).await.unwrap();
        let named =
            |object: &Value| (object["metadata"]["name"].as_str().unwrap().to_owned(), object.clone());
        list["items"].as_array().unwrap().iter().map(named).collect()
    }

    /// Waits until the cluster knows the node: pods bound to a node that is not there are removed.
    async fn registered(&self) {
        let end = Instant::now() + PATIENCE;
        while self.get("/api/v1/nodes/edge-1").await.is_none() {
            assert!(Instant::now() < end, "the node does not register");
            pause(1).await;
        }
    }

    /// What is not yet as both sides must see it in the end.
    async fn open_ends(&self, wanted: &Wanted) -> Vec<String> {
        let mut open = Vec::new();
        let pods = self.list(PODS).await;
        if !pods.keys().eq(&wanted.pods) {
            open.push(format!("pods in the cluster: {:?}", pods.keys()));
        }
        for (name, pod) in &pods {
            let main = &pod["status"]["containerStatuses"][0];
            if pod["status"]["phase"] != "Running" || main["ready"] != true || main["restartCount"] != 0 {
                open.push(format!("{name}: {}", pod["status"]));
            }
        }
        let (sandboxes, containers) = self.runtime.list_all().await.unwrap();
        let mut running: Vec<_> =
            sandboxes.iter().filter(|sandbox| sandbox.ready).map(|sandbox| sandbox.name.clone()).collect();
        running.sort();
        let live = containers.iter().filter(|container| container.state.is_running()).count();
        if running != wanted.pods || live != wanted.pods.len() {
            open.push(format!("pods on the node: {running:?}, {live} containers"));
        }
        for kind in ["pods", "configmaps"] {
            for (name, object) in self.list(&format!("/api/v1/namespaces/default/{kind}")).await {
                let id = format!("{SYNCS}/edge-1.{}", object["metadata"]["uid"].as_str().unwrap());
                let known = self.get(&id).await.map(|sync| sync["status"]["objectResourceVersion"].clone());
                let is_so = known.as_ref() == Some(&object["metadata"]["resourceVersion"]);
                if !is_so && name != "kube-root-ca.crt" {
                    open.push(format!(
                        "{kind}/{name}: {} confirmed as {known:?}",
                        object["metadata"]["resourceVersion"]
                    ));
                }
            }
        }
        let status = self.get(&format!("{DEVICES}/devicestatuses/valve")).await.unwrap_or_default();
        let twin = &status["status"]["twins"][0];
        if (&twin["reported"]["value"], &twin["observedDesired"]["value"])
            != (&json!(wanted.opening), &json!(wanted.opening))
        {
            open.push(format!("the valve: {}", status["status"]));
        }
        open
    }

    /// Waits until both sides agree.
    async fn agree(&self, wanted: &Wanted, case: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let open = self.open_ends(wanted).await;
            if open.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "{case}: cloud and edge do not agree:\n{}", open.join("\n"));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// How often a sandbox or a container was ever made: ids count up.
    async fn ever_made(&self) -> usize {
        let (sandboxes, containers) = self.runtime.list_all().await.unwrap();
        let ids = sandboxes.iter().map(|s| &s.id.0).chain(containers.iter().map(|c| &c.id.0));
        let numbers = ids.map(|id| usize::from_str_radix(id.rsplit('-').next().unwrap(), 16).unwrap());
        numbers.max().unwrap_or(0)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.request();
    }
}

async fn cloud(
    cluster: &EmbeddedCluster,
    link: &Faulty<Arc<dyn Transport>>,
    codec: Arc<dyn Codec>,
    stop: &Shutdown,
) {
    let mut settings = CloudCoreSettings::listening(Endpoint::from("cloud"));
    settings.hub.identity = NodeIdentity::Claim;
    settings.certs.listen = ([127, 0, 0, 1], 0).into();
    settings.certs.names = vec!["127.0.0.1".to_owned()];
    let core = CloudCore::assemble(settings, Arc::new(link.clone()), Arc::new(cluster.clone()));
    let core = core.codec(codec).build().await.unwrap();
    let (status, until) = (core.status(), stop.clone());
    tokio::spawn(async move { core.run(async move { until.requested().await }).await.unwrap() });
    status.ready().await;
}

/// What must be true in the end.
#[derive(Debug, Default)]
struct Wanted {
    pods: Vec<String>,
    opening: String,
}

fn pod(name: &str) -> Value {
    // It stays on its node however long the cluster does not hear of that.
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "nodeName": "edge-1", "terminationGracePeriodSeconds": 1, "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "c", "image": "app:1", "command": ["wait"],
            "envFrom": [{"configMapRef": {"name": "app"}}]}]}})
}

fn valve(opening: &str) -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "valve"}, "spec": {
        "nodeName": "edge-1", "deviceModelRef": {"name": "valve"}, "protocol": {"protocolName": "simulated"},
        "properties": [property(opening)]}})
}

fn property(opening: &str) -> Value {
    json!({"name": "opening", "collectCycle": 1000, "reportCycle": 1000, "reportToCloud": true, "desired": {"value": opening},
        "visitors": {"protocolName": "simulated", "configData": {"signal": "memory", "cell": "opening", "value": 0}}})
}

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Pods come and go, a ConfigMap changes, a device is steered.
async fn live(world: &World) -> Wanted {
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"A": "1"}});
    world.create(MAPS, map).await;
    for name in ["a", "b", "c", "d"] {
        world.create(PODS, pod(name)).await;
        pause(2).await;
    }
    let model = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "valve"},
        "spec": {"protocol": "simulated", "properties": [{"name": "opening", "type": "INT", "accessMode": "ReadWrite"}]}});
    world.create(&format!("{DEVICES}/devicemodels"), model).await;
    world.create(&format!("{DEVICES}/devices"), valve("10")).await;
    pause(5).await;
    world.patch(&format!("{MAPS}/app"), json!({"data": {"A": "2"}})).await;
    world.delete(&format!("{PODS}/b")).await;
    pause(5).await;
    world.patch(&format!("{PODS}/c"), json!({"metadata": {"labels": {"tier": "front"}}})).await;
    world.patch(&format!("{DEVICES}/devices/valve"), json!({"spec": {"properties": [property("35")]}})).await;
    world.create(PODS, pod("e")).await;
    world.delete(&format!("{PODS}/d")).await;
    pause(20).await;
    let pods = ["a", "c", "e"].map(str::to_owned).to_vec();
    Wanted { pods, opening: "35".to_owned() }
}

/// Five pods were asked for, each one sandbox and one container.
const MOST: usize = 10;

async fn nothing_lost_with(faults: Faults, seed: u64) {
    nothing_lost_in(World::start(seed).await, faults).await;
}

async fn nothing_lost_in(world: World, faults: Faults) {
    let case = format!("{faults:?}");
    world.registered().await;
    world.link.set(faults);
    let wanted = live(&world).await;
    world.link.set(Faults::default());
    nothing_is_lost(&world, &wanted, &case).await;
}

async fn nothing_is_lost(world: &World, wanted: &Wanted, case: &str) {
    world.agree(wanted, case).await;
    let made = world.ever_made().await;
    assert!(made <= MOST, "{case}: something was run twice: {made} sandboxes and containers for 5 pods");
    // And it stays so.
    pause(120).await;
    world.agree(wanted, case).await;
    assert_eq!(world.ever_made().await, made, "{case}: something was run again");
}

#[tokio::test(start_paused = true)]
async fn without_faults_both_sides_agree() {
    nothing_lost_with(Faults::default(), 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_at_every_kth_frame_loses_nothing_and_runs_nothing_twice() {
    for k in [1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 21, 24] {
        nothing_lost_with(Faults { cut_after: Some(k), ..Faults::default() }, k).await;
    }
}

#[tokio::test(start_paused = true)]
async fn links_that_break_after_any_byte_lose_nothing_and_run_nothing_twice() {
    for seed in 1..=8_u64 {
        let wire = Wire::new();
        let world = World::over(Arc::new(wire.clone()), seed, Arc::new(GoJson)).await;
        world.registered().await;
        // The first link ends with its next frame, each one after it after a byte of its own.
        let cuts = wire.clone();
        let cutting = tokio::spawn(async move {
            for n in 0_u64.. {
                let way = if (n + seed).is_multiple_of(2) { Way::Out } else { Way::Back };
                cuts.cut_next(way, (seed * 7919 + n * 1543) % 12_000);
                while cuts.will_cut() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
        world.link.set(Faults { cut_after: Some(0), ..Faults::default() });
        pause(1).await;
        world.link.set(Faults::default());
        let wanted = live(&world).await;
        cutting.abort();
        nothing_is_lost(&world, &wanted, &format!("cuts of seed {seed}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_loses_and_delays_frames_loses_nothing_and_runs_nothing_twice() {
    for seed in 1..=6 {
        let delay = Duration::from_millis(300);
        nothing_lost_with(Faults { drop: 0.2, delay, ..Faults::default() }, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn peers_of_our_own_agree_in_the_compact_form_over_a_link_that_breaks() {
    let frames = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let counted = frames.clone();
    let codec = Arc::new(Overheard::new(Adaptive::default(), move |_, frame| {
        counted[usize::from(!frame.text)].fetch_add(1, Ordering::Relaxed);
    }));
    let world = World::start_with(3, codec).await;
    nothing_lost_in(world, Faults { cut_after: Some(9), ..Faults::default() }).await;
    let [text, compact] = [0, 1].map(|form| frames[form].load(Ordering::Relaxed));
    // The first words of each link are for any cloud.
    assert!(compact > 5 * text && text > 0, "{text} in Go's JSON, {compact} compact");
}

#[tokio::test(start_paused = true)]
async fn an_edge_restarted_while_cut_off_brings_its_pods_back_and_agrees_when_the_link_is_there_again() {
    let mut world = World::start(7).await;
    world.registered().await;
    let wanted = live(&world).await;
    world.agree(&wanted, "before").await;
    let made = world.ever_made().await;
    world.link.set(Faults { unreachable: true, cut_after: Some(0), ..Faults::default() });
    world.stop_edge().await;
    world.start_edge();
    pause(300).await;
    let (_, containers) = world.runtime.list_all().await.unwrap();
    assert_eq!(containers.iter().filter(|container| container.state.is_running()).count(), 3);
    // Meanwhile the cloud wants something else.
    world.delete(&format!("{PODS}/a")).await;
    world.create(PODS, pod("f")).await;
    world.patch(&format!("{DEVICES}/devices/valve"), json!({"spec": {"properties": [property("50")]}})).await;
    pause(60).await;
    world.link.set(Faults::default());
    let pods = ["c", "e", "f"].map(str::to_owned).to_vec();
    world.agree(&Wanted { pods, opening: "50".to_owned() }, "after").await;
    assert_eq!(world.ever_made().await, made + 2, "what ran was run again");
}
