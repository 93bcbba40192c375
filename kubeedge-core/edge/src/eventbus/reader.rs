//! The connection that reads.

use kubeedge_common::log::Seldom;
use kubeedge_core::{
    backoff::Backoff,
    bus::{Bus, Envelope, SendError},
    failure::BoxError,
    message::Message,
    name::ModuleName,
};
use rumqttc::{AsyncClient, Event, EventLoop, Packet, Publish, QoS};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use super::{
    Topics,
    confirm::Confirmations,
    dispatched,
    link::{MAX_PAYLOAD, Presence},
    subscriptions::Subscriptions,
};
use crate::refusals::{self, Refusals};

/// How long a message that was read waits for a module that is busy, before it is dropped.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Reader {
    pub(super) client: AsyncClient,
    /// Where the broker remembers us.
    pub(super) confirmations: Option<Confirmations>,
    pub(super) topics: Topics,
    pub(super) subscriptions: Subscriptions,
    pub(super) bus: Bus,
    pub(super) broker: String,
    /// Where programs are told of what was dropped, what there is to tell, and when they were told last.
    pub(super) refused_at: String,
    pub(super) refusals: Refusals,
    pub(super) too_large: Refusals,
    pub(super) told: Option<Instant>,
    pub(super) drops: Seldom,
}

impl Reader {
    /// Works until it is dropped.
    pub(super) async fn run(mut self, mut events: EventLoop, mut backoff: Backoff) -> Result<(), BoxError> {
        let mut presence = Presence::default();
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    backoff.reset();
                    presence.is(true, &self.broker, &"");
                    self.subscriptions.renew();
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
            self.subscriptions.tell();
            self.tell_refusals();
        }
    }

    async fn read(&mut self, publish: Publish) {
        // A broker that remembers us may not know what is no longer subscribed to.
        let wanted = self.confirmations.is_none() || self.is_subscribed_to(&publish.topic);
        let bytes = publish.payload.len();
        let safe = if wanted && bytes > MAX_PAYLOAD {
            self.too_large.note(&publish.topic);
            self.log_drop(&publish.topic, &format_args!("its {bytes} bytes are more than {MAX_PAYLOAD}"));
            None
        } else if wanted {
            self.hand_over(&publish).await
        } else {
            None
        };
        if let Some(confirmations) = &self.confirmations {
            confirmations.follow(publish, safe);
        }
    }

    /// Passes a publish on; gives the word that it is safe, if there is one to wait for.
    async fn hand_over(&mut self, publish: &Publish) -> Option<oneshot::Receiver<Message>> {
        let (to, message) = dispatched(&publish.topic, &publish.payload);
        let lasts = self.confirmations.is_some();
        let (envelope, safe) = if lasts && to == ModuleName::EDGE_HUB && publish.qos != QoS::AtMostOnce {
            let (envelope, safe) = Envelope::with_reply(message);
            (envelope, Some(safe))
        } else {
            (Envelope::new(message), None)
        };
        let passed = self.pass_on(&to, &publish.topic, envelope).await;
        safe.filter(|_| passed)
    }

    /// Tells whoever published what was dropped since, once a second at most. What is left is told with the
    /// next packet, which is a keepalive's at the latest.
    fn tell_refusals(&mut self) {
        if self.told.is_some_and(|told| told.elapsed() < refusals::TELL) {
            return;
        }
        let said = [self.refusals.take("a module is busy"), self.too_large.take("larger than 4 MiB")];
        for said in said.into_iter().flatten() {
            self.told = Some(Instant::now());
            if let Err(error) = self.client.try_publish(&*self.refused_at, QoS::AtLeastOnce, false, &*said) {
                tracing::warn!(broker = self.broker, %error, said, "nobody was told that messages were dropped");
            }
        }
    }

    fn is_subscribed_to(&self, topic: &str) -> bool {
        // Below a first level of our own: the function knows no topics that begin with `$`, nor with a letter
        // of several bytes.
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
        self.log_drop(topic, why);
    }

    fn log_drop(&self, topic: &str, why: &dyn std::fmt::Display) {
        if let Some(unsaid) = self.drops.line("") {
            tracing::warn!(topic, error = %why, unsaid, "message from MQTT dropped");
        }
    }
}
