//! The devices and their twins: each method changes rows and notes what is to be said of it. Nothing is
//! stored or sent here.

use std::collections::BTreeMap;

use kubeedge_core::{clock::Clock, name::NodeName};
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    rows::{DeviceRow, Rows},
    rules::{self, Origin},
    uplink::fresh_id,
    wire::{self, Attribute, Body, Patches, StateOf, TwinPatch, WireDevice},
};

pub(super) const DEVICE_TOPIC: &str = "$hw/events/device/";
pub(super) const NODE_TOPIC: &str = "$hw/events/node/";

/// What follows a group of changes once they are stored.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Topics and payloads, in order.
    pub(super) publish: Vec<(String, String)>,
    /// Updates that fail if the group cannot be stored: device and event id.
    pub(super) unstored: Vec<(String, String)>,
    /// Properties the cloud has to be told of.
    pub(super) twins: Vec<(String, String)>,
    /// Properties whose reported values modules are told.
    pub(super) observed: Vec<(String, String)>,
    /// Devices whose state the cloud has to be told.
    pub(super) states: Vec<String>,
    /// Devices that are gone.
    pub(super) forgotten: Vec<String>,
}

/// All devices of the node.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) node: NodeName,
    pub(super) rows: Rows,
    pub(super) effects: Effects,
    /// Whether modules want reported values.
    pub(super) observes: bool,
    clock: Clock,
}

impl Registry {
    pub(super) fn new(node: NodeName, rows: Rows, clock: Clock) -> Self {
        Self { node, rows, effects: Effects::default(), observes: false, clock }
    }

    /// The time, in milliseconds.
    pub(super) fn now(&self) -> i64 {
        self.clock.now().0
    }

    /// Publishes a payload on a topic once everything is stored.
    pub(super) fn publish(&mut self, topic: String, payload: String) {
        self.effects.publish.push((topic, payload));
    }

    /// Makes a device known, if it is not.
    pub(super) fn add_device(&mut self, device: WireDevice) {
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

    /// Forgets a device with its twins.
    pub(super) fn remove_device(&mut self, id: &str) {
        let Some(known) = self.rows.remove(id) else {
            tracing::debug!(device = id, "unknown device cannot be removed");
            return;
        };
        self.effects.forgotten.push(id.to_owned());
        let gone = WireDevice { id: id.to_owned(), name: known.row.name, ..WireDevice::default() };
        self.say_members(None, Some(vec![gone]));
    }

    fn say_members(&mut self, added: Option<Vec<WireDevice>>, removed: Option<Vec<WireDevice>>) {
        let body = Body::Membership { added_devices: added, removed_devices: removed };
        let topic = format!("{NODE_TOPIC}{}/membership/updated", self.node);
        self.publish(topic, wire::text(&fresh_id(), self.now(), body));
    }

    /// Applies an update of twins by the rules; the answer and what follows are published.
    pub(super) fn change_twins(&mut self, id: &str, event: &str, patches: &Patches, origin: Origin) {
        let at = self.now();
        let result = format!("{DEVICE_TOPIC}{id}/twin/update/result");
        let Some(known) = self.rows.get(id) else {
            let reason = "update rejected due to the device is not existed".to_owned();
            self.publish(result, wire::text(event, at, Body::Failed { code: 404, reason }));
            return;
        };
        let outcome = match rules::apply(&known.twins, patches, origin, at) {
            Ok(outcome) => outcome,
            Err(reason) => {
                tracing::warn!(device = id, reason, "twin update refused");
                self.publish(result, wire::text(event, at, Body::Failed { code: 400, reason }));
                return;
            }
        };
        let changed: Vec<String> = outcome.rows.keys().cloned().collect();
        if self.observes && matches!(origin, Origin::Local | Origin::Mapper) {
            let reported = |name: &&String| patches.get(*name).is_some_and(reports);
            let observed = changed.iter().filter(reported).map(|name| (id.to_owned(), name.clone()));
            self.effects.observed.extend(observed);
        }
        self.rows.put_twins(id, outcome.rows);
        self.effects.unstored.push((id.to_owned(), event.to_owned()));
        if origin != Origin::Cloud {
            self.publish(result, wire::text(event, at, Body::Twins { twin: outcome.result }));
        }
        if !outcome.document.is_empty() {
            let body = Body::Document { twin: outcome.document };
            let topic = format!("{DEVICE_TOPIC}{id}/twin/update/document");
            self.publish(topic, wire::text(event, at, body));
        }
        if let Some(body) = self.rows.get(id).and_then(|known| rules::delta(&known.twins)) {
            let topic = format!("{DEVICE_TOPIC}{id}/twin/update/delta");
            self.publish(topic, wire::text(&fresh_id(), at, body));
        }
        // The cloud is told what it did not know: what changed here, and what it was refused.
        let news = if origin == Origin::Cloud { outcome.rejected } else { changed };
        self.effects.twins.extend(news.into_iter().map(|property| (id.to_owned(), property)));
    }

    /// Sets the state of a known device.
    pub(super) fn set_state(&mut self, id: &str, state: &str) {
        let Some(known) = self.rows.get(id) else { return };
        let is_up = ["online", "ok"].contains(&state.to_lowercase().as_str());
        let last_online = if is_up { rfc3339(self.now()) } else { String::new() };
        let row = DeviceRow { state: state.to_owned(), last_online, ..known.row.clone() };
        let device = StateOf {
            name: row.name.clone(),
            state: row.state.clone(),
            last_online: row.last_online.clone(),
        };
        self.rows.put(id, row);
        let topic = format!("{DEVICE_TOPIC}{id}/state/update/result");
        self.publish(topic, wire::text(&fresh_id(), self.now(), Body::Device { device }));
        self.effects.states.push(id.to_owned());
    }

    /// Sets attributes of a known device; null removes one.
    pub(super) fn set_attributes(&mut self, id: &str, event: &str, asked: &Map<String, Value>) {
        let Some(known) = self.rows.get(id) else { return };
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
        self.rows.put(id, row);
        let topic = format!("{DEVICE_TOPIC}{id}/updated");
        self.publish(topic, wire::text(event, self.now(), Body::Attributes { attributes: changed }));
    }
}

/// Whether a patch of a twin says what is, beside what is wished for.
fn reports(patch: &Option<TwinPatch>) -> bool {
    patch.as_ref().is_some_and(|patch| patch.actual.is_some())
}

fn rfc3339(millis: i64) -> String {
    let whole = OffsetDateTime::from_unix_timestamp(millis / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    whole.format(&Rfc3339).unwrap_or_default()
}
