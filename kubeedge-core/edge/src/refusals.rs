//! Word for programs on the node that what they published over MQTT found no room.
//!
//! MQTT cannot say it: a broker confirms a publish itself, whatever its readers make of it. So it is
//! published, at most once a second, on `$hw/events/node/<node>/upload/refused`:
//!
//! ```json
//! {"count": 3, "topics": ["building-7/user/readings"], "reason": "too much waits for the cloud"}
//! ```
//!
//! `count` is how many messages were refused since it was said last, `topics` the first sixteen of their
//! topics. They are gone: whoever wants them to arrive publishes them again later.

use std::{collections::BTreeSet, time::Duration};

use kubeedge_core::{
    message::{Content, Message},
    name::{Group, ModuleName, NodeName, Operation},
};

/// How long it is between two words about what was refused.
pub(crate) const TELL: Duration = Duration::from_secs(1);

/// How many topics are named.
const MOST_TOPICS: usize = 16;

/// Refused messages that nobody was told of yet.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    count: u64,
    topics: BTreeSet<String>,
}

impl Refusals {
    /// One more, of this topic.
    pub(crate) fn note(&mut self, topic: &str) {
        self.count += 1;
        if self.topics.len() < MOST_TOPICS && !self.topics.contains(topic) {
            self.topics.insert(topic.to_owned());
        }
    }

    /// What is to be said of them, if there are any; they count as told from then on.
    pub(crate) fn take(&mut self, reason: &str) -> Option<String> {
        let Self { count, topics } = std::mem::take(self);
        let said = serde_json::json!({"count": count, "topics": topics, "reason": reason});
        (count > 0).then(|| said.to_string())
    }
}

/// Where it is said.
pub(crate) fn topic(node: &NodeName) -> String {
    format!("$hw/events/node/{node}/upload/refused")
}

/// For EventBus to publish.
pub(crate) fn to_publish(node: &NodeName, said: &str) -> Message {
    Message::new(ModuleName::EDGE_HUB, Operation::of("publish"), topic(node))
        .in_group(Group::BUS)
        .with(Content::text(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_once_and_few_topics_are_named() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.take("full"), None);
        for n in 0..100 {
            refusals.note(&format!("{}/user/x", n % 20));
        }
        let said: serde_json::Value = serde_json::from_str(&refusals.take("full").unwrap()).unwrap();
        assert_eq!((said["count"].as_u64(), said["reason"].as_str()), (Some(100), Some("full")));
        assert_eq!(said["topics"].as_array().unwrap().len(), MOST_TOPICS);
        assert_eq!(refusals.take("full"), None);
    }
}
