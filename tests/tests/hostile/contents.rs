//! Contents of the wrong shape for everything the cloud reads, and other nodes' names.

use kubeedge_core::{
    message::{Content, Message},
    transport::Frame,
};
use kubeedge_tests::fuzz::HOSTILE;

use crate::{
    Place,
    bystander::{Bystander, question},
    raw::{ended, head, tls},
};

/// Every type of resource an edge may speak of, with the modules that speak of it.
const RESOURCES: [(&str, &str); 27] = [
    ("edged", "null/node/raw"),
    ("edged", "null/nodestatus/raw"),
    ("edged", "null/nodepatch/raw"),
    ("edged", "default/pod/web"),
    ("edged", "default/podpatch/web"),
    ("edged", "default/podstatus/web"),
    ("edged", "default/podstatus"),
    ("edged", "default/configmap/web"),
    ("edged", "default/secret/web"),
    ("edged", "default/serviceaccounttoken/default"),
    ("edged", "default/persistentvolume/web"),
    ("edged", "default/persistentvolumeclaim/web"),
    ("edged", "default/volumeattachment/web"),
    ("edged", "default/event/web"),
    ("edged", "kube-node-lease/lease/raw"),
    ("edged", "/lease/"),
    ("edged", "default/certificatesigningrequest/raw"),
    ("twin", "membership/detail"),
    ("twin", "device/default/d/twin/edge_updated"),
    ("twin", "device/default/d/state/update"),
    ("metaserver", "default/pod/web"),
    ("metaserver", "null"),
    ("eventbus", "rest/topic"),
    ("servicebus", "x"),
    ("edged", "default/volume/v"),
    ("taskmanager", "operations.kubeedge.io/v1alpha2/x/j"),
    ("edged", "k8s/ca.crt"),
];
const OPERATIONS: [&str; 12] = [
    "insert",
    "update",
    "delete",
    "query",
    "patch",
    "response",
    "error",
    "upload",
    "upgrade",
    "connected",
    "explode",
    "",
];

/// The hostile values, the deepest there is, and one as a string that holds JSON.
fn contents() -> Vec<Content> {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let texts =
        HOSTILE.iter().map(|text| (*text).to_owned()).chain([deep, "\"{\"".to_owned(), "\"[0]\"".to_owned()]);
    texts.map(|text| Content::from_json_bytes(text).unwrap()).collect()
}

#[test]
fn senseless_contents_of_every_resource_are_answered_or_passed_over_and_the_session_lives() {
    let Some(mut place) = Place::start() else { return };
    let device = "{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {name: d}, spec: {nodeName: raw, deviceModelRef: {name: m}, properties: [{name: t}]}}";
    place.api.apply(device).unwrap();
    let said = place.cloud.said();
    let (hub, identity) = (place.cloud.doors()[0], place.identity("raw"));
    place.runtime.block_on(async {
        let mut raw = Bystander::dial(hub, &identity, "raw").await.unwrap();
        for (source, resource) in RESOURCES {
            for (at, operation) in OPERATIONS.into_iter().enumerate() {
                // All of them for those that most resources know, some for others.
                for content in contents().into_iter().step_by(if at < 5 { 1 } else { 5 }) {
                    let mut message = question(operation, resource, content);
                    message.route.source = source.into();
                    assert!(raw.say(&message).await, "{operation} {resource} ended the session");
                }
                raw.exchanges(1).await;
            }
        }
        raw.exchanges(5).await;
    });
    place.bystander_is_served(20);
    place.memory_is_bounded("senseless contents");
    // One a second for each sort of complaint about this node.
    place.few_lines(&said, 40, "senseless contents");
    assert!(place.api.kubectl(&["get", "devices"]).contains('d'));
}

#[test]
fn texts_that_are_too_long_or_made_to_forge_a_log_are_one_short_line() {
    let Some(mut place) = Place::start() else { return };
    let said = place.cloud.said();
    let (hub, identity) = (place.cloud.doors()[0], place.identity("raw"));
    let long = "x".repeat(8 << 20);
    let forged = "a/b\n2026-11-21T00:00:00Z ERROR forged\u{1b}[2J";
    let send = |frame: String| {
        place.runtime.block_on(async {
            let mut raw = Bystander::dial(hub, &identity, "raw").await.unwrap();
            raw.send(Frame::text(frame)).await;
            raw.ended().await;
        });
    };
    send(format!(r#"{{"header":"{long}"}}"#));
    send(format!(r#"{{"route":{{"resource":"{long}","operation":"ping"}}}}"#));
    send(format!(r#"{{"header":{{"timestamp":"{long}"}}}}"#));
    place.runtime.block_on(async {
        let mut raw = Bystander::dial(hub, &identity, "raw").await.unwrap();
        for operation in ["error", "query", "update", "explode"] {
            let mut message = question(operation, forged, Content::text(forged));
            raw.say(&message).await;
            message.route.resource = format!("device/default/{forged}/twin/edge_updated").into();
            message.route.source = "twin".into();
            raw.say(&message).await;
            message.route.resource = format!("default/secret/{forged}").into();
            message.route.source = "edged".into();
            raw.say(&message).await;
        }
        raw.exchanges(3).await;
    });
    place.bystander_is_served(5);
    place.few_lines(&said, 40, "long texts");
    let log = place.cloud.said();
    let is_forged =
        |line: &str| line.starts_with("2026-11-21T00:00:00Z ERROR forged") || line.contains('\u{1b}');
    let forged = log[said.len()..].lines().find(|line| is_forged(line));
    assert!(forged.is_none(), "{forged:?}");
}

#[test]
fn a_peer_in_anothers_name_gets_nowhere_however_often_it_tries() {
    let Some(mut place) = Place::start() else { return };
    let said = place.cloud.said();
    let (hub, tunnel) = (place.cloud.doors()[0], place.cloud.doors()[2]);
    let identity = place.identity("raw");
    for _ in 0..50 {
        for (door, path, claim) in
            [(hub, "/p/n/events", "node_id"), (tunnel, "/v1/kubeedge/connect", "SessionHostNameOverride")]
        {
            let mut raw = tls(door, &identity, true);
            let _ =
                std::io::Write::write_all(&mut raw, format!("{}\r\n", head(path, claim, "quiet")).as_bytes());
            let mut answer = [0; 12];
            std::io::Read::read_exact(&mut raw, &mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 403");
            assert!(ended(&mut raw));
        }
    }
    place.bystander_is_served(5);
    // The resources of others, on a link of its own.
    place.runtime.block_on(async {
        let mut raw = Bystander::dial(hub, &identity, "raw").await.unwrap();
        for _ in 0..50 {
            for (operation, resource) in [
                ("update", "null/node/quiet"),
                ("patch", "null/nodepatch/quiet"),
                ("update", "kube-node-lease/lease/quiet"),
                ("query", "kubeedge/secret/casecret"),
            ] {
                let message = question(operation, resource, Content::text("{}"));
                assert!(raw.say(&message).await);
            }
        }
        // As if the cloud itself said it, and for another.
        let mut message =
            Message::new("edgecontroller".into(), "delete".into(), "node/quiet/null/node/quiet".to_owned());
        message = message.in_group("resource".into());
        assert!(raw.say(&message).await);
        raw.exchanges(3).await;
    });
    place.bystander_is_served(5);
    place.few_lines(&said, 60, "others' names");
    let log = place.cloud.said();
    assert!(log.contains("refused a peer") && log.contains("refused a tunnel"), "{log}");
}
