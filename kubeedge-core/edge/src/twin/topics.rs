//! What apps and mappers ask and tell over MQTT.

use base64::{Engine, engine::general_purpose::URL_SAFE};

use super::{
    registry::{DEVICE_TOPIC, NODE_TOPIC, Registry},
    rules::Origin,
    wire::{self, Body, Members},
};

/// A message that came over MQTT; its resource is the topic in base64.
pub(super) fn take(registry: &mut Registry, resource: &str, payload: &[u8]) {
    let topic = URL_SAFE.decode(resource).ok().and_then(|topic| String::from_utf8(topic).ok());
    let Some(topic) = topic else {
        tracing::warn!(resource, "resource is no topic in base64");
        return;
    };
    if let Some(rest) = topic.strip_prefix(NODE_TOPIC) {
        match rest.split_once('/') {
            Some((_, "membership/get")) => get_members(registry, payload),
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
        "twin/get" => get_twins(registry, id, payload),
        "twin/update" => update_twins(registry, id, payload, Origin::Local),
        "twin/cloud_updated" => update_twins(registry, id, payload, Origin::Cloud),
        "state/update" => update_state(registry, id, payload),
        "updated" => update_attributes(registry, id, payload),
        _ => tracing::debug!(topic, "topic has no handler"),
    }
}

fn get_members(registry: &mut Registry, payload: &[u8]) {
    let topic = format!("{NODE_TOPIC}{}/membership/get/result", registry.node);
    let text = match event_id(payload) {
        Ok(event) => {
            let devices = registry.rows.all().map(|(id, known)| known.row.wire(id)).collect();
            wire::text(&event, registry.now(), Body::Devices { devices })
        }
        Err(reason) => wire::text("", registry.now(), Body::Failed { code: 400, reason }),
    };
    registry.publish(topic, text);
}

fn get_twins(registry: &mut Registry, id: &str, payload: &[u8]) {
    let topic = format!("{DEVICE_TOPIC}{id}/twin/get/result");
    let text = match (event_id(payload), registry.rows.get(id)) {
        (Err(reason), _) => wire::text("", registry.now(), Body::Failed { code: 400, reason }),
        (Ok(event), None) => {
            let reason = format!("Device {id} not found while getting twin");
            wire::text(&event, registry.now(), Body::Failed { code: 404, reason })
        }
        (Ok(event), Some(known)) => {
            let living = known.twins.iter().filter(|(_, row)| !row.is_deleted());
            let twin = living.map(|(name, row)| (name.clone(), Some(row.wire()))).collect();
            wire::text(&event, registry.now(), Body::Twins { twin })
        }
    };
    registry.publish(topic, text);
}

pub(super) fn update_twins(registry: &mut Registry, id: &str, payload: &[u8], origin: Origin) {
    match wire::update(payload) {
        Ok(update) => registry.change_twins(id, &update.event_id, &update.twin, origin),
        Err(reason) => {
            tracing::warn!(device = id, reason, "twin update refused");
            let text = wire::text("", registry.now(), Body::Failed { code: 400, reason });
            // Go answers on the empty id only, where whoever asked does not listen.
            registry.publish(format!("{DEVICE_TOPIC}/twin/update/result"), text.clone());
            registry.publish(format!("{DEVICE_TOPIC}{id}/twin/update/result"), text);
        }
    }
}

fn update_state(registry: &mut Registry, id: &str, payload: &[u8]) {
    let parsed = serde_json::from_slice::<serde_json::Value>(payload).ok();
    let state = parsed.as_ref().and_then(|root| Members(root.as_object()?).text("state"));
    let Some(state) = state.filter(|_| registry.rows.get(id).is_some()) else {
        tracing::warn!(device = id, "state update of an unknown device, or without a state");
        return;
    };
    let known = ["online", "offline", "ok", "unhealthy", "unknown"];
    if known.contains(&state.to_lowercase().as_str()) {
        registry.set_state(id, &state);
    } else {
        tracing::warn!(device = id, state, "unknown state ignored");
    }
}

pub(super) fn update_attributes(registry: &mut Registry, id: &str, payload: &[u8]) {
    let parsed = serde_json::from_slice::<serde_json::Value>(payload).ok();
    let root = parsed.as_ref().and_then(|root| root.as_object()).map(Members);
    let asked = root.as_ref().and_then(|root| root.get("attributes")?.as_object());
    let (Some(root), Some(asked), true) = (root.as_ref(), asked, registry.rows.get(id).is_some()) else {
        tracing::warn!(device = id, "attribute update of an unknown device, or without attributes");
        return;
    };
    registry.set_attributes(id, &root.text("event_id").unwrap_or_default(), asked);
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
