//! The doors of listeners that speak a handshake with whoever comes.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_common::{
    lobby::{Lobby, LobbyLimits},
    log::{Seldom, shown},
};
use kubeedge_core::{
    failure::{BoxError, Failure},
    transport::{Endpoint, Incoming, Listener, TransportError, TransportKind},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinSet},
    time::{Instant, error::Elapsed},
};

/// How many peers may wait for a decision.
const WAITING: usize = 64;
/// How long a handshake is left alone while others wait for its place.
const UNDISTURBED: Duration = Duration::from_secs(2);

/// Who comes to a door, and what is done with them.
pub(crate) trait Arrivals: Send + 'static {
    /// Somebody who has said next to nothing yet.
    type Guest: Send + 'static;
    /// Somebody who has passed the handshake.
    type Knock: Incoming + 'static;
    /// Whether those of a single address, when there are too many of them, are better left where they are.
    /// Otherwise all are looked at, and the newest of them are forgotten.
    const WAIT_OUTSIDE: bool;

    /// Who comes next; `None` when nobody comes any more. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Option<(Self::Guest, SocketAddr)>> + Send;

    /// Looks at whoever has come: `None` sends them away. `busy`: more than half of the places are taken.
    fn receive(&self, guest: Self::Guest, busy: bool) -> Option<Self::Guest> {
        let _ = busy;
        Some(guest)
    }

    /// There is no room for this one.
    fn forget(guest: Self::Guest) {
        drop(guest);
    }

    /// The handshake.
    fn shake(
        &self,
        guest: Self::Guest,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Self::Knock, BoxError>> + Send + 'static;
}

/// How much a door does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoorLimits {
    /// How long a handshake may take.
    pub(crate) handshake: Duration,
    /// How many are carried out at once, and how many wait.
    pub(crate) handshakes: usize,
    /// Of those that are carried out, those of one address.
    pub(crate) of_one: usize,
}

/// A listening socket. Handshakes go on beside each other; dropping it stops them.
pub(crate) struct Door<K> {
    local: SocketAddr,
    knocks: mpsc::Receiver<K>,
    _accepting: JoinSet<()>,
}

impl<K: Incoming + 'static> Door<K> {
    pub(crate) fn open<A: Arrivals<Knock = K>>(local: SocketAddr, arrivals: A, limits: DoorLimits) -> Self {
        let (tx, knocks) = mpsc::channel(WAITING);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(Handshakes::new(arrivals, limits), tx));
        Self { local, knocks, _accepting: accepting }
    }
}

#[async_trait]
impl<K: Incoming + 'static> Listener for Door<K> {
    fn local(&self) -> Endpoint {
        self.local.into()
    }

    async fn next(&mut self) -> Result<Box<dyn Incoming>, TransportError> {
        let knock = self.knocks.recv().await;
        let knock = knock
            .ok_or_else(|| Failure::new(TransportKind::Closed, "listening").on(self.local.to_string()))?;
        Ok(Box::new(knock))
    }
}

/// Carries out handshakes and hands on who has passed, as fast as they are taken.
async fn accept<A: Arrivals>(mut handshakes: Handshakes<A>, knocks: mpsc::Sender<A::Knock>) {
    loop {
        handshakes.begin();
        let overdue = handshakes.lobby.overdue();
        let when = overdue.map_or_else(Instant::now, |(when, _)| when);
        let open = !A::WAIT_OUTSIDE || handshakes.lobby.has_room();
        tokio::select! {
            arrived = handshakes.arrivals.next(), if open => match arrived {
                Some((guest, address)) => handshakes.enter(guest, address),
                None => return,
            },
            Some(done) = handshakes.tasks.join_next_with_id() => match done {
                Ok((task, shaken)) => handshakes.done(task, shaken),
                // Ended for others, or by a panic.
                Err(error) => handshakes.end(error.id(), "others wait, and nothing came"),
            },
            () = tokio::time::sleep_until(when), if overdue.is_some() => if let Some((_, task)) = overdue {
                handshakes.end(task, "others wait, and nothing came");
            },
            permit = knocks.reserve(), if !handshakes.passed.is_empty() => {
                match (permit, handshakes.passed.pop_front()) {
                    (Ok(permit), Some(knock)) => permit.send(knock),
                    // A listener that has gone wants no more peers.
                    _ => return,
                }
            },
        }
    }
}

type Shaken<K> = Result<Result<K, BoxError>, Elapsed>;

/// Handshakes, those who wait for one, and those who have passed and wait to be taken.
struct Handshakes<A: Arrivals> {
    arrivals: A,
    limits: DoorLimits,
    lobby: Lobby<A::Guest, Id>,
    tasks: JoinSet<Shaken<A::Knock>>,
    running: HashMap<Id, (AbortHandle, SocketAddr)>,
    passed: VecDeque<A::Knock>,
    failures: Seldom,
}

impl<A: Arrivals> Handshakes<A> {
    fn new(arrivals: A, limits: DoorLimits) -> Self {
        let lobby = Lobby::new(LobbyLimits {
            places: limits.handshakes,
            of_one: limits.of_one,
            waiting: limits.handshakes,
            undisturbed: UNDISTURBED,
        });
        let (tasks, running, passed) = (JoinSet::new(), HashMap::new(), VecDeque::new());
        Self { arrivals, limits, lobby, tasks, running, passed, failures: Seldom::default() }
    }

    fn enter(&mut self, guest: A::Guest, address: SocketAddr) {
        let busy = self.running.len() > self.limits.handshakes / 2;
        let Some(guest) = self.arrivals.receive(guest, busy) else { return };
        if let Some((guest, address)) = self.lobby.enter(guest, address) {
            A::forget(guest);
            self.failed(address, "too many of its address wait");
        }
    }

    /// Begins as many as may.
    fn begin(&mut self) {
        while self.passed.len() < WAITING
            && let Some((guest, address)) = self.lobby.admit()
        {
            let shaking = self.arrivals.shake(guest, address);
            let task = self.tasks.spawn(tokio::time::timeout(self.limits.handshake, shaking));
            self.lobby.begin(task.id(), address);
            self.running.insert(task.id(), (task, address));
        }
    }

    fn done(&mut self, task: Id, shaken: Shaken<A::Knock>) {
        match shaken {
            Ok(Ok(knock)) => self.passed.push_back(knock),
            Ok(Err(error)) => return self.end(task, &error.to_string()),
            Err(_) => return self.end(task, "it took too long"),
        }
        self.lobby.done(task);
        self.running.remove(&task);
    }

    fn end(&mut self, task: Id, why: &str) {
        self.lobby.done(task);
        if let Some((running, address)) = self.running.remove(&task) {
            running.abort();
            self.failed(address, why);
        }
    }

    /// A line, one a second for each address.
    fn failed(&self, address: SocketAddr, why: &str) {
        if let Some(unsaid) = self.failures.line(&address.ip().to_string()) {
            tracing::info!(%address, error = %shown(why), unsaid, "a peer failed its handshake");
        }
    }
}
