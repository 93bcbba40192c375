//! Who dials, who listens, and who is let in.

#![allow(clippy::unwrap_used, reason = "a kit's cases fail by panicking, as tests do")]

use std::time::Duration;

use futures::{StreamExt, future};

use super::{Harness, frame, next, soon};
use crate::transport::{Endpoint, Frame, TransportKind};

/// What the dialler says of itself and asks for reaches the acceptor.
pub async fn claims_and_path_reach_the_acceptor(harness: Harness) {
    let mut who = harness.client.clone();
    who.claims = vec![("Node_id".into(), "edge-1".into()), ("ConnectionUse".into(), "msg".into())];
    let mut listener = harness.open().await;
    let to = Endpoint::from(format!("{}/project/edge-1/events", listener.local().authority()));
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
