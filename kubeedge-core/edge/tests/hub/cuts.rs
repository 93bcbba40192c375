//! A session that is cut after any byte loses nothing.

use std::{collections::BTreeMap, sync::Arc};

use kubeedge_core::{
    bus::Bus,
    store::MetaStore,
    wire::{Codec, GoJson},
};
use kubeedge_store::MemoryStore;
use kubeedge_transport::{Way, Wire};
use tokio::{sync::mpsc, task::JoinSet};

use super::{cloud::CloudEnd, *};

/// The cloud of the session, beyond links: what has arrived, and what the edge has confirmed.
#[derive(Debug, Default)]
struct Cloud {
    arrived: Vec<Message>,
    confirmed: Vec<bool>,
}

const PODS: [&str; 3] = ["a", "b", "a"];
const UPLOADS: usize = 3;
const PHASES: [&str; 2] = ["Pending", "Running"];
const VALUES: [&str; 2] = ["1", "2"];

/// Versions of two pods, as the cloud pushes them until they are confirmed.
fn pushed(n: usize) -> Message {
    let mut message = pod(PODS[n]).at_version(n.to_string());
    message.header.id = format!("push-{n}").as_str().into();
    message
}

impl Cloud {
    /// Serves one link as CloudHub does: what is not confirmed goes anew, questions are answered.
    async fn serve(&mut self, mut end: CloudEnd) {
        self.confirmed.resize(PODS.len(), false);
        let mut next = self.confirmed.iter().position(|confirmed| !confirmed);
        loop {
            if let Some(n) = next.take()
                && end.link.tx.send(GoJson.encode(&pushed(n)).unwrap()).await.is_err()
            {
                return;
            }
            let Some(message) = end.try_next().await else { return };
            if message.route.operation == Operation::KEEPALIVE {
                continue;
            }
            if message.route.operation == Operation::RESPONSE {
                let parent = message.header.parent.clone().unwrap();
                let number: usize = parent.as_str().strip_prefix("push-").unwrap().parse().unwrap();
                if !std::mem::replace(&mut self.confirmed[number], true) {
                    next = self.confirmed.iter().position(|confirmed| !confirmed);
                }
                continue;
            }
            self.arrived.push(message.clone());
            if message.route.operation == Operation::UPLOAD {
                continue;
            }
            let answer = message.answer(Content::ok());
            if end.link.tx.send(GoJson.encode(&answer).unwrap()).await.is_err() {
                return;
            }
        }
    }

    fn has_everything(&self) -> bool {
        let uploads: std::collections::BTreeSet<_> = self
            .arrived
            .iter()
            .filter(|message| message.route.operation == Operation::UPLOAD)
            .map(|message| message.route.resource.clone())
            .collect();
        uploads.len() == UPLOADS && self.confirmed.iter().all(|confirmed| *confirmed)
    }
}

fn said(operation: Operation, resource: &str, text: &str) -> Message {
    Message::new(ModuleName::EDGED, operation, resource.to_owned()).with(Content::text(text))
}

/// Asks until it is answered, as modules do: with the next value once the cloud has the one before.
async fn insist(bus: Bus, operation: Operation, resource: &'static str, values: &'static [&'static str]) {
    for value in values {
        loop {
            let question = said(operation.clone(), resource, value);
            let answer = bus.request(&ModuleName::EDGE_HUB, question, Duration::from_secs(60)).await;
            if answer.is_ok_and(|answer| answer.route.operation != Operation::ERROR) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The node's modules: they upload, report, ask, and confirm what the cloud sends. Ends with what MetaManager
/// got.
async fn modules(node: &mut Node) -> (JoinSet<()>, mpsc::UnboundedReceiver<Message>) {
    let mut tasks = JoinSet::new();
    for n in 0..UPLOADS {
        let upload = said(Operation::UPLOAD, &format!("up/{n}"), "u").in_group(Group::USER);
        node.bus.send(&ModuleName::EDGE_HUB, upload).await.unwrap();
    }
    tasks.spawn(insist(node.bus.clone(), Operation::PATCH, "d/podpatch/a", &PHASES));
    tasks.spawn(insist(node.bus.clone(), Operation::UPDATE, "device/d/t/twin/edge_updated", &VALUES));
    tasks.spawn(insist(node.bus.clone(), Operation::QUERY, "d/configmap/c", &["?"]));
    let (mut inbox, bus) = (node.inbox(&ModuleName::META_MANAGER), node.bus.clone());
    let (seen, got) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(envelope) = inbox.next().await {
            let message = envelope.message;
            if message.route.operation != Operation::CONNECT {
                bus.send(&ModuleName::EDGE_HUB, message.answer(Content::ok())).await.unwrap();
                let _ = seen.send(message);
            }
        }
    });
    (tasks, got)
}

/// One session whose first link is cut. Returns how many bytes that link carried each way.
async fn session(cut: Option<(Way, u64)>) -> [u64; 2] {
    let (wire, store) = (Wire::new(), Arc::new(MemoryStore::new()));
    if let Some((way, after)) = cut {
        wire.cut_next(way, after);
    }
    let mut node = Node::over(store.clone() as Arc<dyn MetaStore>, settings(), wire.clone()).await;
    let (mut tasks, mut got) = modules(&mut node).await;
    let mut cloud = Cloud::default();
    let mut carried = None;
    let all = async {
        loop {
            let end = node.accept().await;
            let asked = async { while tasks.join_next().await.is_some() {} };
            // The link holds until everything was said, and a little longer, so that it is proved.
            tokio::select! {
                () = cloud.serve(end) => {}
                () = async { asked.await; tokio::time::sleep(Duration::from_secs(3)).await } => {}
            }
            carried.get_or_insert_with(|| [Way::Out, Way::Back].map(|way| wire.carried(way)));
            if tasks.is_empty() && cloud.has_everything() {
                return;
            }
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(300), all).await;
    assert!(done.is_ok(), "cut {cut:?}: {cloud:?}");
    check(&cloud, cut);
    let mut pods: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Ok(message) = got.try_recv() {
        let version = message.header.resource_version.unwrap().as_str().to_owned();
        pods.entry(message.route.resource.as_str().to_owned()).or_default().push(version);
    }
    let newest = |pod: &str| pods[&format!("default/pod/{pod}")].last().cloned();
    assert_eq!((newest("a").unwrap(), newest("b").unwrap()), ("2".to_owned(), "1".to_owned()), "cut {cut:?}");
    node.stop().await;
    carried.unwrap()
}

/// Everything arrived, for the first time in its order, and of what has values the newest is the last.
fn check(cloud: &Cloud, cut: Option<(Way, u64)>) {
    let of = |start: &str| -> Vec<String> {
        let named = cloud.arrived.iter().filter(|message| message.route.resource.as_str().starts_with(start));
        named
            .map(|message| format!("{} {}", message.route.resource, message.content.as_text().unwrap()))
            .collect()
    };
    let uploads: Vec<_> = of("up/");
    let mut first = uploads.clone();
    first.dedup();
    let mut seen = std::collections::BTreeSet::new();
    let first: Vec<_> = uploads.iter().filter(|upload| seen.insert((*upload).clone())).collect();
    assert_eq!(first, ["up/0 u", "up/1 u", "up/2 u"], "cut {cut:?}");
    for (resource, values) in [("d/podpatch/a", PHASES), ("device/d/t/twin/edge_updated", VALUES)] {
        let mut came = of(resource);
        came.dedup();
        let wanted = values.map(|value| format!("{resource} {value}"));
        assert_eq!(came, wanted, "cut {cut:?}");
    }
    assert!(!of("d/configmap/c").is_empty(), "cut {cut:?}");
}

#[tokio::test(start_paused = true)]
async fn cutting_the_link_after_any_byte_loses_nothing() {
    let whole = session(None).await;
    assert!(whole.iter().all(|bytes| *bytes > 500), "{whole:?}");
    for (way, bytes) in [Way::Out, Way::Back].into_iter().zip(whole) {
        for after in 0..=bytes {
            session(Some((way, after))).await;
        }
    }
}
