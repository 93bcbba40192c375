//! What travels over an established link, and how a link ends.

#![allow(clippy::unwrap_used, reason = "a kit's cases fail by panicking, as tests do")]

use std::{collections::VecDeque, time::Duration};

use futures::{StreamExt, future};

use super::{Harness, frame, next, soon};
use crate::transport::{Frame, Lane, TransportKind};

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

/// Text that is no UTF-8, as Go sends in its tunnels, arrives whole, or is refused alone.
pub async fn text_that_is_not_utf8_arrives_or_is_refused(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    let odd = Frame::text(&b"\xff\xfe\x00"[..]);
    match near.tx.send(odd.clone()).await {
        Ok(()) => assert_eq!(next(&mut far).await, odd),
        Err(error) => assert_eq!(error.kind(), TransportKind::NotText),
    }
    near.tx.send(frame(3)).await.unwrap();
    assert_eq!(next(&mut far).await, frame(3));
}

/// A `send` that was dropped half-way, and a link that was given up after it: the peer gets whole frames, in
/// their order, and then the end.
pub async fn a_dropped_send_leaves_no_torn_frame(harness: Harness) {
    let (mut near, mut far, _door) = harness.pair().await;
    let size = harness.transport.limits().max_frame.min(1 << 20) / 4;
    let numbered = |number: u32| Frame::binary(number.to_be_bytes().repeat(size));
    let mut sent = 0;
    while let Ok(done) = tokio::time::timeout(Duration::from_millis(300), near.tx.send(numbered(sent))).await
    {
        done.unwrap();
        sent += 1;
        assert!(sent < 10_000, "10 GB went into a link nobody reads");
    }
    drop(near);
    let mut received = 0;
    while let Some(Ok(frame)) = soon(far.rx.next()).await {
        assert!(frame == numbered(received), "frame {received} of {sent} is not what was sent");
        received += 1;
    }
    assert!(received <= sent + 1, "{received} frames of {sent}");
    assert!(soon(far.rx.next()).await.is_none(), "something came after the end");
}
