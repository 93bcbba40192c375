//! MetaManager on a real file: what it acknowledged is there, whatever happens to the disk.
#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Arc};

use kubeedge_core::{
    bus::{Bus, Inbox},
    kernel::{Module, ModuleContext, Shutdown},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    store::MetaStore,
};
use kubeedge_edge::meta::{BY_RESOURCE, MetaHandle, MetaManager, MetaManagerSettings, ObjectKey, Selector};
use kubeedge_store::{SqliteOptions, SqliteStore};
use serde_json::json;

struct Edge {
    bus: Bus,
    hub: Inbox,
    store: Arc<dyn MetaStore>,
    meta: MetaHandle,
    shutdown: Shutdown,
}

impl Edge {
    async fn start(path: &Path, options: SqliteOptions) -> Self {
        let store: Arc<dyn MetaStore> = Arc::new(SqliteStore::open(path, options).await.unwrap());
        let modules = [ModuleName::META_MANAGER, ModuleName::EDGE_HUB];
        let (bus, mut inboxes) = Bus::new(modules.map(|name| (name, Group::META, 64)));
        let mut inbox = |name| inboxes.remove(&name).unwrap();
        let (inbox, hub) = (inbox(ModuleName::META_MANAGER), inbox(ModuleName::EDGE_HUB));
        let shutdown = Shutdown::new();
        let mut ctx = ModuleContext::new(bus.clone(), inbox, shutdown.clone());
        let mut module = MetaManager::new(MetaManagerSettings::default(), store.clone());
        let meta = module.handle();
        tokio::spawn(async move { module.run(&mut ctx).await });
        Self { bus, hub, store, meta, shutdown }
    }

    /// Sends what the cloud would, and returns the answer on its way to the cloud.
    async fn tell(&mut self, operation: Operation, name: &str, size: usize) -> Message {
        let pod =
            json!({"metadata": {"name": name, "uid": name, "annotations": {"large": "x".repeat(size)}}});
        let message = Message::new(ModuleName::EDGE_CONTROLLER, operation, resource(name))
            .in_group(Group::RESOURCE)
            .with(Content::json(&pod).unwrap());
        let id = message.header.id.clone();
        self.bus.send(&ModuleName::META_MANAGER, message).await.unwrap();
        let answer = self.hub.next().await.unwrap().message;
        assert_eq!(answer.header.parent, Some(id));
        answer
    }

    async fn has(&self, name: &str) -> bool {
        self.meta.get(&ObjectKey::known("pod", "default", name)).await.unwrap().is_some()
    }

    async fn stop(self) {
        self.shutdown.request();
        self.store.close().await.unwrap();
    }
}

fn resource(name: &str) -> String {
    format!("default/pod/{name}")
}

#[tokio::test]
async fn on_a_full_disk_nothing_acknowledged_is_lost_and_the_rest_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("edgecore.db");
    let small = SqliteOptions { max_bytes: Some(400 << 10), ..SqliteOptions::default() };
    let mut edge = Edge::start(&path, small).await;
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    for n in 0..40 {
        let name = format!("pod-{n}");
        let answer = edge.tell(Operation::INSERT, &name, 20_000).await;
        if answer.content.is_ok_text() {
            kept.push(name);
        } else {
            assert_eq!(answer.route.operation, Operation::ERROR);
            let why = answer.content.as_text().unwrap().into_owned();
            assert!(why.contains("store is full") && why.contains("free space"), "{why}");
            refused.push(name);
        }
    }
    assert!(!kept.is_empty() && !refused.is_empty(), "{} kept, {} refused", kept.len(), refused.len());
    let gone = kept.remove(0);
    assert!(edge.tell(Operation::DELETE, &gone, 0).await.content.is_ok_text(), "deleting makes room");
    edge.stop().await;

    let mut edge = Edge::start(&path, SqliteOptions::default()).await;
    for name in &kept {
        assert!(edge.has(name).await, "{name} was acknowledged and is lost");
    }
    assert!(!edge.has(&gone).await);
    for name in &refused {
        assert!(!edge.has(name).await);
        assert!(edge.tell(Operation::INSERT, name, 10).await.content.is_ok_text(), "sent again, with room");
    }
    edge.stop().await;
}

/// What Go's edgecore keeps: rows by resource, tokens under keys of their own, and what MetaServer and DMI
/// leave there.
const GO: &str = r#"CREATE TABLE `meta` (`key` text,`type` text,`value` text,PRIMARY KEY (`key`));
    INSERT INTO meta VALUES('default/pod/web', 'pod', '{"metadata":{"name":"web","uid":"u"}}');
    INSERT INTO meta VALUES('other/pod/db', 'pod', '{"metadata":{"name":"db","uid":"v"}}');
    INSERT INTO meta VALUES('default/podpatch/web', 'podpatch', '{"status":{}}');
    INSERT INTO meta VALUES('null/node/edge-1', 'node', '{"metadata":{"name":"edge-1"}}');
    INSERT INTO meta VALUES('default/device/valve', 'device', '{"metadata":{"name":"valve"}}');
    INSERT INTO meta VALUES('node/nodeID/namespace/devicemapper/modbus', 'devicemapper', '{}');
    INSERT INTO meta VALUES('"default"/"app"/[]string(nil)', 'serviceaccounttoken', '{}');"#;

#[tokio::test]
async fn a_database_of_go_is_served_by_its_keys() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("edgecore.db");
    let go = rusqlite::Connection::open(&path).unwrap();
    go.execute_batch(GO).unwrap();
    let options = SqliteOptions { adopt: Some(BY_RESOURCE), ..SqliteOptions::default() };
    for opened in 1..=2 {
        let edge = Edge::start(&path, options).await;
        let pods = edge.meta.list(&Selector::known("pod")).await.unwrap();
        let keys: Vec<_> = pods.iter().map(|pod| pod.key.to_string()).collect();
        assert_eq!(keys, ["core/pod/default/web", "core/pod/other/db"], "opened {opened} times");
        for resource in ["default/podpatch/web", "null/node/edge-1", "default/device/valve"] {
            assert!(edge.meta.get(&ObjectKey::of_resource(resource)).await.unwrap().is_some(), "{resource}");
        }
        edge.stop().await;
    }
    let kept: i64 = go.query_row("SELECT count(*) FROM meta", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 7, "Go's own table stays for a way back");
}
