//! A module that says now and then how many nodes are connected.

use std::time::Duration;

use async_trait::async_trait;
use kubeedge_cloud::hub::Sessions;
use kubeedge_core::{
    failure::BoxError,
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName},
};

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);

/// The module. Sessions are shared with CloudHub; asking them costs no message.
#[derive(Clone, Debug)]
pub(crate) struct Census {
    sessions: Sessions,
}

impl Census {
    /// Counts the nodes of these sessions.
    pub(crate) fn new(sessions: Sessions) -> Self {
        Self { sessions }
    }
}

#[async_trait]
impl Module for Census {
    fn name(&self) -> ModuleName {
        ModuleName::of("acme-census")
    }

    fn group(&self) -> Group {
        Group::of("acme")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let mut told = usize::MAX;
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let count = self.sessions.count();
            if count != told {
                tracing::info!(nodes = count, "acme census");
                told = count;
            }
        }
    }
}
