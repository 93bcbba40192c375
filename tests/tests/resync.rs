//! What cloud and edge find out about each other at each connect, over a real link whose bytes are counted:
//! an edge that lost its store, a cloud that lost its records, a few changes among ten thousand objects, and
//! a peer that speaks Go's JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::TryStreamExt;
use kubeedge_apiserver::{EmbeddedCluster, EmbeddedSettings, Signer};
use kubeedge_cloud::{CloudCore, CloudCoreSettings, hub::NodeIdentity};
use kubeedge_core::{
    api,
    clock::Clock,
    conformance::cluster::ask,
    kernel::Shutdown,
    name::ModuleName,
    store::{Bucket, MetaStore, Scan},
    transport::Endpoint,
    wire::{Codec, GoJson},
};
use kubeedge_edge::{
    EdgeCore, EdgeCoreSettings,
    meta::{BUCKET, ObjectKey},
};
use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
use kubeedge_store::MemoryStore;
use kubeedge_tests::Overheard;
use kubeedge_transport::{Adaptive, Way, Wire};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default";
const SYNCS: &str = "/apis/reliablesyncs.kubeedge.io/v1alpha1/namespaces/default/objectsyncs";
/// In simulated time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A frame: what it is about, and its size.
#[derive(Clone, Debug)]
struct Said {
    operation: String,
    resource: String,
    content: Vec<u8>,
    bytes: usize,
}

impl Said {
    /// The last word of a comparison.
    fn ends(&self) -> bool {
        self.resource == "digest" && self.operation == "response" && self.content == b"{}"
    }

    fn is_object(&self) -> bool {
        ["/pod/", "/configmap/", "/device/", "/devicemodel/"].iter().any(|kind| self.resource.contains(kind))
    }
}

/// A codec, and the frames it has written.
#[derive(Clone, Debug)]
struct Noting(Arc<Overheard>, Arc<Mutex<Vec<Said>>>);

impl Noting {
    fn new(codec: impl Codec) -> Self {
        let said = Arc::<Mutex<Vec<Said>>>::default();
        let noted = said.clone();
        let codec = Overheard::new(codec, move |message, frame| {
            noted.lock().push(Said {
                operation: message.route.operation.as_str().to_owned(),
                resource: message.route.resource.as_str().to_owned(),
                content: message.content.as_json().to_vec(),
                bytes: frame.payload.len(),
            });
        });
        Self(Arc::new(codec), said)
    }
}

/// Cloud and edge, the edge without containers.
struct World {
    cluster: EmbeddedCluster,
    wire: Wire,
    /// What the cloud writes, and what the edge writes.
    cloud: Noting,
    edge: Noting,
    store: Arc<MemoryStore>,
    folder: TempDir,
    stop: Shutdown,
    running: Option<(Shutdown, JoinHandle<()>)>,
}

impl World {
    async fn start(edge: impl Codec) -> Self {
        let settings = EmbeddedSettings::new(Signer::new(b"secret")).definitions(api::definitions());
        let cluster = EmbeddedCluster::open(Arc::new(MemoryStore::new()), settings).await.unwrap();
        let (wire, cloud, stop) = (Wire::new(), Noting::new(Adaptive::default()), Shutdown::new());
        let mut settings = CloudCoreSettings::listening(Endpoint::from("cloud"));
        settings.hub.identity = NodeIdentity::Claim;
        settings.certs.listen = ([127, 0, 0, 1], 0).into();
        settings.certs.names = vec!["127.0.0.1".to_owned()];
        let core = CloudCore::assemble(settings, Arc::new(wire.clone()), Arc::new(cluster.clone()));
        let core = core.codec(cloud.0.clone()).build().await.unwrap();
        let (status, until) = (core.status(), stop.clone());
        tokio::spawn(async move { core.run(async move { until.requested().await }).await.unwrap() });
        status.ready().await;
        let (store, folder) = (Arc::new(MemoryStore::new()), TempDir::new().unwrap());
        let edge = Noting::new(edge);
        let world = Self { cluster, wire, cloud, edge, store, folder, stop, running: None };
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "edge-1", "labels": {"node-role.kubernetes.io/edge": ""}}});
        world.create("/api/v1/nodes", node).await;
        world
    }

    fn start_edge(&mut self) {
        let mut settings = EdgeCoreSettings::for_node("edge-1");
        settings.hub.servers = vec!["cloud".to_owned()];
        settings.hub.qps = 0;
        settings.edged.root = self.folder.path().join("root");
        settings.edged.logs = self.folder.path().join("logs");
        let runtime = MemoryRuntime::new(MemorySettings { images: BTreeMap::new(), clock: Clock::wall() });
        let store: Arc<dyn MetaStore> = self.store.clone();
        let core = EdgeCore::assemble(settings, Arc::new(self.wire.clone()), store, Arc::new(runtime))
            .codec(self.edge.0.clone())
            .without(&ModuleName::EVENT_BUS)
            .without(&ModuleName::EDGED)
            .without(&ModuleName::of("edgedServer"));
        let (core, stop) = (core.build().unwrap(), Shutdown::new());
        let until = stop.clone();
        let running =
            tokio::spawn(async move { core.run(async move { until.requested().await }).await.unwrap() });
        self.running = Some((stop, running));
    }

    async fn stop_edge(&mut self) {
        let (stop, running) = self.running.take().unwrap();
        stop.request();
        running.await.unwrap();
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Option<Value> {
        let said = ask(&self.cluster, method, path, &body).await;
        let done = (200..300).contains(&said.code);
        assert!(done || said.code == 404, "{method} {path}: {}", said.body);
        done.then_some(said.body)
    }

    async fn create(&self, path: &str, object: Value) -> Value {
        self.ask("POST", path, object).await.unwrap()
    }

    async fn patch(&self, path: &str, patch: Value) -> Value {
        self.ask("PATCH", path, patch).await.unwrap()
    }

    async fn delete(&self, path: &str) {
        self.ask("DELETE", path, json!({"gracePeriodSeconds": 0})).await;
    }

    /// What is said of each object in its record.
    async fn records(&self) -> BTreeMap<String, String> {
        let list = self.ask("GET", SYNCS, Value::Null).await.unwrap();
        let said = |record: &Value| {
            let version = &record["status"]["objectResourceVersion"];
            (
                record["metadata"]["name"].as_str().unwrap().to_owned(),
                version.as_str().unwrap_or("").to_owned(),
            )
        };
        list["items"].as_array().unwrap().iter().map(said).collect()
    }

    /// Waits until the records say exactly that the edge has these objects.
    async fn until_recorded(&self, objects: &[Value]) {
        let wanted: BTreeMap<_, _> = objects
            .iter()
            .map(|object| {
                let text = |name: &str| object["metadata"][name].as_str().unwrap().to_owned();
                (format!("edge-1.{}", text("uid")), text("resourceVersion"))
            })
            .collect();
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.records().await;
            if found == wanted {
                return;
            }
            let missing: Vec<_> =
                wanted.iter().filter(|(name, version)| found.get(*name) != Some(version)).take(9).collect();
            assert!(Instant::now() < end, "{} of {} records; {missing:?}", found.len(), wanted.len());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The objects in the edge's store, by resource. Its own Node it asks for itself.
    async fn stored(&self) -> BTreeMap<String, Value> {
        let rows: Vec<_> = self.store.scan(Scan::new(BUCKET, "")).try_collect().await.unwrap();
        let resource = |row: &str| ObjectKey::of_row(row).unwrap().resource().as_str().to_owned();
        let objects = rows.into_iter().map(|row| (resource(&row.key.name), row.value));
        let objects = objects.filter(|(resource, _)| resource != "null/node/edge-1");
        objects.map(|(resource, value)| (resource, serde_json::from_slice(&value).unwrap())).collect()
    }

    /// Lets the edge connect and compare. What both wrote of the comparison and of devices, and all the link
    /// has carried by then.
    async fn compare(&mut self) -> (Vec<Said>, u64) {
        for side in [&self.cloud, &self.edge] {
            side.1.lock().clear();
        }
        self.start_edge();
        let finished = async {
            while !self.cloud.1.lock().iter().any(Said::ends) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, finished).await.expect("the comparison ends");
        let carried = [Way::Out, Way::Back].map(|way| self.wire.carried(way)).iter().sum();
        let sides = [&self.cloud, &self.edge].map(|side| side.1.lock().clone());
        (sides.concat(), carried)
    }

    /// One of each kind, all on the edge.
    async fn some_objects(&self) -> Vec<Value> {
        let api = "devices.kubeedge.io/v1beta1";
        let pod = self.create(PODS, pod("web", ["app"].into_iter().map(str::to_owned))).await;
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"A": "1"}});
        let model = json!({"apiVersion": api, "kind": "DeviceModel", "metadata": {"name": "m"},
            "spec": {"protocol": "simulated", "properties": []}});
        let device = json!({"apiVersion": api, "kind": "Device", "metadata": {"name": "valve"}, "spec": {"nodeName": "edge-1",
            "deviceModelRef": {"name": "m"}, "protocol": {"protocolName": "simulated"}, "properties": []}});
        self.until_told("default/pod/web").await;
        let map = self.create(MAPS, map).await;
        let model = self.create(&format!("{DEVICES}/devicemodels"), model).await;
        let device = self.create(&format!("{DEVICES}/devices"), device).await;
        vec![pod, map, model, device]
    }

    /// Waits until the cloud has written something about this.
    async fn until_told(&self, resource: &str) {
        let told = async {
            while !self.cloud.1.lock().iter().any(|said| said.resource == resource) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, told).await.expect("the edge is told");
    }

    /// What the cloud has written of objects until it writes of a pod that is made now.
    async fn told_until_now(&self) -> Vec<Said> {
        self.create(PODS, pod("fence", [].into_iter())).await;
        self.until_told("default/pod/fence").await;
        let said = self.cloud.1.lock().clone();
        said.into_iter().filter(|said| said.is_object() && !said.resource.ends_with("/fence")).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.request();
    }
}

fn pod(name: &str, maps: impl Iterator<Item = String>) -> Value {
    let maps: Vec<_> = maps.map(|name| json!({"configMapRef": {"name": name}})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": "edge-1",
        "containers": [{"name": "c", "image": "app:1", "envFrom": maps}]}})
}

#[tokio::test(start_paused = true)]
async fn an_edge_whose_store_was_lost_gets_everything_again() {
    let mut world = World::start(Adaptive::default()).await;
    world.start_edge();
    let objects = world.some_objects().await;
    world.until_recorded(&objects).await;
    let before = world.stored().await;
    assert!(before.len() >= objects.len());
    world.stop_edge().await;
    world.store = Arc::new(MemoryStore::new());
    world.compare().await;
    let restored = async {
        while world.stored().await != before {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(PATIENCE, restored).await.expect("everything is there again");
    world.until_recorded(&objects).await;
}

#[tokio::test(start_paused = true)]
async fn an_edge_with_an_older_backup_of_its_store_gets_what_came_after_it() {
    let mut world = World::start(Adaptive::default()).await;
    world.start_edge();
    let mut objects = world.some_objects().await;
    world.until_recorded(&objects).await;
    world.stop_edge().await;
    let backup = MemoryStore::new();
    for bucket in ["object", "confirmed", "device"] {
        let rows: Vec<_> = world.store.scan(Scan::new(Bucket(bucket), "")).try_collect().await.unwrap();
        for row in rows {
            backup.commit(kubeedge_core::store::Batch::new().put(row.key, row.value)).await.unwrap();
        }
    }
    world.start_edge();
    objects[1] = world.patch(&format!("{MAPS}/app"), json!({"data": {"A": "2"}})).await;
    world.delete(&format!("{DEVICES}/devices/valve")).await;
    world.delete(&format!("{DEVICES}/devicemodels/m")).await;
    objects.truncate(2);
    world.until_recorded(&objects).await;
    world.stop_edge().await;
    world.store = Arc::new(backup);
    world.compare().await;
    let restored = async {
        loop {
            let (stored, devices) = (world.stored().await, world.store.scan(Scan::new(Bucket("device"), "")));
            let devices: Vec<_> = devices.try_collect().await.unwrap();
            let stale = stored.keys().any(|resource| resource.contains("/device"));
            if stored["default/configmap/app"]["data"]["A"] == "2" && !stale && devices.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(PATIENCE, restored).await.expect("it is as if there had been no backup");
    world.until_recorded(&objects).await;
}

#[tokio::test(start_paused = true)]
async fn records_that_the_cloud_lost_are_made_again_and_no_object_is_sent() {
    let mut world = World::start(Adaptive::default()).await;
    world.start_edge();
    let objects = world.some_objects().await;
    world.until_recorded(&objects).await;
    world.stop_edge().await;
    for name in world.records().await.into_keys() {
        world.delete(&format!("{SYNCS}/{name}")).await;
    }
    assert!(world.records().await.is_empty());
    world.compare().await;
    world.until_recorded(&objects).await;
    let told = world.told_until_now().await;
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_go_peer_sees_nothing_of_it() {
    let mut world = World::start(GoJson).await;
    world.start_edge();
    let objects = world.some_objects().await;
    world.until_recorded(&objects).await;
    world.stop_edge().await;
    world.start_edge();
    world.told_until_now().await;
    for side in [&world.cloud, &world.edge] {
        let said = side.1.lock().clone();
        assert!(said.iter().all(|said| said.resource != "digest"), "{said:?}");
    }
    let announced = world.cloud.1.lock().iter().filter(|said| said.resource == "membership").count();
    assert_eq!(announced, 2, "when the device was made, and when the edge was back");
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_after_a_few_changes_among_ten_thousand_objects_costs_bytes_for_the_few() {
    const OBJECTS: usize = 10_000;
    let mut world = World::start(Adaptive::default()).await;
    world.start_edge();
    let name = |n: usize| format!("settings-{n}");
    let big = world.create(PODS, pod("web", (0..OBJECTS).map(name))).await;
    world.until_told("default/pod/web").await;
    let mut objects = vec![big];
    for n in 0..OBJECTS {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(n)}, "data": {"k": "v".repeat(200)}});
        objects.push(world.create(MAPS, map).await);
    }
    world.until_recorded(&objects).await;
    world.stop_edge().await;
    let digest = |said: &[Said]| {
        let bytes: usize = said.iter().filter(|said| said.resource == "digest").map(|said| said.bytes).sum();
        bytes
    };
    let (said, carried) = world.compare().await;
    let same = (digest(&said), carried);
    assert!(said.iter().all(|said| !said.is_object() && said.resource != "membership"), "{said:?}");
    let mut measured = Vec::new();
    for k in [1, 10, 100] {
        world.stop_edge().await;
        // The records of these are lost.
        for object in objects.iter().skip(1).step_by(97).take(k) {
            world.delete(&format!("{SYNCS}/edge-1.{}", object["metadata"]["uid"].as_str().unwrap())).await;
        }
        let (said, carried) = world.compare().await;
        measured.push((k, digest(&said), carried));
        world.until_recorded(&objects).await;
        let told: Vec<_> = world.cloud.1.lock().iter().filter(|said| said.is_object()).cloned().collect();
        assert!(told.is_empty(), "{told:?}");
    }
    println!(
        "of {OBJECTS} objects (frames of the comparison, bytes of the link): none differs {same:?}; {measured:?}"
    );
    assert!(same.0 <= 300 && same.1 <= 1200, "{same:?}");
    for (k, bytes, carried) in measured {
        let most = 1400 + 700 * k;
        assert!(bytes <= most && carried <= 1500 + most as u64, "{k}: {bytes} and {carried} bytes");
    }
}
