//! What apps and mappers ask and tell over MQTT.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    apply::{DEVICE_TOPIC, NODE_TOPIC, Twin},
    rows::DeviceRow,
    rules::{self, Origin},
    uplink::fresh_id,
    wire::{self, Attribute, Body, Members, Patches, StateOf},
};

impl Twin {
    /// A message that came over MQTT; its resource is the topic in base64.
    pub(super) fn take_topic(&mut self, resource: &str, payload: &[u8]) {
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
                wire::text(&event, self.now(), Body::Devices { devices })
            }
            Err(reason) => wire::text("", self.now(), Body::Failed { code: 400, reason }),
        };
        self.said.publish.push((topic, text));
    }

    fn get_twins(&mut self, id: &str, payload: &[u8]) {
        let topic = format!("{DEVICE_TOPIC}{id}/twin/get/result");
        let text = match (event_id(payload), self.rows.get(id)) {
            (Err(reason), _) => wire::text("", self.now(), Body::Failed { code: 400, reason }),
            (Ok(event), None) => {
                let reason = format!("Device {id} not found while getting twin");
                wire::text(&event, self.now(), Body::Failed { code: 404, reason })
            }
            (Ok(event), Some(known)) => {
                let living = known.twins.iter().filter(|(_, row)| !row.is_deleted());
                let twin = living.map(|(name, row)| (name.clone(), Some(row.wire()))).collect();
                wire::text(&event, self.now(), Body::Twins { twin })
            }
        };
        self.said.publish.push((topic, text));
    }

    pub(super) fn update_twins(&mut self, id: &str, payload: &[u8], origin: Origin) {
        match wire::update(payload) {
            Ok(update) => self.change_twins(id, &update.event_id, &update.twin, origin),
            Err(reason) => {
                tracing::warn!(device = id, reason, "twin update refused");
                let text = wire::text("", self.now(), Body::Failed { code: 400, reason });
                // Go answers on the empty id only, where whoever asked does not listen.
                self.said.publish.push((format!("{DEVICE_TOPIC}/twin/update/result"), text.clone()));
                self.said.publish.push((format!("{DEVICE_TOPIC}{id}/twin/update/result"), text));
            }
        }
    }

    pub(super) fn change_twins(&mut self, id: &str, event: &str, patches: &Patches, origin: Origin) {
        let at = self.now();
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
        self.said.publish.push((topic, wire::text(&fresh_id(), self.now(), Body::Device { device })));
        self.said.states.push(id.to_owned());
    }

    pub(super) fn update_attributes(&mut self, id: &str, payload: &[u8]) {
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
        self.said
            .publish
            .push((topic, wire::text(&event, self.now(), Body::Attributes { attributes: changed })));
    }
}

fn rfc3339(millis: i64) -> String {
    let whole = OffsetDateTime::from_unix_timestamp(millis / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    whole.format(&Rfc3339).unwrap_or_default()
}

/// `namespace/name` before the rest of a topic.
fn split_id(rest: &str) -> Option<(&str, &str)> {
    let (second, _) = rest.match_indices('/').nth(1)?;
    Some((rest.get(..second)?, rest.get(second + 1..)?))
}

fn event_id(payload: &[u8]) -> Result<String, String> {
    let shown = || String::from_utf8_lossy(payload.get(..256).unwrap_or(payload)).into_owned();
    let failed = |why: String| format!("Unmarshal twin info {} failed , err: {why}", shown());
    let root: serde_json::Value =
        serde_json::from_slice(payload).map_err(|error| failed(error.to_string()))?;
    let root = root.as_object().ok_or_else(|| failed("no JSON object".to_owned()))?;
    Members(root).text("event_id").ok_or_else(|| failed("event_id is no text".to_owned()))
}
