//! Two ways to the same place: the better one, and one that is always open.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use kubeedge_core::{
    backoff::Backoff,
    failure::{Failure, chain},
    transport::{Credentials, Endpoint, Limits, Link, Listener, Transport, TransportError, TransportKind},
};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

/// How a [`Fallback`] chooses.
#[derive(Clone, Copy, Debug)]
pub struct FallbackSettings {
    /// How long the first way may take to make a link; it may give up sooner by itself.
    pub patience: Duration,
    /// How long the first way rests after it failed; doubles with every failure that follows.
    pub rest: Duration,
    /// The longest rest.
    pub longest_rest: Duration,
    /// A link over the first way that lasts no longer than this counts as a failure too.
    pub settled: Duration,
    /// Where random numbers start: the rests of many nodes are not the same.
    pub seed: u64,
}

impl Default for FallbackSettings {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(5),
            rest: Duration::from_secs(60),
            longest_rest: Duration::from_secs(30 * 60),
            settled: Duration::from_secs(60),
            seed: 0,
        }
    }
}

/// Dials one transport first, and a second one when that comes to nothing, as QUIC does where UDP is blocked.
/// A refusal of the first is told, as the same cloud stands behind both.
///
/// While a link over the second lasts, the first is tried again, after growing rests. Once it makes a link,
/// the link over the second ends in order, as if the peer had closed it, and the next dial gets the new one
/// at once. When neither way leads anywhere, the peer is away, and the first is not to blame.
///
/// Listens as the second does; who wants to listen as both opens two doors.
#[derive(Clone, Debug)]
pub struct Fallback {
    first: Arc<First>,
    second: Arc<dyn Transport>,
}

impl Fallback {
    /// Dials `first` at `authority` (`host:port`) with the path that is asked for, and `second` where it is
    /// told to.
    pub fn new(
        first: impl Transport,
        authority: impl Into<String>,
        second: impl Transport,
        settings: FallbackSettings,
    ) -> Self {
        let state = State {
            backoff: Backoff::new(settings.rest, settings.longest_rest, settings.seed),
            rests: None,
            made: None,
            ready: None,
        };
        let authority = authority.into();
        let first = First { transport: Box::new(first), authority, settings, state: Mutex::new(state) };
        Self { first: Arc::new(first), second: Arc::new(second) }
    }
}

#[derive(Debug)]
struct First {
    transport: Box<dyn Transport>,
    authority: String,
    settings: FallbackSettings,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    backoff: Backoff,
    /// Until when it is not tried.
    rests: Option<Instant>,
    /// When its last link was made.
    made: Option<Instant>,
    /// A link for the next dial.
    ready: Option<Ready>,
}

/// A link that was made before it was asked for, and for whom.
#[derive(Debug)]
struct Ready {
    to: Endpoint,
    chain: Vec<Bytes>,
    link: Link,
}

impl First {
    /// The link that was made ahead, if it is for this dial.
    fn ready(&self, to: &Endpoint, who: &Credentials) -> Option<Link> {
        let ready = self.state.lock().ready.take()?;
        (ready.to == *to && ready.chain == who.chain).then_some(ready.link)
    }

    fn is_due(&self) -> bool {
        let mut state = self.state.lock();
        let short = state.made.take().is_some_and(|made| made.elapsed() < self.settings.settled);
        if short {
            self.rest(&mut state, "its last link did not last");
        }
        state.rests.is_none_or(|until| until <= Instant::now())
    }

    fn rest(&self, state: &mut State, why: &str) {
        let pause = state.backoff.next_pause();
        state.rests = Some(Instant::now() + pause);
        let way = self.transport.scheme();
        tracing::warn!(way, at = %self.authority, why, again_in = ?pause, "the preferred way to the cloud is not taken");
    }

    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        let to = Endpoint::from(format!("{}{}", self.authority, to.path()));
        let dialled = tokio::time::timeout(self.settings.patience, self.transport.dial(&to, who)).await;
        let dialled =
            dialled.unwrap_or_else(|_| Err(Failure::new(TransportKind::Timeout, "dialling").on(to.0)));
        let mut state = self.state.lock();
        match &dialled {
            Ok(_) => (state.made, state.rests) = (Some(Instant::now()), None),
            Err(error) if error.kind() == TransportKind::Refused => {}
            Err(error) => self.rest(&mut state, &chain(error)),
        }
        dialled
    }

    /// Tries until there is a link, and leaves it for the next dial.
    async fn make_ready(self: Arc<Self>, to: Endpoint, who: Credentials) {
        loop {
            let until = self.state.lock().rests;
            tokio::time::sleep_until(until.unwrap_or_else(|| Instant::now() + self.settings.rest)).await;
            if let Ok(link) = self.dial(&to, &who).await {
                tracing::info!(way = self.transport.scheme(), "the preferred way to the cloud is open");
                self.state.lock().ready = Some(Ready { to, chain: who.chain, link });
                return;
            }
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transport for Fallback {
    fn scheme(&self) -> &'static str {
        "fallback"
    }

    fn limits(&self) -> Limits {
        let (first, second) = (self.first.transport.limits(), self.second.limits());
        Limits::new(first.max_frame.min(second.max_frame))
    }

    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        let first = &self.first;
        if let Some(link) = first.ready(to, who) {
            return Ok(link);
        }
        if first.is_due() {
            match first.dial(to, who).await {
                Err(error) if error.kind() != TransportKind::Refused => {}
                decided => return decided,
            }
        }
        let dialled = self.second.dial(to, who).await;
        match dialled {
            Ok(link) => Ok(until_first(link, first.clone().make_ready(to.clone(), who.clone()))),
            Err(error) => {
                first.state.lock().rests = None;
                Err(error)
            }
        }
    }

    async fn listen(&self, on: &Endpoint, who: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        self.second.listen(on, who).await
    }
}

/// The link, ending when the work beside it is done, which ends with the link.
fn until_first(link: Link, work: impl Future<Output = ()> + Send + 'static) -> Link {
    let mut beside = JoinSet::new();
    beside.spawn(work);
    let done = async move {
        let done = beside.join_next().await;
        if !matches!(done, Some(Ok(()))) {
            std::future::pending().await
        }
    };
    // Boxed, as it is polled with every frame.
    link.with_frames(|frames| frames.take_until(Box::pin(done)).boxed())
}

#[cfg(test)]
mod tests {
    use kubeedge_core::{
        conformance::transport::{Ability, Harness},
        transport::Frame,
    };

    use super::*;
    use crate::Memory;

    /// A first way that can be switched off, refuse, or say nothing at all, and that counts.
    #[derive(Clone, Debug, Default)]
    struct Switch {
        network: Memory,
        state: Arc<Mutex<(u32, Option<TransportKind>)>>,
    }

    #[async_trait]
    #[deny(clippy::missing_trait_methods)]
    impl Transport for Switch {
        fn scheme(&self) -> &'static str {
            "switch"
        }
        fn limits(&self) -> Limits {
            self.network.limits()
        }
        async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
            let kind = {
                let mut state = self.state.lock();
                state.0 += 1;
                state.1
            };
            match kind {
                None => self.network.dial(to, who).await,
                Some(TransportKind::Timeout) => std::future::pending().await,
                Some(kind) => Err(Failure::new(kind, "dialling").on("no room for you")),
            }
        }
        async fn listen(
            &self,
            on: &Endpoint,
            who: &Credentials,
        ) -> Result<Box<dyn Listener>, TransportError> {
            self.network.listen(on, who).await
        }
    }

    impl Switch {
        fn set(&self, kind: Option<TransportKind>) {
            self.state.lock().1 = kind;
        }
        fn dials(&self) -> u32 {
            self.state.lock().0
        }
    }

    /// Both ways to one peer, which lets everybody in and says over which way they came.
    struct Place {
        first: Switch,
        second: Switch,
        both: Fallback,
        _serving: JoinSet<()>,
    }

    async fn serve(door: Result<Box<dyn Listener>, TransportError>, name: &'static str) {
        let (mut door, mut links) = (door.unwrap(), Vec::new());
        loop {
            let mut link = door.next().await.unwrap().accept().await.unwrap();
            link.tx.send(Frame::text(name)).await.unwrap();
            links.push(link);
        }
    }

    fn cloud() -> Endpoint {
        Endpoint::from("cloud:1/events")
    }

    async fn place() -> Place {
        let (first, second, nobody) = (Switch::default(), Switch::default(), Credentials::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(first.listen(&Endpoint::from("cloud:2"), &nobody).await, "first"));
        serving.spawn(serve(second.listen(&Endpoint::from("cloud:1"), &nobody).await, "second"));
        let both = Fallback::new(first.clone(), "cloud:2", second.clone(), FallbackSettings::default());
        Place { first, second, both, _serving: serving }
    }

    impl Place {
        async fn dial(&self) -> (Link, &'static str) {
            let mut link = self.both.dial(&cloud(), &Credentials::default()).await.unwrap();
            let said = link.rx.next().await.unwrap().unwrap();
            let over = ["first", "second"].into_iter().find(|way| Frame::text(*way) == said);
            (link, over.unwrap())
        }
    }

    fn harness() -> Harness {
        let transport = Fallback::new(Memory::new(), "nowhere", Memory::new(), FallbackSettings::default());
        Harness::new(transport, "cloud").without(Ability::Lanes).without(Ability::Batches)
    }

    mod kit_when_the_first_way_is_closed {
        kubeedge_core::transport_conformance!(super::harness());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_way_is_taken_where_it_is_open() {
        let place = place().await;
        assert_eq!(place.dial().await.1, "first");
        assert_eq!(place.second.dials(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_way_that_says_nothing_costs_its_patience_once() {
        let (place, begun) = (place().await, Instant::now());
        place.first.set(Some(TransportKind::Timeout));
        let (link, over) = place.dial().await;
        assert_eq!((over, begun.elapsed()), ("second", FallbackSettings::default().patience));
        drop(link);
        assert_eq!(place.dial().await.1, "second");
        assert_eq!((place.first.dials(), begun.elapsed()), (1, FallbackSettings::default().patience));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_told_and_not_got_around() {
        let place = place().await;
        place.first.set(Some(TransportKind::Refused));
        let error = place.both.dial(&cloud(), &Credentials::default()).await.unwrap_err();
        assert_eq!((error.kind(), place.second.dials()), (TransportKind::Refused, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_trusted_over_the_first_way_may_be_over_the_second() {
        let place = place().await;
        place.first.set(Some(TransportKind::Untrusted));
        assert_eq!(place.dial().await.1, "second");
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_first_way_opens_again_the_next_link_is_over_it() {
        let place = place().await;
        place.first.set(Some(TransportKind::Unreachable));
        let (mut link, over) = place.dial().await;
        assert_eq!(over, "second");
        let closed = tokio::time::timeout(Duration::from_secs(600), link.rx.next()).await;
        assert!(closed.is_err(), "the link over the second way ended for nothing: {closed:?}");
        let tried = place.first.dials();
        assert!((4..10).contains(&tried), "it was tried {tried} times in ten minutes");
        place.first.set(None);
        assert!(link.rx.next().await.is_none(), "the link over the second way stays");
        place.first.set(Some(TransportKind::Unreachable));
        assert_eq!(place.dial().await.1, "first", "the link that was made ahead is lost");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_made_ahead_is_only_for_whom_it_was_made() {
        let place = place().await;
        place.first.set(Some(TransportKind::Unreachable));
        let (mut link, _) = place.dial().await;
        place.first.set(None);
        assert!(link.rx.next().await.is_none());
        place.first.set(Some(TransportKind::Unreachable));
        let renewed = Credentials::default().with_chain([Bytes::from_static(b"new")]);
        let mut link = place.both.dial(&cloud(), &renewed).await.unwrap();
        assert_eq!(link.rx.next().await.unwrap().unwrap(), Frame::text("second"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_way_whose_links_do_not_last_rests() {
        let place = place().await;
        drop(place.dial().await);
        let (link, over) = place.dial().await;
        assert_eq!(over, "second", "the first link lasted no time at all");
        drop(link);
        tokio::time::sleep(FallbackSettings::default().rest).await;
        let (_link, over) = place.dial().await;
        assert_eq!(over, "first");
        tokio::time::sleep(FallbackSettings::default().settled).await;
        assert_eq!(place.dial().await.1, "first", "a link that lasted is no failure");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_away_altogether_is_no_fault_of_the_first_way() {
        let place = place().await;
        place.first.set(Some(TransportKind::Unreachable));
        place.second.set(Some(TransportKind::Unreachable));
        assert!(place.both.dial(&cloud(), &Credentials::default()).await.is_err());
        place.first.set(None);
        assert_eq!(place.dial().await.1, "first");
    }
}
