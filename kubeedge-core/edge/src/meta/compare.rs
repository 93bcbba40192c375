//! Answering a cloud of ours that compares what is here with what it believes is here; see
//! [`kubeedge_common::digest`].

use std::{sync::Arc, time::Duration};

use kubeedge_common::digest::{Asks, Entry, MAX_REPLY, Opening, RESOURCE, Reply, Tree};
use kubeedge_core::{
    bus::Bus,
    failure::chain,
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    store::StoreError,
};

use super::{DeviceInventory, objects::Objects};

/// Answers that are given in one comparison, more than any cloud of ours asks for.
const MOST: usize = 4096;

/// Answers until the cloud knows enough. Each answer is a request to EdgeHub, so that it goes over this link
/// only and ends with it: the next one may be to a cloud that knows nothing of this.
pub(super) async fn answer(
    bus: Bus,
    objects: Objects,
    inventory: Option<Arc<dyn DeviceInventory>>,
    opening: Message,
    within: Duration,
) {
    let Ok(Opening { salt, root }) = opening.content.decode() else {
        return tracing::warn!("a comparison that the cloud wishes cannot be read");
    };
    let tree = match entries(&objects, inventory.as_deref()).await {
        Ok(entries) => Tree::new(salt, entries),
        Err(error) => return tracing::error!(error = %chain(&error), "cannot tell the cloud what is here"),
    };
    let mut reply = tree.first_answer(root);
    for _ in 0..MOST {
        let Some(asks) = tell(&bus, &reply, within).await.filter(|asks| !asks.of.is_empty()) else { return };
        reply = tree.answer(&asks);
    }
}

/// Everything the cloud was told is here, and the devices DeviceTwin knows.
async fn entries(
    objects: &Objects,
    inventory: Option<&dyn DeviceInventory>,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries = objects.confirmed().await?;
    if let Some(inventory) = inventory {
        let devices = inventory.devices().await?.into_iter();
        entries.extend(devices.map(|key| Entry { key, version: 1, path: String::new() }));
    }
    Ok(entries)
}

/// Sends an answer; what the cloud asks next.
async fn tell(bus: &Bus, reply: &Reply, within: Duration) -> Option<Asks> {
    let message = Message::new(ModuleName::META_MANAGER, Operation::GET, RESOURCE)
        .in_group(Group::RESOURCE)
        .with(Content::json(reply).ok()?);
    let answer = bus.request(&ModuleName::EDGE_HUB, message, within).await;
    let answer =
        answer.inspect_err(|error| tracing::debug!(%error, "a comparison with the cloud ends")).ok()?;
    (answer.content.as_json().len() <= MAX_REPLY).then(|| answer.content.decode().ok()).flatten()
}
