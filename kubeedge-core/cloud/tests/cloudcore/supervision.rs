//! Modules that fail.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_cloud::CloudCore;
use kubeedge_core::{
    failure::BoxError,
    kernel::{Module, ModuleContext, Restart},
    message::Message,
    name::{Group, ModuleName, Operation},
};

use crate::{
    cluster::FakeCluster,
    edge::{Cloud, settings},
    network::Network,
};

const FLAKY: ModuleName = ModuleName::of("acme-flaky");

/// Panics over every message that it gets, and counts its starts.
#[derive(Clone, Default)]
struct Flaky(Arc<AtomicU32>);

#[async_trait]
impl Module for Flaky {
    fn name(&self) -> ModuleName {
        FLAKY
    }

    fn group(&self) -> Group {
        Group::USER
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::select! {
            () = ctx.shutdown.requested() => Ok(()),
            message = ctx.inbox.next() => panic!("{message:?}"),
        }
    }
}

#[tokio::test]
async fn a_vendors_module_is_started_anew_after_a_panic() {
    let mut settings = settings();
    settings.restart = Restart::pausing(Duration::from_millis(10), Duration::from_millis(10));
    let flaky = Flaky::default();
    let starts = Arc::clone(&flaky.0);
    let cloud = Cloud::start_with(settings, |core| core.module(flaky)).await;
    for started in 1..=3 {
        while starts.load(Ordering::SeqCst) < started {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cloud.bus.send(&FLAKY, Message::new(FLAKY, Operation::QUERY, "x")).await.unwrap();
    }
    cloud.stop().await;
}

#[tokio::test]
async fn an_https_port_that_is_taken_ends_cloudcore() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = settings();
    settings.certs.listen = taken.local_addr().unwrap();
    let core = CloudCore::assemble(settings, Network::default(), FakeCluster::new());
    let error = core.build().await.unwrap().run(std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("HTTPS service cannot listen"), "{error}");
    assert!(error.to_string().contains("CertSettings::listen"), "{error}");
}
