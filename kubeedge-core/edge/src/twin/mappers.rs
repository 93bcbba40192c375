//! Which mapper serves which device: objects in, calls of mappers out.
//!
//! A mapper is told by a task of its own, so that one that is slow holds up neither DeviceTwin nor another
//! mapper; of several changes of one device only the last is told.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use kubeedge_core::{
    device::{Device, DeviceId, DeviceManager, DeviceMapper, DeviceState},
    failure::{Advice, chain},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet, time::Duration};

use super::objects::{DeviceObject, ModelObject};

/// How soon a mapper that could not be reached is told again.
const AGAIN: Duration = Duration::from_secs(5);

/// What a mapper is still to be told; `None` removes the device.
#[derive(Debug, Default)]
struct Updates {
    waiting: Mutex<BTreeMap<String, (DeviceId, Option<Device>)>>,
    more: Notify,
}

/// All devices and models of the node, and the mappers.
#[derive(Debug)]
pub(super) struct Mappers {
    mappers: Vec<Arc<dyn DeviceMapper>>,
    updates: HashMap<String, Arc<Updates>>,
    devices: BTreeMap<String, DeviceObject>,
    models: BTreeMap<String, ModelObject>,
    /// The protocol at which a device is registered.
    served: BTreeMap<String, String>,
    /// Devices that no mapper serves, as far as the log says so already.
    logged: HashSet<String>,
    up: Arc<dyn DeviceManager>,
    tasks: JoinSet<()>,
}

impl Mappers {
    /// Attaches to all mappers. The tasks end when this is dropped.
    pub(super) async fn start(mappers: &[Arc<dyn DeviceMapper>], up: Arc<dyn DeviceManager>) -> Self {
        let (mut tasks, mut updates) = (JoinSet::new(), HashMap::new());
        for mapper in mappers {
            mapper.attach(Arc::clone(&up)).await;
            let queue = Arc::<Updates>::default();
            tasks.spawn(tell(Arc::clone(mapper), Arc::clone(&queue), Arc::clone(&up)));
            updates.insert(mapper.protocol().to_owned(), queue);
        }
        Self {
            mappers: mappers.to_vec(),
            updates,
            devices: BTreeMap::new(),
            models: BTreeMap::new(),
            served: BTreeMap::new(),
            logged: HashSet::new(),
            up,
            tasks,
        }
    }

    /// Lets all mappers go of their devices.
    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
        futures::future::join_all(self.mappers.iter().map(|mapper| mapper.close())).await;
    }

    /// A Device object is new or changed. Only its specification counts.
    pub(super) async fn put_device(&mut self, id: &str, device: DeviceObject) {
        if self.devices.get(id) == Some(&device) {
            return;
        }
        self.logged.remove(id);
        self.devices.insert(id.to_owned(), device);
        self.serve(id).await;
    }

    /// A Device object is gone.
    pub(super) fn remove_device(&mut self, id: &str) {
        self.logged.remove(id);
        if let Some(device) = self.devices.remove(id) {
            self.unserve(id, &device.id());
        }
    }

    /// A DeviceModel object is new or changed: its devices are described anew, which Go leaves to their next
    /// change.
    pub(super) async fn put_model(&mut self, key: &str, model: ModelObject) {
        if self.models.get(key) == Some(&model) {
            return;
        }
        self.models.insert(key.to_owned(), model);
        let users: Vec<String> = self
            .devices
            .iter()
            .filter(|(_, device)| device.model() == key)
            .map(|(id, _)| id.clone())
            .collect();
        for id in users {
            self.logged.remove(&id);
            self.serve(&id).await;
        }
    }

    /// A DeviceModel object is gone; devices that use it are served as they are.
    pub(super) fn remove_model(&mut self, key: &str) {
        self.models.remove(key);
    }

    async fn serve(&mut self, id: &str) {
        let Some(device) = self.devices.get(id) else { return };
        let (device_id, protocol) = (device.id(), device.protocol().to_owned());
        if self.served.get(id).is_some_and(|served| *served != protocol) {
            self.unserve(id, &device_id);
        }
        let Some(device) = self.devices.get(id) else { return };
        let Some(updates) = self.updates.get(&protocol) else {
            if self.logged.insert(id.to_owned()) {
                tracing::info!(device = id, protocol, mappers = ?self.updates.keys(), "no mapper here serves this protocol; the device is left to MQTT mappers");
            }
            return;
        };
        let Some(model) = self.models.get(&device.model()) else {
            tracing::warn!(device = id, model = device.model(), "device waits for its model");
            return;
        };
        match device.join(model) {
            Ok(joined) => {
                self.served.insert(id.to_owned(), protocol);
                updates.put(id, device_id, Some(joined));
            }
            Err(error) => {
                tracing::error!(device = id, error = %chain(&error), "invalid device is not served");
                self.unserve(id, &device_id);
                unhealthy(&self.up, &device_id).await;
            }
        }
    }

    fn unserve(&mut self, id: &str, device: &DeviceId) {
        let protocol = self.served.remove(id);
        if let Some(updates) = protocol.and_then(|protocol| self.updates.get(&protocol)) {
            updates.put(id, device.clone(), None);
        }
    }
}

impl Updates {
    fn put(&self, id: &str, device: DeviceId, update: Option<Device>) {
        self.waiting.lock().insert(id.to_owned(), (device, update));
        self.more.notify_one();
    }

    /// Puts back what could not be told, unless there is news meanwhile.
    fn put_back(&self, id: String, device: DeviceId, update: Option<Device>) {
        self.waiting.lock().entry(id).or_insert((device, update));
        self.more.notify_one();
    }
}

async fn tell(mapper: Arc<dyn DeviceMapper>, updates: Arc<Updates>, up: Arc<dyn DeviceManager>) {
    loop {
        updates.more.notified().await;
        loop {
            let next = updates.waiting.lock().pop_first();
            let Some((id, (device, update))) = next else { break };
            let told = match update.clone() {
                Some(described) => mapper.update(described).await,
                None => mapper.remove(&device).await,
            };
            let Err(error) = told else { continue };
            tracing::error!(device = id, protocol = mapper.protocol(), error = %chain(&error), "mapper refused the device");
            if error.advice() == Advice::GiveUp {
                unhealthy(&up, &device).await;
            } else {
                updates.put_back(id, device, update);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn unhealthy(up: &Arc<dyn DeviceManager>, device: &DeviceId) {
    if let Err(error) = up.report_state(device, DeviceState::Unhealthy).await {
        tracing::warn!(%device, error = %chain(&error), "state was not taken");
    }
}
