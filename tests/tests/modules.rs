//! Both halves of a vendor's modules in whole cores: over links that break, restarts of either side, an
//! edge that has no such module, and readings of a device. Time is simulated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::FuturesUnordered};
use kubeedge_apiserver::{EmbeddedCluster, EmbeddedSettings, Signer};
use kubeedge_cloud::{
    CloudCore, CloudCoreSettings,
    hub::{NodeIdentity, Sessions},
};
use kubeedge_core::{
    api,
    bus::{Bus, Envelope},
    clock::Clock,
    conformance::cluster::ask,
    failure::BoxError,
    kernel::{KernelError, Module, ModuleContext, Shutdown},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    routes::{Delivery, Observed, READINGS, RouteError, Routes},
    store::MetaStore,
    transport::Endpoint,
    wire::Codec,
};
use kubeedge_device::{Mapper, simulated::Simulated};
use kubeedge_edge::{EdgeCore, EdgeCoreSettings};
use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
use kubeedge_store::MemoryStore;
use kubeedge_transport::{Adaptive, Faults, Faulty, Memory};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

const GROUP: Group = Group::of("acme");
/// In simulated time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What one half has to say and has heard; outlives its process, as a vendor's own store would.
#[derive(Debug, Default)]
struct Half {
    /// What the other half has not confirmed, by number.
    unconfirmed: Mutex<BTreeSet<u64>>,
    heard: Mutex<Vec<u64>>,
    refused: Mutex<Vec<String>>,
    readings: Mutex<Vec<Observed>>,
    more: Notify,
}

impl Half {
    fn say(&self, numbers: std::ops::Range<u64>) {
        self.unconfirmed.lock().extend(numbers);
        self.more.notify_one();
    }

    /// What was heard, each number once, in the order of the first time, of one line.
    fn heard_of(&self, line: u64) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        let heard = self.heard.lock();
        heard.iter().copied().filter(|n| n % LINES == line && seen.insert(*n)).collect()
    }
}

/// Numbers are about so many resources.
const LINES: u64 = 3;

/// A half at work. The cloud's tells anew after its restart what was not confirmed; the edge's leaves that
/// to the hub, which stores it.
#[derive(Clone)]
struct Acme {
    half: Arc<Half>,
    hub: ModuleName,
    prefix: &'static str,
    tells_anew: bool,
}

impl Acme {
    /// Hands the hub what it was not given by this process yet.
    async fn tell(&self, bus: &Bus, told: &mut BTreeSet<u64>, answers: &mut FuturesUnordered<Answer>) {
        let numbers: Vec<_> = self.half.unconfirmed.lock().iter().copied().collect();
        for number in numbers.into_iter().filter(|number| told.insert(*number)) {
            let resource = format!("{}{}", self.prefix, number % LINES);
            let message = Message::new(self.name(), Operation::UPDATE, resource).in_group(GROUP);
            let (envelope, answer) = Envelope::with_reply(message.with(Content::text(&number.to_string())));
            bus.forward(&self.hub, envelope.deliver(Delivery::Reliable)).await.unwrap();
            if !self.tells_anew {
                self.half.unconfirmed.lock().remove(&number);
            }
            answers.push(Box::pin(async move { (number, answer.await.ok()) }));
        }
    }
}

type Answer = std::pin::Pin<Box<dyn Future<Output = (u64, Option<Message>)> + Send>>;

#[async_trait]
impl Module for Acme {
    fn name(&self) -> ModuleName {
        ModuleName::of("acme")
    }

    fn group(&self) -> Group {
        Group::USER
    }

    fn routes(&self) -> Routes {
        Routes::new().group(GROUP).readings()
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let (mut told, mut answers) = (BTreeSet::new(), FuturesUnordered::new());
        loop {
            self.tell(&ctx.bus, &mut told, &mut answers).await;
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                () = self.half.more.notified() => {}
                Some((number, answer)) = answers.next() => {
                    let Some(answer) = answer else { continue };
                    if answer.route.operation == Operation::ERROR {
                        self.half.refused.lock().push(answer.content.as_text().unwrap().into_owned());
                    }
                    self.half.unconfirmed.lock().remove(&number);
                }
                Some(envelope) = ctx.inbox.next() => {
                    let content = &envelope.message.content;
                    if envelope.message.route.resource == READINGS {
                        self.half.readings.lock().extend(content.decode::<Vec<Observed>>()?);
                        continue;
                    }
                    self.half.heard.lock().push(content.as_text().unwrap().parse()?);
                    envelope.answer(Content::ok());
                }
            }
        }
    }
}

type Running = (Shutdown, JoinHandle<()>);

/// Cloud and edge, without containers.
struct World {
    cluster: EmbeddedCluster,
    link: Faulty<Memory>,
    store: Arc<MemoryStore>,
    folder: TempDir,
    cloud_half: Arc<Half>,
    edge_half: Arc<Half>,
    sessions: Option<Sessions>,
    cloud: Option<Running>,
    edge: Option<Running>,
}

impl World {
    async fn start(seed: u64) -> Self {
        let settings = EmbeddedSettings::new(Signer::new(b"secret")).definitions(api::definitions());
        let cluster = EmbeddedCluster::open(Arc::new(MemoryStore::new()), settings).await.unwrap();
        let mut world = Self {
            cluster,
            link: Faulty::new(Memory::new(), seed),
            store: Arc::new(MemoryStore::new()),
            folder: TempDir::new().unwrap(),
            cloud_half: Arc::default(),
            edge_half: Arc::default(),
            sessions: None,
            cloud: None,
            edge: None,
        };
        world.start_cloud().await;
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "edge-1", "labels": {"node-role.kubernetes.io/edge": ""}}});
        world.create("/api/v1/nodes", node).await;
        world
    }

    async fn create(&self, path: &str, object: Value) {
        assert_eq!(ask(&self.cluster, "POST", path, &object).await.code, 201, "{object}");
    }

    async fn start_cloud(&mut self) {
        let mut settings = CloudCoreSettings::listening(Endpoint::from("cloud"));
        settings.hub.identity = NodeIdentity::Claim;
        settings.certs.listen = ([127, 0, 0, 1], 0).into();
        settings.certs.names = vec!["127.0.0.1".to_owned()];
        let half = self.cloud_half.clone();
        let acme = Acme { half, hub: ModuleName::CLOUD_HUB, prefix: "node/edge-1/lines/", tells_anew: true };
        let core = CloudCore::assemble(settings, Arc::new(self.link.clone()), Arc::new(self.cluster.clone()))
            .codec(Arc::new(Adaptive::default()))
            .module(acme)
            .build()
            .await
            .unwrap();
        let status = core.status();
        self.sessions = Some(status.sessions.clone());
        self.cloud = Some(spawn(|stop| async move { core.run(stop).await.unwrap() }));
        status.ready().await;
    }

    fn start_edge(&mut self, with_module: bool) {
        let mut settings = EdgeCoreSettings::for_node("edge-1");
        settings.hub.servers = vec!["cloud".to_owned()];
        settings.edged.root = self.folder.path().join("root");
        settings.edged.logs = self.folder.path().join("logs");
        let runtime = MemoryRuntime::new(MemorySettings { images: BTreeMap::new(), clock: Clock::wall() });
        let store: Arc<dyn MetaStore> = self.store.clone();
        let codec: Arc<dyn Codec> = Arc::new(Adaptive::default());
        let core = EdgeCore::assemble(settings, Arc::new(self.link.clone()), store, Arc::new(runtime))
            .codec(codec)
            .mapper(Mapper::new(Simulated::new()))
            .without(&ModuleName::EVENT_BUS)
            .without(&ModuleName::EDGED)
            .without(&ModuleName::of("edgedServer"));
        let half = self.edge_half.clone();
        let acme = Acme { half, hub: ModuleName::EDGE_HUB, prefix: "lines/", tells_anew: false };
        let core = if with_module { core.module(acme) } else { core };
        let core = core.build().unwrap();
        self.edge = Some(spawn(|stop| async move { core.run(stop).await.unwrap() }));
    }

    async fn restart_edge(&mut self) {
        end(&mut self.edge).await;
        self.start_edge(true);
    }

    async fn restart_cloud(&mut self) {
        end(&mut self.cloud).await;
        self.start_cloud().await;
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waits = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("{what}"));
    }

    async fn stop(mut self) {
        end(&mut self.edge).await;
        end(&mut self.cloud).await;
    }
}

fn spawn<F: Future<Output = ()> + Send + 'static>(
    run: impl FnOnce(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> F,
) -> Running {
    let stop = Shutdown::new();
    let until = stop.clone();
    let running = tokio::spawn(run(Box::pin(async move { until.requested().await })));
    (stop, running)
}

async fn end(running: &mut Option<Running>) {
    if let Some((stop, running)) = running.take() {
        stop.request();
        running.await.unwrap();
    }
}

/// All numbers below, of one line.
fn numbers(all: u64, line: u64) -> Vec<u64> {
    (0..all).filter(|n| n % LINES == line).collect()
}

#[tokio::test(start_paused = true)]
async fn reliable_messages_arrive_in_order_over_cuts_and_restarts_of_either_side() {
    const ALL: u64 = 240;
    let mut world = World::start(7).await;
    world.start_edge(true);
    for round in 0..ALL / 20 {
        let part = round * 20..(round + 1) * 20;
        world.cloud_half.say(part.clone());
        world.edge_half.say(part);
        world.link.set(Faults { cut_after: Some(9 + round), ..Faults::default() });
        tokio::time::sleep(Duration::from_secs(20)).await;
        match round % 4 {
            1 => world.restart_edge().await,
            3 => world.restart_cloud().await,
            _ => {}
        }
    }
    world.link.set(Faults::default());
    let complete = |half: &Half| (0..LINES).all(|line| half.heard_of(line).len() == numbers(ALL, line).len());
    world
        .until("everything arrives", |world| complete(&world.cloud_half) && complete(&world.edge_half))
        .await;
    for half in [&world.cloud_half, &world.edge_half] {
        for line in 0..LINES {
            assert_eq!(half.heard_of(line), numbers(ALL, line));
        }
        assert!(half.refused.lock().is_empty(), "{:?}", half.refused.lock());
    }
    // And then it is over: nothing is said again.
    world.until("everything is confirmed", |world| world.cloud_half.unconfirmed.lock().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let heard = |world: &World| [&world.cloud_half, &world.edge_half].map(|half| half.heard.lock().len());
    let before = heard(&world);
    world.restart_edge().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(heard(&world), before);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sender_learns_that_the_edge_has_no_module_for_its_group() {
    let mut world = World::start(1).await;
    world.start_edge(false);
    world.cloud_half.say(0..1);
    world.until("the sender is told", |world| !world.cloud_half.refused.lock().is_empty()).await;
    assert_eq!(*world.cloud_half.refused.lock(), ["no module of edge-1 takes group acme"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_module_hears_what_a_device_of_its_node_reports() {
    const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default";
    let mut world = World::start(1).await;
    world.start_edge(true);
    let model = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "valve"},
        "spec": {"protocol": "simulated", "properties": [{"name": "opening", "type": "INT", "accessMode": "ReadWrite"}]}});
    world.create(&format!("{DEVICES}/devicemodels"), model).await;
    let property = json!({"name": "opening", "collectCycle": 1000, "reportCycle": 1000, "reportToCloud": false,
        "desired": {"value": "42"},
        "visitors": {"protocolName": "simulated", "configData": {"signal": "memory", "cell": "opening", "value": 0}}});
    let device = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "valve"},
        "spec": {"nodeName": "edge-1", "deviceModelRef": {"name": "valve"},
            "protocol": {"protocolName": "simulated"}, "properties": [property]}});
    world.create(&format!("{DEVICES}/devices"), device).await;
    let is_42 = |seen: &Observed| {
        (seen.device.as_str(), seen.property.as_str(), seen.value.as_str())
            == ("default/valve", "opening", "42")
    };
    world.until("the reading", |world| world.edge_half.readings.lock().iter().any(is_42)).await;
    world.stop().await;
}

#[tokio::test]
async fn two_modules_of_one_group_build_no_core() {
    let (half, hub) = (Arc::<Half>::default(), ModuleName::EDGE_HUB);
    #[derive(Clone)]
    struct Other;
    #[async_trait]
    impl Module for Other {
        fn name(&self) -> ModuleName {
            ModuleName::of("other")
        }
        fn group(&self) -> Group {
            Group::USER
        }
        fn routes(&self) -> Routes {
            Routes::new().group(GROUP)
        }
        async fn run(&mut self, _: &mut ModuleContext) -> Result<(), BoxError> {
            Ok(())
        }
    }
    let runtime = MemoryRuntime::new(MemorySettings { images: BTreeMap::new(), clock: Clock::wall() });
    let settings = EdgeCoreSettings::for_node("edge-1");
    let core = EdgeCore::assemble(
        settings,
        Arc::new(Memory::new()),
        Arc::new(MemoryStore::new()),
        Arc::new(runtime),
    );
    let acme = Acme { half, hub, prefix: "", tells_anew: false };
    let refused = core.module(acme).module(Other).build().unwrap_err();
    assert!(matches!(&refused, KernelError::Routes(RouteError::Twice { .. })), "{refused}");
    assert_eq!(refused.to_string(), "modules acme and other both want group acme");
}
