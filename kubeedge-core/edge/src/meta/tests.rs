use kubeedge_core::{bus::Inbox, kernel::Shutdown, store::MetaStoreExt};
use kubeedge_store::MemoryStore;
use serde_json::{Value, json};

use super::*;

struct Rig {
    bus: Bus,
    store: Arc<dyn MetaStore>,
    hub: Inbox,
    edged: Inbox,
    twin: Inbox,
    shutdown: Shutdown,
}

fn rig() -> Rig {
    let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::default());
    let modules = [ModuleName::META_MANAGER, ModuleName::EDGE_HUB, ModuleName::EDGED, ModuleName::TWIN];
    let (bus, mut inboxes) = Bus::freeze(modules.map(|name| (name, Group::META, 64)));
    let mut inbox = |name: ModuleName| inboxes.remove(&name).unwrap();
    let shutdown = Shutdown::new();
    let mut ctx = ModuleContext {
        bus: bus.clone(),
        inbox: inbox(ModuleName::META_MANAGER),
        shutdown: shutdown.clone(),
    };
    let mut module = MetaManager::new(MetaManagerSettings::default(), store.clone());
    tokio::spawn(async move { module.start(&mut ctx).await.unwrap() });
    let (hub, edged, twin) = (inbox(ModuleName::EDGE_HUB), inbox(ModuleName::EDGED), inbox(ModuleName::TWIN));
    Rig { bus, store, hub, edged, twin, shutdown }
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
        self.store.get_as(&rows::key(resource)).await.unwrap()
    }

    fn client(&self) -> Client {
        Client::new(self.bus.clone(), Duration::from_secs(60))
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
    assert_eq!(verdict(json!({"data": {}})), cloud::Verdict::Object("{\"data\":{}}".into()));
}
