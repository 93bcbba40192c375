//! Recorded sessions of Go's cloudcore (`kubeedge-core/tests/data/session-*.jsonl`), played to our edge:
//! everything the cloud said by itself is said, every question is answered as it was, and what a Go edge said
//! is compared with what ours says.
//!
//! Accepted differences:
//! - A Go edge says `OK` to the answers of its requests for leases, nodes and tokens too; its cloud ignores
//!   that, ours does not say it.
//! - Go's first patch of the node is empty; ours comes with the first status.
//! - How often a pod's status, the node's status and the lease are told follows the runtime and the clock:
//!   that they are told, in Go's shape, is compared.
//! - Go asks for the list of devices again each minute, as nobody answers; ours asks at each connection.
//! - Events tell of what containers did, which is not the recorded machine's; their shape is compared in the
//!   catalogue.
//! - What MetaServer, mappers and apps on MQTT said is not played.

use std::time::Duration;

use kubeedge_core::message::{Content, Message};
use serde_json::Value;

use crate::{
    cloud::{Cloud, Node, raw, said},
    recording::{Recorded, SESSIONS},
};

impl Recorded {
    fn said(&self) -> String {
        self.route.join(" ")
    }

    /// What the edge asks by the clock or of its own accord, and is always answered alike.
    fn repeats(&self) -> bool {
        matches!(
            self.kind(),
            "lease" | "nodepatch" | "podpatch" | "serviceaccounttoken" | "node" | "configmap" | "secret"
        ) && matches!(self.route[2].as_str(), "insert" | "update" | "patch" | "query")
            || (self.kind(), self.route[2].as_str()) == ("pod", "delete")
    }

    /// See the module's text.
    fn is_left_out(&self) -> bool {
        matches!(self.route[0].as_str(), "metaserver" | "bus" | "dynamiccontroller")
            || self.kind() == "event"
            || self.route[2] == "keepalive"
    }
}

/// The answers of a session by question; leases and statuses always get the same.
fn prepare(cloud: &mut Cloud, session: &[Recorded]) {
    for question in session.iter().filter(|frame| frame.up && frame.repeats()) {
        let answer = session.iter().find(|frame| !frame.up && frame.parent == Some(question.id));
        if let Some(answer) = answer {
            cloud.answer_as(
                &question.said(),
                answer.version.as_deref().unwrap_or_default(),
                answer.content.clone(),
            );
        }
    }
}

fn shape(content: &Value) -> &'static str {
    match content {
        Value::Null => "null",
        Value::String(_) => "text",
        Value::Object(_) => "object",
        _ => "other",
    }
}

async fn replay(session: &str) {
    let session = Recorded::all(session);
    let mut node = Node::start("go-edge", &["docker.io/library/busybox:local"]).await;
    let mut cloud = node.cloud().await;
    prepare(&mut cloud, &session);
    for frame in session.iter().skip(1).filter(|frame| !frame.is_left_out()) {
        if frame.link == "up" {
            let spoken = std::mem::take(&mut cloud.spoken);
            drop(cloud);
            cloud = node.cloud().await;
            cloud.spoken = spoken;
            prepare(&mut cloud, &session);
            continue;
        }
        // Go's cloud took a pod away when the edge had ended it.
        if frame.up && (frame.kind(), frame.route[2].as_str()) == ("pod", "delete") {
            assert!(cloud.ever(&frame.said()).await.is_some(), "not said: {}", frame.said());
        }
        if frame.up || frame.parent.is_some() || !frame.link.is_empty() {
            continue;
        }
        let [source, group, operation, resource] = frame.route.each_ref().map(String::as_str);
        let mut message = Message::new(source.into(), operation.into(), resource)
            .in_group(group.into())
            .with(Content::json(&frame.content).unwrap());
        message.header.resource_version = frame.version.as_deref().map(Into::into);
        cloud.say(&message).await;
        // What is on its way settles before the next thing happens.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let theirs = session.iter().find(|ack| ack.up && ack.parent == Some(frame.id));
        if let Some(theirs) = theirs {
            let ours = cloud.try_take(|heard| heard.header.parent.as_ref() == Some(&message.header.id)).await;
            let ours = ours.unwrap_or_else(|| panic!("{} is not confirmed", frame.said()));
            assert_eq!((said(&ours), raw(&ours)), (theirs.said(), theirs.content.clone()));
        }
    }
    compare(&mut cloud, &session).await;
    drop(cloud);
    node.stop().await;
}

/// Every route a Go edge spoke on by itself is spoken on by ours, with the same shape of content; and no
/// other.
async fn compare(cloud: &mut Cloud, session: &[Recorded]) {
    let spoken = |frame: &&Recorded| frame.up && frame.parent.is_none() && !frame.is_left_out();
    for theirs in session.iter().filter(spoken) {
        let twin = theirs.route[0] == "twin" && theirs.route[3].starts_with("device/");
        if twin {
            continue;
        }
        let route = theirs.said();
        let ours = cloud.ever(&route).await;
        let ours = ours.unwrap_or_else(|| panic!("nothing was said like {route}"));
        assert_eq!(shape(&raw(&ours)), shape(&theirs.content), "{route}");
        if theirs.kind() == "podpatch" {
            let text = |content: &Value| serde_json::from_str::<Value>(content.as_str().unwrap()).unwrap();
            let (ours, theirs) = (text(&raw(&ours)), text(&theirs.content));
            assert_eq!(ours["metadata"], theirs["metadata"], "{route}");
        }
        if theirs.route[2] == "delete" {
            assert_eq!(raw(&ours), theirs.content);
        }
        assert_eq!(ours.header.resource_version, None);
    }
    let routes: std::collections::BTreeSet<_> =
        session.iter().filter(|frame| frame.up).map(Recorded::said).collect();
    for ours in cloud.spoken.iter().map(said) {
        let kind = ours.split('/').nth(1).unwrap_or_default();
        let device = ours.starts_with("twin resource update device/");
        assert!(routes.contains(&ours) || kind == "event" || device, "a Go edge did not say {ours}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_session_of_gos_cloudcore_is_lived_through_as_by_a_go_edge() {
    replay(SESSIONS[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_with_failing_pods_and_tokens_is_lived_through_as_by_a_go_edge() {
    replay(SESSIONS[1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_cut_off_is_lived_through_as_by_a_go_edge() {
    replay(SESSIONS[2]).await;
}
