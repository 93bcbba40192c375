//! What a seed means: how many nodes there are, what users do, what goes wrong, and when it is quiet.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// What a user does. Records are those of what edges have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    CreatePod { node: usize, name: String },
    LabelPod { name: String, value: u32 },
    DeletePod { name: String },
    ChangeMap { map: usize, value: u32 },
    CreateDevice { node: usize, name: String, value: u32 },
    Steer { name: String, value: u32 },
    MoveDevice { name: String, node: usize },
    DeleteDevice { name: String },
    LoseRecords,
}

/// What goes wrong for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing gets through between a node and the cloud.
    Partition(usize),
    /// Nothing gets from the node to the cloud.
    Mute(usize),
    /// Nothing gets from the cloud to the node.
    Deaf(usize),
    /// What is sent arrives when it is over.
    Stall(usize),
    /// The same between cloud and API.
    StallApi,
    /// Everything takes up to so many milliseconds longer.
    Slow(usize, u64),
    /// Edgecore is killed, and started at the end.
    CrashEdge(usize),
    /// The same, and meanwhile its disk is replaced by an empty one.
    NewDisk(usize),
    /// At the end edgecore is killed, and its disk is again as it was at the beginning.
    OldDisk(usize),
    /// So is cloudcore killed.
    CrashCloud,
    /// So is the API.
    CrashApi,
    /// So many of a thousand calls of a node's disk fail.
    Disk(usize, u64),
    /// Those of the API's disk.
    ApiDisk(u64),
    /// Those of a node's container runtime.
    Runtime(usize, u64),
    /// A node's clock is wrong by so many milliseconds.
    EdgeClock(usize, i64),
    /// So is the cloud's, or the API's.
    CloudClock(i64),
    ApiClock(i64),
}

/// A fault that is built in on purpose, to see that the checks find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// The edge's transport loses every third pod, and confirms it to the cloud.
    LostFrame,
    /// The edge's transport delivers the form of a pod before this one once more, after this one.
    Swapped,
    /// The disk forgets what it said is stored when its host dies.
    LyingDisk,
    /// Something is kept for every commit.
    Hoard,
    /// The runtime sometimes does not know what it runs.
    ForgetfulRuntime,
}

/// One simulation.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// When, in milliseconds from the moment all nodes are registered.
    pub(crate) acts: Vec<(u64, Act)>,
    /// From when to when.
    pub(crate) troubles: Vec<(u64, u64, Trouble)>,
    /// From here on nothing goes wrong and nobody does anything.
    pub(crate) quiet: u64,
    pub(crate) planted: Option<Planted>,
}

/// From this seed on disks and records are lost too. All edges compare what they have with the cloud: Go's do
/// not, and what they lose is lost.
pub(crate) const LOSSES: u64 = 10_000;

/// How many ConfigMaps there are.
pub(crate) const MAPS: usize = 2;

impl Plan {
    /// The plan of this seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let nodes = random.random_range(1..=5);
        let quiet = random.random_range(30_000..120_000);
        let mut acts = Deeds::new(nodes).draw(&mut random, quiet);
        let mut troubles = troubles(&mut random, nodes, quiet);
        if seed >= LOSSES {
            lose(&mut random, nodes, quiet, &mut acts, &mut troubles);
        }
        Self { seed, nodes, acts, troubles, quiet, planted: None }
    }

    /// With a fault built in.
    pub(crate) fn with(mut self, planted: Planted) -> Self {
        self.planted = Some(planted);
        self
    }
}

/// What there is as far as users have made it.
struct Deeds {
    nodes: usize,
    made: u32,
    pods: Vec<String>,
    devices: Vec<String>,
}

impl Deeds {
    fn new(nodes: usize) -> Self {
        Self { nodes, made: 0, pods: Vec::new(), devices: Vec::new() }
    }

    fn draw(&mut self, random: &mut SmallRng, quiet: u64) -> Vec<(u64, Act)> {
        let count = random.random_range(10..50);
        let mut times: Vec<u64> = (0..count).map(|_| random.random_range(0..quiet - 5000)).collect();
        times.sort_unstable();
        times.into_iter().map(|at| (at, self.next(random))).collect()
    }

    fn next(&mut self, random: &mut SmallRng) -> Act {
        self.made += 1;
        let (node, value) = (random.random_range(0..self.nodes), self.made);
        match random.random_range(0..100) {
            0..10 => return Act::ChangeMap { map: random.random_range(0..MAPS), value },
            10..20 if !self.pods.is_empty() => {
                return Act::LabelPod { name: pick(random, &self.pods), value };
            }
            20..38 if !self.pods.is_empty() => {
                let at = random.random_range(0..self.pods.len());
                // The same name comes again at times: another pod.
                return Act::DeletePod { name: self.pods.swap_remove(at) };
            }
            38..50 if !self.devices.is_empty() => {
                return Act::Steer { name: pick(random, &self.devices), value };
            }
            50..55 if !self.devices.is_empty() => {
                return Act::MoveDevice { name: pick(random, &self.devices), node };
            }
            55..60 if !self.devices.is_empty() => {
                let at = random.random_range(0..self.devices.len());
                return Act::DeleteDevice { name: self.devices.swap_remove(at) };
            }
            60..70 if self.devices.len() < 6 => {
                let name = format!("valve-{value}");
                self.devices.push(name.clone());
                return Act::CreateDevice { node, name, value };
            }
            _ => {}
        }
        let name = format!("pod-{value}");
        self.pods.push(name.clone());
        Act::CreatePod { node, name }
    }
}

fn pick(random: &mut SmallRng, from: &[String]) -> String {
    from.get(random.random_range(0..from.len())).cloned().unwrap_or_default()
}

/// What a trouble is about: two of the same thing do not overlap, because the end of one would end the other.
fn subject(trouble: &Trouble) -> (u8, usize) {
    match trouble {
        Trouble::Partition(node)
        | Trouble::Mute(node)
        | Trouble::Deaf(node)
        | Trouble::Stall(node)
        | Trouble::Slow(node, _) => (0, *node),
        Trouble::StallApi => (1, 0),
        Trouble::CrashEdge(node) | Trouble::NewDisk(node) | Trouble::OldDisk(node) => (2, *node),
        Trouble::CrashCloud => (3, 0),
        Trouble::CrashApi => (4, 0),
        Trouble::Disk(node, _) => (5, *node),
        Trouble::ApiDisk(_) => (6, 0),
        Trouble::Runtime(node, _) => (7, *node),
        Trouble::EdgeClock(node, _) => (8, *node),
        Trouble::CloudClock(_) => (9, 0),
        Trouble::ApiClock(_) => (10, 0),
    }
}

fn troubles(random: &mut SmallRng, nodes: usize, quiet: u64) -> Vec<(u64, u64, Trouble)> {
    let mut drawn: Vec<(u64, u64, Trouble)> = Vec::new();
    for _ in 0..random.random_range(3..25) {
        let from = random.random_range(0..quiet);
        let length = match random.random_range(0..4) {
            0 => random.random_range(20..1000),
            1 | 2 => random.random_range(1000..15_000),
            _ => random.random_range(15_000..60_000),
        };
        let trouble = trouble(random, nodes);
        add(&mut drawn, from, (from + length).min(quiet), trouble);
    }
    drawn.sort_by_key(|(from, ..)| *from);
    drawn
}

/// Adds a trouble unless there is one with the same thing at that time.
fn add(drawn: &mut Vec<(u64, u64, Trouble)>, from: u64, until: u64, trouble: Trouble) {
    let about = subject(&trouble);
    let overlaps = |(begin, end, other): &(u64, u64, Trouble)| {
        subject(other) == about && *begin <= until && from <= *end
    };
    if !drawn.iter().any(overlaps) {
        drawn.push((from, until, trouble));
    }
}

/// Adds losses of disks and records.
fn lose(
    random: &mut SmallRng,
    nodes: usize,
    quiet: u64,
    acts: &mut Vec<(u64, Act)>,
    troubles: &mut Vec<(u64, u64, Trouble)>,
) {
    for _ in 0..random.random_range(1..5) {
        let (at, node) = (random.random_range(0..quiet - 5000), random.random_range(0..nodes));
        let until = (at + random.random_range(100..40_000)).min(quiet);
        match random.random_range(0..3) {
            0 => acts.push((at, Act::LoseRecords)),
            1 => add(troubles, at, until, Trouble::NewDisk(node)),
            _ => add(troubles, at, until, Trouble::OldDisk(node)),
        }
    }
    acts.sort_by_key(|(at, _)| *at);
    troubles.sort_by_key(|(from, ..)| *from);
}

fn trouble(random: &mut SmallRng, nodes: usize) -> Trouble {
    let node = random.random_range(0..nodes);
    let rate = [5, 50, 300, 1000][random.random_range(0..4)];
    let mut skew = || {
        let size = [1500, 45_000, 600_000, 86_400_000][random.random_range(0..4)];
        if random.random_bool(0.5) { size } else { -size }
    };
    let skew = skew();
    match random.random_range(0..100) {
        0..12 => Trouble::Partition(node),
        12..20 => Trouble::Mute(node),
        20..28 => Trouble::Deaf(node),
        28..36 => Trouble::Stall(node),
        36..42 => Trouble::StallApi,
        42..48 => Trouble::Slow(node, random.random_range(50..3000)),
        48..64 => Trouble::CrashEdge(node),
        64..71 => Trouble::CrashCloud,
        71..77 => Trouble::CrashApi,
        77..84 => Trouble::Disk(node, rate),
        84..87 => Trouble::ApiDisk(rate.min(300)),
        87..92 => Trouble::Runtime(node, rate),
        92..96 => Trouble::EdgeClock(node, skew),
        96..98 => Trouble::CloudClock(skew),
        _ => Trouble::ApiClock(skew),
    }
}
