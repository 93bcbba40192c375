//! From the edge: each row is sent by a node `n`, and what comes back is compared whole.

use std::{collections::BTreeMap, time::Duration};

use kubeedge_core::{
    message::{Content, Message},
    name::MessageId,
};
use serde_json::{Value, json};

use super::shape;
use crate::edge::{Cloud, Edge, settings};

const NO_POD: &str = r#"{"metadata":{"creationTimestamp":null},"spec":{"containers":null},"status":{}}"#;
const CORE: &str = "/api/v1/namespaces/default";

/// What is said (source, group, operation, resource, content) and what comes back for it.
type Row = ([&'static str; 4], Value, Vec<Value>);

fn error(reason: &str, code: u16, message: &str) -> Value {
    json!({"ErrStatus": {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}})
}

fn answer(resource: &str, versioned: bool, content: Value) -> Value {
    json!([format!("edgecontroller resource response {resource}"), versioned, content])
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The objects rows speak of.
fn furnish(cloud: &Cloud) {
    let create = |path: &str, object: Value| drop(cloud.cluster.create(path, object));
    let pod = |name: &str, uid: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "uid": uid}, "spec": {"nodeName": "n",
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "there"}}, {"configMapRef": {"name": "missing"}},
                {"secretRef": {"name": "there"}}]}]}})
    };
    for (name, uid) in [("p", "u-p"), ("q", "u-q"), ("r", "u-r"), ("s", "u-s")] {
        create(&format!("{CORE}/pods"), pod(name, uid));
    }
    let named =
        |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    create(&format!("{CORE}/configmaps"), named("ConfigMap", "there"));
    create(&format!("{CORE}/secrets"), named("Secret", "there"));
    create(&format!("{CORE}/persistentvolumeclaims"), named("PersistentVolumeClaim", "there"));
    create("/api/v1/persistentvolumes", named("PersistentVolume", "there"));
    let attachment =
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "there"}});
    create("/apis/storage.k8s.io/v1/volumeattachments", attachment);
    create(
        "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices",
        json!({"metadata": {"name": "d"}, "spec": {"nodeName": "n", "properties": [{"name": "t"}]}}),
    );
}

fn nodes() -> Vec<Row> {
    let registered = json!({"apiVersion": "v1", "kind": "Node", "spec": {}, "status": {},
        "metadata": {"name": "n", "uid": "*", "resourceVersion": "*", "creationTimestamp": "*",
            "labels": {"node-role.kubernetes.io/edge": ""},
            "annotations": {"cloudcore": "10.0.0.1", "kubeedge.io/cloudcore-instance": "*"}}});
    let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/edge": ""}}, "spec": {}, "status": {}});
    let mut ready = registered.clone();
    ready["status"] = json!({"phase": "Running"});
    let mut labelled = ready.clone();
    labelled["metadata"]["labels"]["rack"] = "7".into();
    let empty = parsed(
        r#"{"metadata":{"creationTimestamp":null},"spec":{},"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{"machineID":"","systemUUID":"","bootID":"","kernelVersion":"","osImage":"","containerRuntimeVersion":"","kubeletVersion":"","kubeProxyVersion":"","operatingSystem":"","architecture":""}}}"#,
    );
    let taken = error("AlreadyExists", 409, r#"nodes "n" already exists"#);
    let foreign = error("Forbidden", 403, r#"node "m" is not of node "n""#);
    let edged = |operation, resource| ["edged", "meta", operation, resource];
    vec![
        (
            edged("insert", "null/node/n"),
            node.clone(),
            vec![answer("null/node/n", false, json!({"Object": registered, "Err": null}))],
        ),
        (
            edged("insert", "null/node/n"),
            node.clone(),
            vec![answer("null/node/n", false, json!({"Object": empty, "Err": taken}))],
        ),
        (
            edged("patch", "null/nodepatch/n"),
            json!(r#"{"status":{"phase":"Running"}}"#),
            vec![answer("null/nodepatch/n", true, json!({"Object": ready, "Err": null}))],
        ),
        (
            edged("patch", "null/nodepatch/m"),
            json!("{}"),
            vec![answer("null/nodepatch/m", false, json!({"Object": empty, "Err": foreign}))],
        ),
        (
            edged("update", "null/node/n"),
            json!({"metadata": {"name": "n", "labels": {"rack": "7"}}, "spec": {"unschedulable": true}}),
            vec![answer("null/node/n", true, json!("OK"))],
        ),
        (edged("update", "null/node/m"), node.clone(), vec![]),
        (edged("insert", "default/nodestatus/n"), node, vec![answer("default/node/n", false, json!("OK"))]),
        (
            edged("update", "default/nodestatus/n"),
            json!({"UID": "u", "Status": {"phase": "Running"}, "ExtendResources": null}),
            vec![answer("default/node/n", true, json!("OK"))],
        ),
        (edged("update", "default/nodestatus/m"), json!({"Status": {}}), vec![]),
        (edged("delete", "null/node/n"), Value::Null, vec![]),
    ]
}

fn pods() -> Vec<Row> {
    let edged = |operation, resource| ["edged", "meta", operation, resource];
    let ok = |resource| vec![answer(resource, false, json!("OK"))];
    let running = json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"},
        "metadata": {"name": "p", "namespace": "default", "uid": "*", "resourceVersion": "*", "creationTimestamp": "*"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "there"}},
            {"configMapRef": {"name": "missing"}}, {"secretRef": {"name": "there"}}]}]}});
    let made = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n", "containers": []},
        "metadata": {"name": "mirror", "namespace": "default", "uid": "*", "resourceVersion": "*", "creationTimestamp": "*"}});
    let mirror = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mirror"}, "spec": {"nodeName": "n", "containers": []}});
    let missing = error("NotFound", 404, r#"pods "none" not found"#);
    let gone = json!(["edgecontroller resource delete default/pod/none", false,
        {"metadata": {"name": "none", "namespace": "default", "creationTimestamp": null}, "spec": {"containers": null}, "status": {}}]);
    let patch = json!(r#"{"metadata":{"uid":"u-p"},"status":{"phase":"Running"}}"#);
    let status = json!({"UID": "u-q", "Name": "q", "Status": {"phase": "Running"}});
    let two = json!([status, {"UID": "u-r", "Name": "r", "Status": {"phase": "Running"}}]);
    let options = |uid: &str| json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
    let failed = json!({"Object": parsed(NO_POD), "Err": missing});
    vec![
        (
            edged("patch", "default/podpatch/p"),
            patch.clone(),
            vec![answer("default/podpatch/p", true, json!({"Object": running, "Err": null}))],
        ),
        (
            edged("patch", "default/podpatch/none"),
            patch,
            vec![answer("default/podpatch/none", false, failed)],
        ),
        (
            edged("insert", "default/pod/mirror"),
            mirror,
            vec![answer("default/pod/mirror", true, json!({"Object": made, "Err": null}))],
        ),
        (edged("update", "default/podstatus/q"), status, ok("default/podstatus/q")),
        (
            edged("update", "default/podstatus"),
            two,
            [ok("default/podstatus"), ok("default/podstatus")].concat(),
        ),
        (
            edged("update", "default/podstatus/none"),
            json!({"UID": "u", "Name": "none", "Status": {}}),
            [ok("default/podstatus/none"), vec![gone]].concat(),
        ),
        (edged("delete", "default/pod/p"), options("u-p"), ok("default/pod/p")),
        (edged("delete", "default/pod/p"), options("u-p"), ok("default/pod/p")),
        (edged("delete", "default/pod/q"), json!("u-q"), ok("default/pod/q")),
        (edged("delete", "default/pod/r"), options("u-of-an-earlier-one"), ok("default/pod/r")),
        (edged("query", "default/pod/s"), Value::Null, vec![]),
    ]
}

fn objects() -> Vec<Row> {
    let edged = |operation, resource| ["edged", "meta", operation, resource];
    let object = |api: &str, kind: &str, namespace: &str| {
        let mut object = json!({"apiVersion": api, "kind": kind,
            "metadata": {"name": "there", "uid": "*", "resourceVersion": "*", "creationTimestamp": "*"}});
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = namespace.into();
        }
        object
    };
    let found = |resource: &'static str, object| {
        (edged("query", resource), Value::Null, vec![answer(resource, true, object)])
    };
    let not = |resource: &'static str, message: &str| {
        (
            edged("query", resource),
            Value::Null,
            vec![answer(resource, false, error("NotFound", 404, message))],
        )
    };
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n", "namespace": "kube-node-lease"}, "spec": {"holderIdentity": "n"}});
    let mut kept = lease.clone();
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        kept["metadata"][field] = "*".into();
    }
    let lease_row = |operation, content: &Value| {
        let resource = "kube-node-lease/lease/n";
        let answered = json!({"Object": kept, "Err": null});
        (edged(operation, resource), content.clone(), vec![answer(resource, false, answered)])
    };
    let csr = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"}, "spec": {}});
    let mut signed = csr.clone();
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        signed["metadata"][field] = "*".into();
    }
    // Clusters name what they do not find in the plural.
    let none = error("NotFound", 404, r#"leases "n" not found"#);
    let nameless = error("BadRequest", 400, "a lease has a namespace and a name");
    let token = json!({"spec": {"audiences": null, "expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "s", "uid": "u-s"}}});
    let mut made = token.clone();
    made["spec"]["boundObjectRef"]["uid"] = "*".into();
    made["apiVersion"] = "authentication.k8s.io/v1".into();
    made["kind"] = "TokenRequest".into();
    made["status"] = json!({"token": "a.b.c", "expirationTimestamp": "2030-01-01T00:00:00Z"});
    let event = json!({"metadata": {"name": "e", "namespace": "default"}, "reason": "Started", "count": 1});
    vec![
        found("default/configmap/there", object("v1", "ConfigMap", "default")),
        not("default/configmap/missing", r#"configmaps "missing" not found"#),
        found("default/secret/there", object("v1", "Secret", "default")),
        found("default/persistentvolumeclaim/there", object("v1", "PersistentVolumeClaim", "default")),
        not("default/persistentvolumeclaim/missing", r#"persistentvolumeclaims "missing" not found"#),
        found("null/persistentvolume/there", object("v1", "PersistentVolume", "")),
        found("default/volumeattachment/there", object("storage.k8s.io/v1", "VolumeAttachment", "")),
        (edged("insert", "default/volumeattachment/there"), json!({}), vec![]),
        (
            edged("query", "kube-node-lease/lease/n"),
            Value::Null,
            vec![answer("kube-node-lease/lease/n", false, json!({"Object": null, "Err": none}))],
        ),
        lease_row("insert", &lease),
        lease_row("update", &lease),
        lease_row("query", &Value::Null),
        (
            edged("update", "/lease/"),
            json!(7),
            vec![answer(
                "/lease/",
                false,
                json!({"Object": {"metadata": {"creationTimestamp": null}, "spec": {}}, "Err": nameless}),
            )],
        ),
        (
            edged("query", "default/serviceaccounttoken/default"),
            token,
            vec![answer("default/serviceaccounttoken/default", false, made)],
        ),
        (
            edged("insert", "default/certificatesigningrequest/c"),
            csr,
            vec![answer(
                "default/certificatesigningrequest/c",
                false,
                json!({"Object": signed, "Err": null}),
            )],
        ),
        (
            edged("query", "default/certificatesigningrequest/c"),
            Value::Null,
            vec![answer("default/certificatesigningrequest/c", true, signed)],
        ),
        (edged("insert", "default/event/e"), event.clone(), vec![]),
        (edged("update", "default/event/e"), event, vec![]),
        (edged("patch", "default/event/e"), json!({"event": {}, "patchData": "{\"count\":2}"}), vec![]),
        (
            ["metamanager", "meta", "query", "k8s/ca.crt"],
            Value::Null,
            vec![json!(["cloudhub resource response k8s/ca.crt", false, "the CA"])],
        ),
    ]
}

fn devices() -> Vec<Row> {
    let twin = |operation, resource| ["twin", "resource", operation, resource];
    let ok = || vec![json!(["devicecontroller twin response twin", false, "OK"])];
    let report = json!({"event_id": "e", "timestamp": 1, "twin": {"t": {"actual": {"value": "27", "metadata": {"timestamp": 5}}, "metadata": {"type": "int"}}}});
    let state = json!(
        r#"{"event_id":"e","timestamp":1,"device":{"name":"d","state":"online","lastOnlineTime":"2026-11-20T22:31:40Z"}}"#
    );
    let detail = json!(
        r#"{"event_type":"group_membership_event","event_id":"e","group_id":"n","operation":"detail","timestamp":1}"#
    );
    vec![
        (twin("get", "membership/detail"), detail, vec![]),
        (twin("update", "device/default/d/twin/edge_updated"), report.clone(), ok()),
        (twin("update", "device/default/d/state/update"), state, ok()),
        (twin("update", "device/default/unknown/twin/edge_updated"), report, vec![]),
        (twin("update", "device/default/d/twin/edge_updated"), json!("no report"), vec![]),
    ]
}

/// What no module of ours takes, and what nobody answers.
fn others() -> Vec<Row> {
    let application = json!({"ID": "i", "Key": "/core/v1/pods/null/null", "Verb": "list", "Nodename": "n", "Option": "e30="});
    let report = json!({"action": "Check", "succ": true, "finishTime": "2025-01-02T03:04:05Z", "reason": "", "extend": ""});
    let control = |operation| {
        (["viaduct", "x", operation, "y"], json!(1), vec![json!(["viaduct x response y", false, "ack"])])
    };
    let silent = |route, content| (route, content, vec![]);
    vec![
        silent(["websocket", "resource", "keepalive", "node"], json!("ping")),
        silent(["metaserver", "dynamiccontroller", "null", "null"], application),
        silent(["metaserver", "dynamiccontroller", "null", "watchapp/sync"], json!({})),
        silent(["bus", "user", "upload", "some/topic"], json!("payload")),
        silent(["servicebus", "user", "upload", "http://127.0.0.1/a"], json!("eyJhIjoxfQ==")),
        silent(
            [
                "websocket",
                "hub",
                "UpdateNodeActionStatus",
                "operations.kubeedge.io/v1alpha2/nodeupgradejob/j/node/n",
            ],
            report,
        ),
        silent(["websocket", "hub", "upgrade", "task/t/node/n"], json!({})),
        silent(["websocket", "hub", "prepull", "x"], Value::Null),
        silent(["cloudhub", "resource", "response", "default/volume/v"], json!("e30=")),
        silent(["edgecontroller", "resource", "update", "default/pod/p"], json!({})),
        silent(["metamanager", "resource", "error", "default/pod/p"], json!("disk full")),
        silent(["edged", "meta", "query", "default/podlist/x"], Value::Null),
        silent(["edged", "meta", "query", "default/unknown/x"], Value::Null),
        silent(["edged", "meta", "fly", "default/configmap/there"], Value::Null),
        silent(["edged", "meta", "query", ""], Value::Null),
        silent(["edged", "meta", "query", "a/b/c/d/e/f"], Value::Null),
        silent(["edged", "meta", "update", "default/rulestatus/r"], json!({})),
        control("config"),
        control("ping"),
        control("pong"),
    ]
}

/// A node that hears everything and acknowledges nothing.
struct Node {
    edge: Edge,
    /// What came with a parent, by parent; and what came without, in order.
    answers: BTreeMap<MessageId, Vec<Message>>,
    times: BTreeMap<MessageId, usize>,
    told: Vec<Message>,
}

impl Node {
    async fn hear(&mut self) {
        let message = self.edge.next().await.expect("the session lives");
        let times = self.times.entry(message.header.id.clone()).or_default();
        *times += 1;
        if *times > 1 {
            return;
        }
        match message.header.parent.clone() {
            Some(parent) => self.answers.entry(parent).or_default().push(message),
            None => self.told.push(message),
        }
    }

    async fn play(&mut self, (route, content, expected): &Row) -> MessageId {
        let [source, group, operation, resource] = *route;
        let message = Message::new(source.into(), operation.into(), resource)
            .in_group(group.into())
            .with(Content::json(content).unwrap());
        let before = self.told.len();
        self.edge.send(&message).await;
        let id = message.header.id;
        let (own, told): (Vec<_>, Vec<_>) =
            expected.iter().partition(|row| !row[0].as_str().unwrap().contains(" delete "));
        while self.answers.get(&id).map_or(0, Vec::len) < own.len()
            || !told.iter().all(|row| self.told[before..].iter().any(|heard| shape(heard) == **row))
        {
            self.hear().await;
        }
        let came: Vec<_> = self.answers.get(&id).into_iter().flatten().map(shape).collect();
        for (came, expected) in came.iter().zip(own) {
            assert_eq!(came, expected, "{route:?}");
        }
        id
    }
}

#[tokio::test]
async fn every_row_an_edge_says_gets_exactly_gos_answer() {
    let mut settings = settings();
    settings.sync.every = Duration::from_secs(3600);
    settings.hub.cluster_ca = "the CA".into();
    let cloud = Cloud::start(settings).await;
    furnish(&cloud);
    let edge = cloud.dial("n").await.unwrap();
    let mut node = Node { edge, answers: BTreeMap::new(), times: BTreeMap::new(), told: Vec::new() };
    let rows: Vec<Row> = [nodes(), objects(), devices(), pods(), others()].concat();
    let mut played = Vec::new();
    for row in &rows {
        played.push((node.play(row).await, row));
    }
    // Answers that want an acknowledgement come again, the others do not.
    let wants = |message: &Message| {
        let kind = message.route.resource.as_str().split('/').nth(1).unwrap_or_default();
        let object = ["configmap", "secret", "persistentvolumeclaim", "persistentvolume", "volumeattachment"]
            .contains(&kind);
        object && message.header.resource_version.is_some()
    };
    let (wanted, others): (Vec<_>, Vec<_>) = node.answers.values().flatten().cloned().partition(wants);
    assert_eq!(wanted.len(), 5, "{wanted:?}");
    while wanted.iter().any(|message| node.times[&message.header.id] < 3) {
        node.hear().await;
    }
    for message in others {
        assert_eq!(node.times[&message.header.id], 1, "{message:?}");
    }
    for (id, (route, _, expected)) in played {
        let own = expected.iter().filter(|row| !row[0].as_str().unwrap().contains(" delete ")).count();
        assert_eq!(node.answers.get(&id).map_or(0, Vec::len), own, "{route:?}");
    }
    assert_eq!(cloud.cluster.get(&format!("{CORE}/events/e")).unwrap()["count"], 2);
    assert_eq!(cloud.cluster.get(&format!("{CORE}/pods/r")).unwrap()["metadata"]["uid"], "u-r");
    assert_eq!(cloud.cluster.get("/api/v1/nodes/n").unwrap()["metadata"]["labels"]["rack"], "7");
    cloud.stop().await;
}
