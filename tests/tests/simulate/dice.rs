//! What is drawn from the seed while a simulation runs, and which troubles there are just now.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use kubeedge_core::{clock::Clock, message::Millis};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::trace::Trace;

/// When simulations begin: 2030-01-01T00:00:00Z.
const BEGIN: i64 = 1_893_456_000_000;

/// The chances of one host. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    random: Arc<Mutex<SmallRng>>,
    /// Failures of the disk, and of the container runtime, in a thousand calls.
    disk: Arc<AtomicU64>,
    runtime: Arc<AtomicU64>,
    /// By how much the host's clock is wrong, in milliseconds.
    skew: Arc<AtomicI64>,
    trace: Trace,
}

impl Dice {
    pub(crate) fn new(seed: u64, host: &str, trace: Trace) -> Self {
        let salt = host.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let random = Arc::new(Mutex::new(SmallRng::seed_from_u64(salt)));
        Self { random, disk: Arc::default(), runtime: Arc::default(), skew: Arc::default(), trace }
    }

    /// So many of a thousand calls of the disk fail from now on.
    pub(crate) fn set_disk(&self, in_a_thousand: u64) {
        self.disk.store(in_a_thousand, Ordering::Relaxed);
    }

    /// So many of a thousand calls of the container runtime fail from now on.
    pub(crate) fn set_runtime(&self, in_a_thousand: u64) {
        self.runtime.store(in_a_thousand, Ordering::Relaxed);
    }

    /// The clock jumps, so that it is wrong by this much.
    pub(crate) fn set_skew(&self, millis: i64) {
        self.skew.store(millis, Ordering::Relaxed);
    }

    fn below(&self, end: u64) -> u64 {
        self.random.lock().random_range(0..end)
    }

    /// Mostly a few milliseconds, seldom half a second.
    pub(crate) fn disk_pause(&self) -> Duration {
        Duration::from_millis(match self.below(200) {
            0 => 100 + self.below(400),
            1..30 => 5 + self.below(30),
            _ => self.below(5),
        })
    }

    pub(crate) fn disk_fails(&self) -> bool {
        self.below(1000) < self.disk.load(Ordering::Relaxed)
    }

    /// How long a call of the container runtime takes.
    pub(crate) fn runtime_pause(&self) -> Duration {
        Duration::from_millis(match self.below(50) {
            0 => 500 + self.below(3000),
            1..20 => self.below(300),
            _ => self.below(20),
        })
    }

    pub(crate) fn runtime_fails(&self) -> bool {
        self.below(1000) < self.runtime.load(Ordering::Relaxed)
    }

    /// The clock of the host.
    pub(crate) fn clock(&self) -> Clock {
        let dice = self.clone();
        Clock::of(move || {
            let passed = i64::try_from(dice.trace.now()).unwrap_or(i64::MAX);
            Millis(BEGIN + passed + dice.skew.load(Ordering::Relaxed))
        })
    }
}
