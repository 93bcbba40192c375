//! Any course of events against what must be true of it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    /// A module uploads to this topic.
    Upload(u8),
    /// A pod's status changes; its sender waits or does not.
    Status(u8, bool),
    /// A module says something plain about this object.
    Plain(u8),
    Connect,
    /// So many messages are written.
    Write(u8),
    /// The cloud answers a ping.
    Pong,
    /// The cloud answers a status.
    Answer,
    /// The link breaks; of what was written last, so many messages did not arrive.
    Cut(u8),
    /// The process ends in order, and another one begins.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..3_u8).prop_map(Event::Upload),
        4 => (0..3_u8, any::<bool>()).prop_map(|(pod, asks)| Event::Status(pod, asks)),
        2 => (0..3_u8).prop_map(Event::Plain),
        2 => Just(Event::Connect),
        4 => (1..6_u8).prop_map(Event::Write),
        2 => Just(Event::Pong),
        2 => Just(Event::Answer),
        2 => (0..6_u8).prop_map(Event::Cut),
        1 => Just(Event::Restart),
    ]
}

/// The outbox, and a cloud that notes what arrives.
struct World {
    store: Arc<MemoryStore>,
    outbox: Outbox,
    up: bool,
    /// Written on this link; whether they arrive shows at its end.
    on_the_way: Vec<Message>,
    arrived: Vec<Message>,
    /// What was said of each resource, by number.
    said: BTreeMap<String, Vec<u64>>,
    count: u64,
}

impl World {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let outbox = over(&store).await;
        let (on_the_way, arrived) = (Vec::new(), Vec::new());
        Self { store, outbox, up: false, on_the_way, arrived, said: BTreeMap::new(), count: 0 }
    }

    fn say(&mut self, operation: &str, resource: String, asks: bool) {
        self.count += 1;
        self.said.entry(resource.clone()).or_default().push(self.count);
        let message = message("edged", operation, &resource).with(Content::json(&self.count).unwrap());
        // An asker that waits for ever: its answer is not looked at.
        let envelope = if asks {
            let (envelope, answer) = Envelope::with_reply(message);
            std::mem::forget(answer);
            envelope
        } else {
            Envelope::new(message)
        };
        self.outbox.put(envelope);
    }

    fn write(&mut self, most: usize) {
        for _ in 0..most {
            let Some(message) = self.up.then(|| next(&self.outbox)).flatten() else { return };
            self.outbox.written();
            self.on_the_way.push(message);
        }
    }

    /// Everything that was written has arrived.
    fn pong(&mut self) {
        self.arrived.append(&mut self.on_the_way);
        self.outbox.prove(self.outbox.progress().0);
    }

    fn answer(&mut self) {
        let asked = self.on_the_way.iter().position(|message| message.route.operation == Operation::PATCH);
        if let Some(asked) = asked {
            let answer = self.on_the_way[asked].answer(Content::ok());
            self.arrived.extend(self.on_the_way.drain(..=asked));
            self.outbox.claim(answer);
        }
    }

    fn cut(&mut self, lost: usize) {
        self.on_the_way.truncate(self.on_the_way.len().saturating_sub(lost));
        self.arrived.append(&mut self.on_the_way);
        self.up = false;
        self.outbox.down();
    }

    async fn restart(&mut self) {
        self.cut(usize::MAX);
        self.outbox.put_all_away().await.unwrap();
        // What is only kept in memory ends with the process.
        self.said.retain(|resource, _| !resource.starts_with("plain"));
        self.arrived.retain(|message| !name(message).starts_with("plain"));
        self.outbox = over(&self.store).await;
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::Upload(topic) => self.say("upload", format!("topic/{topic}"), false),
            Event::Status(pod, asks) => self.say("patch", format!("default/podpatch/{pod}"), asks),
            Event::Plain(n) => self.say("update", format!("plain{n}"), false),
            Event::Connect => {
                self.up = true;
                self.outbox.up();
            }
            Event::Write(most) => self.write(most.into()),
            Event::Pong => self.pong(),
            Event::Answer => self.answer(),
            Event::Cut(lost) => self.cut(lost.into()),
            Event::Restart => self.restart().await,
        }
    }

    /// A last link that works, until nothing is left to do.
    async fn settle(&mut self) {
        self.cut(usize::MAX);
        self.up = true;
        self.outbox.up();
        self.write(usize::MAX);
        while self.on_the_way.iter().any(|message| message.route.operation == Operation::PATCH) {
            self.answer();
        }
        self.pong();
        self.outbox.put_all_away().await.unwrap();
        assert!(rows(&self.store).await.is_empty(), "rows are left in the store");
        self.outbox.down();
        assert!(order(&self.outbox).is_empty(), "something is sent again without need");
    }

    /// Each message in the order it first came; of statuses the last one counts.
    fn check(&self) {
        for (resource, said) in &self.said {
            let came = self.arrived.iter().filter(|message| name(message) == *resource);
            let came: Vec<u64> = came.map(|message| message.content.decode().unwrap()).collect();
            assert_eq!(came.last(), said.last(), "{resource}: {came:?} of {said:?}");
            let mut seen = BTreeSet::new();
            let first: Vec<u64> = came.iter().copied().filter(|number| seen.insert(*number)).collect();
            assert!(first.is_sorted(), "{resource} out of order: {came:?}");
            if resource.starts_with("default/podpatch") {
                assert!(came.is_sorted(), "{resource}: an old status after a newer one: {came:?}");
            } else {
                assert_eq!(&first, said, "{resource}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn whatever_happens_everything_arrives_in_order_and_of_statuses_the_newest(
        events in proptest::collection::vec(event(), 0..80)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for event in events {
                world.happen(event).await;
            }
            world.settle().await;
            world.check();
        });
    }
}
