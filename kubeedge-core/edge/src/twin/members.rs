//! Which devices there are: what the cloud says of members.

use kubeedge_core::message::Message;

use super::{
    apply::{NODE_TOPIC, Twin},
    rows::DeviceRow,
    rules::Origin,
    uplink::fresh_id,
    wire::{self, Body, Members, WireDevice},
};

impl Twin {
    /// A message of the cloud: members, or twins.
    pub(super) fn take_cloud(&mut self, message: &Message) {
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
        self.said.publish.push((topic, wire::text(&fresh_id(), self.now(), body)));
    }
}

fn is_device_id(id: &str) -> bool {
    id.len() <= 512 && id.split('/').count() == 2 && id.split('/').all(|part| !part.is_empty())
}
