//! What happened when, to be read after a failure, and a number that is the same when the same happened.

use std::sync::Arc;

use parking_lot::Mutex;

/// How many lines are kept for whoever looks into a failure.
const KEPT: usize = 400_000;

/// Notes what happens. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<Notes>>);

#[derive(Debug)]
struct Notes {
    now: u64,
    digest: u64,
    count: u64,
    lines: Vec<String>,
    broken: Vec<String>,
}

impl Default for Notes {
    fn default() -> Self {
        let (lines, broken) = (Vec::new(), Vec::new());
        Self { now: 0, digest: 0xcbf2_9ce4_8422_2325, count: 0, lines, broken }
    }
}

impl Trace {
    /// The time of the simulation, in milliseconds.
    pub(crate) fn at(&self, now: u64) {
        self.0.lock().now = now;
    }

    /// What [`Trace::at`] was told last, or finer where turmoil knows.
    pub(crate) fn now(&self) -> u64 {
        match turmoil::sim_elapsed() {
            Some(elapsed) => u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            None => self.0.lock().now,
        }
    }

    /// Something happened.
    pub(crate) fn note(&self, host: &str, what: impl AsRef<str>) {
        let line = format!("{:>7} {host:<7} {}", self.now(), what.as_ref());
        let mut notes = self.0.lock();
        let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        notes.digest = line.bytes().fold(notes.digest, add);
        notes.count += 1;
        if notes.lines.len() < KEPT {
            notes.lines.push(line);
        }
    }

    /// A promise was broken at this moment.
    pub(crate) fn broken(&self, promise: &str, what: impl AsRef<str>) {
        let text = format!("{promise}: at {} ms: {}", self.now(), what.as_ref());
        self.note("CHECK", &text);
        self.0.lock().broken.push(text);
    }

    /// What was broken so far.
    pub(crate) fn all_broken(&self) -> Vec<String> {
        self.0.lock().broken.clone()
    }

    /// The same for the same run.
    pub(crate) fn digest(&self) -> u64 {
        self.0.lock().digest
    }

    /// How much happened.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// All lines, the oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().lines.clone()
    }
}
