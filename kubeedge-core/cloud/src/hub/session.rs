//! One edge's session: a reader and a writer over one link, and the watchdog.

pub(super) mod intake;
mod writer;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use kubeedge_common::log::{Seldom, shown};
use kubeedge_core::{
    bus::Bus,
    message::{Content, Message},
    name::{Group, ModuleName, NodeName, Operation},
    transport::{Frame, Link, TransportError},
    wire::{Codec, CodecError},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{intake::OfAnother, writer::Writer};
use super::{
    HubTimes,
    delivery::Delivery,
    modules::Modules,
    pool::{Pool, Put},
    shares::{InWork, NodeLimits, Shares},
    upstream::{self, Upstream},
};
use crate::records::Records;

/// Messages read in a row before answers and clocks are looked at.
const READS: usize = 64;
/// How often an edge that is not read hears a word of us, in the time after which we hold an edge for dead.
const WORDS: u32 = 3;
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
    pub(super) modules: Arc<Modules>,
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
    let Link { rx, mut tx, peer, .. } = link;
    // Its certificates and headers have done their work; thousands of idle sessions need not hold them.
    drop(peer);
    let reader =
        Reader { node: &node, handle: &handle, shared: &shared, alive: Instant::now(), unread: None };
    let end = {
        let mut writer = Writer::new(&handle.pool, &shared, &mut *tx);
        let end = tokio::select! {
            end = reader.run(rx) => end,
            end = writer.run() => end,
            () = handle.end.cancelled() => End::Told(handle.why.get().copied().unwrap_or("told to end")),
        };
        writer.confirm_acked();
        end
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
    /// Since when the edge is not read, or when it was told last that this is why nobody answers its pings.
    unread: Option<Instant>,
}

impl Reader<'_> {
    async fn run(mut self, mut rx: BoxStream<'static, Result<Frame, TransportError>>) -> End {
        let mut work = InWork::new(&self.shared.shares, self.shared.per_node);
        loop {
            let (full, rest) = (work.is_full(), work.rests_until());
            let listens = !full && rest.is_none();
            let before = Instant::now();
            let until = self.wakes(listens, before, rest);
            tokio::select! {
                // In this order: a keepalive that waits to be read must be seen before the silence is.
                biased;
                answer = work.next() => {
                    // A module that is done without an answer drops its end.
                    // One for which there is no room ends the session, and with it the edge's request.
                    if let Some(answer) = answer {
                        let _ = deliver(self.node, self.handle, answer);
                    }
                }
                frame = rx.next(), if listens => {
                    if let Err(end) = self.read(frame, &mut work).await { return end }
                    // What has come meanwhile is taken with it.
                    for _ in 1..READS {
                        if !work.listens() { break }
                        let Some(frame) = rx.next().now_or_never() else { break };
                        if let Err(end) = self.read(frame, &mut work).await { return end }
                    }
                }
                () = tokio::time::sleep_until(until) => {
                    if listens {
                        return End::Silent(self.shared.times.keepalive);
                    }
                    self.say_a_word();
                }
            }
            if !listens {
                // Silence counts while we listen only: an API server that is slow must not cost the node its
                // session.
                self.alive += before.elapsed();
            }
        }
    }

    /// When there is something to do though nothing comes.
    fn wakes(&mut self, listens: bool, now: Instant, rest: Option<Instant>) -> Instant {
        let keepalive = self.shared.times.keepalive;
        if listens {
            self.unread = None;
            return self.alive + keepalive;
        }
        let word = *self.unread.get_or_insert(now) + keepalive / WORDS;
        rest.map_or(word, |rest| rest.min(word))
    }

    /// An edge of ours holds a cloud for dead that says nothing and answers no pings, as one does that does
    /// not read.
    fn say_a_word(&mut self) {
        let now = Instant::now();
        let is_due = self.unread.is_some_and(|since| since + self.shared.times.keepalive / WORDS <= now);
        if is_due && self.handle.ours {
            self.unread = Some(now);
            self.plain(upstream::word());
        }
    }

    async fn read(
        &mut self,
        frame: Option<Result<Frame, TransportError>>,
        work: &mut InWork<'_>,
    ) -> Result<(), End> {
        let frame = intake::limits(frame, work)?;
        let message = intake::decode(&*self.shared.codec, frame)?;
        match intake::authorize(self.node, message) {
            Ok(message) => self.take(upstream::route(self.node, message), work).await,
            Err(OfAnother { named }) => {
                if let Some(unsaid) = self.shared.complaints.line(self.node.as_str()) {
                    let (node, named) = (self.node, shown(&named));
                    tracing::warn!(%node, %named, unsaid, "refused a message of a node that names another");
                }
            }
        }
        Ok(())
    }

    /// Does what is to be done on a route.
    async fn take(&mut self, route: Upstream, work: &mut InWork<'_>) {
        let node = self.node;
        match route {
            Upstream::Keepalive => self.alive = Instant::now(),
            Upstream::Ack(parent) => {
                if let Some(parent) = parent {
                    self.handle.pool.acked(&parent);
                }
            }
            Upstream::Vendors(message) => {
                if let Some(answer) = self.shared.modules.take(node, message)
                    && self.handle.pool.has_room_for_modules()
                {
                    self.handle.pool.put_of_module(answer);
                }
            }
            Upstream::EdgeError(message) => {
                // A Go edge's error has no group.
                let Some(message) = self.shared.modules.claim(node, message) else { return };
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

/// Puts a message for the node into its session's pool, or leaves it to the reconciliation; says why it can
/// do neither.
pub(super) fn deliver(node: &NodeName, handle: &Handle, message: Message) -> Result<(), &'static str> {
    put(node, handle, Delivery::of(node, message, |key| handle.pool.record_of(key)))
}

/// The same for a message of which it is decided how it travels.
pub(super) fn put(node: &NodeName, handle: &Handle, delivery: Delivery) -> Result<(), &'static str> {
    let records = &handle.records;
    let put = match delivery {
        Delivery::Plain(message) => handle.pool.put_plain(*message),
        Delivery::Acked(offer) => {
            let (record, wants_record) = (offer.record.clone(), !offer.is_deletion());
            let put = handle.pool.put(offer, |record| records.known(record));
            if put == Put::Full {
                tracing::warn!(%node, record = %record.name, "too much waits for the edge, left to reconciliation");
                if wants_record && records.is_missing(&record) {
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
