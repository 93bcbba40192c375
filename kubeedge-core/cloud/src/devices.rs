//! DeviceController: devices and device models to the edge, twins and states back.
//!
//! *Down*: a Device on a node is announced by a membership message, preceded by its DeviceModel (once per
//! node), and sent whole. *Up*: reported twins and states become the DeviceStatus object beside the Device,
//! and each report is confirmed to the edge, which repeats what is not confirmed.
//!
//! Where we differ from Go: a Device that cannot be used (no model named, a model that is not there,
//! unreadable fields) gets a Warning Event that says so, is sent once its model appears, and holds up no
//! other device (Go waits ten seconds in its only loop, or panics); the first report of a twin is not lost;
//! reports of one device that wait are merged into one patch; a node reports only for its own devices; the
//! devices of a node are announced again when it connects, since a membership message is sent once and may
//! have been lost (an edge of ours is told only what it does not know, by SyncController's comparison).

mod downstream;
mod status;
mod view;

use std::sync::Arc;

use async_trait::async_trait;
use kube::core::ApiResource;
use kubeedge_core::{
    failure::BoxError,
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName, NodeName},
};

pub(crate) use self::downstream::members_changed;
use self::{downstream::Downstream, status::Reports, view::DeviceView};
use crate::{
    cluster::Clients,
    informer::{Informer, Informers, Object, kind},
};

const GROUP: &str = "devices.kubeedge.io";
/// Where the objects of this controller stand in the API.
const PREFIX: &str = "/apis/devices.kubeedge.io/v1beta1";
const API_VERSION: &str = "devices.kubeedge.io/v1beta1";

/// The kind Device.
pub(crate) fn device_kind() -> ApiResource {
    kind(GROUP, "v1beta1", "Device", "devices")
}

/// The name of a device's model, if the device is on the node.
pub(crate) fn model_on(device: &Object, node: &NodeName) -> Option<String> {
    DeviceView::of(device).ok().filter(|view| view.node.as_ref() == Some(node)).map(|view| view.model)
}

/// The DeviceController module; see the module's documentation.
#[derive(Debug)]
pub struct DeviceController {
    clients: Arc<Clients>,
    devices: Arc<Informer>,
    models: Arc<Informer>,
}

impl DeviceController {
    /// A controller on these clients and informers.
    pub fn new(clients: &Arc<Clients>, informers: &Informers) -> Self {
        Self {
            clients: clients.clone(),
            devices: informers.of(&device_kind()),
            models: informers.of(&kind(GROUP, "v1beta1", "DeviceModel", "devicemodels")),
        }
    }
}

#[async_trait]
impl Module for DeviceController {
    fn name(&self) -> ModuleName {
        ModuleName::DEVICE_CONTROLLER
    }

    fn group(&self) -> Group {
        Group::of("devicecontroller")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        // The models first: devices of models that are not known wait.
        loop {
            tokio::select! {
                () = self.models.ready() => break,
                () = ctx.shutdown.requested() => return Ok(()),
                // Perhaps the cluster knows no devices at all. What is dropped is not confirmed, and comes
                // again.
                envelope = ctx.inbox.next() => drop(envelope),
            }
        }
        let (mut models, mut devices) = (self.models.subscribe(), self.devices.subscribe());
        let mut down = Downstream::new(self.clients.clone(), self.models.clone());
        let mut reports = Reports::new(self.clients.clone(), self.devices.clone());
        loop {
            let messages = tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                change = models.next() => down.model(&change).await,
                change = devices.next() => down.device(&change).await,
                envelope = ctx.inbox.next(), if reports.has_room() => {
                    let Some(envelope) = envelope else { return Ok(()) };
                    let message = &envelope.message;
                    if message.route.operation == "connected" {
                        let node = message.route.resource.as_str().strip_prefix("node/").unwrap_or_default();
                        down.announce(&NodeName::from(node)).into_iter().collect()
                    } else {
                        reports.take(envelope);
                        Vec::new()
                    }
                }
                messages = reports.confirmed() => messages,
            };
            for message in messages {
                ctx.bus.send(&ModuleName::CLOUD_HUB, message).await?;
            }
        }
    }
}
