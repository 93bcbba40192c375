//! Vendors' modules across the link, from the edge's end.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    bus::{Envelope, Inbox},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    routes::Delivery,
    transport::Frame,
};
use kubeedge_store::MemoryStore;
use kubeedge_transport::{Faults, Faulty, Memory};
use tokio::time::Instant;

use crate::cloud::{ACME, CloudEnd, Node, PATIENCE, settings};

fn of_acme(resource: &str) -> Message {
    Message::new(ACME, Operation::UPDATE, resource).in_group(Group::of("acme"))
}

async fn send(node: &Node, message: &Message, delivery: Delivery) {
    let envelope = Envelope::new(message.clone()).deliver(delivery);
    node.bus.forward(&ModuleName::EDGE_HUB, envelope).await.unwrap();
}

async fn heard(inbox: &mut Inbox) -> Envelope {
    tokio::time::timeout(PATIENCE, inbox.next()).await.expect("nothing came").unwrap()
}

/// The next message of the module, that is none of the others'.
async fn said(cloud: &mut CloudEnd) -> Message {
    loop {
        let message = cloud.next_message().await;
        if message.route.group == "acme" {
            return message;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_vendors_module_gets_its_group_and_its_answer_goes_back() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    let mut inbox = node.inbox(&ACME);
    let asked = [of_acme("a"), of_acme("b")];
    for question in &asked {
        cloud.say(question.clone()).await;
    }
    let (first, second) = (heard(&mut inbox).await, heard(&mut inbox).await);
    assert_eq!((&first.message, &second.message), (&asked[0], &asked[1]));
    second.answer(Content::text("done"));
    let answer = cloud.next_message().await;
    assert_eq!(answer.header.parent.as_ref(), Some(&asked[1].header.id));
    assert_eq!((answer.route.operation.as_str(), answer.route.group.as_str()), ("response", "acme"));
    first.fail("no");
    let answer = cloud.next_message().await;
    assert_eq!(answer.header.parent.as_ref(), Some(&asked[0].header.id));
    assert_eq!((answer.route.operation.as_str(), answer.route.group.as_str()), ("error", "acme"));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_nobody_takes_is_answered_with_an_error() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    let question = of_acme("a").in_group(Group::of("other"));
    cloud.say(question.clone()).await;
    let answer = cloud.next_message().await;
    assert_eq!(answer.header.parent, Some(question.header.id));
    assert_eq!(answer.route.operation, Operation::ERROR);
    assert_eq!(answer.content.as_text().unwrap(), "no module of edge-1 takes group other");
    // An answer to nothing is not answered.
    let mut late = question_of_nobody();
    late.route.group = Group::of("other");
    cloud.say(late).await;
    cloud.say(of_acme("b")).await;
    drop(heard(&mut node.inbox(&ACME)).await);
}

fn question_of_nobody() -> Message {
    of_acme("a").answer(Content::ok())
}

#[tokio::test(start_paused = true)]
async fn a_reliable_message_outlives_cuts_and_restarts_until_it_is_answered() {
    let store = Arc::new(MemoryStore::new());
    let mut node = Node::over(store.clone(), settings(), Memory::new()).await;
    let sent = [of_acme("a"), of_acme("b"), of_acme("a")];
    for message in &sent {
        send(&node, message, Delivery::Reliable).await;
    }
    for _ in 0..2 {
        let mut cloud = node.cloud().await;
        assert_eq!([said(&mut cloud).await, said(&mut cloud).await], sent[..2]);
    }
    node.stop().await;
    let mut node = Node::over(store.clone(), settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    assert_eq!([said(&mut cloud).await, said(&mut cloud).await], sent[..2]);
    cloud.say(sent[0].answer(Content::ok())).await;
    assert_eq!(said(&mut cloud).await, sent[2], "of one resource one after the other");
    cloud.say(sent[2].answer(Content::ok())).await;
    cloud.say(sent[1].answer(Content::ok())).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    node.stop().await;
    let mut node = Node::over(store, settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    let last = of_acme("last");
    send(&node, &last, Delivery::BestEffort).await;
    assert_eq!(said(&mut cloud).await, last, "what was answered is not stored any more");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_cloud_drops_is_sent_again_on_the_same_link() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    let sent = of_acme("a");
    send(&node, &sent, Delivery::Reliable).await;
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(said(&mut cloud).await, sent);
    }
    assert!((20..120).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_never_confirms_is_told_a_few_times_and_the_sender_learns_it() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    let (sent, mut inbox) = (of_acme("a"), node.inbox(&ACME));
    send(&node, &sent, Delivery::Reliable).await;
    let mut times = 0;
    let told = loop {
        tokio::select! {
            message = cloud.next() => times += u32::from(message == sent),
            told = inbox.next() => break told.unwrap().message,
        }
    };
    assert_eq!((times, told.route.operation.as_str()), (5, "error"));
    assert_eq!(told.header.parent, Some(sent.header.id));
}

#[tokio::test(start_paused = true)]
async fn without_a_link_the_newest_waits_and_best_effort_comes_back() {
    let network = Faulty::new(Memory::new(), 1);
    network.set(Faults { unreachable: true, ..Faults::default() });
    let mut node = Node::start(settings(), network.clone()).await;
    let mut inbox = node.inbox(&ACME);
    for n in 0..100 {
        send(&node, &of_acme("speed").with(Content::text(&n.to_string())), Delivery::Newest).await;
    }
    let once = of_acme("once");
    send(&node, &once, Delivery::BestEffort).await;
    let back = heard(&mut inbox).await.message;
    assert_eq!((back.header.parent, back.route.operation), (Some(once.header.id), Operation::ERROR));
    let failed = node.bus.request(&ModuleName::EDGE_HUB, of_acme("ask"), PATIENCE).await.unwrap();
    assert_eq!(failed.route.operation, Operation::ERROR);
    network.set(Faults::default());
    let mut cloud = node.cloud().await;
    let newest = said(&mut cloud).await;
    assert_eq!(newest.content.as_text().unwrap(), "99");
    cloud.say(newest.answer(Content::ok())).await;
    let last = of_acme("last");
    send(&node, &last, Delivery::BestEffort).await;
    assert_eq!(said(&mut cloud).await, last);
}

#[tokio::test(start_paused = true)]
async fn a_request_across_the_link_gets_the_answer_or_fails_with_its_link() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    let ask = || {
        let bus = node.bus.clone();
        tokio::spawn(
            async move { bus.request(&ModuleName::EDGE_HUB, of_acme("ask"), PATIENCE).await.unwrap() },
        )
    };
    let (first, second) = (ask(), ask());
    let questions = [said(&mut cloud).await, said(&mut cloud).await];
    cloud.say(questions[0].answer(Content::text("42"))).await;
    assert_eq!(first.await.unwrap().content.as_text().unwrap(), "42");
    drop(cloud);
    assert_eq!(second.await.unwrap().route.operation, Operation::ERROR);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_a_module_holds_up_neither_control_nor_twins() {
    let mut slow = settings();
    (slow.qps, slow.burst) = (10, 20);
    let mut node = Node::start(slow, Memory::new()).await;
    let mut cloud = node.cloud().await;
    for n in 0..5000 {
        send(&node, &of_acme(&n.to_string()), Delivery::Reliable).await;
    }
    let twin = Message::new(ModuleName::TWIN, Operation::UPDATE, "device/d/e/twin/edge_updated");
    node.bus.send(&ModuleName::EDGE_HUB, twin.in_group(Group::RESOURCE)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let patch = Message::new(ModuleName::EDGED, Operation::PATCH, "default/podpatch/web");
    node.bus.send(&ModuleName::EDGE_HUB, patch.in_group(Group::META)).await.unwrap();
    let (began, mut wanted) = (Instant::now(), vec!["device/d/e/twin/edge_updated", "default/podpatch/web"]);
    while !wanted.is_empty() {
        let message = cloud.next_message().await;
        wanted.retain(|resource| message.route.resource != *resource);
    }
    assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(node.hub.refused(), 0, "nothing of ours was refused for it");
}

#[tokio::test(start_paused = true)]
async fn frames_of_a_vendors_group_are_gos() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    let mut sent = of_acme("a").with(Content::text("x"));
    sent.header.id = "8f2a3c1e-0b7d-4a55-9c1f-1d2e3f405162".into();
    sent.header.timestamp = kubeedge_core::message::Millis(7);
    send(&node, &sent, Delivery::Reliable).await;
    let frame: Frame = loop {
        use futures::StreamExt;
        let frame = cloud.link.rx.next().await.unwrap().unwrap();
        if frame.payload.windows(4).any(|part| part == b"acme") {
            break frame;
        }
    };
    let wanted = r#"{"header":{"msg_id":"8f2a3c1e-0b7d-4a55-9c1f-1d2e3f405162","timestamp":7},"route":{"source":"acme","group":"acme","operation":"update","resource":"a"},"content":"x"}"#;
    assert_eq!(String::from_utf8_lossy(&frame.payload).trim_end(), wanted);
}
