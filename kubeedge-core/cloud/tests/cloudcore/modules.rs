//! Vendors' modules across the links, from the cloud's end.

use std::time::Duration;

use async_trait::async_trait;
use kubeedge_cloud::hub::NodeEvent;
use kubeedge_core::{
    bus::{Bus, Envelope},
    failure::BoxError,
    kernel::{Module, ModuleContext},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    routes::{Delivery, Routes},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::edge::{Cloud, Edge, settings};

const ACME: ModuleName = ModuleName::of("acme");
const WAIT: Duration = Duration::from_secs(60);

/// A module of a vendor's that hands everything to the test.
#[derive(Clone)]
struct Vendor {
    bus: mpsc::UnboundedSender<Bus>,
    heard: mpsc::UnboundedSender<Envelope>,
}

#[async_trait]
impl Module for Vendor {
    fn name(&self) -> ModuleName {
        ACME
    }

    fn group(&self) -> Group {
        Group::USER
    }

    fn routes(&self) -> Routes {
        Routes::new().group(Group::of("acme"))
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        self.bus.send(ctx.bus.clone())?;
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                Some(envelope) = ctx.inbox.next() => self.heard.send(envelope)?,
            }
        }
    }
}

struct World {
    cloud: Cloud,
    bus: Bus,
    heard: mpsc::UnboundedReceiver<Envelope>,
}

impl World {
    async fn start() -> Self {
        let ((bus, mut handed), (heard, hears)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let vendor = Vendor { bus, heard };
        let cloud = Cloud::start_with(settings(), |assembly| assembly.module(vendor)).await;
        Self { cloud, bus: handed.recv().await.unwrap(), heard: hears }
    }

    async fn heard(&mut self) -> Envelope {
        tokio::time::timeout(WAIT, self.heard.recv()).await.expect("nothing came").unwrap()
    }

    async fn send(&self, message: &Message, delivery: Delivery) {
        let envelope = Envelope::new(message.clone()).deliver(delivery);
        self.bus.forward(&ModuleName::CLOUD_HUB, envelope).await.unwrap();
    }
}

fn to_edge(resource: &str) -> Message {
    Message::new(ACME, Operation::UPDATE, format!("node/edge-1/{resource}")).in_group(Group::of("acme"))
}

async fn until(is_so: impl Fn() -> bool) {
    let waits = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, waits).await.expect("it is not so in time");
}

async fn of_acme(edge: &mut Edge) -> Message {
    edge.expect("a message of acme", |message| message.route.group == "acme").await
}

#[tokio::test]
async fn a_nodes_message_reaches_the_module_of_its_group_and_the_answer_goes_back() {
    let mut world = World::start().await;
    let mut edge = world.cloud.edge("edge-1").await;
    let told = edge.tell("acme", "acme", "update", "orders/7", json!("bread")).await;
    let envelope = world.heard().await;
    assert_eq!(envelope.message.route.resource, "node/edge-1/orders/7");
    assert_eq!(envelope.message.header.id, told.header.id);
    envelope.answer(Content::text("baked"));
    let answer = of_acme(&mut edge).await;
    assert_eq!((answer.header.parent, answer.route.resource.as_str()), (Some(told.header.id), "orders/7"));
    assert_eq!(answer.content.as_text().unwrap(), "baked");

    let told = edge.tell("acme", "acme", "update", "orders/8", Value::Null).await;
    world.heard().await.fail("no flour");
    let answer = of_acme(&mut edge).await;
    assert_eq!((answer.header.parent, answer.route.operation.as_str()), (Some(told.header.id), "error"));

    let told = edge.tell("acme", "other", "update", "orders/9", Value::Null).await;
    let answer = edge.expect("the refusal", |m| m.header.parent.as_ref() == Some(&told.header.id)).await;
    assert_eq!(answer.route.operation, Operation::ERROR);
    assert_eq!(answer.content.as_text().unwrap(), "no module of the cloud takes group other");
    world.cloud.stop().await;
}

#[tokio::test]
async fn a_reliable_message_waits_for_its_node_and_is_sent_on_each_link_until_it_is_answered() {
    let mut world = World::start().await;
    let sent = to_edge("recipes/bread").with(Content::text("rye"));
    let (envelope, answered) = Envelope::with_reply(sent.clone());
    let envelope = envelope.deliver(Delivery::Reliable);
    world.bus.forward(&ModuleName::CLOUD_HUB, envelope).await.unwrap();
    for _ in 0..2 {
        let mut edge = world.cloud.dial("edge-1").await.unwrap();
        let got = of_acme(&mut edge).await;
        assert_eq!((&got.header.id, got.route.resource.as_str()), (&sent.header.id, "recipes/bread"));
    }
    let mut edge = world.cloud.dial("edge-1").await.unwrap();
    let got = of_acme(&mut edge).await;
    edge.send(&got.answer(Content::text("thanks"))).await;
    let answer = tokio::time::timeout(WAIT, answered).await.unwrap().unwrap();
    assert_eq!(answer.content.as_text().unwrap(), "thanks");
    drop(edge);
    let mut edge = world.cloud.dial("edge-1").await.unwrap();
    let last = to_edge("last");
    until(|| world.cloud.status.sessions.has(&"edge-1".into())).await;
    world.send(&last, Delivery::Reliable).await;
    assert_eq!(of_acme(&mut edge).await.header.id, last.header.id, "what was answered is not sent again");
    // An error that nobody waits for comes to the sender's mailbox.
    let mut refusal = last.error_answer("no module of edge-1 takes group acme");
    refusal.route.resource = "last".into();
    edge.send(&refusal).await;
    let told = world.heard().await.message;
    assert_eq!((told.header.parent, told.route.operation), (Some(last.header.id), Operation::ERROR));
    world.cloud.stop().await;
}

#[tokio::test]
async fn a_request_to_a_node_gets_its_answer_and_fails_where_there_is_no_link() {
    let world = World::start().await;
    let ask = |message: Message| {
        let bus = world.bus.clone();
        tokio::spawn(async move { bus.request(&ModuleName::CLOUD_HUB, message, WAIT).await })
    };
    let failed = ask(to_edge("ask")).await.unwrap().unwrap();
    assert_eq!(failed.content.as_text().unwrap(), "not connected, the message was not sent");
    let lost = ask(Message::new(ACME, Operation::UPDATE, "nowhere").in_group(Group::of("acme")));
    assert_eq!(lost.await.unwrap().unwrap().route.operation, Operation::ERROR);
    let mut edge = world.cloud.edge("edge-1").await;
    let asked = ask(to_edge("ask"));
    let question = of_acme(&mut edge).await;
    edge.send(&question.answer(Content::text("42"))).await;
    assert_eq!(asked.await.unwrap().unwrap().content.as_text().unwrap(), "42");
    let asked = ask(to_edge("ask"));
    of_acme(&mut edge).await;
    drop(edge);
    assert_eq!(asked.await.unwrap().unwrap().route.operation, Operation::ERROR);
    world.cloud.stop().await;
}

#[tokio::test]
async fn one_message_for_several_nodes_goes_to_each() {
    let world = World::start().await;
    let mut edges = [world.cloud.edge("a").await, world.cloud.edge("b").await];
    let message = Message::new(ACME, Operation::UPDATE, "all").in_group(Group::of("acme"));
    let envelope = Envelope::for_nodes(message, ["a".into(), "b".into()]).deliver(Delivery::Reliable);
    world.bus.forward(&ModuleName::CLOUD_HUB, envelope).await.unwrap();
    for edge in &mut edges {
        assert_eq!(of_acme(edge).await.route.resource, "all");
    }
    world.cloud.stop().await;
}

#[tokio::test]
async fn a_module_that_does_not_answer_holds_up_neither_its_nodes_nor_others() {
    let mut world = World::start().await;
    let mut flood = world.cloud.edge("flood").await;
    let mut quiet = world.cloud.edge("quiet").await;
    for n in 0..3000 {
        flood.tell("acme", "acme", "update", &n.to_string(), Value::Null).await;
    }
    // The flooding node's own questions are answered, and the other's messages have their turn.
    let lease = flood.ask("query", "kube-node-lease/lease/flood", Value::Null).await;
    assert_eq!(lease.route.operation, Operation::RESPONSE);
    quiet.tell("acme", "acme", "update", "mine", Value::Null).await;
    let mut held = Vec::new();
    loop {
        let envelope = world.heard().await;
        if envelope.message.route.resource == "node/quiet/mine" {
            break;
        }
        held.push(envelope);
    }
    assert!(held.len() <= 33, "{} messages of the flood went first", held.len());
    world.cloud.stop().await;
}

#[tokio::test]
async fn modules_hear_nodes_come_and_go_from_the_present_state_on() {
    let world = World::start().await;
    let sessions = world.cloud.status.sessions.clone();
    let mut early = sessions.subscribe();
    let next = async |events: &mut kubeedge_cloud::hub::NodeEvents| {
        tokio::time::timeout(WAIT, events.next()).await.expect("no event")
    };
    let edge = world.cloud.dial("edge-1").await.unwrap();
    assert_eq!(next(&mut early).await, NodeEvent::Connected("edge-1".into()));
    let mut late = sessions.subscribe();
    assert_eq!(next(&mut late).await, NodeEvent::Connected("edge-1".into()));
    let again = world.cloud.dial("edge-1").await.unwrap();
    assert_eq!(next(&mut early).await, NodeEvent::Connected("edge-1".into()), "a new link");
    drop((edge, again));
    assert_eq!(next(&mut early).await, NodeEvent::Disconnected("edge-1".into()));
    // One that is far behind hears what has changed between what it knows and the present.
    for _ in 0..200 {
        let edge = world.cloud.dial("edge-2").await.unwrap();
        until(|| sessions.has(&"edge-2".into())).await;
        drop(edge);
        until(|| sessions.count() == 0).await;
    }
    let _edge = world.cloud.dial("edge-3").await.unwrap();
    until(|| sessions.has(&"edge-3".into())).await;
    let mut heard = vec![next(&mut late).await];
    while heard.last() != Some(&NodeEvent::Connected("edge-3".into())) {
        heard.push(next(&mut late).await);
    }
    assert_eq!(heard, [NodeEvent::Disconnected("edge-1".into()), NodeEvent::Connected("edge-3".into())]);
    world.cloud.stop().await;
}

#[tokio::test]
async fn what_waits_in_a_cloud_that_ends_fails() {
    let world = World::start().await;
    let (envelope, answered) = Envelope::with_reply(to_edge("a"));
    let envelope = envelope.deliver(Delivery::Reliable);
    world.bus.forward(&ModuleName::CLOUD_HUB, envelope).await.unwrap();
    let World { cloud, bus, heard } = world;
    drop(heard);
    drop(bus);
    cloud.stop().await;
    assert!(answered.await.is_err());
}
