//! Vendors' modules that hear what is published on MQTT.
//!
//! Each has a connection of its own to each broker, so that what goes to the cloud and to DeviceTwin is not
//! changed by it, and neither by a module that is slow. The broker remembers none of these connections: what
//! is published while EventBus is not connected is not heard.

use std::sync::Arc;

use kubeedge_core::{
    backoff::Backoff,
    bus::Bus,
    failure::BoxError,
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS, SubscribeFilter};
use tokio::task::JoinSet;

use super::link::{MAX_PAYLOAD, Presence};
use crate::backlog::Backlog;

/// How many subscriptions go in one packet.
const FILTERS: usize = 32;
/// Room for packets to the broker, which are subscriptions and confirmations.
const PACKETS: usize = 64;

/// See the module's text. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners(Arc<[Arc<Listener>]>);

/// One module.
#[derive(Debug)]
pub(super) struct Listener {
    module: ModuleName,
    filters: Vec<String>,
    backlog: Backlog,
}

impl Listeners {
    /// One task for each module that listens to topics, which hands it what was heard.
    pub(super) fn start(bus: &Bus, tasks: &mut JoinSet<Result<(), BoxError>>) -> Self {
        let listening = bus.routes().modules().iter().filter(|(_, routes)| !routes.topics().is_empty());
        let listeners = listening.map(|(module, routes)| {
            let (module, filters) = (module.clone(), routes.topics().to_vec());
            let listener = Arc::new(Listener { module, filters, backlog: Backlog::default() });
            let (delivering, bus) = (listener.clone(), bus.clone());
            tasks.spawn(async move {
                // Nobody on MQTT waits for an answer.
                delivering.backlog.deliver(&bus, &delivering.module, drop).await;
                Ok(())
            });
            listener
        });
        Self(listeners.collect())
    }

    /// The modules that listen.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.0.iter()
    }
}

impl Listener {
    /// Listens over a connection of its own, which is tried for ever.
    pub(super) async fn listen(
        self: Arc<Self>,
        options: MqttOptions,
        broker: String,
        mut backoff: Backoff,
    ) -> Result<(), BoxError> {
        let (client, mut events): (_, EventLoop) = AsyncClient::new(options, PACKETS);
        let mut presence = Presence::default();
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    backoff.reset();
                    presence.is(true, &broker, &"");
                    self.subscribe(&client);
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => self.hear(&publish),
                Ok(_) => {}
                Err(error) => {
                    presence.is(false, &broker, &error);
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    fn subscribe(&self, client: &AsyncClient) {
        for some in self.filters.chunks(FILTERS) {
            let filters = some.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
            if let Err(error) = client.try_subscribe_many(filters) {
                tracing::warn!(module = %self.module, %error, "a module's topics could not be subscribed to");
            }
        }
    }

    /// Leaves a publish for the module; never waits.
    fn hear(&self, publish: &Publish) {
        let bytes = publish.payload.len();
        if bytes > MAX_PAYLOAD {
            let (module, topic) = (&self.module, &publish.topic);
            tracing::warn!(%module, topic, bytes, "a message from MQTT is too large for a module, dropped");
            return;
        }
        let message = Message::new(ModuleName::of("bus"), Operation::PUBLISH, publish.topic.clone())
            .in_group(Group::BUS)
            .with(Content::text(&String::from_utf8_lossy(&publish.payload)));
        self.backlog.push(&self.module, message);
    }
}
