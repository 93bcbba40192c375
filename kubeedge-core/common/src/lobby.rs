//! Who may begin at a door, and who waits: so many at a time, so many of one address, and nobody for long
//! while others wait.
//!
//! A door that speaks a handshake with whoever comes must neither hold memory for all of them nor be kept
//! shut by those who say nothing. A [`Lobby`] decides; the door's loop does: takes guests in, begins with
//! [`Lobby::admit`], ends what is [`Lobby::overdue`].

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::time::Instant;

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LobbyLimits {
    /// Who have begun, at a time.
    pub places: usize,
    /// Of them, those of one address; an IPv6 network of 64 bits counts as one.
    pub of_one: usize,
    /// Who wait for a place.
    pub waiting: usize,
    /// How long one who has begun is left alone while others wait for its place.
    pub undisturbed: Duration,
}

/// Guests of a door: `G` waits, such as a socket; `I` names one who has begun, such as a task.
#[derive(Debug)]
pub struct Lobby<G, I> {
    limits: LobbyLimits,
    begun: VecDeque<(I, IpAddr, Instant)>,
    waiting: VecDeque<(G, SocketAddr)>,
}

impl<G, I: Copy + Eq + Hash> Lobby<G, I> {
    /// An empty one.
    pub fn new(limits: LobbyLimits) -> Self {
        Self { limits, begun: VecDeque::new(), waiting: VecDeque::new() }
    }

    /// Whether to let another in to wait: there is room, or several addresses wait, so that one of them can
    /// be told to go for another. Those of a single address are better left where they are.
    pub fn has_room(&self) -> bool {
        let mut origins = self.waiting.iter().map(|(_, from)| origin(from));
        let first = origins.next();
        self.waiting.len() < self.limits.waiting || origins.any(|other| Some(other) != first)
    }

    /// Lets somebody in to wait. Who has to go for it, if the room is full: the newest of the address of
    /// which most wait.
    pub fn enter(&mut self, guest: G, from: SocketAddr) -> Option<(G, SocketAddr)> {
        self.waiting.push_back((guest, from));
        if self.waiting.len() <= self.limits.waiting {
            return None;
        }
        let heaviest = heaviest(self.waiting.iter().map(|(_, from)| origin(from)))?;
        let newest = self.waiting.iter().rposition(|(_, from)| origin(from) == heaviest)?;
        self.waiting.remove(newest)
    }

    /// Who is to begin now: the first whose address has not as many as it may. To be followed by
    /// [`Lobby::begin`].
    pub fn admit(&mut self) -> Option<(G, SocketAddr)> {
        if self.begun.len() >= self.limits.places.max(1) {
            return None;
        }
        let counts = counted(self.begun.iter().map(|(_, from, _)| *from));
        let held = |from: &SocketAddr| counts.get(&origin(from)).copied().unwrap_or(0);
        let next = self.waiting.iter().position(|(_, from)| held(from) < self.limits.of_one.max(1))?;
        self.waiting.remove(next)
    }

    /// Notes that one has begun.
    pub fn begin(&mut self, who: I, from: SocketAddr) {
        self.begun.push_back((who, origin(&from), Instant::now()));
    }

    /// Notes that one is done, however it went.
    pub fn done(&mut self, who: I) {
        self.begun.retain(|(id, ..)| *id != who);
    }

    /// Whether anybody waits for a place.
    pub fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Who has to end, and when, if nobody else does before: while somebody waits, the first of the address
    /// that has most. Asked again after each change.
    pub fn overdue(&self) -> Option<(Instant, I)> {
        let since: HashMap<_, _> = self.begun.iter().map(|(who, _, since)| (*who, *since)).collect();
        self.overdue_among(|who| since.get(&who).copied())
    }

    /// As [`Lobby::overdue`], among those for whom `still_since` says since when they do nothing; others are
    /// spared.
    pub fn overdue_among(&self, still_since: impl Fn(I) -> Option<Instant>) -> Option<(Instant, I)> {
        let (_, first) = self.waiting.front()?;
        let still = self.begun.iter().filter_map(|(who, from, _)| Some((*who, *from, still_since(*who)?)));
        let still: Vec<_> = still.collect();
        let full = self.begun.len() >= self.limits.places.max(1);
        // With places free, those who wait are of addresses that have as many as they may.
        let of = if full { heaviest(still.iter().map(|(_, from, _)| *from))? } else { origin(first) };
        let of_it = still.into_iter().filter(|(_, from, _)| *from == of);
        let (who, _, since) = of_it.min_by_key(|(_, _, since)| *since)?;
        Some((since + self.limits.undisturbed, who))
    }
}

/// What counts as one address.
fn origin(from: &SocketAddr) -> IpAddr {
    match from.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    }
}

fn counted(addresses: impl Iterator<Item = IpAddr>) -> HashMap<IpAddr, usize> {
    let mut counts = HashMap::new();
    addresses.for_each(|address| *counts.entry(address).or_insert(0) += 1);
    counts
}

fn heaviest(addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
    counted(addresses)
        .into_iter()
        .max_by_key(|(address, count)| (*count, *address))
        .map(|(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LobbyLimits =
        LobbyLimits { places: 8, of_one: 6, waiting: 10, undisturbed: Duration::from_secs(2) };
    const FLOOD: [u8; 4] = [192, 0, 2, 1];

    fn lobby() -> Lobby<&'static str, usize> {
        Lobby::new(LIMITS)
    }

    fn from(ip: [u8; 4]) -> SocketAddr {
        SocketAddr::from((ip, 1))
    }

    /// Begins all who may; how many did.
    fn begin(lobby: &mut Lobby<&'static str, usize>, id: &mut usize) -> Vec<&'static str> {
        let mut begun = Vec::new();
        while let Some((guest, from)) = lobby.admit() {
            *id += 1;
            lobby.begin(*id, from);
            begun.push(guest);
        }
        begun
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_takes_its_share_of_the_places_and_another_finds_one_at_once() {
        let (mut lobby, mut id) = (lobby(), 0);
        for _ in 0..LIMITS.waiting {
            assert!(lobby.has_room() && lobby.enter("flood", from(FLOOD)).is_none());
        }
        assert_eq!(begin(&mut lobby, &mut id).len(), 6);
        assert!(lobby.enter("quiet", from([198, 51, 100, 7])).is_none());
        assert_eq!(begin(&mut lobby, &mut id), ["quiet"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_room_is_left_by_the_newest_of_the_address_of_which_most_wait() {
        let (mut lobby, mut id) = (lobby(), 0);
        for _ in 0..6 + LIMITS.waiting {
            assert!(lobby.enter("flood", from(FLOOD)).is_none());
            begin(&mut lobby, &mut id);
        }
        assert!(!lobby.has_room(), "those of one address wait outside");
        assert_eq!(lobby.enter("quiet", from([198, 51, 100, 7])).unwrap().0, "flood");
        assert!(lobby.has_room());
        assert_eq!(lobby.enter("flood", from(FLOOD)).unwrap().0, "flood");
        assert_eq!(begin(&mut lobby, &mut id), ["quiet"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_makes_room_after_a_while_and_only_when_somebody_waits() {
        let (mut lobby, mut id) = (lobby(), 0);
        lobby.enter("slow", from([198, 51, 100, 7]));
        begin(&mut lobby, &mut id);
        for _ in 0..6 {
            lobby.enter("flood", from(FLOOD));
        }
        begin(&mut lobby, &mut id);
        assert_eq!(lobby.overdue(), None, "nobody waits");
        tokio::time::advance(Duration::from_secs(9)).await;
        lobby.enter("flood", from(FLOOD));
        let (when, who) = lobby.overdue().unwrap();
        assert!(when <= Instant::now() && who == 2, "the oldest of those that flood, not the slow one");
        lobby.done(who);
        assert_eq!(begin(&mut lobby, &mut id), ["flood"]);
        // All places taken, and one more address waits.
        lobby.enter("a", from([198, 51, 100, 8]));
        lobby.enter("b", from([198, 51, 100, 9]));
        assert_eq!(begin(&mut lobby, &mut id), ["a"]);
        assert_eq!(lobby.overdue().unwrap().1, 3);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let of = |text: &str| origin(&SocketAddr::new(text.parse().unwrap(), 1));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
