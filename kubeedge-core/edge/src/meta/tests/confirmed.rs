//! What the cloud was told is here, and what it hears when it asks.

use futures::TryStreamExt;
use kubeedge_common::digest::{Asks, Entry, Opening, RESOURCE, Reply, Tree};
use kubeedge_core::store::Scan;

use super::*;

/// A DeviceTwin that knows one device.
#[derive(Debug)]
struct OneDevice;

#[async_trait]
impl DeviceInventory for OneDevice {
    async fn devices(&self) -> Result<Vec<String>, StoreError> {
        Ok(vec!["default/d".to_owned()])
    }
}

fn object(uid: &str, version: u32) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default", "uid": uid, "resourceVersion": version.to_string()}})
}

fn message(operation: Operation, resource: &str, uid: &str, version: u32) -> Message {
    from_cloud(ModuleName::EDGE_CONTROLLER, operation, resource, &object(uid, version))
        .at_version(version.to_string())
}

impl Rig {
    /// Tells MetaManager something of the cloud, and waits for the acknowledgement.
    async fn take(&mut self, message: Message) {
        self.tell(message).await;
        self.hub.next().await.unwrap();
    }

    /// Unique ids and versions of what is confirmed.
    async fn confirmed(&self) -> Vec<(String, u64)> {
        let rows: Vec<_> = self.store.scan(Scan::new(objects::CONFIRMED, "")).try_collect().await.unwrap();
        let version = |value: &[u8]| serde_json::from_slice::<(u64, String)>(value).unwrap().0;
        rows.into_iter().map(|row| (row.key.name, version(&row.value))).collect()
    }
}

fn of(entries: &[(&str, u64)]) -> Vec<(String, u64)> {
    entries.iter().map(|(uid, version)| ((*uid).to_owned(), *version)).collect()
}

#[tokio::test]
async fn what_is_confirmed_follows_what_is_stored() {
    use Operation as Do;
    let mut rig = rig();
    let (pod, map) = ("default/pod/web", "default/configmap/web");
    rig.take(message(Do::INSERT, pod, "a", 5)).await;
    rig.take(message(Do::UPDATE, map, "m", 6)).await;
    assert_eq!(rig.confirmed().await, of(&[("a", 5), ("m", 6)]));
    // Another of its name takes its place, whose end comes late.
    rig.take(message(Do::INSERT, pod, "b", 8)).await;
    assert_eq!(rig.confirmed().await, of(&[("b", 8), ("m", 6)]));
    rig.take(message(Do::DELETE, pod, "a", 5)).await;
    assert_eq!(rig.confirmed().await, of(&[("b", 8), ("m", 6)]));
    rig.take(message(Do::DELETE, map, "m", 6)).await;
    // A deletion that names no object means whichever there is.
    rig.take(from_cloud(ModuleName::EDGE_CONTROLLER, Do::DELETE, pod, &json!({}))).await;
    assert!(rig.confirmed().await.is_empty());
    // What is not compared, is of nobody known, or has no version is not confirmed.
    rig.take(message(Do::UPDATE, "null/node/n", "n", 9)).await;
    rig.take(from_cloud(ModuleName::EDGE_CONTROLLER, Do::UPDATE, pod, &object("a", 9))).await;
    assert!(rig.confirmed().await.is_empty());
}

#[tokio::test]
async fn an_answer_to_a_patch_brings_the_pod_up_to_date_and_confirms_nothing() {
    let mut rig = rig();
    rig.take(message(Operation::INSERT, "default/pod/web", "a", 5)).await;
    rig.connect().await;
    let patch =
        Message::new(ModuleName::EDGED, Operation::PATCH, "default/podpatch/web").with(Content::text("{}"));
    let bus = rig.bus.clone();
    let asking = tokio::spawn(async move {
        bus.request(&ModuleName::META_MANAGER, patch, Duration::from_secs(60)).await.unwrap()
    });
    let answer = json!({"Object": object("a", 7), "Err": null});
    rig.hub.next().await.unwrap().answer(Content::json(&answer).unwrap());
    asking.await.unwrap();
    assert_eq!(rig.row("default/pod/web").await, Some(object("a", 7)));
    assert_eq!(rig.confirmed().await, of(&[("a", 5)]));
    // An update that the answer has overtaken is confirmed, and what is stored stays.
    rig.take(message(Operation::UPDATE, "default/pod/web", "a", 6)).await;
    assert_eq!(rig.row("default/pod/web").await, Some(object("a", 7)));
    assert_eq!(rig.confirmed().await, of(&[("a", 6)]));
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_confirmed_later_either() {
    let store = Arc::new(FaultyStore::new(MemoryStore::default()));
    store.fail(Fault::WritesFrom(1), StoreKind::Full);
    let mut rig = rig_on(store);
    rig.take(message(Operation::INSERT, "default/pod/web", "a", 5)).await;
    assert!(rig.confirmed().await.is_empty() && rig.row("default/pod/web").await.is_none());
}

#[tokio::test]
async fn a_cloud_that_asks_hears_what_is_confirmed_and_which_devices_are_known() {
    let mut rig = rig_with(Arc::new(MemoryStore::default()), |manager| manager.devices(Arc::new(OneDevice)));
    rig.take(message(Operation::INSERT, "default/pod/web", "a", 5)).await;
    let entry =
        |key: &str, version, path: &str| Entry { key: key.to_owned(), version, path: path.to_owned() };
    let all = [entry("a", 5, "default/pod/web"), entry("default/d", 1, "")];
    for (known, nodes) in [(&all[..], 0), (&all[..1], 1)] {
        let opening = Tree::new(9, known.iter().cloned()).opening();
        let opening = Content::json(&opening).unwrap();
        let wish = Message::new(ModuleName::SYNC_CONTROLLER, Operation::GET, RESOURCE).with(opening);
        rig.tell(wish.in_group(Group::RESOURCE)).await;
        let said = rig.hub.next().await.unwrap();
        let reply: Reply = said.message.content.decode().unwrap();
        assert_eq!((reply.salt, reply.nodes.len()), (9, nodes));
        let found = reply.nodes.into_iter().flat_map(|node| node.has).count();
        assert_eq!(found, 2 * nodes);
        said.answer(Content::json(&Asks::default()).unwrap());
    }
}

#[tokio::test]
async fn a_wish_that_cannot_be_read_and_one_that_comes_after_another_do_no_harm() {
    let mut rig = rig();
    let wish = |content: &Value| from_cloud(ModuleName::SYNC_CONTROLLER, Operation::GET, RESOURCE, content);
    rig.tell(wish(&json!({"salt": "x"}))).await;
    rig.tell(wish(&serde_json::to_value(Opening { salt: 1, root: 2 }).unwrap())).await;
    let first = rig.hub.next().await.unwrap();
    rig.tell(wish(&serde_json::to_value(Opening { salt: 3, root: 4 }).unwrap())).await;
    let second = rig.hub.next().await.unwrap();
    assert!(!first.wants_answer() || first.message != second.message);
    assert_eq!(second.message.content.decode::<Reply>().unwrap().salt, 3);
}
