//! Asking edges of ours what they have, and believing them; see [`kubeedge_common::digest`].
//!
//! What an edge says is the truth about the edge, and only about it:
//!
//! | record | the edge has | then |
//! |---|---|---|
//! | says more | less, or nothing | the record is set back to that, and reconciliation sends the object |
//! | says less, or nothing | a version | the record says so from now on; nothing is sent |
//! | there is none | an object of the cluster that belongs on the node | a record is made; nothing is sent |
//! | there is none | anything else | the edge is told that it is gone, once two comparisons have found so |
//!
//! Twice, as this cloudcore may hear of what another has sent to the edge a little later than the edge.
//!
//! A record is written only if nobody has written it since it was compared, be it the session or another
//! cloudcore, and not at all when the session has had to do with the object: what is under way is told by its
//! confirmation. So a comparison can be repeated or broken off at any point. An edge cannot get hold of an
//! object by claiming to have it: a record is made for what its pods refer to and for its own devices only.
//!
//! Devices that DeviceTwin knows are compared in the same tree, so that only those that came or went are
//! announced.

mod unrecorded;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kubeedge_common::digest::{
    Asker, Asks, Difference, Entry, KINDS, MAX_REPLY, Nonsense, RESOURCE, Reply, Step, Tree,
};
use kubeedge_core::{
    bus::{Bus, Envelope, SendError},
    clock::Clock,
    message::{
        Content, Message,
        resource::{self, ObjectPath},
    },
    name::{Group, ModuleName, NodeName, Operation},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{Duration, Instant};

use self::unrecorded::{DEVICE, Unrecorded, Verdict, informer, is_plain};
pub(super) use self::unrecorded::{Referred, references, refers};
use super::{
    SyncSettings,
    index::{Confirmed, Index},
};
use crate::{
    devices,
    hub::{
        Sessions,
        corrections::{self, Correction},
    },
    informer::{Informers, ObjectKey},
    records::Record,
};

/// How long an edge may take for one answer.
const PATIENCE: Duration = Duration::from_secs(90);
/// The pause after a comparison that could not be finished, in passes of the controller.
const PAUSE: u32 = 2;
/// Comparisons that are begun in one session.
const TRIES: u32 = 3;
/// Objects without record, and devices, that are acted on after one comparison. The rest is for the next.
const MOST_UNRECORDED: usize = 20_000;

/// The comparison with one node in one session.
#[derive(Debug)]
struct Exchange {
    session: u64,
    state: State,
    since: Instant,
    tries: u32,
    /// What the last comparison has found at the edge and nowhere else, by key.
    suspects: HashSet<String>,
}

#[derive(Debug)]
enum State {
    UnderWay(Box<Asker>),
    /// To be begun again.
    Unfinished,
    Done,
}

impl Exchange {
    fn is_due(&self, pass: Duration) -> bool {
        let pause = match self.state {
            State::UnderWay(_) => PATIENCE,
            State::Unfinished => pass * PAUSE,
            State::Done => return false,
        };
        self.tries < TRIES && self.since.elapsed() >= pause
    }
}

/// What came of a comparison.
struct Settled {
    /// What the edge is to be told.
    messages: Vec<Message>,
    /// Whether nothing is left for another comparison.
    decided: bool,
    suspects: HashSet<String>,
}

impl Settled {
    fn suspect(&mut self, key: String) {
        self.suspects.insert(key);
        self.decided = false;
    }
}

/// The comparisons with edges of ours. What the records say is in the [`Index`], which each takes along.
#[derive(Debug)]
pub(super) struct Comparisons {
    /// The pause between two passes of the controller.
    every: Duration,
    clock: Clock,
    random: SmallRng,
    sessions: Sessions,
    informers: Arc<Informers>,
    exchanges: HashMap<NodeName, Exchange>,
}

impl Comparisons {
    /// None yet. Salts go by the clock and the seed.
    pub(super) fn new(
        settings: SyncSettings,
        clock: Clock,
        sessions: Sessions,
        informers: Arc<Informers>,
    ) -> Self {
        let SyncSettings { every, seed } = settings;
        let (random, exchanges) = (SmallRng::seed_from_u64(seed), HashMap::new());
        Self { every, clock, random, sessions, informers, exchanges }
    }

    /// Whether the node's edge is to answer yet.
    pub(super) fn is_under_way(&self, node: &NodeName) -> bool {
        let exchange = self.exchanges.get(node);
        exchange.is_some_and(|exchange| matches!(exchange.state, State::UnderWay(_)))
    }

    /// Begins to compare a node's records with what the edge has, if it is one of ours and that is due.
    pub(super) async fn open(&mut self, index: &Index, node: &NodeName, bus: &Bus) -> Result<(), SendError> {
        let Some(session) = corrections::session_of_ours(&self.sessions, node) else { return Ok(()) };
        let earlier = self.exchanges.get_mut(node).filter(|exchange| exchange.session == session);
        let (tries, suspects) = match earlier {
            Some(exchange) if !exchange.is_due(self.every) => return Ok(()),
            Some(exchange) => (exchange.tries, std::mem::take(&mut exchange.suspects)),
            None => (0, HashSet::new()),
        };
        // Not the same again after a restart, whatever the seed is.
        let salt = self.random.random::<u64>() ^ self.clock.now().0.unsigned_abs();
        let asker = Box::new(Asker::new(Tree::new(salt, believed(index, node))));
        let content = Content::json(&asker.opening()).unwrap_or_default();
        let (state, since) = (State::UnderWay(asker), Instant::now());
        let exchange = Exchange { session, state, since, tries: tries + 1, suspects };
        self.exchanges.insert(node.clone(), exchange);
        let path = resource::for_node(node, &RESOURCE.into());
        let opening = Message::new(ModuleName::SYNC_CONTROLLER, Operation::GET, path);
        bus.send(&ModuleName::CLOUD_HUB, opening.in_group(Group::RESOURCE).with(content)).await
    }

    /// A record says by now that the node has this object. If its session knows nothing of that, an earlier
    /// one does, whose edge may have had another disk: it is asked once more.
    pub(super) fn doubt(&mut self, node: &NodeName, uid: &str) {
        let Some(exchange) = self.exchanges.get_mut(node) else { return };
        if matches!(exchange.state, State::Done)
            && corrections::leaves_alone(&self.sessions, node, exchange.session, uid)
        {
            (exchange.state, exchange.since) = (State::Unfinished, Instant::now());
        }
    }

    /// Forgets comparisons whose sessions have ended.
    pub(super) fn forget_ended(&mut self) {
        let Self { exchanges, sessions, .. } = self;
        exchanges
            .retain(|node, exchange| corrections::session_of_ours(sessions, node) == Some(exchange.session));
    }

    /// Takes an edge's answer, and tells it what to say next.
    pub(super) async fn answered(
        &mut self,
        index: &mut Index,
        node: &NodeName,
        envelope: Envelope,
        bus: &Bus,
    ) -> Result<(), SendError> {
        let step = self.step(node, &envelope.message);
        let asks = match &step {
            Some(Ok(Step::Ask(asks))) => asks.clone(),
            _ => Asks::default(),
        };
        let is_over = matches!(step, Some(Ok(Step::Done) | Err(_)));
        envelope.answer(Content::json(&asks).unwrap_or_default());
        let Some(exchange) = self.exchanges.get_mut(node).filter(|_| is_over) else { return Ok(()) };
        let State::UnderWay(asker) = std::mem::replace(&mut exchange.state, State::Unfinished) else {
            return Ok(());
        };
        let (session, suspects) = (exchange.session, std::mem::take(&mut exchange.suspects));
        let Settled { messages, decided, suspects } =
            self.settle(index, node, session, asker.found(), &suspects);
        if let Some(exchange) = self.exchanges.get_mut(node) {
            exchange.suspects = suspects;
            if decided && matches!(step, Some(Ok(_))) {
                exchange.state = State::Done;
            }
        }
        for message in messages {
            bus.send(&ModuleName::CLOUD_HUB, message).await?;
        }
        Ok(())
    }

    /// `None` when the answer is to nothing that is under way.
    fn step(&mut self, node: &NodeName, message: &Message) -> Option<Result<Step, Nonsense>> {
        let exchange = self.exchanges.get_mut(node)?;
        let State::UnderWay(asker) = &mut exchange.state else { return None };
        exchange.since = Instant::now();
        let content = &message.content;
        let reply = Some(content).filter(|content| content.as_json().len() <= MAX_REPLY);
        let step = match reply.and_then(|content| content.decode::<Reply>().ok()) {
            Some(reply) => asker.take(reply),
            None => Err(Nonsense::Malformed),
        };
        match step {
            // To an earlier comparison.
            Err(Nonsense::Another) => None,
            Err(why) => {
                tracing::warn!(%node, %why, "gave up comparing what an edge has with its records");
                Some(Err(why))
            }
            step => Some(step),
        }
    }

    /// Acts on differences. What is nowhere but at the edge is gone if it was suspected before.
    fn settle(
        &self,
        index: &mut Index,
        node: &NodeName,
        session: u64,
        found: Vec<Difference>,
        suspected: &HashSet<String>,
    ) -> Settled {
        if !found.is_empty() {
            tracing::info!(%node, differences = found.len(), "the edge has not what its records say");
        }
        let (mut unrecorded, mut members) = (Vec::new(), Vec::new());
        let mut settled = Settled { messages: Vec::new(), decided: true, suspects: HashSet::new() };
        for Difference { ours, theirs } in found {
            let Some(entry) = ours.as_ref().or(theirs.as_ref()) else { continue };
            if entry.path.is_empty() {
                members.push((entry.key.clone(), ours.is_some()));
                continue;
            }
            let Some(path) = ObjectPath::parse(&entry.path).filter(is_plain) else { continue };
            match (index.one(node, path.namespace, &entry.key), theirs) {
                (Some(confirmed), theirs) => {
                    let corrected = self.correct(node, session, confirmed, ours.as_ref(), theirs.as_ref());
                    settled.decided &= corrected;
                }
                (None, Some(theirs)) if ours.is_none() => unrecorded.push(theirs),
                // Its record is gone by now.
                (None, _) => {}
            }
        }
        unrecorded.truncate(MOST_UNRECORDED);
        members.truncate(MOST_UNRECORDED);
        let unrecorded = unrecorded.into_iter();
        let unrecorded: Vec<_> =
            unrecorded.filter_map(|entry| Unrecorded::of(index, &self.informers, node, entry)).collect();
        let all_refer = unrecorded.iter().all(|object| refers(object.kind.0));
        let referred = if all_refer {
            Referred::default()
        } else {
            Referred::by(index, &self.informers, node, &unrecorded)
        };
        for object in unrecorded {
            match object.verdict(&self.sessions, node, session, &referred) {
                Verdict::Settled => {}
                Verdict::Open => settled.decided = false,
                Verdict::Gone if suspected.contains(&object.uid) => settled.messages.push(object.end(node)),
                Verdict::Gone => settled.suspect(object.uid),
            }
        }
        self.announce(index, node, &members, suspected, &mut settled);
        settled
    }

    /// Makes a record say what the edge has; false when it has changed since it was compared, or is about to.
    fn correct(
        &self,
        node: &NodeName,
        session: u64,
        confirmed: &Confirmed,
        ours: Option<&Entry>,
        theirs: Option<&Entry>,
    ) -> bool {
        if confirmed.version.unwrap_or_default() != ours.map_or(0, |entry| entry.version) {
            return false;
        }
        // With what it takes to make it again, should somebody remove it meanwhile.
        let mut record = Record::new(node, &confirmed.key.namespace, &confirmed.uid);
        let kind = confirmed.informer.kind();
        (record.api_version, record.kind) = (kind.api_version.clone(), kind.kind.clone());
        record.object.clone_from(&confirmed.key.name);
        let (uid, version) = (confirmed.uid.clone(), theirs.map_or(0, |entry| entry.version));
        let at = Some(confirmed.own.clone());
        corrections::correct(&self.sessions, node, session, Correction { record, uid, version, at })
    }

    /// Tells DeviceTwin of devices it does not know, and of those that are not on the node; each with whether
    /// it should know it.
    fn announce(
        &self,
        index: &mut Index,
        node: &NodeName,
        members: &[(String, bool)],
        suspected: &HashSet<String>,
        settled: &mut Settled,
    ) {
        let Some(devices) = informer(index, &self.informers, DEVICE) else { return };
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for (id, expected) in members {
            let Some((namespace, name)) = id.split_once('/') else { continue };
            let key = ObjectKey::new(namespace, name);
            let device = devices.get(&key).filter(|device| devices::model_on(device, node).is_some());
            match device {
                Some(device) if *expected => added.push(device),
                None if !expected && !devices.is_ready() => settled.decided = false,
                None if !expected && suspected.contains(id) => removed.push(key),
                None if !expected => settled.suspect(id.clone()),
                _ => {}
            }
        }
        if !added.is_empty() || !removed.is_empty() {
            settled.messages.push(devices::members_changed(node, &added, &removed, self.clock.now()));
        }
    }
}

/// What the records say the edge has, and the devices it should know.
fn believed(index: &Index, node: &NodeName) -> impl Iterator<Item = Entry> {
    let compared = index.of(node).filter(|confirmed| KINDS.contains(&confirmed.kind.as_str()));
    let confirmed = compared.filter(|confirmed| confirmed.version.is_some_and(|version| version > 0));
    confirmed.flat_map(|confirmed| {
        let Confirmed { uid, kind, informer, key, version, .. } = confirmed;
        let known = kind == "device" && informer.get(key).is_some_and(|device| device.uid == *uid);
        let member = known.then(|| Entry {
            key: format!("{}/{}", key.namespace, key.name),
            version: 1,
            path: String::new(),
        });
        let path = resource::object(&key.namespace, kind, &key.name).as_str().to_owned();
        let object = Entry { key: uid.clone(), version: version.unwrap_or_default(), path };
        [Some(object), member].into_iter().flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::{unrecorded::COMPARED, *};

    #[test]
    fn every_kind_an_edge_compares_is_known() {
        assert_eq!(COMPARED.map(|kind| kind.0), KINDS);
    }
}
