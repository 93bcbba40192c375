//! An edgecore, and the cloud's end of its link.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::StreamExt;
use kubeedge_core::{
    clock::Clock,
    kernel::Shutdown,
    message::{Content, Message, Millis},
    name::{ModuleName, Operation},
    store::MetaStore,
    transport::{Credentials, Endpoint, Link, Listener, Transport},
    wire::{Codec, GoJson},
};
use kubeedge_device::{Mapper, simulated::Simulated};
use kubeedge_edge::{EdgeCore, EdgeCoreSettings, edged::server::EDGED_SERVER};
use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
use kubeedge_store::MemoryStore;
use kubeedge_transport::Memory;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// In simulated time.
const PATIENCE: Duration = Duration::from_secs(600);

/// An edgecore whose images run until they are told to end.
pub(crate) struct Node {
    door: Box<dyn Listener>,
    stop: Shutdown,
    running: JoinHandle<()>,
    _folder: TempDir,
}

impl Node {
    pub(crate) async fn start(name: &str, images: &[&str]) -> Self {
        let clock = Clock::simulated(Millis(1_800_000_000_000));
        let images = images.iter().map(|image| ((*image).to_owned(), vec!["wait".to_owned()])).collect();
        let runtime = Arc::new(MemoryRuntime::new(MemorySettings { images, clock: clock.clone() }));
        let network = Memory::new();
        let door = network.listen(&Endpoint::from("cloud"), &Credentials::default()).await.unwrap();
        let folder = TempDir::new().unwrap();
        let mut settings = EdgeCoreSettings::for_node(name);
        settings.hub.servers = vec!["cloud".to_owned()];
        settings.edged.root = folder.path().join("root");
        settings.edged.logs = folder.path().join("logs");
        settings.clock = clock;
        settings.edged.report_events = true;
        let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
        let core = EdgeCore::assemble(settings, Arc::new(network), store, runtime)
            .mapper(Mapper::new(Simulated::new()))
            .without(&ModuleName::EVENT_BUS)
            .without(&EDGED_SERVER)
            .build()
            .unwrap();
        let stop = Shutdown::new();
        let until = stop.clone();
        let running =
            tokio::spawn(async move { core.run(async move { until.requested().await }).await.unwrap() });
        Self { door, stop, running, _folder: folder }
    }

    /// The cloud's end of the next link.
    pub(crate) async fn cloud(&mut self) -> Cloud {
        let incoming =
            tokio::time::timeout(PATIENCE, self.door.next()).await.expect("nobody dialled").unwrap();
        let path = incoming.peer().path.clone();
        let link = incoming.accept().await.unwrap();
        let (heard, taken, spoken) = (Vec::new(), Vec::new(), Vec::new());
        Cloud { path, link, heard, taken, beats: HashMap::new(), spoken }
    }

    pub(crate) async fn stop(self) {
        self.stop.request();
        self.running.await.unwrap();
    }
}

/// The cloud's end of a link. What the node repeats by the clock (lease, status) is answered by itself once
/// it was answered for the first time.
pub(crate) struct Cloud {
    pub(crate) path: String,
    link: Link,
    /// Everything the edge said, in order; keepalives and what was answered by itself left out.
    pub(crate) heard: Vec<Message>,
    taken: Vec<bool>,
    beats: HashMap<String, (String, Value)>,
    /// Everything the edge said but keepalives.
    pub(crate) spoken: Vec<Message>,
}

pub(crate) fn said(message: &Message) -> String {
    let route = &message.route;
    format!("{} {} {} {}", route.source, route.group, route.operation, route.resource)
}

impl Cloud {
    async fn hear(&mut self) -> bool {
        let next = tokio::time::timeout(PATIENCE, self.link.rx.next()).await;
        let Ok(frame) = next else { return false };
        let message = GoJson.decode(frame.expect("the edge closed the link").unwrap()).unwrap();
        assert!(!message.header.sync, "{message:?}");
        let route = said(&message);
        if message.route.operation != Operation::KEEPALIVE {
            self.spoken.push(message.clone());
        }
        if let Some((version, answer)) = self.beats.get(&route).cloned() {
            let answer = answer_of(&message, &version, &answer);
            self.say(&answer).await;
        } else if message.route.operation != Operation::KEEPALIVE || self.heard.is_empty() {
            self.heard.push(message);
            self.taken.push(false);
        }
        true
    }

    /// From now on messages of this route are answered so, and not shown.
    pub(crate) fn answer_always(&mut self, route: &str, answer: Value) {
        self.answer_as(route, "", answer);
    }

    /// The same, with the version of the object.
    pub(crate) fn answer_as(&mut self, route: &str, version: &str, answer: Value) {
        self.beats.insert(route.to_owned(), (version.to_owned(), answer));
    }

    /// The first message of a route, now or later, whoever has taken it; `None` if it does not come.
    pub(crate) async fn ever(&mut self, route: &str) -> Option<Message> {
        loop {
            if let Some(found) = self.spoken.iter().find(|spoken| said(spoken) == route) {
                return Some(found.clone());
            }
            if !self.hear().await {
                return None;
            }
        }
    }

    pub(crate) async fn say(&mut self, message: &Message) {
        self.link.tx.send(GoJson.encode(message).unwrap()).await.unwrap();
    }

    /// The first message not taken yet that is wished for, now or later; `None` if it does not come.
    pub(crate) async fn try_take(&mut self, wished: impl Fn(&Message) -> bool) -> Option<Message> {
        let mut from = 0;
        loop {
            while from < self.heard.len() {
                if !self.taken[from] && wished(&self.heard[from]) {
                    self.taken[from] = true;
                    return Some(self.heard[from].clone());
                }
                from += 1;
            }
            if !self.hear().await {
                return None;
            }
        }
    }

    pub(crate) async fn take(&mut self, route: &str) -> Message {
        let found = self.try_take(|message| said(message) == route).await;
        found.unwrap_or_else(|| panic!("no {route}; heard {:#?}", self.left()))
    }

    /// What nobody has taken.
    pub(crate) fn left(&self) -> Vec<String> {
        let left = self.heard.iter().zip(&self.taken).filter(|(_, taken)| !**taken);
        left.map(|(message, _)| said(message)).collect()
    }

    /// Waits for a question and answers it as Go's EdgeController does.
    pub(crate) async fn answer(
        &mut self,
        route: &str,
        version: &str,
        answer: impl FnOnce(&Value) -> Value,
    ) -> (Value, Message) {
        let question = self.take(route).await;
        let asked: Value = question.content.decode().unwrap_or_default();
        let message = answer_of(&question, version, &answer(&asked));
        self.say(&message).await;
        (raw(&question), message)
    }

    /// Sends an object and takes what the edge confirms it with.
    pub(crate) async fn push(
        &mut self,
        source: &str,
        operation: &str,
        resource: &str,
        content: &Value,
    ) -> String {
        let message = Message::new(source.into(), operation.into(), resource)
            .in_group("resource".into())
            .at_version("7")
            .with(Content::json(content).unwrap());
        self.say(&message).await;
        let ack = self.try_take(|heard| heard.header.parent.as_ref() == Some(&message.header.id)).await;
        let ack = ack.unwrap_or_else(|| panic!("{operation} {resource} is not confirmed"));
        assert!(ack.content.is_ok_text() && ack.header.resource_version.is_none(), "{ack:?}");
        said(&ack)
    }
}

fn answer_of(question: &Message, version: &str, content: &Value) -> Message {
    let mut answer = question.answer(Content::json(content).unwrap());
    answer.route.source = ModuleName::EDGE_CONTROLLER;
    answer.route.group = "resource".into();
    if version.is_empty() { answer } else { answer.at_version(version) }
}

/// The content as it stands on the wire: text stays text.
pub(crate) fn raw(message: &Message) -> Value {
    serde_json::from_slice(message.content.as_json()).unwrap()
}

pub(crate) fn wrapped(object: &Value) -> Value {
    json!({"Object": object, "Err": null})
}
