//! Messages a second through CloudHub alone: `cargo bench -p kubeedge-cloud --all-features`.
//!
//! A hundred edges over the memory transport speak Go's JSON; records are kept in an embedded cluster over a
//! store in memory. *Down* counts objects of 1 kB from the bus to their confirmation, *up* questions of 1 kB
//! from the link to their answer. Both ends are in this process, so that the edges' work is counted as well.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use divan::{Bencher, counter::ItemsCount};
use futures::{FutureExt, StreamExt, future::join_all};
use kubeedge_apiserver::{EmbeddedCluster, EmbeddedSettings, Signer};
use kubeedge_cloud::{CloudCore, CloudCoreSettings, hub::NodeIdentity};
use kubeedge_core::{
    failure::BoxError,
    kernel::{Module, ModuleContext},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    transport::{Credentials, Endpoint, Frame, Link, Transport},
    wire::{Codec, GoJson},
};
use kubeedge_store::MemoryStore;
use kubeedge_transport::Memory;
use tokio::{
    runtime::Runtime,
    sync::{Mutex, Notify, mpsc},
};

const EDGES: usize = 100;
/// Objects of each edge, and questions of each edge, in one round.
const EACH: usize = 64;
const SIZE: usize = 1024;

/// Sends every edge its objects at a version, each time it is told one.
#[derive(Clone)]
struct Source(Arc<Mutex<mpsc::Receiver<u64>>>);

#[async_trait]
impl Module for Source {
    fn name(&self) -> ModuleName {
        ModuleName::of("bench-source")
    }

    fn group(&self) -> Group {
        Group::of("bench")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let mut versions = self.0.lock().await;
        while let Some(version) = versions.recv().await {
            for object in 0..EACH {
                let content = config_map(object);
                for edge in 0..EDGES {
                    let path = format!("node/edge-{edge}/default/configmap/map-{object}");
                    let message = Message::new(ModuleName::EDGE_CONTROLLER, Operation::UPDATE, path)
                        .in_group(Group::RESOURCE)
                        .at_version(version.to_string())
                        .with(content.clone());
                    ctx.bus.send(&ModuleName::CLOUD_HUB, message).await?;
                }
            }
        }
        Ok(())
    }
}

fn config_map(number: usize) -> Content {
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"value": "x".repeat(SIZE)},
        "metadata": {"name": format!("map-{number}"), "namespace": "default", "uid": format!("uid-{number}")},
    });
    Content::json(&object).unwrap()
}

/// What has come, and how to wait for it.
#[derive(Default)]
struct Seen {
    count: AtomicUsize,
    all: Notify,
}

impl Seen {
    fn one(&self) {
        if (self.count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(EDGES * EACH) {
            self.all.notify_one();
        }
    }
}

/// Confirms what comes, and asks when told to.
async fn edge(link: Link, seen: Arc<Seen>, mut asks: mpsc::Receiver<()>) {
    let Link { mut tx, mut rx, .. } = link;
    let question = Message::new(ModuleName::EDGE_HUB, Operation::of("ping"), "bench")
        .in_group(Group::RESOURCE)
        .with(Content::text(&"x".repeat(SIZE)));
    tx.send(frame(&keepalive())).await.unwrap();
    loop {
        tokio::select! {
            ask = asks.recv() => {
                if ask.is_none() { return }
                // Not more at a time than the link holds.
                for _ in 0..EACH / 8 {
                    for _ in 0..8 { tx.feed(frame(&question)).await.unwrap(); }
                    tx.flush().await.unwrap();
                    for _ in 0..8 { rx.next().await.unwrap().unwrap(); seen.one(); }
                }
            }
            got = rx.next() => {
                let Some(Ok(got)) = got else { return };
                let mut next = Some(got);
                while let Some(got) = next {
                    let message = GoJson.decode(got).unwrap();
                    tx.feed(frame(&message.answer(Content::ok()))).await.unwrap();
                    seen.one();
                    next = rx.next().now_or_never().flatten().transpose().unwrap();
                }
                tx.flush().await.unwrap();
            }
        }
    }
}

fn frame(message: &Message) -> Frame {
    GoJson.encode(message).unwrap()
}

fn keepalive() -> Message {
    Message::new(ModuleName::EDGE_HUB, Operation::KEEPALIVE, "node").in_group(Group::RESOURCE)
}

struct Bench {
    versions: mpsc::Sender<u64>,
    asks: Vec<mpsc::Sender<()>>,
    seen: Arc<Seen>,
}

async fn start() -> Bench {
    let cluster = EmbeddedSettings::new(Signer::new(b"secret"));
    let cluster = EmbeddedCluster::open(Arc::new(MemoryStore::new()), cluster).await.unwrap();
    let mut settings = CloudCoreSettings::listening(Endpoint::from("hub"));
    settings.hub.identity = NodeIdentity::Claim;
    // No edge of ours says that it is alive more than once.
    settings.hub.times.keepalive = Duration::from_secs(3600);
    settings.certs.listen = ([127, 0, 0, 1], 0).into();
    let (network, (versions, told)) = (Memory::new(), mpsc::channel(1));
    let core = CloudCore::assemble(settings, Arc::new(network.clone()), Arc::new(cluster))
        .module(Source(Arc::new(Mutex::new(told))))
        // It would take away objects that are in no cluster.
        .without(&ModuleName::SYNC_CONTROLLER)
        .build();
    let core = core.await.unwrap();
    let status = core.status();
    tokio::spawn(core.run(std::future::pending()));
    status.ready().await;
    let seen = Arc::<Seen>::default();
    let edges = (0..EDGES).map(|number| {
        let (network, seen) = (network.clone(), seen.clone());
        async move {
            let who = Credentials::default().with_claim("node_id", format!("edge-{number}"));
            let link = network.dial(&Endpoint::from("hub"), &who).await.unwrap();
            let (ask, asks) = mpsc::channel(1);
            tokio::spawn(edge(link, seen, asks));
            ask
        }
    });
    let asks = join_all(edges).await;
    while status.sessions.count() < EDGES {
        tokio::task::yield_now().await;
    }
    Bench { versions, asks, seen }
}

fn main() {
    divan::main();
}

/// One round down: every edge gets its objects at a new version, and confirms them.
async fn down(bench: &Bench, version: u64) {
    bench.versions.send(version).await.unwrap();
    bench.seen.all.notified().await;
}

/// One round up: every edge asks its questions, and is answered.
async fn up(bench: &Bench) {
    for ask in &bench.asks {
        ask.send(()).await.unwrap();
    }
    bench.seen.all.notified().await;
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn down_1_kb_confirmed(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().unwrap();
    let bench = runtime.block_on(start());
    // The first time makes the records.
    let mut version = 1;
    runtime.block_on(down(&bench, version));
    bencher.counter(ItemsCount::new(EDGES * EACH)).bench_local(|| {
        version += 1;
        runtime.block_on(down(&bench, version));
    });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn up_1_kb_answered(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().unwrap();
    let bench = runtime.block_on(start());
    bencher.counter(ItemsCount::new(EDGES * EACH)).bench_local(|| runtime.block_on(up(&bench)));
}
