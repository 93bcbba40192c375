use std::time::Duration;

use async_trait::async_trait;
use kubeedge_core::{
    failure::BoxError,
    kernel::{ModuleContext, Shutdown},
    message::{Content, Message},
    name::{Group, Operation},
};
use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
use kubeedge_store::MemoryStore;
use kubeedge_transport::Memory;

use super::*;
use crate::{edged::server::EDGED_SERVER, hub::IdentitySource};

const ACME: ModuleName = ModuleName::of("acme");

/// Answers with its number and panics over what it does not know.
struct Acme(u32);

#[async_trait]
impl Module for Acme {
    fn name(&self) -> ModuleName {
        ACME
    }

    fn group(&self) -> Group {
        Group::USER
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                Some(envelope) = ctx.inbox.next() => match envelope.wants_answer() {
                    true => envelope.answer(Content::text(&self.0.to_string())),
                    false => panic!("a message of no use"),
                },
            }
        }
    }
}

fn edgecore() -> EdgeCoreBuilder {
    let settings = EdgeCoreSettings::for_node("edge-1");
    let runtime = MemoryRuntime::new(MemorySettings::default());
    let core = EdgeCore::assemble(settings, Memory::new(), MemoryStore::new(), runtime);
    [ModuleName::EDGE_HUB, ModuleName::EVENT_BUS, EDGED_SERVER, ModuleName::EDGED]
        .iter()
        .fold(core, EdgeCoreBuilder::without)
}

#[tokio::test(start_paused = true)]
async fn a_vendors_module_is_made_anew_after_a_panic() {
    let mut made = 0;
    let core = edgecore()
        .module_with(move |parts| {
            assert_eq!(parts.node, "edge-1");
            made += 1;
            Acme(made)
        })
        .build()
        .unwrap();
    let (bus, stop) = (core.bus(), Shutdown::new());
    let until = stop.clone();
    let running = tokio::spawn(core.run(async move { until.requested().await }));
    let message = || Message::new(ACME, Operation::QUERY, "x");
    for number in 1..=3 {
        let answer = bus.request(&ACME, message(), Duration::from_secs(600)).await.unwrap();
        assert_eq!(answer.content.as_text().unwrap(), number.to_string());
        bus.send(&ACME, message()).await.unwrap();
    }
    stop.request();
    running.await.unwrap().unwrap();
}

#[test]
fn joining_names_all_three_servers_of_a_cloudcore() {
    let settings = EdgeCoreSettings::for_node("edge-1").joining("192.0.2.7", "a token");
    assert_eq!(settings.hub.servers, ["192.0.2.7:10000"]);
    let IdentitySource::Join(join) = &settings.hub.identity else { panic!("{settings:?}") };
    assert_eq!((join.https.as_str(), join.token.as_deref()), ("192.0.2.7:10002", Some("a token")));
    assert_eq!(settings.stream.unwrap().servers, ["192.0.2.7:10004".into()]);
}

#[test]
fn folders_and_ports_can_be_of_ones_own() {
    let settings = EdgeCoreSettings::for_node("edge-1").in_folder("/data".as_ref()).on_free_ports();
    for path in [&settings.edged.root, &settings.edged.logs, &settings.server.logs] {
        assert!(path.starts_with("/data"), "{}", path.display());
    }
    assert_eq!(
        (settings.server.address.port(), settings.eventbus.internal.as_str()),
        (0, "tcp://127.0.0.1:0")
    );
}
