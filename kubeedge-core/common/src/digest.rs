//! What an edge has against what the cloud believes it has, compared for the price of the differences.
//!
//! Right after a connect our own peers (never Go's) compare what the edge has confirmed, object by object,
//! with the cloud's records of it. Either side puts its entries into a [`Tree`]: an entry's place is the hash
//! of its key, read as hexadecimal digits, and a subtree's hash is the sum of its entries' hashes. The cloud
//! drives ([`Asker`]), the edge answers ([`Tree::answer`]) and keeps nothing but its tree between two
//! messages:
//!
//! 1. The cloud opens with a random salt and the hash of its whole tree ([`Opening`]).
//! 2. The edge answers that it has the same, or with the hashes of the sixteen subtrees.
//! 3. The cloud asks for those that differ. A subtree of four entries or fewer is answered with the entries,
//!    a larger one with its sixteen hashes; and so on until nothing is open.
//!
//! The salt is new each time, so that two sets that happen to have the same hash are told apart at the next
//! connect.
//!
//! **What it costs**, headers of messages included. Trees that are equal: three messages, 250 bytes together.
//! Otherwise, with *n* entries and *k* of them different, at most *k* subtrees differ on each of *d* =
//! log₁₆(*n*/4) + 1 levels (rounded up): 250 bytes, 150 for each of *d* + 1 rounds, and for each difference
//! at most 160·*d* of hashes and 450 of the entries in its leaf. Of 10 000 entries (*d* = 4) one difference
//! costs 1.5 kB, each of ten 650 bytes, and each of a hundred, which share the upper levels, 420.
//!
//! **What bounds it.** Whatever the peer answers: an asker asks for [`BATCH`] subtrees at a time, accepts
//! answers to what it asked only, none that is larger than [`MAX_REPLY`] bytes, twelve levels and
//! [`MAX_VISITS`] subtrees and entries in all, and gives up when a round brings nothing. What was found by
//! then is true all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::fnv::fnv64_from;

/// The kinds of objects that are compared, as they stand in resources. Others are delivered all the same, and
/// compared by their records alone.
pub const KINDS: [&str; 5] = ["pod", "configmap", "secret", "device", "devicemodel"];

/// The resource of the messages of a comparison.
pub const RESOURCE: &str = "digest";

/// Subtrees that are asked for in one message.
pub const BATCH: usize = 128;

/// The largest content of a message of a comparison, in bytes.
pub const MAX_REPLY: usize = 512 << 10;

/// Subtrees and entries an asker takes in before it gives up.
pub const MAX_VISITS: usize = 250_000;

/// From how many bytes on an answer takes in no further subtree.
const ENOUGH: usize = MAX_REPLY / 4;
/// Subtrees of so many entries are answered with the entries.
const LEAF: usize = 4;
/// Entries of one subtree that are named, even on the last level.
const MOST_LISTED: usize = 64;
/// Levels below the root.
const DEPTH: u8 = 12;
/// Hexadecimal digits of a subtree's hash on the wire.
const HASH_DIGITS: usize = 8;
/// Subtrees of a subtree.
const FAN: u64 = 16;
/// The longest key and path of an entry, in bytes; see [`Entry`].
const MAX_KEY: usize = 520;
const MAX_PATH: usize = 600;

/// Something one side has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// What tells it from others: an object's unique id, or `namespace/name` of a device that DeviceTwin
    /// knows.
    pub key: String,
    /// Which version of it, never 0; 1 for what has none.
    pub version: u64,
    /// Where it stands, `namespace/kind/name`; empty for a device that DeviceTwin knows.
    pub path: String,
}

/// A subtree: the first digits of its entries' places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// The digits, the first one at the top; the rest is zero.
    bits: u64,
    digits: u8,
}

/// The text is no subtree's name.
#[derive(Debug, thiserror::Error)]
#[error("a subtree is named by at most {DEPTH} hexadecimal digits")]
pub struct BadPrefix;

impl Prefix {
    fn child(self, digit: u64) -> Self {
        let digits = self.digits + 1;
        Self { bits: self.bits | digit << (64 - 4 * u32::from(digits)), digits }
    }

    /// The last place that is in it.
    fn last(self) -> u64 {
        self.bits | u64::MAX.checked_shr(4 * u32::from(self.digits)).unwrap_or(0)
    }

    fn holds(self, place: u64) -> bool {
        (self.bits..=self.last()).contains(&place)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.digits);
        if digits == 0 { Ok(()) } else { write!(f, "{:0digits$x}", self.bits >> (64 - 4 * digits)) }
    }
}

impl FromStr for Prefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let mut prefix = Self::default();
        for digit in text.chars() {
            let digit = digit.to_digit(16).filter(|_| prefix.digits < DEPTH).ok_or(BadPrefix)?;
            prefix = prefix.child(digit.into());
        }
        Ok(prefix)
    }
}

impl TryFrom<String> for Prefix {
    type Error = BadPrefix;

    fn try_from(text: String) -> Result<Self, BadPrefix> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

/// How a comparison begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// What all hashes of this comparison begin with; names the comparison.
    pub salt: u64,
    /// The hash of the asker's whole tree.
    pub root: u64,
}

/// What an asker wants to know; nothing, at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asks {
    /// The subtrees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<Prefix>,
}

/// What the other side has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The comparison's.
    pub salt: u64,
    /// Subtrees that were asked for, perhaps not all of them. None at all as the first answer: both trees are
    /// the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
}

/// One subtree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Which one.
    pub at: Prefix,
    /// The hashes of its sixteen subtrees, eight digits each, zero for one that is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub below: String,
    /// Where there are few: key, version and path of each entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub has: Vec<(String, u64, String)>,
}

/// A bijection in which each bit of the result depends on all bits.
fn scatter(mut value: u64) -> u64 {
    for factor in [0x9e6c_63d0_876a_68e5, 0xc2b2_ae3d_27d4_eb4f] {
        value = (value ^ (value >> 32)).wrapping_mul(factor);
    }
    value ^ (value >> 29)
}

/// The same on both sides, whatever they were compiled with. Two versions of one key never share a hash.
fn hash(salt: u64, key: &str, version: u64) -> u64 {
    let begin = scatter(salt ^ scatter(version));
    scatter(fnv64_from(begin, key.as_bytes()))
}

#[derive(Clone, Debug)]
struct Leaf {
    place: u64,
    /// The sum of the hashes up to and with this entry.
    through: u64,
    entry: Entry,
}

/// All entries of one side; see the module's text.
#[derive(Clone, Debug)]
pub struct Tree {
    salt: u64,
    leaves: Vec<Leaf>,
}

impl Tree {
    /// The tree of these entries. Of several with one key the last one counts, and none without a version.
    pub fn new(salt: u64, entries: impl IntoIterator<Item = Entry>) -> Self {
        let by_key: BTreeMap<_, _> = entries
            .into_iter()
            .map(|entry| ((hash(salt, &entry.key, 0), entry.key.clone()), entry))
            .collect();
        let mut sum = 0_u64;
        let leaves = by_key.into_iter().filter(|(_, entry)| entry.version > 0).map(|((place, _), entry)| {
            sum = sum.wrapping_add(hash(salt, &entry.key, entry.version));
            Leaf { place, through: sum, entry }
        });
        Self { salt, leaves: leaves.collect() }
    }

    /// The hash of everything.
    pub fn root(&self) -> u64 {
        self.hash_of(Prefix::default())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// What begins a comparison with another tree.
    pub fn opening(&self) -> Opening {
        Opening { salt: self.salt, root: self.root() }
    }

    /// The first answer to an asker with this root.
    pub fn first_answer(&self, root: u64) -> Reply {
        if self.root() == root {
            return Reply { salt: self.salt, nodes: Vec::new() };
        }
        self.answer(&Asks { of: vec![Prefix::default()] })
    }

    /// What is below these subtrees, of as many as fit into a message, but of one at least.
    pub fn answer(&self, asks: &Asks) -> Reply {
        let mut size = 0;
        let nodes = asks.of.iter().take(BATCH).map_while(|prefix| {
            let node = (size < ENOUGH).then(|| self.node(*prefix))?;
            size += node.below.len()
                + node.has.iter().map(|(key, _, path)| key.len() + path.len() + 32).sum::<usize>()
                + 32;
            Some(node)
        });
        Reply { salt: self.salt, nodes: nodes.collect() }
    }

    fn node(&self, at: Prefix) -> Node {
        let range = self.range(at);
        if range.len() <= LEAF || at.digits >= DEPTH {
            let named = self.leaves.get(range).unwrap_or_default().iter().take(MOST_LISTED).map(|leaf| {
                let Entry { key, version, path } = leaf.entry.clone();
                (key, version, path)
            });
            return Node { at, below: String::new(), has: named.collect() };
        }
        let hashes = (0..FAN).map(|digit| format!("{:0HASH_DIGITS$x}", short(self.hash_of(at.child(digit)))));
        Node { at, below: hashes.collect(), has: Vec::new() }
    }

    fn range(&self, prefix: Prefix) -> Range<usize> {
        let begin = self.leaves.partition_point(|leaf| leaf.place < prefix.bits);
        begin..self.leaves.partition_point(|leaf| leaf.place <= prefix.last())
    }

    fn hash_of(&self, prefix: Prefix) -> u64 {
        let range = self.range(prefix);
        let through =
            |end: usize| end.checked_sub(1).and_then(|at| self.leaves.get(at)).map_or(0, |leaf| leaf.through);
        through(range.end).wrapping_sub(through(range.start))
    }

    fn entries(&self, prefix: Prefix) -> impl Iterator<Item = &Entry> {
        self.leaves.get(self.range(prefix)).unwrap_or_default().iter().map(|leaf| &leaf.entry)
    }
}

/// As much of a hash as goes over the wire.
fn short(hash: u64) -> u64 {
    hash & ((1 << (4 * HASH_DIGITS)) - 1)
}

/// What one side has and the other has not, or not so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The asker's entry.
    pub ours: Option<Entry>,
    /// The answerer's, with the same key.
    pub theirs: Option<Entry>,
}

/// What comes of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Further questions.
    Ask(Asks),
    /// Everything is known.
    Done,
}

/// Why a comparison is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// The answer is to another comparison.
    #[error("an answer to another comparison")]
    Another,
    /// Nothing that was asked for is in the answer.
    #[error("an answer to nothing that was asked")]
    NoProgress,
    /// Not sixteen hashes, or a subtree on no level.
    #[error("a malformed subtree")]
    Malformed,
    /// More than [`MAX_VISITS`].
    #[error("more than {MAX_VISITS} subtrees and entries")]
    TooMuch,
}

/// The side that asks; see the module's text.
#[derive(Debug)]
pub struct Asker {
    tree: Tree,
    /// Asked for and not answered.
    open: BTreeSet<Prefix>,
    /// To be asked for. The last one goes first, so that few wait.
    waiting: Vec<Prefix>,
    visits: usize,
    answered: bool,
    found: Vec<Difference>,
}

impl Asker {
    /// Compares this tree with the one of whoever gets its opening.
    pub fn new(tree: Tree) -> Self {
        let open = [Prefix::default()].into();
        Self { tree, open, waiting: Vec::new(), visits: 0, answered: false, found: Vec::new() }
    }

    /// How the comparison begins.
    pub fn opening(&self) -> Opening {
        self.tree.opening()
    }

    /// The differences found so far, each once. Those of a comparison that was given up are true, but not
    /// all.
    pub fn found(self) -> Vec<Difference> {
        self.found
    }

    /// Takes an answer in.
    pub fn take(&mut self, reply: Reply) -> Result<Step, Nonsense> {
        if reply.salt != self.tree.salt {
            return Err(Nonsense::Another);
        }
        if !std::mem::replace(&mut self.answered, true) && reply.nodes.is_empty() {
            self.open.clear();
            return Ok(Step::Done);
        }
        let before = self.open.len();
        for node in reply.nodes {
            if self.open.remove(&node.at) {
                self.take_node(node)?;
            }
        }
        if self.open.len() == before {
            return Err(Nonsense::NoProgress);
        }
        while self.open.len() < BATCH
            && let Some(next) = self.waiting.pop()
        {
            self.open.insert(next);
        }
        if self.open.is_empty() {
            return Ok(Step::Done);
        }
        Ok(Step::Ask(Asks { of: self.open.iter().copied().collect() }))
    }

    fn take_node(&mut self, node: Node) -> Result<(), Nonsense> {
        self.visits += 1 + node.has.len();
        if self.visits > MAX_VISITS {
            return Err(Nonsense::TooMuch);
        }
        if node.below.is_empty() {
            self.take_entries(node.at, node.has);
            return Ok(());
        }
        if node.at.digits >= DEPTH || node.below.len() != HASH_DIGITS * 16 {
            return Err(Nonsense::Malformed);
        }
        for digit in 0..FAN {
            let begin = usize::try_from(digit).unwrap_or_default() * HASH_DIGITS;
            let text = node.below.get(begin..begin + HASH_DIGITS).ok_or(Nonsense::Malformed)?;
            let theirs = u64::from_str_radix(text, 16).map_err(|_| Nonsense::Malformed)?;
            let child = node.at.child(digit);
            if theirs == short(self.tree.hash_of(child)) {
                continue;
            }
            if theirs == 0 {
                self.take_entries(child, Vec::new());
            } else {
                self.waiting.push(child);
            }
        }
        Ok(())
    }

    /// All entries the other side has in this subtree.
    fn take_entries(&mut self, at: Prefix, has: Vec<(String, u64, String)>) {
        let salt = self.tree.salt;
        let belongs = |entry: &Entry| {
            entry.version > 0
                && entry.key.len() <= MAX_KEY
                && entry.path.len() <= MAX_PATH
                && at.holds(hash(salt, &entry.key, 0))
        };
        let theirs = has.into_iter().map(|(key, version, path)| Entry { key, version, path });
        let mut theirs: BTreeMap<String, Entry> =
            theirs.filter(belongs).take(MOST_LISTED).map(|entry| (entry.key.clone(), entry)).collect();
        for ours in self.tree.entries(at) {
            let theirs = theirs.remove(&ours.key);
            if theirs.as_ref().is_none_or(|theirs| theirs.version != ours.version) {
                self.found.push(Difference { ours: Some(ours.clone()), theirs });
            }
        }
        self.found.extend(theirs.into_values().map(|theirs| Difference { ours: None, theirs: Some(theirs) }));
    }
}

#[cfg(test)]
mod tests;
