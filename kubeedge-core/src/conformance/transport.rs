//! What every transport must do.
//!
//! ```
//! use std::sync::Arc;
//!
//! use kubeedge_core::{
//!     conformance::{certificates::Certificates, transport::{Ability, Harness}},
//!     transport::Transport,
//! };
//!
//! # fn my_transport() -> Arc<dyn Transport> { unreachable!("compiled only") }
//! /// A transport over TLS whose links have pings and batches, and one order for all frames.
//! fn harness() -> Harness {
//!     let certificates = Certificates::new("edge-1");
//!     Harness::new(my_transport(), "127.0.0.1:0")
//!         .with_credentials(certificates.server, certificates.client)
//!         .without(Ability::Lanes)
//! }
//!
//! mod kit {
//!     kubeedge_core::transport_conformance!(super::harness());
//! }
//! ```
//!
//! The kit runs in a crate with `kubeedge-core` (features `conformance` and, for the certificates, `pki`) and
//! `tokio` among its dev-dependencies. An ability that the harness does not take away must be there, at both
//! ends of a link: a wrapper that loses pings, lanes or batches of the transport below fails.

// A kit's cases fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod abilities;
mod entrance;
mod links;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::StreamExt;

pub use self::{abilities::*, entrance::*, links::*};
use crate::transport::{Credentials, Endpoint, Frame, Link, Listener, Transport};

/// Long enough for any peer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What some transports can and others cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Ability {
    /// Links tell whether the peer lives: [`FrameSink::health`](crate::transport::FrameSink::health).
    Pings,
    /// A full lane holds up no other: [`FrameSink::lanes`](crate::transport::FrameSink::lanes).
    Lanes,
    /// What is fed waits for the flush: [`FrameSink::feed`](crate::transport::FrameSink::feed).
    Batches,
}

/// A transport and what is needed to use both of its sides.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Harness {
    /// The transport.
    pub transport: Arc<dyn Transport>,
    /// Where to listen.
    pub listen: Endpoint,
    /// The listener's credentials.
    pub server: Credentials,
    /// The dialler's credentials.
    pub client: Credentials,
    lacks: BTreeSet<Ability>,
}

impl Harness {
    /// A transport with all abilities and no credentials, that listens there. Each case listens anew.
    pub fn new(transport: impl Transport, listen: impl Into<Endpoint>) -> Self {
        let (server, client) = (Credentials::default(), Credentials::default());
        let (transport, listen) = (Arc::new(transport), listen.into());
        Self { transport, listen, server, client, lacks: BTreeSet::new() }
    }

    /// The same with credentials of both sides.
    #[must_use]
    pub fn with_credentials(self, server: Credentials, client: Credentials) -> Self {
        Self { server, client, ..self }
    }

    /// The same for a transport that lacks this. The cases that need the ability do nothing.
    #[must_use]
    pub fn without(mut self, ability: Ability) -> Self {
        self.lacks.insert(ability);
        self
    }

    fn can(&self, ability: Ability) -> bool {
        !self.lacks.contains(&ability)
    }

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

/// Runs every case over a [`Harness`], made anew for each by the expression.
#[macro_export]
macro_rules! transport_conformance {
    ($make:expr) => {
        $crate::transport_conformance!(@ $make;
            frames_arrive_whole_and_in_order both_sides_may_send text_and_binary_keep_their_label
            an_empty_frame_arrives a_frame_of_the_limit_arrives
            an_oversized_frame_is_refused_and_the_link_lives a_slow_reader_stops_the_sender
            closing_ends_the_peers_stream_after_the_last_frame a_peer_that_vanishes_ends_the_stream
            sending_to_a_peer_that_has_gone_fails fed_frames_arrive_after_a_flush
            frames_of_a_lane_arrive_in_order closing_ends_the_peers_stream_after_the_last_frame_of_every_lane
            text_that_is_not_utf8_arrives_or_is_refused a_dropped_send_leaves_no_torn_frame
            claims_and_path_reach_the_acceptor a_refusal_reaches_the_dialler_with_its_reason
            a_refusal_does_not_end_the_listener dialling_nobody_is_unreachable
            an_undecided_peer_does_not_hold_up_others dropping_the_listener_leaves_links_alone
            many_links_are_kept_apart both_ends_can_what_the_harness_says
            a_ping_is_answered_when_what_went_before_was_taken a_ping_ends_with_its_link
            a_full_lane_does_not_hold_up_control fed_frames_wait_for_the_flush the_executor_is_never_blocked);
    };
    (@ $make:expr; $($case:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::transport::$case($make).await
        }
    )* };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_macro_runs_every_case_of_the_kit() {
        let whole = include_str!("transport.rs");
        let (_, list) = whole.split_once("(@ $make;").unwrap();
        let listed: Vec<_> = list.split(')').next().unwrap().split_whitespace().collect();
        for file in [
            include_str!("transport/abilities.rs"),
            include_str!("transport/entrance.rs"),
            include_str!("transport/links.rs"),
        ] {
            let cases = file.split("pub async fn ").skip(1).map(|rest| rest.split('(').next().unwrap());
            let missing: Vec<_> = cases.filter(|case| !listed.contains(case)).collect();
            assert!(missing.is_empty(), "cases that the macro does not run: {missing:?}");
        }
    }
}
