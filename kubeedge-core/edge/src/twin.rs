//! DeviceTwin: what devices report and what is wished of them.
//!
//! Every device has *twins*, pairs of a wished-for (`expected`) and a reported (`actual`) value, one per
//! property. Apps and mappers read and change them over MQTT topics
//! (`$hw/events/device/<namespace>/<name>/…`) by way of EventBus; mappers in this process over
//! [`DeviceMapper`]; the cloud sees what is reported. All of it is kept in the [`MetaStore`] and works
//! without the cloud; mappers start from the stored Device objects.
//!
//! Messages and readings that wait together are applied together and stored in one commit; results go out
//! when it is durable, in the order: result, document, delta, cloud.
//!
//! Go's behaviour is copied except for its defects. A value of the wrong type gets its 400 (Go locks the
//! device for good); a side without `value` gets a 400 (Go dies); error replies go to the device's own topic
//! as well as to the one with the empty id; what changed offline reaches the cloud at the next connect (Go
//! forgets it); unconfirmed messages are bounded (Go's grow without limit); `twin/cloud_updated` finds
//! devices by namespace and name.
//!
//! Modules that subscribe to readings ([`Routes::readings`](kubeedge_core::routes::Routes::readings)) hear
//! reported values, from mappers and from MQTT alike, once they are stored.

mod apply;
mod intake;
mod mappers;
mod members;
mod objects;
mod observers;
mod publisher;
mod registry;
mod rows;
mod rules;
mod topics;
mod uplink;
mod wire;

use std::sync::{Arc, atomic::AtomicBool};

use async_trait::async_trait;
use kubeedge_core::{
    device::{DeviceManager, DeviceMapper},
    failure::BoxError,
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName, NodeName},
    store::MetaStore,
};
use tokio::task::JoinSet;

use self::{apply::Twin, intake::Intake, observers::Observers, rows::StoredDevices};
use crate::meta::{DeviceInventory, MetaHandle};

/// The module. A clone takes over where the original ended, with the same store, mappers and link, so that a
/// supervisor can start one after a failure; only one of them may work at a time.
#[derive(Clone, Debug)]
pub struct DeviceTwin {
    node: NodeName,
    store: Arc<dyn MetaStore>,
    meta: MetaHandle,
    mappers: Vec<Arc<dyn DeviceMapper>>,
    intake: Arc<Intake>,
    link: Arc<AtomicBool>,
}

impl DeviceTwin {
    /// The DeviceTwin of this node over a store for its own rows, which serves the Device objects of
    /// MetaManager's copy with the mappers of this process: at most one for each protocol, the last one
    /// counts.
    pub fn new(
        node: NodeName,
        store: Arc<dyn MetaStore>,
        meta: MetaHandle,
        mappers: Vec<Arc<dyn DeviceMapper>>,
    ) -> Self {
        Self { node, store, meta, mappers, intake: Arc::default(), link: Arc::default() }
    }

    /// Where mappers outside of [`DeviceTwin::new`]'s list report to.
    pub fn manager(&self) -> Arc<dyn DeviceManager> {
        Arc::clone(&self.intake) as Arc<dyn DeviceManager>
    }

    /// The devices that are known, as MetaManager tells them to a cloud that compares.
    pub fn inventory(&self) -> Arc<dyn DeviceInventory> {
        Arc::new(StoredDevices(Arc::clone(&self.store)))
    }
}

#[async_trait]
impl Module for DeviceTwin {
    fn name(&self) -> ModuleName {
        ModuleName::TWIN
    }

    fn group(&self) -> Group {
        Group::TWIN
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let mut twin = Twin::start(
            self.node.clone(),
            Arc::clone(&self.store),
            self.meta.clone(),
            &self.mappers,
            Arc::clone(&self.intake),
            Arc::clone(&self.link),
            ctx.clock.clone(),
        )
        .await?;
        // Dropped at the end of this function, which ends the tasks.
        let mut tasks = JoinSet::new();
        twin.observed_by(Observers::start(&ctx.bus, &mut tasks));
        let done = twin.run(ctx).await;
        twin.close().await;
        done
    }
}

#[cfg(test)]
mod tests;
