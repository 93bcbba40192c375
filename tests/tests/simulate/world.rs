//! The hosts of a simulation and the hand that breaks them: the API, cloudcore, edgecores and a user.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use kubeedge_apiserver::{EmbeddedCluster, EmbeddedSettings, Signer, controllers};
use kubeedge_cloud::{CloudCore, CloudCoreSettings, certs::HTTPS, hub::NodeIdentity};
use kubeedge_common::blocking::Blocking;
use kubeedge_core::{api, failure::BoxError, kernel::Shutdown, name::ModuleName, transport::Endpoint};
use kubeedge_device::{Mapper, MapperSettings, simulated::Simulated};
use kubeedge_edge::{EdgeCore, EdgeCoreSettings, edged::server::EDGED_SERVER};
use parking_lot::Mutex;
use tempfile::TempDir;
use turmoil::Sim;

use crate::{
    api as remote, checks,
    containers::Containers,
    dice::Dice,
    disk::Disk,
    network::{Net, Ours},
    plan::{LOSSES, Plan, Trouble},
    trace::Trace,
    user,
};

/// How finely time goes, in milliseconds.
const TICK: u64 = 20;
/// The longest latency of a link that has no trouble, in milliseconds.
const LATENCY: u64 = 20;
/// How long it may take to start, and to agree once it is quiet, in milliseconds.
const PATIENCE: u64 = 300_000;
/// How long it is watched after both sides agreed.
const AFTERWARDS: u64 = 25_000;

/// How long both sides may take to find out that something was lost, in milliseconds: until then they may
/// agree for a moment.
const LOST_AND_FOUND: u64 = 60_000;

/// What came of a simulation.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) broken: Vec<String>,
    pub(crate) trace: Trace,
    /// How long it took in simulated milliseconds, and of that to agree.
    pub(crate) took: u64,
    pub(crate) agreed_after: u64,
}

/// What a host uses of the machine, seen from within it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauge {
    pub(crate) tasks: usize,
    pub(crate) most_tasks: usize,
}

pub(crate) type Gauges = Arc<Mutex<BTreeMap<String, Gauge>>>;

/// A node's machine: what is there whether edgecore runs or not.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) disk: Disk,
    pub(crate) containers: Containers,
    devices: Simulated,
    dice: Dice,
    folder: PathBuf,
    pub(crate) net: Net,
    seed: u64,
    /// Whether the cloud knows its edge for one of ours.
    ours: bool,
    gauges: Gauges,
}

impl Machine {
    /// Its disk is again as in the backup, or empty; edgecore does not run.
    fn restore(&self) {
        self.disk.restore();
        self.containers.may_start_again();
    }
}

/// Everything but the hosts themselves.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) trace: Trace,
    pub(crate) machines: Vec<Machine>,
    pub(crate) cluster: Arc<Mutex<Option<EmbeddedCluster>>>,
    pub(crate) gauges: Gauges,
    pub(crate) sessions: Arc<Mutex<Option<kubeedge_cloud::hub::Sessions>>>,
    api: (Disk, Dice),
    cloud: Dice,
    /// The cloud's links.
    pub(crate) net: Net,
    /// When the nodes were there; 0 before.
    began: Arc<AtomicU64>,
    /// How many things users have yet to do.
    undone: Arc<AtomicU64>,
    _folder: TempDir,
}

/// Carries a plan out.
pub(crate) fn run(plan: Plan) -> Outcome {
    let tick = Duration::from_millis(TICK);
    let mut sim = turmoil::Builder::new()
        .tick_duration(tick)
        .simulation_duration(Duration::from_secs(7200))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(LATENCY))
        .tcp_capacity(1 << 16)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000))
        .rng_seed(plan.seed)
        .build();
    let world = World::new(plan);
    world.hosts(&mut sim);
    world.drive(&mut sim)
}

impl World {
    fn new(plan: Plan) -> Self {
        let (trace, gauges) = (Trace::default(), Gauges::default());
        let folder = TempDir::new().expect("a folder");
        let dice = |host: &str| Dice::new(plan.seed, host, trace.clone());
        let machine = |number: usize| {
            let name = user::node(number);
            let dice = dice(&name);
            Machine {
                disk: Disk::new(&name, dice.clone(), trace.clone(), plan.planted),
                containers: Containers::new(&name, dice.clone(), trace.clone(), plan.planted),
                // Machines go by a time of their own; their runtime's is that of whoever makes them.
                devices: Simulated::new(),
                dice,
                folder: folder.path().join(&name),
                net: Net::new(&name, trace.clone(), plan.planted),
                seed: plan.seed.wrapping_add(number as u64),
                // What was built in to be found out must not be mended by asking.
                ours: plan.planted.is_none() && (plan.seed.is_multiple_of(3) || plan.seed >= LOSSES),
                gauges: gauges.clone(),
                name,
            }
        };
        let api = dice("api");
        Self {
            machines: (0..plan.nodes).map(machine).collect(),
            api: (Disk::new("api", api.clone(), trace.clone(), plan.planted), api),
            cloud: dice("cloud"),
            net: Net::new("cloud", trace.clone(), None),
            cluster: Arc::default(),
            sessions: Arc::default(),
            began: Arc::default(),
            undone: Arc::new(AtomicU64::new(plan.acts.len() as u64)),
            plan,
            trace,
            gauges,
            _folder: folder,
        }
    }

    fn hosts(&self, sim: &mut Sim<'_>) {
        let (disk, clock) = (self.api.0.clone(), self.api.1.clock());
        let (cluster, trace, gauges) = (self.cluster.clone(), self.trace.clone(), self.gauges.clone());
        sim.host("api", move || {
            let settings = EmbeddedSettings::new(Signer::new(b"simulation"))
                .definitions(api::definitions())
                .clock(clock.clone());
            gauge("api", &gauges);
            serve_api(disk.clone(), settings, cluster.clone(), trace.clone())
        });
        let (dice, trace, gauges) = (self.cloud.clone(), self.trace.clone(), self.gauges.clone());
        let (sessions, net) = (self.sessions.clone(), self.net.clone());
        sim.host("cloud", move || {
            gauge("cloud", &gauges);
            let (dice, trace, sessions, net) = (dice.clone(), trace.clone(), sessions.clone(), net.clone());
            async move {
                loop {
                    let ended = cloudcore(net.clone(), &dice, &sessions).await;
                    trace.note("cloud", format!("cloudcore ends: {ended:?}"));
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
            }
        });
        for machine in &self.machines {
            let machine = machine.clone();
            sim.host(machine.name.clone(), move || {
                let machine = machine.clone();
                gauge(&machine.name, &machine.gauges);
                async move {
                    loop {
                        let ended = edgecore(&machine).await;
                        machine.net.trace.note(&machine.name, format!("edgecore ends: {ended:?}"));
                        tokio::time::sleep(Duration::from_secs(2)).await;
                    }
                }
            });
        }
        let (plan, trace) = (self.plan.clone(), self.trace.clone());
        let (began, undone) = (self.began.clone(), self.undone.clone());
        sim.client("user", async move {
            user::prepare(&plan, &trace).await;
            let start = trace.now();
            began.store(start, Ordering::Relaxed);
            for (at, act) in &plan.acts {
                let wait = (start + at).saturating_sub(trace.now());
                tokio::time::sleep(Duration::from_millis(wait)).await;
                user::act(act, &trace).await;
                undone.fetch_sub(1, Ordering::Relaxed);
            }
            std::future::pending::<()>().await;
            Ok(())
        });
    }

    fn drive(self, sim: &mut Sim<'_>) -> Outcome {
        let mut now = 0;
        let step = |sim: &mut Sim<'_>, now: &mut u64| {
            self.trace.at(*now);
            if let Err(error) = sim.step() {
                self.trace.broken("runs on", format!("a host failed: {error}"));
            }
            *now += TICK;
            self.trace.all_broken().is_empty()
        };
        while self.began.load(Ordering::Relaxed) == 0 {
            if !step(sim, &mut now) || now > PATIENCE {
                self.trace.broken("starts", "the nodes do not register");
                return self.outcome(now, 0);
            }
        }
        let start = now;
        let mut turns = self.turns();
        while let Some((at, begins, trouble)) = turns.pop() {
            while now < start + at {
                if !step(sim, &mut now) {
                    return self.outcome(now, 0);
                }
            }
            self.trace.note("TROUBLE", format!("{} {trouble:?}", if begins { "begins" } else { "ends" }));
            self.turn(sim, begins, &trouble);
        }
        while now < start + self.plan.quiet || self.undone.load(Ordering::Relaxed) > 0 {
            if !step(sim, &mut now) || now > start + self.plan.quiet + PATIENCE {
                self.trace.broken("starts", "the users cannot do what they want");
                return self.outcome(now, 0);
            }
        }
        self.trace.note("TROUBLE", "it is quiet");
        let (quiet, mut agreed) = (now, 0);
        loop {
            if !step(sim, &mut now) {
                break;
            }
            if !now.is_multiple_of(1000) {
                continue;
            }
            let open = checks::open_ends(&self);
            if open.is_empty() && agreed == 0 {
                self.trace.note("CHECK", "both sides agree");
                agreed = now;
            }
            if !open.is_empty() && self.plan.seed >= LOSSES && now < quiet + LOST_AND_FOUND {
                agreed = 0;
            }
            if !open.is_empty() && (now - quiet).is_multiple_of(30_000) {
                self.trace.note("CHECK", format!("open: {}", open.join("\n  ")));
            }
            if !open.is_empty() && (now > quiet + PATIENCE || agreed > 0) {
                checks::convergence(&self, &open, now - quiet);
                break;
            }
            if agreed > 0 && now > agreed + AFTERWARDS {
                checks::memory(&self);
                checks::delivery(&self);
                break;
            }
        }
        self.outcome(now, agreed.saturating_sub(quiet))
    }

    /// Beginnings and ends of troubles, the last first.
    fn turns(&self) -> Vec<(u64, bool, Trouble)> {
        let troubles = &self.plan.troubles;
        let begins = troubles.iter().map(|(from, _, trouble)| (*from, true, trouble.clone()));
        let ends = troubles.iter().map(|(_, until, trouble)| (*until, false, trouble.clone()));
        let mut turns: Vec<_> = begins.chain(ends).collect();
        turns.sort_by_key(|(at, begins, _)| std::cmp::Reverse((*at, *begins)));
        turns
    }

    fn machine(&self, number: usize) -> &Machine {
        &self.machines[number]
    }

    fn turn(&self, sim: &mut Sim<'_>, begins: bool, trouble: &Trouble) {
        let name = |number: &usize| self.machine(*number).name.clone();
        let rate = |rate: &u64| if begins { *rate } else { 0 };
        let skew = |skew: &i64| if begins { *skew } else { 0 };
        match trouble {
            Trouble::Partition(node) if begins => sim.partition("cloud", name(node)),
            Trouble::Partition(node) => sim.repair("cloud", name(node)),
            Trouble::Mute(node) if begins => sim.partition_oneway(name(node), "cloud"),
            Trouble::Mute(node) => sim.repair_oneway(name(node), "cloud"),
            Trouble::Deaf(node) if begins => sim.partition_oneway("cloud", name(node)),
            Trouble::Deaf(node) => sim.repair_oneway("cloud", name(node)),
            Trouble::Stall(node) if begins => sim.hold("cloud", name(node)),
            Trouble::Stall(node) => sim.release("cloud", name(node)),
            Trouble::StallApi if begins => sim.hold("cloud", "api"),
            Trouble::StallApi => sim.release("cloud", "api"),
            Trouble::Slow(node, millis) => {
                let latency = Duration::from_millis(LATENCY + if begins { *millis } else { 0 });
                sim.set_link_max_message_latency("cloud", name(node), latency);
            }
            Trouble::CrashEdge(node) if begins => {
                sim.crash(name(node));
                self.machine(*node).disk.crashed();
            }
            Trouble::NewDisk(node) if begins => {
                sim.crash(name(node));
                self.machine(*node).restore();
            }
            Trouble::OldDisk(node) if begins => self.machine(*node).disk.back_up(),
            Trouble::OldDisk(node) => {
                sim.crash(name(node));
                self.machine(*node).restore();
                sim.bounce(name(node));
            }
            Trouble::CrashEdge(node) | Trouble::NewDisk(node) => sim.bounce(name(node)),
            Trouble::CrashCloud if begins => sim.crash("cloud"),
            Trouble::CrashCloud => sim.bounce("cloud"),
            Trouble::CrashApi if begins => sim.crash("api"),
            Trouble::CrashApi => sim.bounce("api"),
            Trouble::Disk(node, failing) => self.machine(*node).dice.set_disk(rate(failing)),
            Trouble::ApiDisk(failing) => self.api.1.set_disk(rate(failing)),
            Trouble::Runtime(node, failing) => self.machine(*node).dice.set_runtime(rate(failing)),
            Trouble::EdgeClock(node, wrong) => self.machine(*node).dice.set_skew(skew(wrong)),
            Trouble::CloudClock(wrong) => self.cloud.set_skew(skew(wrong)),
            Trouble::ApiClock(wrong) => self.api.1.set_skew(skew(wrong)),
        }
    }

    fn outcome(&self, took: u64, agreed_after: u64) -> Outcome {
        Outcome { broken: self.trace.all_broken(), trace: self.trace.clone(), took, agreed_after }
    }
}

/// Looks every second at what a host uses. To be called as the host starts.
fn gauge(host: &str, gauges: &Gauges) {
    let (host, gauges) = (host.to_owned(), gauges.clone());
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            let mut gauges = gauges.lock();
            let gauge = gauges.entry(host.clone()).or_default();
            *gauge = Gauge { tasks, most_tasks: gauge.most_tasks.max(tasks) };
        }
    });
}

async fn serve_api(
    disk: Disk,
    settings: EmbeddedSettings,
    shared: Arc<Mutex<Option<EmbeddedCluster>>>,
    trace: Trace,
) -> turmoil::Result {
    let cluster = loop {
        match EmbeddedCluster::open(Arc::new(disk.clone()), settings.clone()).await {
            Ok(cluster) => break cluster,
            Err(error) => trace.note("api", format!("cannot open: {error}")),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    trace.note("api", "the API is open");
    *shared.lock() = Some(cluster.clone());
    tokio::spawn(controllers::run(cluster.clone(), Shutdown::new()));
    remote::serve(cluster).await?;
    Ok(())
}

async fn cloudcore(
    net: Net,
    dice: &Dice,
    sessions: &Mutex<Option<kubeedge_cloud::hub::Sessions>>,
) -> Result<(), BoxError> {
    let mut settings = CloudCoreSettings::listening(Endpoint::from("0.0.0.0:10000"));
    settings.hub.identity = NodeIdentity::Claim;
    let (keepalive, write) = (Duration::from_secs(10), Duration::from_secs(5));
    (settings.hub.times.keepalive, settings.hub.times.write) = (keepalive, write);
    settings.clock = dice.clock();
    let core = CloudCore::assemble(settings, Arc::new(net), Arc::new(remote::RemoteApi)).without(&HTTPS);
    let core = core.codec(Arc::new(Ours(false))).build().await?;
    *sessions.lock() = Some(core.status().sessions);
    core.run(std::future::pending()).await?;
    Ok(())
}

async fn edgecore(machine: &Machine) -> Result<(), BoxError> {
    let mut settings = EdgeCoreSettings::for_node(machine.name.as_str());
    let seconds = Duration::from_secs;
    settings.hub.servers = vec!["cloud:10000".to_owned()];
    settings.hub.heartbeat = seconds(3);
    (settings.hub.handshake, settings.hub.write) = (seconds(5), seconds(5));
    settings.hub.silence = seconds(15);
    settings.hub.seed = machine.seed;
    settings.meta.remote_query_timeout = seconds(10);
    settings.edged.request_timeout = seconds(15);
    settings.edged.root = machine.folder.join("root");
    settings.edged.logs = machine.folder.join("logs");
    settings.clock = machine.dice.clock();
    settings.edged.files = Blocking::Here;
    let mapper =
        MapperSettings { seed: machine.seed, clock: machine.dice.clock(), ..MapperSettings::default() };
    let (net, disk) = (Arc::new(machine.net.clone()), Arc::new(machine.disk.clone()));
    let core = EdgeCore::assemble(settings, net, disk, Arc::new(machine.containers.clone()))
        .mapper(Mapper::with_settings(machine.devices.clone(), mapper))
        .codec(Arc::new(Ours(machine.ours)))
        .without(&ModuleName::EVENT_BUS)
        .without(&EDGED_SERVER);
    core.build()?.run(std::future::pending()).await?;
    Ok(())
}
