//! The work of DeviceTwin: takes messages and readings in groups, stores what they change, then says so.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use kubeedge_core::{
    bus::{Bus, Envelope},
    clock::Clock,
    device::{DeviceManager, DeviceMapper, Reading, ValueType},
    failure::{BoxError, chain},
    kernel::ModuleContext,
    message::Message,
    name::{NodeName, Operation},
    store::{MetaStore, StoreError},
};
use tokio::time::Duration;

use super::{
    intake::Intake,
    mappers::Mappers,
    members,
    objects::{DeviceObject, ModelObject},
    observers::Observers,
    publisher::Publisher,
    registry::{DEVICE_TOPIC, Effects, Registry},
    rows::Rows,
    rules::Origin,
    topics,
    uplink::Uplink,
    wire::{self, Body, Patches, SidePatch, TwinPatch, WireDevice},
};
use crate::meta::{MetaHandle, Selector};

/// How many messages are applied and stored together.
const GROUP: usize = 256;
/// How often a commit is tried, and how long between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// The longest text a reading may have; longer ones are refused.
const MAX_TEXT: usize = 64 << 10;

/// DeviceTwin at work.
#[derive(Debug)]
pub(super) struct Twin {
    store: Arc<dyn MetaStore>,
    registry: Registry,
    mappers: Mappers,
    uplink: Uplink,
    publisher: Publisher,
    intake: Arc<Intake>,
    observers: Observers,
    /// Whether the cloud is there; known beyond a restart of the module.
    link: Arc<AtomicBool>,
}

impl Twin {
    /// Loads what is stored and has the mappers serve it.
    pub(super) async fn start(
        node: NodeName,
        store: Arc<dyn MetaStore>,
        meta: MetaHandle,
        mappers: &[Arc<dyn DeviceMapper>],
        intake: Arc<Intake>,
        link: Arc<AtomicBool>,
        clock: Clock,
    ) -> Result<Self, BoxError> {
        let rows = Rows::load(&*store).await?;
        let up = Arc::clone(&intake) as Arc<dyn DeviceManager>;
        let mappers = Mappers::start(mappers, up).await;
        let mut uplink = Uplink::new(node.clone(), clock.clone());
        uplink.everything_changed(&rows);
        uplink.link(link.load(Ordering::Relaxed));
        let registry = Registry::new(node, rows, clock);
        let (publisher, observers) = (Publisher::default(), Observers::default());
        let mut twin = Self { store, registry, mappers, uplink, publisher, intake, observers, link };
        twin.load_objects(&meta).await?;
        Ok(twin)
    }

    /// Models first, so that no device has to wait for its own.
    async fn load_objects(&mut self, meta: &MetaHandle) -> Result<(), StoreError> {
        for kind in ["devicemodel", "device"] {
            for object in meta.list(&Selector::known(kind)).await? {
                let id = format!("{}/{}", object.key.namespace, object.key.name);
                self.put_object(kind, &id, &object.bytes).await;
            }
        }
        Ok(())
    }

    /// Tells these modules what is reported.
    pub(super) fn observed_by(&mut self, observers: Observers) {
        self.registry.observes = !observers.is_empty();
        self.observers = observers;
    }

    /// Lets go of all devices.
    pub(super) async fn close(self) {
        self.mappers.close().await;
    }

    /// Works until the shutdown is requested.
    pub(super) async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        self.settle(&ctx.bus).await?;
        loop {
            let next = self.uplink.next();
            let flush = async move {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                first = ctx.inbox.next() => {
                    let Some(first) = first else { return Ok(()) };
                    self.take(first).await;
                    for _ in 1..GROUP {
                        let Some(more) = ctx.inbox.try_next() else { break };
                        self.take(more).await;
                    }
                }
                () = self.intake.ready() => {}
                (report, answer) = self.uplink.answered() => self.uplink.settle(&report, answer),
                () = flush => {}
            }
            self.take_readings();
            self.settle(&ctx.bus).await?;
        }
    }

    /// Stores what changed, then says it.
    async fn settle(&mut self, bus: &Bus) -> Result<(), BoxError> {
        let batch = self.registry.rows.batch();
        let mut effects = std::mem::take(&mut self.registry.effects);
        if !batch.0.is_empty() {
            match self.commit(batch).await {
                Ok(()) => self.registry.rows.stored(),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "twins could not be stored");
                    self.registry.rows.reload(&*self.store).await?;
                    effects = self.failures(&effects, &error);
                }
            }
        }
        for id in effects.forgotten {
            self.uplink.forget(&id);
        }
        for (id, property) in effects.observed {
            let row = self.registry.rows.get(&id).and_then(|known| known.twins.get(&property));
            let observed = row.and_then(|row| row.observed(&id, &property));
            observed.iter().for_each(|observed| self.observers.observe(observed));
        }
        for (id, property) in effects.twins {
            self.uplink.changed(&id, &property);
        }
        for id in effects.states {
            self.uplink.state_changed(&id);
        }
        // The cloud first: it waits for no other module.
        self.uplink.flush(&self.registry.rows, bus);
        self.publisher.publish(bus, effects.publish).await;
        Ok(())
    }

    async fn commit(&self, batch: kubeedge_core::store::Batch) -> Result<(), StoreError> {
        let mut tries = 1;
        loop {
            match self.store.commit(batch.clone()).await {
                Err(error) if tries < TRIES && error.advice() == kubeedge_core::failure::Advice::Retry => {
                    tracing::warn!(error = %chain(&error), tries, "storing twins failed, trying again");
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    fn failures(&self, effects: &Effects, error: &StoreError) -> Effects {
        let failed = |(device, event): &(String, String)| {
            let body = Body::Failed { code: 500, reason: chain(error) };
            (
                format!("{DEVICE_TOPIC}{device}/twin/update/result"),
                wire::text(event, self.registry.now(), body),
            )
        };
        Effects { publish: effects.unstored.iter().map(failed).collect(), ..Effects::default() }
    }

    /// Applies one message; see Go's classification in the order of its rules.
    async fn take(&mut self, envelope: Envelope) {
        let (message, _reply) = envelope.into_parts();
        if let Some(parent) = &message.header.parent {
            self.uplink.confirmed(parent);
            return;
        }
        let (source, resource) = (message.route.source.as_str(), message.route.resource.as_str());
        match source {
            // Go's hub signs it "edgehub"; whoever says it, it says the same.
            _ if resource == "node/connection" => {
                let connected = message.content.as_text().as_deref() == Some("cloud_connected");
                self.link.store(connected, Ordering::Relaxed);
                self.uplink.link(connected);
            }
            "bus" | "eventbus" => topics::take(&mut self.registry, resource, &message.content.data()),
            // Whether MetaManager has put its own name in the route or left the cloud's: an object is an
            // object.
            "devicecontroller" if names_object(resource) => self.take_object(&message).await,
            "devicecontroller" | "edgemgr" => members::take(&mut self.registry, &message),
            "meta" | "metamanager" | "metaserver" => self.take_object(&message).await,
            _ => tracing::debug!(source, resource, "message is for nobody here"),
        }
    }

    /// A Device or DeviceModel object from MetaManager.
    async fn take_object(&mut self, message: &Message) {
        let parts: Vec<&str> = message.route.resource.as_str().split('/').collect();
        let [namespace, kind @ ("device" | "devicemodel"), name] = parts.as_slice() else { return };
        let id = format!("{namespace}/{name}");
        if message.route.operation == Operation::DELETE {
            if *kind == "device" {
                self.mappers.remove_device(&id);
            } else {
                self.mappers.remove_model(&id);
            }
            return;
        }
        self.put_object(kind, &id, &message.content.data()).await;
    }

    async fn put_object(&mut self, kind: &str, id: &str, json: &[u8]) {
        let unreadable = |error: serde_json::Error| {
            tracing::error!(kind, id, %error, "unreadable object is not served");
        };
        if kind == "device" {
            match serde_json::from_slice::<DeviceObject>(json) {
                // MetaServer of old leaves rows that are no objects of their key.
                Ok(device) if device.id().to_string() != id => {
                    tracing::warn!(id, found = %device.id(), "object of another name ignored");
                }
                Ok(device) => {
                    // The cloud names members and objects separately; whichever comes first makes the device
                    // known.
                    self.registry.add_device(WireDevice {
                        id: id.to_owned(),
                        name: device.id().name,
                        ..WireDevice::default()
                    });
                    self.mappers.put_device(id, device).await;
                }
                Err(error) => {
                    unreadable(error);
                    self.mappers.remove_device(id);
                    if self.registry.rows.get(id).is_some() {
                        self.registry.set_state(id, "unhealthy");
                    }
                }
            }
        } else {
            match serde_json::from_slice::<ModelObject>(json) {
                Ok(model) => self.mappers.put_model(id, model).await,
                Err(error) => unreadable(error),
            }
        }
    }

    /// Takes what mappers left: as Go's DMI does, each reading is an update of its twin.
    fn take_readings(&mut self) {
        let taken = self.intake.take();
        let mut by_device: BTreeMap<(String, bool), Patches> = BTreeMap::new();
        for ((device, property), reading) in taken.readings {
            let key = (device, reading.to_cloud);
            match patch_of(&reading) {
                Some(patch) => drop(by_device.entry(key).or_default().insert(property, Some(patch))),
                None => {
                    tracing::warn!(device = key.0, property, "reading longer than {MAX_TEXT} bytes dropped")
                }
            }
        }
        for ((device, to_cloud), patches) in by_device {
            if self.registry.rows.get(&device).is_none() {
                tracing::debug!(device, "reading of an unknown device dropped");
                continue;
            }
            let before = self.registry.effects.twins.len();
            self.registry.change_twins(&device, "", &patches, Origin::Mapper);
            if !to_cloud {
                self.registry.effects.twins.truncate(before);
            }
        }
        for (device, state) in taken.states {
            if self.registry.rows.get(&device).is_some_and(|known| known.row.state != state.to_string()) {
                self.registry.set_state(&device, &state.to_string());
            }
        }
    }
}

/// A reading as an update; `None` when its text is too long.
fn patch_of(reading: &Reading) -> Option<TwinPatch> {
    let side = |value: String| SidePatch { value, version: None };
    let value = reading.value.to_string();
    let kind = match reading.kind {
        ValueType::Int => "int",
        ValueType::Float | ValueType::Double => "float",
        ValueType::Boolean => "boolean",
        _ => "string",
    };
    (value.len() <= MAX_TEXT).then(|| TwinPatch {
        expected: reading.desired.clone().map(side),
        actual: Some(side(value)),
        kind: Some(kind.to_owned()),
        ..TwinPatch::default()
    })
}

/// `namespace/device/name` or `namespace/devicemodel/name`.
fn names_object(resource: &str) -> bool {
    let mut parts = resource.split('/').skip(1);
    matches!(parts.next(), Some("device" | "devicemodel")) && parts.count() == 1
}
