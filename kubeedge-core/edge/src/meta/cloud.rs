//! Questions and patches that the cloud answers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kubeedge_core::{
    bus::{Bus, Envelope},
    clock::Clock,
    message::{Content, Message, resource::ObjectPath},
    name::{Group, MessageId, ModuleName, ResourceVersion},
};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, watch};

use super::{
    head::Head,
    is_error,
    key::ObjectKey,
    kinds::{self, Role},
    objects::Objects,
};

/// Go's words for a patch or deletion without a link.
pub(super) const LOST: &str = "connection lost between EdgeCore and CloudCore";
/// Go's words for a question without a link.
const NOT_CONNECTED: &str = "failed to process remote: not connected";

/// The way to the cloud.
#[derive(Debug)]
pub(super) struct Remote {
    pub bus: Bus,
    pub clock: Clock,
    pub objects: Objects,
    pub connected: watch::Receiver<bool>,
    pub within: Duration,
    pub slots: Semaphore,
}

/// The parts of an answer that decide what is stored. The object itself is not parsed.
#[derive(Default, Deserialize)]
struct Answer<'a> {
    // Absent and null mean different things here.
    #[serde(borrow, default, rename = "Object", deserialize_with = "present")]
    object: Option<&'a RawValue>,
    #[serde(borrow, rename = "Err")]
    error: Option<&'a RawValue>,
    #[serde(borrow, rename = "ErrStatus")]
    status: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// What the cloud's answer holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An object to keep.
    Object(Bytes),
    /// Nothing to keep: a confirmation or a refusal.
    Nothing,
}

pub(super) fn verdict(content: &Content) -> Verdict {
    if content.is_empty() || content.is_ok_text() {
        return Verdict::Nothing;
    }
    let bytes = content.clone().into_data();
    // Go's cloud writes an error that is no API status as `{}`.
    if bytes.as_ref() == b"{}" {
        return Verdict::Nothing;
    }
    let Ok(answer) = serde_json::from_slice::<Answer<'_>>(&bytes) else { return Verdict::Nothing };
    let failed = answer.status.is_some() || answer.error.is_some();
    match answer.object {
        _ if failed => Verdict::Nothing,
        Some(object) if object.get() == "null" => Verdict::Nothing,
        Some(object) => Verdict::Object(bytes.slice_ref(object.get().as_bytes())),
        None => Verdict::Object(bytes),
    }
}

/// Whether the cloud waits for the confirmation of an answer about this object.
fn is_acknowledged(resource: &str) -> bool {
    ObjectPath::parse(resource).is_some_and(|path| kinds::of(path.kind).acknowledged)
}

impl Remote {
    pub(super) fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Asks the cloud, keeps the object it answers with, and passes the answer on.
    pub(super) async fn ask(self: Arc<Self>, envelope: Envelope) {
        match self.call(&envelope.message).await {
            Ok(answer) => {
                let resource = envelope.message.route.resource.clone();
                self.take(resource.as_str(), &answer).await;
                envelope.answer(answer.content);
            }
            Err(why) => envelope.fail(why),
        }
    }

    /// Keeps what an answer holds, and acknowledges it where the cloud waits for that.
    async fn take(&self, resource: &str, answer: &Message) {
        if let Verdict::Object(object) = verdict(&answer.content)
            && self.keep(resource, object, answer.header.resource_version.as_ref()).await
        {
            self.acknowledge(resource, answer).await;
        }
    }

    /// Takes an answer nobody waits for: late, or sent again because its acknowledgement was lost. Go stores
    /// any such answer under its resource, so that a late `OK` takes the place of a pod; here only objects
    /// the cloud wants acknowledged are kept. Says whether this was one.
    pub(super) async fn late(&self, answer: &Message) -> bool {
        let resource = answer.route.resource.as_str();
        let wanted = is_acknowledged(resource);
        if wanted {
            self.take(resource, answer).await;
        } else {
            tracing::debug!(resource, "answer came after its asker had gone, ignored");
        }
        wanted
    }

    /// Sends a status patch under its own id and takes the object that comes back into the copy.
    pub(super) async fn patch(self: Arc<Self>, envelope: Envelope) {
        self.keep_patch(&envelope.message).await;
        if !self.is_connected() {
            // The hub keeps the newest of each object for the next link.
            if let Err(error) = self.bus.send(&ModuleName::EDGE_HUB, envelope.message.clone()).await {
                tracing::debug!(error = %error, "a status is not kept for the cloud");
            }
            return envelope.fail(LOST);
        }
        let Ok(_slot) = self.slots.acquire().await else { return };
        let message = envelope.message.clone();
        match self.bus.request(&ModuleName::EDGE_HUB, message, self.within).await {
            Ok(answer) if is_error(&answer) => envelope.reply_with(answer),
            Ok(answer) => {
                self.take_in(envelope.message.route.resource.as_str(), &answer.content).await;
                envelope.reply_with(answer);
            }
            Err(error) => envelope.fail(error),
        }
    }

    /// Keeps the last patch of an object, `podpatch` or `nodepatch`.
    async fn keep_patch(&self, message: &Message) {
        let key = ObjectKey::of_resource(message.route.resource.as_str());
        if !key.kind.ends_with("patch") {
            return;
        }
        let patch = message.content.clone().into_data();
        if let Err(error) = self.objects.put_patch(&key, patch).await {
            tracing::warn!(error = %error, resource = %message.route.resource, "last patch not stored");
        }
    }

    /// The patched pod or node becomes the copy's: a restart without a link starts from its status.
    async fn take_in(&self, patched: &str, content: &Content) {
        let Some(path) = ObjectPath::parse(patched) else { return };
        let (Some(kind), Verdict::Object(object)) = (path.kind.strip_suffix("patch"), verdict(content))
        else {
            return;
        };
        let key = ObjectKey::of_resource(ObjectPath { kind, ..path }.to_resource().as_str());
        let stored = if kinds::of(kind).role == Role::Node {
            self.objects.put_newest(&key, &Head::of(&object), object, None).await
        } else {
            // A pod's row must not come back after its deletion, nor overwrite its successor.
            self.objects.refresh(&key, object).await
        };
        if let Err(error) = stored {
            tracing::warn!(error = %error, object = %key, "status not stored");
        }
    }

    /// One question under a fresh id; the answer, or why there is none.
    pub(super) async fn call(&self, question: &Message) -> Result<Message, String> {
        if !self.is_connected() {
            return Err(NOT_CONNECTED.to_owned());
        }
        let _slot = self.slots.acquire().await.map_err(|error| error.to_string())?;
        let mut message = question.clone();
        message.header.id = MessageId::random();
        let answer = self.bus.request(&ModuleName::EDGE_HUB, message, self.within).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if is_error(&answer) {
            return Err(String::from_utf8_lossy(&answer.content.data()).into_owned());
        }
        Ok(answer)
    }

    /// Stores an object; says whether it is safe now.
    async fn keep(&self, resource: &str, object: Bytes, version: Option<&ResourceVersion>) -> bool {
        // What is asked for once and then expires is not kept.
        if resource == "k8s/ca.crt" {
            return true;
        }
        let confirms = version.and_then(ResourceVersion::number).filter(|_| is_acknowledged(resource));
        let key = ObjectKey::of_resource(resource);
        let stored = self.objects.put_newest(&key, &Head::of(&object), object, confirms).await;
        if let Err(error) = &stored {
            tracing::warn!(error = %error, resource, "answer of the cloud not stored");
        }
        stored.is_ok()
    }

    async fn acknowledge(&self, resource: &str, answer: &Message) {
        if !is_acknowledged(resource) {
            return;
        }
        let mut ack = answer.answer(Content::ok()).in_group(Group::RESOURCE);
        ack.route.source = ModuleName::EDGE_CONTROLLER;
        if let Err(error) = self.bus.send(&ModuleName::EDGE_HUB, ack).await {
            tracing::warn!(error = %error, "answer of the cloud not acknowledged");
        }
    }
}
