//! A module of the vendor's: tells the hardware watchdog, here the log, whether the cloud is there.

use async_trait::async_trait;
use kubeedge_core::{
    failure::BoxError,
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName},
};

/// Listens to the events of the link, which go to the group `bus` among others.
#[derive(Clone, Debug)]
pub(crate) struct Watchdog;

#[async_trait]
impl Module for Watchdog {
    fn name(&self) -> ModuleName {
        ModuleName::of("acme-watchdog")
    }

    fn group(&self) -> Group {
        Group::BUS
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                message = ctx.inbox.next() => {
                    let Some(message) = message else { return Ok(()) };
                    let said = message.message.content.as_text().unwrap_or_default();
                    tracing::info!(said = %said, "acme watchdog");
                }
            }
        }
    }
}
