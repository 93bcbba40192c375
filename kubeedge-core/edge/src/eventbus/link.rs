//! The connections to one broker: one reads, one publishes.

#[cfg(feature = "mqtt-broker")]
use std::net::SocketAddr;
use std::sync::Arc;

use kubeedge_core::{
    backoff::Backoff,
    bus::{Bus, Envelope, SendError},
    failure::BoxError,
    log::Seldom,
    name::{MessageId, ModuleName, NodeName},
};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS, SubscribeFilter};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant},
};

use super::{EventBusError, Topics, confirm::Confirmations, dispatched};
use crate::refusals::{self, Refusals};

/// The largest MQTT packet taken or sent, in bytes.
const MAX_PACKET: usize = 4 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Go tries every five seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How many subscriptions go in one packet.
const FILTERS: usize = 32;
/// How long a message that was read waits for a module that is busy, before it is dropped.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Reads `tcp://host:port`; `mqtt://` and no scheme at all are taken as well.
    pub(super) fn parse(url: &str) -> Result<Self, EventBusError> {
        let bad = |why| EventBusError::BadServer { url: url.to_owned(), why };
        let rest = match url.split_once("://") {
            None => url,
            Some(("tcp" | "mqtt", rest)) => rest,
            Some(("ssl" | "tls" | "mqtts", _)) => return Err(bad("MQTT over TLS is not supported")),
            Some(_) => return Err(bad("the scheme must be tcp")),
        };
        let (host, port) =
            rest.trim_end_matches('/').rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let port = port.parse().map_err(|_| bad("the port is no number up to 65535"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        Ok(Self { host: host.to_owned(), port })
    }

    #[cfg(feature = "mqtt-broker")]
    pub(super) fn of(address: SocketAddr) -> Self {
        let loopback = if address.is_ipv4() { "127.0.0.1".to_owned() } else { "::1".to_owned() };
        let host = if address.ip().is_unspecified() { loopback } else { address.ip().to_string() };
        Self { host, port: address.port() }
    }

    /// As an address to listen on.
    #[cfg(feature = "mqtt-broker")]
    pub(super) fn socket(&self, url: &str) -> Result<SocketAddr, EventBusError> {
        let why = "the host must be an IP address to listen on";
        let bad = |_| EventBusError::BadServer { url: url.to_owned(), why };
        let host = if self.host == "localhost" { "127.0.0.1" } else { &self.host };
        Ok(SocketAddr::new(host.parse().map_err(bad)?, self.port))
    }
}

/// How to talk to one broker.
#[derive(Clone, Debug)]
pub(super) struct LinkSettings {
    pub(super) address: Address,
    pub(super) sub_client_id: String,
    /// Whether the broker remembers the reading connection, and gets its confirmations when what was read is safe.
    pub(super) lasts: bool,
    pub(super) pub_client_id: String,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) queue: usize,
    pub(super) seed: u64,
    pub(super) node: NodeName,
}

/// One broker.
#[derive(Debug)]
pub(super) struct Link {
    reader: AsyncClient,
    writer: AsyncClient,
    qos: QoS,
    retain: bool,
    broker: String,
    dropped: u64,
}

impl Link {
    /// Starts both connections; they are tried for ever.
    pub(super) fn start(
        settings: LinkSettings,
        topics: &Topics,
        bus: &Bus,
        tasks: &mut JoinSet<Result<(), BoxError>>,
    ) -> Self {
        let LinkSettings { address, queue, seed, .. } = &settings;
        let broker = format!("{}:{}", address.host, address.port);
        // Room for all topics to be subscribed to at once.
        let mut reads = options(&settings, "sub", &settings.sub_client_id);
        reads.set_clean_session(!settings.lasts).set_manual_acks(settings.lasts);
        let (reader, incoming) = AsyncClient::new(reads, 256);
        let (writer, outgoing) = AsyncClient::new(options(&settings, "pub", &settings.pub_client_id), *queue);
        let confirmations = settings.lasts.then(|| {
            let (confirmations, task) = Confirmations::new(reader.clone());
            tasks.spawn(task);
            confirmations
        });
        let read = Reader {
            client: reader.clone(),
            confirmations,
            topics: Arc::clone(topics),
            bus: bus.clone(),
            broker: broker.clone(),
            refused_at: refusals::topic(&settings.node),
            refusals: Refusals::default(),
            told: None,
            drops: Seldom::default(),
        };
        tasks.spawn(read.run(incoming, Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, *seed)));
        tasks.spawn(write(
            outgoing,
            Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, seed.wrapping_add(1)),
            broker.clone(),
        ));
        let qos = match settings.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        Self { reader, writer, qos, retain: settings.retain, broker, dropped: 0 }
    }

    /// Publishes as soon as the broker takes it; dropped when too much waits already.
    pub(super) fn publish(&mut self, topic: &str, payload: &[u8]) {
        if self.writer.try_publish(topic, self.qos, self.retain, payload).is_ok() {
            self.dropped = 0;
            return;
        }
        self.dropped += 1;
        // The first, and then ever fewer: a broker that is away for long must not fill the log.
        if self.dropped.is_power_of_two() {
            tracing::warn!(
                broker = self.broker,
                topic,
                dropped = self.dropped,
                "queue for the MQTT broker is full, message dropped"
            );
        }
    }

    /// Subscribes now if connected; at the next connect in any case.
    pub(super) fn subscribe(&self, topic: &str) {
        if self.reader.try_subscribe(topic, QoS::AtLeastOnce).is_err() {
            tracing::debug!(broker = self.broker, topic, "subscribed to at the next connect");
        }
    }

    /// Unsubscribes now if connected.
    pub(super) fn unsubscribe(&self, topic: &str) {
        if self.reader.try_unsubscribe(topic).is_err() {
            tracing::debug!(broker = self.broker, topic, "not subscribed to from the next connect on");
        }
    }
}

fn options(settings: &LinkSettings, role: &str, id: &str) -> MqttOptions {
    let made_up = || {
        let random = MessageId::random();
        format!("hub-client-{role}-{}", random.as_str().get(..8).unwrap_or_default())
    };
    let id = if id.is_empty() { made_up() } else { id.to_owned() };
    let mut options = MqttOptions::new(id, settings.address.host.clone(), settings.address.port);
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(true).set_max_packet_size(MAX_PACKET, MAX_PACKET);
    if !settings.username.is_empty() {
        options.set_credentials(settings.username.clone(), settings.password.clone());
    }
    options
}

/// Says once that a broker is there or away.
#[derive(Debug, Default)]
struct Presence(Option<bool>);

impl Presence {
    fn is(&mut self, there: bool, broker: &str, why: &dyn std::fmt::Display) {
        if self.0 == Some(there) {
            return;
        }
        self.0 = Some(there);
        if there {
            tracing::info!(broker, "connected to the MQTT broker");
        } else {
            tracing::warn!(broker, error = %why, "MQTT broker is away, trying again");
        }
    }
}

struct Reader {
    client: AsyncClient,
    /// Where the broker remembers us.
    confirmations: Option<Confirmations>,
    topics: Topics,
    bus: Bus,
    broker: String,
    /// Where programs are told of what was dropped, what there is to tell, and when they were told last.
    refused_at: String,
    refusals: Refusals,
    told: Option<Instant>,
    drops: Seldom,
}

impl Reader {
    async fn run(mut self, mut events: EventLoop, mut backoff: Backoff) -> Result<(), BoxError> {
        let mut presence = Presence::default();
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    backoff.reset();
                    presence.is(true, &self.broker, &"");
                    self.subscribe_all();
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => self.read(publish).await,
                Ok(_) => {}
                Err(error) => {
                    self.confirmations.iter().for_each(Confirmations::cut);
                    presence.is(false, &self.broker, &error);
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
            if self.confirmations.as_ref().is_some_and(Confirmations::is_broken) {
                self.confirmations.iter().for_each(Confirmations::cut);
                events.clean();
            }
            self.tell_refusals();
        }
    }

    async fn read(&mut self, publish: Publish) {
        let (to, message) = dispatched(&publish.topic, &publish.payload);
        let lasts = self.confirmations.is_some();
        // A broker that remembers us may not know what is no longer subscribed to.
        let wanted = !lasts || self.is_subscribed_to(&publish.topic);
        let waits = wanted && lasts && to == ModuleName::EDGE_HUB && publish.qos != QoS::AtMostOnce;
        let (envelope, safe) = if waits {
            let (envelope, safe) = Envelope::with_reply(message);
            (envelope, Some(safe))
        } else {
            (Envelope::new(message), None)
        };
        let passed = wanted && self.pass_on(&to, &publish.topic, envelope).await;
        if let Some(confirmations) = &self.confirmations {
            confirmations.follow(publish, safe.filter(|_| passed));
        }
    }

    /// Tells whoever published what was dropped since, once a second at most. What is left is told with the next packet, which
    /// is a keepalive's at the latest.
    fn tell_refusals(&mut self) {
        if self.told.is_some_and(|told| told.elapsed() < refusals::TELL) {
            return;
        }
        let Some(said) = self.refusals.take("a module is busy") else { return };
        self.told = Some(Instant::now());
        if let Err(error) = self.client.try_publish(&*self.refused_at, QoS::AtLeastOnce, false, &*said) {
            tracing::warn!(broker = self.broker, %error, said, "nobody was told that messages were dropped");
        }
    }

    fn subscribe_all(&self) {
        let topics: Vec<String> = self.topics.read().iter().cloned().collect();
        for some in topics.chunks(FILTERS) {
            let filters = some.iter().map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
            if let Err(error) = self.client.try_subscribe_many(filters) {
                tracing::error!(broker = self.broker, %error, "topics not subscribed to");
            }
        }
    }

    fn is_subscribed_to(&self, topic: &str) -> bool {
        // Below a first level of our own: the function knows no topics that begin with `$`, nor with a letter of several bytes.
        let below = |path: &str| format!("t/{path}");
        let topic = below(topic);
        self.topics.read().iter().any(|filter| rumqttc::matches(&topic, &below(filter)))
    }

    /// Says whether the module has it.
    async fn pass_on(&mut self, to: &ModuleName, topic: &str, envelope: Envelope) -> bool {
        // While this waits nothing more is read: the broker holds back whoever publishes.
        match tokio::time::timeout(PATIENCE, self.bus.forward(to, envelope)).await {
            Ok(Ok(())) => return true,
            Ok(Err(SendError::Unknown(module))) => {
                tracing::debug!(topic, %module, "message is for a module that is not here");
            }
            Ok(Err(error)) => self.dropped(topic, &error),
            Err(_) => self.dropped(topic, &format_args!("module {to} is busy")),
        }
        false
    }

    fn dropped(&mut self, topic: &str, why: &dyn std::fmt::Display) {
        self.refusals.note(topic);
        if let Some(unsaid) = self.drops.line("") {
            tracing::warn!(topic, error = %why, unsaid, "message from MQTT dropped");
        }
    }
}

async fn write(mut events: EventLoop, mut backoff: Backoff, broker: String) -> Result<(), BoxError> {
    let mut presence = Presence::default();
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                backoff.reset();
                presence.is(true, &broker, &"");
            }
            Ok(_) => {}
            Err(error) => {
                presence.is(false, &broker, &error);
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_urls_name_what_is_wrong_with_them() {
        let address = Address::parse("tcp://127.0.0.1:1883").unwrap();
        assert_eq!(address, Address { host: "127.0.0.1".into(), port: 1883 });
        assert_eq!(Address::parse("[::1]:1").unwrap().host, "::1");
        for (url, why) in [
            ("ssl://h:1", "TLS"),
            ("http://h:1", "scheme"),
            ("tcp://h", "port is missing"),
            ("tcp://h:70000", "65535"),
            ("tcp://:1", "host is missing"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(url), "{error}");
        }
    }
}
