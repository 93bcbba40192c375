//! Too much at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kubeedge_core::message::Content;
use kubeedge_tests::until;
use tokio::task::JoinHandle;

use crate::{
    Place,
    bystander::{Bystander, question},
};

/// Nodes that flood; the cloud's limit is ten.
const NODES: usize = 8;

/// Something that goes on and counts what it does.
struct Flood {
    done: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Flood {
    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Goes on for so many more.
    fn goes_on(&self, more: usize) {
        let before = self.done();
        until("the flood", Duration::from_secs(120), || {
            let done = self.done();
            if done >= before + more { Ok(()) } else { Err(format!("{} more", done - before)) }
        });
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Every node asks the same without end and reads what it is answered, or does not.
fn flood(place: &Place, resource: &'static str, bytes: usize, reads: bool) -> Flood {
    let (done, hub) = (Arc::new(AtomicUsize::new(0)), place.cloud.doors()[0]);
    let tasks = (0..NODES).map(|at| {
        let (node, done) = (format!("flood-{at}"), done.clone());
        let identity = place.identity(&node);
        place.runtime.spawn(async move {
            let message = question("query", resource, Content::text(&"x".repeat(bytes)));
            loop {
                let Ok(mut link) = Bystander::dial(hub, &identity, &node).await else { continue };
                while link.say(&message).await {
                    done.fetch_add(1, Ordering::Relaxed);
                    if reads {
                        link.pass_over();
                    }
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    let tasks = tasks.collect();
    Flood { done, tasks }
}

#[test]
fn a_bystander_is_answered_in_turn_while_others_ask_without_end() {
    let Some(mut place) = Place::start() else { return };
    let said = place.cloud.said();
    let flood = flood(&place, "default/configmap/none", 1000, true);
    flood.goes_on(2000);
    for _ in 0..5 {
        place.bystander_is_served(20);
        flood.goes_on(100);
    }
    drop(flood);
    place.memory_is_bounded("questions without end");
    place.few_lines(&said, 40, "questions without end");
}

#[test]
fn large_questions_of_peers_that_never_read_are_bounded_by_their_bytes() {
    let Some(mut place) = Place::start() else { return };
    let said = place.cloud.said();
    let flood = flood(&place, "default/configmap/none", 1 << 20, false);
    flood.goes_on(200);
    for _ in 0..5 {
        place.bystander_is_served(10);
    }
    // Each may have 32 MiB in work and as much waiting for it; none of these answers is large.
    let grown = place.cloud.memory().saturating_sub(place.memory);
    assert!(grown < NODES * (40 << 20), "cloudcore has grown by {} MiB", grown >> 20);
    drop(flood);
    place.bystander_is_served(5);
    place.few_lines(&said, 40, "large questions");
}

#[test]
fn a_node_that_connects_again_and_again_leaves_one_session_and_disturbs_nobody() {
    let Some(mut place) = Place::start() else { return };
    let (said, hub) = (place.cloud.said(), place.cloud.doors()[0]);
    let (done, identity) = (Arc::new(AtomicUsize::new(0)), place.identity("restless"));
    let tasks = (0..4).map(|_| {
        let (done, identity) = (done.clone(), identity.clone());
        place.runtime.spawn(async move {
            loop {
                if Bystander::dial(hub, &identity, "restless").await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    });
    let tasks = tasks.collect();
    let flood = Flood { done, tasks };
    flood.goes_on(50);
    place.bystander_is_served(50);
    flood.goes_on(50);
    drop(flood);
    let identity = place.identity("restless");
    place.runtime.block_on(async {
        let mut last = Bystander::dial(hub, &identity, "restless").await.unwrap();
        last.exchanges(3).await;
    });
    place.bystander_is_served(5);
    place.memory_is_bounded("many connections");
    place.few_lines(&said, 40, "many connections");
}
