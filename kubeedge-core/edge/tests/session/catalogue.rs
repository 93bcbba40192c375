//! Each row of the catalogue as the edge says it, and as it answers what the cloud says.

use kubeedge_core::message::{Content, Message};
use serde_json::{Value, json};

use crate::cloud::{Cloud, Node, raw, said, wrapped};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn text(value: &Value) -> Value {
    serde_json::from_str(value.as_str().expect("text")).unwrap()
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with("20") && text.ends_with('Z'))
}

fn without(status: u16, reason: &str) -> Value {
    json!({"Object": null, "Err": {"ErrStatus": {"metadata": {}, "status": "Failure", "message": "m", "reason": reason, "code": status}}})
}

/// The first seconds of a session, up to the first status.
async fn greeted(cloud: &mut Cloud, first: bool) {
    let beat = cloud.take("websocket resource keepalive node").await;
    assert_eq!(raw(&beat), json!("ping"));
    let greeting = cloud.take("twin resource get membership/detail").await;
    let greeting = text(&raw(&greeting));
    assert_eq!(keys(&greeting), ["event_id", "event_type", "group_id", "operation", "timestamp"]);
    assert_eq!(
        (&greeting["event_type"], &greeting["group_id"], &greeting["operation"]),
        (&json!("group_membership_event"), &json!("edge-1"), &json!("detail"))
    );
    if !first {
        return;
    }
    let named = |asked: &Value| {
        let mut node = asked.clone();
        node["metadata"]["uid"] = "u-node".into();
        node["metadata"]["resourceVersion"] = "2".into();
        wrapped(&node)
    };
    let (node, _) = cloud.answer("edged meta insert null/node/edge-1", "", named).await;
    assert_eq!(keys(&node), ["apiVersion", "kind", "metadata", "spec", "status"]);
    assert_eq!(node["metadata"]["name"], "edge-1");
    assert_eq!(
        node["metadata"]["annotations"],
        json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"})
    );
    let labels = [
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node-role.kubernetes.io/agent",
        "node-role.kubernetes.io/edge",
    ];
    assert_eq!(keys(&node["metadata"]["labels"]), labels);
    assert_eq!(node["status"]["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 10350}}));
    let lease = "kube-node-lease/lease/edge-1";
    let (asked, _) =
        cloud.answer(&format!("edged meta query {lease}"), "", |_| without(404, "NotFound")).await;
    assert_eq!(asked, Value::Null);
    let (mut made, _) = cloud
        .answer(&format!("edged meta insert {lease}"), "", |asked| {
            let mut lease = asked.clone();
            lease["metadata"]["resourceVersion"] = "3".into();
            wrapped(&lease)
        })
        .await;
    assert!(is_time(&made["spec"]["renewTime"]), "{made}");
    made["spec"]["renewTime"] = "*".into();
    assert_eq!(
        made,
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "edge-1", "namespace": "kube-node-lease", "ownerReferences":
            [{"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": "u-node"}]},
        "spec": {"holderIdentity": "edge-1", "leaseDurationSeconds": 40, "renewTime": "*"}})
    );
    let (patch, _) = cloud.answer("edged meta patch null/nodepatch/edge-1", "4", |_| wrapped(&node)).await;
    let patch = text(&patch);
    assert_eq!(
        patch["status"]["$setElementOrder/conditions"],
        json!([{"type": "MemoryPressure"}, {"type": "DiskPressure"}, {"type": "PIDPressure"}, {"type": "Ready"}])
    );
    assert_eq!(patch["status"].get("daemonEndpoints"), None, "the cloud's port");
    made["metadata"]["resourceVersion"] = "5".into();
    made["spec"]["renewTime"] = "2027-01-15T08:00:00.000000Z".into();
    cloud.answer_always(&format!("edged meta update {lease}"), wrapped(&made));
    cloud.answer_always("edged meta patch null/nodepatch/edge-1", wrapped(&node));
}

fn object(kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "default", "uid": uid, "resourceVersion": "7"}})
}

async fn confirms(cloud: &mut Cloud) {
    for (source, operation, resource, content, ack) in [
        (
            "edgecontroller",
            "update",
            "null/node/edge-1",
            object("Node", "edge-1", "u-node"),
            "edgecontroller resource response null/node/edge-1",
        ),
        (
            "edgecontroller",
            "insert",
            "default/configmap/m",
            object("ConfigMap", "m", "u-m"),
            "edgecontroller resource response default/configmap/m",
        ),
        (
            "edgecontroller",
            "update",
            "default/configmap/m",
            object("ConfigMap", "m", "u-m"),
            "edgecontroller resource response default/configmap/m",
        ),
        (
            "edgecontroller",
            "delete",
            "default/configmap/m",
            object("ConfigMap", "m", "u-m"),
            "edgecontroller resource response default/configmap/m",
        ),
        (
            "edgecontroller",
            "update",
            "default/secret/s",
            object("Secret", "s", "u-s"),
            "edgecontroller resource response default/secret/s",
        ),
        (
            "edgecontroller",
            "delete",
            "default/secret/s",
            object("Secret", "s", "u-s"),
            "edgecontroller resource response default/secret/s",
        ),
        (
            "edgecontroller",
            "delete",
            "default/pod/unknown",
            json!({"metadata": {"name": "unknown", "namespace": "default", "uid": "x"}}),
            "edgecontroller resource response default/pod/unknown",
        ),
        (
            "policycontroller",
            "insert",
            "default/serviceaccountaccess/a",
            object("ServiceAccountAccess", "a", "u-a"),
            "policycontroller resource response default/serviceaccountaccess/a",
        ),
        (
            "policycontroller",
            "update",
            "default/serviceaccountaccess/a",
            object("ServiceAccountAccess", "a", "u-a"),
            "policycontroller resource response default/serviceaccountaccess/a",
        ),
        (
            "policycontroller",
            "delete",
            "default/serviceaccountaccess/a",
            object("ServiceAccountAccess", "a", "u-a"),
            "policycontroller resource response default/serviceaccountaccess/a",
        ),
        (
            "dynamiccontroller",
            "insert",
            "default/service/v",
            object("Service", "v", "u-v"),
            "dynamiccontroller resource response default/service/v",
        ),
        (
            "dynamiccontroller",
            "update",
            "default/service/v",
            object("Service", "v", "u-v"),
            "dynamiccontroller resource response default/service/v",
        ),
        (
            "dynamiccontroller",
            "delete",
            "default/service/v",
            object("Service", "v", "u-v"),
            "dynamiccontroller resource response default/service/v",
        ),
        (
            "somebody",
            "insert",
            "default/configmap/o",
            object("ConfigMap", "o", "u-o"),
            "somebody resource response default/configmap/o",
        ),
        (
            "somebody",
            "delete",
            "default/configmap/o",
            object("ConfigMap", "o", "u-o"),
            "somebody resource response default/configmap/o",
        ),
    ] {
        assert_eq!(cloud.push(source, operation, resource, &content).await, ack);
    }
    // An object that was made anew under its name outlives a late deletion of the old one.
    cloud
        .push("edgecontroller", "insert", "default/configmap/again", &object("ConfigMap", "again", "new"))
        .await;
    cloud
        .push("edgecontroller", "delete", "default/configmap/again", &object("ConfigMap", "again", "old"))
        .await;
}

async fn pod(cloud: &mut Cloud) {
    let mut pod = object("Pod", "p", "u-p");
    pod["spec"] = json!({"nodeName": "edge-1", "serviceAccountName": "app", "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "app:1", "imagePullPolicy": "IfNotPresent",
            "envFrom": [{"configMapRef": {"name": "asked"}}, {"secretRef": {"name": "asked"}}, {"configMapRef": {"name": "again"}}],
            "volumeMounts": [{"name": "t", "mountPath": "/t"}]}],
        "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}]});
    pod["status"] = json!({"phase": "Pending"});
    assert_eq!(
        cloud.push("edgecontroller", "insert", "default/pod/p", &pod).await,
        "edgecontroller resource response default/pod/p"
    );
    cloud.answer_always("edged meta patch default/podpatch/p", wrapped(&pod));
    let mut data = object("ConfigMap", "asked", "u-asked");
    data["data"] = json!({"A": "1"});
    for (kind, answer) in [("configmap", data), ("secret", object("Secret", "asked", "u-asked-too"))] {
        let (asked, answer) =
            cloud.answer(&format!("edged meta query default/{kind}/asked"), "7", |_| answer).await;
        assert_eq!(asked, Value::Null);
        let ack =
            cloud.try_take(|heard| heard.header.parent.as_ref() == Some(&answer.header.id)).await.unwrap();
        assert_eq!(
            (said(&ack), raw(&ack)),
            (format!("edgecontroller resource response default/{kind}/asked"), json!("OK"))
        );
    }
    let (asked, _) = cloud
        .answer("edged meta query default/serviceaccounttoken/app", "", |asked| {
            let mut made = asked.clone();
            made["status"] = json!({"token": "a.b.c", "expirationTimestamp": "2030-01-01T00:00:00Z"});
            made
        })
        .await;
    assert_eq!(
        asked["spec"],
        json!({"audiences": [], "expirationSeconds": 3607,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u-p"}})
    );
    let event =
        cloud.try_take(|heard| said(heard).starts_with("edged meta insert default/event/p.")).await.unwrap();
    let event = raw(&event);
    assert_eq!(event["involvedObject"]["uid"], "u-p");
    assert_eq!(event["source"], json!({"component": "kubelet", "host": "edge-1"}));
}

async fn pod_ends(cloud: &mut Cloud) {
    let mut pod = object("Pod", "p", "u-p");
    pod["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:10Z".into();
    pod["metadata"]["deletionGracePeriodSeconds"] = 1.into();
    pod["spec"] = json!({"nodeName": "edge-1", "terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "app:1"}]});
    cloud.push("edgecontroller", "update", "default/pod/p", &pod).await;
    let (options, _) = cloud.answer("edged meta delete default/pod/p", "", |_| json!("OK")).await;
    assert_eq!(options, json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u-p"}}));
    cloud.push("edgecontroller", "delete", "default/pod/p", &pod).await;
}

async fn device(cloud: &mut Cloud) {
    let mut model = object("DeviceModel", "m", "u-model");
    model["apiVersion"] = "devices.kubeedge.io/v1beta1".into();
    model["spec"] = json!({"protocol": "simulated", "properties": [{"name": "level", "type": "INT", "accessMode": "ReadWrite"}]});
    let mut device = object("Device", "d", "u-device");
    device["apiVersion"] = "devices.kubeedge.io/v1beta1".into();
    device["spec"] = json!({"deviceModelRef": {"name": "m"}, "nodeName": "edge-1", "protocol": {"protocolName": "simulated", "configData": {}},
        "properties": [{"name": "level", "collectCycle": 200, "reportCycle": 200, "reportToCloud": true, "desired": {"value": "5"},
            "visitors": {"protocolName": "simulated", "configData": {"signal": "memory", "cell": "level", "value": 1}}}]});
    let members = json!({"event_id": "e", "timestamp": 1, "added_devices": [{"id": "default/d", "name": "d"}], "removed_devices": null});
    let membership = Message::new("devicecontroller".into(), "update".into(), "membership")
        .in_group("twin".into())
        .with(Content::json(&members).unwrap());
    cloud.say(&membership).await;
    assert_eq!(
        cloud.push("devicecontroller", "insert", "default/devicemodel/m", &model).await,
        "meta twin response default/devicemodel/m"
    );
    assert_eq!(
        cloud.push("devicecontroller", "insert", "default/device/d", &device).await,
        "meta twin response default/device/d"
    );
    for (what, is_text) in [("twin/edge_updated", false), ("state/update", true)] {
        let report = cloud.take(&format!("twin resource update device/default/d/{what}")).await;
        let content = raw(&report);
        assert_eq!(content.is_string(), is_text, "{content}");
        let content = if is_text { text(&content) } else { content };
        if is_text {
            assert_eq!(content["device"]["name"], "d");
            assert_eq!(keys(&content["device"]), ["lastOnlineTime", "name", "state"]);
        } else {
            assert_eq!(keys(&content), ["event_id", "timestamp", "twin"]);
            assert!(content["twin"]["level"]["metadata"]["type"].is_string(), "{content}");
        }
        let ok = Message::new("devicecontroller".into(), "response".into(), "twin").in_group("twin".into());
        cloud.say(&ok.answering(report.header.id).with(Content::ok())).await;
    }
    assert_eq!(
        cloud.push("devicecontroller", "update", "default/devicemodel/m", &model).await,
        "devicecontroller resource response default/devicemodel/m"
    );
    assert_eq!(
        cloud.push("devicecontroller", "update", "default/device/d", &device).await,
        "devicecontroller resource response default/device/d"
    );
    // As the reconciliation sends it.
    assert_eq!(
        cloud.push("edgecontroller", "update", "default/device/d", &device).await,
        "edgecontroller resource response default/device/d"
    );
    assert_eq!(
        cloud.push("devicecontroller", "delete", "default/device/d", &device).await,
        "meta twin response default/device/d"
    );
    assert_eq!(
        cloud.push("devicecontroller", "delete", "default/devicemodel/m", &model).await,
        "meta twin response default/devicemodel/m"
    );
}

/// What no module takes leaves the session alone; what Go answers on behalf of nobody is answered.
async fn others(cloud: &mut Cloud) {
    let tell = |source: &str, group: &str, operation: &str, resource: &str| {
        Message::new(source.into(), operation.into(), resource)
            .in_group(group.into())
            .with(Content::json(&json!({"a": 1})).unwrap())
    };
    let silent = [
        tell("router_eventbus", "user", "publish", "a/topic"),
        tell("router_servicebus", "user", "GET", "8080:/a"),
        tell("router", "user", "publish", "a"),
        tell(
            "taskmanager",
            "taskmanager",
            "Check",
            "operations.kubeedge.io/v1alpha2/nodeupgradejob/j/node/edge-1",
        ),
        tell("cloudhub", "hub", "x", "y"),
        tell("edgecontroller", "resource", "fly", "default/configmap/x"),
        tell("somebody", "resource", "update", "default/configmap/kept-unconfirmed"),
        tell("edgecontroller", "resource", "response", "default/configmap/nobody-asked")
            .answering("no-question".into()),
        tell("edgecontroller", "resource", "error", "default/pod/p").answering("no-question".into()),
    ];
    for message in &silent {
        cloud.say(message).await;
    }
    let control = tell("viaduct", "x", "ping", "y");
    cloud.say(&control).await;
    let pong =
        cloud.try_take(|heard| heard.header.parent.as_ref() == Some(&control.header.id)).await.unwrap();
    assert_eq!((said(&pong), raw(&pong)), ("viaduct x response y".to_owned(), json!("ack")));
    let volume = tell("cloudhub", "resource", "createvolume", "default/volume/v");
    cloud.say(&volume).await;
    let refused =
        cloud.try_take(|heard| heard.header.parent.as_ref() == Some(&volume.header.id)).await.unwrap();
    assert_eq!(
        (refused.route.operation.as_str(), refused.route.resource.as_str()),
        ("error", "default/volume/v")
    );
    cloud
        .push("edgecontroller", "update", "default/configmap/fence", &object("ConfigMap", "fence", "u"))
        .await;
    let answered: Vec<_> = silent
        .iter()
        .filter(|told| cloud.heard.iter().any(|heard| heard.header.parent.as_ref() == Some(&told.header.id)))
        .map(said)
        .collect();
    // The answer of a ConfigMap that came late is kept, and confirmed like any other.
    assert_eq!(answered, ["edgecontroller resource response default/configmap/nobody-asked"]);
}

#[tokio::test(start_paused = true)]
async fn every_row_the_cloud_says_is_confirmed_exactly_as_a_go_edge_does_and_every_row_of_ours_is_gos() {
    let mut node = Node::start("edge-1", &["app:1"]).await;
    let mut cloud = node.cloud().await;
    assert_eq!(cloud.path, "/e632aba927ea4ac2b575ec1603d56f10/edge-1/events");
    greeted(&mut cloud, true).await;
    confirms(&mut cloud).await;
    pod(&mut cloud).await;
    pod_ends(&mut cloud).await;
    device(&mut cloud).await;
    others(&mut cloud).await;
    drop(cloud);
    let mut cloud = node.cloud().await;
    greeted(&mut cloud, false).await;
    drop(cloud);
    node.stop().await;
}
