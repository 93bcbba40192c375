//! EventBus: the bridge between MQTT topics and messages.
//!
//! | MQTT topic | goes to |
//! |---|---|
//! | `$hw/events/device/…`, `$hw/events/node/…` | DeviceTwin, resource = the topic in base64 |
//! | everything else subscribed to | the cloud by EdgeHub, operation `upload`, resource = the topic |
//! | what a module listens to ([`Routes::topic`](kubeedge_core::routes::Routes::topic)) | that module too, operation `publish`, resource = the topic; to nobody else if nobody else subscribed to it |
//!
//! Messages of other modules: `publish` publishes its content on the topic its resource names; `subscribe`
//! and `unsubscribe` change the list of topics, which is kept in the store; `message` publishes the JSON of
//! its member `message` on that member's `topic`.
//!
//! What was read and finds no room, here or at EdgeHub, or is larger than 4 MiB, is gone, and whoever
//! published it is told on `$hw/events/node/<node>/upload/refused`: JSON with `count`, `topics` and `reason`,
//! once a second at most. A publisher's confirmation comes from its broker and cannot be withheld from here.
//!
//! Where [`EventBusSettings::sub_client_id`] is set, the external broker remembers the reading connection,
//! and an upload at QoS 1 is confirmed to it when EdgeHub has stored it or knows that the cloud has it. So
//! what is published while edgecore restarts, is killed or loses its power arrives, some of it twice, as long
//! as the broker keeps it: mosquitto keeps 1000 messages (`max_queued_messages`), and over its own restart
//! with `persistence true`. What is for DeviceTwin is confirmed once DeviceTwin has it; it answers on topics
//! of its own when it has stored it.
//!
//! Like Go: MQTT 3.1.1, one connection for reading and one for publishing, clean sessions without a client
//! id, QoS 1 outward, every subscription made anew at each connect. Other than Go: the module never waits for
//! a broker. What is published while the broker is away waits in a bounded queue, and what finds no room is
//! dropped and counted in the log (Go blocks the module, and with it everybody who sends to it). What the
//! broker had not confirmed when a connection broke is published again on the next one. More than 4 MiB in
//! one message is refused in either direction; more than 16 MiB breaks the connection. A broker that
//! remembers the node would send such a message again before all others: it must not take any (mosquitto:
//! `message_size_limit 16000000`). Payloads that are not UTF-8 lose those bytes, as with Go: a message's
//! content is text.

#[cfg(feature = "mqtt-broker")]
mod broker;
mod confirm;
mod link;
mod listeners;
mod reader;
mod subscriptions;
mod writer;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use futures::TryStreamExt;
use kubeedge_common::log::shown;
use kubeedge_core::{
    bus::Envelope,
    failure::{BoxError, chain},
    kernel::{Module, ModuleContext},
    message::{Content, Message},
    name::{Group, ModuleName, NodeName, Operation},
    store::{Bucket, Key, MetaStore, MetaStoreExt, Scan},
};
use parking_lot::RwLock;
use tokio::{sync::watch, task::JoinSet};

use self::link::{Address, Link, LinkSettings, MAX_PAYLOAD, MAX_TOPIC};
use self::listeners::Listeners;

/// Topics other modules asked for.
const TOPICS: Bucket = Bucket("sub_topics");
/// How many topics other modules may ask for.
const MAX_TOPICS: usize = 1000;

/// Topics that are always read.
const BUILT_IN: [&str; 6] = [
    "$hw/events/upload/#",
    "$hw/events/device/+/+/state/update",
    "$hw/events/device/+/+/twin/+",
    "$hw/events/node/+/membership/get",
    "SYS/dis/upload_records",
    "+/user/#",
];

/// Which brokers are used: KubeEdge's `mqttMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MqttMode {
    /// 0: only the broker inside this process.
    Internal,
    /// 1: both; everything is published on both.
    Both,
    /// 2: only a broker elsewhere, such as mosquitto.
    #[default]
    External,
}

/// Settings of [`EventBus`]; the defaults are KubeEdge's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventBusSettings {
    /// Which brokers are used.
    pub mode: MqttMode,
    /// The external broker, `tcp://host:port`. MQTT over TLS is not supported.
    pub external: String,
    /// Where the internal broker listens, `tcp://address:port`; port 0 takes a free one, see
    /// [`EventBus::internal_address`]. It knows neither passwords nor TLS: keep it on the loopback address.
    pub internal: String,
    /// The client id of the reading connection; empty for one made up. With one the external broker keeps
    /// what is published at QoS 1 while nobody reads, and until it is safe; no other client of the broker may
    /// have it.
    pub sub_client_id: String,
    /// The client id of the publishing connection; empty for one made up.
    pub pub_client_id: String,
    /// The user at the external broker; empty for none.
    pub username: String,
    /// The password at the external broker.
    pub password: String,
    /// The QoS of what is published on the internal broker, 0 to 2.
    pub internal_qos: u8,
    /// Whether what is published on the internal broker is retained.
    pub internal_retain: bool,
    /// How many messages the internal broker keeps for one client that does not read.
    pub session_queue: usize,
    /// How many messages wait for a broker that is away; as many again that waited when its connection broke.
    pub queue: usize,
    /// Makes the jitter of the pauses between connects repeatable.
    pub seed: u64,
}

impl Default for EventBusSettings {
    fn default() -> Self {
        Self {
            mode: MqttMode::default(),
            external: "tcp://127.0.0.1:1883".to_owned(),
            internal: "tcp://127.0.0.1:1884".to_owned(),
            sub_client_id: String::new(),
            pub_client_id: String::new(),
            username: String::new(),
            password: String::new(),
            internal_qos: 0,
            internal_retain: false,
            session_queue: 100,
            queue: 1024,
            seed: 0,
        }
    }
}

/// Why EventBus cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventBusError {
    /// An address is none.
    #[error("MQTT server {url:?}: {why}")]
    BadServer {
        /// The setting.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The internal broker is wanted but not part of this build.
    #[error(
        "mqttMode 0 and 1 need the internal broker: build with the feature mqtt-broker, or use mqttMode 2"
    )]
    NoBroker,
    /// The internal broker cannot listen.
    #[error(
        "internal MQTT broker on {address}: {why}; if the port is taken, set modules.eventBus.mqttServerInternal (EventBusSettings::internal) to a free one"
    )]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// Why it cannot.
        why: String,
    },
}

/// The module. A clone takes over where the original ended, so that a supervisor can start one after a
/// failure; only one of them may work at a time.
#[derive(Clone, Debug)]
pub struct EventBus {
    node: NodeName,
    settings: EventBusSettings,
    store: Arc<dyn MetaStore>,
    listening: watch::Sender<Option<SocketAddr>>,
}

/// Topics that are read, shared with the connections.
type Topics = Arc<RwLock<BTreeSet<String>>>;

impl EventBus {
    /// The EventBus of this node, which keeps its list of topics in a store.
    pub fn new(node: NodeName, settings: EventBusSettings, store: Arc<dyn MetaStore>) -> Self {
        Self { node, settings, store, listening: watch::Sender::new(None) }
    }

    /// Where the internal broker listens, once it does.
    pub fn internal_address(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.listening.subscribe()
    }

    async fn topics(&self) -> Result<Topics, BoxError> {
        let mut topics: BTreeSet<String> = BUILT_IN.iter().map(|topic| (*topic).to_owned()).collect();
        let mut kept = self.store.scan(Scan::new(TOPICS, ""));
        while let Some(entry) = kept.try_next().await? {
            // One that is none would keep those beside it from being subscribed to.
            if is_filter(&entry.key.name) {
                topics.insert(entry.key.name);
            }
        }
        Ok(Arc::new(RwLock::new(topics)))
    }

    /// Connects to every broker of the mode.
    async fn links(
        &self,
        ctx: &ModuleContext,
        topics: &Topics,
        tasks: &mut JoinSet<Result<(), BoxError>>,
    ) -> Result<Vec<Link>, BoxError> {
        let mut links = Vec::new();
        let listeners = Listeners::start(&ctx.bus, tasks);
        let settings = &self.settings;
        if settings.mode != MqttMode::External {
            let address = self.listen(ctx, tasks).await?;
            let internal = LinkSettings {
                // It remembers nobody for longer than this process lives.
                lasts: false,
                qos: settings.internal_qos,
                retain: settings.internal_retain,
                username: String::new(),
                ..self.external(address)
            };
            links.push(Link::start(internal, topics, &listeners, &ctx.bus, tasks));
        }
        if settings.mode != MqttMode::Internal {
            let address = Address::parse(&settings.external)?;
            links.push(Link::start(self.external(address), topics, &listeners, &ctx.bus, tasks));
        }
        Ok(links)
    }

    fn external(&self, address: Address) -> LinkSettings {
        let settings = &self.settings;
        LinkSettings {
            address,
            sub_client_id: settings.sub_client_id.clone(),
            lasts: !settings.sub_client_id.is_empty(),
            pub_client_id: settings.pub_client_id.clone(),
            username: settings.username.clone(),
            password: settings.password.clone(),
            qos: 1,
            retain: false,
            queue: settings.queue.max(1),
            seed: settings.seed,
            node: self.node.clone(),
        }
    }

    #[cfg(feature = "mqtt-broker")]
    async fn listen(
        &self,
        ctx: &ModuleContext,
        tasks: &mut JoinSet<Result<(), BoxError>>,
    ) -> Result<Address, BoxError> {
        let wanted = Address::parse(&self.settings.internal)?.socket(&self.settings.internal)?;
        let broker = broker::listen(wanted, self.settings.session_queue).await?;
        let bound = broker.address();
        self.listening.send_replace(Some(bound));
        tasks.spawn(broker.run(ctx.shutdown.clone()));
        Ok(Address::of(bound))
    }

    #[cfg(not(feature = "mqtt-broker"))]
    async fn listen(
        &self,
        _: &ModuleContext,
        _: &mut JoinSet<Result<(), BoxError>>,
    ) -> Result<Address, BoxError> {
        Err(EventBusError::NoBroker.into())
    }

    /// Does what a message of another module asks for.
    async fn obey(&self, envelope: Envelope, topics: &Topics, links: &mut [Link]) {
        let message = &envelope.message;
        let resource = message.route.resource.as_str();
        let done = match message.route.operation.as_str() {
            "publish" => publish(links, resource, &message.content),
            "subscribe" => self.subscribe(resource, topics, links).await,
            "unsubscribe" => self.unsubscribe(resource, topics, links).await,
            "message" => publish_member(links, &message.content),
            "get_result" if resource == "auth_info" => {
                let topic = format!("$hw/events/node/{}/authInfo/get/result", self.node);
                publish(links, &topic, &message.content)
            }
            "connect" => Ok(()),
            operation => Err(format!("operation {operation:?} is unknown").into()),
        };
        match done {
            Ok(()) => envelope.answer(Content::ok()),
            Err(error) => {
                tracing::warn!(resource = %shown(resource), error = %chain(&*error), "message not carried out");
                envelope.fail(error);
            }
        }
    }

    async fn subscribe(&self, topic: &str, topics: &Topics, links: &[Link]) -> Result<(), BoxError> {
        if !is_filter(topic) {
            return Err(format!("\"{}\" is no MQTT topic filter", shown(topic)).into());
        }
        if topics.read().len() >= MAX_TOPICS + BUILT_IN.len() {
            return Err(format!("more than {MAX_TOPICS} topics").into());
        }
        self.store.put(Key::new(TOPICS, topic), &serde_json::Value::Null).await?;
        topics.write().insert(topic.to_owned());
        links.iter().for_each(|link| link.changed(topic));
        Ok(())
    }

    async fn unsubscribe(&self, topic: &str, topics: &Topics, links: &[Link]) -> Result<(), BoxError> {
        self.store.remove(Key::new(TOPICS, topic)).await?;
        if !BUILT_IN.contains(&topic) && topics.write().remove(topic) {
            links.iter().for_each(|link| link.changed(topic));
        }
        Ok(())
    }
}

fn publish(links: &mut [Link], topic: &str, content: &Content) -> Result<(), BoxError> {
    let payload = content.as_text().ok_or("content to publish is no text")?;
    send(links, topic, payload.as_bytes())
}

fn publish_member(links: &mut [Link], content: &Content) -> Result<(), BoxError> {
    let content: serde_json::Value = content.decode()?;
    let message = content.get("message").ok_or("content has no member message")?;
    let topic = message.get("topic").and_then(serde_json::Value::as_str);
    send(links, topic.ok_or("message has no topic")?, message.to_string().as_bytes())
}

/// Whether MQTT can carry a topic: a broker would break off at one that is longer or has a zero.
fn fits(topic: &str) -> bool {
    topic.len() <= MAX_TOPIC && !topic.contains('\0')
}

fn is_filter(topic: &str) -> bool {
    rumqttc::valid_filter(topic) && fits(topic)
}

fn send(links: &mut [Link], topic: &str, payload: &[u8]) -> Result<(), BoxError> {
    if !rumqttc::valid_topic(topic) || topic.is_empty() || !fits(topic) {
        return Err(format!("\"{}\" is no MQTT topic", shown(topic)).into());
    }
    let bytes = payload.len();
    if bytes > MAX_PAYLOAD {
        let topic = shown(topic);
        return Err(
            format!("{bytes} bytes for the topic \"{topic}\", at most {MAX_PAYLOAD} are published").into()
        );
    }
    links.iter_mut().for_each(|link| link.publish(topic, payload));
    Ok(())
}

#[async_trait]
impl Module for EventBus {
    fn name(&self) -> ModuleName {
        ModuleName::EVENT_BUS
    }

    fn group(&self) -> Group {
        Group::BUS
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let topics = self.topics().await?;
        // Dropped at the end of this function, which ends the tasks.
        let mut tasks = JoinSet::new();
        let mut links = self.links(ctx, &topics, &mut tasks).await?;
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => break,
                message = ctx.inbox.next() => match message {
                    Some(envelope) => self.obey(envelope, &topics, &mut links).await,
                    None => break,
                },
                Some(ended) = tasks.join_next() => {
                    if ctx.shutdown.is_requested() {
                        break;
                    }
                    ended??;
                    return Err("a part of EventBus ended by itself".into());
                }
            }
        }
        self.listening.send_replace(None);
        tasks.shutdown().await;
        Ok(())
    }
}

/// The message a publish on MQTT becomes, and whom it is for.
fn dispatched(topic: &str, payload: &[u8]) -> (ModuleName, Message) {
    use base64::Engine;
    let source = ModuleName::of("bus");
    let content = Content::text(&String::from_utf8_lossy(payload));
    let is_twin = topic.starts_with("$hw/events/device/") || topic.starts_with("$hw/events/node/");
    let (to, message) = if is_twin {
        let resource = base64::engine::general_purpose::URL_SAFE.encode(topic);
        (ModuleName::TWIN, Message::new(source, Operation::RESPONSE, resource))
    } else {
        (ModuleName::EDGE_HUB, Message::new(source, Operation::UPLOAD, topic))
    };
    (to, message.in_group(Group::USER).with(content))
}

#[cfg(test)]
mod tests;
