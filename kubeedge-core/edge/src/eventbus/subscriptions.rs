//! What the broker is told of the topics that are read.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use rumqttc::{AsyncClient, QoS, SubscribeFilter};

use super::Topics;

/// How many subscriptions go in one packet.
const FILTERS: usize = 32;

/// The subscriptions of one connection. What finds no room on its way is told later.
#[derive(Clone, Debug)]
pub(super) struct Subscriptions {
    client: AsyncClient,
    topics: Topics,
    /// Topics whose subscription, or its end, the broker is to be told of.
    due: Arc<Mutex<BTreeSet<String>>>,
}

impl Subscriptions {
    pub(super) fn new(client: AsyncClient, topics: Topics) -> Self {
        Self { client, topics, due: Arc::default() }
    }

    /// This topic is read from now on, or no longer.
    pub(super) fn changed(&self, topic: &str) {
        self.due.lock().insert(topic.to_owned());
        self.tell();
    }

    /// The broker is to be told of all topics.
    pub(super) fn renew(&self) {
        self.due.lock().extend(self.topics.read().iter().cloned());
        self.tell();
    }

    /// Tells what is due, as far as there is room. To be called whenever there may be some.
    pub(super) fn tell(&self) {
        // Locked throughout: while there is no room the reader comes back here after what made it full.
        let mut due = self.due.lock();
        if due.is_empty() {
            return;
        }
        let topics = self.topics.read();
        let (wanted, others): (Vec<_>, Vec<_>) =
            due.iter().cloned().partition(|topic| topics.contains(topic));
        for some in wanted.chunks(FILTERS) {
            let filters = some.iter().map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
            if self.client.try_subscribe_many(filters).is_err() {
                return;
            }
            due.retain(|topic| !some.contains(topic));
        }
        for topic in others {
            if self.client.try_unsubscribe(&topic).is_err() {
                return;
            }
            due.remove(&topic);
        }
    }
}
