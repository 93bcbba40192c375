//! The connections to one broker: one reads, one publishes.

#[cfg(feature = "mqtt-broker")]
use std::net::SocketAddr;
use std::sync::Arc;

use kubeedge_common::log::Seldom;
use kubeedge_core::{
    backoff::Backoff,
    bus::Bus,
    failure::BoxError,
    name::{MessageId, NodeName},
};
use rumqttc::{AsyncClient, MqttOptions, QoS};
use tokio::{task::JoinSet, time::Duration};

use super::{
    EventBusError, Topics, confirm::Confirmations, listeners::Listeners, reader::Reader,
    subscriptions::Subscriptions, writer::Writer,
};
use crate::refusals::{self, Refusals};

/// The largest payload that is passed on or published, in bytes.
pub(super) const MAX_PAYLOAD: usize = 4 << 20;
/// The longest text that MQTT can name a topic by, in bytes.
pub(super) const MAX_TOPIC: usize = 0xffff;
/// Room for a packet's header besides payload and topic.
const HEADER: usize = 16;
/// The largest packet that is read, if only to be refused: whoever published it is told, and a broker that
/// remembers us sends what is behind it. A larger one breaks the connection before any memory is taken for
/// it.
const MAX_READ: usize = 16 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Go tries every five seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
    /// Whether the broker remembers the reading connection, and gets its confirmations when what was read is
    /// safe.
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
    subscriptions: Subscriptions,
    writer: AsyncClient,
    qos: QoS,
    retain: bool,
    broker: String,
    dropped: u64,
}

impl Link {
    /// Starts both connections, and one for each module that listens; they are tried for ever.
    pub(super) fn start(
        settings: LinkSettings,
        topics: &Topics,
        listeners: &Listeners,
        bus: &Bus,
        tasks: &mut JoinSet<Result<(), BoxError>>,
    ) -> Self {
        let LinkSettings { address, queue, seed, .. } = &settings;
        let broker = format!("{}:{}", address.host, address.port);
        let mut reads = options(&settings, "sub", &settings.sub_client_id);
        reads.set_clean_session(!settings.lasts).set_manual_acks(settings.lasts);
        let (reader, incoming) = AsyncClient::new(reads, 256);
        let (writer, outgoing) = AsyncClient::new(options(&settings, "pub", &settings.pub_client_id), *queue);
        let confirmations = settings.lasts.then(|| {
            let (confirmations, task) = Confirmations::new(reader.clone());
            tasks.spawn(task);
            confirmations
        });
        let subscriptions = Subscriptions::new(reader.clone(), Arc::clone(topics));
        let read = Reader {
            client: reader,
            confirmations,
            topics: Arc::clone(topics),
            subscriptions: subscriptions.clone(),
            bus: bus.clone(),
            broker: broker.clone(),
            refused_at: refusals::topic(&settings.node),
            refusals: Refusals::default(),
            too_large: Refusals::default(),
            told: None,
            drops: Seldom::default(),
        };
        let backoff = |seed| Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, seed);
        tasks.spawn(read.run(incoming, backoff(*seed)));
        tasks.spawn(Writer::new(broker.clone(), *queue).run(outgoing, backoff(seed.wrapping_add(1))));
        for (listener, n) in listeners.all().zip(2..) {
            let (options, backoff) = (options(&settings, "module", ""), backoff(seed.wrapping_add(n)));
            tasks.spawn(listener.clone().listen(options, broker.clone(), backoff));
        }
        let qos = match settings.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        Self { subscriptions, writer, qos, retain: settings.retain, broker, dropped: 0 }
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

    /// This topic is read from now on, or no longer: the broker is told now if connected, at the next connect
    /// in any case.
    pub(super) fn changed(&self, topic: &str) {
        self.subscriptions.changed(topic);
    }
}

fn options(settings: &LinkSettings, role: &str, id: &str) -> MqttOptions {
    let made_up = || {
        let random = MessageId::random();
        format!("hub-client-{role}-{}", random.as_str().get(..8).unwrap_or_default())
    };
    let id = if id.is_empty() { made_up() } else { id.to_owned() };
    let mut options = MqttOptions::new(id, settings.address.host.clone(), settings.address.port);
    let max_written = HEADER + MAX_TOPIC + MAX_PAYLOAD;
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(true).set_max_packet_size(MAX_READ, max_written);
    if !settings.username.is_empty() {
        options.set_credentials(settings.username.clone(), settings.password.clone());
    }
    options
}

/// Says once that a broker is there or away.
#[derive(Debug, Default)]
pub(super) struct Presence(Option<bool>);

impl Presence {
    pub(super) fn is(&mut self, there: bool, broker: &str, why: &dyn std::fmt::Display) {
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
