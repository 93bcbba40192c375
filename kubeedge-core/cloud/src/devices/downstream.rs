//! Devices and their models to the nodes they are on.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
};

use kubeedge_core::{
    message::{Content, Message, Millis, resource},
    name::{Group, ModuleName, NodeName, Operation},
};
use serde_json::{Value, json};

use super::{API_VERSION, status, view::DeviceView};
use crate::{
    cluster::{Clients, namespaced},
    informer::{Change, Informer, Object, ObjectKey},
};

/// A device this controller has seen.
#[derive(Debug)]
struct Seen {
    object: Arc<Object>,
    view: DeviceView,
    /// Sent to its node, or on its way.
    sent: bool,
}

#[derive(Debug)]
pub(super) struct Downstream {
    clients: Arc<Clients>,
    models: Arc<Informer>,
    seen: HashMap<ObjectKey, Seen>,
}

impl Downstream {
    pub(super) fn new(clients: Arc<Clients>, models: Arc<Informer>) -> Self {
        Self { clients, models, seen: HashMap::new() }
    }

    /// A model changed: devices that waited for it go. A change alone is not pushed here, as in Go: the
    /// reconciliation sends it to every edge that has the model.
    pub(super) async fn model(&mut self, change: &Change) -> Vec<Message> {
        let Some(model) = &change.new else { return Vec::new() };
        let waits = |seen: &Seen| {
            !seen.sent
                && seen.view.model == model.key.name
                && seen.object.key.namespace == model.key.namespace
        };
        let waiting: Vec<_> =
            self.seen.values().filter(|seen| waits(seen)).map(|seen| seen.object.clone()).collect();
        let mut messages = Vec::new();
        for device in waiting {
            messages.extend(self.added(&device).await);
        }
        messages
    }

    pub(super) async fn device(&mut self, change: &Change) -> Vec<Message> {
        match (&change.old, &change.new) {
            (Some(old), Some(new)) if old.uid == new.uid && self.seen.contains_key(&new.key) => {
                self.modified(old, new).await
            }
            (old, new) => {
                let mut messages = old.as_ref().map(|old| self.deleted(old)).unwrap_or_default();
                if let Some(new) = new {
                    messages.extend(self.added(new).await);
                }
                messages
            }
        }
    }

    /// One membership message with all devices that are on a node.
    pub(super) fn announce(&self, node: &NodeName) -> Option<Message> {
        let on = |seen: &&Seen| seen.sent && seen.view.node.as_ref() == Some(node);
        let devices: Vec<_> = self.seen.values().filter(on).map(|seen| member(&seen.object)).collect();
        (!devices.is_empty())
            .then(|| membership(node, Value::Array(devices), Value::Null, self.clients.clock().now()))
    }

    async fn modified(&mut self, old: &Object, new: &Arc<Object>) -> Vec<Message> {
        if old.same_spec(new) {
            if let Some(seen) = self.seen.get_mut(&new.key) {
                seen.object = new.clone();
            }
            return Vec::new();
        }
        let same_place = match (DeviceView::of(new), self.seen.get(&new.key)) {
            (Ok(view), Some(seen)) => {
                seen.sent && view.node == seen.view.node && view.model == seen.view.model
            }
            _ => false,
        };
        if !same_place {
            let mut messages = self.deleted(old);
            messages.extend(self.added(new).await);
            return messages;
        }
        let Ok(view) = DeviceView::of(new) else { return Vec::new() };
        let Some(node) = view.node.clone() else { return Vec::new() };
        let model = self.models.get(&ObjectKey::new(new.key.namespace.clone(), view.model.clone()));
        if let Some(model) = &model {
            self.warn_of_unknown_properties(new, &view, model).await;
        }
        self.seen.insert(new.key.clone(), Seen { object: new.clone(), view, sent: true });
        let model = model.map(|model| object_message(&node, "devicemodel", Operation::UPDATE, &model));
        model.into_iter().chain([object_message(&node, "device", Operation::UPDATE, new)]).collect()
    }

    async fn added(&mut self, device: &Arc<Object>) -> Vec<Message> {
        let view = match DeviceView::of(device) {
            Ok(view) => view,
            Err(why) => {
                self.warn(device, "InvalidDevice", &why).await;
                return Vec::new();
            }
        };
        // Without its status the device still works; reports make it later.
        if let Err(status) = status::ensure(self.clients.ours(), device).await {
            tracing::warn!(device = %device.key.name, error = %status, "a DeviceStatus was not made");
        }
        let mut seen = Seen { object: device.clone(), view, sent: false };
        let Some(node) = seen.view.node.clone() else {
            self.seen.insert(device.key.clone(), seen);
            return Vec::new();
        };
        let namespace = &device.key.namespace;
        let model = self.models.get(&ObjectKey::new(namespace.clone(), seen.view.model.clone()));
        let Some(model) = model else {
            let why = match seen.view.model.as_str() {
                "" => {
                    "spec.deviceModelRef names no DeviceModel; the device is not sent to its node".to_owned()
                }
                name => format!(
                    "there is no DeviceModel {name:?} in namespace {namespace:?}; the device is sent to node {node} once there is"
                ),
            };
            self.seen.insert(device.key.clone(), seen);
            self.warn(device, "UnknownDeviceModel", &why).await;
            return Vec::new();
        };
        self.warn_of_unknown_properties(device, &seen.view, &model).await;
        let first = !self.others_use(&device.key, &node, &seen.view.model);
        seen.sent = true;
        self.seen.insert(device.key.clone(), seen);
        let mut messages =
            vec![membership(&node, json!([member(device)]), Value::Null, self.clients.clock().now())];
        if first {
            messages.push(object_message(&node, "devicemodel", Operation::INSERT, &model));
        }
        messages.push(object_message(&node, "device", Operation::INSERT, device));
        messages
    }

    fn deleted(&mut self, device: &Object) -> Vec<Message> {
        let Some(seen) = self.seen.remove(&device.key) else { return Vec::new() };
        let Some(node) = seen.view.node.filter(|_| seen.sent) else { return Vec::new() };
        let mut messages = Vec::new();
        if !self.others_use(&device.key, &node, &seen.view.model) {
            let key = ObjectKey::new(device.key.namespace.clone(), seen.view.model);
            // A model that is gone itself is taken from the edge by the reconciliation.
            let model = self.models.get(&key);
            messages
                .extend(model.map(|model| object_message(&node, "devicemodel", Operation::DELETE, &model)));
        }
        messages.push(membership(&node, Value::Null, json!([member(device)]), self.clients.clock().now()));
        messages.push(object_message(&node, "device", Operation::DELETE, device));
        messages
    }

    /// Whether another device of the namespace on the node has this model.
    fn others_use(&self, device: &ObjectKey, node: &NodeName, model: &str) -> bool {
        self.seen.iter().any(|(key, seen)| {
            key != device
                && key.namespace == device.namespace
                && seen.sent
                && seen.view.node.as_ref() == Some(node)
                && seen.view.model == model
        })
    }

    async fn warn_of_unknown_properties(&self, device: &Object, view: &DeviceView, model: &Object) {
        let unknown = view.unknown_to(model);
        if !unknown.is_empty() {
            let why = format!("DeviceModel {:?} has no properties {unknown:?}", model.key.name);
            self.warn(device, "UnknownProperty", &why).await;
        }
    }

    /// A Warning Event on the Device; the same one is made once.
    async fn warn(&self, device: &Object, reason: &str, why: &str) {
        tracing::warn!(device = %device.key.name, namespace = %device.key.namespace, reason, why, "a Device is not as it should be");
        let mut hasher = DefaultHasher::new();
        (&device.uid, reason, why).hash(&mut hasher);
        let now = kubeedge_common::stamp::stamp(self.clients.clock());
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{}.{:016x}", device.key.name, hasher.finish()), "namespace": device.key.namespace},
            "involvedObject": {"apiVersion": API_VERSION, "kind": "Device", "name": device.key.name,
                "namespace": device.key.namespace, "uid": device.uid, "resourceVersion": device.version.as_str()},
            "type": "Warning", "reason": reason, "message": why, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": "devicecontroller"}, "reportingComponent": "devicecontroller",
            "reportingInstance": "cloudcore",
        });
        let path = namespaced("/api/v1", &device.key.namespace, "events", &[]);
        match self.clients.ours().post(&path, event.to_string()).await {
            Err(status) if !status.is_already_exists() => {
                tracing::warn!(device = %device.key.name, error = %status, "an Event was not recorded");
            }
            _ => {}
        }
    }
}

fn object_message(node: &NodeName, kind: &str, operation: Operation, object: &Object) -> Message {
    let path = resource::for_node(node, &resource::object(&object.key.namespace, kind, &object.key.name));
    Message::new(ModuleName::DEVICE_CONTROLLER, operation, path)
        .in_group(Group::RESOURCE)
        .at_version(object.version.clone())
        .with(object.content.clone())
}

/// A device as membership messages name it.
fn member(device: &Object) -> Value {
    let ObjectKey { namespace, name } = &device.key;
    let id = format!("{namespace}/{name}");
    match device.labels.get("description") {
        Some(description) => json!({"id": id, "name": name, "description": description}),
        None => json!({"id": id, "name": name}),
    }
}

/// The message that tells DeviceTwin of devices it does not know and of devices that are not on its node.
pub(crate) fn members_changed(
    node: &NodeName,
    added: &[Arc<Object>],
    removed: &[ObjectKey],
    now: Millis,
) -> Message {
    let gone = |key: &ObjectKey| json!({"id": format!("{}/{}", key.namespace, key.name), "name": key.name});
    let list = |members: Vec<Value>| if members.is_empty() { Value::Null } else { Value::Array(members) };
    let added = list(added.iter().map(|device| member(device)).collect());
    membership(node, added, list(removed.iter().map(gone).collect()), now)
}

fn membership(node: &NodeName, added: Value, removed: Value, now: Millis) -> Message {
    let content = json!({
        "event_id": uuid::Uuid::new_v4().to_string(), "timestamp": now,
        "added_devices": added, "removed_devices": removed,
    });
    Message::new(ModuleName::DEVICE_CONTROLLER, Operation::UPDATE, format!("node/{node}/membership"))
        .in_group(Group::TWIN)
        .with(Content::json(&content).unwrap_or_default())
}
