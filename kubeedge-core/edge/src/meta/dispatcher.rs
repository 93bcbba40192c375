//! Does what the rules say with each message: stores, passes on, acknowledges, answers.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    bus::{Bus, Envelope, SendError},
    failure::chain,
    message::{Content, ContentError, Message, resource::ObjectPath},
    name::{Group, ModuleName, ResourceVersion},
    store::StoreError,
};
use serde_json::value::RawValue;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{
    DeviceInventory,
    client::not_found,
    cloud::{self, Remote},
    command::{Command, Origin},
    compare,
    handle::Object,
    head::Head,
    key::{ObjectKey, Selector},
    objects::Objects,
    rules::{Acknowledge, Action, Delivery, Receiver, decide},
    tokens,
};

/// How many requests are worked on beside the mailbox before further ones are refused.
pub(super) const MAX_BACKGROUND: usize = 2048;
pub(super) const TOO_MANY: &str = "too many requests wait for the cloud";
/// How long Edged may take for a volume operation, as in Go.
const VOLUME_TIMEOUT: Duration = Duration::from_secs(60);

/// MetaManager at work on its mailbox.
pub(super) struct Dispatcher {
    pub bus: Bus,
    pub objects: Objects,
    pub remote: Arc<Remote>,
    pub connected: watch::Sender<bool>,
    pub inventory: Option<Arc<dyn DeviceInventory>>,
    /// What is worked on beside the mailbox.
    pub background: JoinSet<()>,
    /// The comparison with the cloud that is under way.
    pub comparing: Option<AbortHandle>,
}

impl Dispatcher {
    pub(super) async fn handle(&mut self, envelope: Envelope) {
        let command = Command::parse(&envelope.message);
        let action = decide(&command, *self.connected.borrow());
        self.act(action, envelope).await;
    }

    async fn act(&mut self, action: Action, envelope: Envelope) {
        match action {
            Action::NoteLink { connected } => drop(self.connected.send_replace(connected)),
            Action::SendToCloud => self.pass(&ModuleName::EDGE_HUB, envelope.message).await,
            Action::ForwardToCloud => self.forward(envelope).await,
            Action::AskCloud => self.with_remote(envelope, Remote::ask),
            Action::AskToken => self.with_remote(envelope, tokens::answer),
            Action::PatchThroughCloud => self.with_remote(envelope, Remote::patch),
            Action::AskCopy => self.ask_copy(envelope).await,
            Action::AskCopyThenCloud => self.ask_copy_then_cloud(envelope).await,
            Action::Store { confirms, then } => self.store(&envelope.message, confirms, then).await,
            Action::StoreLocal { to_twin } => self.store_local(envelope, to_twin).await,
            Action::Remove { then } => self.remove(&envelope.message, false, then).await,
            Action::RemovePod { then } => self.remove(&envelope.message, true, then).await,
            Action::Compare => self.compare(envelope.message),
            Action::OperateVolume => self.operate_volume(envelope),
            Action::KeepLateAnswer => self.keep_late_answer(envelope.message).await,
            Action::RefuseWithoutLink => envelope.fail(cloud::LOST),
            Action::Drop => {}
            Action::Ignore => {
                let route = &envelope.message.route;
                tracing::warn!(operation = %route.operation, resource = %route.resource, "operation not supported, message ignored");
            }
        }
    }

    async fn forward(&self, envelope: Envelope) {
        if let Err(error) = self.bus.forward(&ModuleName::EDGE_HUB, envelope).await {
            tracing::warn!(error = %error, "cannot reach EdgeHub");
        }
    }

    fn with_remote<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        envelope: Envelope,
        work: impl FnOnce(Arc<Remote>, Envelope) -> F,
    ) {
        let remote = self.remote.clone();
        self.in_background(envelope, |envelope| work(remote, envelope));
    }

    /// Does something slow beside the mailbox.
    fn in_background<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        envelope: Envelope,
        work: impl FnOnce(Envelope) -> F,
    ) {
        while self.background.try_join_next().is_some() {}
        if self.background.len() < MAX_BACKGROUND {
            self.background.spawn(work(envelope));
        } else {
            tracing::warn!(resource = %envelope.message.route.resource, "too many questions wait for the cloud, refused");
            envelope.fail(TOO_MANY);
        }
    }

    /// Edged's answer to a volume operation, or why there is none, goes back to the cloud.
    fn operate_volume(&mut self, envelope: Envelope) {
        let bus = self.bus.clone();
        self.in_background(envelope, |envelope| async move {
            let asked = envelope.message;
            let answer = match bus.request(&ModuleName::EDGED, asked.clone(), VOLUME_TIMEOUT).await {
                Ok(answer) => answer,
                Err(error) => asked.error_answer(error),
            };
            if let Err(error) = bus.send(&ModuleName::EDGE_HUB, answer).await {
                tracing::warn!(error = %error, "answer of a volume operation not sent");
            }
        });
    }

    /// A later comparison takes the place of one under way.
    fn compare(&mut self, opening: Message) {
        if let Some(earlier) = self.comparing.take() {
            earlier.abort();
        }
        let (bus, objects, within) = (self.bus.clone(), self.objects.clone(), self.remote.within);
        let inventory = self.inventory.clone();
        while self.background.try_join_next().is_some() {}
        let answers = compare::answer(bus, objects, inventory, opening, within);
        self.comparing = Some(self.background.spawn(answers));
    }

    async fn keep_late_answer(&self, answer: Message) {
        if self.remote.late(&answer).await {
            self.pass(&ModuleName::EDGED, answer).await;
        }
    }

    /// Stores what the cloud sent; what cannot be stored it will send again.
    async fn store(&self, message: &Message, confirms: bool, then: Delivery) {
        let object = message.content.clone().into_data();
        let version = message.header.resource_version.as_ref().and_then(ResourceVersion::number);
        let version = version.filter(|_| confirms);
        let head = Head::of(&object);
        let key = key_of(message, &head);
        match self.objects.put_newest(&key, &head, object, version).await {
            Ok(()) => self.deliver(message, then).await,
            Err(error) => self.complain(message, &error).await,
        }
    }

    async fn remove(&self, message: &Message, is_pod: bool, then: Delivery) {
        let head = Head::of(&message.content.data());
        let key = key_of(message, &head);
        let removed = if is_pod {
            self.objects.remove_pod(&key, &head.uid).await
        } else {
            self.objects.remove(&key, &head.uid).await
        };
        match removed {
            Ok(()) => self.deliver(message, then).await,
            Err(error) => self.complain(message, &error).await,
        }
    }

    /// Passes what was stored or removed on to the module that acts on it, and acknowledges it.
    async fn deliver(&self, message: &Message, then: Delivery) {
        match then.acknowledge {
            Acknowledge::BeforeDelivery => self.acknowledge(message).await,
            Acknowledge::BeforeDeliveryAsTwin => self.acknowledge(&for_twin(message)).await,
            Acknowledge::AfterDelivery => {}
            Acknowledge::Never => {
                tracing::warn!(source = %message.route.source, resource = %message.route.resource, "update of an unknown source stored, not acknowledged");
            }
        }
        match then.to {
            Receiver::Nobody => {}
            Receiver::Edged => self.pass(&ModuleName::EDGED, message.clone()).await,
            Receiver::Twin => self.pass(&ModuleName::TWIN, for_twin(message)).await,
        }
        if then.acknowledge == Acknowledge::AfterDelivery {
            self.acknowledge(message).await;
        }
    }

    /// An update made at the edge: stored, passed on, confirmed to its maker.
    async fn store_local(&self, envelope: Envelope, to_twin: bool) {
        let message = &envelope.message;
        let object = message.content.clone().into_data();
        if let Err(error) = self.objects.put(&key_of(message, &Head::of(&object)), object).await {
            return envelope.fail(error);
        }
        if to_twin {
            self.pass(&ModuleName::TWIN, for_twin(message)).await;
        } else {
            self.pass(&ModuleName::EDGE_HUB, message.clone()).await;
        }
        envelope.answer(Content::ok());
    }

    async fn ask_copy_then_cloud(&mut self, envelope: Envelope) {
        let key = ObjectKey::of_resource(envelope.message.route.resource.as_str());
        match self.objects.get(&key).await {
            Ok(Some(object)) => answer_with(envelope, Content::from_json_bytes(object.bytes)),
            Ok(None) => self.with_remote(envelope, Remote::ask),
            Err(error) => envelope.fail(error),
        }
    }

    /// Answers with the object, or with all of its kind in all namespaces where the resource names none.
    async fn ask_copy(&self, envelope: Envelope) {
        let resource = envelope.message.route.resource.clone();
        let resource = resource.as_str();
        match ObjectPath::parse(resource).filter(|path| path.name.is_empty()) {
            Some(path) => match self.objects.list(&Selector::known(path.kind)).await {
                Ok(objects) => answer_with(envelope, array(&objects)),
                Err(error) => envelope.fail(error),
            },
            None => match self.objects.get(&ObjectKey::of_resource(resource)).await {
                Ok(Some(object)) => answer_with(envelope, Content::from_json_bytes(object.bytes)),
                Ok(None) => answer_with(envelope, Content::json(&not_found(resource))),
                Err(error) => envelope.fail(error),
            },
        }
    }

    /// Tells the cloud why what it sent is not stored; it will send it again.
    async fn complain(&self, message: &Message, error: &StoreError) {
        let why = chain(error);
        tracing::error!(resource = %message.route.resource, error = %why, "cannot store what the cloud sent");
        let mut answer = message.error_answer(why);
        answer.route.source = ModuleName::META_MANAGER;
        self.pass(&ModuleName::EDGE_HUB, answer).await;
    }

    async fn acknowledge(&self, message: &Message) {
        self.pass(&ModuleName::EDGE_HUB, message.answer(Content::ok())).await;
    }

    async fn pass(&self, to: &ModuleName, message: Message) {
        match self.bus.send(to, message).await {
            Ok(()) => {}
            // A device-only gateway has no Edged, a compute node no DeviceTwin.
            Err(SendError::Unknown(module)) => {
                tracing::debug!(%module, "no such module here, message kept in the store only")
            }
            Err(error) => tracing::warn!(error = %error, "message not passed on"),
        }
    }
}

/// The key of what a message carries. What DynamicController sends may be of any group, whatever its kind is
/// called.
fn key_of(message: &Message, head: &Head) -> ObjectKey {
    let trusts_object = Origin::of(&message.route.source) == Origin::DynamicController;
    ObjectKey::of_object(message.route.resource.as_str(), head.group.as_deref(), trusts_object)
}

/// The message with the route DeviceTwin knows MetaManager's objects by.
fn for_twin(message: &Message) -> Message {
    let mut routed = message.clone();
    routed.route.source = ModuleName::of("meta");
    routed.route.group = Group::TWIN;
    routed
}

fn answer_with(envelope: Envelope, content: Result<Content, ContentError>) {
    match content {
        Ok(content) => envelope.answer(content),
        Err(error) => envelope.fail(error),
    }
}

/// An array of objects that are JSON already; a row that is none is left out.
fn array(objects: &[Object]) -> Result<Content, ContentError> {
    let raw = objects.iter().filter_map(|object| serde_json::from_slice::<&RawValue>(&object.bytes).ok());
    Content::json(&raw.collect::<Vec<_>>())
}
