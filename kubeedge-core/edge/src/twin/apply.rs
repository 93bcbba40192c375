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
    objects::{DeviceObject, ModelObject},
    publisher::Publisher,
    rows::Rows,
    rules::Origin,
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

pub(super) const DEVICE_TOPIC: &str = "$hw/events/device/";
pub(super) const NODE_TOPIC: &str = "$hw/events/node/";

/// What is said once a group of changes is stored.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Topics and payloads, in order.
    pub(super) publish: Vec<(String, String)>,
    /// Updates that fail if the group cannot be stored: device and event id.
    pub(super) at_stake: Vec<(String, String)>,
    /// Properties the cloud has to be told of.
    pub(super) twins: Vec<(String, String)>,
    /// Devices whose state the cloud has to be told.
    pub(super) states: Vec<String>,
    /// Devices that are gone.
    pub(super) forgotten: Vec<String>,
}

/// DeviceTwin at work.
#[derive(Debug)]
pub(super) struct Twin {
    pub(super) node: NodeName,
    store: Arc<dyn MetaStore>,
    pub(super) rows: Rows,
    mappers: Mappers,
    uplink: Uplink,
    publisher: Publisher,
    intake: Arc<Intake>,
    /// Whether the cloud is there; known beyond a restart of the module.
    link: Arc<AtomicBool>,
    pub(super) said: Said,
    clock: Clock,
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
        let (said, publisher) = (Said::default(), Publisher::default());
        let mut twin = Self { node, store, rows, mappers, uplink, publisher, intake, link, said, clock };
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
                (report, answer) = self.uplink.fate() => self.uplink.decided(&report, answer),
                () = flush => {}
            }
            self.take_readings();
            self.settle(&ctx.bus).await?;
        }
    }

    /// Stores what changed, then says it.
    async fn settle(&mut self, bus: &Bus) -> Result<(), BoxError> {
        let batch = self.rows.batch();
        let mut said = std::mem::take(&mut self.said);
        if !batch.0.is_empty() {
            match self.commit(batch).await {
                Ok(()) => self.rows.stored(),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "twins could not be stored");
                    self.rows.reload(&*self.store).await?;
                    said = self.failures(&said, &error);
                }
            }
        }
        for id in said.forgotten {
            self.uplink.forget(&id);
        }
        for (id, property) in said.twins {
            self.uplink.changed(&id, &property);
        }
        for id in said.states {
            self.uplink.state_changed(&id);
        }
        // The cloud first: it waits for no other module.
        self.uplink.flush(&self.rows, bus);
        self.publisher.publish(bus, said.publish).await;
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

    fn failures(&self, said: &Said, error: &StoreError) -> Said {
        let failed = |(device, event): &(String, String)| {
            let body = Body::Failed { code: 500, reason: chain(error) };
            (format!("{DEVICE_TOPIC}{device}/twin/update/result"), wire::text(event, self.now(), body))
        };
        Said { publish: said.at_stake.iter().map(failed).collect(), ..Said::default() }
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
            "bus" | "eventbus" => self.take_topic(resource, &message.content.data()),
            // Whether MetaManager has put its own name in the route or left the cloud's: an object is an object.
            "devicecontroller" if names_object(resource) => self.take_object(&message).await,
            "devicecontroller" | "edgemgr" => self.take_cloud(&message),
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
                    // The cloud names members and objects separately; whichever comes first makes the device known.
                    self.add_device(WireDevice {
                        id: id.to_owned(),
                        name: device.id().name,
                        ..WireDevice::default()
                    });
                    self.mappers.put_device(id, device).await;
                }
                Err(error) => {
                    unreadable(error);
                    self.mappers.remove_device(id);
                    if self.rows.get(id).is_some() {
                        self.set_state(id, "unhealthy");
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
            if self.rows.get(&device).is_none() {
                tracing::debug!(device, "reading of an unknown device dropped");
                continue;
            }
            let before = self.said.twins.len();
            self.change_twins(&device, "", &patches, Origin::Mapper);
            if !to_cloud {
                self.said.twins.truncate(before);
            }
        }
        for (device, state) in taken.states {
            if self.rows.get(&device).is_some_and(|known| known.row.state != state.to_string()) {
                self.set_state(&device, &state.to_string());
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

impl Twin {
    /// The time, in milliseconds.
    pub(super) fn now(&self) -> i64 {
        self.clock.now().0
    }
}
