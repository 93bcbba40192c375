//! What every transport must do.
//!
//! ```ignore
//! kubeedge_core::transport_conformance!(MyHarness::new());
//! ```

// A kit's cases fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{StreamExt, future};

use crate::transport::{Credentials, Endpoint, Frame, Lane, Link, Listener, Transport, TransportKind};

/// Long enough for any peer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A transport and what is needed to use both of its sides.
#[derive(Clone, Debug)]
pub struct Harness {
    /// The transport.
    pub transport: Arc<dyn Transport>,
    /// Where to listen.
    pub listen: Endpoint,
    /// The listener's credentials.
    pub server: Credentials,
    /// The dialler's credentials.
    pub client: Credentials,
}

impl Harness {
    async fn open(&self) -> Box<dyn Listener> {
        self.transport.listen(&self.listen, &self.server).await.unwrap()
    }

    async fn dial(&self, to: &Endpoint) -> Link {
        self.transport.dial(to, &self.client).await.unwrap()
    }

    async fn pair(&self) -> (Link, Link, Box<dyn Listener>) {
        let mut listener = self.open().await;
        let to = listener.local();
        let accept = async { listener.next().await.unwrap().accept().await.unwrap() };
        let (near, far) = tokio::join!(self.dial(&to), accept);
        (near, far, listener)
    }
}

fn frame(size: usize) -> Frame {
    Frame::binary(vec![size as u8; size])
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("nothing happened for a minute")
}

async fn next(link: &mut Link) -> Frame {
    soon(link.rx.next()).await.unwrap().unwrap()
}

/// Frames are neither split nor joined nor reordered.
pub async fn frames_arrive_whole_and_in_order(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    let send = async {
        for size in 0..200 {
            near.tx.send(frame(size)).await.unwrap();
        }
    };
    let receive = async {
        for size in 0..200 {
            assert_eq!(next(&mut far).await, frame(size));
        }
    };
    tokio::join!(send, receive);
}

/// Both directions work at once.
pub async fn both_sides_may_send(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    near.tx.send(frame(1)).await.unwrap();
    far.tx.send(frame(2)).await.unwrap();
    assert_eq!(next(&mut far).await, frame(1));
    assert_eq!(next(&mut near).await, frame(2));
}

/// Text stays text and binary stays binary.
pub async fn text_and_binary_keep_their_label(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    for sent in [Frame::text("grüße"), Frame::binary(&b"\xff\x00"[..])] {
        near.tx.send(sent.clone()).await.unwrap();
        assert_eq!(next(&mut far).await, sent);
    }
}

/// A frame of no bytes is a frame.
pub async fn an_empty_frame_arrives(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    near.tx.send(frame(0)).await.unwrap();
    assert_eq!(next(&mut far).await, frame(0));
}

/// The largest frame that is allowed arrives.
pub async fn a_frame_of_the_limit_arrives(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    let largest = Frame::binary(vec![7; harness.transport.limits().max_frame]);
    let (sent, received) = tokio::join!(near.tx.send(largest.clone()), next(&mut far));
    sent.unwrap();
    assert!(received == largest);
}

/// One byte more is refused, and the link is none the worse for it.
pub async fn an_oversized_frame_is_refused_and_the_link_lives(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    let over = Frame::binary(vec![7; harness.transport.limits().max_frame + 1]);
    assert_eq!(near.tx.send(over).await.unwrap_err().kind(), TransportKind::TooLarge);
    near.tx.send(frame(3)).await.unwrap();
    assert_eq!(next(&mut far).await, frame(3));
}

/// What the dialler says of itself and asks for reaches the acceptor.
pub async fn claims_and_path_reach_the_acceptor(harness: Harness) {
    let mut who = harness.client.clone();
    who.claims = vec![("Node_id".into(), "edge-1".into()), ("ConnectionUse".into(), "msg".into())];
    let mut listener = harness.open().await;
    let to = Endpoint(format!("{}/project/edge-1/events", listener.local().authority()));
    let accept = async {
        let incoming = listener.next().await.unwrap();
        assert_eq!(incoming.peer().claim("node_id"), Some("edge-1"));
        assert_eq!(incoming.peer().claim("connectionuse"), Some("msg"));
        assert_eq!(incoming.peer().path, "/project/edge-1/events");
        incoming.accept().await.unwrap()
    };
    let (dialled, accepted) = soon(future::join(harness.transport.dial(&to, &who), accept)).await;
    dialled.unwrap();
    assert_eq!(accepted.peer.claim("NODE_ID"), Some("edge-1"));
}

/// Who is turned away learns why.
pub async fn a_refusal_reaches_the_dialler_with_its_reason(harness: Harness) {
    let mut listener = harness.open().await;
    let to = listener.local();
    let refuse = async { listener.next().await.unwrap().refuse("no room for you".into()).await };
    let (dialled, ()) = soon(future::join(harness.transport.dial(&to, &harness.client), refuse)).await;
    let error = dialled.unwrap_err();
    assert_eq!(error.kind(), TransportKind::Refused);
    assert!(error.to_string().contains("no room for you"), "{error}");
}

/// A listener that refused one peer takes the next.
pub async fn a_refusal_does_not_end_the_listener(harness: Harness) {
    let mut listener = harness.open().await;
    let to = listener.local();
    let serve = async {
        listener.next().await.unwrap().refuse("not you".into()).await;
        listener.next().await.unwrap().accept().await.unwrap()
    };
    let dial = async {
        assert!(harness.transport.dial(&to, &harness.client).await.is_err());
        harness.dial(&to).await
    };
    soon(future::join(serve, dial)).await;
}

/// A sender waits for a reader that does not read.
pub async fn a_slow_reader_stops_the_sender(harness: Harness) {
    let (mut near, _far, _door) = harness.pair().await;
    let flood = async {
        for _ in 0..1_000_000 {
            near.tx.send(frame(32 << 10)).await.unwrap();
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(2), flood).await.is_err(),
        "32 GB went into a link nobody reads"
    );
}

/// What was sent before a close arrives, and then the end.
pub async fn closing_ends_the_peers_stream_after_the_last_frame(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    near.tx.send(frame(5)).await.unwrap();
    near.tx.close().await.unwrap();
    near.tx.close().await.unwrap();
    assert_eq!(next(&mut far).await, frame(5));
    assert!(soon(far.rx.next()).await.is_none());
}

/// A peer that vanishes is noticed; after that nothing comes.
pub async fn a_peer_that_vanishes_ends_the_stream(harness: Harness) {
    let (near, mut far, _door) = harness.pair().await;
    drop(near);
    let last = soon(far.rx.next()).await;
    assert!(last.is_none_or(|frame| frame.is_err()));
    assert!(soon(far.rx.next()).await.is_none());
}

/// Sending to a peer that has gone fails in the end.
pub async fn sending_to_a_peer_that_has_gone_fails(harness: Harness) {
    let (near, mut far, _door) = harness.pair().await;
    drop(near);
    let send = async { while far.tx.send(frame(1000)).await.is_ok() {} };
    soon(send).await;
}

/// Dialling where nobody listens says so.
pub async fn dialling_nobody_is_unreachable(harness: Harness) {
    let listener = harness.open().await;
    let to = listener.local();
    drop(listener);
    // The address is given back in its own time.
    let gone = async {
        loop {
            match harness.transport.dial(&to, &harness.client).await {
                Err(error) if error.kind() == TransportKind::Unreachable => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    soon(gone).await;
}

/// A peer whose decision is open holds up no other.
pub async fn an_undecided_peer_does_not_hold_up_others(harness: Harness) {
    let mut listener = harness.open().await;
    let to = listener.local();
    let (transport, client, first_to) = (harness.transport.clone(), harness.client.clone(), to.clone());
    let first = tokio::spawn(async move { transport.dial(&first_to, &client).await });
    let undecided = soon(listener.next()).await.unwrap();
    let accept = async { listener.next().await.unwrap().accept().await.unwrap() };
    let (mut near, mut far) = soon(future::join(harness.dial(&to), accept)).await;
    near.tx.send(frame(1)).await.unwrap();
    assert_eq!(next(&mut far).await, frame(1));
    let _link = undecided.accept().await.unwrap();
    assert!(soon(first).await.unwrap().is_ok());
}

/// Links outlive the listener they came from.
pub async fn dropping_the_listener_leaves_links_alone(harness: Harness) {
    let (mut near, mut far, door) = harness.pair().await;
    drop(door);
    near.tx.send(frame(4)).await.unwrap();
    assert_eq!(next(&mut far).await, frame(4));
}

/// Frames that are fed are there after a flush.
pub async fn fed_frames_arrive_after_a_flush(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    let send = async {
        for _ in 0..10_000 {
            near.tx.feed(frame(10)).await.unwrap();
        }
        near.tx.flush().await.unwrap();
    };
    let receive = async {
        for _ in 0..10_000 {
            assert_eq!(next(&mut far).await, frame(10));
        }
    };
    soon(future::join(send, receive)).await;
}

/// Every lane keeps its own order, and nothing is lost between them.
pub async fn frames_of_a_lane_arrive_in_order(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    let numbered = |lane: Lane, n: u32| Frame::text(format!("{lane:?} {n}")).in_lane(lane);
    let send = async {
        for n in 0..100 {
            for lane in Lane::ALL {
                near.tx.send(numbered(lane, n)).await.unwrap();
            }
        }
    };
    let receive = async {
        let mut due =
            Lane::ALL.map(|lane| (0..100).map(|n| numbered(lane, n).payload).collect::<VecDeque<_>>());
        while due.iter().any(|lane| !lane.is_empty()) {
            let got = next(&mut far).await.payload;
            let lane = due.iter_mut().find(|lane| lane.front() == Some(&got));
            assert!(lane.is_some_and(|lane| lane.pop_front().is_some()), "{got:?} came out of turn");
        }
    };
    soon(future::join(send, receive)).await;
}

/// The end comes after what was sent in any lane.
pub async fn closing_ends_the_peers_stream_after_the_last_frame_of_every_lane(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    let send = async {
        for lane in [Lane::Bulk, Lane::Twins, Lane::Control] {
            for _ in 0..3 {
                near.tx.send(frame(200_000).in_lane(lane)).await.unwrap();
            }
        }
        near.tx.close().await.unwrap();
    };
    let receive = async {
        let mut got = 0;
        while let Some(received) = far.rx.next().await {
            assert_eq!(received.unwrap().payload, frame(200_000).payload);
            got += 1;
        }
        got
    };
    assert_eq!(soon(future::join(send, receive)).await.1, 9);
}

/// A transport that says that a lane is full still takes what is before it in rank, and says when there is room again.
pub async fn a_full_lane_does_not_hold_up_control(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    let mut sent = 0;
    while near.tx.has_room(Lane::Bulk) {
        let bulk = frame(100_000).in_lane(Lane::Bulk);
        match tokio::time::timeout(Duration::from_secs(2), near.tx.send(bulk)).await {
            Ok(done) => done.unwrap(),
            // One order for all: a full window holds up everything, as the seam allows.
            Err(_) => return,
        }
        sent += 1;
        assert!(sent < 10_000, "1 GB went into a lane nobody reads");
        // What only waits for its turn to be written is not in the way of a reader yet.
        let _ = tokio::time::timeout(Duration::from_millis(200), near.tx.more_room()).await;
    }
    soon(near.tx.send(frame(7))).await.unwrap();
    let receive = async {
        let mut seen = Vec::new();
        for _ in 0..=sent {
            seen.push(next(&mut far).await.payload.len());
        }
        seen
    };
    let ((), seen) = soon(future::join(near.tx.more_room(), receive)).await;
    assert!(near.tx.has_room(Lane::Bulk), "there is room, and it does not say so");
    assert_eq!(seen.iter().filter(|size| **size == 7).count(), 1);
}

/// An answered ping means that the peer has taken what was sent before; a peer that does not read answers none. A transport
/// without pings passes.
pub async fn a_ping_is_answered_when_what_went_before_was_taken(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    near.tx.send(frame(6)).await.unwrap();
    let Some(mut pong) = near.tx.ping().await.unwrap() else { return };
    let early = async {
        tokio::select! {
            answered = &mut pong => panic!("answered before the frame was taken: {answered:?}"),
            frame = near.rx.next() => panic!("nothing was sent to us: {frame:?}"),
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(300), early).await.is_err());
    assert_eq!(next(&mut far).await, frame(6));
    let answered = async {
        tokio::select! {
            answered = &mut pong => answered.unwrap(),
            frame = near.rx.next() => panic!("nothing was sent to us: {frame:?}"),
            frame = far.rx.next() => panic!("a ping is no frame: {frame:?}"),
        }
    };
    soon(answered).await;
}

/// A ping whose link ends fails at once.
pub async fn a_ping_ends_with_its_link(harness: Harness) {
    let (mut near, far, _door) = harness.pair().await;
    let Some(pong) = near.tx.ping().await.unwrap() else { return };
    drop(far);
    let ended = async { while near.rx.next().await.is_some() {} };
    let (answered, ()) = soon(future::join(pong, ended)).await;
    assert!(answered.is_err());
}

/// Many links of one listener do not mix.
pub async fn many_links_are_kept_apart(harness: Harness) {
    let mut listener = harness.open().await;
    let to = listener.local();
    let dial = future::join_all((0..20_u8).map(|n| {
        let (harness, to) = (harness.clone(), to.clone());
        async move {
            let mut link = harness.dial(&to).await;
            link.tx.send(Frame::binary(vec![n])).await.unwrap();
            let echoed = next(&mut link).await;
            assert_eq!(echoed, Frame::binary(vec![n]));
        }
    }));
    let echo = async {
        let mut echoes = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let mut link = listener.next().await.unwrap().accept().await.unwrap();
            echoes.spawn(async move {
                let got = next(&mut link).await;
                link.tx.send(got).await.unwrap();
                // Held until the dialler has read and left.
                let _ = link.rx.next().await;
            });
        }
        while echoes.join_next().await.is_some() {}
    };
    soon(future::join(dial, echo)).await;
}

/// Runs every case over a [`Harness`], made anew for each by the expression.
#[macro_export]
macro_rules! transport_conformance {
    ($make:expr) => {
        $crate::transport_conformance!(@ $make;
            frames_arrive_whole_and_in_order both_sides_may_send text_and_binary_keep_their_label an_empty_frame_arrives
            a_frame_of_the_limit_arrives an_oversized_frame_is_refused_and_the_link_lives claims_and_path_reach_the_acceptor
            a_refusal_reaches_the_dialler_with_its_reason a_refusal_does_not_end_the_listener a_slow_reader_stops_the_sender
            closing_ends_the_peers_stream_after_the_last_frame a_peer_that_vanishes_ends_the_stream
            sending_to_a_peer_that_has_gone_fails dialling_nobody_is_unreachable an_undecided_peer_does_not_hold_up_others
            dropping_the_listener_leaves_links_alone fed_frames_arrive_after_a_flush many_links_are_kept_apart
            a_ping_is_answered_when_what_went_before_was_taken a_ping_ends_with_its_link
            frames_of_a_lane_arrive_in_order closing_ends_the_peers_stream_after_the_last_frame_of_every_lane
            a_full_lane_does_not_hold_up_control);
    };
    (@ $make:expr; $($case:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::transport::$case($make).await
        }
    )* };
}
