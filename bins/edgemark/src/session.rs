//! One link of an edge while it lasts.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use kubeedge_core::{
    message::{Message, resource::ObjectPath},
    name::{Group, MessageId, NodeName, Operation},
    transport::{Frame, FrameSink, TransportError},
    wire::CodecError,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    cluster::Cluster,
    edge::{Phase, Shared},
    options::Direction,
    wire::{self, Answer, Device, LeaseMeta, Pod},
};

/// Frames that are taken before what they cause is pushed out.
const BATCH: usize = 64;
/// The pause before a refused registration or lease is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// As long as nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What an edge remembers over its links.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// By UID.
    pods: HashMap<String, Pod>,
    /// By `<namespace>/<name>`.
    devices: HashMap<String, Device>,
    lease: Option<LeaseMeta>,
    /// When the lease was renewed last.
    renewed: Option<Instant>,
    round: u64,
}

/// Why a link ended that nobody wanted to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the cloud closed the link")]
    Closed,
    #[error("{}", .0.kind())]
    Link(#[from] TransportError),
    #[error("a frame that is no message: {0}")]
    Malformed(#[from] CodecError),
}

/// What an answer is awaited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Register,
    LeaseQuery,
    Lease,
    Echo,
    /// A status, a deletion, twins: answered or not, nothing follows.
    Report,
}

/// When what is due next.
#[derive(Debug)]
struct Due {
    keepalive: Instant,
    register: Option<Instant>,
    lease: Option<Instant>,
    twins: Option<Instant>,
    echo: Instant,
}

/// A link, and what goes on over it.
pub(crate) struct Session<'a> {
    shared: &'a Shared,
    node: &'a NodeName,
    bystander: bool,
    memory: &'a mut Memory,
    tx: Box<dyn FrameSink>,
    begun: Instant,
    asked: HashMap<MessageId, (Question, Instant)>,
    echoes: usize,
    registered: bool,
    synced: bool,
    flooding: bool,
    due: Due,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        node: &'a NodeName,
        bystander: bool,
        memory: &'a mut Memory,
        tx: Box<dyn FrameSink>,
    ) -> Self {
        let begun = Instant::now();
        let due = Due { keepalive: begun, register: None, lease: None, twins: None, echo: begun };
        let asked = HashMap::new();
        let (echoes, registered, synced, flooding) = (0, false, false, false);
        Self { shared, node, bystander, memory, tx, begun, asked, echoes, registered, synced, flooding, due }
    }

    /// Works until the edge is to leave; an error says that the link broke.
    pub(crate) async fn run(
        &mut self,
        mut rx: BoxStream<'static, Result<Frame, TransportError>>,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<(), End> {
        self.flooding = *phase.borrow_and_update() == Phase::Flooding;
        self.greet().await?;
        loop {
            self.flood().await?;
            self.settle();
            self.tx.flush().await?;
            tokio::select! {
                biased;
                changed = phase.changed() => {
                    let now = *phase.borrow_and_update();
                    if changed.is_err() || now == Phase::Away {
                        return Ok(());
                    }
                    self.flooding = now == Phase::Flooding;
                }
                // Before frames: in a flood there is always one.
                () = tokio::time::sleep_until(self.next_due()) => self.do_what_is_due().await?,
                frame = rx.next() => {
                    self.take(frame).await?;
                    for _ in 1..BATCH {
                        let Some(frame) = rx.next().now_or_never() else { break };
                        self.take(frame).await?;
                    }
                }
            }
        }
    }

    /// Counts the end. The socket is closed without a word, as Go does.
    pub(crate) fn leave(self) {
        if self.synced {
            self.shared.stats.in_sync.down();
        }
        if self.due.lease.is_some() || self.asked.values().any(|(question, _)| *question == Question::Lease) {
            self.check_lease();
        }
    }

    async fn greet(&mut self) -> Result<(), End> {
        self.do_what_is_due().await?;
        self.send(&wire::greeting(self.node.as_str())).await?;
        if self.shared.plan.links_only {
            self.registered = true;
            return Ok(());
        }
        self.ask(Question::Register, &wire::registration(self.node.as_str())).await
    }

    fn next_due(&self) -> Instant {
        let due = &self.due;
        let echo = self.may_echo().then_some(due.echo);
        let times = [Some(due.keepalive), due.register, due.lease, due.twins, echo];
        times.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + IDLE)
    }

    async fn do_what_is_due(&mut self) -> Result<(), End> {
        let (now, node) = (Instant::now(), self.node.as_str());
        if self.due.keepalive <= now {
            self.due.keepalive = now + self.shared.plan.keepalive;
            self.send(&wire::keepalive()).await?;
        }
        if self.due.register.is_some_and(|at| at <= now) {
            self.due.register = None;
            self.ask(Question::Register, &wire::registration(node)).await?;
        }
        if self.due.lease.is_some_and(|at| at <= now) {
            self.renew().await?;
        }
        if self.due.twins.is_some_and(|at| at <= now) {
            self.due.twins = self.shared.plan.twins.map(|every| now + every);
            self.report_twins().await?;
        }
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), End> {
        self.due.lease = None;
        match self.memory.lease.take() {
            Some(known) => {
                self.ask(Question::Lease, &wire::lease(self.node.as_str(), Some(&known))).await?;
                self.memory.lease = Some(known);
                Ok(())
            }
            None => self.ask(Question::LeaseQuery, &wire::lease_query(self.node.as_str())).await,
        }
    }

    async fn report_twins(&mut self) -> Result<(), End> {
        self.memory.round += 1;
        let round = self.memory.round;
        let reports: Vec<_> =
            self.memory.devices.iter().map(|(id, device)| wire::twins(id, device, round)).collect();
        for report in reports {
            self.ask(Question::Report, &report).await?;
        }
        Ok(())
    }

    async fn take(&mut self, frame: Option<Result<Frame, TransportError>>) -> Result<(), End> {
        let frame = frame.ok_or(End::Closed)??;
        self.shared.stats.traffic.down(frame.payload.len());
        let message = self.shared.codec.decode(frame)?;
        let question = message.header.parent.as_ref().and_then(|parent| self.asked.remove(parent));
        match question {
            Some((question, at)) => self.answered(question, at, &message).await,
            None => self.told(&message).await,
        }
    }

    /// Something the cloud sends by itself.
    async fn told(&mut self, message: &Message) -> Result<(), End> {
        let object = ObjectPath::parse(message.route.resource.as_str());
        let delete = message.route.operation == Operation::DELETE;
        match object.as_ref().map(|object| object.kind) {
            _ if message.route.group != Group::RESOURCE => return Ok(()),
            Some("pod") => self.pod(message, delete).await?,
            Some("device") => self.device(message, delete).await?,
            _ => {}
        }
        self.send(&wire::confirmation(message)).await?;
        self.confirmed(object);
        let made = Duration::from_millis(u64::try_from(message.header.timestamp.0).unwrap_or_default());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.shared.stats.delivering.record(now.saturating_sub(made));
        Ok(())
    }

    fn confirmed(&self, object: Option<ObjectPath<'_>>) {
        let stats = &self.shared.stats;
        stats.confirmed.up();
        let map = object.filter(|object| object.kind == "configmap");
        if let Some(round) = map.and_then(|map| stats.rounds.of(Cluster::number(map.name)?)) {
            round.up();
        }
    }

    async fn pod(&mut self, message: &Message, delete: bool) -> Result<(), End> {
        let Ok(pod) = message.content.decode::<Pod>() else { return Ok(()) };
        if delete {
            self.memory.pods.remove(&pod.metadata.uid);
            return Ok(());
        }
        if pod.metadata.deletion_timestamp.is_some() {
            return self.ask(Question::Report, &wire::pod_stopped(&pod.metadata)).await;
        }
        if !self.memory.pods.contains_key(&pod.metadata.uid) {
            self.ask(Question::Report, &wire::pod_running(&pod)).await?;
            self.shared.stats.pods.up();
            self.memory.pods.insert(pod.metadata.uid.clone(), pod);
        }
        Ok(())
    }

    async fn device(&mut self, message: &Message, delete: bool) -> Result<(), End> {
        let Some(path) = ObjectPath::parse(message.route.resource.as_str()) else { return Ok(()) };
        let id = format!("{}/{}", path.namespace, path.name);
        if delete {
            self.memory.devices.remove(&id);
            return Ok(());
        }
        let Ok(device) = message.content.decode::<Device>() else { return Ok(()) };
        self.ask(Question::Report, &wire::twins(&id, &device, self.memory.round)).await?;
        self.memory.devices.insert(id, device);
        self.due.twins = self.shared.plan.twins.map(|every| Instant::now() + every);
        Ok(())
    }

    async fn answered(&mut self, question: Question, at: Instant, message: &Message) -> Result<(), End> {
        if question == Question::Echo {
            self.echoed(at);
            return Ok(());
        }
        // An answer of another shape, such as `OK`, is a good one.
        let answer = Answer::of(message).unwrap_or_default();
        let error = message.route.operation == Operation::ERROR;
        match (question, if error { "Error" } else { answer.reason() }) {
            (Question::Register, "" | "AlreadyExists") => self.registered(message).await,
            (Question::LeaseQuery, "" | "NotFound") => {
                self.send(&wire::confirmation(message)).await?;
                self.memory.lease = answer.meta();
                let renewal = wire::lease(self.node.as_str(), self.memory.lease.as_ref());
                self.ask(Question::Lease, &renewal).await
            }
            (Question::Lease, "") => {
                self.send(&wire::confirmation(message)).await?;
                self.renewed(at, answer.meta());
                Ok(())
            }
            (Question::Report | Question::Echo, "") => Ok(()),
            _ => {
                self.refused(question, answer.why());
                Ok(())
            }
        }
    }

    fn refused(&mut self, question: Question, why: &str) {
        let again = Some(Instant::now() + AGAIN);
        match question {
            Question::Register => self.due.register = again,
            // What it was is read anew.
            Question::Lease | Question::LeaseQuery => (self.memory.lease, self.due.lease) = (None, again),
            Question::Echo | Question::Report => {}
        }
        let stats = &self.shared.stats;
        stats.refused.up();
        let why = why.replace(self.node.as_str(), "NODE");
        stats.reason(format!("refused {question:?}: {why}"));
    }

    async fn registered(&mut self, answer: &Message) -> Result<(), End> {
        self.send(&wire::confirmation(answer)).await?;
        self.registered = true;
        self.shared.stats.registering.record(self.begun.elapsed());
        self.ask(Question::Report, &wire::node_status(self.node.as_str())).await?;
        self.renew().await?;
        let pods: Vec<_> = self.memory.pods.values().map(wire::pod_running).collect();
        for pod in pods {
            self.ask(Question::Report, &pod).await?;
        }
        self.due.twins = self.shared.plan.twins.map(|every| Instant::now() + every);
        self.report_twins().await
    }

    fn renewed(&mut self, asked: Instant, now: Option<LeaseMeta>) {
        self.check_lease();
        let (stats, took) = (&self.shared.stats, asked.elapsed());
        stats.renewals.up();
        if self.bystander { &stats.bystanders_renewing } else { &stats.renewing }.record(took);
        (self.memory.lease, self.memory.renewed) = (now, Some(Instant::now()));
        let flooded = self.flooding && self.shared.plan.direction == Direction::Lease;
        if flooded {
            stats.answered.up();
            stats.answering.record(took);
        }
        self.due.lease = Some(if flooded { asked } else { asked + self.shared.plan.lease });
    }

    /// Counts a lease that has run out.
    fn check_lease(&self) {
        let lease = Duration::from_secs(wire::LEASE_SECONDS);
        if self.memory.renewed.is_some_and(|at| at.elapsed() > lease) {
            let stats = &self.shared.stats;
            if self.bystander { &stats.bystanders_expired } else { &stats.expired }.up();
        }
    }

    /// Whether it is all in sync, for the first time since the link is there.
    fn settle(&mut self) {
        if !self.synced && self.registered && self.asked.is_empty() {
            self.synced = true;
            self.shared.stats.in_sync.up();
            self.shared.stats.syncing.record(self.begun.elapsed());
        }
    }

    fn may_echo(&self) -> bool {
        let plan = &self.shared.plan;
        self.flooding && self.synced && plan.direction == Direction::Up && self.echoes < plan.window
    }

    async fn flood(&mut self) -> Result<(), End> {
        if self.flooding && self.shared.plan.direction == Direction::Lease {
            self.due.lease = self.due.lease.map(|at| at.min(Instant::now()));
        }
        while self.may_echo() && self.due.echo <= Instant::now() {
            self.echoes += 1;
            self.ask(Question::Echo, &wire::echo(self.shared.plan.message_size)).await?;
            if let Some(pause) = Duration::from_secs(1).checked_div(self.shared.plan.qps) {
                self.due.echo = self.due.echo.max(Instant::now()) + pause;
            }
        }
        Ok(())
    }

    fn echoed(&mut self, asked: Instant) {
        self.echoes -= 1;
        self.shared.stats.answered.up();
        self.shared.stats.answering.record(asked.elapsed());
    }

    async fn ask(&mut self, question: Question, message: &Message) -> Result<(), End> {
        self.asked.insert(message.header.id.clone(), (question, Instant::now()));
        self.send(message).await
    }

    async fn send(&mut self, message: &Message) -> Result<(), End> {
        let frame = self.shared.codec.encode(message)?;
        self.shared.stats.traffic.up(frame.payload.len());
        Ok(self.tx.feed(frame).await?)
    }
}
