//! The connection that publishes.
//!
//! At a break rumqttc gives back all that it had taken and that the broker had not confirmed, and forgets it
//! at the next connect, which begins a session of its own. So it is kept here and published again, in order
//! and before what came since: some of it arrives twice.

use std::collections::VecDeque;

use kubeedge_core::{backoff::Backoff, failure::BoxError};
use rumqttc::{Event, EventLoop, Outgoing, Packet, Publish, QoS, Request};

use super::link::Presence;

/// After how many breaks in a row without any confirmation the oldest message is given up: the broker may
/// break off because of it.
const TRIES: u32 = 5;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Writer {
    broker: String,
    /// How many messages are kept at most.
    most: usize,
    /// What is to be published again, the oldest first.
    kept: VecDeque<Publish>,
    /// The number that rumqttc gave last.
    newest: u16,
    /// Breaks since the broker last confirmed something.
    fruitless: u32,
}

impl Writer {
    pub(super) fn new(broker: String, most: usize) -> Self {
        Self { broker, most, kept: VecDeque::new(), newest: 0, fruitless: 0 }
    }

    /// Works until it is dropped.
    pub(super) async fn run(mut self, mut events: EventLoop, mut backoff: Backoff) -> Result<(), BoxError> {
        let mut presence = Presence::default();
        loop {
            let fed = self.feed(&mut events);
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    backoff.reset();
                    presence.is(true, &self.broker, &"");
                }
                Ok(event) => self.note(&event),
                Err(error) => {
                    self.take_back(&mut events, fed);
                    presence.is(false, &self.broker, &error);
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    /// Gives rumqttc what is kept, before it looks for anything new. One at a time, since what it is given
    /// this way it publishes however much is on its way. Says whether it has some.
    fn feed(&mut self, events: &mut EventLoop) -> bool {
        let full = events.state.inflight() >= events.mqtt_options.inflight();
        if events.network.is_some()
            && events.pending.is_empty()
            && events.state.collision.is_none()
            && let Some(next) = self.kept.front()
        {
            // Nobody confirms at QoS 0.
            let many = if next.qos == QoS::AtMostOnce { self.kept.len() } else { usize::from(!full) };
            events.pending.extend(self.kept.drain(..many).map(Request::Publish));
        }
        !events.pending.is_empty()
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Incoming(Packet::PubAck(_) | Packet::PubRec(_)) => self.fruitless = 0,
            Event::Outgoing(Outgoing::Publish(number)) => self.newest = *number,
            _ => {}
        }
    }

    /// Takes what rumqttc gave back. `fed` says whether it had some of ours to publish.
    fn take_back(&mut self, events: &mut EventLoop, fed: bool) {
        let unsaid = std::mem::take(&mut events.state.events);
        unsaid.iter().for_each(|event| self.note(event));
        let given_back = events.pending.drain(..).filter_map(|request| match request {
            Request::Publish(publish) => Some(publish),
            _ => None,
        });
        let mut given_back: VecDeque<Publish> = given_back.collect();
        let was_sent = |publish: &Publish| publish.pkid != 0;
        // Ours is in front if it was not sent yet.
        let unsent = given_back.pop_front_if(|first| fed && !was_sent(first));
        let (mut sent, waiting): (Vec<_>, Vec<_>) = given_back.into_iter().partition(was_sent);
        // Numbers begin again at one.
        sent.sort_by_key(|publish| (publish.pkid <= self.newest, publish.pkid));
        self.give_up(&mut sent);
        let older = sent.into_iter().chain(events.state.collision.take()).chain(unsent);
        let all = older.chain(std::mem::take(&mut self.kept)).chain(waiting);
        self.kept = all.map(|publish| Publish { pkid: 0, ..publish }).collect();
        let dropped = self.kept.len().saturating_sub(self.most);
        if dropped > 0 {
            self.kept.truncate(self.most);
            let broker = &self.broker;
            tracing::warn!(broker, dropped, "queue for the MQTT broker is full, messages dropped");
        }
    }

    /// Drops the oldest of what was sent if the broker breaks off again and again and confirms nothing. What
    /// it took before the message it does not like is older.
    fn give_up(&mut self, sent: &mut Vec<Publish>) {
        if sent.is_empty() {
            return;
        }
        self.fruitless += 1;
        if self.fruitless >= TRIES {
            self.fruitless = 0;
            let Publish { topic, payload, .. } = sent.remove(0);
            let (broker, bytes) = (&self.broker, payload.len());
            tracing::warn!(
                broker,
                topic,
                bytes,
                "MQTT broker broke off {TRIES} times and confirmed nothing, message dropped"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::MqttOptions;

    use super::*;

    fn publish(pkid: u16, payload: &'static str) -> Request {
        Request::Publish(Publish { pkid, ..Publish::new("a/b", QoS::AtLeastOnce, payload) })
    }

    /// What is kept after a break at which rumqttc gave this back.
    fn kept(writer: &mut Writer, fed: bool, given_back: impl IntoIterator<Item = Request>) -> String {
        let mut events = EventLoop::new(MqttOptions::new("id", "127.0.0.1", 1), 1);
        events.pending.extend(given_back);
        writer.take_back(&mut events, fed);
        assert!(events.pending.is_empty() && writer.kept.iter().all(|publish| publish.pkid == 0));
        writer.kept.iter().map(|publish| std::str::from_utf8(&publish.payload).unwrap()).collect()
    }

    #[test]
    fn what_was_published_first_is_published_first_again() {
        let mut writer = Writer::new(String::new(), 16);
        assert_eq!(kept(&mut writer, false, [publish(0, "e"), publish(0, "f")]), "ef");
        // Numbers had begun again at one, and what was fed was not sent yet.
        writer.newest = 2;
        let given_back =
            [(0, "d"), (1, "b"), (2, "c"), (99, "a"), (0, "g")].map(|(pkid, text)| publish(pkid, text));
        assert_eq!(kept(&mut writer, true, given_back), "abcdefg");
    }

    #[test]
    fn a_message_that_waited_for_its_number_comes_after_what_was_sent() {
        let mut writer = Writer::new(String::new(), 16);
        let mut events = EventLoop::new(MqttOptions::new("id", "127.0.0.1", 1), 1);
        events.pending.extend([publish(1, "a"), publish(0, "c")]);
        let Request::Publish(collided) = publish(1, "b") else { unreachable!() };
        events.state.collision = Some(collided);
        writer.take_back(&mut events, false);
        assert!(events.state.collision.is_none());
        assert_eq!(
            writer.kept.iter().map(|publish| &publish.payload[..]).collect::<Vec<_>>().concat(),
            b"abc"
        );
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest_is_dropped() {
        let mut writer = Writer::new(String::new(), 3);
        assert_eq!(kept(&mut writer, false, ["a", "b"].map(|text| publish(0, text))), "ab");
        assert_eq!(kept(&mut writer, false, ["c", "d"].map(|text| publish(0, text))), "abc");
    }
}
