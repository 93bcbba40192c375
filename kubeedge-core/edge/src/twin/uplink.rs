//! The way to the cloud: what it has not been told yet, and what it has not confirmed yet.
//!
//! Go remembers every message until it is confirmed, without limit, and forgets what changed while the link
//! was down. We remember which properties changed, so that memory is bounded by the number of properties, a
//! slow cloud gets only the newest value of each, and a change made offline is told at the next connect.
//! After a restart everything is told, since the values are stored and nobody knows what the cloud has.
//!
//! Each report is a request to EdgeHub: the cloud's confirmation is its answer, and the hub says at once when
//! it cannot be sent or its link broke. So few reports are on their way at a time that none waits long in the
//! hub with an old value.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{StreamExt, stream::FuturesUnordered};
use kubeedge_core::{
    bus::{Bus, Envelope, SendError},
    clock::Clock,
    message::{Content, Message, Millis},
    name::{Group, MessageId, ModuleName, NodeName, Operation},
};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant, Timeout},
};

use super::{
    rows::Rows,
    wire::{self, Body, StateOf, WireTwins},
};

/// After how long an unconfirmed message is sent again, as Go does.
const RESEND: Duration = Duration::from_secs(60);
/// How long a device's next message waits for the confirmation of the last, or after a failure.
const WINDOW: Duration = Duration::from_secs(1);
/// How many reports may be on their way at a time.
const MOST_UNDER_WAY: usize = 128;
/// For how long a report that is not confirmed counts as on its way. Go's cloud never confirms those of
/// devices it does not know.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// What of one device the cloud has to be told.
#[derive(Clone, Debug, Default)]
struct Dirty {
    properties: BTreeSet<String>,
    state: bool,
}

#[derive(Debug)]
struct Sent {
    device: String,
    what: Dirty,
    at: Instant,
}

/// A report whose answer is awaited; nothing when none comes.
#[derive(Debug)]
struct PendingAnswer {
    report: MessageId,
    answer: Pin<Box<Timeout<oneshot::Receiver<Message>>>>,
}

impl Future for PendingAnswer {
    type Output = (MessageId, Option<Message>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.answer.as_mut().poll(cx));
        Poll::Ready((self.report.clone(), answer.ok().and_then(Result::ok)))
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Uplink {
    node: NodeName,
    clock: Clock,
    connected: bool,
    greet: bool,
    dirty: BTreeMap<String, Dirty>,
    unconfirmed: HashMap<MessageId, Sent>,
    waiting: HashMap<String, Instant>,
    answers: FuturesUnordered<PendingAnswer>,
    /// The device told last: the next round goes on after it.
    last: String,
}

impl Uplink {
    pub(super) fn new(node: NodeName, clock: Clock) -> Self {
        Self {
            node,
            clock,
            connected: false,
            greet: false,
            dirty: BTreeMap::new(),
            unconfirmed: HashMap::new(),
            waiting: HashMap::new(),
            answers: FuturesUnordered::new(),
            last: String::new(),
        }
    }

    /// A twin changed.
    pub(super) fn changed(&mut self, device: &str, property: &str) {
        self.of(device).properties.insert(property.to_owned());
    }

    /// A state changed.
    pub(super) fn state_changed(&mut self, device: &str) {
        self.of(device).state = true;
    }

    /// A device is gone: there is nothing to tell of it.
    pub(super) fn forget(&mut self, device: &str) {
        self.dirty.remove(device);
        self.waiting.remove(device);
        self.unconfirmed.retain(|_, sent| sent.device != device);
    }

    /// Everything of every device is to be told: after a start nobody knows what the cloud has.
    pub(super) fn everything_changed(&mut self, rows: &Rows) {
        for (id, known) in rows.all() {
            let dirty = self.of(id);
            dirty.properties.extend(known.twins.keys().cloned());
            dirty.state |= !known.row.state.is_empty();
        }
        self.dirty.retain(|_, dirty| dirty.state || !dirty.properties.is_empty());
    }

    /// The link came up or went down.
    pub(super) fn link(&mut self, connected: bool) {
        if connected && !self.connected {
            self.greet = true;
            self.waiting.clear();
            for (_, sent) in std::mem::take(&mut self.unconfirmed) {
                self.again(sent);
            }
        }
        self.connected = connected;
    }

    /// The cloud has a message.
    pub(super) fn confirmed(&mut self, message: &MessageId) {
        if let Some(sent) = self.unconfirmed.remove(message) {
            self.waiting.remove(&sent.device);
        }
    }

    /// Waits for the answer to a report. Never completes when none is on its way. Cancel-safe.
    pub(super) async fn answered(&mut self) -> (MessageId, Option<Message>) {
        match self.answers.next().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// A report was answered, refused, or not answered in time.
    pub(super) fn settle(&mut self, message: &MessageId, answer: Option<Message>) {
        if answer.is_some_and(|answer| answer.route.operation != Operation::ERROR) {
            self.confirmed(message);
        } else if let Some(sent) = self.unconfirmed.remove(message) {
            self.waiting.insert(sent.device.clone(), Instant::now());
            self.again(sent);
        }
    }

    /// When to call [`Uplink::flush`] at the latest; `None` when there is nothing to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let waits = self.connected && (self.greet || !self.dirty.is_empty());
        waits.then(|| Instant::now() + Duration::from_millis(50))
    }

    /// Sends what can be sent now; what the hub has no room for stays for the next time.
    pub(super) fn flush(&mut self, rows: &Rows, bus: &Bus) {
        if !self.connected {
            return;
        }
        if self.greet {
            match bus.try_send(&ModuleName::EDGE_HUB, self.greeting(self.clock.now())) {
                Ok(()) => self.greet = false,
                Err(error) => return self.refused(&error),
            }
        }
        let now = Instant::now();
        for device in self.ready(now) {
            let Some(dirty) = self.dirty.remove(&device) else { continue };
            if let Err(error) = self.tell(rows, bus, &device, &dirty, now) {
                let kept = self.of(&device);
                kept.properties.extend(dirty.properties);
                kept.state |= dirty.state;
                return self.refused(&error);
            }
            self.last = device;
        }
    }

    /// The devices to tell of now, in turn, as many as may be on their way.
    fn ready(&self, now: Instant) -> Vec<String> {
        let under_way = self.unconfirmed.values().filter(|sent| now < sent.at + UNDER_WAY).count();
        let free = |device: &&String| self.waiting.get(*device).is_none_or(|at| now >= *at + WINDOW);
        let (from, to) = (Bound::Excluded(&self.last), Bound::Included(&self.last));
        let after = self.dirty.range::<String, _>((from, Bound::Unbounded));
        let before = self.dirty.range::<String, _>((Bound::Unbounded, to));
        let in_turn = after.chain(before).map(|(device, _)| device).filter(free);
        in_turn.take(MOST_UNDER_WAY.saturating_sub(under_way)).cloned().collect()
    }

    fn tell(
        &mut self,
        rows: &Rows,
        bus: &Bus,
        device: &str,
        dirty: &Dirty,
        now: Instant,
    ) -> Result<(), SendError> {
        let Some(known) = rows.get(device) else { return Ok(()) };
        if dirty.state && !known.row.state.is_empty() {
            let state = StateOf {
                name: known.row.name.clone(),
                state: known.row.state.clone(),
                last_online: known.row.last_online.clone(),
            };
            let text = wire::text(&fresh_id(), self.clock.now().0, Body::Device { device: state });
            let message = self.message(format!("device/{device}/state/update")).with(Content::text(&text));
            self.send(bus, message, device, Dirty { state: true, ..Dirty::default() }, now)?;
        }
        let twins: WireTwins = dirty
            .properties
            .iter()
            .filter_map(|name| known.twins.get(name).map(|row| (name.clone(), row.for_cloud())))
            .collect();
        if !twins.is_empty() {
            let text = wire::text(&fresh_id(), self.clock.now().0, Body::Twins { twin: twins });
            let message = self
                .message(format!("device/{device}/twin/edge_updated"))
                .with(Content::from_json_bytes(text).unwrap_or_default());
            let what = Dirty { state: false, properties: dirty.properties.clone() };
            self.send(bus, message, device, what, now)?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        bus: &Bus,
        message: Message,
        device: &str,
        what: Dirty,
        at: Instant,
    ) -> Result<(), SendError> {
        let id = message.header.id.clone();
        let (envelope, answer) = Envelope::with_reply(message);
        bus.try_forward(&ModuleName::EDGE_HUB, envelope)?;
        let answer = Box::pin(tokio::time::timeout(RESEND, answer));
        self.answers.push(PendingAnswer { report: id.clone(), answer });
        // What is told anew need not be confirmed as it was.
        for sent in self.unconfirmed.values_mut().filter(|sent| sent.device == device) {
            sent.what.properties.retain(|property| !what.properties.contains(property));
            sent.what.state &= !what.state;
        }
        self.unconfirmed.retain(|_, sent| sent.what.state || !sent.what.properties.is_empty());
        self.waiting.insert(device.to_owned(), at);
        self.unconfirmed.insert(id, Sent { device: device.to_owned(), what, at });
        Ok(())
    }

    fn again(&mut self, sent: Sent) {
        let dirty = self.of(&sent.device);
        dirty.properties.extend(sent.what.properties);
        dirty.state |= sent.what.state;
    }

    fn of(&mut self, device: &str) -> &mut Dirty {
        self.dirty.entry(device.to_owned()).or_default()
    }

    fn message(&self, resource: String) -> Message {
        Message::new(ModuleName::TWIN, Operation::UPDATE, resource).in_group(Group::RESOURCE)
    }

    /// Go's request for the list of devices, sent at each connect. Cloudcore of v1beta1 does not answer it.
    fn greeting(&self, now: Millis) -> Message {
        let (id, node, now) = (fresh_id(), &self.node, now.0);
        let text = format!(
            r#"{{"event_type":"group_membership_event","event_id":"{id}","group_id":"{node}","operation":"detail","timestamp":{now}}}"#
        );
        Message::new(ModuleName::TWIN, Operation::GET, "membership/detail")
            .in_group(Group::RESOURCE)
            .with(Content::text(&text))
    }

    fn refused(&mut self, error: &SendError) {
        if !matches!(error, SendError::Full(_)) {
            tracing::debug!(%error, "no way to the cloud");
            self.connected = false;
        }
    }
}

/// An event's id.
pub(super) fn fresh_id() -> String {
    MessageId::random().as_str().to_owned()
}
