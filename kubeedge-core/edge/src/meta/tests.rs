use bytes::Bytes;
use kubeedge_core::{
    bus::{Bus, Inbox},
    kernel::Shutdown,
    message::{Content, json, resource::ObjectPath},
    store::{MetaStoreExt, StoreKind},
};
use kubeedge_store::{Fault, FaultyStore, MemoryStore};
use serde_json::{Value, json};

use super::{
    dispatcher::{MAX_BACKGROUND, TOO_MANY},
    *,
};

struct Rig {
    bus: Bus,
    store: Arc<dyn MetaStore>,
    handle: MetaHandle,
    hub: Inbox,
    edged: Inbox,
    twin: Inbox,
    shutdown: Shutdown,
}

fn rig() -> Rig {
    rig_on(Arc::new(MemoryStore::default()))
}

fn rig_on(store: Arc<dyn MetaStore>) -> Rig {
    rig_with(store, |manager| manager)
}

fn rig_with(store: Arc<dyn MetaStore>, set_up: impl FnOnce(MetaManager) -> MetaManager) -> Rig {
    let modules = [ModuleName::META_MANAGER, ModuleName::EDGE_HUB, ModuleName::EDGED, ModuleName::TWIN];
    let (bus, mut inboxes) = Bus::new(modules.map(|name| (name, Group::META, 64)));
    let mut inbox = |name: ModuleName| inboxes.remove(&name).unwrap();
    let shutdown = Shutdown::new();
    let mut ctx = ModuleContext::new(bus.clone(), inbox(ModuleName::META_MANAGER), shutdown.clone());
    let mut module = set_up(MetaManager::new(MetaManagerSettings::default(), store.clone()));
    let handle = module.handle();
    tokio::spawn(async move { module.run(&mut ctx).await.unwrap() });
    let (hub, edged, twin) = (inbox(ModuleName::EDGE_HUB), inbox(ModuleName::EDGED), inbox(ModuleName::TWIN));
    Rig { bus, store, handle, hub, edged, twin, shutdown }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

fn from_cloud(source: ModuleName, operation: Operation, resource: &str, object: &Value) -> Message {
    Message::new(source, operation, resource).in_group(Group::RESOURCE).with(Content::json(object).unwrap())
}

fn pod(uid: &str) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default", "uid": uid}})
}

impl Rig {
    async fn tell(&self, message: Message) {
        self.bus.send(&ModuleName::META_MANAGER, message).await.unwrap();
    }

    async fn connect(&self) {
        let up = Message::new(ModuleName::of("edgehub"), Operation::CONNECT, "node/connection");
        self.tell(up.with(Content::text("cloud_connected"))).await;
    }

    async fn row(&self, resource: &str) -> Option<Value> {
        let key = objects::key(&ObjectKey::of_resource(resource));
        self.store.get_as(&key).await.unwrap()
    }

    fn client(&self) -> Client {
        Client::new(self.handle.clone(), self.bus.clone(), Duration::from_secs(60))
    }
}

#[tokio::test]
async fn a_pod_is_stored_before_it_is_acknowledged_and_reaches_edged() {
    let mut rig = rig();
    let insert = from_cloud(ModuleName::EDGE_CONTROLLER, Operation::INSERT, "default/pod/web", &pod("u1"));
    rig.tell(insert.clone()).await;
    let ack = rig.hub.next().await.unwrap().message;
    assert_eq!(rig.row("default/pod/web").await, Some(pod("u1")));
    assert_eq!(ack.header.parent, Some(insert.header.id.clone()));
    assert!(ack.content.is_ok_text());
    assert_eq!((ack.route.source, ack.route.group), (ModuleName::EDGE_CONTROLLER, Group::RESOURCE));
    assert_eq!(rig.edged.next().await.unwrap().message.header.id, insert.header.id);
}

#[tokio::test]
async fn an_older_form_of_a_pod_is_acknowledged_and_does_not_take_the_place_of_a_newer_one() {
    let mut rig = rig();
    let at = |version: &str| json!({"metadata": {"name": "web", "uid": "u1", "resourceVersion": version}});
    for version in ["208", "207"] {
        let update =
            from_cloud(ModuleName::EDGE_CONTROLLER, Operation::UPDATE, "default/pod/web", &at(version));
        rig.tell(update.clone()).await;
        assert_eq!(rig.hub.next().await.unwrap().message.header.parent, Some(update.header.id.clone()));
        assert_eq!(rig.edged.next().await.unwrap().message.header.id, update.header.id);
    }
    assert_eq!(rig.row("default/pod/web").await, Some(at("208")));
}

#[tokio::test]
async fn devices_reach_the_twin_and_are_acknowledged_as_go_does() {
    let mut rig = rig();
    let device = json!({"metadata": {"name": "thermo"}});
    rig.tell(from_cloud(ModuleName::DEVICE_CONTROLLER, Operation::INSERT, "default/device/thermo", &device))
        .await;
    let ack = rig.hub.next().await.unwrap().message;
    assert_eq!((ack.route.source.as_str(), ack.route.group), ("meta", Group::TWIN));
    let routed = rig.twin.next().await.unwrap().message;
    assert_eq!((routed.route.source.as_str(), routed.route.group), ("meta", Group::TWIN));
    rig.tell(from_cloud(ModuleName::DEVICE_CONTROLLER, Operation::UPDATE, "default/device/thermo", &device))
        .await;
    let ack = rig.hub.next().await.unwrap().message;
    assert_eq!((ack.route.source, ack.route.group), (ModuleName::DEVICE_CONTROLLER, Group::RESOURCE));
}

#[tokio::test]
async fn a_store_that_fails_gives_an_error_and_no_acknowledgement() {
    let mut rig = rig();
    rig.store.close().await.unwrap();
    rig.tell(from_cloud(ModuleName::EDGE_CONTROLLER, Operation::INSERT, "default/pod/web", &pod("u1"))).await;
    let answer = rig.hub.next().await.unwrap().message;
    assert_eq!(answer.route.operation, Operation::ERROR);
    assert!(rig.edged.try_next().is_none());
}

#[tokio::test]
async fn deleting_a_pod_spares_its_successor_of_the_same_name() {
    let mut rig = rig();
    for (operation, uid) in [(Operation::INSERT, "new"), (Operation::DELETE, "old")] {
        rig.tell(from_cloud(ModuleName::EDGE_CONTROLLER, operation, "default/pod/web", &pod(uid))).await;
        rig.hub.next().await.unwrap();
    }
    assert!(rig.row("default/pod/web").await.is_some());
    rig.tell(from_cloud(ModuleName::EDGE_CONTROLLER, Operation::DELETE, "default/pod/web", &pod("new")))
        .await;
    rig.hub.next().await.unwrap();
    assert!(rig.row("default/pod/web").await.is_none());
}

#[tokio::test]
async fn pods_of_all_namespaces_are_listed_locally() {
    let mut rig = rig();
    for name in ["default/pod/a", "other/pod/b", "default/configmap/c"] {
        rig.tell(from_cloud(ModuleName::EDGE_CONTROLLER, Operation::UPDATE, name, &pod(name))).await;
        rig.hub.next().await.unwrap();
    }
    assert_eq!(rig.client().pods().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_config_map_is_asked_of_the_cloud_once_kept_and_its_answer_acknowledged() {
    let mut rig = rig();
    let missing = rig.client().config_map("default", "app").await.unwrap_err();
    assert!(missing.is_not_found(), "without a link only the copy answers: {missing}");
    rig.connect().await;
    let client = rig.client();
    let asking = tokio::spawn(async move { client.config_map("default", "app").await });
    let question = rig.hub.next().await.unwrap();
    let answer = question.message.answer(Content::json(&json!({"data": {"k": "v"}})).unwrap());
    question.reply_with(answer.clone());
    assert_eq!(asking.await.unwrap().unwrap().data.unwrap()["k"], "v");
    let ack = rig.hub.next().await.unwrap().message;
    assert_eq!(ack.header.parent, Some(answer.header.id));
    assert_eq!(ack.route.source, ModuleName::EDGE_CONTROLLER);
    assert!(rig.row("default/configmap/app").await.is_some());
    assert!(rig.client().config_map("default", "app").await.is_ok(), "answered from the copy");
}

#[tokio::test]
async fn a_refusal_is_told_and_never_stored() {
    let mut rig = rig();
    rig.connect().await;
    let client = rig.client();
    let asking = tokio::spawn(async move { client.secret("default", "s").await });
    let refusal =
        json!({"ErrStatus": {"metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404}});
    rig.hub.next().await.unwrap().answer(Content::json(&refusal).unwrap());
    assert!(asking.await.unwrap().unwrap_err().is_not_found());
    assert!(rig.row("default/secret/s").await.is_none());
}

#[tokio::test]
async fn a_status_patch_keeps_its_id_and_refreshes_the_copy_of_its_pod() {
    let mut rig = rig();
    rig.tell(from_cloud(ModuleName::EDGE_CONTROLLER, Operation::INSERT, "default/pod/web", &pod("u1"))).await;
    rig.hub.next().await.unwrap();
    let patch =
        Message::new(ModuleName::EDGED, Operation::PATCH, "default/podpatch/web").with(Content::text("{}"));
    let lost =
        rig.bus.request(&ModuleName::META_MANAGER, patch.clone(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(lost.content.as_text().unwrap(), cloud::LOST);
    // The hub keeps it for the next link.
    assert_eq!(rig.hub.next().await.unwrap().message.header.id, patch.header.id);
    rig.connect().await;
    let (bus, sent) = (rig.bus.clone(), patch.clone());
    let asking =
        tokio::spawn(
            async move { bus.request(&ModuleName::META_MANAGER, sent, Duration::from_secs(60)).await },
        );
    let question = rig.hub.next().await.unwrap();
    assert_eq!(question.message.header.id, patch.header.id);
    let mut object = pod("u1");
    object["status"] = json!({"phase": "Running"});
    question.answer(Content::json(&json!({"Object": object, "Err": null})).unwrap());
    asking.await.unwrap().unwrap();
    assert_eq!(rig.row("default/pod/web").await.unwrap()["status"]["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_does_not_answer_holds_up_nobody_else() {
    let mut rig = rig();
    rig.connect().await;
    let client = rig.client();
    let asking = tokio::spawn(async move { client.lease("n").await });
    let _unanswered = rig.hub.next().await.unwrap();
    assert!(rig.client().pods().await.unwrap().is_empty());
    assert!(asking.await.unwrap().is_err());
}

#[tokio::test]
async fn a_token_is_fetched_once_while_it_is_fresh() {
    let mut rig = rig();
    rig.connect().await;
    let request = k8s_openapi::api::authentication::v1::TokenRequest::default();
    let (client, asked) = (rig.client(), request.clone());
    let asking = tokio::spawn(async move { client.token("default", "sa", &asked).await });
    let answer = json!({"metadata": {}, "spec": {"audiences": []}, "status": {"token": "jwt", "expirationTimestamp": "2999-01-01T00:00:00Z"}});
    rig.hub.next().await.unwrap().answer(Content::json(&answer).unwrap());
    assert_eq!(asking.await.unwrap().unwrap().status.unwrap().token, "jwt");
    assert_eq!(rig.client().token("default", "sa", &request).await.unwrap().status.unwrap().token, "jwt");
    assert!(rig.hub.try_next().is_none());
}

#[test]
fn what_an_answer_holds_is_seen_without_parsing_the_object() {
    let verdict = |value: Value| cloud::verdict(&Content::json(&value).unwrap());
    assert_eq!(verdict(json!("OK")), cloud::Verdict::Nothing);
    assert_eq!(verdict(json!({"Object": {"a": 1}, "Err": null})), cloud::Verdict::Object("{\"a\":1}".into()));
    assert_eq!(verdict(json!({"Object": null, "Err": {"ErrStatus": {}}})), cloud::Verdict::Nothing);
    assert_eq!(verdict(json!({"ErrStatus": {"code": 404}})), cloud::Verdict::Nothing);
    assert_eq!(verdict(json!({"Object": null, "Err": null})), cloud::Verdict::Nothing);
    assert_eq!(verdict(json!({"Object": {"metadata": {}}, "Err": {}})), cloud::Verdict::Nothing);
    assert_eq!(verdict(json!({})), cloud::Verdict::Nothing);
    assert_eq!(verdict(json!({"data": {}})), cloud::Verdict::Object("{\"data\":{}}".into()));
}

/// What a Go edge received and how it acknowledged it; see the lines of the file.
const RECORDED: &str = include_str!("../../tests/data/meta-acknowledgements.jsonl");

#[tokio::test]
async fn acknowledgements_are_those_a_go_edge_gives() {
    for line in RECORDED.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let part = |name: &str| json::decode(&Bytes::from(line[name].to_string())).unwrap();
        let (received, recorded) = (part("received"), part("acknowledged"));
        let mut rig = rig();
        rig.tell(received.clone()).await;
        let mut ack = rig.hub.next().await.unwrap().message;
        assert_ne!(ack.header.id, received.header.id);
        ack.header.id = recorded.header.id.clone();
        ack.header.timestamp = recorded.header.timestamp;
        assert_eq!(json::encode(&ack), json::encode(&recorded));
        let kept = rig.row(received.route.resource.as_str()).await;
        let gone = received.route.operation == Operation::DELETE;
        assert_eq!(kept, (!gone).then(|| line["received"]["content"].clone()));
        let kind = ObjectPath::parse(received.route.resource.as_str()).unwrap().kind.to_owned();
        let device = kind.starts_with("device");
        assert_eq!(rig.twin.try_next().is_some(), device, "{kind} to the twin");
        // An acknowledgement goes out after the object was passed on, except for devices.
        assert_eq!(rig.edged.try_next().is_some(), !device && kind != "node", "{kind} to edged");
    }
}

#[tokio::test]
async fn an_answer_that_comes_late_never_takes_the_place_of_an_object() {
    let mut rig = rig();
    rig.tell(from_cloud(ModuleName::EDGE_CONTROLLER, Operation::INSERT, "default/pod/web", &pod("u1"))).await;
    rig.hub.next().await.unwrap();
    let late = |resource: &str, content: Value| {
        from_cloud(ModuleName::EDGE_CONTROLLER, Operation::RESPONSE, resource, &content)
            .answering("gone".into())
    };
    rig.tell(late("default/pod/web", json!("OK"))).await;
    rig.tell(late("null/node/n", json!("OK"))).await;
    rig.tell(late("default/secret/s", json!({"ErrStatus": {"code": 404}}))).await;
    let map = late("default/configmap/app", json!({"metadata": {"name": "app"}}));
    rig.tell(map.clone()).await;
    let ack = rig.hub.next().await.unwrap().message;
    assert_eq!(ack.header.parent, Some(map.header.id), "only what is kept is acknowledged");
    assert_eq!(rig.row("default/pod/web").await, Some(pod("u1")));
    assert_eq!(rig.row("null/node/n").await, None);
    assert_eq!(rig.row("default/secret/s").await, None);
    assert!(rig.row("default/configmap/app").await.is_some());
}

#[tokio::test]
async fn an_answer_overtaken_by_an_update_does_not_undo_it() {
    let mut rig = rig();
    rig.connect().await;
    let version = |n: u32| json!({"metadata": {"uid": "u", "resourceVersion": n.to_string()}});
    let client = rig.client();
    let asking = tokio::spawn(async move { client.config_map("default", "app").await });
    let question = rig.hub.next().await.unwrap();
    let update =
        from_cloud(ModuleName::EDGE_CONTROLLER, Operation::UPDATE, "default/configmap/app", &version(10));
    rig.tell(update).await;
    rig.hub.next().await.unwrap();
    question.answer(Content::json(&version(9)).unwrap());
    asking.await.unwrap().unwrap();
    rig.hub.next().await.unwrap();
    assert_eq!(rig.row("default/configmap/app").await, Some(version(10)));
}

#[tokio::test]
async fn an_answer_that_cannot_be_stored_is_given_but_not_acknowledged() {
    let store = Arc::new(FaultyStore::new(MemoryStore::default()));
    store.fail(Fault::WritesFrom(1), StoreKind::Full);
    let mut rig = rig_on(store.clone());
    rig.connect().await;
    let client = rig.client();
    let asking = tokio::spawn(async move { client.config_map("default", "app").await });
    rig.hub.next().await.unwrap().answer(Content::json(&json!({"data": {"k": "v"}})).unwrap());
    assert!(asking.await.unwrap().is_ok());
    let insert = from_cloud(ModuleName::EDGE_CONTROLLER, Operation::INSERT, "default/pod/web", &pod("u1"));
    rig.tell(insert.clone()).await;
    let answer = rig.hub.next().await.unwrap().message;
    assert_eq!(answer.route.operation, Operation::ERROR);
    assert_eq!(answer.header.parent, Some(insert.header.id.clone()));
    store.heal();
    rig.tell(insert).await;
    assert!(rig.hub.next().await.unwrap().message.content.is_ok_text(), "sent again, stored, acknowledged");
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_told_to_who_asks() {
    let store = Arc::new(FaultyStore::new(MemoryStore::default()));
    let rig = rig_on(store.clone());
    store.fail(Fault::From(1), StoreKind::Corrupt);
    let error = rig.client().pods().await.unwrap_err();
    assert!(error.to_string().contains("stored data is corrupt"), "{error}");
}

#[tokio::test]
async fn the_tokens_of_a_pod_go_with_it() {
    let mut rig = rig();
    rig.connect().await;
    let expires = json!({"token": "jwt", "expirationTimestamp": "2999-01-01T00:00:00Z"});
    let answer = json!({"metadata": {}, "spec": {"audiences": []}, "status": expires});
    for uid in ["u1", "u2"] {
        let bound = json!({"spec": {"audiences": [], "boundObjectRef": {"kind": "Pod", "uid": uid}}});
        let request = serde_json::from_value(bound).unwrap();
        let client = rig.client();
        let asking = tokio::spawn(async move { client.token("default", "sa", &request).await });
        rig.hub.next().await.unwrap().answer(Content::json(&answer).unwrap());
        asking.await.unwrap().unwrap();
    }
    rig.tell(from_cloud(ModuleName::EDGE_CONTROLLER, Operation::DELETE, "default/pod/web", &pod("u1"))).await;
    rig.hub.next().await.unwrap();
    let left: Vec<Value> =
        rig.store.list_as(kubeedge_core::store::Scan::new(objects::TOKENS, "default/sa?")).await.unwrap();
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn without_a_link_questions_fail_at_once_with_the_words_of_go() {
    let rig = rig();
    let lease = rig.client().lease("n").await.unwrap_err();
    assert!(lease.to_string().ends_with("failed to process remote: not connected"), "{lease}");
    let registered = rig.client().register_node(&Default::default()).await.unwrap_err();
    assert!(registered.to_string().ends_with("failed to process remote: not connected"), "{registered}");
    let patched = rig.client().patch_node_status("n", &json!({})).await.unwrap_err();
    assert!(patched.to_string().ends_with("connection lost between EdgeCore and CloudCore"), "{patched}");
}

#[tokio::test]
async fn a_volume_operation_is_answered_even_if_edged_cannot_do_it() {
    let mut rig = rig();
    let asked = from_cloud(ModuleName::CLOUD_HUB, "createvolume".into(), "default/volume/v", &json!("{}"));
    rig.tell(asked.clone()).await;
    drop(rig.edged.next().await.unwrap());
    let answer = rig.hub.next().await.unwrap().message;
    assert_eq!(answer.header.parent, Some(asked.header.id));
    assert_eq!(answer.route.operation, Operation::ERROR);
}

#[tokio::test]
async fn an_unexplained_failure_of_the_cloud_is_no_empty_object() {
    let mut rig = rig();
    rig.connect().await;
    let client = rig.client();
    let asking = tokio::spawn(async move { client.config_map("default", "app").await });
    rig.hub.next().await.unwrap().answer(Content::json(&json!({})).unwrap());
    assert!(asking.await.unwrap().unwrap_err().to_string().contains("did not say why"));
    assert_eq!(rig.row("default/configmap/app").await, None);
}

#[tokio::test]
async fn a_pod_that_cannot_be_read_does_not_hide_the_others() {
    let mut rig = rig();
    for (name, object) in [("a", pod("a")), ("b", json!({"spec": "no object"})), ("c", pod("c"))] {
        let resource = format!("default/pod/{name}");
        rig.tell(from_cloud(ModuleName::EDGE_CONTROLLER, Operation::INSERT, &resource, &object)).await;
        rig.hub.next().await.unwrap();
    }
    assert_eq!(rig.client().pods().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_clone_that_takes_over_knows_that_the_link_is_up() {
    let (bus, mut inboxes) =
        Bus::new([ModuleName::META_MANAGER, ModuleName::EDGE_HUB].map(|name| (name, Group::META, 8)));
    let inbox = inboxes.remove(&ModuleName::META_MANAGER).unwrap();
    let mut hub = inboxes.remove(&ModuleName::EDGE_HUB).unwrap();
    let first = MetaManager::new(MetaManagerSettings::default(), Arc::new(MemoryStore::default()));
    let second = first.clone();
    let mut ctx = ModuleContext::new(bus.clone(), inbox, Shutdown::new());
    let up = Message::new(ModuleName::of("edgehub"), Operation::CONNECT, "node/connection");
    bus.send(&ModuleName::META_MANAGER, up.with(Content::text("cloud_connected"))).await.unwrap();
    for mut module in [first, second] {
        let client = Client::new(module.handle(), bus.clone(), Duration::from_secs(60));
        let asking = tokio::spawn(async move { client.lease("n").await });
        tokio::select! {
            ended = module.run(&mut ctx) => panic!("{ended:?}"),
            question = hub.next() => assert_eq!(question.unwrap().message.route.resource, "kube-node-lease/lease/n"),
            answer = asking => panic!("answered without the cloud: {answer:?}"),
        }
    }
}

/// What a Go edge asked, what a Go cloud answered, and how the answer was acknowledged.
const QUESTIONS: &str = include_str!("../../tests/data/meta-questions.jsonl");

#[tokio::test]
async fn questions_and_acknowledgements_of_answers_are_those_of_a_go_edge() {
    for line in QUESTIONS.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let part = |name: &str| json::decode(&Bytes::from(line[name].to_string())).unwrap();
        let (asked, answered, acknowledged) = (part("asked"), part("answered"), part("acknowledged"));
        let mut rig = rig();
        rig.connect().await;
        let path = ObjectPath::parse(asked.route.resource.as_str()).unwrap();
        let (client, name, secret) = (rig.client(), path.name.to_owned(), path.kind == "secret");
        let asking = tokio::spawn(async move {
            if secret {
                client.secret("default", &name).await.map(|secret| secret.data.is_some())
            } else {
                client.config_map("default", &name).await.map(|map| map.data.is_some())
            }
        });
        let question = rig.hub.next().await.unwrap();
        assert_eq!(question.message.route, asked.route);
        assert_eq!(question.message.content, asked.content);
        question.reply_with(answered.clone());
        assert!(asking.await.unwrap().unwrap(), "the data arrives");
        let mut ack = rig.hub.next().await.unwrap().message;
        ack.header.id = acknowledged.header.id.clone();
        ack.header.timestamp = acknowledged.header.timestamp;
        assert_eq!(json::encode(&ack), json::encode(&acknowledged));
        assert_eq!(rig.row(asked.route.resource.as_str()).await, Some(line["answered"]["content"].clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_questions_is_refused_not_piled_up() {
    let rig = rig();
    rig.connect().await;
    let mut crowd = JoinSet::new();
    for _ in 0..MAX_BACKGROUND + 10 {
        let client = rig.client();
        crowd.spawn(async move { client.lease("n").await.unwrap_err().to_string() });
    }
    let mut refused = 0;
    while let Some(why) = crowd.join_next().await {
        refused += usize::from(why.unwrap().ends_with(TOO_MANY));
    }
    assert_eq!(refused, 10);
}

mod confirmed;
mod handle;
