//! What a module hands to the hub arrives, however links and processes end; and what matters goes first.

use std::{collections::BTreeSet, sync::Arc};

use kubeedge_core::{
    kernel::{Module, ModuleContext, Shutdown},
    store::{Bucket, MetaStore, MetaStoreExt, Scan},
};
use kubeedge_edge::{meta::MetaHandle, twin::DeviceTwin};
use kubeedge_store::MemoryStore;

use super::*;

fn upload(n: usize) -> Message {
    Message::new(ModuleName::EVENT_BUS, Operation::UPLOAD, format!("default/topic/{n}"))
        .in_group(Group::USER)
        .with(Content::text(&"x".repeat(100)))
}

fn status(pod: &str, phase: &str) -> Message {
    Message::new(ModuleName::EDGED, Operation::PATCH, format!("default/podpatch/{pod}"))
        .in_group(Group::META)
        .with(Content::text(phase))
}

async fn kept(store: &MemoryStore) -> usize {
    let bucket = Bucket("outbox");
    store.list_as::<serde_json::Value>(Scan::new(bucket, "")).await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn what_waits_without_a_link_outlives_a_restart() {
    let (store, network) = (Arc::new(MemoryStore::new()), Faulty::new(Memory::new(), 1));
    network.set(Faults { unreachable: true, ..Faults::default() });
    let node = Node::over(store.clone(), settings(), network.clone()).await;
    for n in 0..500 {
        node.bus.send(&ModuleName::EDGE_HUB, upload(n)).await.unwrap();
    }
    for phase in ["Pending", "Running"] {
        node.bus.send(&ModuleName::EDGE_HUB, status("web", phase)).await.unwrap();
    }
    node.stop().await;
    assert_eq!(kept(&store).await, 501);
    let network = Memory::new();
    let mut node = Node::over(store.clone(), settings(), network.clone()).await;
    let mut cloud = node.cloud().await;
    let first = cloud.next_message().await;
    assert_eq!(first.content.as_text().unwrap(), "Running");
    cloud.say(first.answer(Content::ok())).await;
    for n in 0..500 {
        assert_eq!(cloud.next_message().await.route.resource, format!("default/topic/{n}").as_str());
    }
    let reading = tokio::spawn(async move { while cloud.try_next().await.is_some() {} });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(kept(&store).await, 0);
    node.stop().await;
    reading.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_written_on_a_dead_link_goes_again_with_the_same_id() {
    let network = Faulty::new(Memory::new(), 1);
    let mut node = Node::start(settings(), network.clone()).await;
    let mut cloud = node.cloud().await;
    cloud.next().await;
    network.set(Faults { drop: 1.0, ..Faults::default() });
    let sent: Vec<_> = (0..10).map(upload).collect();
    for message in &sent {
        node.bus.send(&ModuleName::EDGE_HUB, message.clone()).await.unwrap();
    }
    let mut connected = node.hub.connected();
    connected.wait_for(|up| !up).await.unwrap();
    network.set(Faults::default());
    let mut cloud = node.cloud().await;
    for message in sent {
        assert_eq!(cloud.next_message().await.header.id, message.header.id);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_finds_no_room_is_counted_and_pods_go_on() {
    let network = Faulty::new(Memory::new(), 1);
    network.set(Faults { unreachable: true, ..Faults::default() });
    let mut few = settings();
    few.uploads = 100;
    let mut node = Node::start(few, network.clone()).await;
    for n in 0..150 {
        node.bus.send(&ModuleName::EDGE_HUB, upload(n)).await.unwrap();
    }
    node.bus.send(&ModuleName::EDGE_HUB, status("web", "Running")).await.unwrap();
    network.set(Faults::default());
    let mut cloud = node.cloud().await;
    assert_eq!(cloud.next_message().await.route.resource, "default/podpatch/web");
    assert_eq!(node.hub.refused(), 50);
}

/// A device of each number reports a new value to a DeviceTwin beside the hub.
#[tokio::test(start_paused = true)]
async fn programs_are_told_which_of_their_uploads_found_no_room() {
    let network = Faulty::new(Memory::new(), 1);
    network.set(Faults { unreachable: true, ..Faults::default() });
    let mut few = settings();
    few.uploads = 2;
    let mut node = Node::start(few, network).await;
    let program = |topic: &str| {
        Message::new(ModuleName::of("bus"), Operation::UPLOAD, topic)
            .in_group(Group::USER)
            .with(Content::text("1"))
    };
    for topic in ["a/user/x", "a/user/x", "a/user/x", "b/user/y", "b/user/y"] {
        node.bus.send(&ModuleName::EDGE_HUB, program(topic)).await.unwrap();
    }
    let mut counted = 0;
    let mut topics = BTreeSet::new();
    while counted < 3 {
        let told = node.received(&ModuleName::EVENT_BUS).await;
        let (operation, resource) = (told.route.operation.as_str(), told.route.resource.as_str());
        assert_eq!((operation, resource), ("publish", "$hw/events/node/edge-1/upload/refused"));
        let said: serde_json::Value = serde_json::from_str(&told.content.as_text().unwrap()).unwrap();
        assert_eq!(said["reason"], "too much waits for the cloud");
        counted += said["count"].as_u64().unwrap();
        topics.extend(said["topics"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()));
    }
    assert_eq!(topics, BTreeSet::from(["a/user/x".to_owned(), "b/user/y".to_owned()]));
    assert_eq!((counted, node.hub.refused()), (3, 3));
    // A flood is one word a second.
    let began = Instant::now();
    for _ in 0..1000 {
        node.bus.send(&ModuleName::EDGE_HUB, program("a/user/x")).await.unwrap();
    }
    let (mut words, mut refused) = (0, 0);
    while refused < 1000 {
        let told = node.received(&ModuleName::EVENT_BUS).await;
        let said: serde_json::Value = serde_json::from_str(&told.content.as_text().unwrap()).unwrap();
        (words, refused) = (words + 1, refused + said["count"].as_u64().unwrap());
    }
    assert!(words <= 1 + began.elapsed().as_secs(), "{words} words in {:?}", began.elapsed());
}

async fn report(node: &Node, devices: usize) {
    let members: Vec<_> = (0..devices)
        .map(|n| serde_json::json!({"id": format!("default/d{n}"), "name": format!("d{n}")}))
        .collect();
    let content = serde_json::json!({"event_id": "m", "timestamp": 1, "added_devices": members});
    let membership = Message::new(ModuleName::DEVICE_CONTROLLER, Operation::UPDATE, "membership")
        .in_group(Group::TWIN)
        .with(Content::json(&content).unwrap());
    node.bus.send(&ModuleName::TWIN, membership).await.unwrap();
    for n in 0..devices {
        let topic = format!("$hw/events/device/default/d{n}/twin/update");
        let resource = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE, topic);
        let value = r#"{"event_id":"e","timestamp":0,"twin":{"t":{"actual":{"value":"1"}}}}"#;
        let update = Message::new(ModuleName::of("bus"), Operation::RESPONSE, resource)
            .in_group(Group::USER)
            .with(Content::text(value));
        node.bus.send(&ModuleName::TWIN, update).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_no_tenth_of_a_second_behind_three_thousand_twins_and_uploads() {
    let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut mqtt = node.inbox(&ModuleName::EVENT_BUS);
    tokio::spawn(async move { while mqtt.next().await.is_some() {} });
    let meta = MetaHandle::over(store.clone());
    let twin = DeviceTwin::new("edge-1".into(), store, meta, Vec::new());
    let mut ctx = ModuleContext::new(node.bus.clone(), node.inbox(&ModuleName::TWIN), Shutdown::new());
    let mut running = twin;
    tokio::spawn(async move { running.run(&mut ctx).await.unwrap() });
    let mut cloud = node.cloud().await;
    report(&node, 3000).await;
    for n in 0..3000 {
        node.bus.send(&ModuleName::EDGE_HUB, upload(n)).await.unwrap();
    }
    let (mut twins, mut asked, mut waited) = (0, None, Vec::new());
    while twins < 3000 {
        let message = cloud.next_message().await;
        let resource = message.route.resource.as_str();
        if resource.ends_with("edge_updated") {
            twins += 1;
            let mut ok = message.answer(Content::ok()).in_group(Group::TWIN);
            ok.route.source = ModuleName::DEVICE_CONTROLLER;
            cloud.say(ok).await;
        } else if resource.starts_with("default/podpatch") {
            let since: Instant = asked.take().unwrap();
            waited.push(since.elapsed());
            cloud.say(message.answer(Content::ok())).await;
        }
        // Ten pods in the midst of it, one after the other.
        if asked.is_none() && twins > 100 && waited.len() < 10 {
            asked = Some(Instant::now());
            let pod = waited.len().to_string();
            node.bus.send(&ModuleName::EDGE_HUB, status(&pod, "Running")).await.unwrap();
        }
    }
    assert_eq!(waited.len(), 10);
    assert!(waited.iter().all(|waited| *waited < Duration::from_millis(100)), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_cloud_passes_twins_and_devices_that_nobody_has_read_yet() {
    let mut node = Node::start(settings(), Memory::new()).await;
    let mut cloud = node.cloud().await;
    node.received(&ModuleName::META_MANAGER).await;
    for n in 0..1000 {
        let twin = Message::new(ModuleName::DEVICE_CONTROLLER, Operation::UPDATE, "membership");
        cloud.say(twin.in_group(Group::TWIN)).await;
        let device =
            Message::new(ModuleName::DEVICE_CONTROLLER, Operation::UPDATE, format!("default/device/{n}"));
        cloud.say(device.in_group(Group::RESOURCE)).await;
    }
    cloud.say(pod("web")).await;
    cloud.say(pod("db")).await;
    let mut meta = node.inbox(&ModuleName::META_MANAGER);
    let mut read = Vec::new();
    while read.len() < 1002 {
        // As long as a commit takes.
        let envelope = meta.next().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        read.push(envelope.message.route.resource.as_str().to_owned());
    }
    let at = |name: &str| read.iter().position(|read| read == name).unwrap();
    assert!(at("default/pod/web") < 15, "{}", at("default/pod/web"));
    assert!(at("default/pod/web") < at("default/pod/db"));
    let devices: Vec<_> = read.iter().filter(|read| read.starts_with("default/device")).collect();
    assert!(devices.iter().enumerate().all(|(n, read)| **read == format!("default/device/{n}")));
}
