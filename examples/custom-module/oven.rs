//! The half in edgecore: takes the recipe, says how hot the oven is and what it baked, and listens to the
//! door over MQTT.

use async_trait::async_trait;
use kubeedge_core::{
    bus::{Bus, Envelope},
    failure::BoxError,
    kernel::{Module, ModuleContext},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    routes::{Delivery, Routes},
};

use crate::GROUP;

const OVEN: ModuleName = ModuleName::of("acme-oven");

/// Where the oven's door says whether it is open.
const DOOR: &str = "oven/1/door";

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oven {
    recipe: Option<String>,
}

impl Oven {
    /// What comes from the kitchen, and from MQTT.
    async fn heard(&mut self, bus: &Bus, envelope: Envelope) -> Result<(), BoxError> {
        let route = envelope.message.route.clone();
        match (route.operation.as_str(), route.resource.as_str()) {
            ("update", "recipe") => {
                let recipe = envelope.message.content.as_text().unwrap_or_default().into_owned();
                tracing::info!(recipe, "oven: baking");
                self.recipe = Some(recipe);
                // Only now is it confirmed. An oven that fails before this line gets the recipe again.
                envelope.answer(Content::ok());
                self.bake(bus).await?;
            }

            ("query", "temperature") if self.recipe.is_some() => envelope.answer(Content::text("220")),
            ("query", "temperature") => envelope.fail("the oven is cold"),

            ("publish", DOOR) => {
                let state = envelope.message.content.as_text().unwrap_or_default();
                tracing::info!(%state, "oven: door");
            }

            // The hub says why something this half sent did not arrive: what the kitchen refused, or best
            // effort without a link.
            ("error", what) => {
                let why = envelope.message.content.as_text().unwrap_or_default();
                tracing::warn!(what, %why, "oven: not delivered");
            }

            (operation, what) => {
                let why = format!("the oven does not know {operation} {what}");
                envelope.fail(why);
            }
        }
        Ok(())
    }

    async fn bake(&self, bus: &Bus) -> Result<(), BoxError> {
        // Somebody closes the door. Any program on the node may publish; here the oven does it itself.
        let door = Message::new(OVEN, Operation::PUBLISH, DOOR).with(Content::text("closed"));
        bus.send(&ModuleName::EVENT_BUS, door).await?;

        // Of many values the newest is enough.
        for percent in 40..45 {
            let humidity = said("humidity", &format!("{percent} %"));
            let envelope = Envelope::new(humidity).deliver(Delivery::Newest);
            bus.forward(&ModuleName::EDGE_HUB, envelope).await?;
        }

        // What was baked must not be forgotten: EdgeHub stores it, so that it outlives a power cut and days
        // without a link.
        let envelope = Envelope::new(said("batch", "12 loaves")).deliver(Delivery::Reliable);
        bus.forward(&ModuleName::EDGE_HUB, envelope).await?;
        Ok(())
    }
}

/// A message for the kitchen.
fn said(what: &str, text: &str) -> Message {
    Message::new(OVEN, Operation::UPDATE, what).in_group(GROUP).with(Content::text(text))
}

#[async_trait]
impl Module for Oven {
    fn name(&self) -> ModuleName {
        OVEN
    }

    fn group(&self) -> Group {
        GROUP
    }

    /// The kitchen's messages, and the doors of all ovens of the node.
    fn routes(&self) -> Routes {
        Routes::new().group(GROUP).topic("oven/+/door")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                Some(envelope) = ctx.inbox.next() => self.heard(&ctx.bus, envelope).await?,
            }
        }
    }
}
