//! What DeviceTwin says over MQTT, by way of EventBus.

use kubeedge_common::log::Seldom;
use kubeedge_core::{
    bus::{Bus, SendError},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
};
use tokio::time::{Duration, timeout};

/// How long EventBus may take to make room. After that messages which find none are dropped at once, until
/// one finds some: an EventBus that cannot start must not keep stored changes from the cloud.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    stuck: bool,
    drops: Seldom,
}

impl Publisher {
    /// Publishes these payloads on their topics, in order.
    pub(super) async fn publish(&mut self, bus: &Bus, said: Vec<(String, String)>) {
        if !bus.has(&ModuleName::EVENT_BUS) {
            return;
        }
        for (topic, payload) in said {
            let message = Message::new(ModuleName::TWIN, Operation::PUBLISH, topic.clone())
                .in_group(Group::BUS)
                .with(Content::text(&payload));
            match self.send(bus, message).await {
                Ok(()) => self.stuck = false,
                Err(SendError::Full(_)) => self.dropped(&topic),
                Err(error) => {
                    tracing::debug!(%error, "nothing is published on MQTT");
                    return;
                }
            }
        }
    }

    async fn send(&self, bus: &Bus, message: Message) -> Result<(), SendError> {
        let to = ModuleName::EVENT_BUS;
        if self.stuck {
            return bus.try_send(&to, message);
        }
        let sent = timeout(PATIENCE, bus.send(&to, message)).await;
        sent.unwrap_or(Err(SendError::Full(to)))
    }

    fn dropped(&mut self, topic: &str) {
        self.stuck = true;
        if let Some(unsaid) = self.drops.line("") {
            tracing::warn!(topic, unsaid, "EventBus takes nothing, message for MQTT dropped");
        }
    }
}
