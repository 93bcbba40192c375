//! Whole recorded sessions of a Go edge (`kubeedge-core/tests/data/session-*.jsonl`), played again: what the
//! edge said is said, what had happened in the cluster happens, and what Go's cloudcore told is compared with
//! what ours tells.
//!
//! Accepted differences:
//! - What DynamicController said is not compared: there is none yet.
//! - Several updates of one object in a row count as one: Go tells an edge of nearly every status it has just
//!   reported itself (as `managedFields` change), ours leaves that to the reconciliation.
//! - A pod that was bound before it was looked at is inserted, where Go, which saw it unbound, updates it.
//! - What is deleted in the cluster itself, as the model of a deleted device, is taken from the edge by the
//!   reconciliation, with its metadata alone.
//! - Beside an error Go's cloud sends the object it tried to make, ours an empty one; no edge looks at it.
//! - The devices of a node are announced again when it connects, as announcements are sent once and may have
//!   been lost.

use std::{collections::BTreeMap, time::Duration};

use kubeedge_core::message::{Content, Message};
use serde_json::{Value, json};

use crate::{
    cluster::FakeCluster,
    edge::{Cloud, Edge, body, settings},
    recording::{Recorded, SESSIONS},
    uid,
};

impl Recorded {
    /// What the cloud said by itself.
    fn is_told(&self) -> bool {
        !self.up && self.parent.is_none() && self.link.is_empty() && self.route[0] != "dynamiccontroller"
    }
}

/// The collection and the object in the API.
fn paths(resource: &str) -> Option<(String, String)> {
    let parts: Vec<_> = resource.split('/').collect();
    let [namespace, kind, name] = parts[..] else { return None };
    let collection = match kind {
        "node" => "/api/v1/nodes".to_owned(),
        "lease" => format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
        "device" | "devicemodel" => {
            format!("/apis/devices.kubeedge.io/v1beta1/namespaces/{namespace}/{kind}s")
        }
        "pod" | "configmap" | "secret" => format!("/api/v1/namespaces/{namespace}/{kind}s"),
        _ => return None,
    };
    let object = format!("{collection}/{name}");
    Some((collection, object))
}

/// What there is before the session begins: what the edge asks for, and in a later session what it has got
/// before.
fn furnish(cluster: &FakeCluster, session: &[Recorded], later: bool) {
    let mut seen = std::collections::BTreeSet::new();
    for frame in session.iter().filter(|frame| !frame.up && frame.link.is_empty()) {
        let Some((collection, path)) = paths(&frame.route[3]) else { continue };
        let asked = frame.route[2] == "response" && matches!(frame.kind(), "configmap" | "secret");
        let had = later && frame.route[2] == "update";
        let lease = later && frame.kind() == "lease" && !frame.content["Object"].is_null();
        let first = !asked && !matches!(frame.route[2].as_str(), "insert" | "update")
            || seen.insert(frame.route[3].clone());
        if !first || !(asked || had || lease) || cluster.get(&path).is_some() {
            continue;
        }
        let object = if lease { frame.content["Object"].clone() } else { frame.content.clone() };
        let made = cluster.create(&collection, object);
        if had {
            let record = json!({
                "metadata": {"name": format!("go-edge.{}", uid(&made))},
                "spec": {"objectAPIVersion": made["apiVersion"], "objectKind": made["kind"], "objectName": made["metadata"]["name"]},
                "status": {"objectResourceVersion": "0"},
            });
            let records = "/apis/reliablesyncs.kubeedge.io/v1alpha1";
            let records = match frame.kind() {
                "node" => format!("{records}/clusterobjectsyncs"),
                _ => format!("{records}/namespaces/default/objectsyncs"),
            };
            cluster.create(&records, record);
        }
    }
}

/// Makes happen in the cluster what the cloud told of.
fn happen(cluster: &FakeCluster, told: &Recorded) {
    let Some((collection, path)) = paths(&told.route[3]) else { return };
    let there = cluster.get(&path);
    let mut object = told.content.clone();
    match (told.route[2].as_str(), there) {
        ("delete", Some(_)) => cluster.delete(&path),
        ("delete", None) => {}
        (_, None) => drop(cluster.create(&collection, object)),
        (_, Some(_)) => {
            let metadata = object["metadata"].as_object_mut().unwrap();
            for name in ["uid", "resourceVersion", "creationTimestamp", "annotations"] {
                metadata.remove(name);
            }
            cluster.patch(&path, object);
        }
    }
}

/// An edge that confirms what it is told.
struct Player {
    edge: Edge,
    told: Vec<Message>,
    answers: BTreeMap<String, Message>,
}

impl Player {
    async fn hear(&mut self) {
        let message = self.edge.next().await.expect("the session lives");
        match message.header.parent.clone() {
            Some(parent) => drop(self.answers.insert(parent.as_str().to_owned(), message)),
            None => {
                self.edge.ack(&message).await;
                self.told.push(message);
            }
        }
    }

    async fn answer_to(&mut self, question: u64) -> Message {
        let key = format!("q{question}");
        while !self.answers.contains_key(&key) {
            self.hear().await;
        }
        self.answers[&key].clone()
    }

    /// What the recorded edge said; confirmations of what we told by ourselves are ours.
    async fn say(&mut self, frame: &Recorded, session: &[Recorded]) {
        let [source, group, operation, resource] = frame.route.each_ref().map(String::as_str);
        let mut message = Message::new(source.into(), operation.into(), resource)
            .in_group(group.into())
            .with(Content::json(&frame.content).unwrap());
        message.header.id = format!("q{}", frame.id).as_str().into();
        if let Some(parent) = frame.parent {
            let question = session.iter().find(|other| other.id == parent).and_then(|answer| answer.parent);
            let Some(answer) = question.and_then(|question| self.answers.get(&format!("q{question}"))) else {
                return;
            };
            message.header.parent = Some(answer.header.id.clone());
        }
        self.edge.send(&message).await;
    }
}

fn compare(ours: &Message, theirs: &Recorded) {
    let route = [
        &ours.route.source.as_str(),
        &ours.route.group.as_str(),
        &ours.route.operation.as_str(),
        &ours.route.resource.as_str(),
    ];
    let what = &theirs.route[3];
    assert_eq!(route.map(|part| (*part).to_owned()), theirs.route);
    assert_eq!(ours.header.resource_version.is_some(), theirs.version.is_some(), "{what}");
    let content = body(ours);
    assert_eq!(content["Err"]["ErrStatus"]["reason"], theirs.content["Err"]["ErrStatus"]["reason"], "{what}");
    assert_eq!(content["Object"].is_null(), theirs.content["Object"].is_null(), "{what}");
    // What a token request bears beside the token is the API server's.
    let levels =
        if theirs.content["Err"].is_null() && theirs.kind() != "serviceaccounttoken" { 3 } else { 1 };
    alike(&content, &theirs.content, what, levels);
}

/// The same kind of value, with all keys Go has, some levels down.
fn alike(ours: &Value, theirs: &Value, what: &str, levels: u32) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) if levels > 0 => {
            for (key, theirs) in theirs {
                // Fields of a real API server that ours does not play.
                let own = ["creationTimestamp", "generation", "generateName", "details", "finalizers"]
                    .contains(&key.as_str());
                let empty = theirs.is_null() || theirs.as_object().is_some_and(serde_json::Map::is_empty);
                if own || empty {
                    continue;
                }
                // A status of a recorded object is the recorded cluster's.
                if ["status", "spec"].contains(&key.as_str()) {
                    continue;
                }
                let ours = ours.get(key).unwrap_or_else(|| panic!("{what} lacks {key}: {ours:?}"));
                alike(ours, theirs, &format!("{what} {key}"), levels - 1);
            }
        }
        (Value::String(_), Value::String(_)) if what.starts_with("k8s") => {}
        _ => assert_eq!(
            std::mem::discriminant(ours),
            std::mem::discriminant(theirs),
            "{what}: {ours} {theirs}"
        ),
    }
}

/// The operations on each resource in order, updates in a row as one, and an insert as an update.
fn story<'a>(told: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, Vec<&'a str>> {
    let mut story: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (operation, resource) in told {
        let operation = if operation == "insert" { "update" } else { operation };
        let all = story.entry(resource.to_owned()).or_default();
        if all.last() != Some(&operation) || operation != "update" {
            all.push(operation);
        }
    }
    story
}

async fn replay(session: &str, later: bool) {
    let session = Recorded::all(session);
    let mut settings = settings();
    settings.sync.every = Duration::from_millis(200);
    let cluster = FakeCluster::new();
    furnish(&cluster, &session, later);
    let cloud = Cloud::start_on(cluster, settings).await;
    let edge = cloud.dial("go-edge").await.unwrap();
    let mut player = Player { edge, told: Vec::new(), answers: BTreeMap::new() };
    let mut answered = 0;
    for frame in session.iter().skip(1) {
        match (frame.link.as_str(), frame.up, frame.parent) {
            ("up", ..) => player.edge = cloud.dial("go-edge").await.unwrap(),
            ("down", ..) => {}
            (_, true, _) => player.say(frame, &session).await,
            (_, false, Some(_)) if frame.route[0] == "dynamiccontroller" => {}
            (_, false, Some(question)) => {
                let ours = player.answer_to(question).await;
                compare(&ours, frame);
                answered += 1;
            }
            (_, false, None) if frame.is_told() => happen(&cloud.cluster, frame),
            _ => {}
        }
    }
    let theirs = session.iter().filter(|frame| frame.is_told() && frame.route[3] != "membership");
    let theirs = story(theirs.map(|frame| (frame.route[2].as_str(), frame.route[3].as_str())));
    loop {
        let ours = player.told.iter().filter(|told| told.route.resource != "membership");
        let ours = story(ours.map(|told| (told.route.operation.as_str(), told.route.resource.as_str())));
        if ours == theirs {
            break;
        }
        let told = format!("{ours:#?}");
        let heard = tokio::time::timeout(Duration::from_secs(20), player.hear()).await;
        assert!(heard.is_ok(), "ours {told}\ntheirs {theirs:#?}");
    }
    for told in session.iter().filter(|frame| frame.is_told() && !matches!(frame.kind(), "node" | "")) {
        let same = |ours: &&Message| {
            let wide = told.route[2] == "update" || ours.route.operation == told.route[2].as_str();
            wide && ours.route.resource == told.route[3].as_str()
        };
        let ours = player.told.iter().find(same).unwrap_or_else(|| panic!("{:?} was not told", told.route));
        assert_eq!(body(ours)["metadata"]["uid"], told.content["metadata"]["uid"]);
        if told.route[2] != "delete" {
            assert!(ours.header.resource_version.is_some(), "{ours:?}");
            alike(&body(ours), &told.content, &told.route[3], 1);
        }
    }
    if !later {
        let members =
            |content: &Value| (content["added_devices"].clone(), content["removed_devices"].clone());
        let ours: Vec<_> = player
            .told
            .iter()
            .filter(|told| told.route.resource == "membership")
            .map(|told| members(&body(told)))
            .collect();
        let theirs: Vec<_> = session
            .iter()
            .filter(|frame| frame.is_told() && frame.route[3] == "membership")
            .map(|told| members(&told.content))
            .collect();
        assert_eq!(ours, theirs);
    }
    assert!(answered >= 10, "{answered} answers compared");
    cloud.stop().await;
}

#[tokio::test]
async fn a_first_session_of_a_go_edge_goes_as_with_gos_cloudcore() {
    replay(SESSIONS[0], false).await;
}

#[tokio::test]
async fn a_session_with_failing_pods_and_tokens_goes_as_with_gos_cloudcore() {
    replay(SESSIONS[1], false).await;
}

#[tokio::test]
async fn a_session_of_an_edge_that_was_away_and_is_cut_off_goes_as_with_gos_cloudcore() {
    replay(SESSIONS[2], true).await;
}
