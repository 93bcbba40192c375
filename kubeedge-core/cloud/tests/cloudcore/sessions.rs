//! Sessions that come, go and are crowded: the last one of a node counts, and no object is lost.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use kubeedge_core::{
    message::{Content, Message},
    name::{Group, ModuleName, NodeName, Operation},
};

use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_pod_passes_thousands_of_twins_and_devices_that_wait() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.edge("edge-1").await;
    let mut other = cloud.edge("edge-2").await;
    cloud.cluster.create(&format!("{DEVICES}/devicemodels"), model());
    for n in 0..3000 {
        cloud.cluster.create(&format!("{DEVICES}/devices"), device(&format!("t{n}"), "thermo"));
    }
    // The last of them is on its way, and the edge has read nothing so far.
    let mut last = device("last", "thermo");
    last["spec"]["nodeName"] = "edge-2".into();
    cloud.cluster.create(&format!("{DEVICES}/devices"), last);
    other.expect_object("insert", "default/device/last").await;
    cloud.cluster.create("/api/v1/namespaces/default/pods", pod("urgent", "edge-1"));
    cloud.cluster.create("/api/v1/namespaces/default/pods", pod("after", "edge-2"));
    other.expect_object("insert", "default/pod/after").await;
    let mut before = 0;
    loop {
        let message = edge.next().await.unwrap();
        if message.route.resource == "default/pod/urgent" {
            break;
        }
        before += 1;
    }
    // What the link holds already, and what goes while the pod's record is made.
    assert!(before <= 300, "{before} frames went before the pod");
    cloud.stop().await;
}

#[tokio::test]
async fn while_an_edge_has_objects_to_confirm_what_goes_to_it_goes_in_few_pushes() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.edge("edge-1").await;
    cloud.cluster.create(PODS, pod("web", "edge-1"));
    edge.expect_object("insert", "default/pod/web").await;
    let pushes = || cloud.network.pushes.load(Ordering::Relaxed);
    let (begun, before) = (Instant::now(), pushes());
    for _ in 0..100 {
        edge.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
    }
    // The first few go at once, then a hundred a second.
    let most = 20 + begun.elapsed().as_millis() as usize / 10;
    let pushed = pushes() - before;
    assert!(pushed <= most, "{pushed} pushes; {most} are allowed");
    cloud.stop().await;
}

#[tokio::test]
async fn however_much_an_edge_says_at_once_all_of_it_is_heard() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.dial("edge-1").await.unwrap();
    let mut asked = Vec::new();
    for _ in 0..1000 {
        let question = edge.tell("edgehub", "resource", "ping", "node", Value::Null).await;
        asked.push(question.header.id);
    }
    for (n, id) in asked.iter().enumerate() {
        let answer = edge.next().await.unwrap();
        assert_eq!(answer.header.parent.as_ref(), Some(id), "the answer to question {n} is missing");
    }
    cloud.stop().await;
}

#[tokio::test]
async fn the_newest_connection_of_a_node_wins() {
    let cloud = Cloud::start(settings()).await;
    let mut first = cloud.edge("edge-1").await;
    let mut second = cloud.dial("edge-1").await.unwrap();
    while first.next().await.is_some() {}
    let lease = second.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
    assert_eq!(body(&lease)["Object"], Value::Null);
    assert_eq!(body(&lease)["Err"]["ErrStatus"]["reason"], "NotFound");
    assert_eq!(cloud.status.sessions.count(), 1);
    assert!(cloud.status.sessions.has(&NodeName::from("edge-1")));
    cloud.stop().await;
}

#[tokio::test]
async fn a_thousand_fast_reconnects_leave_one_session_and_the_last_one_works() {
    let cloud = Cloud::start(settings()).await;
    drop(cloud.edge("edge-1").await);
    let made = cloud.cluster.create(PODS, pod("web", "edge-1"));
    let mut last = cloud.dial("edge-1").await.unwrap();
    for n in 0..1000 {
        let next = cloud.dial("edge-1").await.unwrap();
        // Some go at once, some are left standing and must be ended by the cloud.
        if n % 2 == 0 {
            drop(std::mem::replace(&mut last, next));
        } else {
            let mut earlier = std::mem::replace(&mut last, next);
            while earlier.next().await.is_some() {}
        }
    }
    // By EdgeController, or by the reconciliation as an update.
    let pushed = last.expect("the pod", |m| m.route.resource == "default/pod/web").await;
    last.ack(&pushed).await;
    cloud.cluster.until(&record("edge-1", &made), |sync| confirmed(sync) == version(&made)).await;
    assert_eq!(cloud.status.sessions.count(), 1);
    drop(last);
    let gone = async {
        while cloud.status.sessions.count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the last session ends with its link");
    cloud.stop().await;
}

#[tokio::test]
async fn objects_for_which_a_session_has_no_room_reach_the_edge_all_the_same() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.edge("edge-1").await;
    let large = |n: usize| {
        let mut large = pod(&format!("p{n}"), "edge-1");
        large["metadata"]["annotations"] = json!({"large": "x".repeat(1 << 20)});
        large
    };
    let made: Vec<_> = (0..48).map(|n| cloud.cluster.create(PODS, large(n))).collect();
    // More than the session holds waits now: those beyond have their record.
    cloud.cluster.until(&record("edge-1", &made[47]), |sync| confirmed(sync) == "0").await;
    let mut seen = BTreeSet::new();
    while seen.len() < made.len() {
        let message = edge.expect("a pod", |m| m.route.resource.as_str().starts_with("default/pod/p")).await;
        edge.ack(&message).await;
        seen.insert(message.route.resource);
    }
    for made in &made {
        cloud.cluster.until(&record("edge-1", made), |sync| confirmed(sync) == version(made)).await;
    }
    cloud.stop().await;
}

#[tokio::test]
async fn objects_made_while_sessions_break_off_all_reach_the_edge() {
    let cloud = Cloud::start(settings()).await;
    drop(cloud.edge("edge-1").await);
    let (mut made, mut seen) = (Vec::new(), BTreeSet::new());
    for round in 0..20 {
        let mut edge = cloud.dial("edge-1").await.unwrap();
        for n in 0..5 {
            made.push(cloud.cluster.create(PODS, pod(&format!("p{round}-{n}"), "edge-1")));
        }
        // Some are read, fewer confirmed, and then the link is gone.
        for n in 0..round % 5 {
            let message = edge.expect("a pod", |m| m.route.resource.as_str().contains("/pod/")).await;
            if n % 2 == 0 {
                edge.ack(&message).await;
                seen.insert(message.route.resource);
            }
        }
    }
    let mut edge = cloud.dial("edge-1").await.unwrap();
    while seen.len() < made.len() {
        let message = edge.expect("a pod", |m| m.route.resource.as_str().contains("/pod/")).await;
        edge.ack(&message).await;
        seen.insert(message.route.resource);
    }
    for made in &made {
        cloud.cluster.until(&record("edge-1", made), |sync| confirmed(sync) == version(made)).await;
    }
    cloud.stop().await;
}

#[tokio::test]
async fn a_sender_that_waits_learns_whether_its_message_was_taken() {
    let cloud = Cloud::start(settings()).await;
    let bus = cloud.bus.clone();
    let publish = |node: &str| {
        let message =
            Message::new("router_eventbus".into(), Operation::PUBLISH, format!("node/{node}/topic"));
        let message = message.in_group(Group::USER).with(Content::text("hello"));
        let bus = bus.clone();
        async move { bus.request(&ModuleName::CLOUD_HUB, message, Duration::from_secs(60)).await.unwrap() }
    };
    let mut edge = cloud.edge("edge-1").await;
    assert!(publish("edge-1").await.content.is_ok_text());
    edge.expect_object("publish", "topic").await;
    let refused = publish("edge-2").await;
    assert_eq!(refused.route.operation, Operation::ERROR);
    assert_eq!(refused.content.as_text().unwrap(), "the node is not connected");
    cloud.stop().await;
}
