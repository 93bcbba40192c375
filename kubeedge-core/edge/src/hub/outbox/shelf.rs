//! What of the outbox is in the store, and what has to go there.
//!
//! Changes are gathered and committed together. While there is a link they rest for a second first: what the
//! cloud has by then is never written. Without a link they are written as soon as the store takes them.

use std::collections::{BTreeMap, HashSet};

use kubeedge_core::{
    message::{Message, json},
    name::{MessageId, Resource},
    store::{Batch, Bucket, Change, Expect, Key},
};
use tokio::time::{Duration, Instant};

/// What waits for the cloud: `q/<number>` each in its order, `s/<resource>` the newest of its object. Values
/// are messages as Go writes them.
pub(super) const BUCKET: Bucket = Bucket("outbox");
const EACH: &str = "q/";
const NEWEST: &str = "s/";

/// How long a change rests while there is a link.
pub(super) const REST: Duration = Duration::from_secs(1);
/// And one whose sender waits until it is stored.
pub(super) const SHORT_REST: Duration = Duration::from_millis(100);
/// The most changes of one commit, and from how many bytes on it takes no further one.
const MOST_CHANGES: usize = 256;
const MOST_BYTES: usize = 4 << 20;

/// Where a message that is stored one by one stands.
pub(super) fn key_of_each(place: u64) -> String {
    format!("{EACH}{place:016x}")
}

/// Where the newest of an object stands.
pub(super) fn key_of_newest(resource: &Resource) -> String {
    format!("{NEWEST}{resource}")
}

/// The place a key names; `None` for other keys.
pub(super) fn place_of(key: &str) -> Option<u64> {
    key.strip_prefix(EACH).and_then(|digits| u64::from_str_radix(digits, 16).ok())
}

#[derive(Debug)]
struct Wish {
    /// `None` removes the row.
    message: Option<Message>,
    /// Tells a wish from its successor.
    stamp: u64,
}

/// Changes taken to be committed.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) batch: Batch,
    /// Keys, stamps, and which messages are put there.
    stamps: Vec<(String, u64, Option<MessageId>)>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    wishes: BTreeMap<String, Wish>,
    /// Rows that are in the store, or may be.
    held: HashSet<String>,
    stamp: u64,
    due: Option<Instant>,
}

impl Shelf {
    /// A row that was found in the store.
    pub(super) fn found(&mut self, key: String) {
        self.held.insert(key);
    }

    /// Will store a message, after a rest.
    pub(super) fn keep(&mut self, key: String, message: Message, rest: Duration) {
        self.wish(key, Some(message), Instant::now() + rest);
    }

    /// Will remove a row; what was not stored yet never will be.
    pub(super) fn forget(&mut self, key: &str) {
        if self.held.contains(key) {
            self.wish(key.to_owned(), None, Instant::now() + REST);
        } else {
            self.wishes.remove(key);
        }
    }

    /// What rests is due now: the link that might have made it needless is gone.
    pub(super) fn hurry(&mut self) {
        self.due = (!self.wishes.is_empty()).then(Instant::now);
    }

    /// When the next commit is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.wishes.is_empty())
    }

    fn wish(&mut self, key: String, message: Option<Message>, due: Instant) {
        self.stamp += 1;
        if self.wishes.is_empty() {
            self.due = None;
        }
        self.wishes.insert(key, Wish { message, stamp: self.stamp });
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// The next changes to commit, in the order of their keys; `None` when there are none. They stay wished
    /// for until [`Shelf::stored`].
    pub(super) fn take(&mut self) -> Option<Taken> {
        let (mut batch, mut stamps, mut bytes) = (Batch::new(), Vec::new(), 0);
        for (name, wish) in &self.wishes {
            if stamps.len() >= MOST_CHANGES || bytes >= MOST_BYTES {
                break;
            }
            let (key, expect) = (Key::new(BUCKET, name.clone()), Expect::Any);
            batch.0.push(match &wish.message {
                None => Change::Delete { key, expect },
                Some(message) => {
                    bytes += message.size();
                    // Should the commit be broken off, nobody knows whether the row is there.
                    self.held.insert(name.clone());
                    Change::Put { key, value: json::encode(message), expect }
                }
            });
            let id = wish.message.as_ref().map(|message| message.header.id.clone());
            stamps.push((name.clone(), wish.stamp, id));
        }
        (!stamps.is_empty()).then_some(Taken { batch, stamps })
    }

    /// These changes are durable. Returns which messages are stored by them.
    pub(super) fn stored(&mut self, taken: Taken) -> Vec<MessageId> {
        for (name, stamp, there) in &taken.stamps {
            if self.wishes.get(name).is_some_and(|wish| wish.stamp == *stamp) {
                self.wishes.remove(name);
                if there.is_none() {
                    self.held.remove(name);
                }
            }
        }
        taken.stamps.into_iter().filter_map(|(_, _, there)| there).collect()
    }
}
