//! One edge's session: a reader and a writer over one link, and the watchdog.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use foldhash::{HashMap, HashMapExt};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use kubeedge_core::{
    bus::Bus,
    log::{Seldom, shown},
    message::{Content, Message},
    name::{Group, ModuleName, NodeName, Operation},
    rate::Rate,
    transport::{Frame, FrameSink, Link, TransportError, TransportKind},
    wire::{Codec, CodecError},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    HubTimes,
    delivery::{Delivery, Heads},
    pool::{Flight, Key, Next, Pool, Put},
    records::{Confirmed, Known, Records},
    shares::{InWork, NodeLimits, Shares},
    upstream::{self, Upstream},
};

/// Messages read in a row before answers and clocks are looked at.
const READS: usize = 64;
/// Messages written in a row before confirmations and clocks are looked at.
const WRITES: usize = 64;

/// How often a session with objects on their way pushes out what it has written: what becomes ready meanwhile goes out
/// together, for a small part of the cost. A session that rested pushes out each of the next few at once.
const PUSHES_PER_SECOND: u32 = 100;
const PUSHES_AT_ONCE: u32 = 16;
/// client-go's second limit beside the growing pause: ten requeues a second, a hundred at once.
const REQUEUES_PER_SECOND: u32 = 10;
const REQUEUES_AT_ONCE: u32 = 100;

const CROWDED: &str = "too much waits for the edge";

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the edge closed the link")]
    Closed,
    #[error("no keepalive for {0:?}")]
    Silent(Duration),
    #[error("a frame that is no message: {0}")]
    Malformed(#[from] CodecError),
    #[error("{0}")]
    Link(#[from] TransportError),
    #[error("the edge takes no frame for {0:?}")]
    Stuck(Duration),
    #[error("{0}")]
    Told(&'static str),
}

/// What sessions share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) codec: Arc<dyn Codec>,
    pub(super) bus: Bus,
    pub(super) records: Arc<Records>,
    pub(super) times: HubTimes,
    pub(super) window: usize,
    pub(super) shares: Arc<Shares>,
    pub(super) per_node: NodeLimits,
    /// Lines about what nodes do wrong.
    pub(super) complaints: Arc<Seldom>,
    pub(super) cluster_ca: Arc<str>,
}

/// The handle by which the hub reaches a session.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) pool: Pool,
    pub(super) end: CancellationToken,
    pub(super) why: std::sync::OnceLock<&'static str>,
    /// The version of the Node in which this cloudcore claims it; 0 until it does.
    pub(super) claimed: AtomicU64,
    /// Tells a session from its successors.
    pub(super) generation: u64,
    /// Whether the edge is one of ours.
    pub(super) ours: bool,
    pub(super) records: Arc<Records>,
}

impl Handle {
    pub(super) fn new(generation: u64, ours: bool, records: Arc<Records>) -> Self {
        Self {
            pool: Pool::default(),
            end: CancellationToken::new(),
            why: std::sync::OnceLock::new(),
            claimed: AtomicU64::new(0),
            generation,
            ours,
            records,
        }
    }

    /// Ends the session; the first reason counts.
    pub(super) fn end(&self, why: &'static str) {
        let _ = self.why.set(why);
        self.end.cancel();
    }
}

/// Serves one edge until the link or the session ends.
pub(super) async fn serve(node: NodeName, link: Link, handle: Arc<Handle>, shared: Arc<Shared>) -> End {
    let Link { rx, mut tx, peer } = link;
    // Its certificates and headers have done their work; thousands of idle sessions need not hold them.
    drop(peer);
    let reader = Reader { node: &node, handle: &handle, shared: &shared, alive: Instant::now() };
    let end = {
        let writer = Writer::new(&handle.pool, &shared, &mut *tx);
        tokio::select! {
            end = reader.run(rx) => end,
            end = writer.run() => end,
            () = handle.end.cancelled() => End::Told(handle.why.get().copied().unwrap_or("told to end")),
        }
    };
    // An edge that does not read must not hold up the end.
    let _ = tokio::time::timeout(Duration::from_secs(2), tx.close()).await;
    end
}

struct Reader<'a> {
    node: &'a NodeName,
    handle: &'a Handle,
    shared: &'a Shared,
    alive: Instant,
}

impl Reader<'_> {
    async fn run(mut self, mut rx: BoxStream<'static, Result<Frame, TransportError>>) -> End {
        let mut work = InWork::new(&self.shared.shares, self.shared.per_node);
        loop {
            let (full, rest) = (work.is_full(), work.rests_until());
            let listens = !full && rest.is_none();
            let before = Instant::now();
            let silent = self.alive + self.shared.times.keepalive;
            tokio::select! {
                // In this order: a keepalive that waits to be read must be seen before the silence is.
                biased;
                answer = work.next() => {
                    // A module that is done without an answer drops its end.
                    // One for which there is no room ends the session, and with it the edge's request.
                    if let Some(answer) = answer {
                        let _ = deliver(self.node, self.handle, &mut Heads::default(), answer);
                    }
                }
                frame = rx.next(), if listens => {
                    let mut next = Some(frame);
                    // What has come meanwhile is taken with it.
                    for _ in 0..READS {
                        let Some(frame) = next else { break };
                        if let Err(end) = self.read(frame, &mut work).await { return end }
                        next = if work.listens() { rx.next().now_or_never() } else { None };
                    }
                }
                () = tokio::time::sleep_until(rest.unwrap_or(silent)), if !full => {
                    if listens {
                        return End::Silent(self.shared.times.keepalive);
                    }
                }
            }
            if !listens {
                // Silence counts while we listen only: an API server that is slow must not cost the node its session.
                self.alive += before.elapsed();
            }
        }
    }

    async fn read(
        &mut self,
        frame: Option<Result<Frame, TransportError>>,
        work: &mut InWork<'_>,
    ) -> Result<(), End> {
        let message = self.shared.codec.decode(frame.ok_or(End::Closed)??)?;
        work.has_read();
        self.take(message, work).await;
        Ok(())
    }

    async fn take(&mut self, message: Message, work: &mut InWork<'_>) {
        let node = self.node;
        match upstream::route(node, message) {
            Upstream::Keepalive => self.alive = Instant::now(),
            Upstream::Ack(parent) => {
                if let Some(parent) = parent {
                    self.handle.pool.acked(&parent);
                }
            }
            Upstream::EdgeError(message) => {
                if let Some(unsaid) = self.shared.complaints.line(node.as_str()) {
                    let resource = shown(message.route.resource.as_str());
                    tracing::warn!(%node, %resource, why = ?message.content, unsaid, "the edge reports an error");
                }
            }
            Upstream::Control(message) => self.plain(upstream::control_answer(&message)),
            Upstream::ClusterCa(message) => self.plain(cluster_ca(&message, &self.shared.cluster_ca)),
            Upstream::Ignored(what, message) => {
                tracing::debug!(%node, resource = %shown(message.route.resource.as_str()), what, "ignored a message");
            }
            Upstream::OfAnother(named) => {
                if let Some(unsaid) = self.shared.complaints.line(node.as_str()) {
                    tracing::warn!(%node, named = %shown(&named), unsaid, "refused a message of a node that names another");
                }
            }
            Upstream::Tasks(message) => {
                let before = Instant::now();
                self.shared.bus.publish(&Group::TASK_MANAGER, message).await;
                self.alive += before.elapsed();
            }
            Upstream::Module(module, message) => work.hand(&self.shared.bus, module, message),
        }
    }

    fn plain(&self, answer: Message) {
        if self.handle.pool.put_plain(answer) == Put::Full {
            self.handle.end(CROWDED);
        }
    }
}

fn cluster_ca(question: &Message, pem: &str) -> Message {
    Message::new(ModuleName::CLOUD_HUB, Operation::RESPONSE, "k8s/ca.crt")
        .in_group(Group::RESOURCE)
        .answering(question.header.id.clone())
        .with(Content::text(pem))
}

/// Puts a message for the node into its session's pool, or leaves it to the reconciliation; says why it can do neither.
pub(super) fn deliver(
    node: &NodeName,
    handle: &Handle,
    heads: &mut Heads,
    message: Message,
) -> Result<(), &'static str> {
    let records = &handle.records;
    let put = match Delivery::of(node, message, heads, |key| handle.pool.record_of(key)) {
        Delivery::Plain(message) => handle.pool.put_plain(*message),
        Delivery::Acked(offer) => {
            let (record, wants_record) = (offer.record.clone(), !offer.is_deletion());
            let put = handle.pool.put(*offer, |record| records.known(record));
            if put == Put::Full {
                tracing::warn!(%node, record = %record.name, "too much waits for the edge, left to reconciliation");
                if wants_record && records.known(&record) == Known::Missing {
                    records.ensure_later(record);
                }
                return Ok(());
            }
            put
        }
        Delivery::Nothing(why) => {
            tracing::warn!(%node, why, "dropped a message to a node");
            return Err(why);
        }
    };
    if put == Put::Full {
        handle.end(CROWDED);
        return Err(CROWDED);
    }
    Ok(())
}

/// What the writer waits for beside the link: a record that is made, or not.
type Recorded = (Flight, bool);

struct Writer<'a> {
    pool: &'a Pool,
    shared: &'a Shared,
    tx: &'a mut dyn FrameSink,
    /// Written, not confirmed: how often, and when next.
    flying: HashMap<Key, (Flight, u32, Instant)>,
    /// Failed, to be queued again at a time.
    resting: BTreeMap<(Instant, u64), Key>,
    rested: u64,
    jobs: FuturesUnordered<BoxFuture<'a, Recorded>>,
    requeues: Rate,
    pushes: Rate,
    /// When the present round of writing began.
    now: Instant,
    /// Whether something was written and not pushed out yet.
    unflushed: bool,
}

impl<'a> Writer<'a> {
    fn new(pool: &'a Pool, shared: &'a Shared, tx: &'a mut dyn FrameSink) -> Self {
        let (flying, resting) = (HashMap::new(), BTreeMap::new());
        Self {
            pool,
            shared,
            tx,
            flying,
            resting,
            rested: 0,
            jobs: FuturesUnordered::new(),
            requeues: Rate::new(REQUEUES_PER_SECOND, REQUEUES_AT_ONCE),
            pushes: Rate::new(PUSHES_PER_SECOND, PUSHES_AT_ONCE),
            now: Instant::now(),
            unflushed: false,
        }
    }

    async fn run(mut self) -> End {
        let mut more = true;
        loop {
            if more || self.rests_until().is_none() {
                more = match self.write_and_push().await {
                    Ok(more) => more,
                    Err(end) => return end,
                };
            }
            let rest = self.rests_until().filter(|_| !more);
            let next = rest.unwrap_or_else(|| self.next_deadline());
            tokio::select! {
                // In this order: jobs that are done are seen however much there is to write.
                biased;
                Some(done) = self.jobs.next() => {
                    if let Err(end) = self.job_done(done).await { return end }
                }
                () = std::future::ready(()), if more => {}
                () = self.pool.changed(), if rest.is_none() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// When the next push may be; `None` for now. Nobody who asks one thing after the other is held up: where nothing is on
    /// its way, nothing is worth waiting for.
    fn rests_until(&self) -> Option<Instant> {
        let free = self.pushes.free_at();
        (!self.flying.is_empty() && free > Instant::now()).then_some(free)
    }

    /// Writes what is due, and pushes it out together. Says whether there may be more.
    async fn write_and_push(&mut self) -> Result<bool, End> {
        let more = self.write_what_is_due().await?;
        self.flush().await?;
        Ok(more)
    }

    /// Says whether there may be more to write.
    async fn write_what_is_due(&mut self) -> Result<bool, End> {
        self.now = Instant::now();
        self.resend().await?;
        while self.resting.first_key_value().is_some_and(|((at, _), _)| *at <= self.now) {
            if let Some((_, key)) = self.resting.pop_first() {
                self.pool.requeue(&key);
            }
        }
        for _ in 0..WRITES {
            self.confirm_acked();
            match self.pool.next(self.flying.len() + self.jobs.len(), self.shared.window) {
                None => return Ok(false),
                Some(Next::Plain(message)) => self.write(&message).await?,
                Some(Next::Object(flight)) if flight.waits_for_record() => self.record(flight),
                Some(Next::Object(flight)) => self.launch(flight).await?,
            }
        }
        Ok(true)
    }

    fn confirm_acked(&mut self) {
        while let Some(key) = self.pool.next_acked() {
            if let Some((flight, ..)) = self.flying.remove(&key) {
                self.confirm(&flight);
                self.pool.landed(&flight);
            }
        }
    }

    /// Makes the record of an object, or takes back what it says; the object goes when that is done.
    fn record(&mut self, flight: Flight) {
        let records = &self.shared.records;
        self.jobs.push(
            async move {
                if flight.withdraws {
                    records.withdraw(&flight.record).await;
                    return (flight, true);
                }
                let made = records.ensure(&flight.record).await;
                if let Err(status) = &made {
                    tracing::warn!(record = %flight.record.name, error = %status, "cannot make a sync record");
                }
                (flight, made.is_ok())
            }
            .boxed(),
        );
    }

    async fn job_done(&mut self, (flight, made): Recorded) -> Result<(), End> {
        self.now = Instant::now();
        if !made {
            self.rest(&flight);
            return Ok(());
        }
        self.pool.record_made(&flight.key);
        self.launch(flight).await
    }

    async fn launch(&mut self, flight: Flight) -> Result<(), End> {
        self.write(&flight.message).await?;
        let next = self.now + self.shared.times.resend;
        self.flying.insert(flight.key.clone(), (flight, 1, next));
        Ok(())
    }

    /// Writes again what was not confirmed in time; after the last time the object rests and others go first.
    async fn resend(&mut self) -> Result<(), End> {
        let now = self.now;
        let due: Vec<Key> =
            self.flying.iter().filter(|(_, (.., at))| *at <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            let Some((flight, sent, _)) = self.flying.remove(&key) else { continue };
            if self.pool.superseded(&flight) {
                self.pool.failed(&flight);
                self.pool.requeue(&key);
            } else if sent >= self.shared.times.sends {
                tracing::warn!(record = %flight.record.name, sent, "not confirmed by the edge, trying again later");
                self.rest(&flight);
            } else {
                self.write(&flight.message).await?;
                self.flying.insert(key, (flight, sent + 1, now + self.shared.times.resend));
            }
        }
        Ok(())
    }

    /// The confirmation becomes the record's version; a deleted object's record goes, unless the object comes back.
    fn confirm(&self, flight: &Flight) {
        let route = &flight.message.route;
        let confirmed = match &flight.message.header.resource_version {
            _ if route.group == Group::TWIN => return,
            _ if route.operation == Operation::DELETE && self.pool.superseded(flight) => return,
            _ if route.operation == Operation::DELETE => Confirmed::Gone,
            Some(version) => Confirmed::At(version.clone()),
            None => return,
        };
        self.shared.records.confirm(&flight.record, confirmed);
    }

    fn rest(&mut self, flight: &Flight) {
        let failures = self.pool.failed(flight);
        let doubled = Duration::from_millis(5).saturating_mul(1 << failures.min(18));
        let at = (Instant::now() + doubled.min(Duration::from_secs(1000))).max(self.requeues.free_at());
        self.requeues.spend();
        self.rested += 1;
        self.resting.insert((at, self.rested), flight.key.clone());
    }

    fn next_deadline(&self) -> Instant {
        let flying = self.flying.values().map(|(.., at)| *at).min();
        let resting = self.resting.keys().next().map(|(at, _)| *at);
        let idle = Instant::now() + Duration::from_secs(3600);
        flying.into_iter().chain(resting).min().unwrap_or(idle)
    }

    async fn write(&mut self, message: &Message) -> Result<(), End> {
        let frame = match self.shared.codec.encode(message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(resource = %message.route.resource, error = %error, "a message cannot be sent");
                return Ok(());
            }
        };
        self.unflushed = true;
        match in_time(self.shared.times.write, self.tx.feed(frame)).await {
            Err(End::Link(error)) if error.kind() == TransportKind::TooLarge => {
                tracing::error!(resource = %message.route.resource, error = %error, "a message cannot be sent");
                Ok(())
            }
            written => written,
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if !std::mem::take(&mut self.unflushed) {
            return Ok(());
        }
        self.pushes.spend();
        in_time(self.shared.times.write, self.tx.flush()).await
    }
}

/// What the link does, which is done at once unless the edge does not read.
async fn in_time(
    limit: Duration,
    doing: impl Future<Output = Result<(), TransportError>>,
) -> Result<(), End> {
    let mut doing = std::pin::pin!(doing);
    let done = match doing.as_mut().now_or_never() {
        Some(done) => done,
        None => tokio::time::timeout(limit, doing).await.map_err(|_| End::Stuck(limit))?,
    };
    done.map_err(End::Link)
}
