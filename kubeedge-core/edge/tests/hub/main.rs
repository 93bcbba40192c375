//! EdgeHub against a cloud that is played: over memory for the link, over real HTTPS for the certificates.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of a test"
)]

mod cloud;
mod cuts;
mod delivery;
mod join;
mod modules;
mod quic;

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    bus::RequestError,
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    transport::Frame,
};
use kubeedge_edge::hub::EdgeHubError;
use kubeedge_transport::{Faults, Faulty, Memory};
use tokio::time::Instant;

use self::cloud::{Node, settings};

fn query() -> Message {
    Message::new(ModuleName::EDGED, Operation::QUERY, "default/configmap/app").in_group(Group::META)
}

fn pod(name: &str) -> Message {
    Message::new(ModuleName::EDGE_CONTROLLER, Operation::INSERT, format!("default/pod/{name}"))
        .in_group(Group::RESOURCE)
        .at_version("7")
        .with(Content::from_json_bytes(r#"{"kind":"Pod"}"#).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_node_that_connects_says_who_it_is_and_tells_its_modules() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let cloud = node.cloud().await;
    assert_eq!(cloud.peer.path, "/e632aba927ea4ac2b575ec1603d56f10/edge-1/events");
    for (name, value) in
        [("node_id", "edge-1"), ("project_id", "e632aba927ea4ac2b575ec1603d56f10"), ("ConnectionUse", "msg")]
    {
        assert_eq!(cloud.peer.claim(name), Some(value), "{name}");
    }
    for module in [
        ModuleName::META_MANAGER,
        ModuleName::TWIN,
        ModuleName::EVENT_BUS,
        ModuleName::SERVICE_BUS,
        ModuleName::TASK_MANAGER,
    ] {
        let event = node.received(&module).await;
        assert_eq!(event.route.source, "edgehub");
        assert_eq!(event.route.operation, Operation::CONNECT);
        assert_eq!(event.route.resource, "node/connection");
        assert_eq!(event.content.as_text().unwrap(), "cloud_connected", "{module}");
    }
    assert!(*node.hub.connected().borrow());
    drop(cloud);
    let event = node.received(&ModuleName::META_MANAGER).await;
    assert_eq!(event.content.as_text().unwrap(), "cloud_disconnected");
}

#[tokio::test(start_paused = true)]
async fn an_asker_gets_the_answer_to_its_own_question_whatever_the_order() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    let (first, second) = (query(), query());
    let ask = |message: &Message| {
        let (bus, message) = (node.bus.clone(), message.clone());
        tokio::spawn(
            async move { bus.request(&ModuleName::EDGE_HUB, message, Duration::from_secs(60)).await },
        )
    };
    let answers = [(ask(&first), &first, "one"), (ask(&second), &second, "two")];
    let asked = [cloud.next_message().await, cloud.next_message().await];
    assert!(asked.iter().all(|message| !message.header.sync));
    for (question, text) in [(&second, "two"), (&first, "one")] {
        let mut answer = question.answer(Content::text(text));
        (answer.route.source, answer.route.group) = (ModuleName::EDGE_CONTROLLER, Group::RESOURCE);
        cloud.say(answer).await;
    }
    for (answer, question, text) in answers {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.header.parent.as_ref(), Some(&question.header.id));
        assert_eq!(answer.content.as_text().unwrap(), text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_link_fails_at_once_and_says_why() {
    let network = Faulty::new(Memory::new(), 1);
    network.set(Faults { unreachable: true, ..Faults::default() });
    let node = Node::start(settings(), network).await;
    let began = Instant::now();
    let answer = node.bus.request(&ModuleName::EDGE_HUB, query(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(answer.route.operation, Operation::ERROR);
    assert_eq!(answer.content.as_text().unwrap(), "not connected to the cloud, the request was not sent");
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_link_breaks_fails_at_once() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    let bus = node.bus.clone();
    let asked =
        tokio::spawn(
            async move { bus.request(&ModuleName::EDGE_HUB, query(), Duration::from_secs(60)).await },
        );
    cloud.next_message().await;
    let began = Instant::now();
    drop(cloud);
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.route.operation, Operation::ERROR);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_nobody_waits_for_any_more_goes_to_metamanager() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    node.received(&ModuleName::META_MANAGER).await;
    let short = node.bus.request(&ModuleName::EDGE_HUB, query(), Duration::from_secs(1)).await;
    assert!(matches!(short, Err(RequestError::Late(..))));
    let mut late = cloud.next_message().await.answer(Content::ok());
    (late.route.source, late.route.group) = (ModuleName::EDGE_CONTROLLER, Group::RESOURCE);
    cloud.say(late.clone()).await;
    assert_eq!(node.received(&ModuleName::META_MANAGER).await, late);
}

#[tokio::test(start_paused = true)]
async fn a_keepalive_goes_out_at_once_and_every_heartbeat_past_a_flood_of_messages() {
    let mut slow = settings();
    (slow.qps, slow.burst) = (1, 1);
    let mut node = Node::start(slow, Memory::new()).await;
    let mut cloud = node.cloud().await;
    for n in 0..500 {
        let upload = Message::new(ModuleName::of("bus"), Operation::UPLOAD, format!("user/{n}"));
        node.bus.send(&ModuleName::EDGE_HUB, upload.in_group(Group::USER)).await.unwrap();
    }
    let (began, mut beats, mut others) = (Instant::now(), Vec::new(), 0);
    while beats.len() < 4 {
        let message = cloud.next().await;
        if message.route.operation == Operation::KEEPALIVE {
            assert_eq!(
                (message.route.source, message.route.resource.as_str()),
                (ModuleName::EDGE_HUB, "node")
            );
            assert_eq!(message.content.as_text().unwrap(), "ping");
            beats.push(began.elapsed().as_secs());
        } else {
            others += 1;
        }
    }
    assert_eq!(beats, [0, 15, 30, 45]);
    assert!((40..=50).contains(&others), "{others} messages in 45 s at one a second");
}

#[tokio::test(start_paused = true)]
async fn a_cut_link_is_made_anew_soon_and_nothing_that_waited_is_lost() {
    let network = Faulty::new(Memory::new(), 3);
    let mut node = Node::start(settings(), network.clone()).await;
    let mut cloud = node.cloud().await;
    cloud.next().await;
    network.set(Faults { cut_after: Some(1), ..Faults::default() });
    let began = Instant::now();
    for n in 0..10 {
        let patch = Message::new(ModuleName::EDGED, Operation::PATCH, format!("default/podpatch/{n}"));
        node.bus.send(&ModuleName::EDGE_HUB, patch).await.unwrap();
    }
    let mut down = node.hub.connected();
    down.wait_for(|up| !up).await.unwrap();
    network.set(Faults::default());
    let mut cloud = node.cloud().await;
    assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
    for n in 0..10 {
        let message = cloud.next_message().await;
        assert_eq!(message.route.resource, format!("default/podpatch/{n}").as_str());
    }
    let texts = [(); 3].map(|()| ());
    let mut told = Vec::new();
    for () in texts {
        told.push(node.received(&ModuleName::TWIN).await.content.as_text().unwrap().into_owned());
    }
    assert_eq!(told, ["cloud_connected", "cloud_disconnected", "cloud_connected"]);
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_stays_away_is_dialled_with_growing_pauses() {
    let network = Memory::new();
    let mut several = settings();
    several.servers = vec!["cloud".to_owned(), "other".to_owned()];
    let mut node = Node::start(several, network.clone()).await;
    drop(node.cloud().await);
    node.close_door();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let began = Instant::now();
    node.open_door("other").await;
    node.cloud().await;
    assert!(began.elapsed() <= Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_no_message_is_skipped_and_the_link_lives() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    node.received(&ModuleName::META_MANAGER).await;
    for bad in ["", "{", r#"{"header":{"timestamp":1.5}}"#, "\u{0}\u{1}"] {
        cloud.link.tx.send(Frame::text(bad)).await.unwrap();
    }
    cloud.say(pod("web")).await;
    assert_eq!(node.received(&ModuleName::META_MANAGER).await.route.resource, "default/pod/web");
    assert!(*node.hub.connected().borrow());
}

#[tokio::test(start_paused = true)]
async fn a_module_that_does_not_read_holds_up_neither_answers_nor_keepalives_nor_others() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    for n in 0..5000 {
        cloud.say(pod(&n.to_string())).await;
    }
    let bus = node.bus.clone();
    let asked =
        tokio::spawn(
            async move { bus.request(&ModuleName::EDGE_HUB, query(), Duration::from_secs(60)).await },
        );
    let question = cloud.next_message().await;
    cloud.say(question.answer(Content::ok())).await;
    assert!(asked.await.unwrap().unwrap().content.is_ok_text());
    let twin =
        Message::new(ModuleName::DEVICE_CONTROLLER, Operation::UPDATE, "device/default/d/twin/cloud_updated");
    cloud.say(twin.in_group(Group::TWIN)).await;
    node.received(&ModuleName::TWIN).await;
    assert_eq!(node.received(&ModuleName::TWIN).await.route.group, Group::TWIN);
    // In order, from the first on, once it reads.
    node.received(&ModuleName::META_MANAGER).await;
    for n in 0..1024 {
        let wanted = format!("default/pod/{n}");
        assert_eq!(node.received(&ModuleName::META_MANAGER).await.route.resource, wanted.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_is_asked_and_says_nothing_is_left() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    let began = Instant::now();
    let bus = node.bus.clone();
    let asked =
        tokio::spawn(
            async move { bus.request(&ModuleName::EDGE_HUB, query(), Duration::from_secs(60)).await },
        );
    // Its end of the link is there and answers pings.
    while cloud.try_next().await.is_some() {}
    assert!(matches!(asked.await.unwrap(), Err(RequestError::Late(..))));
    let left = began.elapsed();
    assert!((90..=120).contains(&left.as_secs()), "{left:?}");
    node.cloud().await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_went_dead_is_left_within_two_heartbeats() {
    let network = Faulty::new(Memory::new(), 5);
    let mut node = Node::start(settings(), network.clone()).await;
    let mut cloud = node.cloud().await;
    let reading = tokio::spawn(async move { while cloud.try_next().await.is_some() {} });
    // Quiet, but alive.
    tokio::time::sleep(Duration::from_secs(607)).await;
    assert!(*node.hub.connected().borrow());
    network.set(Faults { drop: 1.0, ..Faults::default() });
    let broke = Instant::now();
    let mut connected = node.hub.connected();
    connected.wait_for(|up| !up).await.unwrap();
    assert!(broke.elapsed() <= Duration::from_secs(30), "{:?}", broke.elapsed());
    network.set(Faults::default());
    node.cloud().await;
    assert!(broke.elapsed() <= Duration::from_secs(32), "{:?}", broke.elapsed());
    reading.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_link_layers_own_messages_are_confirmed_and_go_no_further() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    node.received(&ModuleName::META_MANAGER).await;
    let ping = Message::new(ModuleName::CLOUD_HUB, Operation::of("ping"), "x").in_group(Group::RESOURCE);
    cloud.say(ping.clone()).await;
    let answer = cloud.next_message().await;
    assert_eq!(answer.header.parent, Some(ping.header.id));
    assert_eq!(answer.content.as_text().unwrap(), "ack");
    cloud.say(pod("web")).await;
    assert_eq!(node.received(&ModuleName::META_MANAGER).await.route.resource, "default/pod/web");
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_frame_go_cloudcore_sends_reaches_its_module_or_its_asker() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    for module in [ModuleName::META_MANAGER, ModuleName::TWIN] {
        node.received(&module).await;
    }
    let frames = include_str!("../data/go-cloud-frames.jsonl");
    let (mut answers, mut meta, mut twin) = (0, 0, 0);
    for line in frames.lines() {
        let frame: serde_json::Value = serde_json::from_str(line).unwrap();
        let (header, route) = (&frame["header"], &frame["route"]);
        let id = header["msg_id"].as_str().unwrap();
        let asks = header["parent_msg_id"].as_str().filter(|_| route["group"] == "resource");
        let asked = asks.map(|parent| {
            let mut question = query();
            question.header.id = parent.into();
            let bus = node.bus.clone();
            tokio::spawn(
                async move { bus.request(&ModuleName::EDGE_HUB, question, Duration::from_secs(9)).await },
            )
        });
        if asked.is_some() {
            cloud.next_message().await;
        }
        cloud.link.tx.send(Frame::text(format!("{line}\n").into_bytes())).await.unwrap();
        let got = match asked {
            Some(asked) => {
                answers += 1;
                asked.await.unwrap().unwrap()
            }
            None if route["group"] == "twin" => {
                twin += 1;
                node.received(&ModuleName::TWIN).await
            }
            None => {
                meta += 1;
                node.received(&ModuleName::META_MANAGER).await
            }
        };
        assert_eq!(got.header.id.as_str(), id);
        let content: serde_json::Value = serde_json::from_slice(got.content.as_json()).unwrap();
        assert_eq!(content, frame["content"]);
    }
    assert_eq!((answers, meta, twin), (10, 14, 2));
}

#[tokio::test(start_paused = true)]
async fn a_hub_started_anew_after_a_failure_connects_again_and_tells_of_the_break() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let _cloud = node.cloud().await;
    node.received(&ModuleName::META_MANAGER).await;
    node.restart().await;
    let _cloud = node.cloud().await;
    for text in ["cloud_disconnected", "cloud_connected"] {
        assert_eq!(node.received(&ModuleName::META_MANAGER).await.content.as_text().unwrap(), text);
    }
}

#[tokio::test]
async fn a_hub_without_server_or_node_says_so() {
    let mut no_server = settings();
    no_server.servers.clear();
    let cases = [("edge-1", no_server, EdgeHubError::NoServer), ("", settings(), EdgeHubError::NoNode)];
    for (node, settings, error) in cases {
        let failed = cloud::start_error(node, settings, Arc::new(Memory::new())).await;
        assert_eq!(failed.downcast_ref(), Some(&error));
    }
}
