//! Which devices there are: what the cloud says of members.

use kubeedge_core::message::Message;

use super::{
    registry::Registry,
    rules::Origin,
    topics,
    wire::{self, Members, WireDevice},
};

/// A message of the cloud: members, or twins.
pub(super) fn take(registry: &mut Registry, message: &Message) {
    let resource = message.route.resource.as_str();
    let content = message.content.data();
    if resource.contains("membership") {
        let whole = resource.contains("membership/detail");
        match serde_json::from_slice::<serde_json::Value>(&content) {
            Ok(serde_json::Value::Object(members)) => take_members(registry, &Members(&members), whole),
            _ => tracing::error!(resource, "unreadable membership message"),
        }
    } else if let Some(id) = resource.strip_suffix("/twin/cloud_updated") {
        let id = id.strip_prefix("device/").unwrap_or(id);
        topics::update_twins(registry, id, &content, Origin::Cloud);
    } else if message.route.operation.as_str().contains("updated")
        && let Some(id) = resource.strip_prefix("device/")
    {
        topics::update_attributes(registry, id, &content);
    }
}

fn take_members(registry: &mut Registry, members: &Members<'_>, whole: bool) {
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
        registry.add_device(new);
        if let Some(twins) = device.get("twin").filter(|twins| !twins.is_null()) {
            match wire::patches(twins) {
                Ok(patches) => registry.change_twins(&id, "", &patches, Origin::Detail),
                Err(reason) => tracing::error!(device = id, reason, "twins of a member ignored"),
            }
        }
    }
    let mut removed: Vec<String> = Vec::new();
    if whole {
        removed.extend(registry.rows.all().map(|(id, _)| id.clone()).filter(|id| !named.contains(id)));
    } else {
        let gone = list("removed_devices");
        removed.extend(gone.iter().filter_map(|d| Members(d.as_object()?).text("id")));
    }
    removed.iter().for_each(|id| registry.remove_device(id));
}

fn is_device_id(id: &str) -> bool {
    id.len() <= 512 && id.split('/').count() == 2 && id.split('/').all(|part| !part.is_empty())
}
