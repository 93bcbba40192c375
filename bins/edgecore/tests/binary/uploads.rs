//! What programs on the node publish reaches the cloud, though edgecore is killed while they do.

use std::net::SocketAddr;

use async_trait::async_trait;
use kubeedge_core::{
    failure::BoxError,
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName},
};
use kubeedge_tests::{PATIENCE, mosquitto, publish, publish_all, skipped};
use tokio::sync::watch;

use crate::site::{Cloud, Edge};

const TOPIC: &str = "line-4/user/readings";
/// Readings published between one kill and the next.
const EACH: usize = 200;
const KILLS: usize = 4;

/// A router as a vendor would add one: it keeps the readings in the order in which they come.
#[derive(Clone)]
struct Router(watch::Sender<Vec<usize>>);

#[async_trait]
impl Module for Router {
    fn name(&self) -> ModuleName {
        ModuleName::of("router")
    }

    fn group(&self) -> Group {
        Group::USER
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        while let Some(envelope) = ctx.inbox.next().await {
            let reading = envelope.message.content.as_text().unwrap_or_default().parse()?;
            self.0.send_modify(|all| all.push(reading));
        }
        Ok(())
    }
}

async fn until(arrived: &mut watch::Receiver<Vec<usize>>, wanted: impl Fn(&[usize]) -> bool) -> Vec<usize> {
    let there = tokio::time::timeout(PATIENCE, arrived.wait_for(|all| wanted(all))).await;
    there.expect("readings are missing").unwrap().clone()
}

/// Publishes until a reading arrives: the broker knows the node's subscriptions from then on.
async fn known_to_the_broker(broker: SocketAddr, arrived: &mut watch::Receiver<Vec<usize>>) {
    let publishing = async {
        loop {
            tokio::task::block_in_place(|| publish(broker, TOPIC, "0"));
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = publishing => {}
        _ = until(arrived, |all| !all.is_empty()) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_published_while_edgecore_is_killed_again_and_again_all_reach_the_cloud_in_order() {
    if skipped(&["mosquitto", "mosquitto_pub"]) {
        return;
    }
    let (told, mut arrived) = watch::channel(Vec::new());
    let cloud = Cloud::start(|assembly| assembly.module(Router(told))).await;
    let folder = tempfile::tempdir().unwrap();
    let (_broker, broker) = mosquitto(folder.path());
    let event_bus =
        format!("{{mqttMode: 2, mqttServerExternal: 'tcp://{broker}', mqttSubClientID: line-4-reads}}");
    let mut edge = Edge::join(&cloud, &event_bus);
    known_to_the_broker(broker, &mut arrived).await;
    for round in 0..KILLS {
        let first = 1 + round * EACH;
        let readings = (first..first + EACH).map(|reading| reading.to_string());
        let publishing = std::thread::spawn(move || publish_all(broker, TOPIC, readings));
        until(&mut arrived, |all| all.iter().any(|reading| *reading >= first)).await;
        tokio::task::block_in_place(|| edge.kill_and_start());
        publishing.join().unwrap();
    }
    let last = KILLS * EACH;
    let arrived = until(&mut arrived, |all| all.last() == Some(&last)).await;
    // Some come again after a kill, those before it included; each comes for the first time in its order.
    let mut newest = 0;
    for reading in &arrived {
        assert!(*reading <= newest + 1, "{reading} came after {newest}");
        newest = newest.max(*reading);
    }
    assert_eq!(newest, last);
}
