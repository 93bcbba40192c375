//! The work of DeviceTwin: takes messages and readings in groups, stores what they change, then says so.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE};
use futures::TryStreamExt;
use kubeedge_core::{
    bus::{Bus, Envelope},
    device::{DeviceManager, DeviceMapper, Reading, ValueType},
    failure::{BoxError, chain},
    kernel::ModuleContext,
    message::{Content, Message, Millis},
    name::{Group, ModuleName, NodeName, Operation},
    store::{Bucket, MetaStore, Scan, StoreError},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Duration;

use super::{
    intake::Intake,
    mappers::Mappers,
    objects::{DeviceObject, ModelObject},
    rows::{DeviceRow, Rows},
    rules::{self, Origin},
    uplink::{Uplink, fresh_id},
    wire::{self, Attribute, Body, Members, Patches, SidePatch, StateOf, TwinPatch, WireDevice},
};

/// MetaManager's objects, by `namespace/type/name`.
const OBJECTS: Bucket = Bucket("meta");
/// How many messages are applied and stored together.
const GROUP: usize = 256;
/// How often a commit is tried, and how long between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// The longest text a reading may have; longer ones are refused.
const MAX_TEXT: usize = 64 << 10;

const DEVICE_TOPIC: &str = "$hw/events/device/";
const NODE_TOPIC: &str = "$hw/events/node/";

/// What is said once a group of changes is stored.
#[derive(Debug, Default)]
struct Said {
    /// Topics and payloads, in order.
    publish: Vec<(String, String)>,
    /// Updates that fail if the group cannot be stored: device and event id.
    at_stake: Vec<(String, String)>,
    twins: Vec<(String, String)>,
    states: Vec<String>,
    forgotten: Vec<String>,
}

/// DeviceTwin at work.
#[derive(Debug)]
pub(super) struct Twin {
    node: NodeName,
    store: Arc<dyn MetaStore>,
    rows: Rows,
    mappers: Mappers,
    uplink: Uplink,
    intake: Arc<Intake>,
    said: Said,
}

impl Twin {
    /// Loads what is stored and has the mappers serve it.
    pub(super) async fn start(
        node: NodeName,
        store: Arc<dyn MetaStore>,
        mappers: &[Arc<dyn DeviceMapper>],
        intake: Arc<Intake>,
    ) -> Result<Self, BoxError> {
        let rows = Rows::load(&*store).await?;
        let up = Arc::clone(&intake) as Arc<dyn DeviceManager>;
        let mappers = Mappers::start(mappers, up).await;
        let mut uplink = Uplink::new(node.clone());
        uplink.everything_changed(&rows);
        let mut twin = Self { node, store, rows, mappers, uplink, intake, said: Said::default() };
        twin.load_objects().await?;
        Ok(twin)
    }

    async fn load_objects(&mut self) -> Result<(), StoreError> {
        let mut objects = self.store.scan(Scan::new(OBJECTS, ""));
        while let Some(entry) = objects.try_next().await? {
            let parts: Vec<&str> = entry.key.name.split('/').collect();
            if let [namespace, kind @ ("device" | "devicemodel"), name] = parts.as_slice() {
                self.put_object(kind, &format!("{namespace}/{name}"), &entry.value).await;
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
                    said = Self::failures(&said, &error);
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
        if bus.has(&ModuleName::EVENT_BUS) {
            for (topic, payload) in said.publish {
                let message = Message::new(ModuleName::TWIN, Operation::PUBLISH, topic)
                    .in_group(Group::BUS)
                    .with(Content::text(&payload));
                if let Err(error) = bus.send(&ModuleName::EVENT_BUS, message).await {
                    tracing::debug!(%error, "nothing is published on MQTT");
                    break;
                }
            }
        }
        self.uplink.flush(&self.rows, bus);
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

    fn failures(said: &Said, error: &StoreError) -> Said {
        let failed = |(device, event): &(String, String)| {
            let body = Body::Failed { code: 500, reason: chain(error) };
            (format!("{DEVICE_TOPIC}{device}/twin/update/result"), wire::text(event, now(), body))
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
            "bus" | "eventbus" => self.take_topic(resource, &message.content.data()),
            "edgehub" | "websocket" if resource == "node/connection" => {
                let text = message.content.as_text();
                self.uplink.link(text.as_deref() == Some("cloud_connected"));
            }
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

    /// A message of the cloud: members, or twins.
    fn take_cloud(&mut self, message: &Message) {
        let resource = message.route.resource.as_str();
        let content = message.content.data();
        if resource.contains("membership") {
            let whole = resource.contains("membership/detail");
            match serde_json::from_slice::<serde_json::Value>(&content) {
                Ok(serde_json::Value::Object(members)) => self.take_members(&Members(&members), whole),
                _ => tracing::error!(resource, "unreadable membership message"),
            }
        } else if let Some(id) = resource.strip_suffix("/twin/cloud_updated") {
            let id = id.strip_prefix("device/").unwrap_or(id);
            self.update_twins(id, &content, Origin::Cloud);
        } else if message.route.operation.as_str().contains("updated")
            && let Some(id) = resource.strip_prefix("device/")
        {
            self.update_attributes(id, &content);
        }
    }

    fn take_members(&mut self, members: &Members<'_>, whole: bool) {
        let list =
            |name: &str| members.get(name).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        let added = list(if whole { "devices" } else { "added_devices" });
        let mut named = Vec::new();
        for device in &added {
            let Some(device) = device.as_object().map(Members) else { continue };
            let text = |name: &str| device.text(name).unwrap_or_default();
            let id = text("id");
            if !is_device_id(&id) {
                tracing::error!(id, "member without a proper id ignored");
                continue;
            }
            named.push(id.clone());
            let new = WireDevice {
                id: id.clone(),
                name: text("name"),
                description: text("description"),
                state: text("state"),
                ..WireDevice::default()
            };
            self.add_device(new);
            if let Some(twins) = device.get("twin").filter(|twins| !twins.is_null()) {
                match wire::patches(twins) {
                    Ok(patches) => self.change_twins(&id, "", &patches, Origin::Detail),
                    Err(reason) => tracing::error!(device = id, reason, "twins of a member ignored"),
                }
            }
        }
        let mut removed: Vec<String> = Vec::new();
        if whole {
            removed.extend(self.rows.all().map(|(id, _)| id.clone()).filter(|id| !named.contains(id)));
        } else {
            let gone = list("removed_devices");
            removed.extend(gone.iter().filter_map(|d| Members(d.as_object()?).text("id")));
        }
        removed.iter().for_each(|id| self.remove_device(id));
    }

    fn add_device(&mut self, device: WireDevice) {
        if self.rows.get(&device.id).is_some() {
            return;
        }
        let row = DeviceRow {
            name: device.name.clone(),
            description: device.description.clone(),
            state: device.state.clone(),
            ..DeviceRow::default()
        };
        self.rows.put(&device.id, row);
        self.say_members(Some(vec![device]), None);
    }

    fn remove_device(&mut self, id: &str) {
        let Some(known) = self.rows.remove(id) else {
            tracing::debug!(device = id, "unknown device cannot be removed");
            return;
        };
        self.said.forgotten.push(id.to_owned());
        let gone = WireDevice { id: id.to_owned(), name: known.row.name, ..WireDevice::default() };
        self.say_members(None, Some(vec![gone]));
    }

    fn say_members(&mut self, added: Option<Vec<WireDevice>>, removed: Option<Vec<WireDevice>>) {
        let body = Body::Membership { added_devices: added, removed_devices: removed };
        let topic = format!("{NODE_TOPIC}{}/membership/updated", self.node);
        self.said.publish.push((topic, wire::text(&fresh_id(), now(), body)));
    }

    /// A message that came over MQTT; its resource is the topic in base64.
    fn take_topic(&mut self, resource: &str, payload: &[u8]) {
        let topic = URL_SAFE.decode(resource).ok().and_then(|topic| String::from_utf8(topic).ok());
        let Some(topic) = topic else {
            tracing::warn!(resource, "resource is no topic in base64");
            return;
        };
        if let Some(rest) = topic.strip_prefix(NODE_TOPIC) {
            match rest.split_once('/') {
                Some((_, "membership/get")) => self.get_members(payload),
                _ => tracing::debug!(topic, "topic has no handler"),
            }
            return;
        }
        let rest = topic.strip_prefix(DEVICE_TOPIC).unwrap_or_default();
        let Some((id, suffix)) = split_id(rest) else {
            tracing::debug!(topic, "topic has no handler");
            return;
        };
        match suffix {
            "twin/get" => self.get_twins(id, payload),
            "twin/update" => self.update_twins(id, payload, Origin::Local),
            "twin/cloud_updated" => self.update_twins(id, payload, Origin::Cloud),
            "state/update" => self.update_state(id, payload),
            "updated" => self.update_attributes(id, payload),
            _ => tracing::debug!(topic, "topic has no handler"),
        }
    }

    fn get_members(&mut self, payload: &[u8]) {
        let topic = format!("{NODE_TOPIC}{}/membership/get/result", self.node);
        let text = match event_id(payload) {
            Ok(event) => {
                let devices = self.rows.all().map(|(id, known)| known.row.wire(id)).collect();
                wire::text(&event, now(), Body::Devices { devices })
            }
            Err(reason) => wire::text("", now(), Body::Failed { code: 400, reason }),
        };
        self.said.publish.push((topic, text));
    }

    fn get_twins(&mut self, id: &str, payload: &[u8]) {
        let topic = format!("{DEVICE_TOPIC}{id}/twin/get/result");
        let text = match (event_id(payload), self.rows.get(id)) {
            (Err(reason), _) => wire::text("", now(), Body::Failed { code: 400, reason }),
            (Ok(event), None) => {
                let reason = format!("Device {id} not found while getting twin");
                wire::text(&event, now(), Body::Failed { code: 404, reason })
            }
            (Ok(event), Some(known)) => {
                let living = known.twins.iter().filter(|(_, row)| !row.is_deleted());
                let twin = living.map(|(name, row)| (name.clone(), Some(row.wire()))).collect();
                wire::text(&event, now(), Body::Twins { twin })
            }
        };
        self.said.publish.push((topic, text));
    }

    fn update_twins(&mut self, id: &str, payload: &[u8], origin: Origin) {
        match wire::update(payload) {
            Ok(update) => self.change_twins(id, &update.event_id, &update.twin, origin),
            Err(reason) => {
                tracing::warn!(device = id, reason, "twin update refused");
                let text = wire::text("", now(), Body::Failed { code: 400, reason });
                // Go answers on the empty id only, where whoever asked does not listen.
                self.said.publish.push((format!("{DEVICE_TOPIC}/twin/update/result"), text.clone()));
                self.said.publish.push((format!("{DEVICE_TOPIC}{id}/twin/update/result"), text));
            }
        }
    }

    fn change_twins(&mut self, id: &str, event: &str, patches: &Patches, origin: Origin) {
        let at = now();
        let result = format!("{DEVICE_TOPIC}{id}/twin/update/result");
        let Some(known) = self.rows.get(id) else {
            let reason = "update rejected due to the device is not existed".to_owned();
            self.said.publish.push((result, wire::text(event, at, Body::Failed { code: 404, reason })));
            return;
        };
        let outcome = match rules::apply(&known.twins, patches, origin, at) {
            Ok(outcome) => outcome,
            Err(reason) => {
                tracing::warn!(device = id, reason, "twin update refused");
                self.said.publish.push((result, wire::text(event, at, Body::Failed { code: 400, reason })));
                return;
            }
        };
        let changed: Vec<String> = outcome.rows.keys().cloned().collect();
        self.rows.put_twins(id, outcome.rows);
        self.said.at_stake.push((id.to_owned(), event.to_owned()));
        if origin != Origin::Cloud {
            self.said.publish.push((result, wire::text(event, at, Body::Twins { twin: outcome.result })));
        }
        if !outcome.document.is_empty() {
            let body = Body::Document { twin: outcome.document };
            let topic = format!("{DEVICE_TOPIC}{id}/twin/update/document");
            self.said.publish.push((topic, wire::text(event, at, body)));
        }
        if let Some(body) = self.rows.get(id).and_then(|known| rules::delta(&known.twins)) {
            let topic = format!("{DEVICE_TOPIC}{id}/twin/update/delta");
            self.said.publish.push((topic, wire::text(&fresh_id(), at, body)));
        }
        // The cloud is told what it did not know: what changed here, and what it was refused.
        let news = if origin == Origin::Cloud { outcome.rejected } else { changed };
        self.said.twins.extend(news.into_iter().map(|property| (id.to_owned(), property)));
    }

    fn update_state(&mut self, id: &str, payload: &[u8]) {
        let parsed = serde_json::from_slice::<serde_json::Value>(payload).ok();
        let state = parsed.as_ref().and_then(|root| Members(root.as_object()?).text("state"));
        let Some(state) = state.filter(|_| self.rows.get(id).is_some()) else {
            tracing::warn!(device = id, "state update of an unknown device, or without a state");
            return;
        };
        let known = ["online", "offline", "ok", "unhealthy", "unknown"];
        if known.contains(&state.to_lowercase().as_str()) {
            self.set_state(id, &state);
        } else {
            tracing::warn!(device = id, state, "unknown state ignored");
        }
    }

    fn set_state(&mut self, id: &str, state: &str) {
        let Some(known) = self.rows.get(id) else { return };
        let is_up = ["online", "ok"].contains(&state.to_lowercase().as_str());
        let last_online = if is_up { rfc3339_now() } else { String::new() };
        let row = DeviceRow { state: state.to_owned(), last_online, ..known.row.clone() };
        let device = StateOf {
            name: row.name.clone(),
            state: row.state.clone(),
            last_online: row.last_online.clone(),
        };
        self.rows.put(id, row);
        let topic = format!("{DEVICE_TOPIC}{id}/state/update/result");
        self.said.publish.push((topic, wire::text(&fresh_id(), now(), Body::Device { device })));
        self.said.states.push(id.to_owned());
    }

    fn update_attributes(&mut self, id: &str, payload: &[u8]) {
        let parsed = serde_json::from_slice::<serde_json::Value>(payload).ok();
        let root = parsed.as_ref().and_then(|root| root.as_object()).map(Members);
        let asked = root.as_ref().and_then(|root| root.get("attributes")?.as_object());
        let (Some(root), Some(asked), Some(known)) = (root.as_ref(), asked, self.rows.get(id)) else {
            tracing::warn!(device = id, "attribute update of an unknown device, or without attributes");
            return;
        };
        let mut row = known.row.clone();
        let mut changed = BTreeMap::new();
        for (name, attribute) in asked {
            if attribute.is_null() {
                row.attributes.remove(name);
                changed.insert(name.clone(), None);
            } else if let Ok(attribute) = serde_json::from_value::<Attribute>(attribute.clone()) {
                let optional = attribute.optional.or(Some(true));
                let attribute = Attribute { optional, ..attribute };
                row.attributes.insert(name.clone(), attribute.clone());
                changed.insert(name.clone(), Some(attribute));
            }
        }
        let event = root.text("event_id").unwrap_or_default();
        self.rows.put(id, row);
        let topic = format!("{DEVICE_TOPIC}{id}/updated");
        self.said.publish.push((topic, wire::text(&event, now(), Body::Attributes { attributes: changed })));
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

fn now() -> i64 {
    Millis::now().0
}

fn rfc3339_now() -> String {
    let now = OffsetDateTime::now_utc();
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    whole.format(&Rfc3339).unwrap_or_default()
}

/// `namespace/device/name` or `namespace/devicemodel/name`.
fn names_object(resource: &str) -> bool {
    let mut parts = resource.split('/').skip(1);
    matches!(parts.next(), Some("device" | "devicemodel")) && parts.count() == 1
}

/// `namespace/name` before the rest of a topic.
fn split_id(rest: &str) -> Option<(&str, &str)> {
    let (second, _) = rest.match_indices('/').nth(1)?;
    Some((rest.get(..second)?, rest.get(second + 1..)?))
}

fn is_device_id(id: &str) -> bool {
    id.len() <= 512 && id.split('/').count() == 2 && id.split('/').all(|part| !part.is_empty())
}

fn event_id(payload: &[u8]) -> Result<String, String> {
    let shown = || String::from_utf8_lossy(payload.get(..256).unwrap_or(payload)).into_owned();
    let failed = |why: String| format!("Unmarshal twin info {} failed , err: {why}", shown());
    let root: serde_json::Value =
        serde_json::from_slice(payload).map_err(|error| failed(error.to_string()))?;
    let root = root.as_object().ok_or_else(|| failed("no JSON object".to_owned()))?;
    Members(root).text("event_id").ok_or_else(|| failed("event_id is no text".to_owned()))
}
