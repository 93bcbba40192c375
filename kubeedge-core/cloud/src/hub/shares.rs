//! What one node may have in work at a time, and whose turn it is when many want something of one module.

use std::{collections::HashMap, sync::Arc};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kubeedge_common::rate::Rate;
use kubeedge_core::{
    bus::{Bus, Envelope, SendError},
    message::Message,
    name::ModuleName,
};
use tokio::{sync::Semaphore, time::Instant};

/// What one node may ask of the cloud. What is beyond is not refused: it waits in the node's own connection,
/// which is not read meanwhile, and nobody else notices. KubeEdge has no such limits; a Go edge stays far
/// below these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeLimits {
    /// Messages that modules work on at a time; at least 1.
    pub messages: usize,
    /// Bytes of them. One message is always read, so that up to a frame more is held.
    pub bytes: usize,
    /// Messages a second on average, of every sort; 0 for no limit.
    pub per_second: u32,
    /// Messages at once after a rest, where there is a limit a second.
    pub burst: u32,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self { messages: 32, bytes: 32 << 20, per_second: 0, burst: 0 }
    }
}

/// The places at the modules that edges ask. Places are given in the order of asking, and a session asks for
/// one at a time: however much one of them wants, another waits for one message of each at most.
#[derive(Debug, Default)]
pub(super) struct Shares {
    places: HashMap<ModuleName, Arc<Semaphore>>,
}

impl Shares {
    /// So many places at each of these modules, as far as they are there.
    pub(super) fn new(bus: &Bus, modules: &[ModuleName], places: usize) -> Self {
        let there = modules.iter().filter(|module| bus.has(module));
        let places = there.map(|module| (module.clone(), Arc::new(Semaphore::new(places.max(1)))));
        Self { places: places.collect() }
    }

    /// Hands a message to a module when it is this session's turn; the place is free again with the answer.
    fn hand(&self, bus: &Bus, to: ModuleName, message: Message) -> BoxFuture<'static, Handed> {
        let (places, bus) = (self.places.get(&to).cloned(), bus.clone());
        async move {
            let unknown = || SendError::Unknown(to.clone());
            let place = places.ok_or_else(unknown)?.acquire_owned().await.map_err(|_| unknown())?;
            let (envelope, answer) = Envelope::with_reply(message);
            bus.forward(&to, envelope).await?;
            let answered = async move {
                // A module that is done without an answer drops its end.
                let answer = answer.await.ok();
                drop(place);
                answer
            };
            Ok(answered.boxed())
        }
        .boxed()
    }
}

/// The answer to a message in work.
type Answered = BoxFuture<'static, Option<Message>>;
/// A message is in work, or nobody takes it.
type Handed = Result<Answered, SendError>;

/// What one session has in work.
pub(super) struct InWork<'a> {
    shares: &'a Shares,
    limits: NodeLimits,
    /// The one whose turn has not come, and its size. Those in work are listened to meanwhile: their places
    /// are what it may be waiting for.
    waiting: Option<(BoxFuture<'static, Handed>, usize)>,
    working: FuturesUnordered<BoxFuture<'static, (Option<Message>, usize)>>,
    bytes: usize,
    rate: Rate,
}

impl<'a> InWork<'a> {
    pub(super) fn new(shares: &'a Shares, limits: NodeLimits) -> Self {
        let rate = Rate::new(limits.per_second, limits.burst);
        Self { shares, limits, waiting: None, working: FuturesUnordered::new(), bytes: 0, rate }
    }

    /// Whether the node has as much in work as it may, so that it is not read.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.is_some()
            || self.working.len() >= self.limits.messages.max(1)
            || self.bytes >= self.limits.bytes
    }

    /// When its next message may be read; `None` for now.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.rate.rests_until()
    }

    /// Whether the node may be read now.
    pub(super) fn listens(&self) -> bool {
        !self.is_full() && self.rests_until().is_none()
    }

    /// Notes that a message was read.
    pub(super) fn has_read(&mut self) {
        self.rate.spend();
    }

    /// Hands a message to a module, as soon as it is its turn. Not to be called while [`InWork::is_full`].
    pub(super) fn hand(&mut self, bus: &Bus, to: ModuleName, message: Message) {
        let bytes = message.size();
        self.bytes += bytes;
        self.waiting = Some((self.shares.hand(bus, to, message), bytes));
    }

    /// The next answer; `None` when something else has changed. Pending while nothing is in work.
    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let Self { waiting, working, .. } = self;
        let turn = async {
            match waiting {
                Some((handed, _)) => handed.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((answer, bytes)) = working.next() => {
                self.bytes = self.bytes.saturating_sub(bytes);
                answer
            }
            handed = turn => {
                self.handed(handed);
                None
            }
        }
    }

    fn handed(&mut self, handed: Handed) {
        let bytes = self.waiting.take().map_or(0, |(_, bytes)| bytes);
        match handed {
            Ok(answered) => self.working.push(answered.map(move |answer| (answer, bytes)).boxed()),
            Err(error) => {
                self.bytes = self.bytes.saturating_sub(bytes);
                tracing::debug!(error = %error, "nobody takes a message");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::{
        bus::Inbox,
        message::Content,
        name::{Group, Operation},
    };

    use super::*;

    const MODULE: ModuleName = ModuleName::EDGE_CONTROLLER;

    fn bus() -> (Bus, Inbox) {
        let (bus, mut inboxes) = Bus::new([(MODULE, Group::RESOURCE, 1024)]);
        (bus, inboxes.remove(&MODULE).unwrap())
    }

    fn of(node: &str) -> Message {
        Message::new(ModuleName::EDGED, Operation::QUERY, format!("node/{node}/a/b"))
    }

    #[tokio::test]
    async fn many_edges_that_ask_without_end_and_one_that_asks_once_are_served_in_turn() {
        let (bus, mut inbox) = bus();
        let shares = Arc::new(Shares::new(&bus, &[MODULE], 4));
        for flood in 0..50 {
            let (bus, shares) = (bus.clone(), shares.clone());
            tokio::spawn(async move {
                let mut work = InWork::new(&shares, NodeLimits::default());
                loop {
                    if work.is_full() {
                        work.next().await;
                    } else {
                        work.hand(&bus, MODULE, of(&format!("flood-{flood}")));
                    }
                }
            });
        }
        for _ in 0..500 {
            inbox.next().await.unwrap().answer(Content::ok());
        }
        let (others, quiet) = (shares.clone(), bus.clone());
        let asked = tokio::spawn(async move {
            let mut work = InWork::new(&others, NodeLimits::default());
            work.hand(&quiet, MODULE, of("quiet"));
            while work.next().await.is_none() {}
        });
        tokio::task::yield_now().await;
        let mut before = 0;
        loop {
            let envelope = inbox.next().await.unwrap();
            let quiet = envelope.message.route.resource == "node/quiet/a/b";
            envelope.answer(Content::ok());
            if quiet {
                break;
            }
            before += 1;
        }
        // One of each that floods, and those that have a place already.
        assert!(before <= 50 + 4, "{before} messages went first");
        asked.await.unwrap();
    }

    #[tokio::test]
    async fn a_node_has_so_many_messages_and_so_many_bytes_in_work_and_no_more() {
        let (bus, mut inbox) = bus();
        let shares = Shares::new(&bus, &[MODULE], 100);
        let limits = NodeLimits { messages: 3, bytes: 10_000, ..NodeLimits::default() };
        let mut work = InWork::new(&shares, limits);
        for _ in 0..3 {
            assert!(!work.is_full());
            work.hand(&bus, MODULE, of("n"));
            assert!(work.is_full(), "one at a time waits for its turn");
            assert_eq!(work.next().await, None);
        }
        assert!(work.is_full());
        for _ in 0..3 {
            // Dropped: done without an answer.
            drop(inbox.next().await);
            assert_eq!(work.next().await, None);
        }
        work.hand(&bus, MODULE, of("n").with(Content::text(&"x".repeat(10_000))));
        assert_eq!(work.next().await, None);
        assert!(work.is_full(), "{} bytes are in work", work.bytes);
        inbox.next().await.unwrap().answer(Content::ok());
        assert!(work.next().await.is_some() && !work.is_full() && work.bytes == 0);
        work.hand(&bus, ModuleName::of("nobody"), of("n"));
        assert_eq!(work.next().await, None);
        assert!(!work.is_full() && work.bytes == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_with_a_limit_a_second_rests_after_its_burst() {
        let (bus, _inbox) = bus();
        let shares = Shares::new(&bus, &[MODULE], 1);
        let limits = NodeLimits { per_second: 10, burst: 5, ..NodeLimits::default() };
        let (mut work, start) = (InWork::new(&shares, limits), Instant::now());
        for _ in 0..25 {
            if let Some(until) = work.rests_until() {
                tokio::time::sleep_until(until).await;
            }
            work.has_read();
        }
        let passed = start.elapsed().as_millis();
        assert!((1990..=2010).contains(&passed), "{passed} ms");
        assert_eq!(
            InWork::new(&shares, NodeLimits::default()).rests_until(),
            None,
            "by default there is no limit"
        );
    }
}
