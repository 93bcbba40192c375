//! MetaManager: the edge's durable copy of what it should run.
//!
//! Everything the cloud sends about objects goes through here: it is stored, passed on to the module that
//! acts on it, and only then acknowledged, so that what the cloud holds for delivered survives a power cut.
//! Questions of the edge's own modules are answered from the copy or by the cloud, as KubeEdge's rules say;
//! without a link, from the copy alone.
//!
//! The copy is a bucket of any [`MetaStore`]: the key is group, kind, namespace and name ([`ObjectKey`]), the
//! value the content as it came, of which only the head is read on the way. Other modules of the process
//! read, write and watch it through a [`MetaHandle`]; what needs the cloud they ask through a [`Client`].
//!
//! A message goes through three functions: `command` reads what it asks, `rules` decides from that what is
//! done, `dispatcher` does it. The rules follow Go's MetaManager, its defects mended: an answer that fails
//! reaches the asker at once, an `ErrStatus` is no ConfigMap, and a token is kept until its successor is
//! there.
//!
//! Beside each object the copy says which version of it the cloud was told is here, in the same commit. A
//! cloud of ours compares that with its records at each connect ([`kubeedge_common::digest`]), so that
//! neither a lost store nor lost records leave the two apart; a Go cloud never asks.

mod client;
mod cloud;
mod command;
mod compare;
mod dispatcher;
mod handle;
mod head;
mod key;
mod kinds;
mod migration;
mod objects;
mod rules;
mod tokens;
mod watch;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{
    failure::BoxError,
    kernel::{Module, ModuleContext},
    message::Message,
    name::{Group, ModuleName, Operation},
    store::{MetaStore, StoreError},
};
use tokio::{
    sync::{Semaphore, watch as channel},
    task::JoinSet,
};

pub use self::{
    client::{ApiStatus, Client, ClientError},
    handle::{MetaHandle, Object},
    key::{ObjectKey, Selector},
    migration::BY_RESOURCE,
    objects::BUCKET,
    watch::{MetaEvent, Watch},
};
use self::{cloud::Remote, dispatcher::Dispatcher};

/// How MetaManager is set up.
#[derive(Clone, Debug)]
pub struct MetaManagerSettings {
    /// How long the cloud may take to answer; Go's remoteQueryTimeout.
    pub remote_query_timeout: Duration,
    /// How many questions may wait for the cloud at once; further ones wait for their turn.
    pub remote_queries: usize,
}

impl Default for MetaManagerSettings {
    fn default() -> Self {
        Self { remote_query_timeout: Duration::from_secs(60), remote_queries: 256 }
    }
}

/// The devices that DeviceTwin knows, which a cloud of ours compares with its own together with the objects.
#[async_trait]
pub trait DeviceInventory: fmt::Debug + Send + Sync + 'static {
    /// The ids, `namespace/name`, of all devices that are stored.
    async fn devices(&self) -> Result<Vec<String>, StoreError>;
}

/// The module. A clone takes over where the original ended: it uses the same copy and knows whether the link
/// is up, so that a supervisor can start one after a failure.
#[derive(Clone, Debug)]
pub struct MetaManager {
    settings: MetaManagerSettings,
    handle: MetaHandle,
    inventory: Option<Arc<dyn DeviceInventory>>,
    connected: channel::Sender<bool>,
}

impl MetaManager {
    /// Keeps its copy in this store.
    pub fn new(settings: MetaManagerSettings, store: Arc<dyn MetaStore>) -> Self {
        let handle = MetaHandle::over(store);
        Self { settings, handle, inventory: None, connected: channel::Sender::new(false) }
    }

    /// Tells the cloud of these devices too when it compares what is here.
    #[must_use]
    pub fn devices(mut self, inventory: Arc<dyn DeviceInventory>) -> Self {
        self.inventory = Some(inventory);
        self
    }

    /// The copy, for other modules of this process.
    pub fn handle(&self) -> MetaHandle {
        self.handle.clone()
    }
}

#[async_trait]
impl Module for MetaManager {
    fn name(&self) -> ModuleName {
        ModuleName::META_MANAGER
    }

    fn group(&self) -> Group {
        Group::META
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let objects = self.handle.0.clone();
        let remote = Arc::new(Remote {
            bus: ctx.bus.clone(),
            clock: ctx.clock.clone(),
            objects: objects.clone(),
            connected: self.connected.subscribe(),
            within: self.settings.remote_query_timeout,
            slots: Semaphore::new(self.settings.remote_queries),
        });
        let mut dispatcher = Dispatcher {
            bus: ctx.bus.clone(),
            objects,
            remote,
            connected: self.connected.clone(),
            inventory: self.inventory.clone(),
            background: JoinSet::new(),
            comparing: None,
        };
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                Some(_) = dispatcher.background.join_next() => {}
                envelope = ctx.inbox.next() => match envelope {
                    Some(envelope) => dispatcher.handle(envelope).await,
                    None => return Ok(()),
                },
            }
        }
    }
}

/// Whether an operation is an error answer.
fn is_error(message: &Message) -> bool {
    message.route.operation == Operation::ERROR
}

#[cfg(test)]
mod tests;
