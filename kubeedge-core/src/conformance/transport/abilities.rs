//! What some links can do beside carrying frames: pings, lanes, batches. A transport that has them is held to
//! them, and so is what wraps it.

#![allow(clippy::unwrap_used, reason = "a kit's cases fail by panicking, as tests do")]

use std::time::Duration;

use futures::{StreamExt, future};

use super::{Ability, Harness, frame, next, soon};
use crate::{
    conformance::executor,
    transport::{FrameSink, Lane, Lanes, Pong},
};

/// How long something that must not happen is waited for.
const WHILE: Duration = Duration::from_millis(300);

async fn ping(tx: &mut dyn FrameSink) -> Pong {
    let health = tx.health().expect("the link has no pings; a harness without them says so");
    health.ping().await.unwrap()
}

fn lanes(tx: &mut dyn FrameSink) -> &mut dyn Lanes {
    tx.lanes().expect("the link has no lanes; a harness without them says so")
}

/// Both ends of a link have the abilities that the harness says.
pub async fn both_ends_can_what_the_harness_says(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    for link in [&mut near, &mut far] {
        if harness.can(Ability::Pings) {
            drop(ping(&mut *link.tx).await);
        }
        if harness.can(Ability::Lanes) {
            let lanes = lanes(&mut *link.tx);
            assert!(Lane::ALL.into_iter().all(|lane| lanes.has_room(lane)), "a new link has full lanes");
            soon(lanes.more_room()).await;
        }
    }
}

/// An answered ping means that the peer has taken what was sent before; a peer that does not read answers
/// none.
pub async fn a_ping_is_answered_when_what_went_before_was_taken(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    if !harness.can(Ability::Pings) {
        return;
    }
    near.tx.send(frame(6)).await.unwrap();
    let mut pong = ping(&mut *near.tx).await;
    let early = async {
        tokio::select! {
            answered = &mut pong => panic!("answered before the frame was taken: {answered:?}"),
            frame = near.rx.next() => panic!("nothing was sent to us: {frame:?}"),
        }
    };
    assert!(tokio::time::timeout(WHILE, early).await.is_err());
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
    if !harness.can(Ability::Pings) {
        return;
    }
    let pong = ping(&mut *near.tx).await;
    drop(far);
    let ended = async { while near.rx.next().await.is_some() {} };
    let (answered, ()) = soon(future::join(pong, ended)).await;
    assert!(answered.is_err());
}

/// A lane that is full says so and still takes control; it says so again when there is room.
pub async fn a_full_lane_does_not_hold_up_control(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    if !harness.can(Ability::Lanes) {
        return;
    }
    let mut sent = 0;
    while lanes(&mut *near.tx).has_room(Lane::Bulk) {
        let bulk = frame(100_000).in_lane(Lane::Bulk);
        soon(near.tx.send(bulk)).await.unwrap();
        sent += 1;
        assert!(sent < 10_000, "1 GB went into a lane nobody reads");
        // What only waits for its turn to be written is not in the way of a reader yet.
        let _ = tokio::time::timeout(WHILE, lanes(&mut *near.tx).more_room()).await;
    }
    soon(near.tx.send(frame(7))).await.unwrap();
    let receive = async {
        let mut seen = Vec::new();
        for _ in 0..=sent {
            seen.push(next(&mut far).await.payload.len());
        }
        seen
    };
    let ((), seen) = soon(future::join(lanes(&mut *near.tx).more_room(), receive)).await;
    assert!(lanes(&mut *near.tx).has_room(Lane::Bulk), "there is room, and it does not say so");
    assert_eq!(seen.iter().filter(|size| **size == 7).count(), 1);
}

/// What is fed stays here until the flush.
pub async fn fed_frames_wait_for_the_flush(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    if !harness.can(Ability::Batches) {
        return;
    }
    for _ in 0..3 {
        near.tx.feed(frame(10)).await.unwrap();
    }
    let early = tokio::time::timeout(WHILE, far.rx.next()).await;
    assert!(early.is_err(), "a frame that was fed went out by itself");
    near.tx.flush().await.unwrap();
    for _ in 0..3 {
        assert_eq!(next(&mut far).await, frame(10));
    }
}

/// No call, and no task behind it, keeps the thread of a runtime from its other tasks for long.
pub async fn the_executor_is_never_blocked(harness: Harness) {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(executor::is_not_blocked(|| use_it(harness.clone())));
    };
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Links that are made, used in both directions and closed.
async fn use_it(harness: Harness) {
    for _ in 0..3 {
        let (mut near, mut far, _door) = harness.pair().await;
        let send = async {
            for size in 0..100 {
                near.tx.feed(frame(size * 100)).await.unwrap();
            }
            near.tx.flush().await.unwrap();
            let pong = match near.tx.health() {
                Some(health) => Some(health.ping().await.unwrap()),
                None => None,
            };
            assert_eq!(next(&mut near).await, frame(1));
            if let Some(pong) = pong {
                let read = near.rx.next();
                tokio::select! {
                    answered = pong => answered.unwrap(),
                    frame = read => panic!("nothing was sent to us: {frame:?}"),
                }
            }
            near.tx.close().await.unwrap();
        };
        let receive = async {
            for size in 0..100 {
                assert_eq!(next(&mut far).await, frame(size * 100));
            }
            far.tx.send(frame(1)).await.unwrap();
            while let Some(Ok(_)) = far.rx.next().await {}
        };
        soon(future::join(send, receive)).await;
    }
}
