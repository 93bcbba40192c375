//! The half in cloudcore: gives each oven its recipe, asks how hot it is, and hears what it baked.

use std::{collections::HashSet, pin::Pin, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream::FuturesUnordered};
use kubeedge_cloud::hub::{NodeEvent, Sessions};
use kubeedge_core::{
    bus::{Bus, Envelope},
    failure::BoxError,
    kernel::{Module, ModuleContext},
    message::{Content, Message, resource},
    name::{Group, ModuleName, NodeName, Operation},
    routes::{Delivery, Routes},
};

use crate::GROUP;

/// The name of this half; of the other half it is another.
const KITCHEN: ModuleName = ModuleName::of("acme-kitchen");

/// What the kitchen wants of every oven. A real one would keep it in a ConfigMap or in a resource of its own.
const RECIPE: &str = "rye, 220 degrees";

/// How long an oven may take to say how hot it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a recipe for a node: the oven's answer; nothing if the hub ended before there was one.
type Answer = Pin<Box<dyn Future<Output = (NodeName, Option<Message>)> + Send>>;

/// See the module's text.
pub(crate) struct Kitchen {
    sessions: Sessions,
    /// Nodes whose recipe is under way, or there.
    told: HashSet<NodeName>,
    answers: FuturesUnordered<Answer>,
}

impl Kitchen {
    /// A kitchen that hears from the hub's sessions which nodes come and go.
    pub(crate) fn new(sessions: Sessions) -> Self {
        Self { sessions, told: HashSet::new(), answers: FuturesUnordered::new() }
    }

    /// Sends a node its recipe, once in the life of this process.
    ///
    /// Until the oven has answered, the hub sends it on each new link and from time to time. It does not
    /// outlive cloudcore: after a restart the kitchen tells everybody again what they are to have, as
    /// Kubernetes' controllers do.
    async fn send_recipe(&mut self, bus: &Bus, node: NodeName) -> Result<(), BoxError> {
        if !self.told.insert(node.clone()) {
            return Ok(());
        }
        let recipe = to(&node, Operation::UPDATE, "recipe").with(Content::text(RECIPE));
        let (envelope, answer) = Envelope::with_reply(recipe);
        bus.forward(&ModuleName::CLOUD_HUB, envelope.deliver(Delivery::Reliable)).await?;

        self.answers.push(Box::pin(async move { (node, answer.await.ok()) }));
        Ok(())
    }

    /// The oven has its recipe, or there is none.
    async fn answered(&mut self, bus: &Bus, node: NodeName, answer: Message) -> Result<(), BoxError> {
        if answer.route.operation == Operation::ERROR {
            // For example: "no module of oven-1 takes group acme-bakery".
            let why = answer.content.as_text().unwrap_or_default();
            tracing::warn!(%node, %why, "kitchen: no oven there");
            self.told.remove(&node);
            return Ok(());
        }
        tracing::info!(%node, "kitchen: the oven has its recipe");

        // A request is sent once; its answer, or why there is none, comes back at once or by the deadline.
        let question = to(&node, Operation::QUERY, "temperature");
        let answer = bus.request(&ModuleName::CLOUD_HUB, question, PATIENCE).await?;
        let degrees = answer.content.as_text().unwrap_or_default();
        tracing::info!(%node, %degrees, "kitchen: the oven is hot");
        Ok(())
    }

    /// What an oven says by itself. The hub has put its node before the resource: `node/oven-1/batch`.
    fn heard(&self, envelope: Envelope) {
        let message = &envelope.message;
        let node = resource::target_node(&message.route.resource).unwrap_or_default();
        let said = message.content.as_text().unwrap_or_default().into_owned();
        match message.route.resource.as_str().rsplit('/').next() {
            Some("batch") => tracing::info!(%node, said, "kitchen: baked"),
            Some("humidity") => tracing::info!(%node, said, "kitchen: humidity"),
            _ => return envelope.fail("the kitchen does not know this"),
        }
        // The answer confirms it: without one, the oven's hub would send it again.
        envelope.answer(Content::ok());
    }
}

/// A message for the oven of a node.
fn to(node: &NodeName, operation: Operation, what: &str) -> Message {
    let resource = resource::for_node(node, &what.into());
    Message::new(KITCHEN, operation, resource).in_group(GROUP)
}

#[async_trait]
impl Module for Kitchen {
    fn name(&self) -> ModuleName {
        KITCHEN
    }

    fn group(&self) -> Group {
        GROUP
    }

    /// Whatever ovens send in the group comes here.
    fn routes(&self) -> Routes {
        Routes::new().group(GROUP)
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        // Begins with the nodes that are connected already.
        let mut nodes = self.sessions.subscribe();
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),

                event = nodes.next() => match event {
                    NodeEvent::Connected(node) => self.send_recipe(&ctx.bus, node).await?,
                    NodeEvent::Disconnected(node) => tracing::info!(%node, "kitchen: the oven is away"),
                    _ => {}
                },

                Some((node, answer)) = self.answers.next() => {
                    if let Some(answer) = answer {
                        self.answered(&ctx.bus, node, answer).await?;
                    }
                }

                Some(envelope) = ctx.inbox.next() => self.heard(envelope),
            }
        }
    }
}
